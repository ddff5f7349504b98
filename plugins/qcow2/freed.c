// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * freed.c - clusters given up.
 *
 * A cluster keeps its reference until nothing durable refers to it.  What is
 * given up goes through these stages, in the order of the list:
 *
 *	given up since the last commit began
 *	committing	the commit on its way makes it safe
 *	safe		its reference may be taken back
 *	cleared		it is, in a table that the next commit writes
 *
 * and a cluster without a reference may be used again when that commit is
 * through.  Such a commit follows by itself, so nothing is left over when
 * the image is closed.  The list has a limit: what does not find room is
 * leaked, which a check repairs.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIST 65536u
#define REUSABLE 4096u
/*
 * Slices of refcounts that one commit takes references back in: each pins one of the
 * refcount table as well, and one call may have no more than COW_TABLES_PER_CALL.
 */
#define CLEAR_SLICES 32u
_Static_assert(2 * CLEAR_SLICES <= COW_TABLES_PER_CALL, "a commit that no cache has room for");
/* Free clusters that may lie idle in runs too short for what is wanted. */
#define IDLE_CLUSTERS 64u

int qcow2_freed_init(struct qcow2 *d)
{
	struct qcow2_freed *f = &d->freed;

	f->runs = calloc(LIST, sizeof(*f->runs));
	f->unused = calloc(LIST, sizeof(*f->unused));
	f->reusable = calloc(REUSABLE, sizeof(*f->reusable));
	return f->runs && f->unused && f->reusable ? 0 : -ENOMEM;
}

void qcow2_freed_free(struct qcow2 *d)
{
	free(d->freed.runs);
	free(d->freed.unused);
	free(d->freed.reusable);
}

/* --- Give up -------------------------------------------------------------- */

static uint64_t slice_clusters(const struct qcow2 *d)
{
	return (d->slice_bytes * 8ull) >> d->g.ref_order;
}

static void add(struct qcow2 *d, uint64_t host, uint64_t count)
{
	struct qcow2_freed *f = &d->freed;
	struct qcow2_run *last = NULL;

	if (f->count > f->committing && host % slice_clusters(d))
		last = &f->runs[f->count - 1];
	if (last && last->first + last->count == host) {
		last->count += count;
	} else if (f->count < LIST) {
		f->runs[f->count++] = (struct qcow2_run){ host, count };
	} else if (!f->lost) {
		f->lost = true;
		cow_warn(d->img,
			 "more clusters are given up than can be remembered; some space leaks until it is checked and repaired");
	}
}

void qcow2_give_up(struct qcow2 *d, uint64_t host, uint64_t count)
{
	uint64_t slice = slice_clusters(d), n;

	for (; count; host += n, count -= n) {
		n = num_min(count, slice - host % slice);
		add(d, host, n);
	}
}

void qcow2_give_up_entry(struct qcow2 *d, const struct qcow2_entry *e)
{
	uint64_t first = qcow2_cluster(d, e->host), end = first + 1;

	if (!e->has_host || d->g.data_file)
		return;
	if (e->compressed)
		end = qcow2_cluster(d, num_round_down(e->host, 512) +
				    e->sectors * 512ull - 1) + 1;
	qcow2_give_up(d, first, end - first);
}

/* --- Take references back ------------------------------------------------- */

/* One reference of each cluster less; those without any go to unused. */
static void clear_run(struct qcow2 *d, const struct qcow2_refs *r,
		      const struct qcow2_run *run)
{
	struct qcow2_freed *f = &d->freed;
	struct qcow2_run *last = NULL;
	uint64_t i, ref;

	for (i = run->first; i < run->first + run->count; i++) {
		ref = qcow2_refs_count(d, r, i);
		if (!ref) {
			cow_warn(d->img,
				"cluster %llu was in use without being counted; check the image",
				(unsigned long long)i);
			continue;
		}
		qcow2_refs_set(d, r, i, ref - 1);
		if (ref > 1)
			continue;
		if (last && last->first + last->count == i) {
			last->count++;
		} else if (f->nr_unused < LIST) {
			last = &f->unused[f->nr_unused++];
			*last = (struct qcow2_run){ i, 1 };
		}
	}
}

/* The slices of the safe runs from cleared on, as many as one call may get. */
static int get_slices(struct qcow2 *d, struct qcow2_refs *slices,
		      uint32_t *nr, uint32_t *end)
{
	struct qcow2_freed *f = &d->freed;
	uint32_t i, j;
	int ret = 0, one;

	*nr = 0;
	for (i = f->cleared; i < f->safe; i++) {
		uint64_t host = f->runs[i].first;

		for (j = 0; j < *nr; j++) {
			if (host >= slices[j].first &&
			    host < slices[j].first + slices[j].count)
				break;
		}
		if (j < *nr)
			continue;
		if (*nr == CLEAR_SLICES)
			break;
		one = qcow2_refs_get_write(d, host, &slices[j]);
		if (one && one != -EAGAIN)
			return one;
		if (one)
			ret = one;
		++*nr;
	}
	*end = i;
	return ret;
}

/* Restarted; its time is that of the dirty tables that it leaves. */
int qcow2_commit(void *handle)
{
	struct qcow2 *d = handle;
	struct qcow2_freed *f = &d->freed;
	struct qcow2_refs slices[CLEAR_SLICES];
	uint32_t nr, end, i, j;
	int ret;

	ret = get_slices(d, slices, &nr, &end);
	if (ret)
		return ret;
	for (i = f->cleared; i < end; i++) {
		for (j = 0; f->runs[i].first < slices[j].first ||
			    f->runs[i].first >= slices[j].first +
						slices[j].count; j++)
			;
		clear_run(d, &slices[j], &f->runs[i]);
	}
	f->cleared = end;
	f->committing = f->count;
	qcow2_moved_commit(d);
	d->changed = false;
	return 0;
}

/* --- Use again ------------------------------------------------------------ */

static void drop_reusable(struct qcow2_freed *f, uint32_t at)
{
	f->nr_reusable--;
	memmove(&f->reusable[at], &f->reusable[at + 1],
		(f->nr_reusable - at) * sizeof(*f->reusable));
}

/* In order, neighbours joined.  No room: free nevertheless, after an open. */
static void add_reusable(struct qcow2_freed *f, const struct qcow2_run *run)
{
	uint32_t at = 0, end = f->nr_reusable;
	struct qcow2_run *r = f->reusable;

	while (at < end) {
		uint32_t mid = (at + end) / 2;

		if (r[mid].first < run->first)
			at = mid + 1;
		else
			end = mid;
	}
	if (at && r[at - 1].first + r[at - 1].count == run->first) {
		r[--at].count += run->count;
	} else if (f->nr_reusable < REUSABLE) {
		memmove(&r[at + 1], &r[at],
			(f->nr_reusable - at) * sizeof(*r));
		r[at] = *run;
		f->nr_reusable++;
	} else {
		return;
	}
	f->nr_clusters += run->count;
	if (at + 1 < f->nr_reusable &&
	    r[at].first + r[at].count == r[at + 1].first) {
		r[at].count += r[at + 1].count;
		drop_reusable(f, at + 1);
	}
}

static void add_part(struct qcow2 *d, const struct qcow2_run *run,
		     uint64_t from, uint64_t to)
{
	struct qcow2_run part = { .first = num_max(run->first, from) };
	uint64_t end = num_min(run->first + run->count, to);

	if (part.first >= end)
		return;
	part.count = end - part.first;
	add_reusable(&d->freed, &part);
}

/*
 * What alloc.c has not got to yet it finds by itself, for it has no count: before its
 * cursor, and, where a device holds what ->copied() told of, before fresh.
 */
static void add_behind_cursor(struct qcow2 *d, const struct qcow2_run *run)
{
	const struct qcow2_alloc *a = &d->alloc;

	add_part(d, run, 0, num_min(a->cursor, a->old_end));
	add_part(d, run, a->old_end, a->fresh);
}

bool qcow2_reuse(struct qcow2 *d, uint64_t want, bool any,
		 struct qcow2_run *run)
{
	struct qcow2_freed *f = &d->freed;
	uint32_t i, best = 0;

	if (!f->nr_reusable)
		return false;
	for (i = 0; i < f->nr_reusable && f->reusable[best].count < want; i++) {
		if (f->reusable[i].count > f->reusable[best].count)
			best = i;
	}
	if (f->reusable[best].count < want && !any &&
	    f->nr_clusters < IDLE_CLUSTERS)
		return false;
	run->first = f->reusable[best].first;
	run->count = num_min(want, f->reusable[best].count);
	f->reusable[best].first += run->count;
	f->reusable[best].count -= run->count;
	f->nr_clusters -= run->count;
	if (!f->reusable[best].count)
		drop_reusable(f, best);
	return true;
}

void qcow2_committed(void *handle, int status)
{
	struct qcow2 *d = handle;
	struct qcow2_freed *f = &d->freed;
	uint32_t i;

	qcow2_moved_committed(d, status);
	/* A table that was not written stays dirty: the next commit does. */
	if (status) {
		f->committing = f->safe;
		return;
	}
	for (i = 0; i < f->nr_unused; i++)
		add_behind_cursor(d, &f->unused[i]);
	f->nr_unused = 0;
	memmove(f->runs, f->runs + f->cleared,
		(f->count - f->cleared) * sizeof(*f->runs));
	f->count -= f->cleared;
	f->committing -= f->cleared;
	f->safe = f->committing;
	f->cleared = 0;
	if (f->safe)
		cow_commit_more(d->img);
}
