/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model test: a disk whose contents are known to the sector while a
 * daemon with a random placement policy serves it, dies and comes back.
 *
 * Contents (model-io.c).  Each write gives its sectors the next version.  A
 * read must bring a version that was there between its start and its end;
 * what stands on the devices, found by the durable metadata alone, must not
 * be older than the last flush.
 *
 * Daemon (model-daemon.c).  It knows where each block lives from its durable
 * metadata, which changes at FLUSH only, and from what COPIED told since.
 */
#ifndef MODEL_H
#define MODEL_H

#include "lib.h"

#define NR_PLACES	2	/* destination devices; the base comes next */
#define BASE_DEV	2
#define BASE_SHIFT	5	/* sectors before the base's first block */
#define PLACE_SHIFT	3	/* and before the first slot */

struct options {
	uint64_t seed;
	unsigned int seconds;
	uint64_t ops;		/* or so many operations */
	unsigned int bs;	/* sectors in a block */
	uint64_t sectors;	/* of the disk */
	unsigned int threads;
	bool calm;		/* daemons do not die, nothing is suspended */
	bool verbose;
};

extern struct options opt;
extern struct disk *disk;
extern struct dev *places[NR_PLACES], *base_dev;

/* contents */
void contents_init(void);
void contents_start(void);
void contents_stop(void);
bool contents_stuck(void);	/* some I/O takes too long */
uint64_t contents_ops(void);
void contents_verify(void);	/* all of the disk, through the kernel */
void durable_begin(uint32_t *floor);	/* what must survive a crash now */
const char *durable_wrong(const void *data, uint64_t sector, uint32_t floor);
void base_sector(uint64_t *p, uint64_t sector, bool zero);

/* the daemon */
enum state { AT_BASE, AT_ZERO, AT_PLACE };
struct where {
	uint8_t state;
	uint8_t dev;
	uint32_t slot;
};

void daemon_init(void);
void daemon_start(void);	/* attach, in a thread */
void daemon_kill(void);		/* wherever it stands */
bool daemon_alive(void);
void crash_check(void);		/* now, from the devices and the metadata */
void daemon_numbers(void);
unsigned long daemon_refused(void);	/* commits, on purpose, so far */
void daemon_worked(void);	/* it was asked for all that it is there for */
bool block_is_zero(uint64_t block);
void daemon_lock(void);
void daemon_unlock(void);

#endif
