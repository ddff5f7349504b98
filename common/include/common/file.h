/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <stddef.h>
#include <stdint.h>

/* All of len bytes or a negative errno; -ENODATA when the file ends before. */
int file_pread_all(int fd, void *buf, size_t len, uint64_t offset);
int file_pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);
/* Bytes of a regular file or block device. */
int file_size(int fd, uint64_t *size);

#endif /* COMMON_FILE_H */
