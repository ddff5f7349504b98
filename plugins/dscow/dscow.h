/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dscow.h - an open dscow image.
 *
 * Write order: the only table is the bitmap, phase 0.  A bit says that the
 * block stands at its own position in the image; it is set after the data is
 * there, and libcow writes it after the data is durable.  So a crash leaves
 * a block that is written but not referred to: the base shows, as before.
 */
#ifndef DSCOW_H
#define DSCOW_H

#include <libcow/cow-plugin.h>

#include "format.h"

/* Bytes of the bitmap in one table: 32 GiB of disk at 64 KiB a block. */
#define DSCOW_TABLE_BYTES (64u << 10)
#define DSCOW_TABLE_BLOCKS (DSCOW_TABLE_BYTES * 8ull)

struct dscow {
	struct cow_image *img;
	struct cow_image *base;		/* NULL when it is not open */
	struct dscow_header h;
	char base_path[DSCOW_BASE_PATH_MAX + 1];
	bool writable;
};

/* base.c: what a base is now, and whether that is what it was. */
int dscow_identify(struct cow_image *base, struct dscow_identity *id);
/* The same, to be recorded: a power cut must not give its file an earlier time. */
int dscow_identify_durable(struct cow_image *base, struct dscow_identity *id);
int dscow_verify(const struct dscow *d, const struct dscow_identity *now);

/* bitmap.c: the callbacks of these names, and the bitmap as a whole. */
int dscow_map(void *handle, const struct cow_query *query,
	      struct cow_mapping *mapping);
int dscow_copied_bits(void *handle, uint64_t first, uint64_t count,
		      uint8_t *bits);
int dscow_copied(void *handle, const struct cow_extent *extent);
/* Blocking: nr_blocks, and the bits behind them up to the last word. */
int dscow_count_bits(const struct dscow *d, uint64_t *copied,
		     uint64_t *beyond, uint64_t *last_copied);

/* create.c, check.c, amend.c: the callbacks of these names. */
int dscow_create(struct cow_image *img, const struct cow_create *create);
int dscow_check(void *handle, struct cow_check *check, bool repair);
int dscow_amend(void *handle, const char *name, const char *value);

#endif /* DSCOW_H */
