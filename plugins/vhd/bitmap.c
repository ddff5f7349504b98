// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bitmap.c - the sector bitmap that stands before a block's data.
 *
 * Sector n is bit 7 - n % 8 of byte n / 8.  A bit that is set: the sector is
 * this image's.  Else it is the parent's, or in a dynamic disk still zero in
 * the file.  Bits are set, never cleared.
 */
#include "vhd.h"

#include <string.h>

static uint8_t mask_of(uint64_t sector)
{
	return (uint8_t)(0x80u >> (sector % 8));
}

int vhd_bitmap_get(struct vhd *v, uint64_t place, bool write,
		   struct cow_table **table)
{
	if (write)
		return cow_table_get_write(v->img, 0, place, v->bitmap_bytes,
					   VHD_PHASE_BITMAP, table);
	return cow_table_get(v->img, 0, place, v->bitmap_bytes, table);
}

int vhd_bitmap_new(struct vhd *v, uint64_t place, struct cow_table **table)
{
	return cow_table_new(v->img, 0, place, v->bitmap_bytes,
			     VHD_PHASE_BITMAP, table);
}

bool vhd_bitmap_test(struct cow_table *table, uint64_t sector)
{
	const uint8_t *bits = cow_table_data(table);

	return bits[sector / 8] & mask_of(sector);
}

uint64_t vhd_bitmap_run(struct cow_table *table, uint64_t first, uint64_t end)
{
	bool set = vhd_bitmap_test(table, first);
	const uint8_t *bits = cow_table_data(table);
	uint8_t whole = set ? 0xff : 0;
	uint64_t at = first + 1;

	while (at < end) {
		if (at % 8 == 0 && end - at >= 8 && bits[at / 8] == whole) {
			at += 8;
			continue;
		}
		if (vhd_bitmap_test(table, at) != set)
			break;
		at++;
	}
	return at - first;
}

bool vhd_bitmap_full(const struct vhd *v, struct cow_table *table)
{
	uint64_t sectors = v->h.block_size / VHD_SECTOR;

	return vhd_bitmap_test(table, 0) &&
	       vhd_bitmap_run(table, 0, sectors) == sectors;
}

void vhd_bitmap_set(struct cow_table *table, uint64_t first, uint64_t end)
{
	uint8_t *bits = cow_table_data(table);
	uint64_t at;

	for (at = first; at < end; at++)
		bits[at / 8] |= mask_of(at);
	cow_table_dirty(table, (uint32_t)(first / 8),
			(uint32_t)((end - 1) / 8 - first / 8 + 1));
}

void vhd_bitmap_set_all(const struct vhd *v, struct cow_table *table)
{
	memset(cow_table_data(table), 0xff, v->bitmap_bytes);
	cow_table_dirty(table, 0, v->bitmap_bytes);
}
