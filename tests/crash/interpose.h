/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands between libcow and the C library: what is written to an image's files,
 * and when each is synced, goes into a log as dm-log-writes would write it.
 */
#ifndef CRASH_INTERPOSE_H
#define CRASH_INTERPOSE_H

#include "log.h"

/* A file of the image, known by its inode: the next LOG_PART of the log's device. */
void interpose_file(const char *path);
/* From now on. */
void interpose_start(struct log_writer *log);
void interpose_mark(const char *name);
/* What is not synced goes last. */
void interpose_stop(void);

#endif
