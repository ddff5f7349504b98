/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log of writes, in the format of dm-log-writes (Linux,
 * drivers/md/dm-log-writes.c): the order in which writes became durable.  A
 * write that is not FUA stands directly before the first flush that began
 * after it was done.
 *
 * First comes a sector with struct log_super, then for each entry a sector
 * with struct log_entry (and the text of a mark), and the data of a write.
 */
#ifndef CRASH_LOG_H
#define CRASH_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_FLUSH	(1u << 0)
#define LOG_FUA		(1u << 1)
#define LOG_DISCARD	(1u << 2)
#define LOG_MARK	(1u << 3)

/* Where the log is of several files: the room of each. */
#define LOG_PART	(16u << 20)

/* One entry: bytes, whatever the sector size of the log is. */
struct log_item {
	uint64_t offset;	/* on the device */
	uint64_t len;		/* bytes of data, or that are discarded */
	uint64_t data;		/* offset in the log, 0: none */
	uint32_t flags;
	char mark[24];
};

struct log {
	int fd;
	struct log_item *items;
	uint64_t nr;
};

void log_open(struct log *log, const char *path);
void log_read(const struct log *log, void *buf, size_t len, uint64_t offset);

/* Writing one, for what is recorded without device-mapper. */
struct log_writer {
	int fd;
	uint64_t at, nr;
};

void log_create(struct log_writer *w, const char *path);
void log_add(struct log_writer *w, uint32_t flags, uint64_t offset,
	     const void *data, uint64_t len);
void log_add_mark(struct log_writer *w, const char *mark);
void log_finish(struct log_writer *w);

#endif
