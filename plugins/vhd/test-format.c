// SPDX-License-Identifier: GPL-2.0-or-later
/* Geometry, sizes, and what a reader of footer and header must refuse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "format.h"

static void make_footer(struct vhd_footer *f, struct vhd_footer_disk *d)
{
	*f = (struct vhd_footer){
		.type = VHD_DYNAMIC, .data_offset = 512,
		.current_size = 10u << 20, .creator = "cowd",
		.unique_id = { 1, 2, 3 },
	};
	vhd_set_geometry(f, f->current_size);
	vhd_footer_encode(f, d);
}

static void make_header(struct vhd_header *h, struct vhd_header_disk *d)
{
	*h = (struct vhd_header){
		.table_offset = 4096, .max_table_entries = 5,
		.block_size = 2u << 20, .parent_time = 7,
		.locator = { { 1, 600, 8192 } },
	};
	vhd_header_encode(h, d);
}

static void what_is_encoded_is_decoded(void **state)
{
	struct vhd_footer f, f2 = { 0 };
	struct vhd_header h, h2 = { 0 };
	struct vhd_footer_disk fd;
	struct vhd_header_disk hd;
	const char *why;

	make_footer(&f, &fd);
	assert_int_equal(vhd_footer_decode(&fd, &f2, &why), 0);
	assert_memory_equal(&f, &f2, sizeof(f));
	make_header(&h, &hd);
	assert_int_equal(vhd_header_decode(&hd, &h2, &why), 0);
	assert_memory_equal(&h, &h2, sizeof(h));
	/* In whole sectors. */
	assert_int_equal(be32_get(hd.locator[0].data_space), 1024);
}

/* The sum is over all bytes but its own: every byte counts. */
static void checksums(void **state)
{
	struct vhd_footer f;
	struct vhd_header h;
	struct vhd_footer_disk fd;
	struct vhd_header_disk hd;
	const char *why;
	size_t i;

	for (i = 0; i < sizeof(fd); i++) {
		make_footer(&f, &fd);
		((uint8_t *)&fd)[i] ^= 0x10;
		assert_false(vhd_footer_valid(&fd));
		assert_int_not_equal(vhd_footer_decode(&fd, &f, &why), 0);
	}
	for (i = 0; i < sizeof(hd); i++) {
		make_header(&h, &hd);
		((uint8_t *)&hd)[i] ^= 0x10;
		assert_int_not_equal(vhd_header_decode(&hd, &h, &why), 0);
	}
}

/* As qemu-img 7.2 makes them: "-f vpc -o force_size=off" of these sizes. */
static void geometry(void **state)
{
	static const struct {
		uint64_t size;
		unsigned int cylinders, heads, sectors;
	} known[] = {
		{ 301ull * 4 * 17 * 512, 301, 4, 17 },
		{ 1020ull * 8 * 17 * 512, 1020, 8, 17 },
		{ 963ull * 16 * 17 * 512, 963, 16, 17 },
		{ 1000ull * 16 * 31 * 512, 1000, 16, 31 },
		{ 4161ull * 16 * 63 * 512, 4161, 16, 63 },
	};
	struct vhd_footer f = { 0 };
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		vhd_set_geometry(&f, known[i].size);
		assert_int_equal(f.cylinders, known[i].cylinders);
		assert_int_equal(f.heads, known[i].heads);
		assert_int_equal(f.sectors, known[i].sectors);
	}
}

/* Whichever rule a reader goes by, it finds the size. */
static void both_rules_agree(void **state)
{
	struct vhd_footer f = { 0 };
	uint64_t size;

	for (size = 512; size < 1ull << 41; size = size * 3 + 512) {
		f.current_size = size;
		vhd_set_geometry(&f, size);
		assert_int_equal(vhd_disk_size(&f), size);
		vhd_size_from(&f, false);
		assert_int_equal(vhd_disk_size(&f), size);
		vhd_size_from(&f, true);
		assert_int_equal(vhd_disk_size(&f), size);
	}
}

static void bitmaps(void **state)
{
	assert_int_equal(vhd_bitmap_bytes(512), 512);
	assert_int_equal(vhd_bitmap_bytes(2u << 20), 512);
	assert_int_equal(vhd_bitmap_bytes(16u << 20), 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(checksums),
		cmocka_unit_test(geometry),
		cmocka_unit_test(both_rules_agree),
		cmocka_unit_test(bitmaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
