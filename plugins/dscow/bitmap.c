// SPDX-License-Identifier: GPL-2.0-or-later
/* bitmap.c - which blocks are ours, and so where each block lives. */
#include "dscow.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

/* A part of the bitmap that one table holds. */
struct window {
	uint64_t first;		/* block */
	uint64_t count;		/* blocks */
	uint64_t offset;	/* bytes in the file */
	uint32_t length;	/* bytes, whole units of direct I/O */
};

static struct window window_of(const struct dscow *d, uint64_t block)
{
	uint64_t index = block / DSCOW_TABLE_BLOCKS;
	struct window w;

	w.first = index * DSCOW_TABLE_BLOCKS;
	w.count = num_min(DSCOW_TABLE_BLOCKS, d->h.nr_blocks - w.first);
	w.offset = d->h.bitmap_offset + index * DSCOW_TABLE_BYTES;
	w.length = (uint32_t)num_round_up(num_div_up(w.count, 8),
					  DSCOW_BITMAP_ALIGN);
	return w;
}

static uint64_t place_of(const struct dscow *d, uint64_t block)
{
	return d->h.first_block + block * d->h.block_size;
}

/* --- Map ------------------------------------------------------------------ */

/*
 * Writable: every block is copied to its own place when it is first written,
 * so one answer does for all; the bits tell which have been.
 */
static void map_all(const struct dscow *d, const struct cow_query *q,
		    struct cow_mapping *m)
{
	uint64_t first = num_round_down(q->first, COW_COPIED_BITS_MAX);

	m->kind = COW_KIND_COW;
	m->flags = COW_MAPPING_BITS;
	m->source = COW_SOURCE_BACKING;
	m->first = num_max(first, q->limit_first);
	m->count = num_min(first + COW_COPIED_BITS_MAX, q->limit_end) -
		   m->first;
	m->offset = place_of(d, m->first);
}

/* Read-only: the run of blocks in the same state, within one table. */
static int map_run(struct dscow *d, const struct cow_query *q,
		   struct cow_mapping *m)
{
	struct window w = window_of(d, q->first);
	uint64_t at = q->first - w.first, end;
	struct cow_table *t;
	const uint8_t *bits;
	int ret;

	ret = cow_table_get(d->img, 0, w.offset, w.length, &t);
	if (ret)
		return ret;
	bits = cow_table_data(t);
	if (bits_test(bits, at)) {
		m->kind = COW_KIND_LINEAR;
		end = bits_next_clear(bits, at, w.count);
	} else {
		m->kind = COW_KIND_BACKING;
		end = bits_next_set(bits, at, w.count);
	}
	m->first = q->first;
	m->count = end - at;
	m->offset = m->kind == COW_KIND_LINEAR ? place_of(d, q->first) : 0;
	return 0;
}

int dscow_map(void *handle, const struct cow_query *query,
	      struct cow_mapping *mapping)
{
	struct dscow *d = handle;

	if (!d->writable)
		return map_run(d, query, mapping);
	map_all(d, query, mapping);
	return 0;
}

/* --- Bits ----------------------------------------------------------------- */

/*
 * Get all tables of a run: those that are missing are read at the same
 * time, so do not stop at the first.
 */
static int get_tables(struct dscow *d, uint64_t first, uint64_t count,
		      bool write)
{
	uint64_t block = first, end = first + count;
	struct cow_table *t;
	int result = 0, ret;

	while (block < end) {
		struct window w = window_of(d, block);

		ret = write ?
			cow_table_get_write(d->img, 0, w.offset, w.length, 0,
					    &t) :
			cow_table_get(d->img, 0, w.offset, w.length, &t);
		if (ret && ret != -EAGAIN)
			return ret;
		if (ret)
			result = ret;
		block = w.first + w.count;
	}
	return result;
}

int dscow_copied_bits(void *handle, uint64_t first, uint64_t count,
		      uint8_t *bits)
{
	struct dscow *d = handle;
	uint64_t block = first, end = first + count;
	struct cow_table *t;
	int ret;

	ret = get_tables(d, first, count, false);
	while (!ret && block < end) {
		struct window w = window_of(d, block);
		uint64_t n = num_min(w.first + w.count, end) - block;

		ret = cow_table_get(d->img, 0, w.offset, w.length, &t);
		if (!ret)
			bits_copy(bits, block - first, cow_table_data(t),
				  block - w.first, n);
		block += n;
	}
	return ret;
}

static int check_extent(const struct dscow *d, const struct cow_extent *e)
{
	if (e->file == 0 && num_run_in(e->first, e->count, d->h.nr_blocks) &&
	    e->offset == place_of(d, e->first))
		return 0;
	return cow_error(d->img, -EINVAL,
		"block %llu cannot stand at offset %llu of file %u",
		(unsigned long long)e->first, (unsigned long long)e->offset,
		e->file);
}

int dscow_copied(void *handle, const struct cow_extent *e)
{
	struct dscow *d = handle;
	uint64_t block = e->first, end = e->first + e->count;
	struct cow_table *t;
	int ret;

	ret = check_extent(d, e);
	if (!ret)
		ret = get_tables(d, e->first, e->count, true);
	while (!ret && block < end) {
		struct window w = window_of(d, block);
		uint64_t at = block - w.first;
		uint64_t n = num_min(w.first + w.count, end) - block;

		ret = cow_table_get_write(d->img, 0, w.offset, w.length, 0,
					  &t);
		if (ret)
			break;
		bits_set_run(cow_table_data(t), at, n);
		cow_table_dirty(t, (uint32_t)(at / 8),
				(uint32_t)((at + n - 1) / 8 - at / 8 + 1));
		block += n;
	}
	return ret;
}

/* --- The bitmap as a whole ------------------------------------------------ */

static void count_chunk(const struct dscow *d, const uint8_t *buf,
			uint64_t first, uint64_t bits, uint64_t *copied,
			uint64_t *beyond, uint64_t *last)
{
	uint64_t ours = first < d->h.nr_blocks ?
			num_min(bits, d->h.nr_blocks - first) : 0;
	uint64_t i;

	*copied += bits_count(buf, 0, ours);
	*beyond += bits_count(buf, ours, bits);
	for (i = ours; i-- > 0;) {
		if (bits_test(buf, i)) {
			*last = first + i;
			break;
		}
	}
}

int dscow_count_bits(const struct dscow *d, uint64_t *copied,
		     uint64_t *beyond, uint64_t *last_copied)
{
	uint64_t bytes = d->h.bitmap_count * 4ull, at = 0;
	uint8_t *buf = malloc(DSCOW_TABLE_BYTES);
	int ret = buf ? 0 : -ENOMEM;

	*copied = 0;
	*beyond = 0;
	*last_copied = 0;
	while (!ret && at < bytes) {
		uint64_t n = num_min(DSCOW_TABLE_BYTES, bytes - at);

		ret = cow_read(d->img, 0, buf, n, d->h.bitmap_offset + at);
		if (!ret)
			count_chunk(d, buf, at * 8, n * 8, copied, beyond,
				    last_copied);
		at += n;
	}
	free(buf);
	return ret;
}
