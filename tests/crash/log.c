// SPDX-License-Identifier: GPL-2.0-or-later
#include "log.h"
#include "die.h"
#include "stamp.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAGIC	0x6a736677736872ull
#define LOG_VERSION	1

struct log_super {
	uint64_t magic;
	uint64_t version;
	uint64_t nr_entries;
	uint32_t sectorsize;
} __attribute__((packed));

struct log_entry {
	uint64_t sector;
	uint64_t nr_sectors;
	uint64_t flags;
	uint64_t data_len;
} __attribute__((packed));

/* --- Reading -------------------------------------------------------------- */

void log_read(const struct log *log, void *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pread(log->fd, buf, len, (off_t)offset);

		if (n <= 0)
			die("the log cannot be read at %llu",
			    (unsigned long long)offset);
		buf = (char *)buf + n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
}

static void read_mark(const struct log *log, struct log_item *it, uint64_t at,
		      uint64_t len)
{
	if (len >= sizeof(it->mark))
		len = sizeof(it->mark) - 1;
	log_read(log, it->mark, len, at + sizeof(struct log_entry));
	it->mark[len] = '\0';
}

/* Returns where the next entry stands. */
static uint64_t read_entry(const struct log *log, struct log_item *it,
			   uint64_t at, uint32_t sector)
{
	struct log_entry e;

	log_read(log, &e, sizeof(e), at);
	it->flags = (uint32_t)le64toh(e.flags);
	it->offset = le64toh(e.sector) * sector;
	it->len = le64toh(e.nr_sectors) * sector;
	if (it->flags & LOG_MARK)
		read_mark(log, it, at, le64toh(e.data_len));
	at += sector;
	if (it->flags & LOG_DISCARD || !it->len)
		return at;
	it->data = at;
	return at + it->len;
}

void log_open(struct log *log, const char *path)
{
	struct log_super s;
	uint64_t i, at;

	log->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (log->fd < 0)
		die_errno(path);
	log_read(log, &s, sizeof(s), 0);
	if (le64toh(s.magic) != LOG_MAGIC || le64toh(s.version) != LOG_VERSION)
		die("%s: is no log of dm-log-writes", path);
	log->nr = le64toh(s.nr_entries);
	log->items = xcalloc(log->nr + 1, sizeof(*log->items));
	at = le32toh(s.sectorsize);
	for (i = 0; i < log->nr; i++)
		at = read_entry(log, &log->items[i], at,
				le32toh(s.sectorsize));
}

/* --- Writing -------------------------------------------------------------- */

static void put(struct log_writer *w, const void *data, uint64_t len)
{
	if (pwrite(w->fd, data, len, (off_t)w->at) != (ssize_t)len)
		die_errno("log");
	w->at += len;
}

static void put_entry(struct log_writer *w, uint32_t flags, uint64_t offset,
		      uint64_t len, const char *mark)
{
	size_t mark_len = mark ? strlen(mark) : 0;
	struct log_entry e = {
		.sector = htole64(offset / SECTOR),
		.nr_sectors = htole64(len / SECTOR),
		.flags = htole64(flags),
		.data_len = htole64(mark_len),
	};
	char buf[SECTOR] = { 0 };

	memcpy(buf, &e, sizeof(e));
	if (mark)
		memcpy(buf + sizeof(e), mark, mark_len);
	put(w, buf, sizeof(buf));
	w->nr++;
}

void log_create(struct log_writer *w, const char *path)
{
	w->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (w->fd < 0)
		die_errno(path);
	w->at = SECTOR;
	w->nr = 0;
}

void log_add(struct log_writer *w, uint32_t flags, uint64_t offset,
	     const void *data, uint64_t len)
{
	put_entry(w, flags, offset, len, NULL);
	if (len)
		put(w, data, len);
}

void log_add_mark(struct log_writer *w, const char *mark)
{
	put_entry(w, LOG_MARK, 0, 0, mark);
}

void log_finish(struct log_writer *w)
{
	struct log_super s = {
		.magic = htole64(LOG_MAGIC),
		.version = htole64(LOG_VERSION),
		.nr_entries = htole64(w->nr),
		.sectorsize = htole32(SECTOR),
	};

	w->at = 0;
	put(w, &s, sizeof(s));
	close(w->fd);
}
