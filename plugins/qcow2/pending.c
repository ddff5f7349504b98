// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pending.c - places that were handed out and that nothing refers to yet.
 *
 * So that ->map() gives the same place for the same block again.  Memory is
 * bounded: the oldest run is forgotten.  Its places stay unused until the
 * image is opened again, for the kernel may still use them; whoever asks for
 * the block again gets another place, and ->copied() tells which one it was.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

#define POOL 16384u	/* a power of two: of the hash, too */
#define GROUP_MIN 16u
#define GROUP_BYTES (1u << 20)

int qcow2_pending_init(struct qcow2 *d)
{
	struct qcow2_reserved *p = &d->reserved;
	uint32_t i;

	p->group = (uint32_t)num_min(num_max(GROUP_BYTES / d->g.cluster_size,
					     GROUP_MIN), QCOW2_GROUP_MAX);
	p->pool = calloc(POOL, sizeof(*p->pool));
	p->hash = malloc(POOL * sizeof(*p->hash));
	if (!p->pool || !p->hash)
		return -ENOMEM;
	for (i = 0; i < POOL; i++)
		p->hash[i] = QCOW2_NO_PENDING;
	return 0;
}

void qcow2_pending_free(struct qcow2 *d)
{
	free(d->reserved.pool);
	free(d->reserved.hash);
}

static uint32_t *bucket(struct qcow2_reserved *p, uint64_t guest)
{
	uint64_t h = guest / p->group * 0x9e3779b97f4a7c15ull;

	return &p->hash[h >> 32 & (POOL - 1)];
}

struct qcow2_pending *qcow2_pending_find(struct qcow2 *d, uint64_t cluster)
{
	struct qcow2_reserved *p = &d->reserved;
	uint32_t i;

	for (i = *bucket(p, cluster); i != QCOW2_NO_PENDING;
	     i = p->pool[i].next) {
		struct qcow2_pending *e = &p->pool[i];

		if (cluster >= e->guest &&
		    cluster - e->guest < QCOW2_GROUP_MAX &&
		    e->mask >> (cluster - e->guest) & 1)
			return e;
	}
	return NULL;
}

static void forget(struct qcow2_reserved *p, uint32_t slot)
{
	struct qcow2_pending *e = &p->pool[slot];
	uint32_t *at = bucket(p, e->guest);

	while (*at != slot)
		at = &p->pool[*at].next;
	*at = e->next;
	e->mask = 0;
	e->filled = 0;
}

/* An entry with no bit left is in no bucket. */
void qcow2_pending_add(struct qcow2 *d, uint64_t guest, uint64_t host,
		       uint64_t mask)
{
	struct qcow2_reserved *p = &d->reserved;
	uint32_t slot = p->next, *at = bucket(p, guest), tries;
	struct qcow2_pending *e;

	d->alloc.gave = true;
	/* What was filled is worth more: it is about to be written. */
	for (tries = 0; tries < POOL && p->pool[slot].filled; tries++)
		slot = (slot + 1) % POOL;
	e = &p->pool[slot];
	p->next = (slot + 1) % POOL;
	if (e->mask)
		forget(p, slot);
	*e = (struct qcow2_pending){ .guest = guest, .host = host,
				    .mask = mask, .next = *at };
	*at = slot;
}

void qcow2_pending_drop(struct qcow2 *d, uint64_t cluster)
{
	struct qcow2_pending *e = qcow2_pending_find(d, cluster);
	uint64_t left;

	if (!e)
		return;
	left = e->mask & ~(1ull << (cluster - e->guest));
	if (!left)
		forget(&d->reserved, (uint32_t)(e - d->reserved.pool));
	e->mask = left;
	e->filled &= left;
}
