// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * change.c - tables come to refer to a place, or to none any more.  libcow
 * passes on runs of one piece of an L2 table.
 *
 * First comes everything that can fail; then all is changed.
 */
#include "qcow.h"

#include <common/num.h>

#include <errno.h>

static int refuse_place(struct qcow *d, uint64_t cluster, uint64_t offset,
			const char *why)
{
	return cow_error(d->img, -EINVAL,
		"cluster %llu cannot stand at offset %llu: %s",
		(unsigned long long)cluster, (unsigned long long)offset, why);
}

static void set_entry(struct qcow *d, struct qcow_entries *l2, uint64_t entry)
{
	uint64_t old = be64_get(*l2->at);

	/* Where a compressed one stands others may: an open finds it free. */
	if (old && !(old & QCOW_COMPRESSED))
		space_drop(&d->space, old >> d->h.cluster_bits);
	if (entry)
		space_use(&d->space, entry >> d->h.cluster_bits);
	qcow_put(l2, entry);
}

static void next_entry(struct qcow_entries *l2)
{
	l2->at++;
	l2->count--;
}

/* Places that were given to these clusters and have not been taken. */
static void forget_places(struct qcow *d, uint64_t first, uint64_t count)
{
	struct run piece;

	while (runs_take(&d->runs, first, first + count, &piece))
		space_return(&d->space, piece.offset >> d->h.cluster_bits,
			     piece.count);
}

/* --- Copied --------------------------------------------------------------- */

static int check_extent(struct qcow *d, const struct cow_extent *x)
{
	if (!d->writable)
		return -EROFS;
	if (x->file != 0)
		return refuse_place(d, x->first, x->offset,
				    "no data belongs into that file");
	if (!num_is_aligned(x->offset, d->cluster_size))
		return refuse_place(d, x->first, x->offset,
				    "that is no place of a cluster");
	if (!num_run_in(x->first, x->count, d->nr_clusters) ||
	    !num_run_in(x->offset >> d->h.cluster_bits, x->count,
			d->space.end))
		return refuse_place(d, x->first, x->offset,
				    "it is out of range");
	return 0;
}

static int check_places(struct qcow *d, const struct cow_extent *x,
			struct qcow_entries l2)
{
	uint64_t i, entry, place;

	for (i = 0; i < x->count; i++, next_entry(&l2)) {
		entry = be64_get(*l2.at);
		place = x->offset + qcow_bytes(d, i);
		if (entry && entry == place)
			continue;
		if (entry && !(entry & QCOW_COMPRESSED))
			return refuse_place(d, x->first + i, place,
					    "it has a place already");
		if (!space_may_use(&d->space, place >> d->h.cluster_bits))
			return refuse_place(d, x->first + i, place,
					    "that is in use");
	}
	return 0;
}

/* The entries of a run of clusters, to write; all are in one piece. */
static int get_entries(struct qcow *d, uint64_t first, uint64_t l2_offset,
		       uint64_t count, struct qcow_entries *l2)
{
	int ret = qcow_l2(d, first, l2_offset, true, l2);

	if (!ret && l2->count < count)
		return cow_error(d->img, -EINVAL,
			"%llu clusters from %llu on are more than a piece of a table tells of",
			(unsigned long long)count, (unsigned long long)first);
	return ret;
}

int qcow_copied(void *handle, const struct cow_extent *x)
{
	struct qcow *d = handle;
	struct qcow_entries l1, l2;
	uint64_t offset = 0, i;
	int ret;

	ret = check_extent(d, x);
	if (!ret)
		ret = qcow_l1(d, x->first, false, &l1);
	if (!ret)
		offset = be64_get(*l1.at);
	/* Told by another process, which did not get to commit the table. */
	if (!ret && !offset)
		ret = qcow_l2_add(d, x->first, &offset);
	if (!ret)
		ret = get_entries(d, x->first, offset, x->count, &l2);
	if (!ret)
		ret = check_places(d, x, l2);
	if (ret)
		return ret;
	for (i = 0; i < x->count; i++, next_entry(&l2)) {
		if (be64_get(*l2.at) != x->offset + qcow_bytes(d, i))
			set_entry(d, &l2, x->offset + qcow_bytes(d, i));
	}
	forget_places(d, x->first, x->count);
	return 0;
}

/* --- Discard and zeroes --------------------------------------------------- */

/*
 * Both mean that the clusters read as zeroes.  Over a backing file no entry
 * could say so: libcow writes to the places then, and this is not called.
 */
int qcow_discard(void *handle, uint64_t first, uint64_t count)
{
	struct qcow *d = handle;
	struct qcow_entries l1, l2;
	uint64_t i;
	int ret;

	ret = qcow_l1(d, first, false, &l1);
	if (ret)
		return ret;
	if (be64_get(*l1.at)) {
		ret = get_entries(d, first, be64_get(*l1.at), count, &l2);
		if (ret)
			return ret;
		for (i = 0; i < count; i++, next_entry(&l2)) {
			if (be64_get(*l2.at))
				set_entry(d, &l2, 0);
		}
	}
	forget_places(d, first, count);
	return 0;
}
