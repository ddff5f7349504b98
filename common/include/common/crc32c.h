/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_CRC32C_H
#define COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli).  crc: 0 to begin, then what the last call gave. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

/* The same without the processor's instruction for it. */
uint32_t crc32c_by_table(uint32_t crc, const void *buf, size_t len);

#endif /* COMMON_CRC32C_H */
