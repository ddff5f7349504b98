/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record of a load: what it began, what came back as done, and which
 * flushes were answered.  Entries stand in the order in which things became
 * true for all threads:
 *
 *	ISSUE	before the write is given to the disk
 *	DONE	after it came back without an error
 *	FLUSH	before a flush is given to the disk
 *	MARK	after the flush (or the write that is durable by itself) came
 *		back, and after its mark was put into the log of writes
 */
#ifndef CRASH_RECORD_H
#define CRASH_RECORD_H

#include <stdint.h>

enum record_type {
	RECORD_ISSUE = 1,
	RECORD_DONE = 2,
	RECORD_FLUSH = 3,
	RECORD_MARK = 4,
};

enum record_kind {
	RECORD_WRITE = 0,
	RECORD_ZERO = 1,	/* must read as zeroes */
	RECORD_DISCARD = 2,	/* may read as zeroes, or as before */
};

#define RECORD_THREADS 16

struct record_entry {
	uint16_t type;
	uint16_t kind;		/* ISSUE */
	uint32_t thread;	/* FLUSH, and MARK of a flush */
	uint64_t version;	/* ISSUE, DONE, and MARK of a durable write */
	uint64_t sector;	/* ISSUE; MARK: its number, from 0 */
	uint64_t count;		/* ISSUE */
};

struct record {
	struct record_entry *entries;
	uint64_t nr;
};

int record_create(const char *path);
void record_add(int fd, const struct record_entry *e);
void record_load(const char *path, struct record *r);

#endif
