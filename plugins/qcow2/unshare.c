// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * unshare.c - whole clusters copied by us.
 *
 * An L2 entry has one place for all subclusters of its cluster, and the
 * kernel copies blocks, which are subclusters, one by one.  So where the
 * place has to change (the cluster is compressed, or snapshots share it)
 * the data of all subclusters is put there, durably, before a block may go
 * there; and ->copied() of any of them then refers to it for all.
 *
 * And zeroes behind the end of the disk, in its last cluster.
 */
#include "qcow2.h"

#include <common/num.h>

#include <string.h>

bool qcow2_must_fill(const struct qcow2 *d, const struct qcow2_entry *e)
{
	return d->g.extended && (e->compressed || (e->alloc && !e->copied));
}

/* Compared by cow_work(), so without padding. */
struct fill {
	struct qcow2 *d;
	uint64_t host, place;
	uint64_t compressed, sectors;
	uint64_t alloc;
};

/* In libcow's helper thread, where ->read() runs, too. */
static int fill(const void *arg)
{
	const struct fill *f = arg;
	struct qcow2 *d = f->d;
	uint32_t bs = d->g.block_size, sub;
	int ret = 0;

	if (f->compressed) {
		ret = qcow2_unpack(d, f->host, (uint32_t)f->sectors);
		if (!ret)
			ret = cow_write(d->img, 0, d->unpacked,
					d->g.cluster_size, f->place);
	}
	for (sub = 0; !ret && sub < 32; sub++) {
		if (!(f->alloc >> sub & 1))
			continue;
		ret = cow_read(d->img, 0, d->unpacked, bs,
			       f->host + (uint64_t)sub * bs);
		if (!ret)
			ret = cow_write(d->img, 0, d->unpacked, bs,
					f->place + (uint64_t)sub * bs);
	}
	if (!ret)
		ret = cow_sync(d->img, 0);
	return ret;
}

int qcow2_fill(struct qcow2 *d, const struct qcow2_entry *e, uint64_t place)
{
	struct fill f = {
		.d = d,			.host = e->host,
		.place = place,		.compressed = e->compressed,
		.sectors = e->sectors,	.alloc = e->alloc,
	};

	return cow_work(d->img, fill, &f, sizeof(f));
}

/* --- Behind the end of the disk ---------------------------------------------- */

/* Without padding, too. */
struct tail {
	struct qcow2 *d;
	uint64_t offset, bytes;
};

static int zero(const void *arg)
{
	const struct tail *t = arg;

	memset(t->d->unpacked, 0, t->bytes);
	return cow_write(t->d->img, 0, t->d->unpacked, t->bytes, t->offset);
}

uint64_t qcow2_tail_bytes(const struct qcow2 *d,
			  const struct qcow2_pending *p)
{
	uint64_t last = qcow2_cluster(d, d->h.size - 1);
	uint64_t used = d->h.size & (d->g.cluster_size - 1);

	if (!used || last < p->guest || last - p->guest >= QCOW2_GROUP_MAX ||
	    !(p->mask >> (last - p->guest) & 1))
		return 0;
	return d->g.cluster_size - used;
}

int qcow2_zero_tail(struct qcow2 *d, const struct qcow2_pending *p)
{
	uint64_t last = qcow2_cluster(d, d->h.size - 1);
	struct tail t = { .d = d, .bytes = qcow2_tail_bytes(d, p) };

	t.offset = qcow2_bytes(d, p->host + (last - p->guest) + 1) - t.bytes;
	return cow_work(d->img, zero, &t, sizeof(t));
}
