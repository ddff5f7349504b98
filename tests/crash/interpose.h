/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands between libcow and the C library: what is written to one file, and
 * when it is synced, goes into a log as dm-log-writes would write it.
 */
#ifndef CRASH_INTERPOSE_H
#define CRASH_INTERPOSE_H

#include "log.h"

/* From now on.  The file is known by its inode. */
void interpose_start(struct log_writer *log, const char *path);
void interpose_mark(const char *name);
/* What is not synced goes last. */
void interpose_stop(void);

#endif
