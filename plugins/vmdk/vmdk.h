/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmdk.h - an open VMDK image: one link of a disk.
 *
 * A link is extents in a row, each in a file: flat (the disk as it is), or
 * sparse: grains, found by a grain directory (GD) whose entries (GDE) point
 * to grain tables (GT) whose entries (GTE) point to grains.  A sparse extent
 * may hold directory and tables twice; reads use the first copy, changes go
 * to both.
 *
 * Metadata is read and written in windows: aligned pieces of the file, no
 * larger than a grain, so that in an extent that is written no window holds
 * tables and data.
 *
 * Write order
 *  1. Before the first change after an open: the content ID and the flag
 *     unclean_shutdown, durable before anything else goes on (mark.c).
 *  2. Data (libcow).
 *  3. Phase 1: windows of grain tables.
 *  4. Phase 2: windows that hold a part of the redundant grain directory,
 *     phase 3: of both, phase 4: of the other one.
 * So a directory never points to a table that is not there, nor a table to a
 * grain whose data is not.  A crash may leave the two copies different; then
 * the flag is set, and the next open for writing makes them equal (scan.c).
 */
#ifndef VMDK_H
#define VMDK_H

#include <libcow/cow-plugin.h>

#include <common/runs.h>
#include <common/space.h>

#include <zlib.h>

#include "descriptor.h"
#include "format.h"

#define VMDK_WINDOW_MAX		(16u << 10)
#define VMDK_BLOCK_SIZE		(64u << 10)	/* of flat images, at most */
#define VMDK_RUNS_MAX		16384u
/*
 * Of all files of an image that is written; four bits each.  A disk of 1 TiB
 * with grains of 4 KiB has half as many.
 */
#define VMDK_UNITS_MAX		(1ull << 30)

/* The way of a mark to the disk: see mark.c. */
enum vmdk_mark {
	VMDK_UNMARKED,
	VMDK_MARKING,		/* changed in memory */
	VMDK_MARK_COMMITTING,
	VMDK_MARKED,
};

struct vmdk_extent {
	enum vmdk_extent_type type;
	uint32_t file;
	uint64_t first;		/* block of the disk */
	uint64_t nr_blocks;
	uint64_t size;		/* bytes of the disk */
	uint64_t offset;	/* FLAT: bytes in the file */
	uint64_t end;		/* bytes of the file; grows when written */
	/* SPARSE */
	struct vmdk_header h;
	enum vmdk_mark mark;
	struct space space;	/* when open for writing */
	bool device;
	bool gave;			/* a place was given since it was opened */
	uint64_t opened_units;		/* of the file when it was opened */
	uint64_t gt_next, gt_end;	/* room for new grain tables */
	uint8_t *reserved;		/* a bit a table: has its space */
};

struct vmdk {
	struct cow_image *img;
	bool writable;
	bool fixed;		/* places never change: zeroes go into them */
	uint32_t block_size;
	uint32_t window;	/* bytes */
	uint64_t size;		/* bytes of the disk */
	struct vmdk_descriptor d;
	char *text;		/* what d points into */
	uint64_t text_offset;	/* of the descriptor, in file 0 */
	uint64_t text_end;	/* where that part of file 0 ends */
	char cid_text[VMDK_CID_DIGITS + 1];	/* as it stands there */
	struct vmdk_extent *extents;
	uint32_t nr_extents;
	enum vmdk_mark mark;	/* of the content ID */
	struct runs runs;
	uint64_t next_first, next_count;	/* of the last run, to foresee */
	/* For ->read(): one thread. */
	z_stream zlib;
	bool has_zlib;
	uint8_t *packed, *grain;
};

/* open.c: the files of an image, and what they are. */
int vmdk_open_image(struct vmdk *v, uint32_t flags);
void vmdk_release(struct vmdk *v);
/* The descriptor of the image in file 0 of img; *text is to be freed. */
int vmdk_load_descriptor(struct cow_image *img, struct vmdk_header *h,
			 bool *sparse, char **text, uint64_t *offset,
			 size_t *len);

/* vmdk.c: the content ID that the descriptor of an image tells. */
int vmdk_content_id(struct cow_image *img, uint32_t *cid);

/* extent.c: what stands where in a sparse extent. */
struct vmdk_extent *vmdk_extent_of(const struct vmdk *v, uint64_t block);
/* Does the extent have a second copy of its tables? */
bool vmdk_has_rgd(const struct vmdk_extent *e);
/* Header, descriptor, directories: does the range touch one of them? */
bool vmdk_in_fixed(const struct vmdk_extent *e, uint64_t offset,
		   uint64_t len);
bool vmdk_table_ok(const struct vmdk_extent *e, uint32_t gde);
bool vmdk_grain_ok(const struct vmdk_extent *e, uint32_t gte);
/* Is it a place, and neither nothing nor zeroes? */
bool vmdk_is_grain(const struct vmdk_extent *e, uint32_t gte);
/* Bytes of grain nr that the disk has. */
uint64_t vmdk_grain_len(const struct vmdk_extent *e, uint64_t nr);

/* Entries of a table in one window. */
struct vmdk_entries {
	struct cow_table *table;
	le32 *at;
	uint32_t count;		/* up to the end of the window */
};

/* Restarted.  Entry index of the table at offset, and those behind it. */
int vmdk_entries(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
		 uint64_t index, bool write, struct vmdk_entries *entries);
void vmdk_entries_dirty(struct vmdk_entries *entries, uint32_t count);
/* Restarted.  len bytes at an offset of a file, for which one window is had. */
int vmdk_window(struct vmdk *v, struct vmdk_extent *e, uint32_t file,
		uint64_t offset, bool write, struct cow_table **table,
		uint32_t *skip, uint32_t *room);
/* Restarted, and reported if damaged: entry nr of the directory. */
int vmdk_gde(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
	     uint32_t *gde);
int vmdk_bad_table(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		   uint32_t gde);
int vmdk_bad_grain(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		   uint32_t gte);

/* mark.c: before the first change. */
int vmdk_mark(struct vmdk *v, struct vmdk_extent *e);
bool vmdk_is_marked(const struct vmdk *v, const struct vmdk_extent *e);
int vmdk_commit(void *handle);
void vmdk_committed(void *handle, int status);
int vmdk_finish(void *handle);
int vmdk_set_unclean(struct vmdk *v, struct vmdk_extent *e, bool unclean);

/* scan.c: all tables of an extent, blocking. */
struct vmdk_scan {
	struct vmdk *v;
	struct vmdk_extent *e;
	struct cow_check *check;	/* NULL: an error stops, and is told */
	bool repair;
	uint8_t *ref;		/* a bit for each grain of the file */
	uint64_t units;		/* of ref */
	uint64_t limit;		/* the file's end when it began: see scan.c */
	uint64_t corrupt;	/* findings not repaired */
	uint64_t grains, zeroes;	/* counted */
	bool aligned;		/* every grain, to its size */
	struct cow_hole hole;	/* read last */
	uint32_t *tables;	/* places of both copies, in order */
	uint64_t nr_tables;
	uint8_t *seen;		/* a bit for each place: the round was there */
};

int vmdk_scan(struct vmdk_scan *s);

/*
 * map.c.  Take up to want units in a row, the file grown if need be.  The last
 * thing of a callback that can fail.
 */
int vmdk_allocate(struct vmdk *v, struct vmdk_extent *e, uint64_t want,
		  uint64_t *unit, uint64_t *got);
/* The same for a table, where no process before us gave a place. */
int vmdk_allocate_apart(struct vmdk *v, struct vmdk_extent *e, uint64_t *unit);

/*
 * change.c.  Restarted.  Before a place is given to the block: its table is
 * there, and both copies of it have their space in the file system, so that a
 * commit does not fail for want of it.
 */
int vmdk_have_table(struct vmdk *v, struct vmdk_extent *e, uint64_t block);
/*
 * Then, on a block device: the table is committed.  Who comes after a kill
 * finds it, and needs no place for one while it does not know yet what the
 * kernel has copied where.
 */
int vmdk_settle_table(struct vmdk *v, struct vmdk_extent *e, uint64_t block);

/* The callbacks of these names. */
int vmdk_map(void *handle, const struct cow_query *query,
	     struct cow_mapping *mapping);
int vmdk_copied(void *handle, const struct cow_extent *extent);
int vmdk_discard(void *handle, uint64_t first, uint64_t count);
int vmdk_read(void *handle, const struct cow_mapping *mapping, void *buf,
	      size_t len);
int vmdk_create(struct cow_image *img, const struct cow_create *create);
int vmdk_check(void *handle, struct cow_check *check, bool repair);
int vmdk_describe(void *handle, struct cow_describe *to);

#endif /* VMDK_H */
