// SPDX-License-Identifier: GPL-2.0-or-later
/* One test per field of the header that a reader must refuse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "format.h"

static void make_good(struct vmdk_header *h, struct vmdk_header_disk *d)
{
	*h = (struct vmdk_header){
		.version = 1,
		.flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_RGD,
		.capacity = 100ull << 20,
		.grain_size = 65536,
	};
	assert_int_equal(vmdk_header_layout(h), 0);
	vmdk_header_encode(h, d);
}

/* As qemu-img lays out 100 MiB: sectors 21 and 38, grains from 128 on. */
static void layout_as_others(void **state)
{
	struct vmdk_header_disk d;
	struct vmdk_header h;

	make_good(&h, &d);
	assert_int_equal(h.nr_gdes, 4);
	assert_int_equal(le64_get(d.descriptor_offset), 1);
	assert_int_equal(le64_get(d.descriptor_size), 20);
	assert_int_equal(le64_get(d.rgd_offset), 21);
	assert_int_equal(le64_get(d.gd_offset), 38);
	assert_int_equal(le64_get(d.overhead), 128);
}

static void what_is_encoded_is_decoded(void **state)
{
	struct vmdk_header h, back = { 0 };
	struct vmdk_header_disk d;
	const char *why;

	make_good(&h, &d);
	h.unclean = true;
	vmdk_header_encode(&h, &d);
	assert_int_equal(vmdk_header_decode(&d, &back, &why), 0);
	assert_memory_equal(&h, &back, sizeof(h));
}

static void directory_at_the_end(void **state)
{
	struct vmdk_header h, back;
	struct vmdk_header_disk d;
	const char *why;

	make_good(&h, &d);
	d.flags = le32_put(VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS);
	d.compress_algorithm = le16_put(1);
	d.gd_offset = le64_put(UINT64_MAX);
	assert_int_equal(vmdk_header_decode(&d, &back, &why), 0);
	assert_true(back.gd_at_end);
	assert_int_equal(back.rgd_offset, 0);
}

#define REFUSED(name, code, change)					\
static void name(void **state)						\
{									\
	struct vmdk_header_disk d;					\
	struct vmdk_header h;						\
	const char *why = NULL;						\
									\
	make_good(&h, &d);						\
	change;								\
	assert_int_equal(vmdk_header_decode(&d, &h, &why), code);	\
	assert_non_null(why);						\
}

REFUSED(magic, -EINVAL, d.magic[0] = 'C')
REFUSED(version_zero, -EOPNOTSUPP, d.version = le32_put(0))
REFUSED(version_four, -EOPNOTSUPP, d.version = le32_put(4))
REFUSED(unknown_flag, -EOPNOTSUPP, d.flags = le32_put(1 << 3))
REFUSED(newlines, -EINVAL, d.newlines[2] = '\n')
REFUSED(table_entries, -EOPNOTSUPP, d.num_gtes_per_gt = le32_put(1024))
REFUSED(no_markers, -EOPNOTSUPP, d.flags = le32_put(VMDK_FLAG_COMPRESSED))
REFUSED(method, -EOPNOTSUPP, (d.flags = le32_put(VMDK_FLAG_COMPRESSED |
	VMDK_FLAG_MARKERS), d.compress_algorithm = le16_put(2)))
REFUSED(grain_zero, -EINVAL, d.grain_size = le64_put(0))
REFUSED(grain_no_power, -EINVAL, d.grain_size = le64_put(96))
REFUSED(grain_small, -EINVAL, d.grain_size = le64_put(4))
REFUSED(grain_large, -EINVAL, d.grain_size = le64_put(65536))
REFUSED(grain_overflows, -EINVAL, d.grain_size = le64_put(1ull << 55))
REFUSED(capacity_zero, -EINVAL, d.capacity = le64_put(0))
REFUSED(capacity_huge, -EINVAL, d.capacity = le64_put(1ull << 63))
REFUSED(capacity_for_grains, -EINVAL, d.capacity = le64_put(1ull << 44))
REFUSED(descriptor_huge, -EINVAL, d.descriptor_size = le64_put(1024))
REFUSED(descriptor_overflows, -EINVAL, d.descriptor_size = le64_put(-1ull))
REFUSED(descriptor_far, -EINVAL, d.descriptor_offset = le64_put(-2ull))
REFUSED(gd_in_header, -EINVAL, d.gd_offset = le64_put(0))
REFUSED(gd_far, -EINVAL, d.gd_offset = le64_put(-2ull))
REFUSED(gd_in_descriptor, -EINVAL, d.gd_offset = le64_put(20))
REFUSED(rgd_in_header, -EINVAL, d.rgd_offset = le64_put(0))
REFUSED(rgd_far, -EINVAL, d.rgd_offset = le64_put(1ull << 60))
REFUSED(rgd_in_descriptor, -EINVAL, d.rgd_offset = le64_put(1))
REFUSED(rgd_is_gd, -EINVAL, d.rgd_offset = d.gd_offset)
REFUSED(overhead_far, -EINVAL, d.overhead = le64_put(-1ull))

static void layout_has_limits(void **state)
{
	struct vmdk_header h = { .grain_size = 65536 };

	assert_int_equal(vmdk_header_layout(&h), -EFBIG);
	h.capacity = UINT64_MAX;
	assert_int_equal(vmdk_header_layout(&h), -EFBIG);
	h.capacity = 63ull << 40;
	assert_int_equal(vmdk_header_layout(&h), 0);
	assert_true(h.overhead < VMDK_FILE_MAX);
	h.grain_size = 4096;
	assert_int_equal(vmdk_header_layout(&h), -EFBIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout_as_others),
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(directory_at_the_end),
		cmocka_unit_test(magic),
		cmocka_unit_test(version_zero),
		cmocka_unit_test(version_four),
		cmocka_unit_test(unknown_flag),
		cmocka_unit_test(newlines),
		cmocka_unit_test(table_entries),
		cmocka_unit_test(no_markers),
		cmocka_unit_test(method),
		cmocka_unit_test(grain_zero),
		cmocka_unit_test(grain_no_power),
		cmocka_unit_test(grain_small),
		cmocka_unit_test(grain_large),
		cmocka_unit_test(grain_overflows),
		cmocka_unit_test(capacity_zero),
		cmocka_unit_test(capacity_huge),
		cmocka_unit_test(capacity_for_grains),
		cmocka_unit_test(descriptor_huge),
		cmocka_unit_test(descriptor_overflows),
		cmocka_unit_test(descriptor_far),
		cmocka_unit_test(gd_in_header),
		cmocka_unit_test(gd_far),
		cmocka_unit_test(gd_in_descriptor),
		cmocka_unit_test(rgd_in_header),
		cmocka_unit_test(rgd_far),
		cmocka_unit_test(rgd_in_descriptor),
		cmocka_unit_test(rgd_is_gd),
		cmocka_unit_test(overhead_far),
		cmocka_unit_test(layout_has_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
