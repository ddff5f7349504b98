// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * placed - a placement daemon to start from.
 *
 *	placed NAME linear DEVICE
 *	placed NAME striped DEVICE DEVICE
 *
 * makes /dev/mapper/NAME and answers where its blocks live, until SIGTERM or
 * SIGINT: all on one device, or the even ones on the first and the odd ones on
 * the second.  The kernel asks about a block once, and then remembers.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <dmu.h>

#define BLOCK_SECTORS	128	/* 64 KiB */
#define BATCH		64	/* events and replies at once */

static int fail(const char *what, int err)
{
	fprintf(stderr, "placed: %s: %s\n", what, strerror(-err));
	return err;
}

/* Whole blocks that fit on @path, or a negative errno. */
static int64_t device_blocks(const char *path)
{
	uint64_t bytes;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return err ? err : (int64_t)(bytes / 512 / BLOCK_SECTORS);
}

/* The policy: where does the run that starts with @event's block live? */
static int place(struct dmu_channel *channel, const struct dmu_event *event,
		 unsigned int nr_devs, uint64_t nr_blocks)
{
	const unsigned int flags = DMU_RE_REMEMBER | DMU_RE_WRITABLE;
	struct dmu_extent extent = { .block = 0, .count = nr_blocks };
	struct dmu_place to = { .dev = 0, .sector = 0 };
	uint64_t block, end = event->block + event->count;
	int err = 0;

	/* One answer may cover far more than was asked: here, everything. */
	if (nr_devs == 1)
		return dmu_reply_linear(channel, event->id, extent, to, flags);
	/* Or a question is answered piece by piece. */
	for (block = event->block; block < end && !err; block++) {
		extent = (struct dmu_extent){ .block = block, .count = 1 };
		to.dev = block % 2;
		to.sector = block / 2 * BLOCK_SECTORS;
		err = dmu_reply_linear(channel, event->id, extent, to, flags);
	}
	return err;
}

/* Answer all that waits; an error ends the daemon. */
static int answer(struct dmu_channel *channel, unsigned int nr_devs,
		  uint64_t nr_blocks)
{
	const struct dmu_event *events;
	int n = dmu_read_events(channel, &events), i, err = 0;

	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	for (i = 0; i < n && !err; i++) {
		if (events[i].type == DMU_EV_MAP)
			err = place(channel, &events[i], nr_devs, nr_blocks);
		else if (events[i].type == DMU_EV_FLUSH)	/* nothing to commit */
			err = dmu_reply_flushed(channel, events[i].id, 0);
	}
	return err ? err : dmu_flush_replies(channel);
}

/* Serve until a signal comes. */
static int serve(struct dmu_channel *channel, int signals,
		 unsigned int nr_devs, uint64_t nr_blocks)
{
	struct pollfd fds[] = {
		{ .fd = dmu_channel_fd(channel), .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
	};
	int err = 0;

	while (!err) {
		if (poll(fds, 2, -1) < 0)
			return -errno;
		if (fds[1].revents)
			return 0;
		err = answer(channel, nr_devs, nr_blocks);
	}
	return fail("channel", err);
}

/* Attach, serve, detach.  What was remembered goes on being served. */
static int run(const struct dmu_table *table, int signals)
{
	struct dmu_geometry geometry;
	struct dmu_channel *channel;
	int err, fd = dmu_attach(table->key, 0, &geometry);

	if (fd < 0)
		return fail("/dev/" DMU_DEVICE_NAME, fd);
	err = dmu_channel_open(fd, BATCH, BATCH, 0, NULL, NULL, &channel);
	if (err)
		return fail("channel", err);
	err = serve(channel, signals, table->nr_dests,
		    geometry.nr_sectors / geometry.block_sectors);
	dmu_channel_close(channel);
	return err;
}

/* The destinations named by @paths, and the size that they give. */
static int fill_table(struct dmu_table *table, struct dmu_dest *dests,
		      char **paths)
{
	int64_t blocks, least = INT64_MAX;
	uint32_t i;

	for (i = 0; i < table->nr_dests; i++) {
		dests[i] = (struct dmu_dest){ .dev = paths[i] };
		blocks = device_blocks(paths[i]);
		if (blocks <= 0)
			return fail(paths[i], blocks ? (int)blocks : -ENOSPC);
		least = blocks < least ? blocks : least;
	}
	table->nr_sectors = (uint64_t)least * table->nr_dests * BLOCK_SECTORS;
	return 0;
}

static int signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
	struct dmu_dest dests[2];
	struct dmu_table table = { .block_sectors = BLOCK_SECTORS, .dests = dests };
	int err, signals = signal_fd();
	uint32_t cookie;

	if (argc == 4 && !strcmp(argv[2], "linear"))
		table.nr_dests = 1;
	else if (argc == 5 && !strcmp(argv[2], "striped"))
		table.nr_dests = 2;
	else
		return -fail("NAME linear DEVICE | NAME striped DEVICE DEVICE", -EINVAL);
	table.key = argv[1];
	if (fill_table(&table, dests, argv + 3))
		return 1;
	/* udev reads the new device, so wait for it only once we answer. */
	err = dmu_device_create(argv[1], &table, 0, &cookie);
	if (err)
		return -fail(dmu_device_message_text(), err);
	err = run(&table, signals);
	dmu_udev_wait(cookie, 1000);
	if (dmu_device_remove(argv[1], 0, 5000))
		fprintf(stderr, "placed: %s is in use, remove it later\n", argv[1]);
	return err ? 1 : 0;
}
