// SPDX-License-Identifier: GPL-2.0-or-later
/* extent.c - what stands where in a sparse extent. */
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>

struct vmdk_extent *vmdk_extent_of(const struct vmdk *v, uint64_t block)
{
	uint32_t lo = 0, hi = v->nr_extents;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (v->extents[mid].first <= block)
			lo = mid;
		else
			hi = mid;
	}
	return &v->extents[lo];
}

bool vmdk_has_rgd(const struct vmdk_extent *e)
{
	return e->h.flags & VMDK_FLAG_RGD;
}

/* --- Is a place a good one? ----------------------------------------------- */

static bool touches(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

bool vmdk_in_fixed(const struct vmdk_extent *e, uint64_t offset, uint64_t len)
{
	uint64_t gd = vmdk_gd_bytes(&e->h);

	return touches(offset, len, 0, VMDK_SECTOR) ||
	       touches(offset, len, e->h.descriptor_offset,
		       e->h.descriptor_size) ||
	       touches(offset, len, e->h.gd_offset, gd) ||
	       (vmdk_has_rgd(e) && touches(offset, len, e->h.rgd_offset, gd));
}

bool vmdk_table_ok(const struct vmdk_extent *e, uint32_t gde)
{
	uint64_t offset = (uint64_t)gde * VMDK_SECTOR;

	return num_run_in(offset, VMDK_GT_BYTES, e->end) &&
	       !vmdk_in_fixed(e, offset, VMDK_GT_BYTES);
}

bool vmdk_is_grain(const struct vmdk_extent *e, uint32_t gte)
{
	return gte > VMDK_GTE_ZERO ||
	       (gte && !(e->h.flags & VMDK_FLAG_ZERO_GRAIN));
}

/* The file may end in the last grain: what is missing reads as zeroes. */
bool vmdk_grain_ok(const struct vmdk_extent *e, uint32_t gte)
{
	uint64_t offset = (uint64_t)gte * VMDK_SECTOR;
	uint64_t len = e->h.flags & VMDK_FLAG_COMPRESSED ?
		       sizeof(struct vmdk_marker_disk) : e->h.grain_size;

	return offset < e->end && !vmdk_in_fixed(e, offset, len);
}

uint64_t vmdk_grain_len(const struct vmdk_extent *e, uint64_t nr)
{
	return num_min(e->h.grain_size,
		       e->h.capacity - nr * e->h.grain_size);
}

int vmdk_bad_table(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		   uint32_t gde)
{
	return cow_error(v->img, -EIO,
		"is damaged: grain table %llu of its file %u cannot lie at offset %llu; check it",
		(unsigned long long)nr, e->file,
		(unsigned long long)gde * VMDK_SECTOR);
}

int vmdk_bad_grain(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		   uint32_t gte)
{
	return cow_error(v->img, -EIO,
		"is damaged: grain %llu of its file %u cannot lie at offset %llu; check it",
		(unsigned long long)nr, e->file,
		(unsigned long long)gte * VMDK_SECTOR);
}

/* --- Windows -------------------------------------------------------------- */

/*
 * The redundant directory first: a table that it alone has is dropped after a
 * crash, and takes no space to put right.
 */
static unsigned int phase_of(const struct vmdk_extent *e, uint64_t start,
			     uint32_t len)
{
	uint64_t bytes = vmdk_gd_bytes(&e->h);
	bool gd = touches(start, len, e->h.gd_offset, bytes);

	if (vmdk_has_rgd(e) && touches(start, len, e->h.rgd_offset, bytes))
		return gd ? 3 : 2;
	return gd ? 4 : 1;
}

/* e is NULL for a descriptor in its own file: nothing else stands there. */
int vmdk_window(struct vmdk *v, struct vmdk_extent *e, uint32_t file,
		uint64_t offset, bool write, struct cow_table **table,
		uint32_t *skip, uint32_t *room)
{
	uint64_t start = num_round_down(offset, v->window);
	uint64_t end = e ? e->end : v->text_end;
	uint32_t len = (uint32_t)num_min(v->window, end - start);

	*skip = (uint32_t)(offset - start);
	*room = len - *skip;
	if (write)
		return cow_table_get_write(v->img, file, start, len,
					   e ? phase_of(e, start, len) : 0,
					   table);
	return cow_table_get(v->img, file, start, len, table);
}

int vmdk_entries(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
		 uint64_t index, bool write, struct vmdk_entries *entries)
{
	uint32_t skip, room;
	int ret;

	ret = vmdk_window(v, e, e->file, offset + index * sizeof(le32), write,
			  &entries->table, &skip, &room);
	if (ret)
		return ret;
	entries->at = (le32 *)((uint8_t *)cow_table_data(entries->table) +
			       skip);
	entries->count = room / sizeof(le32);
	return 0;
}

void vmdk_entries_dirty(struct vmdk_entries *entries, uint32_t count)
{
	const uint8_t *start = cow_table_data(entries->table);

	cow_table_dirty(entries->table,
			(uint32_t)((const uint8_t *)entries->at - start),
			count * (uint32_t)sizeof(le32));
}

int vmdk_gde(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
	     uint32_t *gde)
{
	struct vmdk_entries entries;
	int ret;

	ret = vmdk_entries(v, e, e->h.gd_offset, nr, false, &entries);
	if (ret)
		return ret;
	*gde = le32_get(entries.at[0]);
	if (*gde && !vmdk_table_ok(e, *gde))
		return vmdk_bad_table(v, e, nr, *gde);
	return 0;
}
