// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rebuild.c - refcounts made anew.
 *
 * New blocks and a new table are written behind everything that is in use;
 * the header is switched to them when they are durable.  The old ones are
 * counted by nobody then.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct anew {
	struct qcow2 *d;
	uint64_t end;			/* of what is in use */
	uint64_t first;			/* cluster: blocks, then the table */
	uint64_t nr_blocks, nr_table;	/* clusters */
	uint64_t nr_entries;		/* that table[] holds */
	/* 0: no block; before they have places, 1: there will be one. */
	uint64_t *table;
	struct qcow2_window window;
};

static uint64_t new_end(const struct anew *a)
{
	return a->first + a->nr_blocks + a->nr_table;
}

static int mark_block(struct anew *a, uint64_t host)
{
	uint64_t i = host >> a->d->g.rb_bits;

	if (i >= a->nr_entries)
		return cow_error(a->d->img, -EFBIG,
			"is too large for its refcounts to be made anew");
	a->nr_blocks += !a->table[i];
	a->table[i] = 1;
	return 0;
}

static int mark_window(struct anew *a)
{
	uint64_t i;
	int ret = 0;

	for (i = 0; !ret && i < a->window.count; i++) {
		if (a->window.refs[i])
			ret = mark_block(a, a->window.first + i);
	}
	return ret;
}

/* Each window of the clusters up to end. */
static int each_window(struct anew *a, uint64_t end,
		       int (*fn)(struct anew *a))
{
	uint64_t max = a->window.count;
	int ret = 0;

	for (a->window.first = 0; !ret && a->window.first < end;
	     a->window.first += max) {
		a->window.count = num_min(max, end - a->window.first);
		ret = qcow2_window_count(a->d, &a->window, false);
		if (!ret)
			ret = fn(a);
	}
	a->window.count = max;
	return ret;
}

/* The new clusters need blocks themselves, until no more are needed. */
static int plan(struct anew *a)
{
	uint64_t per = a->d->g.cluster_size / 8, before, i, last;
	int ret = 0;

	do {
		before = a->nr_blocks + a->nr_table;
		for (last = a->nr_entries; last && !a->table[last - 1]; last--)
			;
		a->nr_table = num_max(a->nr_table, num_div_up(last, per));
		for (i = a->first; !ret && i < new_end(a); i++)
			ret = mark_block(a, i);
	} while (!ret && before != a->nr_blocks + a->nr_table);
	return ret;
}

/* The last n clusters of the window that are free. */
static int find_gap(struct anew *a, uint64_t n)
{
	uint64_t i = a->window.count, free = 0;

	while (i-- && free < n) {
		free = a->window.refs[i] ? 0 : free + 1;
		a->first = a->window.first + i;
	}
	if (free == n)
		return 0;
	return cow_error(a->d->img, -ENOSPC,
		"has no room behind offset %llu for refcounts that are made anew",
		(unsigned long long)qcow2_bytes(a->d, a->window.first));
}

/*
 * As close to the end of a device as can be: behind what is in use there may
 * be what was copied.  Those that are replaced stay as they are until then.
 */
static int plan_on_device(struct anew *a)
{
	struct qcow2 *d = a->d;
	uint64_t max = a->window.count, n;
	uint64_t top = num_min(qcow2_cluster(d, d->file_size),
			       a->nr_entries << d->g.rb_bits);
	int ret;

	a->window.count = num_min(max, top);
	a->window.first = top - a->window.count;
	ret = qcow2_window_count(d, &a->window, true);
	do {
		n = a->nr_blocks + a->nr_table;
		if (!ret)
			ret = find_gap(a, n);
		if (!ret)
			ret = plan(a);
	} while (!ret && n != a->nr_blocks + a->nr_table);
	a->window.count = max;
	return ret;
}

static void give_places(struct anew *a)
{
	uint64_t i, host = a->first;

	for (i = 0; i < a->nr_entries; i++) {
		if (a->table[i])
			a->table[i] = qcow2_bytes(a->d, host++);
	}
}

/* The part of block index that the window covers. */
static int write_part(struct anew *a, uint64_t index, uint8_t *buf)
{
	struct qcow2 *d = a->d;
	uint32_t order = d->g.ref_order;
	uint64_t start = index << d->g.rb_bits, i, ref;
	uint64_t from = num_max(start, a->window.first);
	uint64_t end = num_min(start + (1ull << d->g.rb_bits),
			       a->window.first + a->window.count);
	uint64_t lo = ((from - start) << order) / 8;
	uint64_t hi = (((end - start) << order) + 7) / 8;

	memset(buf, 0, d->g.cluster_size);
	for (i = from; i < end; i++) {
		ref = a->window.refs[i - a->window.first] & QCOW2_REF_COUNT;
		if (i >= a->first && i < new_end(a))
			ref = 1;
		if (ref > qcow2_ref_max(order))
			return cow_error(d->img, -EFBIG,
				"cluster %llu has more references than a refcount can say",
				(unsigned long long)i);
		qcow2_ref_set(buf, order, i - start, ref);
	}
	/* The rest of the file's last block is zero as the cluster is new. */
	return cow_write(d->img, 0, buf + lo, hi - lo, a->table[index] + lo);
}

static int write_window(struct anew *a)
{
	uint64_t i = a->window.first >> a->d->g.rb_bits;
	uint64_t last = (a->window.first + a->window.count - 1) >>
			a->d->g.rb_bits;
	uint8_t *buf = malloc(a->d->g.cluster_size);
	int ret = buf ? 0 : -ENOMEM;

	for (; !ret && i <= last; i++) {
		if (a->table[i])
			ret = write_part(a, i, buf);
	}
	free(buf);
	return ret;
}

static int write_table(struct anew *a)
{
	struct qcow2 *d = a->d;
	uint64_t bytes = qcow2_bytes(d, a->nr_table), i;
	uint64_t at = qcow2_bytes(d, a->first + a->nr_blocks);
	be64 *disk = (be64 *)a->table;
	int ret;

	for (i = 0; i < bytes / 8; i++)
		disk[i] = be64_put(a->table[i]);
	ret = cow_write(d->img, 0, disk, bytes, at);
	if (!ret)
		ret = qcow2_set_reftable(d, at, (uint32_t)a->nr_table);
	return ret;
}

static int make_anew(struct anew *a)
{
	struct qcow2 *d = a->d;
	uint64_t bytes;
	int ret;

	ret = each_window(a, a->end, mark_window);
	if (!ret)
		ret = d->alloc.device ? plan_on_device(a) : plan(a);
	if (ret)
		return ret;
	give_places(a);
	bytes = qcow2_bytes(d, new_end(a));
	if (!d->alloc.device)
		ret = cow_file_extend(d->img, 0, bytes);
	if (!ret)
		ret = cow_punch(d->img, 0, qcow2_bytes(d, a->first),
				bytes - qcow2_bytes(d, a->first));
	d->file_size = num_max(d->file_size, bytes);
	if (!ret)
		ret = each_window(a, num_max(a->end, new_end(a)), write_window);
	return ret ? ret : write_table(a);
}

int qcow2_rebuild(struct qcow2 *d, uint64_t end)
{
	struct anew a = {
		.d = d,
		/* A place that was handed out may hold what nothing refers to yet. */
		.first = num_max(end, num_div_up(d->file_size, d->g.cluster_size)),
		.end = end,
		.nr_table = 1,
		.nr_entries = QCOW2_REFTABLE_BYTES_MAX / 8,
	};
	int ret;

	a.table = calloc(a.nr_entries, sizeof(*a.table));
	ret = a.table ? qcow2_window_alloc(&a.window, QCOW2_WINDOW) : -ENOMEM;
	if (!ret)
		ret = make_anew(&a);
	free(a.window.refs);
	free(a.table);
	return ret;
}
