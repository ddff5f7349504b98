/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each sector of the disk may read as, by a record. */
#ifndef CRASH_EXPECT_H
#define CRASH_EXPECT_H

#include "record.h"

#include <stdint.h>

struct expect;

struct expect *expect_new(const struct record *r, uint64_t sectors);

/*
 * A cut after mark number floor and before mark number ceiling (UINT64_MAX:
 * at the end of the record at the latest).  Both never go back.
 */
void expect_cut(struct expect *e, uint64_t floor, uint64_t ceiling);
/* No cut: all that was done, and no more than was begun. */
void expect_live(struct expect *e);

/* NULL if the contents are allowed, else what is wrong (static storage). */
const char *expect_wrong(struct expect *e, const void *buf, uint64_t sector);

#endif
