/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disk.h - a file that fails on demand: stands between libcow and the C
 * library, for one file, known by its inode.
 *
 * fsync() and fdatasync() of all files do nothing but end an epoch, or fail.
 *
 * The file must be written by the calls of this layer only (no direct I/O by
 * aio), which it is when who opens it refuses O_DIRECT.
 */
#ifndef FORMATS_DISK_H
#define FORMATS_DISK_H

#include <stdbool.h>
#include <stdint.h>

#define DISK_NEVER UINT64_MAX

/* This file from now on: nothing fails, nothing is recorded. */
void disk_watch(const char *path);
void disk_release(void);

/*
 * A step is a call that needs space that the file does not have yet: a write
 * or a reservation of a page that is a hole.  From the given step on (0 is
 * the first) each of them fails with ENOSPC.  Starts to count anew.
 */
void disk_full_from(uint64_t step);
uint64_t disk_steps(void);

/* A block device from now on, as large as it is: until disk_release() or disk_watch(). */
void disk_is_device(void);

/* As on a file system that cannot reserve space. */
void disk_cannot_reserve(void);

/* Writes that touch the range fail with EIO; len 0: none do. */
void disk_break(uint64_t offset, uint64_t len);

/* The next sync fails with this errno, and no other: as the kernel tells of what is lost. */
void disk_break_sync(int error);
bool disk_sync_is_broken(void);	/* it is still to come */

/*
 * The process is killed at the given write, counted from now on (0 is the first):
 * neither it nor a later one reaches the file.
 */
void disk_kill_from(uint64_t write);

/* Keep what is written, by epochs: a sync of the file begins the next one. */
void disk_record(void);
/* The one that begins at the next write; epochs with writes are below. */
uint64_t disk_epoch(void);
uint64_t disk_writes(uint64_t epoch);

enum disk_cut { DISK_ONLY, DISK_WITHOUT };

/*
 * Write a file as a power cut in an epoch may leave it: path holds what stood
 * there when the recording began; all earlier epochs are added, and of this
 * one only one write, or all but that one.
 */
void disk_replay(const char *path, uint64_t epoch, enum disk_cut cut,
		 uint64_t write);

#endif /* FORMATS_DISK_H */
