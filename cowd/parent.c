// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The privileged process.
 *
 *	STARTING --READY--> RUNNING --stop--> SYNCING --> REMOVING --> ENDING
 *	    |                  |  ^              |            |           |
 *	    | failure          |  +--------------+------------+ busy      |
 *	    v                  | worker dies                              v
 *	undone, exit 1         v                                      exit 0
 *			device stays, exit 1
 *
 * RUNNING --upgrade--> CHECKING --> the program that is installed now, by exec
 *
 * What must hold:
 *  P1	Whatever the worker sends is checked; it can ask for nothing that is
 *	not listed in proto.h.
 *  P2	Nothing in here waits for I/O to the device: that needs the worker,
 *	which may need us.  So flushing and removing are done by a helper
 *	process, and every state but RUNNING has a deadline.
 *  P3	A start that fails is undone in reverse order; a device is reported
 *	gone only when it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dmu.h>
#include <common/clock.h>

#include "control.h"
#include "files.h"
#include "log.h"
#include "options.h"
#include "parent.h"
#include "proto.h"
#include "record.h"
#include "report.h"
#include "sandbox.h"
#include "upgrade.h"
#include "worker.h"

#define START_S		120	/* opening a chain of large images */
#define SYNC_S		60	/* a flush of all that is dirty */
#define REMOVE_S	20	/* 5 s of which for whoever just looks at it */
#define REMOVE_TRY_MS	5000
#define CHECK_S		10	/* does the new program run at all? */
#define END_S		30	/* the worker's last commit */
#define STATS_S		2
#define UDEV_MS		10000

enum state {
	STARTING, RUNNING, CHECKING, SYNCING, REMOVING, ENDING,
};

static const char *const state_names[] = {
	"starting", "running", "upgrading", "flushing", "removing", "ending",
};

static struct parent {
	struct cowd_options *options;
	void (*ready)(void);
	enum state state;
	int64_t deadline;	/* ms, of this state; 0: none */
	int64_t stats_deadline;
	struct cowd_record record;
	struct cowd_control control;
	struct cowd_files files;
	int signals;
	int sock;		/* to the worker */
	pid_t worker;		/* 0: none */
	int worker_status;
	pid_t helper;		/* 0: none */
	bool adopted;		/* there is one, without a record */
	bool created;		/* there is a device that we made */
	bool attached;		/* and the worker has its channel */
	bool breached;		/* the worker is at its end for that */
	uint32_t cookie;
	bool done;
	int exit_status;
	struct cowd_msg msg, answer;
} parent;

static void enter(enum state state, int seconds)
{
	parent.state = state;
	parent.deadline = seconds ? clock_now_ms() + seconds * 1000LL : 0;
}

static void finish(int exit_status)
{
	parent.done = true;
	parent.exit_status = exit_status;
}

/* ---- requests of the worker --------------------------------------------- */

static void reply(int status, int fd)
{
	memset(&parent.answer, 0, sizeof(parent.answer));
	parent.answer.type = COWD_MSG_REPLY;
	parent.answer.status = status;
	cowd_msg_send(parent.sock, &parent.answer, fd, 0);
	if (fd >= 0)
		close(fd);
}

/* P1: what no worker of ours ever says.  Who says it is another's, and ends. */
static void breach(const char *what)
{
	if (parent.breached)
		return;
	parent.breached = true;
	cowd_error(-EPROTO, "the worker was ended: it went against the rules (%s)",
		   what);
	kill(parent.worker, SIGKILL);
}

static void handle_open(void)
{
	int fd = cowd_files_open(&parent.files, parent.msg.text,
				 (int)parent.msg.number);

	reply(fd < 0 ? fd : 0, fd);
}

static void fill_table(struct dmu_table *table, struct dmu_dest *dests,
		       const struct cowd_geometry *geometry)
{
	const struct cowd_options *o = parent.options;
	uint32_t i;

	for (i = 0; i < parent.files.nr_devices; i++)
		dests[i] = (struct dmu_dest){
			.dev = parent.files.devices[i].dev,
			.read_only = parent.files.devices[i].read_only,
		};
	*table = (struct dmu_table){
		.key = o->name,
		.nr_sectors = geometry->nr_sectors,
		.block_sectors = geometry->block_sectors,
		.nr_dests = parent.files.nr_devices,
		.dests = dests,
		/* What waits while we take over shall not fail now. */
		.policy = o->recover ? DMU_POLICY_QUEUE : o->policy,
		.timeout_s = o->timeout_s,
		.no_space_wait = o->no_space_wait,
		.map_memory_kib = o->map_memory_kib,
	};
}

/* Why device-mapper said no, as far as that can be found out. */
static int explain_create(int err)
{
	const char *name = parent.options->name;
	struct dmu_info info;

	if (err == -EBUSY && !dmu_device_info(name, &info))
		return cowd_error(err, "%s: a device of that name exists already",
				  name);
	if (dmu_target_present() == -ENODEV)
		return cowd_error(-ENODEV, "the kernel has no target %s: modprobe dm-userspace",
				  DMU_TARGET_NAME);
	return cowd_error(err, "%s: %s", name, *dmu_device_message_text() ?
			  dmu_device_message_text() : strerror(-err));
}

static int create_device(const struct dmu_table *table)
{
	unsigned int flags = parent.options->read_only ? DMU_DEV_READ_ONLY : 0;
	int err = dmu_device_create(parent.options->name, table, flags,
				    &parent.cookie);

	if (err)
		return explain_create(err);
	parent.created = true;
	return 0;
}

/* As the table line has it, for a message. */
static void set_policy(const struct cowd_options *o)
{
	static const char *const names[] = {
		[DMU_POLICY_QUEUE] = "queue",
		[DMU_POLICY_FAIL] = "fail",
		[DMU_POLICY_TIMEOUT] = "timeout",
	};
	char text[64];
	int err;

	if (o->policy == DMU_POLICY_TIMEOUT)
		snprintf(text, sizeof(text), "policy timeout %u", o->timeout_s);
	else
		snprintf(text, sizeof(text), "policy %s", names[o->policy]);
	err = dmu_device_message(o->name, text);
	if (err)
		cowd_log(COWD_WARNING, "%s: %s: %s", o->name, text,
			 strerror(-err));
}

/* The device is there and serves what it remembers; give it our own files. */
static int take_over_device(const struct dmu_table *table)
{
	const char *name = parent.options->name;
	unsigned int flags = parent.options->read_only ? DMU_DEV_READ_ONLY : 0;
	int err = dmu_device_load(name, table, flags);

	if (!err)
		err = dmu_device_suspend(name, DMU_SUSPEND_NOFLUSH |
					       DMU_SUSPEND_NOLOCKFS);
	if (!err)
		err = dmu_device_resume(name);
	if (err)
		return explain_create(err);
	return 0;
}

static int attach(const struct cowd_geometry *geometry)
{
	struct dmu_geometry got;
	int fd = dmu_attach(parent.options->name, geometry->features, &got);

	if (fd == -ENOENT)
		return cowd_error(fd, "/dev/%s is not there", DMU_DEVICE_NAME);
	if (fd < 0)
		return cowd_error(fd, "/dev/%s: cannot attach to %s: %s",
				  DMU_DEVICE_NAME, parent.options->name,
				  strerror(-fd));
	return fd;
}

static void handle_create(void)
{
	const struct cowd_geometry *geometry = &parent.msg.geometry;
	struct dmu_dest dests[COWD_MAX_FILES];
	struct dmu_table table;
	int err, fd;

	if (parent.state != STARTING || parent.attached || parent.created ||
	    geometry->nr_files != parent.files.nr_devices) {
		breach("a device out of order");
		return;
	}
	if (parent.adopted && !parent.files.found_own) {
		reply(cowd_error(-EEXIST, "%s: a device of that name exists already, and is made of another image",
				 parent.options->name), -1);
		return;
	}
	fill_table(&table, dests, geometry);
	/* First the record: there is no moment with a device and without it. */
	err = cowd_record_write(&parent.record, parent.options, parent.worker);
	if (!err)
		err = parent.options->recover ? take_over_device(&table) :
						create_device(&table);
	fd = err ? err : attach(geometry);
	if (fd >= 0 && parent.options->recover)
		set_policy(parent.options);
	parent.attached = fd >= 0;
	reply(fd < 0 ? fd : 0, fd);
}

static void handle_file(int fd)
{
	const uint32_t known = COWD_FILE_WRITABLE | COWD_FILE_SCRATCH;

	if (parent.state != STARTING || parent.attached || parent.created ||
	    parent.msg.index != parent.files.nr_devices ||
	    parent.msg.flags & ~known || fd < 0)
		breach("a file out of order");
	else
		reply(cowd_files_add(&parent.files, parent.msg.index,
				     parent.msg.flags, fd), -1);
}

static void handle_resized(void)
{
	if (parent.msg.index >= parent.files.nr_devices)
		breach("a file that there is not");
	else
		reply(cowd_files_resized(&parent.files, parent.msg.index), -1);
}

/* Its text goes to a terminal, and to a log of lines. */
static void handle_log(void)
{
	enum cowd_level level = parent.msg.index;
	char *c;

	if (level > COWD_DEBUG)
		level = COWD_DEBUG;
	for (c = parent.msg.text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	cowd_log(level, "%s", parent.msg.text);
}

/* The device is live and answered for: now it is there for everybody. */
static void handle_ready(void)
{
	char node[160];

	if (parent.state != STARTING || !parent.attached) {
		breach("ready out of order");
		return;
	}
	if (dmu_udev_wait(parent.cookie, UDEV_MS))
		cowd_log(COWD_WARNING, "udev has not handled %s within %d s",
			 parent.options->name, UDEV_MS / 1000);
	parent.cookie = 0;
	snprintf(node, sizeof(node), "/dev/mapper/%s", parent.options->name);
	if (access(node, F_OK)) {
		cowd_error(-errno, "%s did not appear", node);
		finish(COWD_EXIT_FAILED);
		return;
	}
	/* From now on our own pages may have to be written to the device. */
	cowd_lock_memory();
	enter(RUNNING, 0);
	cowd_log(COWD_INFO, "%s serves %s", node, parent.options->image);
	parent.ready();
}

static void answer_status(const struct cowd_worker_stats *stats)
{
	char *json;

	parent.stats_deadline = 0;
	json = cowd_report_status(parent.options, &parent.files, parent.worker,
				  state_names[parent.state], stats);
	cowd_control_answer(&parent.control, COWD_CMD_STATUS,
			    json ? json : "{}\n");
	free(json);
}

/* @error: NULL, it is done; or one sentence. */
static void answer_done(enum cowd_command command, const char *error)
{
	char *json = cowd_report_done(parent.options->name,
				      command == COWD_CMD_STOP ? "stopped" :
								 "upgrading",
				      error);

	cowd_control_answer(&parent.control, command, json ? json : "{}\n");
	free(json);
}

static void handle_msg(int fd)
{
	if (fd >= 0 && parent.msg.type != COWD_MSG_FILE) {
		breach("a file that nobody asked for");
		return;
	}
	switch (parent.msg.type) {
	case COWD_MSG_OPEN:
		if (parent.state == STARTING)
			handle_open();
		else
			reply(-EPERM, -1);
		break;
	case COWD_MSG_FILE:
		handle_file(fd);
		break;
	case COWD_MSG_CREATE:
		handle_create();
		break;
	case COWD_MSG_RESIZED:
		handle_resized();
		break;
	case COWD_MSG_READY:
		handle_ready();
		break;
	case COWD_MSG_STATS:
		answer_status(&parent.msg.stats);
		break;
	case COWD_MSG_LOG:
		handle_log();
		break;
	default:
		breach("a message of no known type");
	}
}

/* Everything that the worker has sent; false when it has closed. */
static bool read_worker(void)
{
	int err, fd;

	while (!parent.done && !parent.breached) {
		err = cowd_msg_recv(parent.sock, &parent.msg, &fd, 0);
		if (err == -EAGAIN)
			return true;
		if (err == -EPROTO) {
			breach("what is no message");
			break;
		}
		if (err)
			return false;
		handle_msg(fd);
		if (fd >= 0)
			close(fd);
	}
	return true;
}

/* ---- stopping ----------------------------------------------------------- */

/* The device stays, and so do we. */
__attribute__((format(printf, 1, 2)))
static void stop_failed(const char *format, ...)
{
	char text[COWD_LOG_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	cowd_log(COWD_WARNING, "%s", text);
	answer_done(COWD_CMD_STOP, text);
	enter(RUNNING, 0);
}

/* P2: @work, with the device's name, in a process of its own. */
static int start_helper(int (*work)(const char *name))
{
	sigset_t none;

	parent.helper = fork();
	if (parent.helper < 0) {
		parent.helper = 0;
		return -errno;
	}
	if (parent.helper)
		return 0;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Should it get stuck, it must hold nothing that the next one needs. */
	close(parent.sock);
	close(parent.record.fd);
	close(parent.control.listener);
	_exit(-work(parent.options->name) & 0xff);
}

/* The kernel flushes, asks the worker to commit, and only then returns. */
static int sync_device(const char *name)
{
	char path[160];
	int fd, err;

	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)	/* a read-only device has nothing to flush */
		return errno == EROFS || errno == EACCES ? 0 : -errno;
	err = fsync(fd) ? -errno : 0;
	close(fd);
	return err;
}

static int remove_device(const char *name)
{
	int err = dmu_device_remove(name, 0, REMOVE_TRY_MS);

	return err == -ENXIO ? 0 : err;
}

static void begin_stop(void)
{
	struct dmu_info info;
	int err;

	if (parent.state != RUNNING)
		return;		/* answered when the one under way ends */
	err = dmu_device_info(parent.options->name, &info);
	if (!err && info.open_count > 0) {
		stop_failed("%s is in use (open %d times), so it goes on; stop it again when it is free",
			    parent.options->name, info.open_count);
		return;
	}
	if (!err)
		err = start_helper(sync_device);
	if (err && err != -ENXIO)
		stop_failed("%s: %s, so it goes on", parent.options->name,
			    strerror(-err));
	else
		enter(err ? ENDING : SYNCING, err ? END_S : SYNC_S);
}

static void sync_ended(int err)
{
	if (err) {
		stop_failed("%s: its data could not be made durable (%s), so it goes on",
			    parent.options->name, strerror(-err));
		return;
	}
	err = start_helper(remove_device);
	if (err)
		stop_failed("%s: %s, so it goes on", parent.options->name,
			    strerror(-err));
	else
		enter(REMOVING, REMOVE_S);
}

static void remove_ended(int err)
{
	struct dmu_info info;

	if (err == -EBUSY && !dmu_device_info(parent.options->name, &info))
		stop_failed("%s is in use (open %d times), so it goes on; stop it again when it is free",
			    parent.options->name, info.open_count);
	else if (err)
		stop_failed("%s: cannot be removed (%s), so it goes on",
			    parent.options->name, strerror(-err));
	else
		enter(ENDING, END_S);
}

/* ---- upgrade ------------------------------------------------------------ */

static void end_worker(void);

static void begin_upgrade(void)
{
	if (parent.state == CHECKING)
		return;
	if (parent.state != RUNNING || start_helper(cowd_upgrade_try))
		answer_done(COWD_CMD_UPGRADE, "it cannot be upgraded now");
	else
		enter(CHECKING, CHECK_S);
}

/*
 * cowctl learns that we begin.  In the background, what the new program has to
 * say on standard error goes to it as well.
 */
static void hand_over_client(void)
{
	char *json = cowd_report_done(parent.options->name, "upgrading", NULL);
	int fd = cowd_control_take(&parent.control, COWD_CMD_UPGRADE);

	if (fd >= 0 && json && send(fd, json, strlen(json), MSG_NOSIGNAL) < 0)
		cowd_log(COWD_DEBUG, "cowctl is gone: %s", strerror(errno));
	if (fd >= 0 && !parent.options->foreground)
		dup2(fd, 2);
	if (fd >= 0)
		close(fd);
	free(json);
}

/* What the worker holds in memory is told to the next one by the kernel. */
static void upgrade(void)
{
	struct cowd_options *o = parent.options;

	if (o->policy != DMU_POLICY_QUEUE)	/* the new one brings it back */
		dmu_device_message(o->name, "policy queue");
	cowd_log(COWD_INFO, "version %s makes way for %s", PACKAGE_VERSION,
		 cowd_upgrade_program());
	hand_over_client();
	end_worker();
	cowd_files_close(&parent.files, false);
	cowd_control_close(&parent.control);
	cowd_record_keep(&parent.record);
	cowd_error(cowd_upgrade_exec(o), "%s: cannot be executed: %s",
		   cowd_upgrade_program(), strerror(errno));
	finish(COWD_EXIT_FAILED);
}

static void check_ended(int err)
{
	char text[COWD_LOG_MAX];

	if (!err) {
		upgrade();
		return;
	}
	snprintf(text, sizeof(text), "%s: does not run (%d), so the one that runs goes on",
		 cowd_upgrade_program(), -err);
	cowd_log(COWD_WARNING, "%s", text);
	answer_done(COWD_CMD_UPGRADE, text);
	enter(RUNNING, 0);
}

static void helper_ended(int status)
{
	int err = WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;

	if (parent.state == CHECKING)
		check_ended(err);
	else if (parent.state == SYNCING)
		sync_ended(err);
	else if (parent.state == REMOVING)
		remove_ended(err);
}

/* ---- ends --------------------------------------------------------------- */

static bool device_is_gone(void)
{
	struct dmu_info info;

	return dmu_device_info(parent.options->name, &info) == -ENXIO;
}

static const char *how_it_ended(int status, char *buf, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(buf, size, "by signal %d", WTERMSIG(status));
	else
		snprintf(buf, size, "with status %d", WEXITSTATUS(status));
	return buf;
}

static void worker_ended(int status)
{
	char how[32];

	how_it_ended(status, how, sizeof(how));
	if (parent.state == STARTING) {
		/* One sentence: the worker's own, if it said one. */
		if (!parent.breached)
			cowd_error(-EIO, "the worker ended %s", how);
		finish(COWD_EXIT_FAILED);
		return;
	}
	if (device_is_gone()) {
		if (parent.state != ENDING && parent.state != REMOVING)
			cowd_log(COWD_INFO, "%s was removed by somebody else",
				 parent.options->name);
		finish(status ? COWD_EXIT_FAILED : COWD_EXIT_OK);
		return;
	}
	cowd_error(-EIO, "the worker ended %s; %s goes on with what the kernel remembers, and cowd --recover %s serves it again",
		   how, parent.options->name, parent.options->name);
	finish(COWD_EXIT_FAILED);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == parent.helper) {
			parent.helper = 0;
			helper_ended(status);
		} else if (pid == parent.worker) {
			read_worker();	/* its last words */
			parent.worker = 0;
			worker_ended(status);
		}
	}
}

static void timed_out(void)
{
	enum state state = parent.state;

	parent.deadline = 0;
	switch (state) {
	case STARTING:
		cowd_error(-ETIMEDOUT, "%s: the image could not be served within %d s",
			   parent.options->image, START_S);
		finish(COWD_EXIT_FAILED);
		break;
	case CHECKING:
		kill(parent.helper, SIGKILL);
		parent.helper = 0;
		check_ended(-ETIMEDOUT);
		break;
	case SYNCING:
		kill(parent.helper, SIGKILL);
		parent.helper = 0;
		stop_failed("%s: waited %d s for its data to become durable, so it goes on",
			    parent.options->name, SYNC_S);
		break;
	case REMOVING:
		kill(parent.helper, SIGKILL);
		parent.helper = 0;
		stop_failed("%s: waited %d s for its removal, so it goes on",
			    parent.options->name, REMOVE_S);
		break;
	case ENDING:
		cowd_error(-ETIMEDOUT, "%s: waited %d s for the last commit of the worker",
			   parent.options->name, END_S);
		finish(COWD_EXIT_FAILED);
		break;
	default:
		break;
	}
}

/* ---- the loop ----------------------------------------------------------- */

static void read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(parent.signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD) {
			reap();
		} else if (parent.state == STARTING) {
			cowd_error(-EINTR, "%s: interrupted",
				   parent.options->name);
			finish(COWD_EXIT_FAILED);
		} else if (info.ssi_signo != SIGHUP) {
			begin_stop();
		}
	}
}

static void ask_for_stats(void)
{
	if (parent.stats_deadline)
		return;
	memset(&parent.answer, 0, sizeof(parent.answer));
	parent.answer.type = COWD_MSG_GET_STATS;
	if (cowd_msg_send(parent.sock, &parent.answer, -1, 0))
		answer_status(NULL);
	else
		parent.stats_deadline = clock_now_ms() + STATS_S * 1000;
}

static void read_clients(const struct pollfd *fds)
{
	unsigned int i;

	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		if (fds[i].revents && parent.control.clients[i].fd >= 0)
			cowd_client_read(&parent.control.clients[i]);
	if (cowd_control_waits(&parent.control, COWD_CMD_STATUS))
		ask_for_stats();
	if (cowd_control_waits(&parent.control, COWD_CMD_STOP))
		begin_stop();
	if (cowd_control_waits(&parent.control, COWD_CMD_UPGRADE))
		begin_upgrade();
}

static int next_timeout(void)
{
	int64_t next = parent.deadline, left;

	if (parent.stats_deadline && (!next || parent.stats_deadline < next))
		next = parent.stats_deadline;
	if (!next)
		return -1;
	left = next - clock_now_ms();
	return left < 0 ? 0 : (int)left;
}

/* The one place where the parent waits. */
static void loop(void)
{
	struct pollfd fds[3 + COWD_MAX_CLIENTS];
	unsigned int i;

	fds[0] = (struct pollfd){ parent.signals, POLLIN, 0 };
	fds[1] = (struct pollfd){ parent.sock, POLLIN, 0 };
	fds[2] = (struct pollfd){ parent.control.listener, POLLIN, 0 };
	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		fds[3 + i] = (struct pollfd){
			parent.control.clients[i].fd,
			parent.control.clients[i].command ? 0 : POLLIN, 0 };
	if (poll(fds, 3 + COWD_MAX_CLIENTS, next_timeout()) < 0)
		return;
	if (fds[1].revents && parent.sock >= 0 && !read_worker()) {
		close(parent.sock);	/* its end comes by SIGCHLD */
		parent.sock = -1;
	}
	if (fds[0].revents)
		read_signals();
	if (parent.done)
		return;
	read_clients(fds + 3);
	if (fds[2].revents)
		cowd_control_accept(&parent.control);
	if (parent.stats_deadline && clock_now_ms() >= parent.stats_deadline)
		answer_status(NULL);
	if (parent.deadline && clock_now_ms() >= parent.deadline)
		timed_out();
}

/* ---- start and end ------------------------------------------------------ */

static int block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	parent.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return parent.signals < 0 ? -errno : 0;
}

static int start_worker(const struct cowd_user *user)
{
	int socks[2];

	parent.files.scratch = memfd_create("cowd-scratch", MFD_CLOEXEC);
	if (parent.files.scratch < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return cowd_error(-errno, "the worker cannot be started: %s",
				  strerror(errno));
	parent.sock = socks[0];
	parent.worker = fork();
	if (parent.worker < 0) {
		parent.worker = 0;
		close(socks[1]);
		return cowd_error(-errno, "the worker cannot be started: %s",
				  strerror(errno));
	}
	if (parent.worker) {
		close(socks[1]);
		return 0;
	}
	/* What is the parent's stays with the parent. */
	close(socks[0]);
	close(parent.signals);
	close(parent.record.fd);
	close(parent.control.listener);
	_exit(cowd_worker(parent.options, user, socks[1],
			  parent.files.scratch));
}

/* Is the record that was left one of the very device that is wanted now? */
static bool is_same_device(void)
{
	const struct cowd_options *o = parent.options;
	struct cowd_options left = { .name = o->name };

	return parent.record.was_there &&
	       !cowd_record_read(&parent.record, &left) &&
	       !strcmp(left.image, o->image) &&
	       !strcmp(left.format, o->format) &&
	       left.read_only == o->read_only;
}

/*
 * A device of ours that nobody serves, and no record of it: the run directory
 * was lost.  That it is made of the image is seen when that is opened.
 */
static bool is_orphan(const struct dmu_info *info)
{
	struct dmu_status status;

	return !parent.record.was_there &&
	       !strncmp(info->uuid, DMU_UUID_PREFIX, strlen(DMU_UUID_PREFIX)) &&
	       !dmu_device_status(parent.options->name, &status) &&
	       !status.attached;
}

/* Names and leftovers: what there is must fit what is wanted. */
static int check_device(void)
{
	const char *name = parent.options->name;
	struct dmu_info info;
	int err = dmu_device_info(name, &info);

	if (err && err != -ENXIO)
		return cowd_error(err, "device-mapper cannot be used: %s",
				  err == -EACCES || err == -EPERM ?
				  "this needs root" : err == -ENODEV ?
				  "the kernel has none (modprobe dm-mod)" :
				  strerror(-err));
	if (parent.options->recover && err)
		return cowd_error(-ENXIO, "%s: there is no such device to recover",
				  name);
	if (parent.options->recover || err)
		return 0;
	parent.adopted = is_orphan(&info);
	if (parent.adopted || is_same_device()) {
		cowd_log(COWD_INFO, "%s was left by a cowd that died: serving it again",
			 name);
		parent.options->recover = true;
		return 0;
	}
	if (parent.record.was_there)
		return cowd_error(-EEXIST, "%s: the device was left by a cowd that died; serve it again by cowd --recover %s",
				  name, name);
	return cowd_error(-EEXIST, "%s: a device of that name exists already",
			  name);
}

static void end_worker(void)
{
	int status, i;

	if (parent.sock >= 0)
		close(parent.sock);
	parent.sock = -1;
	if (!parent.worker)
		return;
	/* Without its parent it ends; it holds nothing that must be saved. */
	for (i = 0; i < 200; i++) {
		if (waitpid(parent.worker, &status, WNOHANG) == parent.worker)
			break;
		if (i == 100)
			kill(parent.worker, SIGKILL);
		clock_sleep_ms(10);
	}
	parent.worker = 0;
}

/* Undo a start that failed.  Who waits for the device gets errors now. */
static void undo_device(void)
{
	const char *name = parent.options->name;
	int err;

	if (!parent.created)
		return;
	dmu_device_message(name, "policy fail");
	err = dmu_device_remove(name, 0, REMOVE_TRY_MS);
	if (err && err != -ENXIO)
		cowd_log(COWD_WARNING, "%s could not be removed: %s", name,
			 strerror(-err));
	dmu_udev_wait(parent.cookie, 1000);
}

static int start(void)
{
	struct cowd_options *o = parent.options;
	struct cowd_user user;
	int err;

	cowd_prepare_for_io();
	err = cowd_record_lock(&parent.record, o);
	if (!err && o->recover)
		err = cowd_record_read(&parent.record, o);
	if (!err)
		err = check_device();
	if (!err)
		err = cowd_user_find(o->user, &user);
	if (!err)
		err = cowd_control_listen(&parent.control, parent.record.socket);
	if (!err)
		err = start_worker(&user);
	if (!err)
		enter(STARTING, START_S);
	return err;
}

/* Is there a device that goes on without us, and will want --recover? */
static bool device_remains(bool was_ready)
{
	return (was_ready || parent.options->recover ||
		parent.record.was_there) && !device_is_gone();
}

static void end(bool was_ready)
{
	bool remains;

	end_worker();
	if (!was_ready)
		undo_device();
	remains = device_remains(was_ready);
	cowd_files_close(&parent.files, !remains);
	if (remains)
		cowd_record_keep(&parent.record);
	else
		cowd_record_remove(&parent.record);
	answer_done(COWD_CMD_STOP, remains ?
		    "it is still there, and cowd has ended" : NULL);
	cowd_control_close(&parent.control);
}

int cowd_parent(struct cowd_options *options, void (*ready)(void))
{
	bool was_ready;

	parent.options = options;
	parent.ready = ready;
	parent.sock = -1;
	parent.record.fd = -1;
	cowd_upgrade_prepare();
	cowd_control_init(&parent.control);
	cowd_files_init(&parent.files, options);
	if (block_signals())
		return COWD_EXIT_FAILED;
	if (start())
		finish(COWD_EXIT_FAILED);
	while (!parent.done)
		loop();
	was_ready = parent.state != STARTING;
	end(was_ready);
	if (was_ready && !parent.exit_status)
		cowd_log(COWD_INFO, "%s is gone", options->name);
	return parent.exit_status;
}
