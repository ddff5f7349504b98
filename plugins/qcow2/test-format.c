// SPDX-License-Identifier: GPL-2.0-or-later
/* The codec of qcow2: header, entries, refcounts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "format.h"

#define CLUSTER 65536u

static uint8_t image[CLUSTER];

static struct qcow2_header_disk *disk(void)
{
	return (struct qcow2_header_disk *)image;
}

static void make_good(struct qcow2_header *h)
{
	memset(image, 0, sizeof(image));
	*h = (struct qcow2_header){
		.version = 3,
		.cluster_bits = 16,
		.size = 1ull << 30,
		.l1_size = 2,
		.l1_offset = 3 * CLUSTER,
		.reftable_offset = CLUSTER,
		.reftable_clusters = 1,
		.refcount_order = 4,
		.header_length = QCOW2_HEADER_NEW,
		.backing = "/images/golden.img",
		.backing_format = "raw",
		.compatible = QCOW2_COMPAT_LAZY,
	};
	assert_int_equal(qcow2_header_encode(h, image), 0);
}

static void what_is_encoded_is_decoded(void **state)
{
	static struct qcow2_header h, back;
	char why[QCOW2_WHY_MAX];

	make_good(&h);
	assert_int_equal(qcow2_header_decode(image, CLUSTER, &back, why), 0);
	assert_memory_equal(&h, &back, sizeof(h));
	h.compression = QCOW2_ZSTD;
	h.incompatible = QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTL2 |
			 QCOW2_INCOMPAT_DATA_FILE;
	h.l1_size = 4;
	strcpy(h.data_file, "data");
	memset(image, 0, sizeof(image));
	assert_int_equal(qcow2_header_encode(&h, image), 0);
	assert_int_equal(qcow2_header_decode(image, CLUSTER, &back, why), 0);
	assert_memory_equal(&h, &back, sizeof(h));
}

static void names_must_fit(void **state)
{
	static struct qcow2_header h;
	static uint8_t small[512];

	make_good(&h);
	h.cluster_bits = 9;
	memset(h.backing, 'x', QCOW2_NAME_MAX);
	assert_int_equal(qcow2_header_encode(&h, small), -ENAMETOOLONG);
}

static void refuses(int code, const char *text)
{
	static struct qcow2_header h;
	char why[QCOW2_WHY_MAX] = "";

	assert_int_equal(qcow2_header_decode(image, CLUSTER, &h, why), code);
	if (!strstr(why, text))
		fail_msg("\"%s\" does not say \"%s\"", why, text);
}

#define REFUSED(name, code, text, change)				\
static void name(void **state)						\
{									\
	static struct qcow2_header h;					\
									\
	make_good(&h);							\
	change;								\
	refuses(code, text);						\
}

REFUSED(wrong_magic, -EINVAL, "no qcow2", disk()->magic = be32_put(7))
REFUSED(version_1, -EINVAL, "version 1", disk()->version = be32_put(1))
REFUSED(version_4, -EOPNOTSUPP, "version 4", disk()->version = be32_put(4))
REFUSED(small_clusters, -EINVAL, "2^8", disk()->cluster_bits = be32_put(8))
REFUSED(large_clusters, -EINVAL, "2^22", disk()->cluster_bits = be32_put(22))
REFUSED(aes, -EOPNOTSUPP, "AES", disk()->crypt_method = be32_put(1))
REFUSED(luks, -EOPNOTSUPP, "LUKS", disk()->crypt_method = be32_put(2))
REFUSED(other_crypt, -EOPNOTSUPP, "method 9",
	disk()->crypt_method = be32_put(9))
REFUSED(l1_too_small, -EINVAL, "too small", disk()->l1_size = be32_put(1))
REFUSED(l1_too_large, -EFBIG, "L1 table",
	disk()->l1_size = be32_put(0x7fffffff))
REFUSED(size_of_2_63, -EFBIG, "9223372036854775808",
	disk()->size = be64_put(1ull << 63))
REFUSED(l1_not_aligned, -EINVAL, "not aligned",
	disk()->l1_table_offset = be64_put(3 * CLUSTER + 512))
REFUSED(l1_out_of_range, -EINVAL, "out of range",
	disk()->l1_table_offset = be64_put(1ull << 60))
REFUSED(l1_in_header, -EINVAL, "out of range",
	disk()->l1_table_offset = be64_put(0))
REFUSED(l1_in_reftable, -EINVAL, "within its refcount table",
	disk()->l1_table_offset = be64_put(CLUSTER))
REFUSED(reftable_not_aligned, -EINVAL, "not aligned",
	disk()->refcount_table_offset = be64_put(100))
REFUSED(reftable_empty, -EINVAL, "refcount table of 0",
	disk()->refcount_table_clusters = be32_put(0))
REFUSED(reftable_too_large, -EINVAL, "refcount table of 129",
	disk()->refcount_table_clusters = be32_put(129))
REFUSED(too_many_snapshots, -EFBIG, "snapshots",
	disk()->nb_snapshots = be32_put(65537))
REFUSED(snapshots_not_aligned, -EINVAL, "snapshot table",
	disk()->nb_snapshots = be32_put(1);
	disk()->snapshots_offset = be64_put(5))
REFUSED(wide_refcounts, -EINVAL, "2^7",
	disk()->refcount_order = be32_put(7))
REFUSED(short_header, -EINVAL, "header of 100",
	disk()->header_length = be32_put(100))
REFUSED(long_header, -EINVAL, "header of 65544",
	disk()->header_length = be32_put(CLUSTER + 8))
REFUSED(odd_header, -EINVAL, "header of 106",
	disk()->header_length = be32_put(106))
REFUSED(unknown_feature, -EOPNOTSUPP, "bit 7",
	disk()->incompatible_features = be64_put(1 << 7))
REFUSED(unknown_compression, -EOPNOTSUPP, "method 2",
	disk()->compression_type = 2;
	disk()->incompatible_features = be64_put(QCOW2_INCOMPAT_COMPRESSION))
REFUSED(compression_denied, -EINVAL, "deny", disk()->compression_type = 1)
REFUSED(compression_missing, -EINVAL, "deny",
	disk()->incompatible_features = be64_put(QCOW2_INCOMPAT_COMPRESSION))
REFUSED(raw_without_data_file, -EINVAL, "has none",
	disk()->autoclear_features = be64_put(QCOW2_AUTOCLEAR_DATA_RAW))
REFUSED(backing_outside, -EINVAL, "outside",
	disk()->backing_file_offset = be64_put(CLUSTER - 2))
REFUSED(backing_in_header, -EINVAL, "outside",
	disk()->backing_file_offset = be64_put(8))
REFUSED(backing_too_long, -EINVAL, "1024 bytes",
	disk()->backing_file_size = be32_put(1024))
REFUSED(extension_too_long, -EINVAL, "too long",
	memset(image + QCOW2_HEADER_NEW + 4, 0x7f, 4))
REFUSED(extended_needs_16k, -EINVAL, "16384",
	disk()->cluster_bits = be32_put(12);
	disk()->incompatible_features = be64_put(QCOW2_INCOMPAT_EXTL2))

/* The image itself may name a feature. */
static void feature_is_named(void **state)
{
	static struct qcow2_header h;
	uint8_t *x = image + QCOW2_HEADER_NEW;
	static const uint8_t ext[] = { 0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 48,
				       0, 9 };

	make_good(&h);
	memset(x, 0, CLUSTER - QCOW2_HEADER_NEW);
	memcpy(x, ext, sizeof(ext));
	strcpy((char *)x + sizeof(ext), "time travel");
	disk()->backing_file_offset = be64_put(0);
	disk()->incompatible_features = be64_put(1 << 9);
	refuses(-EOPNOTSUPP, "\"time travel\"");
}

static void every_length_is_survived(void **state)
{
	static struct qcow2_header h, back;
	char why[QCOW2_WHY_MAX];
	size_t len;

	make_good(&h);
	for (len = 0; len < 600; len++)
		qcow2_header_decode(image, len, &back, why);
	assert_int_equal(qcow2_header_decode(image, 71, &back, why), -EINVAL);
	assert_int_equal(qcow2_header_decode(image, 103, &back, why), -EINVAL);
}

/* --- Entries ----------------------------------------------------------------- */

static const struct qcow2_geometry standard = {
	.version = 3, .cluster_bits = 16, .cluster_size = CLUSTER,
	.block_size = CLUSTER, .entry_size = 8, .l2_bits = 13,
};

static const char *fault(const struct qcow2_geometry *g, uint64_t a,
			 uint64_t b, struct qcow2_entry *e)
{
	be64 raw[2] = { be64_put(a), be64_put(b) };

	return qcow2_entry_decode(g, raw, 7 * CLUSTER, e);
}

static void standard_entries(void **state)
{
	struct qcow2_entry e;
	be64 raw;

	assert_null(fault(&standard, 0, 0, &e));
	assert_false(e.alloc || e.zero || e.has_host);
	assert_null(fault(&standard, QCOW2_COPIED | 5 * CLUSTER, 0, &e));
	assert_true(e.alloc && e.copied && e.host == 5 * CLUSTER);
	qcow2_entry_encode(&standard, &e, &raw);
	assert_true(be64_get(raw) == (QCOW2_COPIED | 5 * CLUSTER));
	assert_null(fault(&standard, QCOW2_ZERO | 5 * CLUSTER, 0, &e));
	assert_true(e.zero && !e.alloc && e.has_host);
	assert_non_null(fault(&standard, 5 * CLUSTER + 512, 0, &e));
	assert_non_null(fault(&standard, 5 * CLUSTER + 2, 0, &e));
	assert_non_null(fault(&standard, 5 * CLUSTER + (1ull << 58), 0, &e));
	assert_non_null(fault(&standard, QCOW2_COPIED, 0, &e));
}

static void version_2_has_no_zero(void **state)
{
	struct qcow2_geometry g = standard;
	struct qcow2_entry e;

	g.version = 2;
	assert_non_null(fault(&g, QCOW2_ZERO, 0, &e));
}

/* With clusters of 64 KiB, x is 54: offset, then 8 bits of sectors. */
static void compressed_entries(void **state)
{
	struct qcow2_entry e;

	assert_null(fault(&standard, QCOW2_COMPRESSED | 3ull << 54 | 12345, 0,
			  &e));
	assert_true(e.compressed && e.host == 12345 && e.sectors == 4);
	assert_non_null(fault(&standard, QCOW2_COMPRESSED | QCOW2_COPIED | 1,
			      0, &e));
}

static void extended_entries(void **state)
{
	struct qcow2_geometry g = standard;
	struct qcow2_entry e;
	be64 raw[2];

	g.extended = true;
	g.sub_bits = 5;
	g.entry_size = 16;
	assert_null(fault(&g, QCOW2_COPIED | CLUSTER, 6ull << 32 | 1, &e));
	assert_true(e.alloc == 1 && e.zero == 6);
	qcow2_entry_encode(&g, &e, raw);
	assert_true(be64_get(raw[1]) == (6ull << 32 | 1));
	assert_non_null(fault(&g, QCOW2_COPIED | CLUSTER, 1ull << 32 | 1, &e));
	assert_non_null(fault(&g, 0, 1, &e));
	assert_non_null(fault(&g, CLUSTER | QCOW2_ZERO, 0, &e));
	assert_non_null(fault(&g, QCOW2_COMPRESSED | 1, 1, &e));
}

static void data_file_entries(void **state)
{
	struct qcow2_geometry g = standard;
	struct qcow2_entry e;

	g.data_file = true;
	assert_null(fault(&g, QCOW2_COPIED | 7 * CLUSTER, 0, &e));
	assert_true(e.alloc);
	assert_non_null(fault(&g, QCOW2_COPIED | 8 * CLUSTER, 0, &e));
	assert_non_null(fault(&g, QCOW2_COMPRESSED | 1, 0, &e));
}

/* --- Refcounts ---------------------------------------------------------------- */

static void refcounts_of_all_widths(void **state)
{
	uint8_t block[64];
	uint32_t order;
	uint64_t n, max, entries;

	for (order = 0; order <= 6; order++) {
		memset(block, 0, sizeof(block));
		max = qcow2_ref_max(order);
		entries = sizeof(block) * 8 >> order;
		for (n = 0; n < entries; n += 2)
			qcow2_ref_set(block, order, n, max);
		for (n = 0; n < entries; n++)
			assert_true(qcow2_ref_get(block, order, n) ==
				    (n % 2 ? 0 : max));
		qcow2_ref_set(block, order, 1, 1);
		assert_true(qcow2_ref_get(block, order, 0) == max);
		assert_true(qcow2_ref_get(block, order, 1) == 1);
		assert_true(qcow2_ref_next_free(block, order, 0, entries) ==
			    3);
		assert_true(qcow2_ref_next_used(block, order, 3, entries) ==
			    (entries > 4 ? 4 : entries));
	}
}

/* Where the specification says that they stand. */
static void refcounts_in_file_order(void **state)
{
	uint8_t block[8] = { 0 };

	qcow2_ref_set(block, 1, 1, 2);
	assert_int_equal(block[0], 2 << 2);
	qcow2_ref_set(block, 4, 1, 0x1234);
	assert_int_equal(block[2], 0x12);
	assert_int_equal(block[3], 0x34);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_encoded_is_decoded), T(names_must_fit),
		T(wrong_magic), T(version_1), T(version_4), T(small_clusters),
		T(large_clusters), T(aes), T(luks), T(other_crypt),
		T(l1_too_small), T(l1_too_large), T(size_of_2_63),
		T(l1_not_aligned), T(l1_out_of_range), T(l1_in_header),
		T(l1_in_reftable), T(reftable_not_aligned), T(reftable_empty),
		T(reftable_too_large), T(too_many_snapshots),
		T(snapshots_not_aligned), T(wide_refcounts), T(short_header),
		T(long_header), T(odd_header), T(unknown_feature),
		T(unknown_compression), T(compression_denied),
		T(compression_missing), T(raw_without_data_file),
		T(backing_outside), T(backing_in_header), T(backing_too_long),
		T(extension_too_long), T(extended_needs_16k),
		T(feature_is_named), T(every_length_is_survived),
		T(standard_entries), T(version_2_has_no_zero),
		T(compressed_entries), T(extended_entries),
		T(data_file_entries), T(refcounts_of_all_widths),
		T(refcounts_in_file_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
