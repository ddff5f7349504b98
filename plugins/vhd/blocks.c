// SPDX-License-Identifier: GPL-2.0-or-later
/* blocks.c - all blocks at once: may each be where its entry says? */
#include "vhd.h"

#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const char *vhd_place_fault(const struct vhd *v, uint64_t place,
			    uint64_t file_bytes)
{
	uint64_t end = place + vhd_place_bytes(v);
	unsigned int i;

	if (end > file_bytes)
		return "points past the end of the file: the image is truncated";
	for (i = 0; i < v->nr_regions; i++) {
		const struct vhd_region *r = &v->region[i];

		if (place < r->end && r->start < end)
			return r->what;
	}
	return NULL;
}

struct list {
	struct vhd *v;
	struct vhd_block *blocks;
	uint32_t count, room;
	uint64_t file_bytes;
	vhd_fault_fn fault;
	void *ctx;
};

static int add(struct list *l, struct vhd_block b)
{
	struct vhd_block *more;
	const char *what;

	what = vhd_place_fault(l->v, (uint64_t)b.sector * VHD_SECTOR,
			       l->file_bytes);
	if (what)
		return l->fault(l->ctx, &b, what);
	if (l->count == l->room) {
		l->room = (uint32_t)num_max(2 * l->room, 1024);
		more = realloc(l->blocks, l->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->blocks = more;
	}
	l->blocks[l->count++] = b;
	return 0;
}

static int read_bat(struct list *l)
{
	struct vhd *v = l->v;
	uint32_t block = 0, n, i;
	be32 entries[VHD_TABLE_ENTRIES];
	int ret = 0;

	while (!ret && block < v->h.max_table_entries) {
		n = (uint32_t)num_min(VHD_TABLE_ENTRIES,
				      v->h.max_table_entries - block);
		ret = cow_read(v->img, 0, entries, n * sizeof(be32),
			       v->h.table_offset + block * 4ull);
		for (i = 0; !ret && i < n; i++) {
			uint32_t sector = be32_get(entries[i]);

			if (sector != VHD_BAT_FREE)
				ret = add(l, (struct vhd_block){ sector,
								 block + i });
		}
		block += n;
	}
	return ret;
}

static int by_sector(const void *a, const void *b)
{
	const struct vhd_block *x = a, *y = b;

	if (x->sector != y->sector)
		return x->sector < y->sector ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

/* The one that comes first stays, who overlaps it goes. */
static int drop_overlaps(struct list *l)
{
	uint64_t sectors = vhd_place_bytes(l->v) / VHD_SECTOR;
	char what[64];
	uint32_t i, kept = 0;
	int ret;

	for (i = 0; i < l->count; i++) {
		struct vhd_block *b = &l->blocks[i];
		struct vhd_block *last = kept ? &l->blocks[kept - 1] : NULL;

		if (last && b->sector - last->sector < sectors) {
			snprintf(what, sizeof(what),
				 "points into the place of block %u",
				 last->block);
			ret = l->fault(l->ctx, b, what);
			if (ret)
				return ret;
			continue;
		}
		l->blocks[kept++] = *b;
	}
	l->count = kept;
	return 0;
}

int vhd_blocks_get(struct vhd *v, uint64_t file_bytes, vhd_fault_fn fault,
		   void *ctx, struct vhd_block **blocks, uint32_t *count)
{
	struct list l = {
		.v = v, .file_bytes = file_bytes, .fault = fault, .ctx = ctx,
	};
	int ret;

	ret = read_bat(&l);
	if (!ret && l.count) {
		qsort(l.blocks, l.count, sizeof(*l.blocks), by_sector);
		ret = drop_overlaps(&l);
	}
	if (ret) {
		free(l.blocks);
		return ret;
	}
	*blocks = l.blocks;
	*count = l.count;
	return 0;
}
