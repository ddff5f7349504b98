/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow.h - an open qcow image, version 1.
 *
 *	format.c	the header
 *	open.c		open; what is fixed in the file
 *	tables.c	L1 and L2 tables
 *	map.c		where a cluster lives, and places for new ones
 *	change.c	tables come to refer to a place, or to none any more
 *	scan.c		all tables at once, for open and check
 *	read.c		compressed clusters
 *	create.c, check.c
 *
 * The L1 table has an entry for each L2 table, which has one for each cluster
 * of the disk.  Nothing in the file tells what is free: an open for writing
 * reads all tables to know (scan.c), and refuses an image that is damaged.
 * A block of the disk is a cluster.
 *
 * Tables are got in pieces.  The L1 table may begin anywhere: its pieces are
 * aligned parts of a cluster, so that none holds a cluster of data or a part of
 * an L2 table.  An L2 table begins at a cluster and owns whole ones.
 *
 * Write order (phases of the commit, after the data):
 *  1. L2 tables, new ones as a whole.
 *  2. The L1 table.
 * So no L1 entry points to a table that is not there, and no L2 entry to a
 * cluster whose data is not.  A crash leaves clusters at most that nothing
 * refers to, which the next open for writing finds and uses.
 */
#ifndef QCOW_H
#define QCOW_H

#include <libcow/cow-plugin.h>

#include <common/runs.h>
#include <common/space.h>

#include "format.h"

#define QCOW_PIECE_MAX		(16u << 10)	/* of a table */
/*
 * Clusters of a file that is written: four bits are kept of each.  256 GiB of
 * 512 bytes, 32 TiB of 64 KiB.
 */
#define QCOW_UNITS_MAX		(1ull << 29)
#define QCOW_PHASE_L2		1u
#define QCOW_PHASE_L1		2u

struct qcow {
	struct cow_image *img;
	bool writable;
	bool device;
	struct qcow_header h;
	uint32_t cluster_size;
	uint64_t nr_clusters;		/* of the disk */
	uint32_t l2_bytes;
	uint32_t l2_piece, l1_piece;	/* bytes */
	uint64_t opened_end;		/* bytes of the file when it was opened */
	uint64_t end;			/* grows when written */
	char *backing_path;		/* NULL: there is none */
	char backing_format[QCOW_FORMAT_MAX + 1];	/* "": not told */
	uint32_t fixed_tail;		/* bytes of the record behind the name */
	/* When open for writing. */
	struct space space;
	struct runs runs;
	uint64_t next_first, next_count;	/* of the last run, to foresee */
	uint64_t spare;			/* unit of a table to come, or 0 */
	uint64_t opened_units;		/* of the file when it was opened */
	bool gave;			/* a place was given since then */
	/* For ->read(): one thread. */
	uint8_t *packed, *unpacked;
};

static inline uint64_t qcow_bytes(const struct qcow *d, uint64_t clusters)
{
	return clusters << d->h.cluster_bits;
}

/* Clusters that an L2 table takes in the file. */
static inline uint32_t qcow_table_units(const struct qcow *d)
{
	return (d->l2_bytes + d->cluster_size - 1) >> d->h.cluster_bits;
}

/* open.c: the callbacks of these names. */
int qcow_open(struct cow_image *img, uint32_t flags, void **handle);
void qcow_close(void *handle);
/* Header, the backing file's name, L1 table: does the range touch one? */
bool qcow_in_fixed(const struct qcow *d, uint64_t offset, uint64_t len);
/*
 * What is wrong with the place of an L2 table (of a cluster, of a compressed
 * one) by itself: the end of a sentence, or NULL.
 */
const char *qcow_l2_fault(const struct qcow *d, uint64_t offset);
const char *qcow_cluster_fault(const struct qcow *d, uint64_t offset);
const char *qcow_packed_fault(const struct qcow *d, uint64_t entry);

/* tables.c.  Entries in one piece of a table. */
struct qcow_entries {
	struct cow_table *table;
	be64 *at;		/* the one asked for */
	uint64_t count;		/* up to the end of the piece, or the table */
};

/* Restarted.  The L1 entry of a cluster of the disk, and those behind it. */
int qcow_l1(struct qcow *d, uint64_t cluster, bool write,
	    struct qcow_entries *l1);
/*
 * Restarted.  Its L2 entry, and those behind it, in the table at offset, which
 * has to be in order (-EIO, reported).
 */
int qcow_l2(struct qcow *d, uint64_t cluster, uint64_t offset, bool write,
	    struct qcow_entries *l2);
/* The entry at *at becomes that. */
void qcow_put(struct qcow_entries *e, uint64_t entry);
/* The offset of the L2 table's piece for a cluster. */
uint64_t qcow_l2_piece(const struct qcow *d, uint64_t cluster,
		       uint64_t offset);
/*
 * Restarted.  The L2 table of a cluster gets a place, with space for it and
 * for the L1 entry, and is empty.
 */
int qcow_l2_add(struct qcow *d, uint64_t cluster, uint64_t *offset);
/*
 * Restarted.  On a block device a table is committed before a place is given
 * to a cluster of it: who comes after a kill finds it, and needs no place for
 * one while it does not know yet what the kernel has copied where.
 */
int qcow_l2_settle(struct qcow *d, uint64_t cluster);
int qcow_bad_cluster(struct qcow *d, uint64_t cluster, uint64_t entry,
		     const char *why);

/*
 * map.c.  Take min to want units in a row, the file grown if need be.  The
 * last thing of a callback that can fail, or what it takes is kept.
 */
int qcow_allocate(struct qcow *d, uint64_t min, uint64_t want, uint64_t *unit,
		  uint64_t *got);
/* The same for a table, where no process before us gave a place. */
int qcow_allocate_apart(struct qcow *d, uint64_t units, uint64_t *unit);
/* Have space for a piece of a table, or say -ENOSPC. */
int qcow_reserve(struct qcow *d, uint64_t offset, uint64_t len);

/* scan.c: all tables, blocking. */
struct qcow_scan {
	struct qcow *d;
	struct cow_check *check;	/* NULL: an error stops, and is told */
	uint8_t *ref;		/* a bit for each cluster of the file */
	uint64_t units;		/* of ref */
	uint8_t *meta;		/* those of ref that hold tables */
	uint8_t *shared;	/* that hold compressed clusters */
	uint8_t *passed;	/* L2 tables that are not looked into */
	uint64_t clusters, packed;	/* counted */
	uint64_t corrupt;
	struct cow_hole hole;	/* read last */
	bool look_packed;	/* which entries this round is about */
	be64 *table;
};

int qcow_scan(struct qcow_scan *s);
/* Clusters of the file, all of it; -EFBIG (reported) when they are too many. */
int qcow_units(struct qcow *d, uint64_t *units);

/* The callbacks of these names. */
int qcow_map(void *handle, const struct cow_query *query,
	     struct cow_mapping *mapping);
int qcow_copied(void *handle, const struct cow_extent *extent);
int qcow_discard(void *handle, uint64_t first, uint64_t count);
int qcow_read(void *handle, const struct cow_mapping *mapping, void *buf,
	      size_t len);
int qcow_create(struct cow_image *img, const struct cow_create *create);
int qcow_check(void *handle, struct cow_check *check, bool repair);

#endif /* QCOW_H */
