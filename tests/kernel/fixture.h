/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk that most tests use: 100 blocks of 8 sectors and 3 sectors more;
 * devices 0 and 1 to put blocks on, device 2 a base.
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "lib.h"

#define BS		8
#define SECTORS		(100 * BS + 3)
#define LAST		100		/* the short block */
#define DEV_SECTORS	4096
#define TAG_A		1
#define TAG_B		2
#define TAG_BASE	3
#define BASE		2		/* index of the base */
#define RW		(DMU_RE_REMEMBER | DMU_RE_WRITABLE)

extern struct dev *a, *b, *base;
extern struct disk *d;
extern struct chan *c;

#define GATE_A		1		/* a gate before device 0 */
#define GATE_BASE	2		/* ... before the base */
#define THIN_A		4		/* device 0 is thin, over a pool with room for one chunk */
#define THIN_CHUNK	128		/* sectors */

struct setup {
	const char *table;		/* feature arguments of the table */
	uint64_t features;		/* of the attach */
	int gates;
	unsigned int bs;		/* BS if 0 */
	bool no_daemon;
};

void setup_with(const struct setup *s);
void setup(void);

/* A gate: I/O behind it waits, or fails. */
#define NAME_GATE_A	"dmutg0"
#define NAME_GATE_BASE	"dmutg2"
void gate_shut(const char *name);
void gate_open(const char *name);
void gate_break(const char *name);
void gate_break_writes(const char *name);	/* and flushes */
void gate_mend(const char *name);
/* The line of its I/O counts. */
void gate_stat(const char *name, char *line, int size);

/* The pool of THIN_A has space for so many chunks; without it a write gets ENOSPC. */
void thin_room(unsigned int chunks);

/* All of the disk by one unasked mapping. */
void all_linear(uint32_t dev, uint64_t sector, uint32_t flags);
void all_cow(uint32_t dev, uint64_t sector, uint32_t src_dev, uint64_t src);

void daemon_gone(void);
void daemon_back(uint64_t features);	/* attached, nothing read */
void commit_ok(void);			/* the FLUSH that is next is done */
void flush_and_commit(void);		/* and whatever COPIED comes before */

#endif
