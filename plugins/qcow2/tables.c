// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tables.c - L1 and L2 tables.
 *
 * An L2 table is changed only when it is ours alone, which bit 63 of its L1
 * entry says.  One that snapshots share is copied first, to a cluster that
 * is counted already; the other one then has a reference less.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <string.h>

static uint64_t l1_index(const struct qcow2 *d, uint64_t cluster)
{
	return cluster >> d->g.l2_bits;
}

int qcow2_top_get(struct qcow2 *d, const struct qcow2_top *top, uint64_t index,
		  bool write, struct cow_table **table, be64 **entry)
{
	uint64_t start = num_round_down(index * 8, d->slice_bytes);
	uint32_t len = (uint32_t)num_min(top->bytes - start, d->slice_bytes);
	uint64_t offset = top->offset + start;
	int ret;

	ret = write ? cow_table_get_write(d->img, 0, offset, len, top->phase,
					  table) :
		      cow_table_get(d->img, 0, offset, len, table);
	if (!ret)
		*entry = (be64 *)((char *)cow_table_data(*table) +
				  (index * 8 - start));
	return ret;
}

static int l1_get(struct qcow2 *d, uint64_t index, bool write,
		  struct cow_table **table, be64 **entry)
{
	const struct qcow2_top top = {
		.offset = d->h.l1_offset,
		.bytes = d->l1_bytes,
		.phase = QCOW2_PHASE_L1,
	};

	return qcow2_top_get(d, &top, index, write, table, entry);
}

/* What is wrong with it, or NULL. */
static const char *l1_fault(const struct qcow2 *d, uint64_t entry)
{
	const char *fault = qcow2_l1_fault(&d->g, entry);
	uint64_t offset = entry & QCOW2_OFFSET_MASK;

	if (!fault && offset &&
	    !num_run_in(offset, d->g.cluster_size, d->file_size))
		fault = "points past the end of the file";
	if (!fault && offset &&
	    qcow2_areas_overlap(offset, d->g.cluster_size, d->h.l1_offset,
				d->l1_bytes))
		fault = "points into the L1 table";
	return fault;
}

static int l1_check(struct qcow2 *d, uint64_t index, uint64_t entry)
{
	const char *fault = l1_fault(d, entry);

	if (!fault)
		return 0;
	return cow_error(d->img, -EIO,
		"entry %llu of the L1 table (at offset %llu) %s; the image is damaged",
		(unsigned long long)index,
		(unsigned long long)(d->h.l1_offset + index * 8), fault);
}

/* The slice that holds cluster: its place in the table, what it holds. */
static uint64_t slice_of(const struct qcow2 *d, uint64_t cluster,
			 struct qcow2_l2 *l2)
{
	uint64_t in_table = cluster & ((1ull << d->g.l2_bits) - 1);

	l2->count = d->slice_bytes / d->g.entry_size;
	l2->first = cluster - in_table % l2->count;
	return num_round_down(in_table, l2->count) * d->g.entry_size;
}

int qcow2_l2_get(struct qcow2 *d, uint64_t cluster, struct qcow2_l2 *l2)
{
	uint64_t index = l1_index(d, cluster), entry, skip;
	struct cow_table *table;
	be64 *at;
	int ret;

	memset(l2, 0, sizeof(*l2));
	skip = slice_of(d, cluster, l2);
	ret = l1_get(d, index, false, &table, &at);
	if (ret)
		return ret;
	entry = be64_get(*at);
	ret = l1_check(d, index, entry);
	if (ret || !(entry & QCOW2_OFFSET_MASK))
		return ret;
	ret = cow_table_get(d->img, 0, (entry & QCOW2_OFFSET_MASK) + skip,
			    d->slice_bytes, &l2->table);
	if (ret) {
		l2->table = NULL;
		return ret;
	}
	l2->entries = cow_table_data(l2->table);
	l2->copied = entry & QCOW2_COPIED;
	return 0;
}

/* What lies in another slice of the L1 table is not read ahead. */
static void expect_slice(struct qcow2 *d, uint64_t from, uint64_t cluster)
{
	uint64_t index = l1_index(d, cluster), per_slice = d->slice_bytes / 8;
	struct cow_table *table;
	struct qcow2_l2 next;
	uint64_t entry, skip;
	be64 *at;

	if (index / per_slice != l1_index(d, from) / per_slice ||
	    l1_get(d, index, false, &table, &at))
		return;
	skip = slice_of(d, cluster, &next);
	entry = be64_get(*at);
	if (entry & QCOW2_OFFSET_MASK && !l1_fault(d, entry))
		cow_table_expect(d->img, 0, (entry & QCOW2_OFFSET_MASK) + skip,
				 d->slice_bytes);
}

/* Who jumps about gets nothing but what was asked for. */
void qcow2_l2_expect_next(struct qcow2 *d, const struct qcow2_l2 *l2)
{
	uint64_t behind = l2->first + l2->count;

	if (l2->first == d->in_order &&
	    behind <= qcow2_cluster(d, d->h.size - 1))
		expect_slice(d, l2->first, behind);
	d->in_order = behind;
}

/* --- A table of our own --------------------------------------------------- */

struct slices {
	struct cow_table *table[QCOW2_SLICES_MAX];
	uint32_t count;
};

static int get_old(struct qcow2 *d, uint64_t offset, struct slices *s)
{
	uint32_t i;
	int ret = 0, one;

	for (i = 0; i < s->count; i++) {
		one = cow_table_get(d->img, 0, offset + i * d->slice_bytes,
				    d->slice_bytes, &s->table[i]);
		if (one && (!ret || ret == -EAGAIN))
			ret = one;
	}
	return ret;
}

static int get_new(struct qcow2 *d, uint64_t offset, struct slices *s)
{
	uint32_t i;
	int ret;

	for (i = 0; i < s->count; i++) {
		ret = cow_table_new(d->img, 0, offset + i * d->slice_bytes,
				    d->slice_bytes, QCOW2_PHASE_L2,
				    &s->table[i]);
		if (ret)
			return ret;
	}
	return 0;
}

/* Everything that can fail comes first. */
static int make_own(struct qcow2 *d, struct cow_table *l1, be64 *at,
		    bool replay)
{
	uint64_t old = be64_get(*at) & QCOW2_OFFSET_MASK, host;
	struct slices from, to;
	uint32_t i;
	int ret = 0;

	from.count = d->g.cluster_size / d->slice_bytes;
	to.count = from.count;
	if (old)
		ret = get_old(d, old, &from);
	if (!ret)
		ret = qcow2_alloc_meta(d, replay, &host);
	if (!ret)
		ret = get_new(d, qcow2_bytes(d, host), &to);
	if (ret)
		return ret;
	for (i = 0; old && i < to.count; i++)
		memcpy(cow_table_data(to.table[i]),
		       cow_table_data(from.table[i]), d->slice_bytes);
	*at = be64_put(qcow2_bytes(d, host) | QCOW2_COPIED);
	cow_table_dirty(l1, (uint32_t)((char *)at - (char *)cow_table_data(l1)),
			sizeof(*at));
	qcow2_alloc_used(d);
	if (old)
		qcow2_give_up(d, qcow2_cluster(d, old), 1);
	d->changed = true;
	return 0;
}

int qcow2_l2_get_write(struct qcow2 *d, uint64_t cluster, bool replay,
		       struct qcow2_l2 *l2)
{
	uint64_t index = l1_index(d, cluster), entry, skip;
	struct cow_table *table;
	be64 *at;
	int ret;

	memset(l2, 0, sizeof(*l2));
	skip = slice_of(d, cluster, l2);
	ret = l1_get(d, index, true, &table, &at);
	if (!ret)
		ret = l1_check(d, index, be64_get(*at));
	if (!ret && !(be64_get(*at) & QCOW2_COPIED))
		ret = make_own(d, table, at, replay);
	if (ret)
		return ret;
	entry = be64_get(*at);
	ret = cow_table_get_write(d->img, 0,
				  (entry & QCOW2_OFFSET_MASK) + skip,
				  d->slice_bytes, QCOW2_PHASE_L2, &l2->table);
	if (ret) {
		l2->table = NULL;
		return ret;
	}
	l2->entries = cow_table_data(l2->table);
	l2->copied = true;
	return 0;
}

int qcow2_l2_settle(struct qcow2 *d, uint64_t cluster)
{
	struct cow_table *table;
	uint32_t skip;
	be64 *at;
	int ret;

	if (!d->alloc.device)
		return 0;
	ret = l1_get(d, l1_index(d, cluster), false, &table, &at);
	if (ret)
		return ret;
	skip = (uint32_t)((char *)at - (char *)cow_table_data(table));
	return cow_commit_table_first(table, skip, sizeof(*at));
}

/* --- Entries -------------------------------------------------------------- */

static be64 *entry_at(const struct qcow2 *d, const struct qcow2_l2 *l2,
		      uint64_t cluster)
{
	return l2->entries + (cluster - l2->first) * (d->g.entry_size / 8);
}

/* Where data may stand: within the file, if only with its first byte. */
static const char *place_fault(const struct qcow2 *d,
			       const struct qcow2_entry *e)
{
	if (!e->has_host || d->g.data_file || e->host < d->file_size)
		return NULL;
	return "points past the end of the file";
}

int qcow2_l2_entry(struct qcow2 *d, const struct qcow2_l2 *l2,
		   uint64_t cluster, struct qcow2_entry *e)
{
	const char *fault;

	*e = (struct qcow2_entry){ 0 };
	if (!l2->table)
		return 0;
	fault = qcow2_entry_decode(&d->g, entry_at(d, l2, cluster),
				   qcow2_bytes(d, cluster), e);
	if (!fault)
		fault = place_fault(d, e);
	if (fault)
		return cow_error(d->img, -EIO,
			"the L2 entry of the disk's offset %llu %s; the image is damaged",
			(unsigned long long)qcow2_bytes(d, cluster), fault);
	/* The bit is right only in tables that nobody shares. */
	e->copied &= l2->copied;
	return 0;
}

bool qcow2_l2_sound(const struct qcow2 *d, const struct qcow2_l2 *l2,
		    uint64_t cluster)
{
	struct qcow2_entry e;

	return !l2->table ||
	       (!qcow2_entry_decode(&d->g, entry_at(d, l2, cluster),
				    qcow2_bytes(d, cluster), &e) &&
		!place_fault(d, &e));
}

bool qcow2_l2_all_copied(const struct qcow2 *d, const struct qcow2_l2 *l2,
			 uint64_t first, uint64_t last)
{
	for (; l2->copied && first <= last; first++) {
		if (!(be64_get(*entry_at(d, l2, first)) & QCOW2_COPIED))
			return false;
	}
	return l2->copied;
}

void qcow2_l2_put(struct qcow2 *d, const struct qcow2_l2 *l2,
		  uint64_t cluster, const struct qcow2_entry *e)
{
	be64 *at = entry_at(d, l2, cluster);

	qcow2_entry_encode(&d->g, e, at);
	cow_table_dirty(l2->table, (uint32_t)((char *)at -
					      (char *)l2->entries),
			d->g.entry_size);
}
