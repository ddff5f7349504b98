/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * space.h - which parts of a sparse extent's file are in use.
 *
 * The file is seen in units of one grain.  A unit is
 *	free	nobody's
 *	given	taken: told to the kernel as a place, no table refers to it
 *	used	taken and ref: a table in memory refers to it, or it holds
 *		tables; so also what must never be given
 *	freed	taken and freed: no table in memory refers to it, but one on
 *		the disk may: free once a commit that began later is through
 */
#ifndef VMDK_SPACE_H
#define VMDK_SPACE_H

#include <stdbool.h>
#include <stdint.h>

struct vmdk_space {
	uint32_t unit;		/* bytes */
	uint64_t max;		/* units that there may ever be */
	uint64_t end;		/* units of the file */
	uint64_t cursor;	/* where to look next */
	uint64_t nr_taken;	/* of those below end */
	uint8_t *taken, *ref, *freed, *freeing;
	uint64_t nr_freed, nr_freeing;
};

int vmdk_space_init(struct vmdk_space *s, uint32_t unit, uint64_t end,
		    uint64_t max);
void vmdk_space_free(struct vmdk_space *s);
/* ref was filled from outside: all of it is taken. */
void vmdk_space_ready(struct vmdk_space *s);
/*
 * Find up to want free units in a row below the end: their number, from
 * *unit on; 0 when the file must grow.  Changes nothing but the cursor.
 */
uint64_t vmdk_space_find(struct vmdk_space *s, uint64_t want, uint64_t *unit);
void vmdk_space_give(struct vmdk_space *s, uint64_t unit, uint64_t count);
/* Units given that will not be used: free at once.  Others stay. */
void vmdk_space_return(struct vmdk_space *s, uint64_t unit, uint64_t count);
/* May a table come to refer to it? */
bool vmdk_space_may_use(const struct vmdk_space *s, uint64_t unit);
void vmdk_space_use(struct vmdk_space *s, uint64_t unit);
/* No table in memory refers to it any more. */
void vmdk_space_drop(struct vmdk_space *s, uint64_t unit);
/* Around a commit. */
void vmdk_space_commit(struct vmdk_space *s);
void vmdk_space_committed(struct vmdk_space *s, bool ok);

#endif /* VMDK_SPACE_H */
