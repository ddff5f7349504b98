// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/bits.h>

#include <string.h>

void bits_set_run(uint8_t *map, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	for (; first < end && first % 8; first++)
		bits_set(map, first);
	if (end - first >= 8) {
		memset(map + first / 8, 0xff, (end - first) / 8);
		first += (end - first) / 8 * 8;
	}
	for (; first < end; first++)
		bits_set(map, first);
}

/* The first bit that differs from all bits of byte skip, or end. */
static uint64_t next_not(const uint8_t *map, uint64_t from, uint64_t end,
			 uint8_t skip)
{
	while (from < end) {
		uint8_t differs = (uint8_t)((map[from / 8] ^ skip) >> from % 8);

		if (differs) {
			from += (unsigned int)__builtin_ctz(differs);
			return from < end ? from : end;
		}
		from = (from / 8 + 1) * 8;
		while (from < end && map[from / 8] == skip)
			from += 8;
	}
	return end;
}

uint64_t bits_next_set(const uint8_t *map, uint64_t from, uint64_t end)
{
	return next_not(map, from, end, 0x00);
}

uint64_t bits_next_clear(const uint8_t *map, uint64_t from, uint64_t end)
{
	return next_not(map, from, end, 0xff);
}

uint64_t bits_count(const uint8_t *map, uint64_t from, uint64_t end)
{
	uint64_t n = 0;

	for (; from < end && from % 8; from++)
		n += bits_test(map, from);
	for (; end - from >= 8 && from < end; from += 8)
		n += (unsigned int)__builtin_popcount(map[from / 8]);
	for (; from < end; from++)
		n += bits_test(map, from);
	return n;
}

static void copy_bit(uint8_t *dst, uint64_t to, const uint8_t *src,
		     uint64_t from)
{
	if (bits_test(src, from))
		bits_set(dst, to);
	else
		bits_clear(dst, to);
}

void bits_copy(uint8_t *dst, uint64_t dst_first, const uint8_t *src,
	       uint64_t src_first, uint64_t count)
{
	uint64_t n = 0;

	while (n < count) {
		uint64_t to = dst_first + n, from = src_first + n;

		if (to % 8 == 0 && from % 8 == 0 && count - n >= 8) {
			memcpy(dst + to / 8, src + from / 8, (count - n) / 8);
			n += (count - n) / 8 * 8;
			continue;
		}
		copy_bit(dst, to, src, from);
		n++;
	}
}
