// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bat.c - the block allocation table: where a block lives.
 *
 * An entry is the sector of the block's bitmap, or VHD_BAT_FREE.  Each
 * callback gets all the tables it needs of one block before it changes any.
 */
#include "vhd.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>

/* --- Entries -------------------------------------------------------------- */

static int get_bat(struct vhd *v, uint64_t block, bool write,
		   struct cow_table **table, be32 **entries)
{
	uint64_t at = block / VHD_TABLE_ENTRIES * VHD_TABLE;
	uint64_t all = num_round_up(v->h.max_table_entries * 4ull, VHD_SECTOR);
	uint32_t len = (uint32_t)num_min(VHD_TABLE, all - at);
	int ret;

	ret = write ? cow_table_get_write(v->img, 0, v->h.table_offset + at,
					  len, VHD_PHASE_BAT, table) :
		      cow_table_get(v->img, 0, v->h.table_offset + at, len,
				    table);
	if (!ret)
		*entries = cow_table_data(*table);
	return ret;
}

/* The place of a block, 0 if it has none. */
static int get_place(struct vhd *v, uint64_t block, bool write,
		     struct cow_table **table, uint64_t *place)
{
	uint32_t sector;
	be32 *entries;
	int ret;

	ret = get_bat(v, block, write, table, &entries);
	if (ret)
		return ret;
	sector = be32_get(entries[block % VHD_TABLE_ENTRIES]);
	*place = sector == VHD_BAT_FREE ? 0 : (uint64_t)sector * VHD_SECTOR;
	return 0;
}

static void set_place(struct cow_table *table, uint64_t block, uint64_t place)
{
	be32 *entries = cow_table_data(table);
	uint32_t i = (uint32_t)(block % VHD_TABLE_ENTRIES);

	entries[i] = be32_put((uint32_t)(place / VHD_SECTOR));
	cow_table_dirty(table, i * 4, 4);
}

/* Blocks from this one on that have no place, as far as its table tells. */
static int free_run(struct vhd *v, uint64_t block, uint64_t *count)
{
	uint64_t n = num_min(VHD_TABLE_ENTRIES - block % VHD_TABLE_ENTRIES,
			     v->nr_blocks - block);
	struct cow_table *table;
	be32 *entries;
	int ret;

	ret = get_bat(v, block, false, &table, &entries);
	if (ret)
		return ret;
	entries += block % VHD_TABLE_ENTRIES;
	for (*count = 1; *count < n; ++*count) {
		if (be32_get(entries[*count]) != VHD_BAT_FREE)
			break;
	}
	return 0;
}

/* --- Map ------------------------------------------------------------------ */

static void set_block(const struct vhd *v, uint64_t block, uint64_t place,
		      struct cow_mapping *m)
{
	m->first = block * vhd_block_units(v);
	m->count = vhd_block_units(v);
	m->offset = place + v->bitmap_bytes;
}

static int map_new(struct vhd *v, uint64_t block, struct cow_mapping *m)
{
	uint64_t place;
	int ret;

	ret = vhd_place_give(v, block, &place);
	if (ret)
		return ret;
	m->kind = COW_KIND_COW;
	/* The file has grown: its footer has to follow. */
	m->flags = COW_MAPPING_DIRTY;
	m->source = vhd_is_diff(v) ? COW_SOURCE_BACKING : COW_SOURCE_ZERO;
	set_block(v, block, place, m);
	return 0;
}

static int map_free(struct vhd *v, uint64_t block, bool write,
		    struct cow_mapping *m)
{
	uint64_t count = 1;
	int ret;

	if (write)
		return map_new(v, block, m);
	ret = free_run(v, block, &count);
	if (ret)
		return ret;
	m->kind = vhd_is_diff(v) ? COW_KIND_BACKING : COW_KIND_ZERO;
	set_block(v, block, 0, m);
	m->count *= count;
	m->offset = 0;
	return 0;
}

/*
 * The bits of a block that others made, of which some are not set.  The kernel
 * remembers over our death that it may write there, and reports nothing then:
 * so it is told so only when all bits are in the file.  With a block of our own
 * it comes again by ->copied().
 */
static int fill_bitmap(struct vhd *v, uint64_t block, uint64_t place)
{
	struct cow_table *bitmap;
	int ret;

	ret = vhd_bitmap_get(v, place, true, &bitmap);
	if (!ret)
		ret = vhd_reserve_bitmap(v, block, place, true);
	if (ret)
		return ret;
	if (!vhd_bitmap_full(v, bitmap)) {
		vhd_bitmap_set_all(v, bitmap);
		bits_set(v->filling, block);
	}
	ret = cow_commit_table_first(bitmap, 0, v->bitmap_bytes);
	if (!ret)
		bits_clear(v->filling, block);
	return ret;
}

/*
 * A block of a dynamic disk is all there.  Its bits, which others go by, are
 * set before it is written: its sectors then are what they were.
 */
static int map_dynamic(struct vhd *v, uint64_t block, uint64_t place,
		       bool write, struct cow_mapping *m)
{
	struct cow_table *bitmap;
	bool full;
	int ret;

	m->kind = COW_KIND_LINEAR;
	set_block(v, block, place, m);
	if (!v->writable)
		return 0;
	ret = vhd_bitmap_get(v, place, false, &bitmap);
	if (ret)
		return ret;
	full = vhd_bitmap_full(v, bitmap) && !bits_test(v->filling, block);
	if (!full && !write)
		return 0;
	if (!full)
		ret = fill_bitmap(v, block, place);
	if (!ret)
		m->flags |= COW_MAPPING_WRITABLE;
	return ret;
}

/*
 * Some sectors are ours, others the parent's.  The kernel may copy some more
 * after any answer COW: the bitmap has its space before.
 */
static int map_diff_write(struct vhd *v, uint64_t block, uint64_t place,
			  bool write, struct cow_table *bitmap,
			  struct cow_mapping *m)
{
	int ret = 0;

	if (!vhd_bitmap_full(v, bitmap)) {
		ret = vhd_reserve_bitmap(v, block, place, write);
		m->kind = COW_KIND_COW;
		m->flags = COW_MAPPING_BITS;
		m->source = COW_SOURCE_BACKING;
	} else {
		m->kind = COW_KIND_LINEAR;
		m->flags = COW_MAPPING_WRITABLE;
	}
	return ret;
}

/* The sectors that are as the one asked for. */
static void map_diff_read(struct vhd *v, const struct cow_query *q,
			  struct cow_table *bitmap, struct cow_mapping *m)
{
	uint64_t units = vhd_block_units(v), at = q->first % units;

	m->kind = COW_KIND_LINEAR;
	m->flags = 0;
	m->first = q->first;
	m->count = vhd_bitmap_run(bitmap, at, units);
	m->offset += at * v->unit;
	if (!vhd_bitmap_test(bitmap, at)) {
		m->kind = COW_KIND_BACKING;
		m->offset = 0;
	}
}

static int map_diff(struct vhd *v, uint64_t block, uint64_t place,
		    const struct cow_query *q, struct cow_mapping *m)
{
	bool write = q->flags & COW_QUERY_WRITE;
	struct cow_table *bitmap;
	int ret;

	ret = vhd_bitmap_get(v, place, false, &bitmap);
	if (ret)
		return ret;
	set_block(v, block, place, m);
	if (v->writable) {
		ret = map_diff_write(v, block, place, write, bitmap, m);
		/* Without space it can be read. */
		if (write || ret != -ENOSPC)
			return ret;
		m->source = 0;
	}
	map_diff_read(v, q, bitmap, m);
	return 0;
}

static void map_fixed(const struct vhd *v, struct cow_mapping *m)
{
	m->kind = COW_KIND_LINEAR;
	m->flags = v->writable ? COW_MAPPING_WRITABLE : 0;
	m->count = num_div_up(v->size, v->unit);
}

int vhd_map(void *handle, const struct cow_query *q, struct cow_mapping *m)
{
	struct vhd *v = handle;
	bool write = q->flags & COW_QUERY_WRITE;
	uint64_t block, place;
	struct cow_table *bat;
	const char *fault;
	int ret;

	if (v->f.type == VHD_FIXED) {
		map_fixed(v, m);
		return 0;
	}
	block = q->first / vhd_block_units(v);
	ret = get_place(v, block, false, &bat, &place);
	if (ret)
		return ret;
	if (!place)
		return map_free(v, block, write, m);
	fault = vhd_place_fault(v, place, num_max(v->file_bytes, v->end));
	if (fault)
		return cow_error(v->img, -EIO,
			"the entry of block %llu, at offset %llu, %s",
			(unsigned long long)block,
			(unsigned long long)(v->h.table_offset + block * 4),
			fault);
	if (vhd_is_diff(v))
		return map_diff(v, block, place, q, m);
	return map_dynamic(v, block, place, write, m);
}

/* --- Copied --------------------------------------------------------------- */

int vhd_copied_bits(void *handle, uint64_t first, uint64_t count,
		    uint8_t *bits)
{
	struct vhd *v = handle;
	uint64_t units = vhd_block_units(v), i, place;
	struct cow_table *bat, *bitmap = NULL;
	int ret;

	for (i = 0; i < count; i++) {
		uint64_t sector = (first + i) % units;

		if (!i || !sector) {
			bitmap = NULL;
			ret = get_place(v, (first + i) / units, false, &bat,
					&place);
			if (!ret && place)
				ret = vhd_bitmap_get(v, place, false, &bitmap);
			if (ret)
				return ret;
		}
		if (bitmap && vhd_bitmap_test(bitmap, sector))
			bits_set(bits, i);
	}
	return 0;
}

/* Units [first, end) of one block stand where they should, behind place. */
static int copied_block(struct vhd *v, uint64_t block, uint64_t place,
			uint64_t first, uint64_t end)
{
	struct cow_table *bat, *bitmap;
	uint64_t is;
	int ret;

	ret = get_place(v, block, true, &bat, &is);
	if (ret)
		return ret;
	if (is && is != place)
		return cow_error(v->img, -EINVAL,
			"block %llu stands at offset %llu, not %llu",
			(unsigned long long)block, (unsigned long long)is,
			(unsigned long long)place);
	if (!is) {
		ret = vhd_place_accept(v, block, place);
		if (!ret)
			ret = vhd_bitmap_new(v, place, &bitmap);
	} else {
		ret = vhd_bitmap_get(v, place, true, &bitmap);
	}
	if (ret)
		return ret;
	if (!is)
		set_place(bat, block, place);
	if (vhd_is_diff(v))
		vhd_bitmap_set(bitmap, first, end);
	else if (!is)
		vhd_bitmap_set_all(v, bitmap);
	return 0;
}

int vhd_copied(void *handle, const struct cow_extent *e)
{
	struct vhd *v = handle;
	uint64_t unit = e->first, end = e->first + e->count, units;
	int ret = 0;

	if (e->file || v->f.type == VHD_FIXED)
		return cow_error(v->img, -EINVAL,
			"block %llu cannot stand in file %u",
			(unsigned long long)e->first, e->file);
	units = vhd_block_units(v);
	while (!ret && unit < end) {
		uint64_t block = unit / units, at = unit % units;
		uint64_t n = num_min(units - at, end - unit);
		uint64_t data = e->offset + (unit - e->first) * v->unit;
		uint64_t before = at * v->unit + v->bitmap_bytes;

		if (block >= v->nr_blocks || data < before)
			return cow_error(v->img, -EINVAL,
				"block %llu cannot stand at offset %llu",
				(unsigned long long)block,
				(unsigned long long)data);
		ret = copied_block(v, block, data - before, at, at + n);
		unit += n;
	}
	return ret;
}
