// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * check.c - is every cluster counted as often as it is referred to, and does
 * bit 63 of the entries say so?
 *
 * Repair: counts that are too low first, for they lose data; then bit 63;
 * then counts that are too high, which is but lost space, and only where
 * nothing was found that could not be followed: what an unreadable table
 * refers to would look lost.  Each step is durable before the next.
 */
#include "qcow2.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Windows that an open looks through: for each one all L2 tables are read. */
#define VERIFY_WINDOWS 8ull

struct job {
	struct qcow2 *d;
	struct cow_check *check;
	bool repair;
	struct qcow2_extent extent;
	struct qcow2_window window;
	uint8_t *slice;		/* of refcounts as they stand in the file */
	uint64_t damage;	/* found and not repaired */
	bool rebuild;		/* a count has no block to stand in */
};

void qcow2_found(struct qcow2 *d, struct cow_check *check,
		 enum cow_severity severity, bool repaired, const char *fmt,
		 ...)
{
	char text[384];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (check)
		cow_check_found(check, severity, repaired, "%s", text);
	else if (!repaired && severity == COW_FOUND_CORRUPT)
		cow_warn(d->img, "%s", text);
}

static void found(struct job *j, enum cow_severity severity, bool repaired,
		  const char *what, uint64_t first, uint64_t count,
		  uint64_t stored, uint64_t counted)
{
	unsigned long long offset = qcow2_bytes(j->d, first);

	if (!repaired && severity == COW_FOUND_CORRUPT)
		j->damage++;
	qcow2_found(j->d, j->check, severity, repaired,
		    "%llu cluster%s from offset %llu on: %s (refcount %llu, references %llu)",
		    (unsigned long long)count, count > 1 ? "s" : "", offset,
		    what, (unsigned long long)stored,
		    (unsigned long long)counted);
}

/* --- Counts ------------------------------------------------------------------- */

static uint32_t refs_of(const struct job *j, uint64_t host)
{
	return j->window.refs[host - j->window.first];
}

/* Clusters that are metadata belong to nothing else. */
static bool is_shared_wrongly(uint32_t ref)
{
	if (ref & QCOW2_REF_OTHER)
		return (ref & QCOW2_REF_COUNT) > 1;
	return ref & QCOW2_REF_L2 && ref & QCOW2_REF_DATA;
}

enum fix { FIX_RAISE, FIX_LOWER };

/* One run of clusters of which the same can be said. */
static int fix_run(struct job *j, enum fix fix, uint64_t first,
		   uint64_t count, uint64_t stored, uint64_t counted)
{
	enum cow_severity severity = fix == FIX_RAISE ? COW_FOUND_CORRUPT :
							COW_FOUND_LEAK;
	const char *what = fix == FIX_RAISE ? "counted too low" : "leaked";
	bool repair = j->repair;
	int ret = 0;

	if (counted > qcow2_ref_max(j->d->g.ref_order) ||
	    (fix == FIX_LOWER && (j->extent.faults || j->damage)))
		repair = false;
	if (repair)
		ret = qcow2_refcounts_write(j->d, first, count, counted);
	if (ret == -ENOENT) {	/* there is no block for it */
		j->rebuild = true;
		return 0;
	}
	if (!ret)
		found(j, severity, repair, what, first, count, stored,
		      counted);
	return ret;
}

static bool wants(enum fix fix, uint64_t stored, uint64_t counted)
{
	return fix == FIX_RAISE ? stored < counted : stored > counted;
}

struct same {
	uint64_t count, stored, counted;
};

/* Runs of clusters that want the same are fixed, and told of, together. */
static int fix_one(struct job *j, enum fix fix, uint64_t host,
		   uint64_t stored, struct same *run)
{
	uint64_t counted = refs_of(j, host) & QCOW2_REF_COUNT;
	int ret = 0;

	if (run->count && (stored != run->stored || counted != run->counted)) {
		ret = fix_run(j, fix, host - run->count, run->count,
			      run->stored, run->counted);
		run->count = 0;
	}
	run->stored = stored;
	run->counted = counted;
	run->count = wants(fix, stored, counted) ? run->count + 1 : 0;
	return ret;
}

static int fix_counts(struct job *j, enum fix fix)
{
	uint64_t end = j->window.first + j->window.count, i;
	struct qcow2_refs r = { 0 };
	struct same run = { 0 };
	int ret = 0;

	for (i = j->window.first; !ret && i < end; i++) {
		if (i >= r.first + r.count)
			ret = qcow2_refs_read(j->d, i, j->slice, &r);
		if (!ret)
			ret = fix_one(j, fix, i,
				      qcow2_refs_count(j->d, &r, i), &run);
	}
	if (!ret && run.count)
		ret = fix_run(j, fix, end - run.count, run.count, run.stored,
			      run.counted);
	return ret;
}

static void find_conflicts(struct job *j)
{
	uint64_t i;

	for (i = 0; i < j->window.count; i++) {
		uint32_t ref = j->window.refs[i];

		if (is_shared_wrongly(ref))
			found(j, COW_FOUND_CORRUPT, false,
			      "used as metadata and as something else",
			      j->window.first + i, 1, 0,
			      ref & QCOW2_REF_COUNT);
	}
}

/* --- Bit 63 --------------------------------------------------------------------- */

struct bits {
	struct qcow2_walk walk;
	struct job *j;
};

static int fix_bit(struct job *j, uint64_t at, bool bit)
{
	be64 entry;
	uint64_t raw;
	int ret;

	if (!j->repair)
		return 0;
	ret = cow_read(j->d->img, 0, &entry, sizeof(entry), at);
	raw = be64_get(entry);
	entry = be64_put(bit ? raw | QCOW2_COPIED : raw & ~QCOW2_COPIED);
	return ret ? ret : cow_write(j->d->img, 0, &entry, sizeof(entry), at);
}

static int bits_use(struct qcow2_walk *walk, const struct qcow2_reference *r)
{
	struct job *j = ((struct bits *)walk)->j;
	const struct qcow2_window *w = &j->window;
	uint32_t size = r->use == QCOW2_USE_L2 ? 8 : j->d->g.entry_size;
	uint64_t i, refs;
	int ret = 0;

	if (!r->active || r->use == QCOW2_USE_OTHER || r->compressed)
		return 0;
	for (i = 0; !ret && i < r->run.count; i++) {
		uint64_t host = r->run.first + i;

		if (host < w->first || host >= w->first + w->count)
			continue;
		refs = refs_of(j, host) & QCOW2_REF_COUNT;
		if (r->copied == (refs == 1))
			continue;
		ret = fix_bit(j, r->at + i * size, refs == 1);
		found(j, COW_FOUND_CORRUPT, j->repair && !ret, r->copied ?
		      "marked as used once" : "not marked as used once",
		      host, 1, refs, refs);
	}
	return ret;
}

static int bits_fault(struct qcow2_walk *walk, const char *text)
{
	return 0;
}

static int fix_bits(struct job *j)
{
	struct bits b = {
		.walk = { .d = j->d, .use = bits_use, .fault = bits_fault },
		.j = j,
	};

	return qcow2_walk(&b.walk);
}

/* --- All -------------------------------------------------------------------------- */

static int sync_repair(struct job *j)
{
	return j->repair ? cow_sync(j->d->img, 0) : 0;
}

static int check_window(struct job *j)
{
	int ret;

	ret = qcow2_window_count(j->d, &j->window, true);
	if (ret)
		return ret;
	find_conflicts(j);
	ret = fix_counts(j, FIX_RAISE);
	if (!ret)
		ret = sync_repair(j);
	/* Whatever else is wrong is put right after the rebuild. */
	if (ret || (j->rebuild && j->repair))
		return ret;
	ret = fix_bits(j);
	if (!ret)
		ret = sync_repair(j);
	if (!ret)
		ret = fix_counts(j, FIX_LOWER);
	return ret ? ret : sync_repair(j);
}

static int check_windows(struct job *j)
{
	uint64_t end = num_div_up(j->d->file_size, j->d->g.cluster_size);
	uint64_t max = j->window.count;
	int ret = 0;

	for (j->window.first = 0; !ret && j->window.first < end;
	     j->window.first += max) {
		j->window.count = num_min(max, end - j->window.first);
		ret = check_window(j);
	}
	j->window.count = max;
	return ret;
}

static int rebuild(struct job *j)
{
	int ret;

	if (j->extent.faults) {
		qcow2_found(j->d, j->check, COW_FOUND_CORRUPT, false,
			"refcounts are missing; they cannot be made anew because other tables are damaged");
		j->damage++;
		return 0;
	}
	ret = qcow2_rebuild(j->d, j->extent.end);
	if (ret)
		return ret;
	qcow2_found(j->d, j->check, COW_FOUND_CORRUPT, true,
		    "refcounts were missing; all were made anew");
	j->rebuild = false;
	ret = qcow2_measure(j->d, &j->extent, NULL, NULL);
	return ret ? ret : check_windows(j);
}

/* What is repaired needs no mark. */
static int clear_marks(struct job *j)
{
	uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	struct qcow2 *d = j->d;

	if (d->h.incompatible & QCOW2_INCOMPAT_CORRUPT && !j->repair)
		qcow2_found(d, j->check, COW_FOUND_CORRUPT, false,
			    "the image is marked as corrupt");
	if (d->h.incompatible & QCOW2_INCOMPAT_DIRTY && !j->repair)
		qcow2_found(d, j->check, COW_FOUND_LEAK, false,
			    "the image was not closed properly");
	if (!j->repair || j->damage || j->extent.faults ||
	    j->extent.ref_faults)
		return 0;
	return qcow2_set_features(d, d->h.incompatible & ~marks,
				  d->h.compatible, d->h.autoclear);
}

static int tell_fault(void *ctx, bool refcounts, const char *text)
{
	struct job *j = ctx;
	bool repaired = refcounts && j->repair && !j->extent.faults;

	qcow2_found(j->d, j->check, COW_FOUND_CORRUPT, repaired, "%s", text);
	return 0;
}

/* What can be done depends on all that cannot be followed: count, then tell. */
static int measure(struct job *j)
{
	struct qcow2_extent again;
	int ret;

	ret = qcow2_measure(j->d, &j->extent, NULL, NULL);
	if (ret || !(j->extent.faults + j->extent.ref_faults))
		return ret;
	j->rebuild = j->extent.ref_faults;
	return qcow2_measure(j->d, &again, tell_fault, j);
}

/*
 * What others keep, and we do not, is not believed after a repair.  Bitmaps are:
 * the disk's contents stay, and they are counted.
 */
static int clear_unknown(struct job *j)
{
	uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_RAW;
	const struct qcow2_header *h = &j->d->h;

	if (!j->repair)
		return 0;
	return qcow2_set_features(j->d, h->incompatible, h->compatible,
				  h->autoclear & known);
}

static int run(struct job *j)
{
	int ret;

	ret = clear_unknown(j);
	if (!ret)
		ret = measure(j);
	if (!ret)
		ret = qcow2_window_alloc(&j->window,
			num_div_up(j->d->file_size, j->d->g.cluster_size));
	j->slice = malloc(j->d->slice_bytes);
	if (!ret && !j->slice)
		ret = -ENOMEM;
	if (!ret && !(j->rebuild && j->repair))
		ret = check_windows(j);
	if (!ret && j->rebuild && j->repair)
		ret = rebuild(j);
	if (!ret)
		ret = clear_marks(j);
	free(j->window.refs);
	free(j->slice);
	return ret;
}

/* --- Before the first write ------------------------------------------------- */

static int refuse_fault(void *ctx, bool refcounts, const char *text)
{
	struct job *j = ctx;

	return cow_error(j->d->img, -EIO,
		"%s; the image is damaged: check and repair it before it is written",
		text);
}

/* See qcow2_alloc_is_left(). */
static int note_left(struct job *j, uint64_t host)
{
	struct qcow2_alloc *a = &j->d->alloc;

	if (!a->left)
		a->left = calloc(1, num_div_up(j->extent.end, 8));
	if (!a->left)
		return -ENOMEM;
	bits_set(a->left, host);
	return 0;
}

/* What is counted too low could be handed out, or written, for two. */
static int verify_counts(struct job *j)
{
	struct qcow2_refs r = { 0 };
	uint64_t i = j->window.first, end = i + j->window.count;
	uint64_t stored, counted;
	int ret;

	for (; i < end; i++) {
		if (i >= r.first + r.count) {
			ret = qcow2_refs_read(j->d, i, j->slice, &r);
			if (ret)
				return ret;
		}
		stored = qcow2_refs_count(j->d, &r, i);
		counted = refs_of(j, i) & QCOW2_REF_COUNT;
		if (stored < counted || is_shared_wrongly(refs_of(j, i)))
			return cow_error(j->d->img, -EIO,
				"the cluster at offset %llu has a refcount of %llu and %llu references; the image is damaged: check and repair it before it is written",
				(unsigned long long)qcow2_bytes(j->d, i),
				(unsigned long long)stored,
				(unsigned long long)counted);
		ret = stored == 1 && !counted ? note_left(j, i) : 0;
		if (ret)
			return ret;
	}
	return 0;
}

static int verify_windows(struct job *j, uint64_t clusters)
{
	uint64_t max = j->window.count;
	int ret = 0;

	for (; !ret && j->window.first < clusters; j->window.first += max) {
		j->window.count = num_min(max, clusters - j->window.first);
		ret = qcow2_window_count(j->d, &j->window, true);
		if (!ret)
			ret = verify_counts(j);
	}
	return ret;
}

/* Behind the last cluster that is referred to no count can be too low. */
int qcow2_verify(struct qcow2 *d)
{
	struct job j = { .d = d };
	uint64_t end;
	int ret;

	ret = qcow2_measure(d, &j.extent, refuse_fault, &j);
	if (ret)
		return ret;
	end = j.extent.end;
	/* At the end of a device stand tables that are known to be counted. */
	if (d->alloc.device && end > VERIFY_WINDOWS * QCOW2_WINDOW)
		end = j.extent.data_end;
	d->alloc.referred_end = end;
	d->alloc.data_end = j.extent.data_end;
	d->alloc.unverified = end > VERIFY_WINDOWS * QCOW2_WINDOW;
	if (d->alloc.unverified)
		return 0;
	ret = qcow2_window_alloc(&j.window, end);
	j.slice = malloc(d->slice_bytes);
	if (!ret && !j.slice)
		ret = -ENOMEM;
	if (!ret)
		ret = verify_windows(&j, end);
	free(j.window.refs);
	free(j.slice);
	return ret;
}

int qcow2_check(void *handle, struct cow_check *check, bool repair)
{
	struct job j = { .d = handle, .check = check, .repair = repair };

	if (repair && j.d->reserved.pool)
		return cow_error(j.d->img, -EBUSY,
			"is open for its disk to be written; it cannot be repaired now");
	return run(&j);
}

int qcow2_repair(struct qcow2 *d, struct cow_check *check)
{
	struct job j = { .d = d, .check = check, .repair = true };
	int ret = run(&j);

	if (!ret && (j.damage || j.extent.faults))
		return cow_error(d->img, -EIO,
			"is damaged and was not repaired; it can be opened for reading");
	return ret;
}
