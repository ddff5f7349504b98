/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Arithmetic that says when it does not fit. */
#ifndef COMMON_NUM_H
#define COMMON_NUM_H

#include <stdbool.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t num_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t num_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool num_is_pow2(uint64_t n)
{
	return n && !(n & (n - 1));
}

/* True when a + b does not fit in 64 bits; else *sum is set. */
static inline bool num_add_overflow(uint64_t a, uint64_t b, uint64_t *sum)
{
	return __builtin_add_overflow(a, b, sum);
}

static inline bool num_mul_overflow(uint64_t a, uint64_t b, uint64_t *product)
{
	return __builtin_mul_overflow(a, b, product);
}

/* to: a power of two.  n must not be within to of the largest number. */
static inline uint64_t num_round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static inline uint64_t num_round_down(uint64_t n, uint64_t to)
{
	return n & ~(to - 1);
}

static inline bool num_is_aligned(uint64_t n, uint64_t to)
{
	return !(n & (to - 1));
}

static inline uint64_t num_div_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

/* Does [first, first + count) lie within [0, end)?  An empty run does not. */
static inline bool num_run_in(uint64_t first, uint64_t count, uint64_t end)
{
	return count && first < end && count <= end - first;
}

#endif /* COMMON_NUM_H */
