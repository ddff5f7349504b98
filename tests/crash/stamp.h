/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stamped sector names itself: which sector of the disk it is, and which
 * write of the load put it there.  Version 0 is the base.
 */
#ifndef CRASH_STAMP_H
#define CRASH_STAMP_H

#include <stdint.h>

#define SECTOR 512u

enum stamp_kind {
	STAMP_GOOD,
	STAMP_ZERO,	/* 512 zero bytes */
	STAMP_BAD,	/* no stamp, or one that is torn */
};

void stamp_make(void *buf, uint64_t sector, uint64_t version);
void stamp_make_run(void *buf, uint64_t sector, uint64_t count,
		    uint64_t version);
enum stamp_kind stamp_read(const void *buf, uint64_t *sector,
			   uint64_t *version);

#endif
