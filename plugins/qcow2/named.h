/* SPDX-License-Identifier: GPL-2.0-or-later */
/* named.h - tables that an image names, each once. */
#ifndef QCOW2_NAMED_H
#define QCOW2_NAMED_H

#include <stdbool.h>
#include <stdint.h>

/* Most references that are told apart. */
#define QCOW2_TIMES_MAX ((1u << 29) - 1)

/* L1 tables of snapshots, or tables of bitmaps. */
struct qcow2_area {
	uint64_t offset, bytes;
	uint32_t times;		/* named as exactly that */
	bool overlaps;		/* one before it in the list */
};

struct qcow2_areas {
	struct qcow2_area *list;
	uint64_t count, room;
};

int qcow2_areas_add(struct qcow2_areas *a, uint64_t offset, uint64_t bytes);
/* By place; those that are the same become one. */
void qcow2_areas_sort(struct qcow2_areas *a);

struct qcow2_table {
	uint64_t host;		/* cluster */
	uint32_t index;		/* of the L1 entry that named it first */
	uint32_t directory;	/* number of the L1 table that named it last */
	uint32_t times : 31;
	uint32_t active : 1;	/* named by the active L1 table */
};

/* L2 tables, in the order in which they were named first. */
struct qcow2_named {
	struct qcow2_table *list;
	uint64_t count;
	uint32_t *slots;	/* 1 + index of the list, or 0 */
	uint64_t room;		/* slots, a power of two */
};

/* again: the same directory has named it before. */
int qcow2_named_add(struct qcow2_named *n, const struct qcow2_table *t,
		    bool *again);
void qcow2_named_free(struct qcow2_named *n);

#endif /* QCOW2_NAMED_H */
