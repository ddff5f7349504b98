// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * refblock.c - refcount blocks.
 *
 * A new block stands in the first of the clusters that it counts, so it
 * counts itself, and its place is the same whoever makes it: all of them are
 * free as long as there is no block.  It is in the file before the refcount
 * table names it (phases 0 and 1).
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <string.h>

static int reftable_get(struct qcow2 *d, uint64_t index, bool write,
			struct cow_table **table, be64 **entry)
{
	const struct qcow2_top top = {
		.offset = d->h.reftable_offset,
		.bytes = d->nr_refblocks * 8,
		.phase = qcow2_ref_phase(d, QCOW2_PHASE_REFTABLE),
	};

	return qcow2_top_get(d, &top, index, write, table, entry);
}

static int reftable_check(struct qcow2 *d, uint64_t index, uint64_t entry)
{
	const char *fault = qcow2_reftable_fault(&d->g, entry);

	if (!fault && entry &&
	    !num_run_in(entry, d->g.cluster_size, d->file_size))
		fault = "points past the end of the file";
	if (!fault)
		return 0;
	return cow_error(d->img, -EIO,
		"entry %llu of the refcount table (at offset %llu) %s; the image is damaged",
		(unsigned long long)index,
		(unsigned long long)(d->h.reftable_offset + index * 8),
		fault);
}

static uint64_t slice_of(const struct qcow2 *d, uint64_t host,
			 struct qcow2_refs *r)
{
	uint64_t in_block = host & ((1ull << d->g.rb_bits) - 1);

	r->count = (d->slice_bytes * 8ull) >> d->g.ref_order;
	r->first = host - in_block % r->count;
	return num_round_down(in_block, r->count) / r->count * d->slice_bytes;
}

static int check_index(struct qcow2 *d, uint64_t host, uint64_t *index)
{
	*index = host >> d->g.rb_bits;
	if (*index < d->nr_refblocks)
		return 0;
	return cow_error(d->img, -ENOSPC,
		"its refcount table ends before cluster %llu; close and open it again to have it enlarged",
		(unsigned long long)host);
}

int qcow2_refs_get(struct qcow2 *d, uint64_t host, struct qcow2_refs *r)
{
	uint64_t index, entry, skip;
	be64 *at;
	int ret;

	memset(r, 0, sizeof(*r));
	skip = slice_of(d, host, r);
	ret = check_index(d, host, &index);
	if (!ret)
		ret = reftable_get(d, index, false, &r->reftable, &at);
	if (ret)
		return ret;
	entry = be64_get(*at);
	ret = reftable_check(d, index, entry);
	if (ret || !entry)
		return ret;
	ret = cow_table_get(d->img, 0, entry + skip, d->slice_bytes,
			    &r->table);
	if (ret)
		r->table = NULL;
	else
		r->data = cow_table_data(r->table);
	return ret;
}

/* --- A new one ------------------------------------------------------------ */

static int make_block(struct qcow2 *d, uint64_t index,
		      struct cow_table *reftable, be64 *at)
{
	uint64_t host = index << d->g.rb_bits, offset = qcow2_bytes(d, host);
	uint32_t i, slices = d->g.cluster_size / d->slice_bytes;
	struct cow_table *table, *first = NULL;
	int ret;

	ret = qcow2_extend(d, host, 1, true);
	for (i = 0; !ret && i < slices; i++) {
		ret = cow_table_new(d->img, 0, offset + i * d->slice_bytes,
				    d->slice_bytes,
				    qcow2_ref_phase(d, QCOW2_PHASE_REFBLOCK),
				    &table);
		if (!i)
			first = table;
	}
	if (ret)
		return ret;
	qcow2_ref_set(cow_table_data(first), d->g.ref_order, 0, 1);
	*at = be64_put(offset);
	cow_table_dirty(reftable, (uint32_t)((char *)at -
			(char *)cow_table_data(reftable)), sizeof(*at));
	d->changed = true;
	return 0;
}

int qcow2_refs_get_write(struct qcow2 *d, uint64_t host,
			 struct qcow2_refs *r)
{
	struct cow_table *table;
	uint64_t index, skip;
	be64 *at;
	int ret;

	memset(r, 0, sizeof(*r));
	skip = slice_of(d, host, r);
	ret = check_index(d, host, &index);
	if (!ret)
		ret = reftable_get(d, index, false, &table, &at);
	if (!ret && !be64_get(*at)) {
		ret = reftable_get(d, index, true, &table, &at);
		if (!ret)
			ret = make_block(d, index, table, at);
	}
	if (!ret)
		ret = reftable_check(d, index, be64_get(*at));
	if (ret)
		return ret;
	ret = cow_table_get_write(d->img, 0, be64_get(*at) + skip,
				  d->slice_bytes,
				  qcow2_ref_phase(d, QCOW2_PHASE_REFBLOCK),
				  &r->table);
	if (ret)
		r->table = NULL;
	else
		r->data = cow_table_data(r->table);
	return ret;
}

/* --- Counts --------------------------------------------------------------- */

uint64_t qcow2_refs_count(const struct qcow2 *d, const struct qcow2_refs *r,
			  uint64_t host)
{
	if (!r->data)
		return 0;
	return qcow2_ref_get(r->data, d->g.ref_order, host - r->first);
}

void qcow2_refs_set(struct qcow2 *d, const struct qcow2_refs *r,
		    uint64_t host, uint64_t ref)
{
	uint64_t n = host - r->first;

	qcow2_ref_set(r->data, d->g.ref_order, n, ref);
	cow_table_dirty(r->table, (uint32_t)((n << d->g.ref_order) / 8),
			(1u << d->g.ref_order) / 8 + 1);
}

int qcow2_refs_single(struct qcow2 *d, uint64_t host, uint64_t count,
		      uint64_t *single)
{
	uint64_t n = 0;
	struct qcow2_refs r;
	int ret;

	while (n < count) {
		ret = qcow2_refs_get(d, host + n, &r);
		if (ret)
			return ret;
		while (n < count && host + n < r.first + r.count) {
			if (qcow2_refs_count(d, &r, host + n) != 1)
				goto out;
			n++;
		}
	}
out:
	*single = n;
	return 0;
}

/* --- Blocking --------------------------------------------------------------- */

struct ref_place {
	uint64_t at;		/* bytes of the file */
	uint32_t len, n;	/* bytes there, the entry in them */
};

/* One that cannot be followed is none; walk.c tells of it. */
static bool is_block(const struct qcow2 *d, uint64_t entry)
{
	return entry && !qcow2_reftable_fault(&d->g, entry) &&
	       num_run_in(entry, d->g.cluster_size, d->file_size);
}

static int find_place(struct qcow2 *d, uint64_t host, struct ref_place *p)
{
	uint64_t index = host >> d->g.rb_bits, n;
	uint32_t order = d->g.ref_order;
	be64 entry;
	int ret;

	if (index >= d->nr_refblocks)
		return -ENOENT;
	ret = cow_read(d->img, 0, &entry, sizeof(entry),
		       d->h.reftable_offset + index * 8);
	if (!ret && !is_block(d, be64_get(entry)))
		ret = -ENOENT;
	n = host & ((1ull << d->g.rb_bits) - 1);
	p->at = be64_get(entry) + (n << order) / 8;
	p->len = order < 3 ? 1 : (1u << order) / 8;
	p->n = order < 3 ? n % (8u >> order) : 0;
	return ret;
}

int qcow2_refs_read(struct qcow2 *d, uint64_t host, uint8_t *buf,
		    struct qcow2_refs *r)
{
	uint64_t index = host >> d->g.rb_bits, skip;
	be64 entry;
	int ret;

	memset(r, 0, sizeof(*r));
	skip = slice_of(d, host, r);
	if (index >= d->nr_refblocks)
		return 0;
	ret = cow_read(d->img, 0, &entry, sizeof(entry),
		       d->h.reftable_offset + index * 8);
	if (ret || !is_block(d, be64_get(entry)))
		return ret;
	r->data = buf;
	return cow_read(d->img, 0, buf, d->slice_bytes,
			be64_get(entry) + skip);
}

int qcow2_refcount_read(struct qcow2 *d, uint64_t host, uint64_t *ref)
{
	struct ref_place p;
	uint8_t bytes[8];
	int ret;

	*ref = 0;
	ret = find_place(d, host, &p);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	ret = cow_read(d->img, 0, bytes, p.len, p.at);
	if (!ret)
		*ref = qcow2_ref_get(bytes, d->g.ref_order, p.n);
	return ret;
}

int qcow2_refcounts_write(struct qcow2 *d, uint64_t host, uint64_t count,
			  uint64_t ref)
{
	const uint64_t block = 1ull << d->g.rb_bits;
	uint32_t order = d->g.ref_order;
	uint8_t bytes[4096];
	struct ref_place p;
	uint64_t n, i, len;
	int ret = 0;

	for (; !ret && count; host += n, count -= n) {
		ret = find_place(d, host, &p);
		if (ret)
			break;
		n = num_min(count, block - (host & (block - 1)));
		n = num_min(n, (sizeof(bytes) * 8 >> order) - p.n);
		len = num_div_up((p.n + n) << order, 8);
		ret = cow_read(d->img, 0, bytes, len, p.at);
		for (i = 0; i < n; i++)
			qcow2_ref_set(bytes, order, p.n + i, ref);
		if (!ret)
			ret = cow_write(d->img, 0, bytes, len, p.at);
	}
	return ret;
}
