// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * check.c - look for damage.
 *
 * What a repair does, in the order in which it makes things durable:
 *  1. The footer's copy at the start is written from the footer at the end.
 *  2. A block that is cut off by the end of the file gets the missing part,
 *     of zeroes.  One whose place begins past it was lost: its entry is
 *     freed, as is one that points into metadata.  All entries are durable
 *     before 4.
 *  3. A block in the place of another one gets a copy of what it reads as;
 *     but not where there are more of them than blocks with a place of their
 *     own: a few bytes of such an image would fill the file system.  Then
 *     nothing that follows is done.
 *  4. What lies between two blocks and is neither's is given back.
 *  5. The file is cut behind the last block, and its footer written there.
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
	uint64_t opened_bytes;	/* the same, before anything was made longer */
	uint64_t end;		/* of the last block, or of the metadata */
	bool foreign;		/* without blocks, others' metadata may lie behind it */
	uint64_t copies;	/* of blocks, that a repair makes */
	bool too_many;
	bool changed;		/* and not yet synced */
};

/* Durable after sync_changes(): there may be millions of them. */
static int set_entry(struct checking *c, uint32_t block, uint32_t sector)
{
	be32 entry = be32_put(sector);

	c->changed = true;
	return cow_write(c->v->img, 0, &entry, sizeof(entry),
			 c->v->h.table_offset + block * 4ull);
}

static int sync_changes(struct checking *c)
{
	if (!c->changed)
		return 0;
	c->changed = false;
	return cow_sync(c->v->img, 0);
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
 * before it are gone or not yet there.  A device's end says nothing: it has
 * the size that it has, and the footer at its start counts.
 */
static int check_end(struct checking *c)
{
	uint64_t at = c->file_bytes - sizeof(c->v->footer), lost;
	struct vhd_footer_disk last;
	bool whole;
	int ret;

	if (c->v->device)
		return 0;
	ret = cow_read(c->v->img, 0, &last, sizeof(last), at);
	if (ret)
		return ret;
	whole = at >= c->end && !memcmp(&last, &c->v->footer, sizeof(last));
	if (c->foreign)
		c->end = whole ? at : num_round_up(c->file_bytes, VHD_SECTOR);
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
		ret = cow_file_extend(c->v->img, 0, to + bytes);
	if (!ret)
		c->file_bytes = to + bytes;
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

/* It could be where it points to, if no other one were there. */
static bool wants_copy(const struct checking *c, const struct vhd_block *b)
{
	return !vhd_place_fault(c->v, (uint64_t)b->sector * VHD_SECTOR,
				c->file_bytes);
}

static int repair_block(struct checking *c, const struct vhd_block *b)
{
	if (wants_copy(c, b))
		return copy_block(c, b);
	return set_entry(c, b->block, VHD_BAT_FREE);
}

static void tell(struct checking *c, const struct vhd_block *b,
		 const char *what, bool repaired)
{
	cow_check_found(c->check, COW_FOUND_CORRUPT, repaired,
		"the entry of block %u, at offset %llu, %s", b->block,
		(unsigned long long)(c->v->h.table_offset + b->block * 4ull),
		what);
}

static int found_fault(void *ctx, const struct vhd_block *b, const char *what)
{
	struct checking *c = ctx;
	bool repair = c->repair && !(c->too_many && wants_copy(c, b));
	int ret = repair ? repair_block(c, b) : 0;

	if (!ret)
		tell(c, b, what, repair);
	return ret;
}

/* Does it begin inside of the file, and end past it? */
static bool is_cut_off(const struct checking *c, uint64_t place)
{
	uint64_t end = place + vhd_place_bytes(c->v);

	return place < c->opened_bytes && end > c->file_bytes &&
	       !vhd_place_fault(c->v, place, end);
}

static int lengthen_block(void *ctx, const struct vhd_block *b,
			  const char *what)
{
	struct checking *c = ctx;
	uint64_t place = (uint64_t)b->sector * VHD_SECTOR;
	uint64_t end = place + vhd_place_bytes(c->v);
	int ret;

	if (!is_cut_off(c, place))
		return 0;
	ret = cow_file_extend(c->v->img, 0, end);
	if (ret)
		return ret;
	c->file_bytes = end;
	c->changed = true;
	tell(c, b, what, true);
	return 0;
}

/* Before copies are counted: who shares a block with one that is cut off wants one, too. */
static int lengthen_blocks(struct checking *c)
{
	struct vhd_block *blocks = NULL;
	uint32_t count;
	int ret;

	if (!c->repair)
		return 0;
	ret = vhd_blocks_get(c->v, c->file_bytes, lengthen_block, c, &blocks,
			     &count);
	free(blocks);
	return ret ? ret : sync_changes(c);
}

static int nothing_new(void *ctx, const struct vhd_block *b, const char *what)
{
	return 0;
}

static int count_copy(void *ctx, const struct vhd_block *b, const char *what)
{
	struct checking *c = ctx;

	c->copies += wants_copy(c, b);
	return 0;
}

static int check_blocks(struct checking *c)
{
	struct vhd_block *blocks = NULL;
	uint32_t count = 0;
	int ret;

	ret = lengthen_blocks(c);
	if (!ret)
		ret = vhd_blocks_get(c->v, c->file_bytes, count_copy, c,
				     &blocks, &count);
	free(blocks);
	blocks = NULL;
	if (ret)
		return ret;
	c->too_many = c->copies > count;
	if (c->too_many && c->repair)
		cow_check_found(c->check, COW_FOUND_CORRUPT, false,
			"%llu blocks are in the places of %u others; they are not repaired: convert what can be read",
			(unsigned long long)c->copies, count);
	ret = vhd_blocks_get(c->v, c->file_bytes, found_fault, c, &blocks,
			     &count);
	free(blocks);
	/* Before what they told of is cut off or given back. */
	if (!ret)
		ret = sync_changes(c);
	/* That may be theirs. */
	c->repair = c->repair && !c->too_many;
	return ret;
}

/* --- Lost places ---------------------------------------------------------- */

static bool holds_metadata(const struct vhd *v, uint64_t start, uint64_t end)
{
	unsigned int i;

	for (i = 0; i < v->nr_regions; i++) {
		if (v->region[i].start < end && start < v->region[i].end)
			return true;
	}
	return false;
}

/*
 * What lies in the midst of the file stays there; but what it holds can be
 * given back.  The first page may have an old footer in it.
 */
static int check_gap(struct checking *c, uint64_t start, uint64_t end)
{
	uint64_t data;
	int ret;

	start = num_round_up(start + sizeof(c->v->footer), VHD_PLACE_ALIGN);
	end = num_round_down(end, VHD_PLACE_ALIGN);
	if (start >= end || holds_metadata(c->v, start, end))
		return 0;
	ret = cow_file_next_data(c->v->img, 0, start, &data);
	if (ret || data >= end)
		return ret;
	if (c->repair)
		ret = cow_punch(c->v->img, 0, start, end - start);
	if (!ret)
		cow_check_found(c->check, COW_FOUND_LEAK, c->repair,
			"%llu bytes from offset %llu on are in no block",
			(unsigned long long)(end - start),
			(unsigned long long)start);
	return ret;
}

/* Others keep things of their own behind the metadata; we do not. */
static bool ours(const struct vhd *v)
{
	return !memcmp(v->f.creator, "cowd", 4);
}

static int check_gaps(struct checking *c, const struct vhd_block *blocks,
		      uint32_t count)
{
	struct cow_file_stat st;
	uint32_t i;
	int ret;

	ret = cow_file_stat(c->v->img, 0, &st);
	if (ret || st.block_device)
		return ret;
	for (i = 0; !ret && i < count; i++) {
		uint64_t place = (uint64_t)blocks[i].sector * VHD_SECTOR;

		if (i || ours(c->v))
			ret = check_gap(c, c->end, place);
		c->end = place + vhd_place_bytes(c->v);
	}
	return ret;
}

static uint64_t metadata_end(const struct vhd *v)
{
	uint64_t end = 0;
	unsigned int i;

	for (i = 0; i < v->nr_regions; i++)
		end = num_max(end, v->region[i].end);
	return end;
}

/* After a repair the blocks are others: look where they are now. */
static int check_places(struct checking *c)
{
	struct vhd_block *blocks;
	uint32_t count;
	int ret;

	ret = vhd_blocks_get(c->v, c->file_bytes, nothing_new, NULL, &blocks,
			     &count);
	if (ret)
		return ret;
	c->end = metadata_end(c->v);
	c->foreign = !count && !ours(c->v);
	ret = check_gaps(c, blocks, count);
	free(blocks);
	c->end = num_round_up(num_max(c->end, metadata_end(c->v)), VHD_SECTOR);
	return ret;
}

int vhd_check(void *handle, struct cow_check *check, bool repair)
{
	struct checking c = {
		.v = handle, .check = check, .repair = repair,
	};
	struct cow_file_stat st;
	int ret;

	if (c.v->f.type == VHD_FIXED)
		return 0;
	ret = cow_file_stat(c.v->img, 0, &st);
	c.file_bytes = st.size;
	c.opened_bytes = st.size;
	if (!ret)
		ret = check_copy(&c);
	if (!ret)
		ret = check_blocks(&c);
	if (!ret)
		ret = check_places(&c);
	return ret ? ret : check_end(&c);
}
