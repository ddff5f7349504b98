// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * map.c - where a block lives, and places for those that have none.
 *
 * Blocks are grains in an image that is written.  One that is only read may
 * have smaller blocks, where its extents do not begin at whole grains.
 */
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

#define GROW_BYTES (4u << 20)		/* files grow by no less, if they can */
#define FORESEE_MAX 512u		/* blocks */

/* --- Flat ----------------------------------------------------------------- */

static int map_flat(struct vmdk *v, struct vmdk_extent *e,
		    const struct cow_query *q, struct cow_mapping *m)
{
	int ret = 0;

	if (q->flags & COW_QUERY_WRITE)
		ret = vmdk_mark(v, e);
	if (ret)
		return ret;
	m->kind = COW_KIND_LINEAR;
	m->flags = vmdk_is_marked(v, e) ? COW_MAPPING_WRITABLE : 0;
	m->first = e->first;
	m->count = e->nr_blocks;
	m->file = e->file;
	m->offset = e->offset;
	return 0;
}

/* --- Sparse: what is there ------------------------------------------------ */

/* A run of grains of one extent, from grain nr on. */
struct grains {
	uint64_t nr;
	uint64_t count;
	uint32_t kind;		/* LINEAR, ZERO, BACKING, READ */
	uint64_t offset;	/* LINEAR and READ: bytes in the file */
};

/* Grains nr on, as blocks of the disk. */
static void set_blocks(const struct vmdk *v, const struct vmdk_extent *e,
		       const struct grains *g, struct cow_mapping *m)
{
	uint64_t per_grain = e->h.grain_size / v->block_size;
	uint64_t first = g->nr * per_grain;

	m->first = e->first + first;
	m->count = num_min(g->count * per_grain, e->nr_blocks - first);
}

/* No table for this grain: and which of the next ones have none either? */
static int no_table(struct vmdk *v, struct vmdk_extent *e, struct grains *g)
{
	uint64_t nr = g->nr / VMDK_GTES;
	struct vmdk_entries gd;
	uint32_t i, n;
	int ret;

	ret = vmdk_entries(v, e, e->h.gd_offset, nr, false, &gd);
	if (ret)
		return ret;
	n = (uint32_t)num_min(gd.count, e->h.nr_gdes - nr);
	for (i = 1; i < n && !le32_get(gd.at[i]); i++)
		;
	g->kind = COW_KIND_BACKING;
	g->count = num_min((nr + i) * VMDK_GTES, e->h.nr_grains) - g->nr;
	return 0;
}

/* The run of entries that are all nothing, or all zeroes. */
static uint64_t same_run(const struct vmdk_entries *gt, uint64_t max,
			 uint32_t gte)
{
	uint64_t n = 1;

	while (n < max && le32_get(gt->at[n]) == gte)
		n++;
	return n;
}

/* The run of grains that stand one behind the other, all in the file. */
static uint64_t linear_run(const struct vmdk_extent *e,
			   const struct vmdk_entries *gt, uint64_t max,
			   uint64_t nr, uint32_t gte)
{
	uint32_t step = e->h.grain_size / VMDK_SECTOR;
	uint64_t n = 1;

	while (n < max && le32_get(gt->at[n]) == gte + n * step &&
	       vmdk_grain_ok(e, gte + (uint32_t)n * step) &&
	       num_run_in((gte + n * step) * VMDK_SECTOR,
			  vmdk_grain_len(e, nr + n), e->end))
		n++;
	return n;
}

static int set_grain(struct vmdk *v, struct vmdk_extent *e,
		     const struct vmdk_entries *gt, uint64_t max,
		     struct grains *g)
{
	uint32_t gte = le32_get(gt->at[0]);

	if (!vmdk_grain_ok(e, gte))
		return vmdk_bad_grain(v, e, g->nr, gte);
	g->offset = (uint64_t)gte * VMDK_SECTOR;
	g->kind = COW_KIND_LINEAR;
	if (e->h.flags & VMDK_FLAG_COMPRESSED ||
	    !num_run_in(g->offset, vmdk_grain_len(e, g->nr), e->end))
		g->kind = COW_KIND_READ;
	else
		g->count = linear_run(e, gt, max, g->nr, gte);
	return 0;
}

/* Restarted.  What the tables say of grain g->nr, and of those behind it. */
static int look_up(struct vmdk *v, struct vmdk_extent *e, struct grains *g)
{
	uint64_t max, index = g->nr % VMDK_GTES;
	struct vmdk_entries gt;
	uint32_t gde, gte;
	int ret;

	g->count = 1;
	ret = vmdk_gde(v, e, g->nr / VMDK_GTES, &gde);
	if (ret)
		return ret;
	if (!gde)
		return no_table(v, e, g);
	ret = vmdk_entries(v, e, (uint64_t)gde * VMDK_SECTOR, index, false,
			   &gt);
	if (ret)
		return ret;
	max = num_min(num_min(gt.count, VMDK_GTES - index),
		      e->h.nr_grains - g->nr);
	gte = le32_get(gt.at[0]);
	if (vmdk_is_grain(e, gte))
		return set_grain(v, e, &gt, max, g);
	g->kind = gte ? COW_KIND_ZERO : COW_KIND_BACKING;
	g->count = same_run(&gt, max, gte);
	return 0;
}

/* What is there, up to the next block that was given a place. */
static int map_there(struct vmdk *v, struct vmdk_extent *e,
		     const struct cow_query *q, const struct grains *g,
		     struct cow_mapping *m)
{
	set_blocks(v, e, g, m);
	m->kind = g->kind;
	m->file = e->file;
	m->offset = g->kind == COW_KIND_LINEAR ? g->offset : 0;
	if (g->kind == COW_KIND_LINEAR && vmdk_is_marked(v, e))
		m->flags = COW_MAPPING_WRITABLE;
	if (g->kind == COW_KIND_READ) {
		m->cookie = g->offset;
		m->first = q->first;
		m->count = 1;
	} else if (v->writable) {
		m->count = num_min(m->first + m->count,
				   runs_next(&v->runs, q->first)) -
			   m->first;
	}
	return 0;
}

/* --- Sparse: a place ------------------------------------------------------ */

static int map_run(const struct vmdk_extent *e, const struct run *run,
		   struct cow_mapping *m)
{
	m->kind = COW_KIND_COW;
	m->source = run->source;
	m->first = run->first;
	m->count = run->count;
	m->file = e->file;
	m->offset = run->offset;
	return 0;
}

/*
 * Who writes on where the last run ended gets twice as much: so a long write
 * asks few questions, and writes here and there leave no holes.
 */
static uint64_t foresee(struct vmdk *v, const struct cow_query *q,
			uint64_t max)
{
	uint64_t want = q->count;

	if (v->next_count && q->first == v->next_first)
		want = num_max(want, 2 * v->next_count);
	return num_min(num_min(want, FORESEE_MAX), max);
}

static uint64_t file_max(const struct vmdk_extent *e)
{
	return num_min(VMDK_FILE_MAX / e->h.grain_size, e->space.max);
}

static int grow(struct vmdk *v, struct vmdk_extent *e, uint64_t want,
		uint64_t *got)
{
	struct space *s = &e->space;
	uint64_t room = file_max(e) - num_min(s->end, file_max(e));
	uint64_t more = num_max(want, GROW_BYTES / s->unit);
	int ret;

	if (!room)
		return cow_error(v->img, -ENOSPC,
			"its file %u has %llu bytes and can hold no further grain",
			e->file, (unsigned long long)e->end);
	*got = num_min(want, room);
	more = num_min(more, room);
	ret = cow_file_extend(v->img, e->file, (s->end + more) * s->unit);
	if (ret)
		return ret;
	s->end += more;
	e->end = s->end * s->unit;
	return 0;
}

int vmdk_allocate(struct vmdk *v, struct vmdk_extent *e, uint64_t want,
		  uint64_t *unit, uint64_t *got)
{
	int ret;

	*got = space_find(&e->space, 1, want, unit);
	if (!*got) {
		*unit = e->space.end;
		ret = grow(v, e, want, got);
		if (ret)
			return ret;
	}
	space_give(&e->space, *unit, *got);
	return 0;
}

int vmdk_allocate_apart(struct vmdk *v, struct vmdk_extent *e, uint64_t *unit)
{
	struct space *s = &e->space;
	uint64_t got;
	int ret;

	if (!space_find_from(s, e->opened_units, 1, 1, unit) &&
	    !(e->device && space_find_last(s, 1, unit))) {
		*unit = s->end;
		ret = grow(v, e, 1, &got);
		if (ret)
			return ret;
	}
	space_give(s, *unit, 1);
	return 0;
}

/* The run g has no place: give one to as much of it as may be wanted. */
static int give(struct vmdk *v, struct vmdk_extent *e,
		const struct cow_query *q, const struct grains *g,
		struct cow_mapping *m)
{
	struct run run = { .file = e->file };
	uint64_t end, unit, got;
	int ret;

	end = num_min(e->first + g->nr + g->count,
		      runs_next(&v->runs, q->first));
	end = num_min(end, q->limit_end);
	ret = vmdk_allocate(v, e, foresee(v, q, end - q->first), &unit, &got);
	if (ret)
		return ret;
	e->gave = true;
	run.source = g->kind == COW_KIND_ZERO ? COW_SOURCE_ZERO :
							COW_SOURCE_BACKING;
	run.first = q->first;
	run.count = got;
	run.offset = unit * e->space.unit;
	runs_add(&v->runs, &run);
	v->next_first = run.first + run.count;
	v->next_count = run.count;
	return map_run(e, &run, m);
}

static int map_write(struct vmdk *v, struct vmdk_extent *e,
		     const struct cow_query *q, struct cow_mapping *m)
{
	struct grains g = { .nr = q->first - e->first };
	int ret;

	ret = vmdk_mark(v, e);
	if (!ret)
		ret = look_up(v, e, &g);
	if (ret)
		return ret;
	if (g.kind == COW_KIND_LINEAR)
		return map_there(v, e, q, &g, m);
	ret = vmdk_have_table(v, e, q->first);
	if (!ret)
		ret = vmdk_settle_table(v, e, q->first);
	if (!ret)
		ret = look_up(v, e, &g);
	return ret ? ret : give(v, e, q, &g, m);
}

static int map_sparse(struct vmdk *v, struct vmdk_extent *e,
		      const struct cow_query *q, struct cow_mapping *m)
{
	const struct run *run = NULL;
	struct grains g = { 0 };
	int ret;

	if (v->writable)
		run = runs_find(&v->runs, q->first);
	if (run)
		return map_run(e, run, m);
	if (q->flags & COW_QUERY_WRITE)
		return map_write(v, e, q, m);
	g.nr = (q->first - e->first) / (e->h.grain_size / v->block_size);
	ret = look_up(v, e, &g);
	return ret ? ret : map_there(v, e, q, &g, m);
}

int vmdk_map(void *handle, const struct cow_query *q, struct cow_mapping *m)
{
	struct vmdk *v = handle;
	struct vmdk_extent *e = vmdk_extent_of(v, q->first);

	if (q->flags & COW_QUERY_WRITE && !v->writable)
		return -EROFS;
	if (e->type == VMDK_FLAT)
		return map_flat(v, e, q, m);
	if (e->type == VMDK_SPARSE)
		return map_sparse(v, e, q, m);
	m->kind = COW_KIND_ZERO;
	m->first = e->first;
	m->count = e->nr_blocks;
	return 0;
}
