/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhd.h - an open VHD.
 *
 *	vhd.c		the plugin: open, and what an image tells of itself
 *	format.c	footer and dynamic header
 *	name.c		the parent's names: UTF-16, Windows paths
 *	parent.c	which file the parent is, and is it still the same
 *	bat.c		the block allocation table: where a block lives
 *	bitmap.c	the sector bitmaps, one a block
 *	place.c		what is free and who gets it; the footer at the end
 *	blocks.c	all blocks at once, for open and check
 *	create.c, check.c
 *
 * Units: a block is the VHD's (2 MiB mostly).  What libcow calls a block is
 * a unit here: a sector in a differencing disk, whose bitmaps tell of each
 * sector whether it is the parent's, and 4 KiB in a dynamic one.
 *
 * Write order (phases of the commit, after the data):
 *  0. A block's bitmap; the footer at the new end of the file.
 *  1. The entry of the block allocation table.
 * The footer's copy at the start never changes, so the image opens whatever
 * of this a crash leaves out.  A new block lies behind all that any metadata
 * refers to, in a part of the file that was never written, so it reads as
 * zeroes; it is in use once its entry is there.
 */
#ifndef VHD_H
#define VHD_H

#include <libcow/cow-plugin.h>

#include "format.h"
#include "name.h"

/* Bytes of the BAT in one table: 2 GiB of disk at 2 MiB a block. */
#define VHD_TABLE 4096u
#define VHD_TABLE_ENTRIES (VHD_TABLE / 4)
#define VHD_UNIT 4096u		/* of dynamic disks; less if blocks are smaller */
#define VHD_PLACE_ALIGN 4096u	/* of the data of new blocks */

#define VHD_PHASE_BITMAP 0u
#define VHD_PHASE_FOOTER 0u
#define VHD_PHASE_BAT 1u

/* Parts of the file that are no blocks: copy, header, BAT, locators. */
#define VHD_REGIONS (3 + VHD_LOCATORS)

struct vhd_region {
	const char *what;
	uint64_t start, end;
};

/* A block that has a place. */
struct vhd_block {
	uint32_t sector;	/* of its bitmap */
	uint32_t block;
};

struct vhd {
	struct cow_image *img;
	struct cow_image *parent;	/* NULL when it is not open */
	struct vhd_footer f;
	struct vhd_header h;
	struct vhd_footer_disk footer;	/* as it stands at the start */
	uint64_t size;			/* bytes of the disk */
	uint32_t nr_blocks;
	uint32_t unit;			/* bytes */
	uint32_t bitmap_bytes;
	bool writable;
	bool copy_damaged;		/* the footer at the start */
	char parent_path[VHD_PATH_MAX + 1];
	struct vhd_region region[VHD_REGIONS];
	unsigned int nr_regions;
	/* Places: bytes from the start of the file, of the block's bitmap. */
	uint64_t file_bytes;		/* when it was opened */
	bool device;			/* no place is given: it cannot grow */
	uint64_t end;			/* what lies from here on is free */
	uint64_t footer_at;		/* of the footer at the end; 0: none */
	uint64_t footer_writing;	/* in the commit that is on its way */
	struct vhd_block *used;		/* blocks then, by place */
	uint32_t nr_used;
	uint32_t *given;		/* a block: sector of its new place, or 0 */
	uint32_t *taken;		/* sectors of all new places */
	uint32_t nr_taken;
	uint8_t *reserved;		/* blocks: the bitmap has its space */
	uint8_t *filling;		/* blocks: bits that may be set in memory only */
};

static inline bool vhd_is_diff(const struct vhd *v)
{
	return v->f.type == VHD_DIFFERENCING;
}

/* Units of one block. */
static inline uint64_t vhd_block_units(const struct vhd *v)
{
	return v->h.block_size / v->unit;
}

/* A block's bytes in the file: bitmap and data. */
static inline uint64_t vhd_place_bytes(const struct vhd *v)
{
	return (uint64_t)v->bitmap_bytes + v->h.block_size;
}

/* parent.c: fill parent_path; the callbacks ->backing() and ->amend(). */
int vhd_find_parent(struct vhd *v);
int vhd_backing(void *handle, struct cow_image *parent, bool verify);
bool vhd_parent_is_raw(const struct vhd *v);
int vhd_amend(void *handle, const char *name, const char *value);
/* The time of the last change of an image's file, as VHD counts. */
int vhd_file_time(struct cow_image *img, uint32_t *time);
/* The footer that an image of this format has. */
int vhd_read_footer(struct cow_image *img, struct vhd_footer_disk *disk);

/* bat.c: the callbacks of these names. */
int vhd_map(void *handle, const struct cow_query *query,
	    struct cow_mapping *mapping);
int vhd_copied_bits(void *handle, uint64_t first, uint64_t count,
		    uint8_t *bits);
int vhd_copied(void *handle, const struct cow_extent *extent);

/* bitmap.c: a block's bitmap stands at place.  Bit order is VHD's own. */
int vhd_bitmap_get(struct vhd *v, uint64_t place, bool write,
		   struct cow_table **table);
int vhd_bitmap_new(struct vhd *v, uint64_t place, struct cow_table **table);
/* [first, end) are sectors of the block. */
bool vhd_bitmap_full(const struct vhd *v, struct cow_table *table);
bool vhd_bitmap_test(struct cow_table *table, uint64_t sector);
uint64_t vhd_bitmap_run(struct cow_table *table, uint64_t first, uint64_t end);
void vhd_bitmap_set(struct cow_table *table, uint64_t first, uint64_t end);
void vhd_bitmap_set_all(const struct vhd *v, struct cow_table *table);

/* place.c */
/* A place for a block that has none; the same until it is referred to. */
int vhd_place_give(struct vhd *v, uint64_t block, uint64_t *place);
/* May the block be at this place?  -EINVAL (reported) if not. */
int vhd_place_accept(struct vhd *v, uint64_t block, uint64_t place);
/*
 * Before the bits of a block that is there can come to be set: space for them.
 * -ENOSPC is reported if tell is true.
 */
int vhd_reserve_bitmap(struct vhd *v, uint64_t block, uint64_t place,
		       bool tell);
int vhd_commit(void *handle);
void vhd_committed(void *handle, int status);
/* blocks.c */
/*
 * Blocking.  The blocks in use by their places, in order of these; to be
 * freed.  fault() is told of each block whose place cannot be its own: of the
 * entry, and what is wrong with it, as the rest of a sentence.  It returns 0
 * to go on without the block, or an error.
 */
typedef int (*vhd_fault_fn)(void *ctx, const struct vhd_block *b,
			    const char *what);

/* What is wrong with a block's place by itself, or NULL. */
const char *vhd_place_fault(const struct vhd *v, uint64_t place,
			    uint64_t file_bytes);
int vhd_blocks_get(struct vhd *v, uint64_t file_bytes, vhd_fault_fn fault,
		   void *ctx, struct vhd_block **blocks, uint32_t *count);

/* create.c, check.c: the callbacks of these names. */
int vhd_create(struct cow_image *img, const struct cow_create *create);
int vhd_check(void *handle, struct cow_check *check, bool repair);

#endif /* VHD_H */
