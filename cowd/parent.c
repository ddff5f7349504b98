// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The privileged process: the life of its device, and the one place that waits.
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
 *	not listed in proto.h (requests.c).
 *  P2	Nothing in here waits for I/O to the device: that needs the worker,
 *	which may need us.  So flushing and removing are done by a helper
 *	process, and every state but RUNNING has a deadline.
 *  P3	A start that fails is undone in reverse order; a device is reported
 *	gone only when it is.
 *  P4	Nobody who sends much keeps us from the others: what is read in one
 *	turn is bounded.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <common/clock.h>

#include "log.h"
#include "loop.h"
#include "parent.h"
#include "sandbox.h"
#include "state.h"

#define REQUESTS_A_TURN	64

struct parent parent = {
	.sock = -1,
	.record.fd = -1,
};

void parent_enter(enum parent_state state, int seconds)
{
	parent.state = state;
	parent.deadline = seconds ? clock_now_ms() + seconds * 1000LL : 0;
}

void parent_finish(int exit_status)
{
	parent.done = true;
	parent.exit_status = exit_status;
}

/* ---- what ends ----------------------------------------------------------- */

/* At most @most of what the worker has sent. */
static void read_worker(unsigned int most)
{
	int err = 0;

	while (!err && !parent.done && most--)
		err = request_serve();
	if (!err || err == -EAGAIN)
		return;
	close(parent.sock);	/* its end comes by SIGCHLD */
	parent.sock = -1;
}

static const char *how_it_ended(int status)
{
	static char text[32];

	if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "by signal %d", WTERMSIG(status));
	else
		snprintf(text, sizeof(text), "with status %d",
			 WEXITSTATUS(status));
	return text;
}

void worker_ended(int status)
{
	const char *name = parent.options->name;

	parent.worker = 0;	/* the number may be another's from now on */
	if (parent.sock >= 0)
		read_worker(UINT_MAX);	/* its last words */
	requests_tell_dropped();
	if (parent.state == STARTING) {
		/* One sentence: the worker's own, if it said one. */
		if (!parent.breached)
			cowd_error(-EIO, "the worker ended %s",
				   how_it_ended(status));
		parent_finish(COWD_EXIT_FAILED);
		return;
	}
	if (device_is_gone()) {
		if (status)
			cowd_error(-EIO, "%s is gone and the worker ended %s: what was written since the last flush may be missing",
				   name, how_it_ended(status));
		else if (parent.state != ENDING && parent.state != REMOVING)
			cowd_log(COWD_INFO, "%s was removed by somebody else",
				 name);
		parent_finish(status ? COWD_EXIT_FAILED : COWD_EXIT_OK);
		return;
	}
	cowd_error(-EIO, "the worker ended %s; %s goes on with what the kernel remembers, and cowd --recover %s serves it again",
		   how_it_ended(status), name, name);
	parent_finish(COWD_EXIT_FAILED);
}

void helper_ended(int err)
{
	if (parent.state == CHECKING)
		upgrade_checked(err);
	else if (parent.state == SYNCING)
		stop_synced(err);
	else if (parent.state == REMOVING)
		stop_removed(err);
}

static void timed_out(void)
{
	const struct cowd_options *o = parent.options;

	parent.deadline = 0;
	if (parent.state == STARTING) {
		cowd_error(-ETIMEDOUT, "%s: the image could not be served within %d s",
			   o->image, START_S);
		parent_finish(COWD_EXIT_FAILED);
	} else if (parent.state == ENDING) {
		cowd_error(-ETIMEDOUT, "%s: waited %d s for the last commit of the worker",
			   o->name, END_S);
		parent_finish(COWD_EXIT_FAILED);
	} else {
		helper_kill();
		helper_ended(HELPER_TIMEOUT);
	}
}

/* ---- the loop ----------------------------------------------------------- */

static void read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(parent.signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD) {
			children_reap();
			continue;
		}
		if (parent.udev_deadline) {	/* it is served: udev had its time */
			parent.udev_deadline = clock_now_ms();
			request_udev();
		}
		if (parent.state == STARTING) {
			cowd_error(-EINTR, "%s: interrupted",
				   parent.options->name);
			parent_finish(COWD_EXIT_FAILED);
		} else if (info.ssi_signo != SIGHUP) {
			stop_begin();
		}
	}
}

static int next_timeout(void)
{
	int64_t next = parent.deadline, left;

	if (parent.udev_deadline)
		return parent.udev_step_ms;
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
	if (fds[1].revents)
		read_worker(REQUESTS_A_TURN);
	if (fds[0].revents)
		read_signals();
	if (parent.udev_deadline && !parent.done)
		request_udev();
	if (parent.done)
		return;
	clients_read(fds + 3);	/* after what may let a waiting stop begin */
	if (fds[2].revents)
		cowd_control_accept(&parent.control);
	if (parent.stats_deadline && clock_now_ms() >= parent.stats_deadline)
		clients_answer_status(NULL);
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
		err = device_check();
	if (!err)
		err = cowd_user_find(o->user, &user);
	if (!err) {
		cowd_loop_prepare();
		err = cowd_limit_privileges();
	}
	if (!err)
		err = cowd_control_listen(&parent.control, parent.record.socket);
	if (!err)
		err = worker_start(&user);
	if (!err)
		parent_enter(STARTING, START_S);
	return err;
}

/* Is there a device that goes on without us, and will want --recover? */
static bool device_remains(bool was_ready)
{
	return (was_ready || parent.options->recover || parent.created ||
		parent.record.was_there) && !device_is_gone();
}

static void end(bool was_ready)
{
	bool remains;

	worker_stop();
	helper_stop();
	if (!was_ready)
		device_undo();
	remains = device_remains(was_ready);
	cowd_files_close(&parent.files, !remains);
	if (remains)
		cowd_record_keep(&parent.record);
	else
		cowd_record_remove(&parent.record);
	clients_answer(COWD_CMD_STOP, remains ?
		       "it is still there, and cowd has ended" :
		       was_ready && parent.exit_status ?
		       "it is gone, but its last commit failed: see the log" : NULL);
	cowd_control_close(&parent.control);
}

int cowd_parent(struct cowd_options *options, void (*ready)(void))
{
	bool was_ready;

	parent.options = options;
	parent.ready = ready;
	upgrade_prepare();
	cowd_control_init(&parent.control);
	cowd_files_init(&parent.files, options);
	if (block_signals())
		return COWD_EXIT_FAILED;
	if (start())
		parent_finish(COWD_EXIT_FAILED);
	while (!parent.done)
		loop();
	was_ready = parent.state != STARTING;
	end(was_ready);
	if (was_ready && !parent.exit_status)
		cowd_log(COWD_INFO, "%s is gone", options->name);
	return parent.exit_status;
}
