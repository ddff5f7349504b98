// SPDX-License-Identifier: GPL-2.0-or-later
/* snapshot.c - the table of internal snapshots, entry by entry. */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>

struct snapshot_disk {
	be64 l1_table_offset;
	be32 l1_size;
	be16 id_str_size;
	be16 name_size;
	be32 date_sec;
	be32 date_nsec;
	be64 vm_clock_nsec;
	be32 vm_state_size;
	be32 extra_data_size;
};

_Static_assert(sizeof(struct snapshot_disk) == 40, "snapshot table entry");

static int damaged(struct qcow2 *d, uint32_t nr, uint64_t at,
		   const char *what)
{
	return cow_error(d->img, -EIO,
		"snapshot %u (at offset %llu) %s; the image is damaged",
		nr + 1, (unsigned long long)at, what);
}

static int decode(struct qcow2 *d, uint32_t nr, uint64_t at,
		  const struct snapshot_disk *disk, struct qcow2_snapshot *s)
{
	uint64_t extra = be32_get(disk->extra_data_size), l1_bytes;

	s->offset = at;
	s->l1_offset = be64_get(disk->l1_table_offset);
	s->l1_size = be32_get(disk->l1_size);
	l1_bytes = s->l1_size * 8ull;
	s->bytes = sizeof(*disk) + extra + be16_get(disk->id_str_size) +
		   be16_get(disk->name_size);
	if (extra > 1024)
		return damaged(d, nr, at, "has too much extra data");
	if (l1_bytes > QCOW2_L1_BYTES_MAX)
		return damaged(d, nr, at, "has an L1 table that is too large");
	if (!num_run_in(at, s->bytes, d->file_size))
		return damaged(d, nr, at, "ends past the end of the file");
	if (!s->l1_size)
		return 0;
	if (!num_is_aligned(s->l1_offset, d->g.cluster_size))
		return damaged(d, nr, at,
			"has an L1 table that is not aligned to a cluster");
	if (!num_run_in(s->l1_offset, l1_bytes, d->file_size))
		return damaged(d, nr, at,
			"has an L1 table past the end of the file");
	return 0;
}

int qcow2_each_snapshot(struct qcow2 *d,
			int (*fn)(void *ctx, const struct qcow2_snapshot *s),
			void *ctx)
{
	uint64_t at = d->h.snapshots_offset;
	struct snapshot_disk disk;
	struct qcow2_snapshot s;
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < d->h.nb_snapshots; i++) {
		if (!num_run_in(at, sizeof(disk), d->file_size))
			return damaged(d, i, at,
				       "is past the end of the file");
		ret = cow_read(d->img, 0, &disk, sizeof(disk), at);
		if (!ret)
			ret = decode(d, i, at, &disk, &s);
		if (!ret)
			ret = fn(ctx, &s);
		if (!ret)
			at += num_round_up(s.bytes, 8);
	}
	return ret;
}

static int note_end(void *ctx, const struct qcow2_snapshot *s)
{
	uint64_t *end = ctx;

	*end = s->offset + s->bytes;
	return 0;
}

int qcow2_snapshots_end(struct qcow2 *d, uint64_t *end)
{
	*end = d->h.snapshots_offset;
	return qcow2_each_snapshot(d, note_end, end);
}
