/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps as they stand in files and in messages: bit n is bit n % 8 of byte
 * n / 8, the same as little-endian words of any width.
 */
#ifndef COMMON_BITS_H
#define COMMON_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool bits_test(const uint8_t *map, uint64_t n)
{
	return map[n / 8] >> (n % 8) & 1;
}

static inline void bits_set(uint8_t *map, uint64_t n)
{
	map[n / 8] |= (uint8_t)(1u << (n % 8));
}

static inline void bits_clear(uint8_t *map, uint64_t n)
{
	map[n / 8] &= (uint8_t)~(1u << (n % 8));
}

void bits_set_run(uint8_t *map, uint64_t first, uint64_t count);
/* The first bit in [from, end) that is (is not) set, or end. */
uint64_t bits_next_set(const uint8_t *map, uint64_t from, uint64_t end);
uint64_t bits_next_clear(const uint8_t *map, uint64_t from, uint64_t end);
/* Number of bits set in [from, end). */
uint64_t bits_count(const uint8_t *map, uint64_t from, uint64_t end);
/* Copy count bits of src, from bit src_first, to dst from bit dst_first. */
void bits_copy(uint8_t *dst, uint64_t dst_first, const uint8_t *src,
	       uint64_t src_first, uint64_t count);

#endif /* COMMON_BITS_H */
