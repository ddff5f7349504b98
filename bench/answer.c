// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * answer - the least daemon that the benchmark needs.
 *
 *	answer KEY ask		answers each question, and nothing is remembered
 *	answer KEY entries	tells of each block, so that no two make one entry
 *
 * attaches to the target KEY, whose table has two destinations, says "ready" and
 * serves until it is killed.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <dmu.h>

#define BATCH	256	/* events and replies at once */

static int fail(const char *what, int err)
{
	fprintf(stderr, "answer: %s: %s\n", what, strerror(-err));
	return err;
}

static void refused(void *data, const struct dmu_reply *reply, int error)
{
	(void)data;
	if (error == -ENOENT)	/* owed no more */
		return;
	fprintf(stderr, "answer: block %" PRIu64 ": %s\n", (uint64_t)reply->block,
		strerror(-error));
}

/* Each block at its own sector, the even ones on the first destination. */
static int place(struct dmu_channel *channel, uint64_t id, uint64_t block,
		 uint32_t block_sectors, unsigned int flags)
{
	struct dmu_extent extent = { .block = block, .count = 1 };
	struct dmu_place to = { .dev = block % 2, .sector = block * block_sectors };

	return dmu_reply_linear(channel, id, extent, to, flags);
}

static int answer(struct dmu_channel *channel, const struct dmu_event *event,
		  uint32_t block_sectors)
{
	uint64_t block, end = event->block + event->count;
	int err = 0;

	if (event->type == DMU_EV_FLUSH)
		return dmu_reply_flushed(channel, event->id, 0);
	if (event->type != DMU_EV_MAP)
		return 0;
	for (block = event->block; block < end && !err; block++)
		err = place(channel, event->id, block, block_sectors,
			    DMU_RE_WRITABLE);
	return err;
}

static int tell_all(struct dmu_channel *channel, const struct dmu_geometry *g)
{
	uint64_t block, end = g->nr_sectors / g->block_sectors;
	int err = 0;

	for (block = 0; block < end && !err; block++)
		err = place(channel, 0, block, g->block_sectors, DMU_RE_REMEMBER);
	return err ? err : dmu_flush_replies(channel);
}

/* Nothing may be told before REPLAY_END was read. */
static int serve(struct dmu_channel *channel, const struct dmu_geometry *g,
		 bool entries)
{
	struct pollfd ready = { .fd = dmu_channel_fd(channel), .events = POLLIN };
	const struct dmu_event *events;
	int n, i, err = 0;

	while (!err) {
		if (poll(&ready, 1, -1) < 0)
			return -errno;
		n = dmu_read_events(channel, &events);
		if (n < 0 && n != -EAGAIN)
			return n;
		for (i = 0; i < n && !err; i++) {
			if (events[i].type != DMU_EV_REPLAY_END) {
				err = answer(channel, &events[i], g->block_sectors);
				continue;
			}
			err = entries ? tell_all(channel, g) : 0;
			puts("ready");
			fflush(stdout);
		}
		err = err ? err : dmu_flush_replies(channel);
	}
	return err;
}

int main(int argc, char **argv)
{
	struct dmu_geometry geometry;
	struct dmu_channel *channel;
	int fd, err;

	if (argc != 3 || (strcmp(argv[2], "ask") && strcmp(argv[2], "entries")))
		return -fail("KEY ask | KEY entries", -EINVAL);
	fd = dmu_attach(argv[1], 0, &geometry);
	if (fd < 0)
		return -fail(argv[1], fd);
	err = dmu_channel_open(fd, BATCH, BATCH, 0, refused, NULL, &channel);
	if (!err)
		err = serve(channel, &geometry, !strcmp(argv[2], "entries"));
	return -fail("channel", err);
}
