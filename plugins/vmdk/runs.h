/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * runs.h - blocks that have a place no table refers to yet.
 *
 * A run is what a first write was answered with.  Runs are kept in order of
 * blocks, do not overlap, and are of a fixed number: when there are too many
 * one is forgotten, whose places are then lost until the image is opened
 * again (whoever was told of them may still use them).
 */
#ifndef VMDK_RUNS_H
#define VMDK_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vmdk_run {
	uint64_t first;		/* block of the disk */
	uint64_t count;		/* blocks */
	uint64_t offset;	/* bytes in the file, of block first */
	uint32_t file;
	bool zero;		/* reads as zeroes until copied, else as below */
};

struct vmdk_runs {
	struct vmdk_run *run;
	size_t nr, max;
	size_t victim;		/* whom to forget next */
	uint32_t block_size;	/* bytes */
};

int vmdk_runs_init(struct vmdk_runs *r, size_t max, uint32_t block_size);
void vmdk_runs_free(struct vmdk_runs *r);
/* The run that holds the block, or NULL. */
const struct vmdk_run *vmdk_runs_find(const struct vmdk_runs *r,
				      uint64_t block);
/* The first block from block on that is in a run, or UINT64_MAX. */
uint64_t vmdk_runs_next(const struct vmdk_runs *r, uint64_t block);
/* Its blocks are in no run. */
void vmdk_runs_add(struct vmdk_runs *r, const struct vmdk_run *run);
/*
 * Take a piece of a run that lies within [first, end) out of it, into *piece.
 * False when there is none left.
 */
bool vmdk_runs_take(struct vmdk_runs *r, uint64_t first, uint64_t end,
		    struct vmdk_run *piece);

#endif /* VMDK_RUNS_H */
