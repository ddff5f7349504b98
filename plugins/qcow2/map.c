// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * map.c - where blocks live.
 *
 * An answer is a run of blocks of one slice of an L2 table, as long as the
 * same thing can be said of all: so an image that was written in order is
 * answered by one mapping a slice.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>

/* What is said of one block. */
struct spot {
	uint32_t kind, source;
	uint64_t offset, src_offset;
};

/* What a question is about: the slice, and how to look at its entries. */
struct view {
	struct qcow2 *d;
	struct qcow2_l2 l2;
	bool write;
	struct qcow2_entry own;		/* of the block asked for */
	/* The entry that was looked at last. */
	uint64_t cluster;
	bool valid;
	struct qcow2_entry e;
};

static bool has_backing(const struct qcow2 *d)
{
	return d->backing_path;
}

static int view_entry(struct view *v, uint64_t cluster)
{
	int ret;

	if (v->valid && v->cluster == cluster)
		return 0;
	ret = qcow2_l2_entry(v->d, &v->l2, cluster, &v->e);
	v->valid = !ret;
	v->cluster = cluster;
	return ret;
}

/* --- Without a change ----------------------------------------------------- */

static uint32_t kind_of_nothing(const struct qcow2 *d)
{
	return has_backing(d) ? COW_KIND_BACKING : COW_KIND_ZERO;
}

/* A file that is open for reading may end within a cluster: zeroes follow. */
static void at_end_of_file(const struct qcow2 *d, struct spot *s)
{
	uint64_t size = d->g.data_file ? d->data_size : d->file_size;

	if (d->writable || s->offset + d->g.block_size <= size)
		return;
	s->kind = s->offset >= size ? COW_KIND_ZERO : COW_KIND_READ;
}

static void look(const struct qcow2 *d, const struct qcow2_entry *e,
		 uint64_t block, struct spot *s)
{
	uint32_t sub = (uint32_t)(block & ((1u << d->g.sub_bits) - 1));

	*s = (struct spot){ 0 };
	if (e->compressed) {
		s->kind = COW_KIND_READ;
	} else if (e->alloc >> sub & 1) {
		s->kind = COW_KIND_LINEAR;
		s->offset = e->host + (uint64_t)sub * d->g.block_size;
		at_end_of_file(d, s);
	} else if (e->zero >> sub & 1) {
		s->kind = COW_KIND_ZERO;
	} else {
		s->kind = kind_of_nothing(d);
	}
}

/* --- Before a write ------------------------------------------------------- */

/* Does the place of a block that is not written yet stand in its entry? */
static bool own_place(const struct qcow2 *d, const struct qcow2_entry *e)
{
	return d->g.data_file || (e->has_host && e->copied && !e->compressed);
}

static void look_source(const struct qcow2 *d, const struct qcow2_entry *e,
			uint64_t block, struct spot *s)
{
	struct spot now;

	look(d, e, block, &now);
	if (now.kind == COW_KIND_LINEAR) {
		s->source = COW_SOURCE_PLACE;
		s->src_offset = now.offset;
	} else if (now.kind == COW_KIND_READ) {
		s->source = COW_SOURCE_READ;
	} else {
		s->source = now.kind == COW_KIND_BACKING ?
			COW_SOURCE_BACKING : COW_SOURCE_ZERO;
	}
}

static void look_write(struct view *v, uint64_t block, struct spot *s)
{
	struct qcow2 *d = v->d;
	const struct qcow2_entry *e = &v->e;
	uint64_t cluster = block >> d->g.sub_bits, base;
	uint64_t skip = (block & ((1u << d->g.sub_bits) - 1)) *
			d->g.block_size;
	struct qcow2_pending *p;

	look(d, e, block, s);
	if (s->kind == COW_KIND_LINEAR && own_place(d, e))
		return;
	*s = (struct spot){ 0 };
	if (d->g.data_file) {
		base = qcow2_bytes(d, cluster);
	} else if (own_place(d, e)) {
		base = e->host;
	} else {
		p = qcow2_pending_find(d, cluster);
		if (!p || (qcow2_must_fill(d, e) &&
			   !(p->filled >> (cluster - p->guest) & 1)) ||
		    (!p->tail && qcow2_tail_bytes(d, p)))
			return;
		base = qcow2_bytes(d, p->host + (cluster - p->guest));
	}
	s->kind = COW_KIND_COW;
	s->offset = base + skip;
	look_source(d, e, block, s);
}

/* --- Runs ----------------------------------------------------------------- */

static int look_at(struct view *v, uint64_t block, struct spot *s)
{
	int ret = view_entry(v, block >> v->d->g.sub_bits);

	if (ret)
		return ret;
	if (v->write)
		look_write(v, block, s);
	else
		look(v->d, &v->e, block, s);
	return 0;
}

/* What ->read() makes comes block by block. */
static bool goes_alone(const struct spot *s)
{
	return s->kind == COW_KIND_READ || s->kind == COW_KIND_INVALID ||
	       (s->kind == COW_KIND_COW && s->source == COW_SOURCE_READ);
}

/* Is b what is said of the block n blocks after that of a? */
static bool goes_on(const struct qcow2 *d, const struct spot *a,
		    const struct spot *b, int64_t n)
{
	uint64_t bytes = (uint64_t)n * d->g.block_size;

	if (a->kind != b->kind || a->source != b->source || goes_alone(a))
		return false;
	if ((a->kind == COW_KIND_LINEAR || a->kind == COW_KIND_COW) &&
	    b->offset != a->offset + bytes)
		return false;
	return a->kind != COW_KIND_COW || a->source != COW_SOURCE_PLACE ||
	       b->src_offset == a->src_offset + bytes;
}

/*
 * The run around q->first.  An entry that is damaged ends it: who asks for
 * that one will be told.
 */
static int find_run(struct view *v, const struct cow_query *q,
		    struct spot *at, uint64_t *first, uint64_t *end)
{
	uint32_t sub_bits = v->d->g.sub_bits;
	uint64_t lo = num_max(q->limit_first, v->l2.first << sub_bits);
	uint64_t hi = num_min(q->limit_end,
			      (v->l2.first + v->l2.count) << sub_bits);
	const struct qcow2 *d = v->d;
	struct spot s;
	int ret;

	ret = look_at(v, q->first, at);
	if (ret)
		return ret;
	v->own = v->e;
	*first = q->first;
	*end = q->first + 1;
	if (goes_alone(at))
		return 0;
	while (*end < hi && qcow2_l2_sound(d, &v->l2, *end >> sub_bits) &&
	       !look_at(v, *end, &s) &&
	       goes_on(d, at, &s, (int64_t)(*end - q->first)))
		++*end;
	while (*first > lo &&
	       qcow2_l2_sound(d, &v->l2, (*first - 1) >> sub_bits) &&
	       !look_at(v, *first - 1, &s) &&
	       goes_on(d, &s, at, (int64_t)(q->first - (*first - 1))))
		--*first;
	return 0;
}

static int run_single(struct qcow2 *d, uint64_t host, uint64_t n,
		      uint64_t *single)
{
	*single = n;
	return d->g.data_file ? 0 : qcow2_refs_single(d, host, n, single);
}

/*
 * Blocks may be written where they stand only if nothing else refers to
 * their cluster, whatever bit 63 says: cut the run to those.
 */
static int check_single(struct view *v, const struct cow_query *q,
			const struct spot *at, uint64_t *first, uint64_t *end,
			bool *writable)
{
	struct qcow2 *d = v->d;
	uint64_t blocks = 1ull << d->g.sub_bits, host, n, single, lo;
	int ret;

	/* From the block's own cluster forward, then the part before it. */
	host = qcow2_cluster(d, at->offset);
	n = num_div_up(*end, blocks) - q->first / blocks;
	ret = run_single(d, host, n, &single);
	if (ret)
		return ret;
	*writable = single > 0;
	if (!single)
		return 0;
	*end = num_min(*end, (q->first / blocks + single) * blocks);
	lo = *first / blocks;
	n = q->first / blocks - lo;
	if (!n)
		return 0;
	ret = run_single(d, host - n, n, &single);
	if (!ret && single < n)
		*first = num_round_down(q->first, blocks);
	return ret;
}

static void answer(const struct view *v, const struct spot *s,
		   const struct cow_query *q, uint64_t first, uint64_t end,
		   struct cow_mapping *m)
{
	uint64_t back = (q->first - first) * v->d->g.block_size;

	m->kind = s->kind;
	m->first = first;
	m->count = end - first;
	m->source = s->source;
	m->file = v->d->data_file;
	m->src_file = v->d->data_file;
	if (s->kind == COW_KIND_LINEAR || s->kind == COW_KIND_COW)
		m->offset = s->offset - back;
	if (s->kind == COW_KIND_COW && s->source == COW_SOURCE_PLACE)
		m->src_offset = s->src_offset - back;
	if (goes_alone(s)) {
		m->src_offset = v->own.compressed ? v->own.host : s->offset;
		m->cookie = v->own.compressed ? v->own.sectors : 0;
	}
}

/* --- Reads ---------------------------------------------------------------- */

static int map_read(struct qcow2 *d, struct view *v,
		    const struct cow_query *q, struct cow_mapping *m)
{
	uint64_t first, end;
	bool writable = false;
	struct spot at;
	int ret;

	ret = find_run(v, q, &at, &first, &end);
	/* Say at once that it may be written: it saves a question. */
	if (!ret && at.kind == COW_KIND_LINEAR && d->writable &&
	    qcow2_l2_all_copied(d, &v->l2, first >> d->g.sub_bits,
				(end - 1) >> d->g.sub_bits)) {
		uint64_t f = first, e = end;

		ret = check_single(v, q, &at, &f, &e, &writable);
		if (!ret && writable) {
			first = f;
			end = e;
		}
	}
	if (ret)
		return ret;
	if (at.kind == COW_KIND_LINEAR &&
	    qcow2_moved_trim(d, q->first, &first, &end)) {
		answer(v, &at, q, first, end, m);
		m->flags = COW_MAPPING_ONCE;
		return 0;
	}
	answer(v, &at, q, first, end, m);
	m->flags = writable ? COW_MAPPING_WRITABLE : 0;
	return 0;
}

/* --- Writes --------------------------------------------------------------- */

/* Clusters that want a new place, from cluster on, within its group. */
static int want_places(struct view *v, uint64_t cluster, uint64_t *count)
{
	struct qcow2 *d = v->d;
	uint64_t group = d->reserved.group;
	uint64_t end = num_min((cluster / group + 1) * group,
			       v->l2.first + v->l2.count);
	uint64_t last = qcow2_cluster(d, d->h.size - 1) + 1;

	end = num_min(end, last);
	for (*count = 1; cluster + *count < end; ++*count) {
		int ret;

		if (!qcow2_l2_sound(d, &v->l2, cluster + *count))
			break;
		ret = view_entry(v, cluster + *count);
		if (ret)
			return ret;
		if (own_place(d, &v->e) ||
		    qcow2_pending_find(d, cluster + *count))
			break;
	}
	return 0;
}

static int give_places(struct view *v, uint64_t cluster)
{
	struct qcow2_run run;
	uint64_t want;
	int ret;

	ret = want_places(v, cluster, &want);
	if (!ret)
		ret = qcow2_alloc_run(v->d, want, &run);
	if (ret)
		return ret;
	qcow2_pending_add(v->d, cluster, run.first, run.count == 64 ?
			  UINT64_MAX : (1ull << run.count) - 1);
	return 0;
}

static int fill_cluster(struct view *v, uint64_t cluster)
{
	struct qcow2 *d = v->d;
	struct qcow2_pending *p = qcow2_pending_find(d, cluster);
	uint64_t n = cluster - p->guest;
	int ret;

	ret = qcow2_fill(d, &v->e, qcow2_bytes(d, p->host + n));
	if (!ret)
		p->filled |= 1ull << n;
	return ret;
}

/*
 * Subclusters of one cluster may be asked for apart, and must go to one
 * place.  So their entries name it at once, with nothing allocated there:
 * that refers to a place that is counted, and to no data.
 */
static int adopt_places(struct view *v, struct qcow2_pending *p)
{
	struct qcow2 *d = v->d;
	struct qcow2_refs r;
	struct qcow2_entry e;
	uint64_t n, left;
	int ret = 0;

	for (n = 0; n < QCOW2_GROUP_MAX; n++) {
		if (p->mask >> n & 1)
			ret = qcow2_refs_get_write(d, p->host + n, &r);
		if (ret)
			return ret;
	}
	for (left = p->mask, n = 0; left; left >>= 1, n++) {
		if (!(left & 1) || !qcow2_l2_sound(d, &v->l2, p->guest + n))
			continue;
		ret = qcow2_l2_entry(d, &v->l2, p->guest + n, &e);
		if (!ret)
			ret = qcow2_refs_get_write(d, p->host + n, &r);
		if (ret)
			return ret;
		if (own_place(d, &e) || qcow2_must_fill(d, &e))
			continue;
		qcow2_give_up_entry(d, &e);
		e.host = qcow2_bytes(d, p->host + n);
		e.has_host = true;
		e.copied = true;
		qcow2_refs_set(d, &r, p->host + n, 1);
		qcow2_l2_put(d, &v->l2, p->guest + n, &e);
		qcow2_pending_drop(d, p->guest + n);
	}
	v->valid = false;
	d->changed = true;
	return 0;
}

/* The cluster gets a place, whole where blocks cannot go one by one. */
static int place_cluster(struct view *v, uint64_t cluster)
{
	struct qcow2 *d = v->d;
	struct qcow2_pending *p;
	int ret;

	ret = view_entry(v, cluster);
	if (ret || own_place(d, &v->e))
		return ret;
	if (!qcow2_pending_find(d, cluster)) {
		ret = give_places(v, cluster);
		if (!ret)
			ret = view_entry(v, cluster);
		if (ret)
			return ret;
	}
	p = qcow2_pending_find(d, cluster);
	if (!p->tail && qcow2_tail_bytes(d, p)) {
		ret = qcow2_zero_tail(d, p);
		if (ret)
			return ret;
		p->tail = true;
	}
	if (!d->g.extended)
		return 0;
	if (!qcow2_must_fill(d, &v->e))
		return adopt_places(v, p);
	return p->filled >> (cluster - p->guest) & 1 ? 0 :
						fill_cluster(v, cluster);
}

static int map_in_place(struct view *v, const struct cow_query *q,
			struct spot *at, uint64_t first, uint64_t end,
			struct cow_mapping *m)
{
	enum qcow2_moved_when when = QCOW2_NOT_MOVED;
	bool writable;
	int ret;

	ret = check_single(v, q, at, &first, &end, &writable);
	if (ret)
		return ret;
	if (!writable)
		return cow_error(v->d->img, -EIO,
			"the cluster at offset %llu is marked as used once, but its refcount is not 1; the image is damaged: check and repair it",
			(unsigned long long)at->offset);
	if (at->kind == COW_KIND_LINEAR)
		when = qcow2_moved_trim(v->d, q->first, &first, &end);
	if (when)
		return when == QCOW2_MOVED ? cow_commit_first(v->d->img) :
					     cow_commit_end_first(v->d->img);
	answer(v, at, q, first, end, m);
	m->flags = at->kind == COW_KIND_LINEAR ? COW_MAPPING_WRITABLE : 0;
	return 0;
}

static int map_write(struct qcow2 *d, struct view *v,
		     const struct cow_query *q, struct cow_mapping *m)
{
	uint64_t cluster = q->first >> d->g.sub_bits, first, end;
	struct spot at;
	int ret;

	v->write = true;
	ret = find_run(v, q, &at, &first, &end);
	if (ret)
		return ret;
	if (at.kind == COW_KIND_LINEAR)
		return map_in_place(v, q, &at, first, end, m);
	ret = qcow2_l2_get_write(d, cluster, false, &v->l2);
	v->valid = false;
	if (!ret)
		ret = qcow2_l2_settle(d, cluster);
	if (!ret)
		ret = place_cluster(v, cluster);
	if (!ret)
		ret = find_run(v, q, &at, &first, &end);
	if (ret)
		return ret;
	if (own_place(d, &v->own)) {
		ret = map_in_place(v, q, &at, first, end, m);
	} else {
		answer(v, &at, q, first, end, m);
	}
	if (d->changed)
		m->flags |= COW_MAPPING_DIRTY;
	return ret;
}

int qcow2_map(void *handle, const struct cow_query *q, struct cow_mapping *m)
{
	struct qcow2 *d = handle;
	struct view v = { .d = d };
	int ret;

	if (q->flags & COW_QUERY_WRITE && !d->reserved.pool)
		return cow_error(d->img, -EROFS,
				 "is open to be checked, not to be written");
	ret = qcow2_l2_get(d, q->first >> d->g.sub_bits, &v.l2);
	if (ret)
		return ret;
	qcow2_l2_expect_next(d, &v.l2);
	if (q->flags & COW_QUERY_WRITE)
		return map_write(d, &v, q, m);
	return map_read(d, &v, q, m);
}
