/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A random load of stamped writes, flushes, durable writes, zeroes and
 * discards, and its record.
 *
 * The disk is cut into blocks, each block into one lane for every thread.  A
 * thread writes parts of its lanes; now and then one of them has the disk for
 * itself and writes whole blocks, or zeroes or discards them.  So no two
 * writes to a sector are ever under way at a time.  The last quarter of each
 * lane is for durable (FUA) writes and whole blocks only, and a flush comes
 * between a whole block and a durable write: the log of dm-log-writes has a
 * plain write where the next flush is, after a FUA write that came later.
 */
#ifndef CRASH_LOAD_H
#define CRASH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

struct load {
	/* Each returns 0 or a negative errno. */
	int (*write)(void *ctx, const void *buf, uint64_t len, uint64_t offset,
		     bool durable);
	int (*zero)(void *ctx, uint64_t len, uint64_t offset);
	int (*discard)(void *ctx, uint64_t len, uint64_t offset);
	int (*flush)(void *ctx);
	/* NULL: only the record is kept. */
	void (*mark)(void *ctx, const char *name);
	void *ctx;

	uint64_t size;		/* of the disk, bytes */
	uint32_t block_size;	/* bytes: what the load takes for a block */
	uint64_t seed;
	uint64_t ops;		/* of all threads together */
	uint64_t seconds;	/* or as long as that, not 0 */
	unsigned int threads;
	unsigned int flush_percent;
	unsigned int durable_percent;	/* writes that are durable by themselves */
	unsigned int zero_percent;	/* zeroes and discards */
	unsigned int pause_ms;		/* between operations, at most */
	bool errors;			/* I/O may fail: go on */
	const char *record;
};

struct load_result {
	uint64_t writes, flushes, marks, write_errors, flush_errors;
};

void load_run(const struct load *load, struct load_result *result);

/* No operation begins any more.  A signal's handler may call it. */
void load_stop(void);

#endif
