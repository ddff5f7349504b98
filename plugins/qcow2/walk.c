// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * walk.c - all host clusters that anything refers to: the header, tables,
 * snapshots, bitmaps, data.  An entry that cannot be followed is told of by
 * ->fault() and passed over.
 *
 * However often a table is named, it is read once, and its entries count as
 * often; and what of it is a hole in the file is not read at all.
 */
#include "named.h"
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE (64u << 10)

/* As QEMU has them. */
#define BITMAPS_MAX 65535u
#define BITMAP_ENTRIES_MAX (128u << 20)

static int fault(struct qcow2_walk *w, const char *what, uint64_t at,
		  const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "the %s at offset %llu %s", what,
		 (unsigned long long)at, why);
	return w->fault(w, text);
}

static int use_times(struct qcow2_walk *w, uint64_t offset, uint64_t bytes,
		     uint32_t times)
{
	struct qcow2_reference r = { .use = QCOW2_USE_OTHER, .times = times };

	if (!bytes)
		return 0;
	r.run.first = qcow2_cluster(w->d, offset);
	r.run.count = qcow2_cluster(w->d, offset + bytes - 1) -
		      r.run.first + 1;
	return w->use(w, &r);
}

static int use_area(struct qcow2_walk *w, uint64_t offset, uint64_t bytes)
{
	return use_times(w, offset, bytes, 1);
}

static bool in_file(const struct qcow2_walk *w, uint64_t offset,
		    uint64_t bytes)
{
	return num_run_in(offset, bytes, w->d->file_size);
}

/* A table of 64-bit integers that stands in the file as a whole. */
struct entries {
	struct qcow2_walk *w;
	uint32_t times;		/* named */
	/* Of each entry that is not 0, and where it stands. */
	int (*fn)(struct entries *t, uint64_t index, uint64_t entry,
		  uint64_t at);
};

static int each_of_piece(struct entries *t, const be64 *buf, uint64_t count,
			 uint64_t first, uint64_t offset)
{
	uint64_t i;
	int ret = 0;

	for (i = 0; !ret && i < count; i++) {
		if (be64_get(buf[i]))
			ret = t->fn(t, first + i, be64_get(buf[i]),
				    offset + i * 8);
	}
	return ret;
}

static int each_entry(struct entries *t, uint64_t offset, uint64_t count)
{
	be64 *buf = malloc(PIECE);
	int ret = buf ? 0 : -ENOMEM;
	uint64_t i, n;
	bool hole = false;

	for (i = 0; !ret && i < count; i += n) {
		n = num_min(PIECE / 8, count - i);
		ret = cow_file_is_hole(t->w->d->img, 0, &t->w->hole,
				       offset + i * 8, n * 8, &hole);
		if (ret || hole)
			continue;
		ret = cow_read(t->w->d->img, 0, buf, n * 8, offset + i * 8);
		if (!ret)
			ret = each_of_piece(t, buf, n, i, offset + i * 8);
	}
	free(buf);
	return ret;
}

/* --- Data ---------------------------------------------------------------------- */

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

/* r without clusters: it refers to none. */
static int entry_reference(struct qcow2_walk *w, const struct qcow2_table *t,
			   const be64 *raw, uint64_t nr, uint64_t at,
			   struct qcow2_reference *r)
{
	struct qcow2 *d = w->d;
	uint64_t guest = ((uint64_t)t->index << d->g.l2_bits) + nr, end;
	struct qcow2_entry e;
	const char *why;

	*r = (struct qcow2_reference){ .use = QCOW2_USE_DATA, .at = at,
				       .times = t->times,
				       .active = t->active };
	why = qcow2_entry_decode(&d->g, raw, qcow2_bytes(d, guest), &e);
	if (!why && (!e.has_host || d->g.data_file))
		return 0;
	end = e.compressed ? num_round_down(e.host, 512) + e.sectors * 512ull :
			     e.host + d->g.cluster_size;
	if (!why && (e.host >= d->file_size ||
		     (end > num_round_up(d->file_size, d->g.cluster_size))))
		why = "points past the end of the file";
	if (why)
		return fault(w, "L2 entry", at, why);
	r->copied = e.copied;
	r->compressed = e.compressed;
	r->run.first = qcow2_cluster(d, e.host);
	r->run.count = qcow2_cluster(d, end - 1) - r->run.first + 1;
	return 0;
}

/* With subclusters the second word alone may say what is wrong. */
static bool is_blank(const be64 *raw, uint32_t words)
{
	return !be64_get(raw[0]) && (words == 1 || !be64_get(raw[1]));
}

static int walk_l2(struct qcow2_walk *w, const struct qcow2_table *t,
		   be64 *buf)
{
	struct qcow2 *d = w->d;
	uint32_t piece = (uint32_t)num_min(PIECE, d->g.cluster_size);
	uint32_t words = d->g.entry_size / 8, per = piece / d->g.entry_size;
	struct qcow2_reference run = { 0 }, next;
	uint64_t offset = qcow2_bytes(d, t->host), skip, i;
	bool hole = false;
	int ret = 0;

	for (skip = 0; !ret && skip < d->g.cluster_size; skip += piece) {
		ret = cow_file_is_hole(w->d->img, 0, &w->hole, offset + skip,
				       piece, &hole);
		if (ret || hole)
			continue;
		ret = cow_read(d->img, 0, buf, piece, offset + skip);
		for (i = 0; !ret && i < per; i++) {
			if (is_blank(buf + i * words, words))
				continue;
			ret = entry_reference(w, t, buf + i * words,
					      skip / d->g.entry_size + i,
					      offset + skip +
					      i * d->g.entry_size, &next);
			if (!ret && next.run.count)
				ret = use_data(w, &run, &next);
		}
	}
	next.run.count = 0;
	return ret ? ret : use_data(w, &run, &next);
}

/* --- L1 ------------------------------------------------------------------------ */

struct directory {
	struct entries t;
	struct qcow2_named *named;
	uint32_t nr;		/* 0: the active one */
};

static int l1_entry(struct entries *t, uint64_t index, uint64_t entry,
		    uint64_t at)
{
	const struct directory *l1 = (struct directory *)t;
	struct qcow2 *d = t->w->d;
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	const char *why = qcow2_l1_fault(&d->g, entry);
	struct qcow2_reference r = {
		.use = QCOW2_USE_L2,
		.run = { qcow2_cluster(d, offset), 1 },
		.at = at,
		.times = t->times,
		.copied = entry & QCOW2_COPIED,
		.active = !l1->nr,
	};
	const struct qcow2_table table = {
		.host = r.run.first,
		.index = (uint32_t)index,
		.directory = l1->nr,
		.times = t->times,
		.active = r.active,
	};
	bool again;
	int ret;

	if (!why && offset && !in_file(t->w, offset, d->g.cluster_size))
		why = "points past the end of the file";
	if (why)
		return fault(t->w, "L1 entry", at, why);
	if (!offset)
		return 0;
	ret = t->w->use(t->w, &r);
	if (!ret)
		ret = qcow2_named_add(l1->named, &table, &again);
	if (!ret && again)
		ret = fault(t->w, "L1 entry", at,
			    "points to the L2 table of another one");
	return ret;
}

static int walk_l1(struct directory *l1, uint64_t offset, uint64_t bytes)
{
	int ret;

	ret = use_times(l1->t.w, offset, bytes, l1->t.times);
	return ret ? ret : each_entry(&l1->t, offset, bytes / 8);
}

static int walk_named(struct qcow2_walk *w, const struct qcow2_named *named)
{
	be64 *buf = malloc(PIECE);
	int ret = buf ? 0 : -ENOMEM;
	uint64_t i;

	for (i = 0; !ret && i < named->count; i++)
		ret = walk_l2(w, &named->list[i], buf);
	free(buf);
	return ret;
}

static int add_snapshot(void *ctx, const struct qcow2_snapshot *s)
{
	return s->l1_size ? qcow2_areas_add(ctx, s->l1_offset,
					    s->l1_size * 8ull) : 0;
}

static int walk_snapshots(struct qcow2_walk *w, struct directory *l1)
{
	uint64_t start = w->d->h.snapshots_offset, end, i;
	struct qcow2_areas all = { 0 };
	const struct qcow2_area *a;
	int ret;

	if (!w->d->h.nb_snapshots)
		return 0;
	ret = qcow2_snapshots_end(w->d, &end);
	if (!ret)
		ret = use_area(w, start, end - start);
	if (!ret)
		ret = qcow2_each_snapshot(w->d, add_snapshot, &all);
	qcow2_areas_sort(&all);
	for (i = 0; !ret && i < all.count; i++) {
		a = &all.list[i];
		l1->nr++;
		l1->t.times = a->times;
		ret = a->overlaps ? fault(w, "L1 table of a snapshot",
					  a->offset, "overlaps another one") :
				    walk_l1(l1, a->offset, a->bytes);
	}
	free(all.list);
	return ret;
}

static int walk_disks(struct qcow2_walk *w)
{
	const struct qcow2_header *h = &w->d->h;
	struct qcow2_named named = { 0 };
	struct directory l1 = {
		.t = { .w = w, .times = 1, .fn = l1_entry },
		.named = &named,
	};
	int ret;

	ret = walk_l1(&l1, h->l1_offset, h->l1_size * 8ull);
	if (!ret)
		ret = walk_snapshots(w, &l1);
	if (!ret)
		ret = walk_named(w, &named);
	qcow2_named_free(&named);
	return ret;
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

static int bitmap_entry(struct entries *t, uint64_t index, uint64_t entry,
			uint64_t at)
{
	uint64_t offset = entry & QCOW2_OFFSET_MASK;

	if (!offset)
		return 0;
	if (in_file(t->w, offset, 1))
		return use_times(t->w, offset, 1, t->times);
	return fault(t->w, "entry of a bitmap's table", at,
		     "points past the end of the file");
}

static int add_bitmap(struct qcow2_walk *w, const struct bitmap_disk *b,
		      struct qcow2_areas *all)
{
	uint64_t offset = be64_get(b->table_offset);
	uint64_t bytes = be32_get(b->table_size) * 8ull;

	if (bytes / 8 > BITMAP_ENTRIES_MAX ||
	    !num_is_aligned(offset, w->d->g.cluster_size) ||
	    (bytes && !in_file(w, offset, bytes)))
		return fault(w, "table of a bitmap", offset,
			     "is out of range");
	return bytes ? qcow2_areas_add(all, offset, bytes) : 0;
}

static int walk_bitmap_tables(struct qcow2_walk *w, struct qcow2_areas *all)
{
	struct entries t = { .w = w, .fn = bitmap_entry };
	const struct qcow2_area *a;
	uint64_t i;
	int ret = 0;

	qcow2_areas_sort(all);
	for (i = 0; !ret && i < all->count; i++) {
		a = &all->list[i];
		t.times = a->times;
		if (a->overlaps) {
			ret = fault(w, "table of a bitmap", a->offset,
				    "overlaps another one");
			continue;
		}
		ret = use_times(w, a->offset, a->bytes, a->times);
		if (!ret)
			ret = each_entry(&t, a->offset, a->bytes / 8);
	}
	return ret;
}

static int walk_bitmap_directory(struct qcow2_walk *w)
{
	const struct qcow2_header *h = &w->d->h;
	uint64_t at = h->bitmaps_offset, end = at + h->bitmaps_bytes;
	struct qcow2_areas all = { 0 };
	struct bitmap_disk b;
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < h->nb_bitmaps && at + sizeof(b) <= end; i++) {
		ret = cow_read(w->d->img, 0, &b, sizeof(b), at);
		if (!ret)
			ret = add_bitmap(w, &b, &all);
		at += num_round_up(sizeof(b) + be16_get(b.name_size) +
				   (uint64_t)be32_get(b.extra_data_size), 8);
	}
	if (!ret)
		ret = walk_bitmap_tables(w, &all);
	free(all.list);
	return ret;
}

static int walk_bitmaps(struct qcow2_walk *w)
{
	const struct qcow2_header *h = &w->d->h;
	const char *why = NULL;
	int ret;

	if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !h->nb_bitmaps)
		return 0;
	if (!in_file(w, h->bitmaps_offset, h->bitmaps_bytes))
		why = "is past the end of the file";
	else if (h->nb_bitmaps > BITMAPS_MAX)
		why = "has too many entries";
	if (why)
		return fault(w, "directory of bitmaps", h->bitmaps_offset,
			     why);
	ret = use_area(w, h->bitmaps_offset, h->bitmaps_bytes);
	return ret ? ret : walk_bitmap_directory(w);
}

/* --- Refcounts, all --------------------------------------------------------------- */

static int reftable_entry(struct entries *t, uint64_t index, uint64_t entry,
			  uint64_t at)
{
	const char *why = qcow2_reftable_fault(&t->w->d->g, entry);

	if (!why && !in_file(t->w, entry, t->w->d->g.cluster_size))
		why = "points past the end of the file";
	if (why)
		return fault(t->w, "refcount table entry", at, why);
	return use_area(t->w, entry, 1);
}

static int walk_refcounts(struct qcow2_walk *w)
{
	struct entries t = { .w = w, .fn = reftable_entry };
	struct qcow2 *d = w->d;
	int ret;

	ret = use_area(w, d->h.reftable_offset, d->nr_refblocks * 8);
	return ret ? ret : each_entry(&t, d->h.reftable_offset,
				      d->nr_refblocks);
}

int qcow2_walk(struct qcow2_walk *w)
{
	int ret;

	ret = use_area(w, 0, 1);
	w->in_refcounts = true;
	if (!ret && w->refcounts)
		ret = walk_refcounts(w);
	w->in_refcounts = false;
	if (!ret)
		ret = walk_disks(w);
	if (!ret)
		ret = walk_bitmaps(w);
	return ret;
}
