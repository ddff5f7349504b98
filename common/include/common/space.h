/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * space.h - which parts of an image's file are in use, for a format that does
 * not keep that itself.
 *
 * The file is seen in units of one cluster or grain.  A unit is
 *	free	nobody's
 *	given	taken: told to the kernel as a place, no table refers to it
 *	used	taken and ref: a table in memory refers to it, or it holds
 *		tables; so also what must never be given
 *	freed	taken and freed: no table in memory refers to it, but one on
 *		the disk may: free once a commit that began later is through
 */
#ifndef COMMON_SPACE_H
#define COMMON_SPACE_H

#include <stdbool.h>
#include <stdint.h>

struct space {
	uint32_t unit;		/* bytes */
	uint64_t max;		/* units that there may ever be */
	uint64_t end;		/* units of the file */
	uint64_t cursor;	/* where to look next */
	uint64_t nr_taken;	/* of those below end */
	uint8_t *taken, *ref, *freed, *freeing;
	uint64_t nr_freed, nr_freeing;
};

int space_init(struct space *s, uint32_t unit, uint64_t end, uint64_t max);
void space_free(struct space *s);
/* ref was filled from outside: all of it is taken. */
void space_ready(struct space *s);
/*
 * Find min to want free units in a row below the end: their number, from
 * *unit on; 0 when the file must grow.  Changes nothing.
 */
uint64_t space_find(const struct space *s, uint64_t min, uint64_t want,
		    uint64_t *unit);
/* The same from a unit on, whatever was found last. */
uint64_t space_find_from(const struct space *s, uint64_t from, uint64_t min,
			 uint64_t want, uint64_t *unit);
/* The last free units in a row, which space_find() gets to last: false, none. */
bool space_find_last(const struct space *s, uint64_t count, uint64_t *unit);
void space_give(struct space *s, uint64_t unit, uint64_t count);
/* Units given that will not be used: free at once.  Others stay. */
void space_return(struct space *s, uint64_t unit, uint64_t count);
/* May a table come to refer to it? */
bool space_may_use(const struct space *s, uint64_t unit);
void space_use(struct space *s, uint64_t unit);
/* No table in memory refers to it any more. */
void space_drop(struct space *s, uint64_t unit);
/* Around a commit. */
void space_commit(struct space *s);
void space_committed(struct space *s, bool ok);

#endif /* COMMON_SPACE_H */
