// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * moved.c - clusters of subclusters whose place only our memory tells of.
 *
 * One that was unpacked, or copied from what snapshots share, for the sake of
 * a part of it.  The kernel remembers LINEAR over our death, and reports to
 * nobody what it writes there: it must be told of such a place only when all
 * that leads to it is durable, from the L1 table on.  So a cluster stays here
 * until a commit that began later has ended well.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOVED 4096u

int qcow2_moved_init(struct qcow2 *d)
{
	if (!d->g.extended)
		return 0;
	d->moved.clusters = calloc(MOVED, sizeof(*d->moved.clusters));
	return d->moved.clusters ? 0 : -ENOMEM;
}

void qcow2_moved_free(struct qcow2 *d)
{
	free(d->moved.clusters);
}

void qcow2_moved_add(struct qcow2 *d, uint64_t cluster)
{
	struct qcow2_moved *m = &d->moved;

	if (!d->g.extended)
		return;
	if (m->count == MOVED)
		m->full = true;
	else
		m->clusters[m->count++] = cluster;
}

enum qcow2_moved_when qcow2_moved_trim(const struct qcow2 *d, uint64_t block,
				       uint64_t *first, uint64_t *end)
{
	const struct qcow2_moved *m = &d->moved;
	unsigned int bits = d->g.sub_bits;
	uint64_t own = block >> bits;
	enum qcow2_moved_when when = QCOW2_NOT_MOVED;
	uint32_t i;

	for (i = 0; i < m->count; i++) {
		uint64_t cluster = m->clusters[i];

		if (cluster == own)
			when = i < m->committing ? QCOW2_MOVED_COMMITTING :
						   QCOW2_MOVED;
		else if (cluster < own)
			*first = num_max(*first, (cluster + 1) << bits);
		else
			*end = num_min(*end, cluster << bits);
	}
	if (m->full)
		when = QCOW2_MOVED;
	else if (m->full_committing && when == QCOW2_NOT_MOVED)
		when = QCOW2_MOVED_COMMITTING;
	if (when) {
		*first = num_max(*first, own << bits);
		*end = num_min(*end, (own + 1) << bits);
	}
	return when;
}

/* What is here now is written by the commit that begins. */
void qcow2_moved_commit(struct qcow2 *d)
{
	struct qcow2_moved *m = &d->moved;

	m->committing = m->count;
	m->full_committing |= m->full;
	m->full = false;
}

void qcow2_moved_committed(struct qcow2 *d, int status)
{
	struct qcow2_moved *m = &d->moved;

	if (status) {
		m->committing = 0;
		m->full |= m->full_committing;
		m->full_committing = false;
		return;
	}
	m->full_committing = false;
	if (!m->count)
		return;
	memmove(m->clusters, m->clusters + m->committing,
		(m->count - m->committing) * sizeof(*m->clusters));
	m->count -= m->committing;
	m->committing = 0;
}
