// SPDX-License-Identifier: GPL-2.0-or-later
#include "expect.h"
#include "die.h"
#include "stamp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Versions, by sector.  The newest that must be there, the newest that may
 * be there, and the newest that may be there and reads as zeroes.
 */
struct expect {
	const struct record *r;
	uint64_t sectors;
	const struct record_entry **issues;	/* by version */
	uint64_t nr_issues;
	uint64_t *done;		/* newest done before the floor's cursor */
	uint64_t *at_flush[RECORD_THREADS];	/* done[] when it began */
	uint64_t *floor, *ceiling, *zero;
	uint64_t floor_at, ceiling_at;		/* cursors in the record */
};

static void index_issues(struct expect *e)
{
	uint64_t i;

	for (i = 0; i < e->r->nr; i++)
		if (e->r->entries[i].type == RECORD_ISSUE)
			e->nr_issues++;
	e->issues = xcalloc(e->nr_issues + 1, sizeof(struct record_entry *));
	for (i = 0; i < e->r->nr; i++) {
		const struct record_entry *x = &e->r->entries[i];

		if (x->type != RECORD_ISSUE)
			continue;
		if (x->version > e->nr_issues ||
		    x->sector + x->count > e->sectors)
			die("the record is damaged at entry %llu",
			    (unsigned long long)i);
		e->issues[x->version] = x;
	}
}

struct expect *expect_new(const struct record *r, uint64_t sectors)
{
	struct expect *e = xcalloc(1, sizeof(*e));
	unsigned int i;

	e->r = r;
	e->sectors = sectors;
	e->done = xcalloc(sectors, sizeof(uint64_t));
	e->floor = xcalloc(sectors, sizeof(uint64_t));
	e->ceiling = xcalloc(sectors, sizeof(uint64_t));
	e->zero = xcalloc(sectors, sizeof(uint64_t));
	for (i = 0; i < RECORD_THREADS; i++)
		e->at_flush[i] = xcalloc(sectors, sizeof(uint64_t));
	index_issues(e);
	return e;
}

/* --- The floor ------------------------------------------------------------ */

static void raise_run(struct expect *e, uint64_t *to, uint64_t version)
{
	const struct record_entry *x;
	uint64_t i;

	if (version > e->nr_issues || !e->issues[version])
		die("the record is damaged: no write %llu",
		    (unsigned long long)version);
	x = e->issues[version];
	if (x->kind == RECORD_DISCARD)
		return;
	for (i = x->sector; i < x->sector + x->count; i++)
		if (to[i] < version)
			to[i] = version;
}

static void raise_all(struct expect *e, const uint64_t *by)
{
	uint64_t i;

	for (i = 0; i < e->sectors; i++)
		if (e->floor[i] < by[i])
			e->floor[i] = by[i];
}

static void floor_step(struct expect *e, const struct record_entry *x)
{
	switch (x->type) {
	case RECORD_DONE:
		raise_run(e, e->done, x->version);
		break;
	case RECORD_FLUSH:
		memcpy(e->at_flush[x->thread], e->done,
		       e->sectors * sizeof(uint64_t));
		break;
	case RECORD_MARK:
		if (x->version)
			raise_run(e, e->floor, x->version);
		else if (x->thread < RECORD_THREADS)
			raise_all(e, e->at_flush[x->thread]);
		break;
	}
}

static void move_floor(struct expect *e, uint64_t mark)
{
	for (; e->floor_at < e->r->nr; e->floor_at++) {
		const struct record_entry *x = &e->r->entries[e->floor_at];

		if (x->type == RECORD_MARK && x->sector > mark)
			break;
		floor_step(e, x);
	}
}

/* --- The ceiling ---------------------------------------------------------- */

static void ceiling_step(struct expect *e, const struct record_entry *x)
{
	uint64_t i;

	if (x->type != RECORD_ISSUE)
		return;
	for (i = x->sector; i < x->sector + x->count; i++) {
		e->ceiling[i] = x->version;
		if (x->kind != RECORD_WRITE)
			e->zero[i] = x->version;
	}
}

static void move_ceiling(struct expect *e, uint64_t mark)
{
	for (; e->ceiling_at < e->r->nr; e->ceiling_at++) {
		const struct record_entry *x = &e->r->entries[e->ceiling_at];

		if (x->type == RECORD_MARK && x->sector >= mark)
			break;
		ceiling_step(e, x);
	}
}

void expect_cut(struct expect *e, uint64_t floor, uint64_t ceiling)
{
	move_floor(e, floor);
	move_ceiling(e, ceiling);
}

void expect_live(struct expect *e)
{
	expect_cut(e, UINT64_MAX, UINT64_MAX);
	raise_all(e, e->done);
}

/* --- Compare -------------------------------------------------------------- */

static char why[200];

static const char *wrong(const struct expect *e, uint64_t sector,
			 const char *what, uint64_t n)
{
	snprintf(why, sizeof(why),
		 "sector %llu %s %llu; allowed are %llu to %llu",
		 (unsigned long long)sector, what, (unsigned long long)n,
		 (unsigned long long)e->floor[sector],
		 (unsigned long long)e->ceiling[sector]);
	return why;
}

const char *expect_wrong(struct expect *e, const void *buf, uint64_t sector)
{
	uint64_t is_sector = 0, version = 0;

	switch (stamp_read(buf, &is_sector, &version)) {
	case STAMP_ZERO:
		if (e->zero[sector] && e->zero[sector] >= e->floor[sector])
			return NULL;
		return wrong(e, sector, "is zero, last zeroed by write",
			     e->zero[sector]);
	case STAMP_BAD:
		return wrong(e, sector, "holds no stamp; its first byte is",
			     *(const uint8_t *)buf);
	case STAMP_GOOD:
		break;
	}
	if (is_sector != sector)
		return wrong(e, sector, "holds data of sector", is_sector);
	if (version < e->floor[sector])
		return wrong(e, sector, "is lost: it holds write", version);
	if (version > e->ceiling[sector])
		return wrong(e, sector, "holds what was not written yet, write",
			     version);
	return NULL;
}
