// SPDX-License-Identifier: GPL-2.0-or-later
/* One test per field of the header that a reader must refuse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <common/crc32c.h>

#include "format.h"

static void make_good(struct dscow_header *h, struct dscow_header_disk *d)
{
	*h = (struct dscow_header){
		.size = 537919488,
		.block_size = 65536,
		.base = { .size = 537919488, .file_size = 537919488,
			  .mtime_sec = -5, .mtime_nsec = 999999999,
			  .regular = true, .checksum = 0x12345678 },
		.base_path_length = 9,
		.base_path_checksum = 7,
		.base_format = "raw",
	};
	assert_int_equal(dscow_header_layout(h), 0);
	dscow_header_encode(h, d);
}

static void seal(struct dscow_header_disk *d)
{
	d->header_checksum = le32_put(crc32c(0, d, offsetof(
		struct dscow_header_disk, header_checksum)));
}

static void original_geometry(void **state)
{
	struct dscow_header h;
	struct dscow_header_disk d;

	make_good(&h, &d);
	assert_int_equal(h.first_block, 65536);
	assert_int_equal(h.nr_blocks, 8208);
	assert_int_equal(h.bitmap_count, 257);
}

static void what_is_encoded_is_decoded(void **state)
{
	struct dscow_header h, back = { 0 };
	struct dscow_header_disk d;
	const char *why;

	make_good(&h, &d);
	assert_int_equal(dscow_header_decode(&d, &back, &why), 0);
	assert_memory_equal(&h, &back, sizeof(h));
}

#define REFUSED(name, code, change)					\
static void name(void **state)						\
{									\
	struct dscow_header h;						\
	struct dscow_header_disk d;					\
	const char *why = NULL;						\
									\
	make_good(&h, &d);						\
	change;								\
	seal(&d);							\
	assert_int_equal(dscow_header_decode(&d, &h, &why), code);	\
	assert_non_null(why);						\
}

REFUSED(magic, -EINVAL, d.magic[3] ^= 1)
REFUSED(version, -EOPNOTSUPP, d.version = le32_put(2))
REFUSED(header_bytes, -EINVAL, d.header_bytes = le32_put(1024))
REFUSED(incompatible, -EOPNOTSUPP, d.incompatible = le64_put(2))
REFUSED(size_zero, -EINVAL, d.size = le64_put(0))
REFUSED(size_part_of_sector, -EINVAL, d.size = le64_put(537919488 - 1))
REFUSED(size_huge, -EINVAL, d.size = le64_put(1ull << 62))
REFUSED(size_not_of_bitmap, -EINVAL, d.size = le64_put(1 << 20))
REFUSED(block_size_zero, -EINVAL, d.block_size = le32_put(0))
REFUSED(block_size_no_power, -EINVAL, d.block_size = le32_put(65536 * 3))
REFUSED(block_size_small, -EINVAL, d.block_size = le32_put(2048))
REFUSED(block_size_large, -EINVAL, d.block_size = le32_put(32 << 20))
REFUSED(bitmap_count, -EINVAL, d.bitmap_count = le32_put(256))
REFUSED(bitmap_in_header, -EINVAL, d.bitmap_offset = le64_put(0))
REFUSED(bitmap_unaligned, -EINVAL, d.bitmap_offset = le64_put(8704))
REFUSED(bitmap_huge, -EINVAL, d.bitmap_offset = le64_put(-4096ull))
REFUSED(bitmap_over_path, -EINVAL, (d.bitmap_offset = le64_put(4096),
				    d.base_path_length = le32_put(4000)))
REFUSED(first_block_unaligned, -EINVAL, d.first_block = le64_put(69632))
REFUSED(first_block_in_bitmap, -EINVAL, d.first_block = le64_put(0))
REFUSED(first_block_huge, -EINVAL, d.first_block = le64_put(-65536ull))
REFUSED(path_empty, -EINVAL, d.base_path_length = le32_put(0))
REFUSED(path_long, -EINVAL, d.base_path_length = le32_put(4096))
REFUSED(format_empty, -EINVAL, d.base_format[0] = 0)
REFUSED(format_unended, -EINVAL, memset(d.base_format, 'a', 32))
REFUSED(base_flags, -EINVAL, d.base_flags = le32_put(2))
REFUSED(base_time, -EINVAL, d.base_mtime_nsec = le32_put(1000000000))

static void checksum(void **state)
{
	struct dscow_header h;
	struct dscow_header_disk d;
	const char *why;
	size_t i;

	/* Any byte behind magic and version. */
	for (i = 12; i < sizeof(d); i++) {
		make_good(&h, &d);
		((uint8_t *)&d)[i] ^= 0x10;
		assert_int_equal(dscow_header_decode(&d, &h, &why), -EINVAL);
	}
}

static void layout_has_limits(void **state)
{
	struct dscow_header h = { .size = 0, .block_size = 65536 };

	assert_int_equal(dscow_header_layout(&h), -EFBIG);
	h.size = 1ull << 62;
	assert_int_equal(dscow_header_layout(&h), -EFBIG);
	h.size = 1ull << 60;
	h.block_size = 4096;
	assert_int_equal(dscow_header_layout(&h), -EFBIG);
	h.size = 1 << 20;
	h.block_size = 4095;
	assert_int_equal(dscow_header_layout(&h), -EINVAL);
	h.block_size = 16 << 20;
	assert_int_equal(dscow_header_layout(&h), 0);
	assert_int_equal(h.nr_blocks, 1);
	assert_int_equal(h.first_block, 16 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(original_geometry),
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(magic),
		cmocka_unit_test(version),
		cmocka_unit_test(header_bytes),
		cmocka_unit_test(incompatible),
		cmocka_unit_test(size_zero),
		cmocka_unit_test(size_part_of_sector),
		cmocka_unit_test(size_huge),
		cmocka_unit_test(size_not_of_bitmap),
		cmocka_unit_test(block_size_zero),
		cmocka_unit_test(block_size_no_power),
		cmocka_unit_test(block_size_small),
		cmocka_unit_test(block_size_large),
		cmocka_unit_test(bitmap_count),
		cmocka_unit_test(bitmap_in_header),
		cmocka_unit_test(bitmap_unaligned),
		cmocka_unit_test(bitmap_huge),
		cmocka_unit_test(bitmap_over_path),
		cmocka_unit_test(first_block_unaligned),
		cmocka_unit_test(first_block_in_bitmap),
		cmocka_unit_test(first_block_huge),
		cmocka_unit_test(path_empty),
		cmocka_unit_test(path_long),
		cmocka_unit_test(format_empty),
		cmocka_unit_test(format_unended),
		cmocka_unit_test(base_flags),
		cmocka_unit_test(base_time),
		cmocka_unit_test(checksum),
		cmocka_unit_test(layout_has_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
