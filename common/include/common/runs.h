/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * runs.h - blocks that have a place no table refers to yet.
 *
 * A run is what a first write was answered with.  Runs are kept in order of
 * blocks, do not overlap, and are of a fixed number: when there are too many
 * one is forgotten, whose places are then lost until the image is opened
 * again (whoever was told of them may still use them).
 */
#ifndef COMMON_RUNS_H
#define COMMON_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run {
	uint64_t first;		/* block of the disk */
	uint64_t count;		/* blocks */
	uint64_t offset;	/* bytes in the file, of block first */
	uint32_t file;
	/* What it reads as until it was copied; the user's own. */
	uint32_t source;
	uint64_t cookie;
};

struct runs {
	struct run *run;
	size_t nr, max;
	size_t victim;		/* whom to forget next */
	uint32_t block_size;	/* bytes */
};

int runs_init(struct runs *r, size_t max, uint32_t block_size);
void runs_free(struct runs *r);
/* The run that holds the block, or NULL. */
const struct run *runs_find(const struct runs *r, uint64_t block);
/* The first block from block on that is in a run, or UINT64_MAX. */
uint64_t runs_next(const struct runs *r, uint64_t block);
/* Its blocks are in no run. */
void runs_add(struct runs *r, const struct run *run);
/*
 * Take a piece of a run that lies within [first, end) out of it, into *piece.
 * False when there is none left.
 */
bool runs_take(struct runs *r, uint64_t first, uint64_t end,
	       struct run *piece);

#endif /* COMMON_RUNS_H */
