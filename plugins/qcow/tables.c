// SPDX-License-Identifier: GPL-2.0-or-later
/* tables.c - L1 and L2 tables, in pieces. */
#include "qcow.h"

#include <common/num.h>

#include <errno.h>

/* Entry at byte offset of the file, in the piece that holds it. */
static int get(struct qcow *d, uint64_t start, uint32_t len, uint64_t offset,
	       bool write, unsigned int phase, struct qcow_entries *e)
{
	int ret;

	ret = write ? cow_table_get_write(d->img, 0, start, len, phase,
					  &e->table) :
		      cow_table_get(d->img, 0, start, len, &e->table);
	if (ret)
		return ret;
	e->at = (be64 *)((uint8_t *)cow_table_data(e->table) +
			 (offset - start));
	e->count = (start + len - offset) / sizeof(be64);
	return 0;
}

/* What is written with the L1 entry at @offset. */
static uint64_t l1_piece(const struct qcow *d, uint64_t offset, uint32_t *len)
{
	uint64_t start = num_round_down(offset, d->l1_piece);

	*len = (uint32_t)num_min(d->l1_piece, d->end - start);
	return start;
}

int qcow_l1(struct qcow *d, uint64_t cluster, bool write,
	    struct qcow_entries *l1)
{
	uint64_t nr = cluster >> d->h.l2_bits;
	uint64_t offset = d->h.l1_offset + nr * sizeof(be64), start;
	uint32_t len;
	int ret;

	start = l1_piece(d, offset, &len);
	ret = get(d, start, len, offset, write, QCOW_PHASE_L1, l1);
	if (!ret)
		l1->count = num_min(l1->count, d->h.l1_entries - nr);
	return ret;
}

static uint64_t l2_index(const struct qcow *d, uint64_t cluster)
{
	return cluster & ((1u << d->h.l2_bits) - 1);
}

uint64_t qcow_l2_piece(const struct qcow *d, uint64_t cluster,
		       uint64_t offset)
{
	return offset + num_round_down(l2_index(d, cluster) * sizeof(be64),
				       d->l2_piece);
}

int qcow_l2(struct qcow *d, uint64_t cluster, uint64_t offset, bool write,
	    struct qcow_entries *l2)
{
	const char *why = qcow_l2_fault(d, offset);
	int ret;

	if (why)
		return cow_error(d->img, -EIO,
			"is damaged: L2 table %llu cannot lie at offset %llu: %s; check it",
			(unsigned long long)(cluster >> d->h.l2_bits),
			(unsigned long long)offset, why);
	ret = get(d, qcow_l2_piece(d, cluster, offset), d->l2_piece,
		  offset + l2_index(d, cluster) * sizeof(be64), write,
		  QCOW_PHASE_L2, l2);
	if (!ret)
		l2->count = num_min(l2->count, d->nr_clusters - cluster);
	return ret;
}

void qcow_put(struct qcow_entries *e, uint64_t entry)
{
	const uint8_t *start = cow_table_data(e->table);

	*e->at = be64_put(entry);
	cow_table_dirty(e->table, (uint32_t)((const uint8_t *)e->at - start),
			sizeof(*e->at));
}

int qcow_bad_cluster(struct qcow *d, uint64_t cluster, uint64_t entry,
		     const char *why)
{
	bool packed = entry & QCOW_COMPRESSED;

	return cow_error(d->img, -EIO,
		"is damaged: %scluster %llu cannot lie at offset %llu: %s; check it",
		packed ? "the compressed " : "", (unsigned long long)cluster,
		(unsigned long long)(packed ? qcow_packed_offset(&d->h, entry) :
				     entry), why);
}

/* --- A new table ---------------------------------------------------------- */

/*
 * Its place is kept until the table is hooked up, whatever happens between: a
 * piece of it may be in the cache already, and would be written there.
 */
static int get_room(struct qcow *d)
{
	uint32_t units = qcow_table_units(d);
	uint64_t unit, got;
	int ret;

	if (d->spare)
		return 0;
	/* Before, any free unit may be a place that the kernel is about to tell of. */
	ret = d->gave ? qcow_allocate(d, units, units, &unit, &got) :
			qcow_allocate_apart(d, units, &unit);
	if (!ret)
		d->spare = unit;
	return ret;
}

static int new_pieces(struct qcow *d, uint64_t offset)
{
	uint64_t at, end = offset + d->l2_bytes;
	struct cow_table *t;
	int ret = 0;

	for (at = offset; !ret && at < end; at += d->l2_piece)
		ret = cow_table_new(d->img, 0, at, d->l2_piece, QCOW_PHASE_L2,
				    &t);
	return ret;
}

int qcow_l2_add(struct qcow *d, uint64_t cluster, uint64_t *offset)
{
	uint32_t units = qcow_table_units(d), len, i;
	struct qcow_entries l1;
	uint64_t start;
	int ret;

	start = l1_piece(d, d->h.l1_offset + (cluster >> d->h.l2_bits) *
			    sizeof(be64), &len);
	ret = qcow_l1(d, cluster, true, &l1);
	if (!ret)
		ret = get_room(d);
	if (ret)
		return ret;
	*offset = qcow_bytes(d, d->spare);
	ret = qcow_reserve(d, *offset, d->l2_bytes);
	if (!ret)
		ret = qcow_reserve(d, start, len);
	if (!ret)
		ret = new_pieces(d, *offset);
	if (ret)
		return ret;
	for (i = 0; i < units; i++)
		space_use(&d->space, d->spare + i);
	d->spare = 0;
	qcow_put(&l1, *offset);
	return 0;
}

int qcow_l2_settle(struct qcow *d, uint64_t cluster)
{
	struct qcow_entries l1;
	uint32_t skip;
	int ret;

	if (!d->device)
		return 0;
	ret = qcow_l1(d, cluster, false, &l1);
	if (ret)
		return ret;
	skip = (uint32_t)((char *)l1.at - (char *)cow_table_data(l1.table));
	return cow_commit_table_first(l1.table, skip, sizeof(*l1.at));
}
