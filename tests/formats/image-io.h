/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef IMAGE_IO_H
#define IMAGE_IO_H

#include <libcow/cow.h>

#include <stdbool.h>
#include <stdint.h>

/* Where the image is, and how it is opened. */
struct image {
	struct cow_plugins *plugins;
	struct cow_chain *chain;
	const char *format;
	const char *path;
	const char *const *options;
	const char *allowed[2];		/* folders; ends with NULL */	/* "name=value" ... NULL */
	uint64_t size;			/* bytes of the disk */
	uint32_t block_size;		/* bytes */
};

/* Ends the program: one sentence on stderr, status 1. */
void die(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
/* The layer below has said what is wrong. */
void must(int ret);
/* As must(), for what says nothing itself. */
void must_file(int ret, const char *path);

void image_open(struct image *img, uint32_t flags);
void image_close(struct image *img);

/* A file for sparse contents: open, as long as size says. */
int file_make(const char *path, uint64_t size);

/* --- chance.c: the same seed gives the same again ------------------------ */

void chance_seed(uint64_t seed);
/* A number below; below must not be 0. */
uint64_t chance(uint64_t below);
void chance_fill(void *buf, uint64_t len);

/* --- load.c --------------------------------------------------------------- */

/*
 * ops random operations on the image and on the mirror, a raw file that
 * holds the image's contents at the start.  With commit, both are the same
 * at the end.  Without it the last quarter is writes only, and then all
 * stops: mirror holds what was flushed, and a file "mirror.now" beside it
 * what was written; each sector must read as one of the two.
 */
void load(struct image *img, const char *mirror, uint64_t ops, bool commit);

#endif /* IMAGE_IO_H */
