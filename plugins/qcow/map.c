// SPDX-License-Identifier: GPL-2.0-or-later
/* map.c - where a cluster lives, and places for those that have none. */
#include "qcow.h"

#include <common/num.h>

#include <errno.h>

#define GROW_BYTES (4u << 20)	/* the file grows by no less, if it can */
#define FORESEE_MAX 512u	/* clusters */

/* --- What is there -------------------------------------------------------- */

/* Clusters of the disk of which the same can be said. */
struct spot {
	uint64_t first, count;
	uint32_t kind;		/* LINEAR, READ, and what says_nothing() says */
	uint64_t offset;	/* LINEAR: bytes in the file */
	uint64_t entry;		/* READ */
	uint64_t l2;		/* offset of the L2 table; 0: there is none */
};

static uint32_t says_nothing(const struct qcow *d)
{
	return d->backing_path ? COW_KIND_BACKING : COW_KIND_ZERO;
}

/* No table for this cluster: and which of the next ones have none either? */
static void no_table(const struct qcow *d, const struct qcow_entries *l1,
		     struct spot *s)
{
	uint64_t nr = s->first >> d->h.l2_bits, n = 1;

	while (n < l1->count && !be64_get(l1->at[n]))
		n++;
	s->kind = says_nothing(d);
	s->count = num_min((nr + n) << d->h.l2_bits, d->nr_clusters) -
		   s->first;
}

/* Bytes of a cluster that the disk has. */
static uint64_t cluster_len(const struct qcow *d, uint64_t cluster)
{
	return num_min(d->cluster_size, d->h.size - qcow_bytes(d, cluster));
}

/* The run of clusters that stand one behind the other, all in the file. */
static uint64_t linear_run(const struct qcow *d, const struct qcow_entries *l2,
			   const struct spot *s)
{
	uint64_t n = 0, offset = s->offset;

	while (n < l2->count && be64_get(l2->at[n]) == offset &&
	       !qcow_cluster_fault(d, offset) &&
	       num_run_in(offset, cluster_len(d, s->first + n), d->end)) {
		offset += d->cluster_size;
		n++;
	}
	return n;
}

static uint64_t empty_run(const struct qcow_entries *l2)
{
	uint64_t n = 1;

	while (n < l2->count && !be64_get(l2->at[n]))
		n++;
	return n;
}

static int look_entry(struct qcow *d, const struct qcow_entries *l2,
		      struct spot *s)
{
	uint64_t entry = be64_get(l2->at[0]);
	const char *why;

	s->count = 1;
	s->entry = entry;
	if (!entry) {
		s->kind = says_nothing(d);
		s->count = empty_run(l2);
		return 0;
	}
	why = entry & QCOW_COMPRESSED ? qcow_packed_fault(d, entry) :
					qcow_cluster_fault(d, entry);
	if (why)
		return qcow_bad_cluster(d, s->first, entry, why);
	s->kind = COW_KIND_READ;
	if (entry & QCOW_COMPRESSED)
		return 0;
	s->offset = entry;
	s->count = linear_run(d, l2, s);
	if (s->count)
		s->kind = COW_KIND_LINEAR;
	else
		s->count = 1;	/* the file ends within it */
	return 0;
}

/* Restarted.  What the tables say of cluster s->first, and those behind it. */
static int look_up(struct qcow *d, struct spot *s)
{
	struct qcow_entries e;
	int ret;

	ret = qcow_l1(d, s->first, false, &e);
	if (ret)
		return ret;
	s->l2 = be64_get(e.at[0]);
	if (!s->l2) {
		no_table(d, &e, s);
		return 0;
	}
	ret = qcow_l2(d, s->first, s->l2, false, &e);
	return ret ? ret : look_entry(d, &e, s);
}

/* What is there, up to the next cluster that was given a place. */
static int map_there(struct qcow *d, const struct spot *s,
		     struct cow_mapping *m)
{
	m->kind = s->kind;
	m->first = s->first;
	m->count = s->count;
	if (d->writable)
		m->count = num_min(s->count,
				   runs_next(&d->runs, s->first) - s->first);
	if (s->kind == COW_KIND_LINEAR) {
		m->offset = s->offset;
		m->flags = d->writable ? COW_MAPPING_WRITABLE : 0;
	} else if (s->kind == COW_KIND_READ) {
		m->cookie = s->entry;
	}
	return 0;
}

/* --- Space ---------------------------------------------------------------- */

static int grow(struct qcow *d, uint64_t min, uint64_t want, uint64_t *got)
{
	struct space *s = &d->space;
	uint64_t room = s->max - num_min(s->end, s->max);
	uint64_t more = num_max(want, GROW_BYTES >> d->h.cluster_bits);
	int ret;

	/* What was given up is free after a commit. */
	if (room < min && (s->nr_freed || s->nr_freeing))
		return cow_commit_first(d->img);
	if (room < min)
		return cow_error(d->img, -ENOSPC,
			"has a file of %llu bytes, which can hold no further cluster",
			(unsigned long long)d->end);
	*got = num_min(want, room);
	more = num_min(more, room);
	ret = cow_file_extend(d->img, 0, qcow_bytes(d, s->end + more));
	if (ret)
		return ret;
	s->end += more;
	d->end = qcow_bytes(d, s->end);
	return 0;
}

int qcow_allocate(struct qcow *d, uint64_t min, uint64_t want, uint64_t *unit,
		  uint64_t *got)
{
	int ret;

	*got = space_find(&d->space, min, want, unit);
	if (!*got) {
		*unit = d->space.end;
		ret = grow(d, min, want, got);
		if (ret)
			return ret;
	}
	space_give(&d->space, *unit, *got);
	return 0;
}

int qcow_allocate_apart(struct qcow *d, uint64_t units, uint64_t *unit)
{
	struct space *s = &d->space;
	uint64_t got;
	int ret;

	if (!space_find_from(s, d->opened_units, units, units, unit) &&
	    !(d->device && space_find_last(s, units, unit))) {
		*unit = s->end;
		ret = grow(d, units, units, &got);
		if (ret)
			return ret;
	}
	space_give(s, *unit, units);
	return 0;
}

int qcow_reserve(struct qcow *d, uint64_t offset, uint64_t len)
{
	int ret = cow_reserve(d->img, 0, offset, len);

	if (ret == -ENOSPC)
		cow_error(d->img, ret,
			  "there is no space for a table at offset %llu",
			  (unsigned long long)offset);
	return ret;
}

/* --- A place -------------------------------------------------------------- */

static int map_run(const struct run *run, struct cow_mapping *m)
{
	m->kind = COW_KIND_COW;
	m->source = run->source;
	m->cookie = run->cookie;
	m->first = run->first;
	m->count = run->count;
	m->offset = run->offset;
	return 0;
}

static uint32_t source_of(const struct spot *s)
{
	switch (s->kind) {
	case COW_KIND_READ:
		return COW_SOURCE_READ;
	case COW_KIND_BACKING:
		return COW_SOURCE_BACKING;
	default:
		return COW_SOURCE_ZERO;
	}
}

/*
 * Who writes on where the last run ended gets twice as much: so a long write
 * asks few questions, and writes here and there leave no holes.
 */
static uint64_t foresee(const struct qcow *d, const struct cow_query *q,
			uint64_t max)
{
	uint64_t want = q->count;

	if (d->next_count && q->first == d->next_first)
		want = num_max(want, 2 * d->next_count);
	return num_min(num_min(want, FORESEE_MAX), max);
}

/* What the spot tells of has no place: give one to as much as may be wanted. */
static int give(struct qcow *d, const struct cow_query *q,
		const struct spot *s, struct cow_mapping *m)
{
	struct run run = { .first = s->first, .source = source_of(s) };
	uint64_t end, unit;
	int ret;

	d->gave = true;

	end = num_min(s->first + s->count, runs_next(&d->runs, s->first));
	end = num_min(end, q->limit_end);
	if (s->kind == COW_KIND_READ)
		run.cookie = s->entry;
	ret = qcow_reserve(d, qcow_l2_piece(d, s->first, s->l2), d->l2_piece);
	if (!ret)
		ret = qcow_allocate(d, 1, foresee(d, q, end - s->first), &unit,
				    &run.count);
	if (ret)
		return ret;
	run.offset = qcow_bytes(d, unit);
	runs_add(&d->runs, &run);
	d->next_first = run.first + run.count;
	d->next_count = run.count;
	return map_run(&run, m);
}

/*
 * The L2 table comes first, so that whoever writes learns that there is no
 * space for it, and not a flush.
 */
static int map_write(struct qcow *d, const struct cow_query *q,
		     struct cow_mapping *m)
{
	struct spot s = { .first = q->first };
	int ret;

	ret = look_up(d, &s);
	if (!ret && !s.l2) {
		ret = qcow_l2_add(d, s.first, &s.l2);
		if (!ret)
			ret = look_up(d, &s);
		m->flags = COW_MAPPING_DIRTY;
	}
	if (!ret && s.kind != COW_KIND_LINEAR)
		ret = qcow_l2_settle(d, s.first);
	if (ret)
		return ret;
	return s.kind == COW_KIND_LINEAR ? map_there(d, &s, m) :
					   give(d, q, &s, m);
}

int qcow_map(void *handle, const struct cow_query *q, struct cow_mapping *m)
{
	struct qcow *d = handle;
	const struct run *run = NULL;
	struct spot s = { .first = q->first };
	int ret;

	if (q->flags & COW_QUERY_WRITE && !d->writable)
		return -EROFS;
	if (d->writable)
		run = runs_find(&d->runs, q->first);
	if (run)
		return map_run(run, m);
	if (q->flags & COW_QUERY_WRITE)
		return map_write(d, q, m);
	ret = look_up(d, &s);
	return ret ? ret : map_there(d, &s, m);
}
