// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The channel: events in, replies out.
 *
 * All memory is taken by dmu_channel_open().  Replies stand in one buffer as
 * the kernel wants them: each struct dmu_reply with its bitmap right behind
 * it.  What must hold: @used never passes @size, and the buffer holds whole
 * messages only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dmu.h"

#define CONTROL_NODE	"/dev/" DMU_DEVICE_NAME

struct dmu_channel {
	int fd;
	unsigned int max_events;
	struct dmu_event *events;
	char *replies;
	size_t used, size;
	dmu_refused_fn *refused;
	void *data;
};

int dmu_attach(const char *key, uint64_t features, struct dmu_geometry *geometry)
{
	struct dmu_attach attach = {
		.version = DMU_VERSION,
		.features = features,
	};
	size_t len = strlen(key);
	int fd, err;

	if (!len || len >= sizeof(attach.key))
		return -EINVAL;
	memcpy(attach.key, key, len);
	fd = open(CONTROL_NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, DMU_IOC_ATTACH, &attach)) {
		err = -errno;
		close(fd);
		return err;
	}
	geometry->block_sectors = attach.block_sectors;
	geometry->nr_devs = attach.nr_devs;
	geometry->nr_sectors = attach.nr_sectors;
	geometry->features = attach.features;
	return fd;
}

int dmu_channel_open(int fd, unsigned int max_events, unsigned int max_replies,
		     size_t bitmap_bytes, dmu_refused_fn *refused, void *data,
		     struct dmu_channel **channel)
{
	struct dmu_channel *ch;

	if (fd < 0 || !max_events || !max_replies || bitmap_bytes % 8)
		return -EINVAL;
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	ch->size = max_replies * sizeof(struct dmu_reply) + bitmap_bytes;
	ch->events = calloc(max_events, sizeof(*ch->events));
	ch->replies = calloc(1, ch->size);
	if (!ch->events || !ch->replies) {
		free(ch->events);
		free(ch->replies);
		free(ch);
		return -ENOMEM;
	}
	ch->fd = fd;
	ch->max_events = max_events;
	ch->refused = refused;
	ch->data = data;
	*channel = ch;
	return 0;
}

void dmu_channel_close(struct dmu_channel *ch)
{
	if (!ch)
		return;
	close(ch->fd);
	free(ch->events);
	free(ch->replies);
	free(ch);
}

int dmu_channel_fd(const struct dmu_channel *ch)
{
	return ch->fd;
}

int dmu_read_events(struct dmu_channel *ch, const struct dmu_event **events)
{
	ssize_t n;

	do
		n = read(ch->fd, ch->events,
			 ch->max_events * sizeof(*ch->events));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ENODEV;
	if (n % sizeof(*ch->events))
		return -EPROTO;
	*events = ch->events;
	return (int)(n / sizeof(*ch->events));
}

/* Does this error end the channel, or is it about one reply? */
static bool is_fatal(int err)
{
	switch (err) {
	case -ENODEV:
	case -ENOTCONN:
	case -EFAULT:
	case -EBADF:
	case -EPIPE:
	case -EIO:
	case -EAGAIN:	/* a reply never has to wait */
		return true;
	default:
		return false;
	}
}

/* Pass over the refused reply at @pos; returns where the next one starts. */
static size_t skip_refused(struct dmu_channel *ch, size_t pos, int err)
{
	const struct dmu_reply *reply = (const void *)(ch->replies + pos);

	if (ch->refused)
		ch->refused(ch->data, reply, err);
	return pos + sizeof(*reply) + reply->bitmap_len;
}

int dmu_flush_replies(struct dmu_channel *ch)
{
	size_t pos = 0, end = ch->used;
	int err = 0;
	ssize_t n;

	while (pos < end) {
		n = write(ch->fd, ch->replies + pos, end - pos);
		if (n >= 0) {
			pos += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		err = -errno;
		if (is_fatal(err))
			break;
		pos = skip_refused(ch, pos, err);
		err = 0;
	}
	ch->used = 0;
	return err;
}

/* Room for a message of @len bytes at the end of the queue, zeroed. */
static int reserve(struct dmu_channel *ch, size_t len, void **room)
{
	int err;

	if (len > ch->size)
		return -E2BIG;
	if (len > ch->size - ch->used) {
		err = dmu_flush_replies(ch);
		if (err)
			return err;
	}
	*room = memset(ch->replies + ch->used, 0, len);
	ch->used += len;
	return 0;
}

static int put(struct dmu_channel *ch, const struct dmu_reply *reply)
{
	void *room;
	int err = reserve(ch, sizeof(*reply), &room);

	if (!err)
		memcpy(room, reply, sizeof(*reply));
	return err;
}

static uint32_t map_type(uint64_t id)
{
	return id ? DMU_RE_MAP : DMU_RE_PRELOAD;
}

/* An unasked mapping is remembered by its nature. */
static uint32_t map_flags(uint64_t id, unsigned int flags)
{
	return id ? flags : flags & ~DMU_RE_REMEMBER;
}

int dmu_reply_linear(struct dmu_channel *ch, uint64_t id,
		     struct dmu_extent extent, struct dmu_place place,
		     unsigned int flags)
{
	struct dmu_reply reply = {
		.type = map_type(id),	.flags = map_flags(id, flags),
		.id = id,		.block = extent.block,
		.count = extent.count,	.kind = DMU_KIND_LINEAR,
		.dev = place.dev,	.sector = place.sector,
	};

	return extent.count ? put(ch, &reply) : -EINVAL;
}

int dmu_reply_cow(struct dmu_channel *ch, uint64_t id,
		  struct dmu_extent extent, struct dmu_place dest,
		  struct dmu_place source, unsigned int flags,
		  uint64_t **bitmap)
{
	struct dmu_reply reply = {
		.type = map_type(id),	.flags = map_flags(id, flags),
		.id = id,		.block = extent.block,
		.count = extent.count,	.kind = DMU_KIND_COW,
		.dev = dest.dev,	.sector = dest.sector,
		.src_dev = source.dev,	.src_sector = source.sector,
	};
	void *room;
	int err;

	if (!extent.count)
		return -EINVAL;
	if (extent.count > DMU_MAX_COW_BLOCKS)
		return -E2BIG;
	if (bitmap)
		reply.bitmap_len = (uint32_t)DMU_BITMAP_LEN(extent.count);
	err = reserve(ch, sizeof(reply) + reply.bitmap_len, &room);
	if (err)
		return err;
	memcpy(room, &reply, sizeof(reply));
	if (bitmap)
		*bitmap = (void *)((struct dmu_reply *)room + 1);
	return 0;
}

static int reply_no_place(struct dmu_channel *ch, uint64_t id,
			  struct dmu_extent extent, unsigned int flags,
			  enum dmu_kind kind)
{
	struct dmu_reply reply = {
		.type = map_type(id),	.flags = map_flags(id, flags),
		.id = id,		.block = extent.block,
		.count = extent.count,	.kind = kind,
	};

	return extent.count ? put(ch, &reply) : -EINVAL;
}

int dmu_reply_zero(struct dmu_channel *ch, uint64_t id,
		   struct dmu_extent extent, unsigned int flags)
{
	return reply_no_place(ch, id, extent, flags, DMU_KIND_ZERO);
}

int dmu_reply_error(struct dmu_channel *ch, uint64_t id,
		    struct dmu_extent extent, unsigned int flags)
{
	return reply_no_place(ch, id, extent, flags, DMU_KIND_ERROR);
}

int dmu_reply_fail(struct dmu_channel *ch, uint64_t id,
		   struct dmu_extent extent, int error)
{
	struct dmu_reply reply = {
		.type = DMU_RE_FAIL,	.id = id,
		.block = extent.block,	.count = extent.count,
		.error = (uint32_t)-error,
	};

	return id && extent.count && error < 0 ? put(ch, &reply) : -EINVAL;
}

static int reply_result(struct dmu_channel *ch, enum dmu_reply_type type,
			uint64_t id, int error)
{
	struct dmu_reply reply = {
		.type = type,	.id = id,	.error = (uint32_t)-error,
	};

	return id && error <= 0 ? put(ch, &reply) : -EINVAL;
}

int dmu_reply_flushed(struct dmu_channel *ch, uint64_t id, int error)
{
	return reply_result(ch, DMU_RE_FLUSHED, id, error);
}

int dmu_reply_done(struct dmu_channel *ch, uint64_t id, int error)
{
	return reply_result(ch, DMU_RE_DONE, id, error);
}

int dmu_invalidate(struct dmu_channel *ch, uint64_t id, struct dmu_extent extent,
		   unsigned int flags)
{
	struct dmu_reply reply = {
		.type = DMU_RE_INVALIDATE,	.id = id,
		.flags = flags,
		.block = extent.block,		.count = extent.count,
	};

	return id && extent.count && !(flags & ~DMU_RE_FORGET) ?
	       put(ch, &reply) : -EINVAL;
}

int dmu_report_lost(struct dmu_channel *ch)
{
	struct dmu_reply reply = { .type = DMU_RE_COMMIT, .flags = DMU_RE_LOST };

	return put(ch, &reply);
}

int dmu_request_commit(struct dmu_channel *ch, unsigned int flags)
{
	struct dmu_reply reply = { .type = DMU_RE_COMMIT, .flags = flags };

	return flags & ~DMU_RE_METADATA ? -EINVAL : put(ch, &reply);
}
