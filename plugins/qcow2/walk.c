// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * walk.c - all host clusters that anything refers to: the header, tables,
 * snapshots, bitmaps, data.  An entry that cannot be followed is told of by
 * ->fault() and passed over.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE (64u << 10)

static void fault(struct qcow2_walk *w, const char *what, uint64_t at,
		  const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "the %s at offset %llu %s", what,
		 (unsigned long long)at, why);
	w->fault(w, text);
}

static int use_area(struct qcow2_walk *w, uint64_t offset, uint64_t bytes)
{
	struct qcow2_reference r = { .use = QCOW2_USE_OTHER };

	if (!bytes)
		return 0;
	r.run.first = qcow2_cluster(w->d, offset);
	r.run.count = qcow2_cluster(w->d, offset + bytes - 1) -
		      r.run.first + 1;
	return w->use(w, &r);
}

static bool in_file(const struct qcow2_walk *w, uint64_t offset,
		    uint64_t bytes)
{
	return num_run_in(offset, bytes, w->d->file_size);
}

/* --- Data ---------------------------------------------------------------------- */

struct level {
	bool active;
	uint64_t guest;		/* cluster of the table's first entry */
};

static bool follows(const struct qcow2_reference *a,
		    const struct qcow2_reference *b, uint32_t entry_size)
{
	return !a->compressed && !b->compressed && a->copied == b->copied &&
	       a->run.first + a->run.count == b->run.first &&
	       a->at + a->run.count * entry_size == b->at;
}

/* Whole runs at a time. */
static int use_data(struct qcow2_walk *w, struct qcow2_reference *run,
		    const struct qcow2_reference *next)
{
	int ret = 0;

	if (run->run.count && next->run.count &&
	    follows(run, next, w->d->g.entry_size)) {
		run->run.count += next->run.count;
		return 0;
	}
	if (run->run.count)
		ret = w->use(w, run);
	*run = *next;
	return ret;
}

static void entry_reference(struct qcow2_walk *w, const struct level *l,
			    const be64 *raw, uint64_t nr, uint64_t at,
			    struct qcow2_reference *r)
{
	struct qcow2 *d = w->d;
	struct qcow2_entry e;
	const char *why;
	uint64_t end;

	*r = (struct qcow2_reference){ .use = QCOW2_USE_DATA, .at = at,
				       .active = l->active };
	why = qcow2_entry_decode(&d->g, raw, qcow2_bytes(d, l->guest + nr),
				 &e);
	if (!why && (!e.has_host || d->g.data_file))
		return;
	end = e.compressed ? num_round_down(e.host, 512) + e.sectors * 512ull :
			     e.host + d->g.cluster_size;
	if (!why && (e.host >= d->file_size ||
		     (end > num_round_up(d->file_size, d->g.cluster_size))))
		why = "points past the end of the file";
	if (why) {
		fault(w, "L2 entry", at, why);
		return;
	}
	r->copied = e.copied;
	r->compressed = e.compressed;
	r->run.first = qcow2_cluster(d, e.host);
	r->run.count = qcow2_cluster(d, end - 1) - r->run.first + 1;
}

/* With subclusters the second word alone may say what is wrong. */
static bool is_blank(const be64 *raw, uint32_t words)
{
	return !be64_get(raw[0]) && (words == 1 || !be64_get(raw[1]));
}

static int walk_l2(struct qcow2_walk *w, const struct level *l,
		   uint64_t offset, be64 *buf)
{
	struct qcow2 *d = w->d;
	uint32_t piece = (uint32_t)num_min(PIECE, d->g.cluster_size);
	uint32_t words = d->g.entry_size / 8, per = piece / d->g.entry_size;
	struct qcow2_reference run = { 0 }, next;
	uint64_t skip, i;
	int ret = 0;

	for (skip = 0; !ret && skip < d->g.cluster_size; skip += piece) {
		ret = cow_read(d->img, 0, buf, piece, offset + skip);
		for (i = 0; !ret && i < per; i++) {
			if (is_blank(buf + i * words, words))
				continue;
			entry_reference(w, l, buf + i * words,
					skip / d->g.entry_size + i,
					offset + skip + i * d->g.entry_size,
					&next);
			if (next.run.count)
				ret = use_data(w, &run, &next);
		}
	}
	next.run.count = 0;
	return ret ? ret : use_data(w, &run, &next);
}

/* --- L1 ------------------------------------------------------------------------ */

static int l1_entry(struct qcow2_walk *w, struct level *l, uint64_t entry,
		    uint64_t at, be64 *buf)
{
	struct qcow2 *d = w->d;
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	const char *why = qcow2_l1_fault(&d->g, entry);
	struct qcow2_reference r = {
		.use = QCOW2_USE_L2,
		.run = { qcow2_cluster(d, offset), 1 },
		.at = at,
		.copied = entry & QCOW2_COPIED,
		.active = l->active,
	};
	int ret;

	if (!why && offset && !in_file(w, offset, d->g.cluster_size))
		why = "points past the end of the file";
	if (why)
		fault(w, "L1 entry", at, why);
	if (why || !offset)
		return 0;
	ret = w->use(w, &r);
	return ret ? ret : walk_l2(w, l, offset, buf);
}

/* The two buffers are of PIECE bytes. */
static int walk_l1(struct qcow2_walk *w, uint64_t offset, uint32_t size,
		   bool active)
{
	struct qcow2 *d = w->d;
	be64 *l1 = malloc(2 * PIECE), *l2 = l1 + PIECE / 8;
	struct level l = { .active = active };
	uint64_t i, n;
	int ret;

	if (!l1)
		return -ENOMEM;
	ret = use_area(w, offset, size * 8ull);
	for (i = 0; !ret && i < size; i++) {
		n = i % (PIECE / 8);
		if (!n)
			ret = cow_read(d->img, 0, l1,
				       num_min(PIECE, (size - i) * 8ull),
				       offset + i * 8);
		l.guest = i << d->g.l2_bits;
		if (!ret)
			ret = l1_entry(w, &l, be64_get(l1[n]),
				       offset + i * 8, l2);
	}
	free(l1);
	return ret;
}

static int walk_snapshot(void *ctx, const struct qcow2_snapshot *s)
{
	struct qcow2_walk *w = ctx;

	return walk_l1(w, s->l1_offset, s->l1_size, false);
}

static int walk_snapshots(struct qcow2_walk *w)
{
	uint64_t start = w->d->h.snapshots_offset, end;
	int ret;

	if (!w->d->h.nb_snapshots)
		return 0;
	ret = qcow2_snapshots_end(w->d, &end);
	if (!ret)
		ret = use_area(w, start, end - start);
	return ret ? ret : qcow2_each_snapshot(w->d, walk_snapshot, w);
}

/* --- Bitmaps ------------------------------------------------------------------- */

struct bitmap_disk {
	be64 table_offset;
	be32 table_size;
	be32 flags;
	uint8_t type, granularity_bits;
	be16 name_size;
	be32 extra_data_size;
};

_Static_assert(sizeof(struct bitmap_disk) == 24, "bitmap directory entry");

static int walk_bitmap(struct qcow2_walk *w, const struct bitmap_disk *b)
{
	uint64_t offset = be64_get(b->table_offset), i, at;
	uint64_t bytes = be32_get(b->table_size) * 8ull;
	be64 entry;
	int ret;

	if (!num_is_aligned(offset, w->d->g.cluster_size) ||
	    (bytes && !in_file(w, offset, bytes))) {
		fault(w, "table of a bitmap", offset, "is out of range");
		return 0;
	}
	ret = use_area(w, offset, bytes);
	for (i = 0; !ret && i < bytes; i += 8) {
		ret = cow_read(w->d->img, 0, &entry, 8, offset + i);
		at = be64_get(entry) & QCOW2_OFFSET_MASK;
		if (ret || !at)
			continue;
		if (in_file(w, at, 1))
			ret = use_area(w, at, 1);
		else
			fault(w, "entry of a bitmap's table", offset + i,
			      "points past the end of the file");
	}
	return ret;
}

static int walk_bitmaps(struct qcow2_walk *w)
{
	const struct qcow2_header *h = &w->d->h;
	uint64_t at = h->bitmaps_offset, end = at + h->bitmaps_bytes;
	struct bitmap_disk b;
	uint32_t i;
	int ret;

	if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !h->nb_bitmaps)
		return 0;
	if (!in_file(w, at, h->bitmaps_bytes)) {
		fault(w, "directory of bitmaps", at,
		      "is past the end of the file");
		return 0;
	}
	ret = use_area(w, at, h->bitmaps_bytes);
	for (i = 0; !ret && i < h->nb_bitmaps && at + sizeof(b) <= end; i++) {
		ret = cow_read(w->d->img, 0, &b, sizeof(b), at);
		if (!ret)
			ret = walk_bitmap(w, &b);
		at += num_round_up(sizeof(b) + be16_get(b.name_size) +
				   (uint64_t)be32_get(b.extra_data_size), 8);
	}
	return ret;
}

/* --- Refcounts, all --------------------------------------------------------------- */

static int walk_refcounts(struct qcow2_walk *w)
{
	struct qcow2 *d = w->d;
	uint64_t i, at;
	be64 entry;
	const char *why;
	int ret;

	ret = use_area(w, d->h.reftable_offset, d->nr_refblocks * 8);
	for (i = 0; !ret && i < d->nr_refblocks; i++) {
		at = d->h.reftable_offset + i * 8;
		ret = cow_read(d->img, 0, &entry, 8, at);
		if (ret || !be64_get(entry))
			continue;
		why = qcow2_reftable_fault(&d->g, be64_get(entry));
		if (!why && !in_file(w, be64_get(entry), d->g.cluster_size))
			why = "points past the end of the file";
		if (why)
			fault(w, "refcount table entry", at, why);
		else
			ret = use_area(w, be64_get(entry), 1);
	}
	return ret;
}

int qcow2_walk(struct qcow2_walk *w)
{
	const struct qcow2_header *h = &w->d->h;
	int ret;

	ret = use_area(w, 0, 1);
	w->in_refcounts = true;
	if (!ret && w->refcounts)
		ret = walk_refcounts(w);
	w->in_refcounts = false;
	if (!ret)
		ret = walk_l1(w, h->l1_offset, h->l1_size, true);
	if (!ret)
		ret = walk_snapshots(w);
	if (!ret)
		ret = walk_bitmaps(w);
	return ret;
}
