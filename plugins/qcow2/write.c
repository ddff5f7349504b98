// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * write.c - what changes the tables: blocks that were copied, discarded or
 * zeroed.  libcow passes on runs of one slice of an L2 table.
 *
 * First comes everything that can fail; then all is changed.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>

static uint32_t block_bit(const struct qcow2 *d, uint64_t block)
{
	return 1u << (block & ((1u << d->g.sub_bits) - 1));
}

/* --- Copied ---------------------------------------------------------------- */

static int refuse_place(struct qcow2 *d, uint64_t block, uint64_t offset,
			const char *why)
{
	return cow_error(d->img, -EINVAL,
		"block %llu cannot stand at offset %llu: %s",
		(unsigned long long)block, (unsigned long long)offset, why);
}

/* Where its cluster stands if the block stands at offset. */
static int cluster_place(struct qcow2 *d, uint64_t block, uint64_t offset,
			 uint64_t *place)
{
	uint64_t skip = (block & ((1u << d->g.sub_bits) - 1)) *
			d->g.block_size;

	*place = offset - skip;
	if (offset < skip || !num_is_aligned(*place, d->g.cluster_size))
		return refuse_place(d, block, offset, "it is not aligned");
	if (d->g.data_file) {
		if (*place != qcow2_bytes(d, block >> d->g.sub_bits))
			return refuse_place(d, block, offset,
				"it has a place of its own in the data file");
		return 0;
	}
	if (!*place || !num_run_in(*place, d->g.cluster_size, d->file_size))
		return refuse_place(d, block, offset, "it is out of range");
	return 0;
}

static bool stands_there(const struct qcow2_entry *e, uint64_t place)
{
	return e->has_host && e->copied && !e->compressed && e->host == place;
}

static int check_block(struct qcow2 *d, const struct qcow2_l2 *l2,
		       uint64_t block, uint64_t offset)
{
	struct qcow2_entry e;
	struct qcow2_refs r;
	uint64_t place, host, count;
	int ret;

	ret = cluster_place(d, block, offset, &place);
	if (!ret)
		ret = qcow2_l2_entry(d, l2, block >> d->g.sub_bits, &e);
	if (ret || d->g.data_file || stands_there(&e, place))
		return ret;
	if (d->g.extended && e.alloc && e.copied)
		return refuse_place(d, block, offset,
				    "its cluster stands at another place");
	host = qcow2_cluster(d, place);
	ret = qcow2_refs_get_write(d, host, &r);
	if (ret)
		return ret;
	count = qcow2_refs_count(d, &r, host);
	if (count && !qcow2_alloc_is_left(d, host, count))
		return refuse_place(d, block, offset, "it is in use");
	return 0;
}

/* The entry of a cluster that stands at place now, for one block of it. */
static void move_entry(struct qcow2 *d, uint64_t cluster,
		       struct qcow2_entry *e, uint64_t place, uint32_t bit)
{
	struct qcow2_entry old = *e;

	*e = (struct qcow2_entry){
		.host = place,
		.has_host = true,
		.copied = true,
		.alloc = bit,
		.zero = old.zero & ~bit,
	};
	/* unshare.c has put all of it there. */
	if (qcow2_must_fill(d, &old)) {
		e->alloc |= old.compressed ? UINT32_MAX : old.alloc;
		qcow2_moved_add(d, cluster);
	}
	qcow2_give_up_entry(d, &old);
}

static int copied_block(struct qcow2 *d, const struct qcow2_l2 *l2,
			uint64_t block, uint64_t offset)
{
	uint64_t cluster = block >> d->g.sub_bits, place;
	uint32_t bit = block_bit(d, block);
	struct qcow2_entry e;
	struct qcow2_refs r;
	int ret;

	ret = cluster_place(d, block, offset, &place);
	if (!ret)
		ret = qcow2_l2_entry(d, l2, cluster, &e);
	if (!ret && !d->g.data_file && !stands_there(&e, place))
		ret = qcow2_refs_get_write(d, qcow2_cluster(d, place), &r);
	if (ret)
		return ret;
	if (stands_there(&e, place)) {
		if (e.alloc & bit)
			return 0;
		e.alloc |= bit;
		e.zero &= ~bit;
	} else {
		if (!d->g.data_file)
			qcow2_refs_set(d, &r, qcow2_cluster(d, place), 1);
		move_entry(d, cluster, &e, place, bit);
		qcow2_pending_drop(d, cluster);
	}
	qcow2_l2_put(d, l2, cluster, &e);
	return 0;
}

static int check_extent(struct qcow2 *d, const struct cow_extent *extent)
{
	if (extent->file == d->data_file && d->reserved.pool)
		return 0;
	return refuse_place(d, extent->first, extent->offset,
			    "no data belongs into that file");
}

int qcow2_copied(void *handle, const struct cow_extent *extent)
{
	struct qcow2 *d = handle;
	uint32_t bs = d->g.block_size;
	struct qcow2_l2 l2;
	uint64_t i;
	int ret;

	ret = check_extent(d, extent);
	if (!ret)
		ret = qcow2_l2_get_write(d, extent->first >> d->g.sub_bits,
					 true, &l2);
	for (i = 0; !ret && i < extent->count; i++)
		ret = check_block(d, &l2, extent->first + i,
				  extent->offset + i * bs);
	for (i = 0; !ret && i < extent->count; i++)
		ret = copied_block(d, &l2, extent->first + i,
				   extent->offset + i * bs);
	return ret;
}

/* --- Discard, zeroes -------------------------------------------------------- */

/* A cluster of the run, and the blocks of it that are meant. */
struct part {
	uint64_t cluster;
	uint32_t blocks;	/* bits */
};

static struct part next_part(const struct qcow2 *d, uint64_t first,
			     uint64_t count, uint64_t *blocks)
{
	uint64_t per = 1ull << d->g.sub_bits, at = first & (per - 1);
	struct part p = { .cluster = first >> d->g.sub_bits };

	*blocks = num_min(count, per - at);
	p.blocks = *blocks == 32 ? UINT32_MAX :
		   ((1u << *blocks) - 1) << at;
	/* The last cluster of the disk may have blocks that are no more. */
	if (qcow2_bytes(d, p.cluster + 1) > d->h.size && !at &&
	    (first + *blocks) * d->g.block_size >= d->h.size)
		p.blocks = QCOW2_ALL(&d->g);
	return p;
}

/* What the entry becomes; false: there is nothing to do. */
static bool empty_entry(const struct qcow2 *d, struct qcow2_entry *e,
			uint32_t blocks)
{
	uint32_t zero = d->backing_path ? blocks : 0;

	if (e->compressed)
		e->alloc = QCOW2_ALL(&d->g);
	if (!(e->alloc & blocks) && (e->zero & blocks) == zero &&
	    !(e->has_host && blocks == QCOW2_ALL(&d->g)))
		return false;
	e->alloc &= ~blocks;
	e->zero = (e->zero & ~blocks) | zero;
	return true;
}

/*
 * Part of a compressed cluster: the rest is unpacked to a new place, which
 * is the one that was handed out for it, if there is one.
 */
static int unpack_rest(struct qcow2 *d, uint64_t cluster,
		       const struct qcow2_entry *e, struct qcow2_entry *new)
{
	struct qcow2_pending *p = qcow2_pending_find(d, cluster);
	struct qcow2_run run;
	struct qcow2_refs r;
	uint64_t host;
	int ret = 0;

	if (!p) {
		ret = qcow2_alloc_run(d, 1, &run);
		if (ret)
			return ret;
		qcow2_pending_add(d, cluster, run.first, 1);
		p = qcow2_pending_find(d, cluster);
	}
	host = p->host + (cluster - p->guest);
	ret = qcow2_refs_get_write(d, host, &r);
	if (!ret && !(p->filled >> (cluster - p->guest) & 1)) {
		ret = qcow2_fill(d, e, qcow2_bytes(d, host));
		if (!ret)
			p->filled |= 1ull << (cluster - p->guest);
	}
	if (ret)
		return ret;
	qcow2_refs_set(d, &r, host, 1);
	qcow2_pending_drop(d, cluster);
	qcow2_moved_add(d, cluster);
	new->host = qcow2_bytes(d, host);
	new->copied = true;
	new->compressed = false;
	return 0;
}

/*
 * The place is given up only with all blocks of the cluster: others may have
 * been told of it.
 */
static void put_empty(struct qcow2 *d, const struct qcow2_l2 *l2,
		      const struct part *p, const struct qcow2_entry *old,
		      struct qcow2_entry *e)
{
	if (p->blocks == QCOW2_ALL(&d->g)) {
		e->host = 0;
		e->has_host = false;
		e->copied = false;
		e->compressed = false;
	}
	if (!e->has_host || old->compressed)
		qcow2_give_up_entry(d, old);
	qcow2_l2_put(d, l2, p->cluster, e);
}

/* Done as a whole; to do it again does no harm. */
static int empty_part(struct qcow2 *d, const struct part *p)
{
	struct qcow2_entry old, e;
	struct qcow2_l2 l2;
	int ret;

	ret = qcow2_l2_get(d, p->cluster, &l2);
	if (ret || (!l2.table && !d->backing_path))
		return ret;
	ret = qcow2_l2_entry(d, &l2, p->cluster, &old);
	e = old;
	if (ret || !empty_entry(d, &e, p->blocks))
		return ret;
	ret = qcow2_l2_get_write(d, p->cluster, false, &l2);
	if (!ret && e.compressed && e.alloc)
		ret = unpack_rest(d, p->cluster, &old, &e);
	if (ret)
		return ret;
	put_empty(d, &l2, p, &old, &e);
	return 0;
}

int qcow2_discard(void *handle, uint64_t first, uint64_t count)
{
	struct qcow2 *d = handle;
	uint64_t n;
	int ret = 0;

	if (!d->reserved.pool)
		return -EROFS;
	for (; !ret && count; first += n, count -= n) {
		struct part p = next_part(d, first, count, &n);

		ret = empty_part(d, &p);
	}
	return ret;
}
