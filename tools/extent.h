/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef EXTENT_H
#define EXTENT_H

#include <libcow/cow.h>

/* A run of bytes of the disk that are alike. */
struct extent {
	enum { EXTENT_ZERO, EXTENT_DATA, EXTENT_MADE } kind;
	uint64_t start, len;	/* bytes of the disk */
	/* DATA: where it stands.  MADE (compressed): where it would be put. */
	struct cow_file_info file;
	uint64_t offset;
};

/*
 * What the disk reads as from start on; start lies inside.  Holes of the
 * files are zeroes, and are not read.
 */
int extent_at(struct cow_chain *chain, uint64_t start, struct extent *e);

#endif /* EXTENT_H */
