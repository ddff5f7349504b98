// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * checker - compare a disk with the record of a load.
 *
 *	checker --record FILE [--size BYTES] [--image FORMAT] [--live] [--wait] PATH
 *
 * PATH is a block device or a file with the disk's contents, or with --image
 * an image: that must open and must have no damage, but may have lost space.
 *
 * With --live once, for a disk that saw no cut.  Else it answers each line
 * "FLOOR CEILING" (numbers of marks, see expect.h) on standard input by a
 * line "ok SECTORS" or "bad REASON"; with --wait PATH is closed by then.
 * With --mount TYPE --device DEVICE that is mounted on the folder mnt while
 * PATH is looked at.
 */
#include "die.h"
#include "expect.h"
#include "record.h"
#include "stamp.h"

#include <libcow/cow.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK (1u << 20)
#define MOUNT_DIR "mnt"

struct checker {
	const char *path, *format;
	uint64_t size;
	struct expect *expect;
	struct cow_plugins *plugins;
	struct cow_chain *chain;
	int fd;
	bool wait;		/* nothing is open when the answer comes */
	const char *mount_type, *mount_device;	/* or NULL */
	char *buf;
	char why[400];
};

static int bad(struct checker *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The first reason is kept. */
static int bad(struct checker *c, const char *fmt, ...)
{
	va_list ap;

	if (*c->why)
		return -1;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	return -1;
}

/* --- An image ------------------------------------------------------------- */

static void on_log(void *ctx, enum cow_log_level level, const char *text)
{
	if (level == COW_LOG_ERROR)
		bad(ctx, "%s", text);
}

static void on_finding(void *ctx, const struct cow_finding *finding)
{
	if (finding->severity == COW_FOUND_CORRUPT)
		bad(ctx, "check: %s", finding->text);
}

static int open_image(struct checker *c)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_check_result res;
	struct cow_chain_info info;

	p.plugins = c->plugins;
	p.path = c->path;
	p.format = c->format;
	if (cow_chain_open(&p, &c->chain))
		return bad(c, "the image does not open");
	if (cow_chain_check(c->chain, false, on_finding, c, &res) ||
	    res.corrupt)
		return bad(c, "the image is damaged");
	cow_chain_info(c->chain, &info);
	if (info.size < c->size)
		return bad(c, "the disk has %llu bytes",
			   (unsigned long long)info.size);
	return 0;
}

/* --- A file --------------------------------------------------------------- */

static int open_file(struct checker *c)
{
	c->fd = open(c->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (c->fd < 0)
		c->fd = open(c->path, O_RDONLY | O_CLOEXEC);
	return c->fd < 0 ? bad(c, "%s: %m", c->path) : 0;
}

static int read_file(struct checker *c, uint64_t len, uint64_t offset)
{
	uint64_t at = 0;
	ssize_t n;

	while (at < len) {
		n = pread(c->fd, c->buf + at, len - at, (off_t)(offset + at));
		if (n < 0)
			return bad(c, "reading at %llu: %m",
				   (unsigned long long)(offset + at));
		if (!n)
			return bad(c, "it ends at %llu",
				   (unsigned long long)(offset + at));
		at += (uint64_t)n;
	}
	return 0;
}

/* --- Compare -------------------------------------------------------------- */

static int open_it(struct checker *c)
{
	if (c->mount_type &&
	    mount(c->mount_device, MOUNT_DIR, c->mount_type, 0, NULL))
		return bad(c, "%s does not mount: %m", c->mount_device);
	return c->format ? open_image(c) : open_file(c);
}

static void close_it(struct checker *c)
{
	cow_chain_close(c->chain);
	c->chain = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->mount_type && umount(MOUNT_DIR) && errno != EINVAL)
		bad(c, "cannot be unmounted: %m");
}

static int read_chunk(struct checker *c, uint64_t len, uint64_t offset)
{
	if (!c->format)
		return read_file(c, len, offset);
	return cow_pread(c->chain, c->buf, len, offset) ?
	       bad(c, "cannot be read at %llu", (unsigned long long)offset) : 0;
}

static int compare_chunk(struct checker *c, uint64_t len, uint64_t offset)
{
	const char *wrong;
	uint64_t i;

	if (read_chunk(c, len, offset))
		return -1;
	for (i = 0; i < len; i += SECTOR) {
		wrong = expect_wrong(c->expect, c->buf + i,
				     (offset + i) / SECTOR);
		if (wrong)
			return bad(c, "%s", wrong);
	}
	return 0;
}

static int check(struct checker *c)
{
	uint64_t at, n;
	int ret;

	*c->why = '\0';
	ret = open_it(c);
	for (at = 0; !ret && at < c->size; at += n) {
		n = c->size - at < CHUNK ? c->size - at : CHUNK;
		ret = compare_chunk(c, n, at);
	}
	if (c->wait)
		close_it(c);
	return *c->why ? -1 : ret;
}

static int answer(struct checker *c)
{
	int ret = check(c);

	if (ret)
		printf("bad %s\n", c->why);
	else
		printf("ok %llu\n", (unsigned long long)(c->size / SECTOR));
	fflush(stdout);
	return ret;
}

/* Who died without an answer would be waited for in vain. */
static void on_child(int sig)
{
	static const char crashed[] = "bad the check crashed\n";
	int saved = errno, status;

	while (waitpid(-1, &status, WNOHANG) > 0)
		if (status && write(1, crashed, sizeof(crashed) - 1) < 0)
			_exit(2);
	errno = saved;
}

/*
 * An image is looked at by a child: to take down what libcow has set up for
 * asynchronous I/O takes the kernel long, and nobody has to wait for it.
 */
static void answer_by_child(struct checker *c)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %m");
	if (pid)
		return;
	signal(SIGCHLD, SIG_DFL);
	answer(c);
	_exit(0);
}

static void serve(struct checker *c)
{
	unsigned long long floor, ceiling;
	char line[100];

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%llu %llu", &floor, &ceiling) != 2)
			die("question '%s' is not understood", line);
		expect_cut(c->expect, floor, ceiling);
		if (!c->wait)
			answer_by_child(c);
		else
			answer(c);
	}
}

/* --- Start ---------------------------------------------------------------- */

/* As large as the record's furthest write, at least. */
static uint64_t size_by_record(const struct record *r)
{
	uint64_t i, end = 0;

	for (i = 0; i < r->nr; i++) {
		const struct record_entry *x = &r->entries[i];

		if (x->type == RECORD_ISSUE && x->sector + x->count > end)
			end = x->sector + x->count;
	}
	return end * SECTOR;
}

static const struct option options[] = {
	{ "record", required_argument, NULL, 'r' },
	{ "size", required_argument, NULL, 's' },
	{ "image", required_argument, NULL, 'i' },
	{ "live", no_argument, NULL, 'l' },
	{ "wait", no_argument, NULL, 'w' },
	{ "mount", required_argument, NULL, 'm' },
	{ "device", required_argument, NULL, 'd' },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct checker c = { .fd = -1 };
	const char *record = NULL;
	bool live = false;
	struct record r;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'r': record = optarg; break;
		case 's': c.size = number(optarg, "--size"); break;
		case 'i': c.format = optarg; break;
		case 'l': live = true; break;
		case 'w': c.wait = true; break;
		case 'm': c.mount_type = optarg; break;
		case 'd': c.mount_device = optarg; break;
		default: return 2;
		}
	}
	if (!record || optind + 1 != argc)
		die("wants --record FILE and a path");
	c.path = argv[optind];
	record_load(record, &r);
	if (!c.size)
		c.size = size_by_record(&r);
	c.expect = expect_new(&r, c.size / SECTOR);
	if (posix_memalign((void **)&c.buf, 4096, CHUNK))
		die("out of memory");
	if (c.format && cow_plugins_new(NULL, on_log, &c, &c.plugins))
		die("no plugins");
	c.wait |= live || !c.format || c.mount_type;
	if (live) {
		expect_live(c.expect);
		return answer(&c) ? 1 : 0;
	}
	signal(SIGCHLD, on_child);
	serve(&c);
	return 0;
}
