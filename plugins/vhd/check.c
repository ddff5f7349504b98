// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * check.c - look for damage.
 *
 * What a repair does, in the order in which it makes things durable:
 *  1. The footer's copy at the start is written from the footer at the end.
 *  2. A block that is cut off by the end of the file gets the missing part,
 *     of zeroes.  One whose place begins past it was lost: its entry is
 *     freed, as is one that points into metadata.
 *  3. A block in the place of another one gets a copy of what it reads as.
 *  4. The file is cut behind the last block, and its footer written there.
 */
#include "vhd.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

struct checking {
	struct vhd *v;
	struct cow_check *check;
	bool repair;
	uint64_t file_bytes;
	uint64_t end;		/* of the last block, or of the metadata */
};

static int set_entry(struct checking *c, uint32_t block, uint32_t sector)
{
	be32 entry = be32_put(sector);
	int ret;

	ret = cow_write(c->v->img, 0, &entry, sizeof(entry),
			c->v->h.table_offset + block * 4ull);
	return ret ? ret : cow_sync(c->v->img, 0);
}

/* --- Footers -------------------------------------------------------------- */

static int check_copy(struct checking *c)
{
	int ret = 0;

	if (!c->v->copy_damaged)
		return 0;
	if (c->repair)
		ret = cow_write(c->v->img, 0, &c->v->footer,
				sizeof(c->v->footer), 0);
	if (!ret && c->repair)
		ret = cow_sync(c->v->img, 0);
	if (!ret)
		cow_check_found(c->check, COW_FOUND_CORRUPT, c->repair,
			"the copy of the footer at offset 0 is damaged");
	return ret;
}

static int write_end(struct checking *c)
{
	struct vhd *v = c->v;
	int ret;

	ret = cow_file_extend(v->img, 0, c->end + sizeof(v->footer));
	if (!ret)
		ret = cow_write(v->img, 0, &v->footer, sizeof(v->footer),
				c->end);
	if (!ret)
		ret = cow_file_shrink(v->img, 0, c->end + sizeof(v->footer));
	return ret ? ret : cow_sync(v->img, 0);
}

/*
 * Up to a page lies unused before a footer that we wrote, when the blocks
 * before it are gone or not yet there.
 */
static int check_end(struct checking *c)
{
	uint64_t at = c->file_bytes - sizeof(c->v->footer), lost;
	struct vhd_footer_disk last;
	bool whole;
	int ret;

	ret = cow_read(c->v->img, 0, &last, sizeof(last), at);
	if (ret)
		return ret;
	whole = at >= c->end && !memcmp(&last, &c->v->footer, sizeof(last));
	lost = whole ? at - c->end : c->file_bytes > c->end ?
					c->file_bytes - c->end : 0;
	if (whole && lost <= VHD_PLACE_ALIGN)
		return 0;
	if (c->repair)
		ret = write_end(c);
	if (ret)
		return ret;
	if (!whole)
		cow_check_found(c->check, COW_FOUND_LEAK, c->repair,
			"the footer at the end of the file, at offset %llu, is missing",
			(unsigned long long)at);
	if (lost > VHD_PLACE_ALIGN)
		cow_check_found(c->check, COW_FOUND_LEAK, c->repair,
			"%llu bytes from offset %llu to the end of the file hold nothing",
			(unsigned long long)lost, (unsigned long long)c->end);
	return 0;
}

/* --- Blocks --------------------------------------------------------------- */

static int lengthen(struct checking *c, uint64_t end)
{
	int ret = cow_file_extend(c->v->img, 0, end);

	if (!ret)
		ret = cow_sync(c->v->img, 0);
	if (!ret)
		c->file_bytes = end;
	return ret;
}

/* To a place behind all that is there; the copy is durable before it counts. */
static int copy_block(struct checking *c, const struct vhd_block *b)
{
	uint64_t from = (uint64_t)b->sector * VHD_SECTOR;
	uint64_t to = num_round_up(c->file_bytes, VHD_SECTOR);
	uint64_t bytes = vhd_place_bytes(c->v), done;
	uint8_t *buf = malloc(VHD_TABLE);
	int ret = buf ? 0 : -ENOMEM;

	if (!ret && (to + bytes) / VHD_SECTOR >= VHD_BAT_FREE)
		ret = cow_error(c->v->img, -ENOSPC,
			"block %u cannot have a place of its own: the file is too large",
			b->block);
	if (!ret)
		ret = lengthen(c, to + bytes);
	for (done = 0; !ret && done < bytes; done += VHD_SECTOR) {
		ret = cow_read(c->v->img, 0, buf, VHD_SECTOR, from + done);
		if (!ret)
			ret = cow_write(c->v->img, 0, buf, VHD_SECTOR,
					to + done);
	}
	free(buf);
	if (!ret)
		ret = cow_sync(c->v->img, 0);
	return ret ? ret : set_entry(c, b->block, (uint32_t)(to / VHD_SECTOR));
}

static int repair_block(struct checking *c, const struct vhd_block *b)
{
	uint64_t place = (uint64_t)b->sector * VHD_SECTOR;
	uint64_t end = place + vhd_place_bytes(c->v);

	if (!vhd_place_fault(c->v, place, c->file_bytes))
		return copy_block(c, b);
	if (place < c->file_bytes && end > c->file_bytes &&
	    !vhd_place_fault(c->v, place, end))
		return lengthen(c, end);
	return set_entry(c, b->block, VHD_BAT_FREE);
}

static int found_fault(void *ctx, const struct vhd_block *b, const char *what)
{
	struct checking *c = ctx;
	int ret = c->repair ? repair_block(c, b) : 0;

	if (!ret)
		cow_check_found(c->check, COW_FOUND_CORRUPT, c->repair,
			"the entry of block %u, at offset %llu, %s", b->block,
			(unsigned long long)(c->v->h.table_offset +
					     b->block * 4ull), what);
	return ret;
}

static int nothing_new(void *ctx, const struct vhd_block *b, const char *what)
{
	return 0;
}

/* After a repair the blocks are others: look where they end now. */
static int find_end(struct checking *c)
{
	struct vhd *v = c->v;
	struct vhd_block *blocks;
	uint32_t count;
	unsigned int i;
	int ret;

	ret = vhd_blocks_get(v, c->file_bytes, nothing_new, NULL, &blocks,
			     &count);
	if (ret)
		return ret;
	c->end = 0;
	for (i = 0; i < v->nr_regions; i++)
		c->end = num_max(c->end, v->region[i].end);
	if (count)
		c->end = num_max(c->end, (uint64_t)blocks[count - 1].sector *
				 VHD_SECTOR + vhd_place_bytes(v));
	c->end = num_round_up(c->end, VHD_SECTOR);
	free(blocks);
	return 0;
}

int vhd_check(void *handle, struct cow_check *check, bool repair)
{
	struct checking c = {
		.v = handle, .check = check, .repair = repair,
	};
	struct vhd_block *blocks = NULL;
	struct cow_file_stat st;
	uint32_t count;
	int ret;

	if (c.v->f.type == VHD_FIXED)
		return 0;
	ret = cow_file_stat(c.v->img, 0, &st);
	c.file_bytes = st.size;
	if (!ret)
		ret = check_copy(&c);
	if (!ret)
		ret = vhd_blocks_get(c.v, c.file_bytes, found_fault, &c,
				     &blocks, &count);
	free(blocks);
	if (!ret)
		ret = find_end(&c);
	return ret ? ret : check_end(&c);
}
