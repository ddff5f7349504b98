// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * place.c - places for new blocks, and the footer behind the last one.
 *
 *	end                place    data                  new end
 *	| footer |  unused  | bitmap | block              | footer |
 *
 * A new block begins behind the footer at the end, never over it, so the
 * rest of its data is zero, and no table ever stands at two places.  Its data
 * is aligned as disks like it (and the footer lies in the gap that is left),
 * its bitmap stands before the data as the format wants it.
 *
 * The part of a file behind the blocks in use may hold what an earlier
 * process had given and the kernel has written already.  Its blocks come
 * again by ->copied() after a restart.  So that part is never given again;
 * what a crash leaves there is lost space, until a check gives it back.
 */
#include "vhd.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>

static uint64_t sector_bytes(uint32_t sector)
{
	return (uint64_t)sector * VHD_SECTOR;
}

/* --- New places ----------------------------------------------------------- */

static uint64_t next_place(const struct vhd *v)
{
	uint64_t align = num_min(VHD_PLACE_ALIGN, v->h.block_size);

	return num_round_up(v->end + sizeof(v->footer) + v->bitmap_bytes,
			    align) - v->bitmap_bytes;
}

/* What a commit will write there must not fail for want of it. */
static int no_space(struct vhd *v, uint64_t block, uint64_t offset)
{
	return cow_error(v->img, -ENOSPC,
		"there is no space at offset %llu for block %llu; free some on its file system",
		(unsigned long long)offset, (unsigned long long)block);
}

static int reserve(struct vhd *v, uint64_t block, uint64_t offset,
		   uint64_t len)
{
	int ret = cow_reserve(v->img, 0, offset, len);

	return ret == -ENOSPC ? no_space(v, block, offset) : ret;
}

/* The bitmaps of blocks of our own have it: see make_place(). */
int vhd_reserve_bitmap(struct vhd *v, uint64_t block, uint64_t place,
		       bool tell)
{
	int ret;

	if (v->given[block] || bits_test(v->reserved, block))
		return 0;
	ret = cow_reserve(v->img, 0, place, v->bitmap_bytes);
	if (!ret)
		bits_set(v->reserved, block);
	return ret == -ENOSPC && tell ? no_space(v, block, place) : ret;
}

static int make_place(struct vhd *v, uint64_t block, uint64_t place)
{
	uint64_t end = place + vhd_place_bytes(v);
	int ret;

	if (end / VHD_SECTOR >= VHD_BAT_FREE)
		return cow_error(v->img, -ENOSPC,
			"block %llu would stand at offset %llu, further than a VHD can tell; check it with repair to give lost space back",
			(unsigned long long)block, (unsigned long long)place);
	ret = reserve(v, block, place, v->bitmap_bytes);
	if (!ret)
		ret = reserve(v, block, end, sizeof(v->footer));
	if (!ret)
		ret = cow_file_extend(v->img, 0, end + sizeof(v->footer));
	if (!ret)
		v->end = end;
	return ret;
}

static void take(struct vhd *v, uint64_t block, uint64_t place)
{
	v->given[block] = (uint32_t)(place / VHD_SECTOR);
	v->taken[v->nr_taken++] = v->given[block];
}

int vhd_place_give(struct vhd *v, uint64_t block, uint64_t *place)
{
	int ret;

	*place = sector_bytes(v->given[block]);
	if (*place)
		return 0;
	*place = next_place(v);
	ret = make_place(v, block, *place);
	if (!ret)
		take(v, block, *place);
	return ret;
}

/* --- Places that an earlier process gave ---------------------------------- */

/* The blocks that metadata referred to when the image was opened. */
static bool overlaps_used(const struct vhd *v, uint64_t place)
{
	uint64_t bytes = vhd_place_bytes(v);
	uint32_t low = 0, high = v->nr_used;

	/* The first that ends behind the start of the place. */
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (sector_bytes(v->used[mid].sector) + bytes <= place)
			low = mid + 1;
		else
			high = mid;
	}
	return low < v->nr_used &&
	       sector_bytes(v->used[low].sector) < place + bytes;
}

static bool overlaps_taken(const struct vhd *v, uint64_t place)
{
	uint64_t bytes = vhd_place_bytes(v);
	uint32_t i;

	for (i = 0; i < v->nr_taken; i++) {
		uint64_t other = sector_bytes(v->taken[i]);

		if (place < other + bytes && other < place + bytes)
			return true;
	}
	return false;
}

int vhd_place_accept(struct vhd *v, uint64_t block, uint64_t place)
{
	uint64_t given = sector_bytes(v->given[block]);

	if (given && given == place)
		return 0;
	if (given || !place || !num_is_aligned(place, VHD_SECTOR) ||
	    place > v->end || vhd_place_fault(v, place, v->end) ||
	    overlaps_used(v, place) || overlaps_taken(v, place))
		return cow_error(v->img, -EINVAL,
			"block %llu cannot stand at offset %llu, which was not free",
			(unsigned long long)block, (unsigned long long)place);
	take(v, block, place);
	return 0;
}

/* --- The footer at the end ------------------------------------------------ */

int vhd_commit(void *handle)
{
	struct vhd *v = handle;
	struct cow_table *t;
	int ret;

	v->footer_writing = 0;
	/* Where no place can be given, the footer stays where it is. */
	if (v->f.type == VHD_FIXED || v->device || v->footer_at == v->end)
		return 0;
	ret = cow_file_extend(v->img, 0, v->end + sizeof(v->footer));
	if (!ret)
		ret = cow_table_new(v->img, 0, v->end, sizeof(v->footer),
				    VHD_PHASE_FOOTER, &t);
	if (ret)
		return ret;
	memcpy(cow_table_data(t), &v->footer, sizeof(v->footer));
	v->footer_writing = v->end;
	return 0;
}

void vhd_committed(void *handle, int status)
{
	struct vhd *v = handle;

	if (v->footer_writing && !status)
		v->footer_at = v->footer_writing;
}
