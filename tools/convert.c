// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * convert.c - the contents of one image into a new one.
 *
 * Only data is read: not what an image says is zero, nor the holes of its
 * files.  Only data is written: a granule (a block of the target, or 4 KiB
 * where each block has its place already) that reads right before it is
 * written is left alone.  That is so for zeroes, and over a backing image for
 * all that is the same there.
 */
#include "convert.h"
#include "extent.h"
#include "progress.h"
#include "tool.h"

#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (2u << 20)
#define GRANULE_PLACED 4096u
#define GRANULE_MAX (64u << 10)

struct copy {
	const struct convert *job;
	struct cow_chain *from, *to;
	struct progress progress;
	uint32_t granule;	/* bytes */
	uint64_t size;		/* bytes, of the source's disk */
	uint64_t written;	/* bytes */
	bool over;		/* the target has a backing image */
	uint8_t *buf, *old;	/* PIECE each */
};

static volatile sig_atomic_t stopped;

static void on_signal(int nr)
{
	stopped = nr;
}

/* Not where it is ignored, as by nohup. */
static void catch(int nr)
{
	struct sigaction sa = {
		.sa_handler = on_signal,
		.sa_flags = SA_RESTART,
	}, was;

	if (sigaction(nr, NULL, &was) == 0 && was.sa_handler != SIG_IGN)
		sigaction(nr, &sa, NULL);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* --- One piece ------------------------------------------------------------ */

static size_t granule_at(const struct copy *c, uint64_t start, size_t len,
			 size_t at)
{
	uint64_t pos = start + at;

	return num_min(num_round_down(pos, c->granule) + c->granule - pos,
		       len - at);
}

static bool reads_right(const struct copy *c, size_t at, size_t len)
{
	if (c->over)
		return !memcmp(c->buf + at, c->old + at, len);
	return is_zero(c->buf + at, len);
}

static int put(struct copy *c, uint64_t start, size_t from, size_t end)
{
	size_t len = end - from;

	if (!len)
		return 0;
	c->written += len;
	if (c->over && is_zero(c->buf + from, len))
		return cow_pwrite_zeroes(c->to, start + from, len);
	return cow_pwrite(c->to, c->buf + from, len, start + from);
}

/* buf holds what [start, start + len) must read as. */
static int put_piece(struct copy *c, uint64_t start, size_t len)
{
	size_t from = 0, at, n;
	int ret = 0;

	if (c->over)
		ret = cow_pread(c->to, c->old, len, start);
	for (at = 0; !ret && at < len; at += n) {
		n = granule_at(c, start, len, at);
		if (!reads_right(c, at, n))
			continue;
		ret = put(c, start, from, at);
		from = at + n;
	}
	return ret ? ret : put(c, start, from, len);
}

/* --- Extents -------------------------------------------------------------- */

/* What was made for us alone is not kept: the scratch file is memory. */
static void drop_made(const struct extent *e, uint64_t start, uint64_t len)
{
	int ret;

	if (e->kind != EXTENT_MADE)
		return;
	ret = fallocate(e->file.fd, FALLOC_FL_PUNCH_HOLE |
			FALLOC_FL_KEEP_SIZE,
			(off_t)(e->offset + (start - e->start)), (off_t)len);
	(void)ret;
}

static int copy_piece(struct copy *c, const struct extent *e, uint64_t start,
		      size_t len)
{
	int ret = 0;

	if (e->kind == EXTENT_ZERO)
		memset(c->buf, 0, len);
	else
		ret = cow_pread(c->from, c->buf, len, start);
	if (!ret)
		ret = put_piece(c, start, len);
	drop_made(e, start, len);
	return ret;
}

static int interrupted(struct copy *c)
{
	progress_end(&c->progress);
	return fail(-EINTR, "%s: was not made: stopped by signal %d",
		    c->job->target.path, (int)stopped);
}

static int copy_extent(struct copy *c, const struct extent *e)
{
	uint64_t end = e->start + e->len, at, n;
	int ret = 0;

	if (e->kind == EXTENT_ZERO && !c->over)
		return 0;
	for (at = e->start; !ret && at < end; at += n) {
		/* The next piece begins at a granule. */
		n = num_min(PIECE - at % PIECE, end - at);
		ret = stopped ? interrupted(c) : copy_piece(c, e, at, n);
		progress_at(&c->progress, at + n, c->written);
	}
	return ret;
}

/* Over a backing image: where both are zero there is nothing to do. */
static int skip_zeroes(struct copy *c, struct extent *e)
{
	struct extent t;
	int ret;

	if (e->kind != EXTENT_ZERO || !c->over)
		return 0;
	ret = extent_at(c->to, e->start, &t);
	if (ret)
		return ret;
	e->len = num_min(e->len, t.len);
	if (t.kind == EXTENT_ZERO) {
		e->start += e->len;
		e->len = 0;
	}
	return 0;
}

static int copy_all(struct copy *c)
{
	struct extent e;
	uint64_t at;
	int ret = 0;

	for (at = 0; !ret && at < c->size; at = e.start + e.len) {
		ret = stopped ? interrupted(c) : extent_at(c->from, at, &e);
		if (!ret)
			ret = skip_zeroes(c, &e);
		if (!ret)
			ret = copy_extent(c, &e);
		if (!ret)
			progress_at(&c->progress, e.start + e.len, c->written);
	}
	return ret;
}

/* --- All of it ------------------------------------------------------------ */

static int set_granule(struct copy *c)
{
	struct cow_chain_info info;
	struct cow_where w;
	int ret;

	cow_chain_info(c->to, &info);
	if (info.size < c->size)
		return fail(-ENOSPC,
			"%s: has room for %llu bytes, but the disk in %s has %llu",
			c->job->target.path, (unsigned long long)info.size,
			c->job->source, (unsigned long long)c->size);
	c->granule = (uint32_t)num_min(info.block_size, GRANULE_MAX);
	if (!info.size)
		return 0;
	ret = cow_where(c->to, 0, 1, &w);
	if (!ret && w.held && !w.zero)
		c->granule = GRANULE_PLACED;
	return ret;
}

static int fill(void *ctx, struct cow_chain *to)
{
	struct copy *c = ctx;
	int ret;

	c->to = to;
	ret = set_granule(c);
	if (ret)
		return ret;
	c->buf = malloc(PIECE);
	c->old = malloc(PIECE);
	progress_start(&c->progress, c->size, "");
	ret = c->buf && c->old ? copy_all(c) : -ENOMEM;
	progress_end(&c->progress);
	free(c->buf);
	free(c->old);
	return ret;
}

/* A device, before it is filled. */
static int zeroing(void *ctx, uint64_t done, uint64_t size)
{
	struct copy *c = ctx;

	if (!done)
		progress_start(&c->progress, size, " of zeroes");
	progress_at(&c->progress, done, done);
	if (done == size)
		progress_end(&c->progress);
	return stopped ? interrupted(c) : 0;
}

int convert(const struct convert *job)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_create_params target = job->target;
	struct copy c = { .job = job, .over = target.backing_path };
	struct cow_chain_info info;
	int ret;

	p.plugins = target.plugins;
	p.path = job->source;
	p.format = job->format;
	p.options = job->options;
	ret = cow_chain_open(&p, &c.from);
	if (ret)
		return ret;
	cow_chain_info(c.from, &info);
	c.size = info.size;
	target.size = info.size;
	if (!target.size && target.backing_path) {
		cow_chain_close(c.from);
		return fail(-EINVAL, "%s: has 0 bytes, which are none over a backing image",
			    job->source);
	}
	target.fill = fill;
	target.zeroing = zeroing;
	target.ctx = &c;
	catch(SIGINT);
	catch(SIGTERM);
	catch(SIGHUP);
	ret = cow_create_image(&target);
	progress_end(&c.progress);
	cow_chain_close(c.from);
	if (job->written)
		*job->written = c.written;
	return ret;
}
