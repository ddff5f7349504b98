// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * named.c - tables that the image names, each once, with how often: so a walk
 * takes as long as the file is, not as long as a hostile image says.
 */
#include "named.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

/* --- Areas ------------------------------------------------------------------ */

int qcow2_areas_add(struct qcow2_areas *a, uint64_t offset, uint64_t bytes)
{
	uint64_t room = a->room ? 2 * a->room : 64;
	struct qcow2_area *more;

	if (a->count == a->room) {
		more = realloc(a->list, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		a->list = more;
		a->room = room;
	}
	a->list[a->count++] = (struct qcow2_area){ .offset = offset,
						   .bytes = bytes, .times = 1 };
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct qcow2_area *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void qcow2_areas_sort(struct qcow2_areas *a)
{
	uint64_t i, kept = 0, end = 0;

	if (a->count)
		qsort(a->list, a->count, sizeof(*a->list), by_place);
	for (i = 0; i < a->count; i++) {
		struct qcow2_area *next = &a->list[i];

		if (kept && !by_place(&a->list[kept - 1], next)) {
			a->list[kept - 1].times++;
			continue;
		}
		next->overlaps = next->offset < end;
		end = num_max(end, next->offset + next->bytes);
		a->list[kept++] = *next;
	}
	a->count = kept;
}

/* --- L2 tables ---------------------------------------------------------------- */

static uint64_t slot_of(const struct qcow2_named *n, uint64_t host)
{
	uint64_t h = host * 0x9e3779b97f4a7c15ull;
	uint64_t slot = (h >> 32 | h << 32) & (n->room - 1);

	while (n->slots[slot] && n->list[n->slots[slot] - 1].host != host)
		slot = (slot + 1) & (n->room - 1);
	return slot;
}

/* Twice as many slots as there can be tables. */
static int grow(struct qcow2_named *n)
{
	uint64_t room = n->room ? 2 * n->room : 1024, i;
	uint32_t *slots = calloc(room, sizeof(*slots));
	struct qcow2_table *list;

	list = realloc(n->list, room / 2 * sizeof(*list));
	if (list)
		n->list = list;
	if (!slots || !list) {
		free(slots);
		return -ENOMEM;
	}
	free(n->slots);
	n->slots = slots;
	n->room = room;
	for (i = 0; i < n->count; i++)
		n->slots[slot_of(n, n->list[i].host)] = (uint32_t)i + 1;
	return 0;
}

int qcow2_named_add(struct qcow2_named *n, const struct qcow2_table *t,
		    bool *again)
{
	struct qcow2_table *is;
	uint64_t slot;
	int ret;

	if (n->count >= n->room / 2) {
		ret = grow(n);
		if (ret)
			return ret;
	}
	slot = slot_of(n, t->host);
	*again = false;
	if (!n->slots[slot]) {
		n->list[n->count++] = *t;
		n->slots[slot] = (uint32_t)n->count;
		return 0;
	}
	is = &n->list[n->slots[slot] - 1];
	*again = is->directory == t->directory;
	is->directory = t->directory;
	is->times = num_min(is->times + t->times, QCOW2_TIMES_MAX);
	return 0;
}

void qcow2_named_free(struct qcow2_named *n)
{
	free(n->slots);
	free(n->list);
}
