// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * change.c - tables come to refer to a place, or to none any more.
 *
 * A change is done table by table: to do one again does no harm.  Tables are
 * asked for all at once before, so that they are read at the same time.
 */
#include "vmdk.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>

/* The grains of one table that a change is about. */
struct part {
	struct vmdk_extent *e;
	uint64_t table;		/* its number */
	uint64_t index;		/* of the first entry */
	uint64_t count;
};

/* An entry in both copies; rgd's table is NULL where there is one copy. */
struct both {
	struct vmdk_entries gd, rgd;
};

/* The part that begins at block; end is not within one table, perhaps. */
static struct part part_at(const struct vmdk *v, uint64_t block, uint64_t end)
{
	struct part p = { .e = vmdk_extent_of(v, block) };
	uint64_t nr = block - p.e->first;

	p.table = nr / VMDK_GTES;
	p.index = nr % VMDK_GTES;
	p.count = num_min(VMDK_GTES - p.index, p.e->nr_blocks - nr);
	p.count = num_min(p.count, end - block);
	return p;
}

/* --- Tables --------------------------------------------------------------- */

/* Both are asked for, so that both are read at the same time. */
static int get_both(struct vmdk *v, struct vmdk_extent *e, uint64_t gd,
		    uint64_t rgd, uint64_t index, bool write, struct both *b)
{
	int ret, second = 0;

	b->rgd = (struct vmdk_entries){ 0 };
	ret = vmdk_entries(v, e, gd, index, write, &b->gd);
	if (ret && ret != -EAGAIN)
		return ret;
	if (vmdk_has_rgd(e))
		second = vmdk_entries(v, e, rgd, index, write, &b->rgd);
	return second && second != -EAGAIN ? second : ret ? ret : second;
}

static int get_directory(struct vmdk *v, const struct part *p, bool write,
			 struct both *b)
{
	return get_both(v, p->e, p->e->h.gd_offset, p->e->h.rgd_offset,
			p->table, write, b);
}

static uint64_t table_offset(const struct vmdk_entries *directory)
{
	return directory->at ?
	       (uint64_t)le32_get(directory->at[0]) * VMDK_SECTOR : 0;
}

/* Where a directory's entry points, in both copies.  *gd is 0 for nowhere. */
static int get_places(struct vmdk *v, const struct part *p, uint64_t *gd,
		      uint64_t *rgd)
{
	struct both b;
	int ret;

	ret = get_directory(v, p, false, &b);
	if (ret)
		return ret;
	*gd = table_offset(&b.gd);
	*rgd = table_offset(&b.rgd);
	if (*gd && !vmdk_table_ok(p->e, le32_get(b.gd.at[0])))
		return vmdk_bad_table(v, p->e, p->table,
				      le32_get(b.gd.at[0]));
	if (*gd && b.rgd.at && !vmdk_table_ok(p->e, le32_get(b.rgd.at[0])))
		return vmdk_bad_table(v, p->e, p->table,
				      le32_get(b.rgd.at[0]));
	return 0;
}

/* A table may lie in two windows: get those of entries index on. */
static int get_entries(struct vmdk *v, const struct part *p, uint64_t gd,
		       uint64_t rgd, uint64_t index, struct both *b)
{
	return get_both(v, p->e, gd, rgd, index, true, b);
}

static uint64_t room_in(const struct both *b)
{
	return b->rgd.at ? num_min(b->gd.count, b->rgd.count) : b->gd.count;
}

/* All windows of the part, to write. */
static int get_all_entries(struct vmdk *v, const struct part *p, uint64_t gd,
			   uint64_t rgd)
{
	uint64_t at = p->index, end = p->index + p->count;
	struct both b;
	int ret, result = 0;

	/* Two windows each at most: the first entry's and the last one's. */
	ret = get_entries(v, p, gd, rgd, at, &b);
	if (ret && ret != -EAGAIN)
		return ret;
	result = ret;
	ret = get_entries(v, p, gd, rgd, end - 1, &b);
	return ret ? ret : result;
}

/* --- Space for tables ------------------------------------------------------ */

static int no_space(struct vmdk *v, uint64_t offset)
{
	return cow_error(v->img, -ENOSPC,
		"there is no space for the grain table at offset %llu; free some on its file system",
		(unsigned long long)offset);
}

/* All of the windows that a commit writes; 0: there is no such copy. */
static int reserve(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
		   uint64_t len)
{
	uint64_t start = num_round_down(offset, v->window);
	uint64_t end = num_round_up(offset + len, v->window);
	int ret;

	if (!offset)
		return 0;
	ret = cow_reserve(v->img, e->file, start, end - start);
	return ret == -ENOSPC ? no_space(v, offset) : ret;
}

static int reserve_table(struct vmdk *v, const struct part *p, uint64_t gd,
			 uint64_t rgd)
{
	int ret = reserve(v, p->e, gd, VMDK_GT_BYTES);

	return ret ? ret : reserve(v, p->e, rgd, VMDK_GT_BYTES);
}

static int reserve_entries(struct vmdk *v, const struct part *p)
{
	uint64_t at = p->table * sizeof(le32);
	int ret = reserve(v, p->e, p->e->h.gd_offset + at, sizeof(le32));

	if (!ret && vmdk_has_rgd(p->e))
		ret = reserve(v, p->e, p->e->h.rgd_offset + at, sizeof(le32));
	return ret;
}

/* --- New tables ----------------------------------------------------------- */

/*
 * Room for both copies of a table.  It comes out of a unit that holds tables
 * only; what is left of it is used next, or lost when the image is closed.
 */
static int get_room(struct vmdk *v, struct vmdk_extent *e, uint32_t copies)
{
	uint64_t unit, got;
	int ret;

	if (e->gt_end - e->gt_next >= copies * VMDK_GT_BYTES)
		return 0;
	/* Before, any free unit may be a place that the kernel is about to tell of. */
	ret = e->gave ? vmdk_allocate(v, e, 1, &unit, &got) :
			vmdk_allocate_apart(v, e, &unit);
	if (ret)
		return ret;
	space_use(&e->space, unit);
	e->gt_next = unit * e->space.unit;
	e->gt_end = e->gt_next + e->space.unit;
	return 0;
}

/* The window of a table that was never written: the first table makes it. */
static int new_table(struct vmdk *v, struct vmdk_extent *e, uint64_t offset)
{
	struct cow_table *t;
	uint32_t skip, room;

	if (offset % v->window)
		return vmdk_window(v, e, e->file, offset, true, &t, &skip,
				   &room);
	return cow_table_new(v->img, e->file, offset, v->window, 1, &t);
}

/*
 * The directory has no table: make one, empty, in both copies.  What is dirty must
 * have its space, or no commit succeeds any more: it is reserved first.
 */
static int add_table(struct vmdk *v, const struct part *p)
{
	struct vmdk_extent *e = p->e;
	uint32_t copies = vmdk_has_rgd(e) ? 2 : 1;
	struct both b;
	int ret;

	ret = get_directory(v, p, true, &b);
	if (!ret)
		ret = get_room(v, e, copies);
	if (!ret)
		ret = reserve_entries(v, p);
	if (!ret)
		ret = reserve(v, e, e->gt_next, (uint64_t)copies * VMDK_GT_BYTES);
	if (!ret)
		ret = new_table(v, e, e->gt_next);
	if (!ret && copies == 2)
		ret = new_table(v, e, e->gt_next + VMDK_GT_BYTES);
	if (ret)
		return ret;
	b.gd.at[0] = le32_put((uint32_t)(e->gt_next / VMDK_SECTOR));
	vmdk_entries_dirty(&b.gd, 1);
	e->gt_next += VMDK_GT_BYTES;
	if (copies == 1)
		return 0;
	b.rgd.at[0] = le32_put((uint32_t)(e->gt_next / VMDK_SECTOR));
	vmdk_entries_dirty(&b.rgd, 1);
	e->gt_next += VMDK_GT_BYTES;
	return 0;
}

int vmdk_have_table(struct vmdk *v, struct vmdk_extent *e, uint64_t block)
{
	struct part p = part_at(v, block, block + 1);
	uint64_t gd, rgd;
	int ret;

	if (bits_test(e->reserved, p.table))
		return 0;
	ret = get_places(v, &p, &gd, &rgd);
	if (!ret && !gd) {
		ret = add_table(v, &p);
		if (!ret)
			ret = get_places(v, &p, &gd, &rgd);
	}
	if (!ret)
		ret = reserve_table(v, &p, gd, rgd);
	if (!ret)
		bits_set(e->reserved, p.table);
	return ret;
}

int vmdk_settle_table(struct vmdk *v, struct vmdk_extent *e, uint64_t block)
{
	struct part p = part_at(v, block, block + 1);
	struct both b;
	uint32_t skip;
	int ret;

	if (!e->device)
		return 0;
	ret = get_directory(v, &p, false, &b);
	if (ret)
		return ret;
	skip = (uint32_t)((char *)b.gd.at - (char *)cow_table_data(b.gd.table));
	return cow_commit_table_first(b.gd.table, skip, sizeof(*b.gd.at));
}

/* --- One entry ------------------------------------------------------------ */

static void set_entry(const struct vmdk *v, struct vmdk_extent *e,
		      struct both *b, uint32_t gte)
{
	uint32_t old = le32_get(b->gd.at[0]);

	if (vmdk_is_grain(e, old))
		space_drop(&e->space, (uint64_t)old * VMDK_SECTOR /
				e->space.unit);
	if (vmdk_is_grain(e, gte))
		space_use(&e->space, (uint64_t)gte * VMDK_SECTOR /
			       e->space.unit);
	b->gd.at[0] = le32_put(gte);
	vmdk_entries_dirty(&b->gd, 1);
	if (!b->rgd.at)
		return;
	b->rgd.at[0] = le32_put(gte);
	vmdk_entries_dirty(&b->rgd, 1);
}

static void next_entry(struct both *b)
{
	b->gd.at++;
	b->gd.count--;
	if (b->rgd.at) {
		b->rgd.at++;
		b->rgd.count--;
	}
}

/* Places that were given to these blocks and have not been taken. */
static void forget_places(struct vmdk *v, uint64_t first, uint64_t end)
{
	struct run piece;

	while (runs_take(&v->runs, first, end, &piece)) {
		struct space *s = &vmdk_extent_of(v, piece.first)->space;

		space_return(s, piece.offset / s->unit, piece.count);
	}
}

/* --- Copied --------------------------------------------------------------- */

static int bad_place(struct vmdk *v, uint64_t block, uint64_t offset,
		     const char *why)
{
	return cow_error(v->img, -EINVAL,
		"block %llu cannot stand at offset %llu: %s",
		(unsigned long long)block, (unsigned long long)offset, why);
}

/* 1: it stands there already, as the tables say. */
static int check_place(struct vmdk *v, struct vmdk_extent *e, uint64_t block,
		       uint32_t gte, uint64_t offset)
{
	if (vmdk_is_grain(e, gte) && (uint64_t)gte * VMDK_SECTOR == offset)
		return 1;
	if (vmdk_is_grain(e, gte))
		return bad_place(v, block, offset, "it has a place already");
	if (!space_may_use(&e->space, offset / e->space.unit))
		return bad_place(v, block, offset, "that is in use, or outside of the file");
	return 0;
}

static int take_entries(struct vmdk *v, const struct part *p, uint64_t gd,
			uint64_t rgd, uint64_t offset)
{
	uint64_t block = p->e->first + p->table * VMDK_GTES + p->index, i = 0;
	uint64_t n;
	struct both b;
	int ret;

	while (i < p->count) {
		ret = get_entries(v, p, gd, rgd, p->index + i, &b);
		if (ret)
			return ret;
		n = num_min(room_in(&b), p->count - i);
		for (; n; n--, i++, next_entry(&b)) {
			uint64_t place = offset + i * p->e->space.unit;

			ret = check_place(v, p->e, block + i,
					  le32_get(b.gd.at[0]), place);
			if (ret < 0)
				return ret;
			if (!ret)
				set_entry(v, p->e, &b,
					  (uint32_t)(place / VMDK_SECTOR));
		}
	}
	forget_places(v, block, block + p->count);
	return 0;
}

static int copied_part(struct vmdk *v, const struct part *p, uint64_t offset)
{
	uint64_t gd, rgd;
	int ret;

	ret = get_places(v, p, &gd, &rgd);
	if (!ret && !gd) {
		ret = add_table(v, p);
		if (!ret)
			ret = get_places(v, p, &gd, &rgd);
	}
	if (!ret)
		ret = get_all_entries(v, p, gd, rgd);
	return ret ? ret : take_entries(v, p, gd, rgd, offset);
}

/* Have all tables read that are there: first directories, then tables. */
static int prefetch(struct vmdk *v, uint64_t block, uint64_t end)
{
	uint64_t gd, rgd;
	int ret, result = 0;

	while (block < end) {
		struct part p = part_at(v, block, end);

		ret = get_places(v, &p, &gd, &rgd);
		if (!ret && gd)
			ret = get_all_entries(v, &p, gd, rgd);
		if (ret && ret != -EAGAIN)
			return ret;
		if (ret)
			result = ret;
		block += p.count;
	}
	return result;
}

static int check_extent(struct vmdk *v, const struct cow_extent *x)
{
	struct vmdk_extent *e = vmdk_extent_of(v, x->first);

	if (e->type != VMDK_SPARSE || x->file != e->file ||
	    !num_run_in(x->first - e->first, x->count, e->nr_blocks))
		return bad_place(v, x->first, x->offset,
				 "its extent has another file");
	if (x->offset % e->space.unit || x->offset >= VMDK_FILE_MAX)
		return bad_place(v, x->first, x->offset,
				 "that is no place of a grain");
	return vmdk_mark(v, e);
}

int vmdk_copied(void *handle, const struct cow_extent *x)
{
	struct vmdk *v = handle;
	uint64_t block = x->first, end = x->first + x->count;
	int ret;

	ret = check_extent(v, x);
	if (!ret)
		ret = prefetch(v, block, end);
	while (!ret && block < end) {
		struct part p = part_at(v, block, end);

		ret = copied_part(v, &p, x->offset + (block - x->first) *
				  v->block_size);
		block += p.count;
	}
	return ret;
}

/* --- Discard and zeroes --------------------------------------------------- */

static int empty_entries(struct vmdk *v, const struct part *p, uint64_t gd,
			 uint64_t rgd, uint32_t gte)
{
	uint64_t i = 0, n;
	struct both b;
	int ret;

	while (i < p->count) {
		ret = get_entries(v, p, gd, rgd, p->index + i, &b);
		if (ret)
			return ret;
		n = num_min(room_in(&b), p->count - i);
		for (; n; n--, i++, next_entry(&b)) {
			if (le32_get(b.gd.at[0]) != gte)
				set_entry(v, p->e, &b, gte);
		}
	}
	return 0;
}

static int empty_part(struct vmdk *v, const struct part *p)
{
	uint64_t block = p->e->first + p->table * VMDK_GTES + p->index;
	uint32_t gte = v->d.parent ? VMDK_GTE_ZERO : 0;
	uint64_t gd, rgd;
	int ret = gte ? vmdk_have_table(v, p->e, block) : 0;

	if (!ret)
		ret = get_places(v, p, &gd, &rgd);
	if (!ret && gd)
		ret = get_all_entries(v, p, gd, rgd);
	if (!ret && gd)
		ret = empty_entries(v, p, gd, rgd, gte);
	if (!ret)
		forget_places(v, block, block + p->count);
	return ret;
}

/*
 * Both mean that the blocks read as zeroes: nothing is below where there is
 * no parent, and where there is one the entry says so.
 */
int vmdk_discard(void *handle, uint64_t first, uint64_t count)
{
	struct vmdk *v = handle;
	uint64_t block = first, end = first + count;
	int ret = 0;

	while (!ret && block < end) {
		struct part p = part_at(v, block, end);

		ret = vmdk_mark(v, p.e);
		if (!ret)
			ret = empty_part(v, &p);
		block += p.count;
	}
	return ret;
}
