// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * writer - put a stamped load on a block device or a file, and record it.
 *
 *	writer --prefill --size BYTES PATH	stamps of version 0
 *	writer --record FILE [OPTION...] PATH	the load, see usage()
 *
 * With --mark NAME each answered flush is marked in the log of the
 * dm-log-writes device NAME.  SIGTERM ends the load in order.
 */
#include "die.h"
#include "load.h"
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libdevmapper.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct target {
	int fd;
	bool block_device;
	const char *mark;
};

static int write_all(void *ctx, const void *buf, uint64_t len, uint64_t offset,
		     bool durable)
{
	struct target *t = ctx;
	const char *p = buf;

	while (len) {
		struct iovec iov = { .iov_base = (void *)(uintptr_t)p,
				     .iov_len = len };
		ssize_t n = pwritev2(t->fd, &iov, 1, (off_t)offset,
				     durable ? RWF_DSYNC : 0);

		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;
		p += n;
		len -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int range_ioctl(struct target *t, unsigned long cmd, uint64_t len,
		       uint64_t offset)
{
	uint64_t range[2] = { offset, len };

	return ioctl(t->fd, cmd, range) ? -errno : 0;
}

static int zero(void *ctx, uint64_t len, uint64_t offset)
{
	struct target *t = ctx;

	if (t->block_device)
		return range_ioctl(t, BLKZEROOUT, len, offset);
	return fallocate(t->fd, FALLOC_FL_ZERO_RANGE, (off_t)offset,
			 (off_t)len) ? -errno : 0;
}

static int discard(void *ctx, uint64_t len, uint64_t offset)
{
	struct target *t = ctx;

	if (t->block_device)
		return range_ioctl(t, BLKDISCARD, len, offset);
	return fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)offset, (off_t)len) ? -errno : 0;
}

static int flush(void *ctx)
{
	struct target *t = ctx;

	return fdatasync(t->fd) ? -errno : 0;
}

static void mark(void *ctx, const char *name)
{
	struct target *t = ctx;
	struct dm_task *task;
	char message[64];

	if (!t->mark)
		return;
	snprintf(message, sizeof(message), "mark %s", name);
	task = dm_task_create(DM_DEVICE_TARGET_MSG);
	if (!task || !dm_task_set_name(task, t->mark) ||
	    !dm_task_set_sector(task, 0) ||
	    !dm_task_set_message(task, message) || !dm_task_run(task))
		die("%s: cannot be marked", t->mark);
	dm_task_destroy(task);
}

static void prefill(const char *path, uint64_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	struct target t = { .fd = fd };
	char *buf = xcalloc(1, 1 << 20);
	uint64_t at, n;

	if (fd < 0)
		die_errno(path);
	for (at = 0; at < size; at += n) {
		n = size - at < 1 << 20 ? size - at : 1 << 20;
		stamp_make_run(buf, at / SECTOR, n / SECTOR, 0);
		if (write_all(&t, buf, n, at, false))
			die_errno(path);
	}
	if (fsync(fd) || close(fd))
		die_errno(path);
	free(buf);
}

static uint64_t open_target(struct target *t, const char *path)
{
	uint64_t size;
	struct stat st;

	t->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st))
		die_errno(path);
	t->block_device = S_ISBLK(st.st_mode);
	size = (uint64_t)st.st_size;
	if (t->block_device && ioctl(t->fd, BLKGETSIZE64, &size))
		die_errno(path);
	return size;
}

static void on_term(int sig)
{
	(void)sig;
	load_stop();
}

static void usage(void)
{
	fputs("usage: writer --prefill --size BYTES PATH\n"
	      "       writer --record FILE [OPTION...] PATH\n"
	      "  --mark NAME       put marks into this dm-log-writes device\n"
	      "  --seed N --threads N --ops N --seconds S --block BYTES\n"
	      "  --flush PERCENT --durable PERCENT --zero PERCENT\n"
	      "  --size BYTES      use only the beginning\n"
	      "  --pause MS        between operations, at most\n"
	      "  --errors          I/O may fail\n", stderr);
	exit(2);
}

static const struct option options[] = {
	{ "prefill", no_argument, NULL, 'p' },
	{ "size", required_argument, NULL, 's' },
	{ "record", required_argument, NULL, 'r' },
	{ "mark", required_argument, NULL, 'm' },
	{ "seed", required_argument, NULL, 'e' },
	{ "threads", required_argument, NULL, 't' },
	{ "ops", required_argument, NULL, 'n' },
	{ "seconds", required_argument, NULL, 'T' },
	{ "block", required_argument, NULL, 'b' },
	{ "flush", required_argument, NULL, 'f' },
	{ "durable", required_argument, NULL, 'd' },
	{ "zero", required_argument, NULL, 'z' },
	{ "pause", required_argument, NULL, 'P' },
	{ "errors", no_argument, NULL, 'E' },
	{ 0 }
};

static void set_option(struct load *l, struct target *t, bool *fill, int opt)
{
	switch (opt) {
	case 'p': *fill = true; break;
	case 's': l->size = number(optarg, "--size"); break;
	case 'r': l->record = optarg; break;
	case 'm': t->mark = optarg; break;
	case 'e': l->seed = number(optarg, "--seed"); break;
	case 't': l->threads = (unsigned int)number(optarg, "--threads"); break;
	case 'n': l->ops = number(optarg, "--ops"); break;
	case 'T': l->seconds = number(optarg, "--seconds"); break;
	case 'b': l->block_size = (uint32_t)number(optarg, "--block"); break;
	case 'f': l->flush_percent = (unsigned int)number(optarg, "--flush"); break;
	case 'd': l->durable_percent = (unsigned int)number(optarg, "--durable"); break;
	case 'z': l->zero_percent = (unsigned int)number(optarg, "--zero"); break;
	case 'P': l->pause_ms = (unsigned int)number(optarg, "--pause"); break;
	case 'E': l->errors = true; break;
	default: usage();
	}
}

int main(int argc, char **argv)
{
	struct target t = { .fd = -1 };
	struct load l = {
		.write = write_all, .zero = zero, .discard = discard,
		.flush = flush, .mark = mark, .ctx = &t,
		.seed = 1, .threads = 1, .ops = 100, .block_size = 65536,
		.flush_percent = 10, .durable_percent = 5,
	};
	struct load_result res;
	bool fill = false;
	uint64_t size;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		set_option(&l, &t, &fill, opt);
	if (optind + 1 != argc || (fill ? !l.size : !l.record))
		usage();
	if (fill) {
		prefill(argv[optind], l.size);
		return 0;
	}
	size = open_target(&t, argv[optind]);
	if (!l.size || l.size > size)
		l.size = size;
	signal(SIGTERM, on_term);
	load_run(&l, &res);
	printf("writer: seed %llu: %llu writes (%llu failed), %llu flushes (%llu failed), %llu marks\n",
	       (unsigned long long)l.seed, (unsigned long long)res.writes,
	       (unsigned long long)res.write_errors,
	       (unsigned long long)res.flushes,
	       (unsigned long long)res.flush_errors,
	       (unsigned long long)res.marks);
	return 0;
}
