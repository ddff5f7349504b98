// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The worker: opens the chain with what the parent hands it, then carries
 * questions and answers until the target is gone.
 *
 * What must hold: everything that reads a byte of an image runs after
 * cowd_drop_privileges() and cowd_filter_syscalls().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libcow/cow.h>
#include <common/num.h>

#include "log.h"
#include "options.h"
#include "proto.h"
#include "sandbox.h"
#include "serve.h"
#include "worker.h"

static struct worker {
	int sock;
	bool serving;		/* then a log line may be lost, not waited for */
	bool quiet;		/* while looking at all plugins */
	struct cow_plugins *plugins;
	struct cow_chain *chain;
	struct cowd_serve *serve;
	struct cowd_msg msg;	/* large, so not on the stack */
} worker;

/* ---- log ---------------------------------------------------------------- */

static void log_to_parent(enum cowd_level level, const char *text)
{
	static struct cowd_msg msg;

	memset(&msg, 0, offsetof(struct cowd_msg, text));
	msg.type = COWD_MSG_LOG;
	msg.index = worker.quiet ? COWD_DEBUG : level;
	strncpy(msg.text, text, COWD_LOG_MAX);
	msg.text[COWD_LOG_MAX] = '\0';
	cowd_msg_send(worker.sock, &msg, -1, !worker.serving);
}

static void log_of_libcow(void *ctx, enum cow_log_level level, const char *text)
{
	(void)ctx;
	cowd_log(level == COW_LOG_ERROR ? COWD_ERROR :
		 level == COW_LOG_WARNING ? COWD_WARNING : COWD_DEBUG,
		 "%s", text);
}

/* ---- requests to the parent --------------------------------------------- */

static void send_stats(void)
{
	static struct cowd_msg msg;
	struct cowd_worker_stats *st = &msg.stats;
	struct cow_stats cow;

	memset(&msg, 0, sizeof(msg));
	msg.type = COWD_MSG_STATS;
	if (worker.serve) {
		cowd_serve_stats(worker.serve, &st->serve);
		cow_chain_stats(worker.chain, &cow);
		st->cache_bytes = cow.cache_bytes;
		st->table_hits = cow.table_hits;
		st->table_reads = cow.table_reads;
		st->table_writes = cow.table_writes;
		st->materialised = cow.materialised;
		st->dirty = cow_chain_dirty(worker.chain);
	}
	cowd_msg_send(worker.sock, &msg, -1, 0);
}

/*
 * Send @worker.msg and wait for the answer, which replaces it.  The parent's
 * own waits are bounded.  Without the parent nothing is answered any more: what
 * fails for that alone is for the next daemon to do.
 */
static int call_parent(int fd, int *answer_fd)
{
	int got = -1;
	int err = cowd_msg_send(worker.sock, &worker.msg, fd, 1);

	while (!err) {
		err = cowd_msg_recv(worker.sock, &worker.msg, &got, 1);
		if (err || worker.msg.type == COWD_MSG_REPLY)
			break;
		if (worker.msg.type == COWD_MSG_GET_STATS)
			send_stats();
	}
	if (err && err != -EPIPE)
		cowd_error(err, "the parent cannot be asked: %s", strerror(-err));
	if (err)
		cowd_serve_stop(worker.serve);
	else
		err = worker.msg.status;
	if (answer_fd && !err)
		*answer_fd = got;
	else if (got >= 0)
		close(got);
	return err;
}

static void new_msg(enum cowd_msg_type type)
{
	memset(&worker.msg, 0, sizeof(worker.msg));
	worker.msg.type = type;
}

static int open_file(void *ctx, const char *path, int flags)
{
	int err, fd = -1;

	(void)ctx;
	if (strlen(path) >= sizeof(worker.msg.text))
		return -ENAMETOOLONG;
	new_msg(COWD_MSG_OPEN);
	worker.msg.number = (uint64_t)flags;
	strcpy(worker.msg.text, path);
	err = call_parent(-1, &fd);
	return err ? err : fd < 0 ? -EPROTO : fd;
}

static int file_resized(void *ctx, uint32_t file, uint64_t size)
{
	(void)ctx;
	if (!worker.serving)	/* its device is not made yet */
		return 0;
	new_msg(COWD_MSG_RESIZED);
	worker.msg.index = file;
	worker.msg.number = size;
	return call_parent(-1, NULL);
}

/* ---- start -------------------------------------------------------------- */

static int ignore_plugin(void *ctx, const struct cow_plugin *plugin)
{
	(void)ctx;
	(void)plugin;
	return 0;
}

/*
 * All plugins are loaded while files can still be opened: which formats the
 * backing images have is known only later.  One that is broken matters only
 * if it is the one that is wanted.
 */
static int load_plugins(const struct cowd_options *o)
{
	const struct cow_plugin *plugin;
	int err = cow_plugins_new(o->plugin_dir, log_of_libcow, NULL,
				  &worker.plugins);

	if (err)
		return err;
	err = cow_plugins_get(worker.plugins, o->format, &plugin);
	if (err)
		return err;
	worker.quiet = true;
	cow_plugins_each(worker.plugins, ignore_plugin, NULL);
	worker.quiet = false;
	return 0;
}

static int open_chain(const struct cowd_options *o, int scratch)
{
	struct cow_open_params params = {
		.plugins = worker.plugins,
		.path = o->image,
		.format = o->format,
		.flags = o->read_only ? 0 : COW_OPEN_WRITE,
		.options = o->image_options,
		/* The parent says what may be opened. */
		.allowed_dirs = NULL,
		.cache_bytes = o->cache_bytes,
		.scratch_bytes = o->scratch_bytes,
		.open_file = open_file,
		.file_resized = file_resized,
		.scratch_fd = scratch,
		.direct_data = true,
	};

	struct cow_chain_info info;
	int err;

	err = cow_chain_open(&params, &worker.chain);
	if (err)
		return err;
	cow_chain_info(worker.chain, &info);
	return info.size ? 0 :
	       cowd_error(-EINVAL, "%s: has a disk of 0 bytes, of which no device can be made",
			  o->image);
}

static int make_file_device(uint32_t file)
{
	struct cow_file_info info;
	int err = cow_chain_file(worker.chain, file, &info);

	if (err)
		return cowd_error(err, "file %u of the image is not there", file);
	new_msg(COWD_MSG_FILE);
	worker.msg.index = file;
	worker.msg.flags = (info.writable ? COWD_FILE_WRITABLE : 0) |
			   (info.scratch ? COWD_FILE_SCRATCH : 0);
	return call_parent(info.fd, NULL);
}

/* The device is live when this returns, so serve at once. */
static int make_device(void)
{
	struct cow_chain_info info;
	int err, fd = -1;

	cow_chain_info(worker.chain, &info);
	new_msg(COWD_MSG_CREATE);
	worker.msg.geometry = (struct cowd_geometry){
		.nr_sectors = info.size / COW_SECTOR_SIZE,
		.block_sectors = info.block_size / COW_SECTOR_SIZE,
		.nr_files = info.nr_files,
		.features = cowd_serve_features(worker.chain),
	};
	err = call_parent(-1, &fd);
	if (err)
		return err;
	err = cowd_serve_new(worker.chain, fd, &worker.serve);
	if (err)
		close(fd);
	return err;
}

static int make_devices(void)
{
	struct cow_chain_info info;
	uint32_t file;
	int err = 0;

	cow_chain_info(worker.chain, &info);
	for (file = 0; file < info.nr_files && !err; file++)
		err = make_file_device(file);
	return err ? err : make_device();
}

/* Whoever waits for the end of what cowd says does not wait for us. */
static void leave_terminal(void)
{
	int i, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
}

static int start(const struct cowd_options *o, const struct cowd_user *user,
		 int scratch)
{
	int err;

	leave_terminal();
	cowd_prepare_for_io();
	err = load_plugins(o);
	if (!err)
		err = cowd_drop_privileges(user);
	if (!err)
		err = cowd_filter_syscalls();
	if (!err)
		err = open_chain(o, scratch);
	if (err)
		return err;
	cowd_lock_memory();
	return make_devices();
}

/* ---- serve -------------------------------------------------------------- */

/* What the parent says while we serve; -EPIPE when it is gone. */
static int parent_event(void)
{
	int fd, err;

	for (;;) {
		err = cowd_msg_recv(worker.sock, &worker.msg, &fd, 0);
		if (err)
			return err == -EAGAIN ? 0 : err;
		if (fd >= 0)
			close(fd);
		if (worker.msg.type == COWD_MSG_GET_STATS)
			send_stats();
	}
}

/* The one place where a serving worker waits. */
static int serve(void)
{
	struct pollfd fds[3] = {
		{ .fd = worker.sock, .events = POLLIN },
		{ .fd = cow_event_fd(worker.chain), .events = POLLIN },
	};
	bool io_ended = true;
	int err = 0;

	while (!err) {
		err = cowd_serve_work(worker.serve, io_ended);
		if (err)
			break;
		fds[2].fd = cowd_serve_fd(worker.serve);
		fds[2].events = cowd_serve_wants_events(worker.serve) ? POLLIN : 0;
		if (poll(fds, 3, cowd_serve_timeout(worker.serve)) < 0 &&
		    errno != EINTR)
			return -errno;
		/* What ends from here on keeps its descriptor readable until it is asked. */
		io_ended = fds[1].revents;
		if (fds[2].revents & (POLLHUP | POLLERR))
			return -ENODEV;
		if (fds[0].revents)
			err = parent_event();
	}
	return err;
}

/* The device is gone: what it left uncommitted in memory goes to the image. */
static int finish(void)
{
	struct cow_request commit = { .op = COW_OP_COMMIT };
	int err = 0;

	worker.serving = false;	/* there is no device to be made larger */
	if (!cowd_serve_may_commit(worker.serve))
		return cowd_error(-EIO, "what was not committed is left out, as a flush failed and data may be lost");
	if (cow_chain_dirty(worker.chain))
		err = cow_call(worker.chain, &commit);
	if (err)
		cowd_error(err, "the last commit failed: %s", strerror(-err));
	return err;
}

static int run(void)
{
	int err;

	new_msg(COWD_MSG_READY);
	err = cowd_msg_send(worker.sock, &worker.msg, -1, 1);
	if (err)
		return err;
	worker.serving = true;
	err = serve();
	if (err == -ENODEV)
		return finish();
	/*
	 * Without the parent, or with a broken channel, nothing is committed:
	 * the kernel tells the next daemon what is uncommitted.
	 */
	if (err != -EPIPE)
		cowd_error(err, "the service broke: %s", strerror(-err));
	return err;
}

int cowd_worker(const struct cowd_options *options,
		const struct cowd_user *user, int sock, int scratch)
{
	int err;

	worker.sock = sock;
	cowd_log_to(log_to_parent);
	err = start(options, user, scratch);
	if (!err)
		err = run();
	cowd_serve_stop(worker.serve);
	cow_chain_close(worker.chain);
	cowd_serve_free(worker.serve);
	cow_plugins_free(worker.plugins);
	return err ? COWD_EXIT_FAILED : COWD_EXIT_OK;
}
