// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * refcounts.c - the entries of a refcount block: 1 << order bits each.  Below
 * a byte, the first one is the least significant bits; above, big-endian.
 */
#include "format.h"

static uint64_t get_wide(const uint8_t *p, unsigned int bytes)
{
	uint64_t n = 0;

	while (bytes--)
		n = n << 8 | *p++;
	return n;
}

uint64_t qcow2_ref_get(const uint8_t *block, uint32_t order, uint64_t n)
{
	uint32_t bits = 1u << order;

	if (bits >= 8)
		return get_wide(block + n * (bits / 8), bits / 8);
	return block[n * bits / 8] >> (n * bits % 8) & ((1u << bits) - 1);
}

void qcow2_ref_set(uint8_t *block, uint32_t order, uint64_t n, uint64_t ref)
{
	uint32_t bits = 1u << order, i, shift, mask;
	uint8_t *p;

	if (bits >= 8) {
		p = block + n * (bits / 8);
		for (i = bits / 8; i; i--, ref >>= 8)
			p[i - 1] = (uint8_t)ref;
		return;
	}
	p = block + n * bits / 8;
	shift = (uint32_t)(n * bits % 8);
	mask = ((1u << bits) - 1) << shift;
	*p = (uint8_t)((*p & ~mask) | ((uint32_t)ref << shift & mask));
}

uint64_t qcow2_ref_next_free(const uint8_t *block, uint32_t order,
			     uint64_t from, uint64_t end)
{
	while (from < end && qcow2_ref_get(block, order, from))
		from++;
	return from;
}

uint64_t qcow2_ref_next_used(const uint8_t *block, uint32_t order,
			     uint64_t from, uint64_t end)
{
	while (from < end && !qcow2_ref_get(block, order, from))
		from++;
	return from;
}
