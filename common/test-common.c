// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <common/bits.h>
#include <common/clock.h>
#include <common/crc32c.h>
#include <common/diskint.h>
#include <common/num.h>
#include <common/size.h>

static void crc32c_known_values(void **state)
{
	uint8_t zeroes[32] = { 0 };
	uint32_t part;

	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, zeroes, sizeof(zeroes)), 0x8a9136aa);
	part = crc32c(0, "1234", 4);
	assert_int_equal(crc32c(part, "56789", 5), 0xe3069283);
}

/* 0xff and what counts up: RFC 3720, B.4. */
static void crc32c_is_the_same_both_ways(void **state)
{
	uint8_t bytes[300];
	size_t from, len;

	memset(bytes, 0xff, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
	assert_int_equal(crc32c_by_table(0, bytes, 32), 0x62a8ab43);
	for (len = 0; len < sizeof(bytes); len++)
		bytes[len] = (uint8_t)len;
	assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
	for (from = 0; from < 9; from++)
		for (len = 0; len < sizeof(bytes) - from; len++)
			assert_int_equal(crc32c(1, bytes + from, len),
					 crc32c_by_table(1, bytes + from, len));
}

static void integers_have_their_order(void **state)
{
	le32 l = le32_put(0x01020304);
	be32 b = be32_put(0x01020304);

	assert_int_equal(l.b[0], 4);
	assert_int_equal(b.b[0], 1);
	assert_int_equal(le32_get(l), 0x01020304);
	assert_int_equal(be32_get(b), 0x01020304);
	assert_int_equal(le64_get(le64_put(UINT64_MAX - 5)), UINT64_MAX - 5);
	assert_int_equal(be16_get(be16_put(0xfffe)), 0xfffe);
}

static void runs_are_checked(void **state)
{
	uint64_t n;

	assert_true(num_run_in(0, 10, 10));
	assert_false(num_run_in(0, 11, 10));
	assert_false(num_run_in(10, 1, 10));
	assert_false(num_run_in(3, 0, 10));
	assert_false(num_run_in(5, UINT64_MAX, 10));
	assert_true(num_add_overflow(UINT64_MAX, 1, &n));
	assert_true(num_mul_overflow(1ull << 40, 1ull << 24, &n));
	assert_int_equal(num_div_up(10, 3), 4);
	assert_int_equal(num_div_up(UINT64_MAX, 2), 1ull << 63);
}

static void sizes_are_parsed(void **state)
{
	uint64_t n;
	char buf[SIZE_TEXT_MAX];

	assert_int_equal(size_parse("64k", &n), 0);
	assert_int_equal(n, 65536);
	assert_int_equal(size_parse("16M", &n), 0);
	assert_int_equal(n, 16 << 20);
	assert_int_equal(size_parse("512", &n), 0);
	assert_int_equal(n, 512);
	assert_int_equal(size_parse("", &n), -EINVAL);
	assert_int_equal(size_parse("-1", &n), -EINVAL);
	assert_int_equal(size_parse("k", &n), -EINVAL);
	assert_int_equal(size_parse("1kb", &n), -EINVAL);
	assert_int_equal(size_parse("18446744073709551616", &n), -ERANGE);
	assert_int_equal(size_parse("99999999t", &n), -ERANGE);
	assert_string_equal(size_text(UINT64_MAX, buf), "16.0 EiB");
	assert_string_equal(size_text(1000, buf), "1000 B");
}

/* Each function against bit-by-bit ones. */
static void bitmaps_agree_with_single_bits(void **state)
{
	uint8_t map[16], copy[16];
	unsigned int round, i;

	srand(1);
	for (round = 0; round < 20000; round++) {
		uint64_t from = (uint64_t)rand() % 129;
		uint64_t end = from + (uint64_t)rand() % (129 - from);
		uint64_t to = (uint64_t)rand() % (129 - (end - from));
		uint64_t set, clear, n = 0;

		for (i = 0; i < sizeof(map); i++)
			map[i] = (uint8_t)(rand() % 3 ? rand() : -rand() % 2);
		for (set = from; set < end && !bits_test(map, set); set++)
			;
		for (clear = from; clear < end && bits_test(map, clear);)
			clear++;
		for (i = (unsigned int)from; i < end; i++)
			n += bits_test(map, i);
		assert_int_equal(bits_next_set(map, from, end), set);
		assert_int_equal(bits_next_clear(map, from, end), clear);
		assert_int_equal(bits_count(map, from, end), n);

		for (i = 0; i < sizeof(copy); i++)
			copy[i] = (uint8_t)rand();
		bits_copy(copy, to, map, from, end - from);
		for (i = 0; i < end - from; i++)
			assert_int_equal(bits_test(copy, to + i),
					 bits_test(map, from + i));
		bits_set_run(map, from, end - from);
		assert_int_equal(bits_next_clear(map, from, end), end);
	}
}

static void steps_are_short_at_first(void **state)
{
	const int steps[] = { 1, 2, 4, 8, 16, 32, 50, 50 };
	unsigned int i;
	int ms = 0;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		ms = clock_next_step_ms(ms);
		assert_int_equal(ms, steps[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_known_values),
		cmocka_unit_test(crc32c_is_the_same_both_ways),
		cmocka_unit_test(integers_have_their_order),
		cmocka_unit_test(runs_are_checked),
		cmocka_unit_test(sizes_are_parsed),
		cmocka_unit_test(bitmaps_agree_with_single_bits),
		cmocka_unit_test(steps_are_short_at_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
