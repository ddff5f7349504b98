// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cowd's parent and its sandbox, with another worker: one that was taken over
 * by the image it read.  All of cowd but worker.c and main.c is linked in.
 *
 *	hostile CASE NAME IMAGE [ARG...]
 *	hostile breaches NAME IMAGE CASE...
 *
 * What CASE does is said by the tables below; results go to stdout, one a line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "batch.h"
#include "log.h"
#include "options.h"
#include "parent.h"
#include "probes.h"
#include "proto.h"
#include "sandbox.h"
#include "worker.h"

#define FLOOD_LINES	20000
#define BREACH_WAIT_MS	10000	/* long for the parent, even on a busy machine */

static struct cowd_options options;
static const char *case_name;
static char **case_args;	/* ends with NULL */
static struct cowd_msg msg;
static int sock, scratch_fd;

/* ---- what an honest worker says ----------------------------------------- */

static void new_msg(uint32_t type)
{
	memset(&msg, 0, sizeof(msg));
	msg.type = type;
}

/* The answer's status; *@fd: what came with it. */
static int answer(int *fd)
{
	int got, err;

	do
		err = cowd_msg_recv(sock, &msg, &got, 1);
	while (!err && msg.type != COWD_MSG_REPLY);
	if (fd)
		*fd = got;
	else if (got >= 0)
		close(got);
	return err ? err : msg.status;
}

static int say(int fd)
{
	return cowd_msg_send(sock, &msg, fd, 1);
}

static int ask_open(const char *path, int flags, int *fd)
{
	new_msg(COWD_MSG_OPEN);
	msg.number = (uint64_t)flags;
	snprintf(msg.text, sizeof(msg.text), "%s", path);
	say(-1);
	return answer(fd);
}

static int ask_file(uint32_t index, uint32_t flags, int fd)
{
	new_msg(COWD_MSG_FILE);
	msg.index = index;
	msg.flags = flags;
	say(fd);
	return answer(NULL);
}

static int ask_create(uint64_t nr_sectors, uint32_t block_sectors,
		      uint32_t nr_files, int *fd)
{
	new_msg(COWD_MSG_CREATE);
	msg.geometry.nr_sectors = nr_sectors;
	msg.geometry.block_sectors = block_sectors;
	msg.geometry.nr_files = nr_files;
	say(-1);
	return answer(fd);
}

static int open_image(int *fd)
{
	return ask_open(options.image, O_RDWR, fd);
}

static int add_image(void)
{
	int fd, err = open_image(&fd);

	return err ? err : ask_file(0, COWD_FILE_WRITABLE, fd);
}

static int create(void)
{
	int fd, err = add_image();

	/* What cowd -p raw makes of an image of 4 MiB, so that it can take over. */
	return err ? err : ask_create(8192, 128, 1, &fd);
}

static int serve(void)
{
	int err = create();

	if (err)
		return err;
	new_msg(COWD_MSG_READY);
	return say(-1);
}

/* ---- what breaks the rules ---------------------------------------------- */

static void raw_send(const void *data, size_t len, const int *fds, int nr)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = "";
	struct iovec iov = { (void *)data, len };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (nr) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
	}
	sendmsg(sock, &header, MSG_NOSIGNAL);
}

static void send_cut(uint32_t type, size_t len)
{
	new_msg(type);
	memset(msg.text, 'x', sizeof(msg.text));
	raw_send(&msg, len, NULL, 0);
}

static void too_short(void)	{ send_cut(COWD_MSG_READY, 7); }
static void one_byte(void)	{ send_cut(COWD_MSG_OPEN, 1); }
static void cut_geometry(void)	{ send_cut(COWD_MSG_CREATE, offsetof(struct cowd_msg, geometry) + 8); }
static void cut_stats(void)	{ send_cut(COWD_MSG_STATS, offsetof(struct cowd_msg, stats) + 8); }
static void no_nul(void)	{ send_cut(COWD_MSG_OPEN, sizeof(msg)); }
static void no_nul_in_log(void)	{ send_cut(COWD_MSG_LOG, offsetof(struct cowd_msg, text) + 100); }

static void too_long(void)
{
	static char data[sizeof(struct cowd_msg) + 64];

	data[0] = COWD_MSG_OPEN;
	raw_send(data, sizeof(data), NULL, 0);
}

static void after_the_nul(void)
{
	new_msg(COWD_MSG_OPEN);
	strcpy(msg.text, options.image);
	raw_send(&msg, sizeof(msg), NULL, 0);
}

static void of_type(uint32_t type)
{
	new_msg(type);
	say(-1);
}

static void type_zero(void)	{ of_type(0); }
static void type_unknown(void)	{ of_type(COWD_MSG_GET_STATS + 1); }
static void type_huge(void)	{ of_type(0xffffffffu); }
static void type_reply(void)	{ of_type(COWD_MSG_REPLY); }
static void type_get_stats(void) { of_type(COWD_MSG_GET_STATS); }
static void ready_early(void)	{ of_type(COWD_MSG_READY); }

static void many_fds(int nr)
{
	int fds[8] = { 0, 1, 2, 0, 1, 2, 0, 1 };

	new_msg(COWD_MSG_FILE);
	raw_send(&msg, offsetof(struct cowd_msg, geometry) +
		       sizeof(msg.geometry), fds, nr);
}

static void two_fds(void)	{ many_fds(2); }
static void eight_fds(void)	{ many_fds(8); }

static void fd_with_ready(void)
{
	new_msg(COWD_MSG_READY);
	say(2);
}

/* A breach that is not reached would be ended for another reason. */
static void set_up(int err)
{
	if (!err)
		return;
	printf("LET THROUGH set-up: %s\n", strerror(-err));
	fflush(stdout);
	_exit(COWD_EXIT_FAILED);
}

static void file_out_of_order(void)
{
	int fd;

	set_up(open_image(&fd));
	ask_file(1, COWD_FILE_WRITABLE, fd);
}

static void file_far_out(void)
{
	int fd;

	set_up(open_image(&fd));
	ask_file(0xffffffffu, COWD_FILE_WRITABLE, fd);
}

static void file_twice(void)
{
	int fd;

	set_up(add_image());
	set_up(open_image(&fd));
	ask_file(0, COWD_FILE_WRITABLE, fd);
}

static void file_unknown_flag(void)
{
	int fd;

	set_up(open_image(&fd));
	ask_file(0, 0x80000000u, fd);
}

static void file_without_fd(void)
{
	ask_file(0, COWD_FILE_WRITABLE, -1);
}

static void file_after_create(void)
{
	set_up(create());
	ask_file(1, 0, 2);
}

static void create_more_files(void)
{
	set_up(add_image());
	ask_create(2048, 8, 2, NULL);
}

static void create_twice(void)
{
	set_up(create());
	ask_create(2048, 8, 1, NULL);
}

static void ready_twice(void)
{
	set_up(serve());
	of_type(COWD_MSG_READY);
}

static void create_when_ready(void)
{
	set_up(serve());
	ask_create(2048, 8, 1, NULL);
}

static void garbage_when_ready(void)
{
	set_up(serve());
	type_unknown();
}

static void resize_out_of_range(void)
{
	set_up(add_image());
	new_msg(COWD_MSG_RESIZED);
	msg.index = 1;
	say(-1);
	answer(NULL);
}

/* The parent ends a worker that does one of these. */
static const struct breach {
	const char *name;
	void (*commit)(void);
	bool in_use;		/* the device is, and so stays */
} breaches[] = {
	{ "too-short", too_short, false },
	{ "one-byte", one_byte, false },
	{ "too-long", too_long, false },
	{ "cut-geometry", cut_geometry, false },
	{ "cut-stats", cut_stats, false },
	{ "no-nul", no_nul, false },
	{ "no-nul-in-log", no_nul_in_log, false },
	{ "after-the-nul", after_the_nul, false },
	{ "type-zero", type_zero, false },
	{ "type-unknown", type_unknown, false },
	{ "type-huge", type_huge, false },
	{ "type-reply", type_reply, false },
	{ "type-get-stats", type_get_stats, false },
	{ "two-fds", two_fds, false },
	{ "eight-fds", eight_fds, false },
	{ "fd-with-ready", fd_with_ready, false },
	{ "ready-early", ready_early, false },
	{ "file-out-of-order", file_out_of_order, false },
	{ "file-far-out", file_far_out, false },
	{ "file-twice", file_twice, false },
	{ "file-unknown-flag", file_unknown_flag, false },
	{ "file-without-fd", file_without_fd, false },
	{ "file-after-create", file_after_create, false },
	{ "create-more-files", create_more_files, false },
	{ "create-twice", create_twice, false },
	{ "resize-out-of-range", resize_out_of_range, false },
	{ "ready-twice", ready_twice, true },
	{ "create-when-ready", create_when_ready, true },
	{ "garbage-when-ready", garbage_when_ready, true },
};

/* The parent has to end this process.  Who gets to the end was let through. */
static int commit_breach(const struct breach *breach)
{
	breach->commit();
	usleep(BREACH_WAIT_MS * 1000);
	printf("LET THROUGH %s\n", breach->name);
	fflush(stdout);
	return COWD_EXIT_FAILED;
}

static void list_breaches(bool in_use)
{
	size_t i;

	for (i = 0; i < sizeof(breaches) / sizeof(breaches[0]); i++)
		if (breaches[i].in_use == in_use)
			puts(breaches[i].name);
}

/* ---- what is refused, and said so --------------------------------------- */

static int refused(const char *what, int err)
{
	printf("%s %s: %s\n", err < 0 ? "refused" : "LET THROUGH", what,
	       err < 0 ? strerror(-err) : "it was done");
	return err < 0 ? 0 : 1;
}

/* Paths that are no business of ours, or none that is written. */
static int try_open(int flags)
{
	int fd, bad = 0;
	char **path;

	for (path = case_args; *path; path++)
		bad += refused(*path, ask_open(*path, flags, &fd));
	return bad;
}

/* Files that the parent never gave us, and more than it gave. */
static int try_files(void)
{
	int given, err, bad;

	err = ask_open(options.image, O_RDONLY, &given);
	if (err)
		return refused("nothing: the image cannot be opened", 0);
	bad = refused("our own memory as a file",
		      ask_file(0, 0, memfd_create("x", MFD_CLOEXEC)));
	bad += refused("our socket as a file", ask_file(0, 0, sock));
	bad += refused("a file for reading, as writable",
		       ask_file(0, COWD_FILE_WRITABLE, given));
	return bad;
}

/* Open flags beyond reading and writing. */
static int try_flags(void)
{
	static const struct { const char *name; int flags; } list[] = {
		{ "O_TRUNC", O_RDWR | O_TRUNC }, { "O_CREAT", O_RDWR | O_CREAT },
		{ "O_APPEND", O_RDWR | O_APPEND }, { "O_PATH", O_PATH },
		{ "O_WRONLY", O_WRONLY }, { "O_TMPFILE", O_RDWR | O_TMPFILE },
		{ "mode 3", 3 }, { "all", -1 },
	};
	size_t i;
	int fd, bad = 0;

	for (i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		bad += refused(list[i].name,
			       ask_open(options.image, list[i].flags, &fd));
	return bad;
}

/* Geometries that no device can have. */
static int try_geometries(void)
{
	static const struct { uint64_t sectors; uint32_t block; } list[] = {
		{ 0, 8 }, { 2048, 0 }, { 2048, 3 }, { 2048, 65536 },
		{ UINT64_MAX, 8 }, { 1ull << 63, 8 }, { 2048, UINT32_MAX },
	};
	char what[64];
	size_t i;
	int bad = add_image() ? refused("nothing", 0) : 0;

	for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		snprintf(what, sizeof(what), "%llu sectors, blocks of %u",
			 (unsigned long long)list[i].sectors, list[i].block);
		bad += refused(what, ask_create(list[i].sectors, list[i].block,
						1, NULL));
	}
	return bad;
}

/* Terminal escapes and lines of our own in the log. */
static int try_log(void)
{
	new_msg(COWD_MSG_LOG);
	msg.index = COWD_ERROR;
	strcpy(msg.text, "one\ntwo\033[2Jthree\r");
	say(-1);
	return 0;
}

/* More lines than anybody reads. */
static int try_flood(void)
{
	int i;

	new_msg(COWD_MSG_LOG);
	msg.index = COWD_ERROR;
	for (i = 0; i < FLOOD_LINES; i++) {
		snprintf(msg.text, sizeof(msg.text), "flood %d", i);
		say(-1);
	}
	return 0;
}

/* ---- the worker --------------------------------------------------------- */

static int run_case(void)
{
	size_t i;

	for (i = 0; i < sizeof(breaches) / sizeof(breaches[0]); i++)
		if (!strcmp(case_name, breaches[i].name))
			return commit_breach(&breaches[i]);
	if (!strcmp(case_name, "open"))
		return try_open(O_RDONLY);
	if (!strcmp(case_name, "write"))
		return try_open(O_RDWR);
	if (!strcmp(case_name, "files"))
		return try_files();
	if (!strcmp(case_name, "flags"))
		return try_flags();
	if (!strcmp(case_name, "geometries"))
		return try_geometries();
	if (!strcmp(case_name, "log"))
		return try_log();
	if (!strcmp(case_name, "flood"))
		return try_flood();
	if (!strcmp(case_name, "probes"))
		return probe_all(getppid(), true);
	fprintf(stderr, "hostile: no case %s\n", case_name);
	return 1;
}

/* In place of worker.c's; with the same set-up. */
int cowd_worker(const struct cowd_options *o, const struct cowd_user *user,
		int to_parent, int scratch)
{
	int err;

	sock = to_parent;
	scratch_fd = scratch;
	cowd_prepare_for_io();
	err = cowd_drop_privileges(user);
	if (!err)
		err = cowd_filter_syscalls();
	if (!err)
		err = run_case();
	fflush(stdout);
	return err ? COWD_EXIT_FAILED : COWD_EXIT_OK;
}

static void ready(void)
{
}

static int run_cowd(const char *which)
{
	case_name = which;
	return cowd_parent(&options, ready);
}

static int run_breaches(char **names)
{
	int bad = 0;

	for (; *names; names++)
		bad += batch_breach(options.name, run_cowd, *names);
	return bad ? COWD_EXIT_FAILED : COWD_EXIT_OK;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strncmp(argv[1], "list", 4)) {
		list_breaches(!strcmp(argv[1], "list-in-use"));
		return 0;
	}
	/* As root and with no sandbox: do the probes probe anything? */
	if (argc == 2 && !strcmp(argv[1], "free"))
		return probe_all(getpid(), false);
	if (argc < 4)
		return COWD_EXIT_USAGE;
	case_args = argv + 4;
	options = (struct cowd_options){
		.name = argv[2], .image = argv[3], .format = "raw",
		.run_dir = COWD_RUN_DIR_DEFAULT, .policy = DMU_POLICY_FAIL,
		.foreground = true,
		/* NULL, and so none, unless the script says more. */
		.allowed_write[0] = getenv("HOSTILE_ALLOW_WRITE"),
		.image_options[0] = getenv("HOSTILE_OPTION"),
	};
	if (!strcmp(argv[1], "breaches"))
		return run_breaches(argv + 4);
	return run_cowd(argv[1]);
}
