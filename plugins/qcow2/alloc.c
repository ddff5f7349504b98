// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * alloc.c - where free clusters are.
 *
 * A place is handed out before anything counts it.  So no cluster may be
 * found twice while the image is open: the search only goes forward.  The
 * cursor goes through the file as it was opened, some refcount blocks at a
 * time, so that a large image needs neither memory nor patience; the rest
 * comes from behind its end.  What is given up comes back by freed.c.
 */
#include "qcow2.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <limits.h>

/* Slices of refcounts that are looked into before a file grows instead. */
#define SCAN_SLICES 4u
#define GROW_MIN (1u << 20)
#define GROW_MAX (64u << 20)

static uint64_t end_of_refcounts(const struct qcow2 *d)
{
	return d->nr_refblocks << d->g.rb_bits;
}

void qcow2_alloc_init(struct qcow2 *d)
{
	struct qcow2_alloc *a = &d->alloc;

	a->cursor = 1;	/* 0 is the header */
	a->old_end = num_div_up(d->file_size, d->g.cluster_size);
	/* It has no end, and behind its data there are only tables, which are counted. */
	if (a->device)
		a->old_end = a->data_end;
	a->fresh = a->old_end;
	if (a->unverified)
		a->cursor = a->old_end;
}

int qcow2_extend(struct qcow2 *d, uint64_t host, uint64_t count, bool reserve)
{
	uint64_t end = qcow2_bytes(d, host + count), more;
	int ret = 0;

	if (end > d->file_size) {
		more = num_min(num_max(d->file_size / 16, GROW_MIN), GROW_MAX);
		if (!d->alloc.device)
			end = num_round_up(end + more, d->g.cluster_size);
		ret = cow_file_extend(d->img, 0, end);
		if (!ret)
			d->file_size = end;
	}
	if (!ret && reserve)
		ret = cow_reserve(d->img, 0, qcow2_bytes(d, host),
				  qcow2_bytes(d, count));
	if (ret == -ENOSPC && reserve)
		return cow_error(d->img, ret,
			"there is no space for a table at offset %llu",
			(unsigned long long)qcow2_bytes(d, host));
	return ret;
}

/* Cut off what is free in memory, but not yet on disk. */
static void leave_freed(const struct qcow2_run *runs, uint32_t nr,
			struct qcow2_run *run)
{
	uint32_t i;

	for (i = 0; i < nr && run->count; i++) {
		const struct qcow2_run *f = &runs[i];
		uint64_t end = run->first + run->count;

		if (f->first >= end || f->first + f->count <= run->first)
			continue;
		if (f->first > run->first) {
			run->count = f->first - run->first;
		} else {
			run->first = num_min(f->first + f->count, end);
			run->count = end - run->first;
		}
	}
}

/* The first run of free clusters of the slice, from *pos on. */
static void search_slice(struct qcow2 *d, const struct qcow2_refs *r,
			 uint64_t *pos, uint64_t end, uint64_t want,
			 uint64_t min, struct qcow2_run *run)
{
	uint32_t order = d->g.ref_order;
	uint64_t from, to;

	end = num_min(end, r->first + r->count);
	while (*pos < end) {
		from = qcow2_ref_next_free(r->data, order, *pos - r->first,
					   end - r->first);
		to = qcow2_ref_next_used(r->data, order, from,
			num_min(from + want, end - r->first));
		*run = (struct qcow2_run){ r->first + from, to - from };
		*pos = r->first + to;
		leave_freed(d->freed.unused, d->freed.nr_unused, run);
		if (run->count >= min && run->count) {
			*pos = run->first + run->count;
			return;
		}
		if (from == to)
			break;
	}
	*pos = num_max(*pos, end);
	run->count = 0;
}

/*
 * run->count stays 0 when there is no such run before end, or not in as many
 * slices as may be looked into by now: a restarted search goes on behind what
 * it has seen, and holds on to nothing of that.
 */
static int scan(struct qcow2 *d, uint64_t *pos, uint64_t end, uint64_t want,
		uint64_t min, unsigned int slices, struct qcow2_run *run)
{
	struct qcow2_alloc *a = &d->alloc;
	uint64_t next = *pos;
	struct qcow2_refs r;
	int ret;

	run->count = 0;
	for (; a->looked < slices && next < end && !run->count; a->looked++) {
		ret = qcow2_refs_get(d, next, &r);
		if (!ret && !r.table)
			ret = qcow2_refs_get_write(d, next, &r);
		if (ret)
			return ret;
		search_slice(d, &r, &next, end, want, min, run);
		if (run->count)
			continue;
		*pos = next;
		cow_table_leave(r.table);
		if (r.reftable)
			cow_table_leave(r.reftable);
	}
	if (!run->count)
		return 0;
	ret = qcow2_extend(d, run->first, run->count, false);
	if (!ret)
		*pos = next;
	return ret;
}

static uint64_t fresh_end(const struct qcow2 *d)
{
	uint64_t end = end_of_refcounts(d);

	return d->alloc.device ? num_min(end, qcow2_cluster(d, d->file_size)) : end;
}

static int no_space(struct qcow2 *d)
{
	return cow_error(d->img, -ENOSPC,
			 "has no free cluster left up to offset %llu",
			 (unsigned long long)qcow2_bytes(d, fresh_end(d)));
}

/*
 * A run that is passed over as too short is lost until the image is opened
 * again.  A file can grow instead; a device must have it in the end.
 */
static int find_run(struct qcow2 *d, uint64_t want, struct qcow2_run *run)
{
	struct qcow2_alloc *a = &d->alloc;
	int ret = 0;

	if (qcow2_reuse(d, want, false, run))
		return 0;
	run->count = 0;
	if (!a->device)
		ret = scan(d, &a->cursor, a->old_end, want,
			   num_div_up(want, 4), SCAN_SLICES, run);
	if (!ret && !run->count)
		ret = scan(d, &a->fresh, fresh_end(d), want, 1, UINT_MAX, run);
	if (ret || run->count)
		return ret;
	if (qcow2_reuse(d, want, true, run))
		return 0;
	ret = scan(d, &a->cursor, a->old_end, want, 1, UINT_MAX, run);
	if (!ret && !run->count)
		ret = no_space(d);
	return ret;
}

int qcow2_alloc_run(struct qcow2 *d, uint64_t want, struct qcow2_run *run)
{
	int ret = find_run(d, want, run);

	if (ret != -EAGAIN)
		d->alloc.looked = 0;
	return ret;
}

/*
 * Is host counted because of a daemon that was killed in the middle of a commit, after the
 * refcounts and before the L2 table?  Then what the kernel tells of it holds.  It does so
 * before it asks for anything, and our own tables go elsewhere.
 */
bool qcow2_alloc_is_left(const struct qcow2 *d, uint64_t host, uint64_t count)
{
	const struct qcow2_alloc *a = &d->alloc;
	bool ours = !a->device && host >= a->old_end;

	if (count != 1 || a->gave)
		return false;
	if (host < a->referred_end && !a->unverified)
		return a->left && bits_test(a->left, host);
	return !ours;
}

/* --- Metadata ------------------------------------------------------------- */

/* A cluster that this process and those before it never handed out. */
static int untouched(struct qcow2 *d, uint64_t *host)
{
	struct qcow2_run run;
	int ret;

	/* qcow2_l2_settle() saw to it that none is needed. */
	if (d->alloc.device)
		return cow_error(d->img, -EINVAL,
			"has no table for what was copied, and is on a block device, where none can be added yet");
	ret = scan(d, &d->alloc.fresh, fresh_end(d), 1, 1, UINT_MAX, &run);
	if (!ret && !run.count)
		ret = no_space(d);
	if (ret != -EAGAIN)
		d->alloc.looked = 0;
	if (!ret)
		*host = run.first;
	return ret;
}

int qcow2_alloc_meta(struct qcow2 *d, bool replay, uint64_t *host)
{
	struct qcow2_alloc *a = &d->alloc;
	struct qcow2_run run;
	struct qcow2_refs r;
	int ret = 0;

	if (!a->spare && replay) {
		ret = untouched(d, &a->spare);
	} else if (!a->spare) {
		ret = qcow2_alloc_run(d, 1, &run);
		if (!ret)
			a->spare = run.first;
	}
	if (!ret)
		ret = qcow2_refs_get_write(d, a->spare, &r);
	if (!ret && !qcow2_refs_count(d, &r, a->spare))
		ret = qcow2_extend(d, a->spare, 1, true);
	if (ret)
		return ret;
	if (!qcow2_refs_count(d, &r, a->spare)) {
		qcow2_refs_set(d, &r, a->spare, 1);
		d->changed = true;
	}
	*host = a->spare;
	return 0;
}

void qcow2_alloc_used(struct qcow2 *d)
{
	d->alloc.spare = 0;
}
