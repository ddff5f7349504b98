// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * check.c - look for damage, and for space that is lost.
 *
 * Clusters of the file that hold data and that nothing refers to are lost to
 * other programs, which only ever write behind the end.  A repair gives their
 * space back to the file system; damage is told, and never repaired.
 */
#include "qcow.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

/* What file systems give back: no less than a page. */
#define PAGE 4096u

struct lost {
	uint64_t bytes;
	uint64_t first;		/* offset */
};

/* Whole pages of [from, to) that hold data. */
static int look_for_data(struct qcow *d, uint64_t from, uint64_t to,
			 bool repair, struct lost *lost)
{
	uint64_t at = num_round_up(from, PAGE), data;
	int ret;

	to = num_round_down(to, PAGE);
	while (at < to) {
		ret = cow_file_next_data(d->img, 0, at, &data);
		if (ret)
			return ret;
		at = num_round_down(data, PAGE);
		if (at >= to)
			break;
		if (!lost->bytes)
			lost->first = at;
		lost->bytes += PAGE;
		if (repair)
			ret = cow_punch(d->img, 0, at, PAGE);
		if (ret)
			return ret;
		at += PAGE;
	}
	return 0;
}

static int look_for_lost(struct qcow *d, const struct qcow_scan *s,
			 bool repair, struct lost *lost)
{
	uint64_t unit = 0, end;
	int ret = 0;

	while (!ret && unit < s->units) {
		unit = bits_next_clear(s->ref, unit, s->units);
		end = bits_next_set(s->ref, unit, s->units);
		ret = look_for_data(d, qcow_bytes(d, unit),
				    num_min(qcow_bytes(d, end), d->end),
				    repair, lost);
		unit = end;
	}
	return ret;
}

/* On a device what nothing refers to is nobody's, and not lost. */
static int check_lost(struct qcow *d, const struct qcow_scan *s,
		      struct cow_check *check, bool repair)
{
	struct lost lost = { 0 };
	int ret;

	if (d->device)
		return 0;
	ret = look_for_lost(d, s, repair, &lost);
	if (!ret && repair)
		ret = cow_sync(d->img, 0);
	if (!ret && lost.bytes)
		cow_check_found(check, COW_FOUND_LEAK, repair,
			"%llu bytes, from offset %llu on, hold data that nothing refers to",
			(unsigned long long)lost.bytes,
			(unsigned long long)lost.first);
	return ret;
}

/*
 * An image that is open for its disk to be written has been looked at by the
 * open, and its file grows.
 */
int qcow_check(void *handle, struct cow_check *check, bool repair)
{
	struct qcow *d = handle;
	struct qcow_scan scan = { .d = d, .check = check };
	int ret;

	ret = qcow_units(d, &scan.units);
	if (ret)
		return ret;
	scan.ref = calloc(1, num_div_up(scan.units, 8));
	if (!scan.ref)
		return -ENOMEM;
	ret = qcow_scan(&scan);
	/* What a damaged table does not refer to may be what it should. */
	if (!ret && !scan.corrupt)
		ret = check_lost(d, &scan, check, repair && !d->writable);
	free(scan.ref);
	return ret;
}
