// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * placed NAME DEVICE... - a placement daemon to start from.
 *
 * Makes /dev/mapper/NAME and answers where its blocks live until SIGTERM: one
 * after the other on the devices in turn, which for one device is linear.  The
 * kernel asks about a block once, and then remembers.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <dmu.h>

#define BLOCK_SECTORS	128	/* 64 KiB */
#define BATCH		64	/* events and replies at once */
#define MAX_DEVICES	16

/* Whole blocks that fit on the device @path. */
static uint64_t device_blocks(const char *path)
{
	uint64_t bytes;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		err(1, "%s", path);
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		errx(1, "%s: is no block device", path);
	close(fd);
	return bytes / 512 / BLOCK_SECTORS;
}

/* The policy: where do the blocks that @event asks about live? */
static int place(struct dmu_channel *channel, const struct dmu_event *event,
		 const struct dmu_table *table)
{
	struct dmu_extent extent = { .block = event->block, .count = 1 };
	uint64_t end = event->block + event->count;
	int error = 0;

	/* One answer may cover far more than was asked: here, everything. */
	if (table->nr_dests == 1) {
		extent.block = 0;
		extent.count = end = table->nr_sectors / BLOCK_SECTORS;
	}
	for (; extent.block < end && !error; extent.block += extent.count) {
		struct dmu_place to = {
			.dev = extent.block % table->nr_dests,
			.sector = extent.block / table->nr_dests * BLOCK_SECTORS,
		};

		error = dmu_reply_linear(channel, event->id, extent, to,
					 DMU_RE_REMEMBER | DMU_RE_WRITABLE);
	}
	return error;
}

/* Answer all that waits; an error ends the daemon. */
static int answer(struct dmu_channel *channel, const struct dmu_table *table)
{
	const struct dmu_event *events;
	int n = dmu_read_events(channel, &events), i, error = 0;

	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	for (i = 0; i < n && !error; i++) {
		if (events[i].type == DMU_EV_MAP)
			error = place(channel, &events[i], table);
		else if (events[i].type == DMU_EV_FLUSH)	/* nothing to commit */
			error = dmu_reply_flushed(channel, events[i].id, 0);
	}
	return error ? error : dmu_flush_replies(channel);
}

/* Attach, serve until a signal.  What is remembered goes on being served. */
static int serve(const struct dmu_table *table, int signals)
{
	struct pollfd fds[] = { { .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	struct dmu_geometry geometry;
	struct dmu_channel *channel;
	int error, fd = dmu_attach(table->key, 0, &geometry);

	if (fd < 0)
		return fd;
	error = dmu_channel_open(fd, BATCH, BATCH, 0, NULL, NULL, &channel);
	if (error)
		return error;
	fds[0].fd = dmu_channel_fd(channel);
	while (!error && !fds[1].revents)
		error = poll(fds, 2, -1) < 0 ? -errno : answer(channel, table);
	dmu_channel_close(channel);
	return error;
}

int main(int argc, char **argv)
{
	struct dmu_dest dests[MAX_DEVICES] = { 0 };
	struct dmu_table table = { .key = argv[1], .block_sectors = BLOCK_SECTORS, .dests = dests };
	uint64_t blocks, least = UINT64_MAX;
	uint32_t cookie;
	sigset_t set;
	int error;

	if (argc < 3 || argc - 2 > MAX_DEVICES)
		errx(1, "NAME DEVICE... (at most %d)", MAX_DEVICES);
	for (; table.nr_dests < (unsigned int)argc - 2; table.nr_dests++) {
		dests[table.nr_dests].dev = argv[table.nr_dests + 2];
		blocks = device_blocks(argv[table.nr_dests + 2]);
		least = blocks < least ? blocks : least;
	}
	table.nr_sectors = least * table.nr_dests * BLOCK_SECTORS;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);

	/* udev reads the new device: wait for it only once it was answered. */
	error = dmu_device_create(argv[1], &table, 0, &cookie);
	if (error)
		errx(1, "%s: %s: %s", argv[1], dmu_device_message_text(), strerror(-error));
	error = serve(&table, signalfd(-1, &set, SFD_CLOEXEC));
	dmu_udev_wait(cookie, 1000);
	if (dmu_device_remove(argv[1], 0, 5000))
		warnx("%s is in use, remove it later", argv[1]);
	if (error)
		errx(1, "%s: %s", argv[1], strerror(-error));
	return 0;
}
