// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "format.h"

#define FILE_SIZE (1ull << 20)

static char why[QCOW_WHY_MAX];

static struct qcow_header good(void)
{
	return (struct qcow_header){
		.size = 3u << 20,
		.cluster_bits = 12,
		.l2_bits = 9,
		.l1_offset = 4096,
		.name_offset = 48,
		.name_len = 4,
	};
}

static struct qcow_header_disk on_disk(const struct qcow_header *h)
{
	struct qcow_header_disk d;

	qcow_header_encode(h, &d);
	return d;
}

static void what_is_encoded_is_decoded(void **state)
{
	struct qcow_header h = good(), back;
	struct qcow_header_disk d = on_disk(&h);

	assert_true(qcow_is_image(&d, sizeof(d)));
	assert_int_equal(qcow_header_decode(&d, sizeof(d), FILE_SIZE, &back,
					    why), 0);
	h.l1_entries = 2;
	assert_memory_equal(&h, &back, sizeof(h));
}

static void bytes_are_where_the_format_has_them(void **state)
{
	static const uint8_t bytes[48] = {
		'Q', 'F', 'I', 0xfb, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 48,
		0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0,
		12, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0,
	};
	struct qcow_header h = good();
	struct qcow_header_disk d = on_disk(&h);

	assert_memory_equal(&d, bytes, sizeof(bytes));
}

static void refused(const struct qcow_header_disk *d, size_t len, int code,
		    const char *text)
{
	struct qcow_header h;

	why[0] = 0;
	assert_int_equal(qcow_header_decode(d, len, FILE_SIZE, &h, why), code);
	if (!strstr(why, text))
		fail_msg("\"%s\" does not say \"%s\"", why, text);
}

static void other_kinds_are_refused(void **state)
{
	struct qcow_header h = good();
	struct qcow_header_disk d = on_disk(&h);

	refused(&d, 47, -EINVAL, "is no qcow image");
	d.version = be32_put(2);
	refused(&d, sizeof(d), -EINVAL, "qcow2 (version 2)");
	d.version = be32_put(7);
	refused(&d, sizeof(d), -EOPNOTSUPP, "version 7");
	d.version = be32_put(1);
	d.crypt_method = be32_put(1);
	refused(&d, sizeof(d), -EOPNOTSUPP, "AES");
	d.crypt_method = be32_put(2);
	refused(&d, sizeof(d), -EOPNOTSUPP, "unknown method 2");
	d.magic = be32_put(0);
	refused(&d, sizeof(d), -EINVAL, "is no qcow image");
}

#define REFUSED(member, value, code, text) do {				\
	struct qcow_header h = good();					\
	struct qcow_header_disk d;					\
									\
	h.member = value;						\
	d = on_disk(&h);						\
	refused(&d, sizeof(d), code, text);				\
} while (0)

static void what_is_out_of_range_is_refused(void **state)
{
	REFUSED(cluster_bits, 8, -EINVAL, "clusters of 2^8");
	REFUSED(cluster_bits, 17, -EINVAL, "clusters of 2^17");
	REFUSED(l2_bits, 5, -EINVAL, "L2 tables of 2^5");
	REFUSED(l2_bits, 14, -EINVAL, "L2 tables of 2^14");
	REFUSED(size, 0, -EINVAL, "0 bytes");
	REFUSED(size, UINT64_MAX, -EFBIG, "too large");
	REFUSED(size, QCOW_L1_MAX << 21, -EINVAL, "past the end");
	REFUSED(size, (QCOW_L1_MAX << 21) + 1, -EFBIG, "too large");
	REFUSED(name_len, 1024, -EINVAL, "1023 is the most");
	REFUSED(name_offset, 40, -EINVAL, "in the header");
	REFUSED(name_offset, FILE_SIZE - 3, -EINVAL, "past the end");
	REFUSED(name_offset, UINT64_MAX, -EINVAL, "past the end");
	REFUSED(l1_offset, 4100, -EINVAL, "no multiple of 8");
	REFUSED(l1_offset, 40, -EINVAL, "in the header");
	REFUSED(l1_offset, 48, -EINVAL, "in the name");
	REFUSED(l1_offset, FILE_SIZE - 8, -EINVAL, "past the end");
	REFUSED(l1_offset, UINT64_MAX - 7, -EINVAL, "past the end");
}

static void a_compressed_entry_has_length_and_place(void **state)
{
	struct qcow_header h = { .cluster_bits = 16 };
	uint64_t entry = QCOW_COMPRESSED | 0xabcdull << 47 | 0x123456789abull;

	assert_int_equal(qcow_packed_len(&h, entry), 0xabcd);
	assert_int_equal(qcow_packed_offset(&h, entry), 0x123456789abull);
	h.cluster_bits = 9;
	entry = QCOW_COMPRESSED | 511ull << 54 | ((1ull << 54) - 1);
	assert_int_equal(qcow_packed_len(&h, entry), 511);
	assert_int_equal(qcow_packed_offset(&h, entry), (1ull << 54) - 1);
}

static void a_record_is_found_again(void **state)
{
	char record[QCOW_RECORD_MAX], format[QCOW_FORMAT_MAX + 1];
	size_t len = qcow_record_encode("dscow", record), i;

	assert_int_equal(len, sizeof("xformat=dscow"));
	assert_true(qcow_record_decode(record, len, format));
	assert_string_equal(format, "dscow");
	for (i = 0; i < len; i++)
		assert_false(qcow_record_decode(record, i, format));
	len = qcow_record_encode("12345678901234567890123456789012", record);
	assert_int_equal(len, sizeof(record));
	assert_true(qcow_record_decode(record, len, format));
	record[len - 1] = 'x';
	assert_false(qcow_record_decode(record, len, format));
	len = qcow_record_encode("../evil", record);
	assert_false(qcow_record_decode(record, len, format));
	memset(record, 0, sizeof(record));
	assert_false(qcow_record_decode(record, sizeof(record), format));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(bytes_are_where_the_format_has_them),
		cmocka_unit_test(other_kinds_are_refused),
		cmocka_unit_test(what_is_out_of_range_is_refused),
		cmocka_unit_test(a_compressed_entry_has_length_and_place),
		cmocka_unit_test(a_record_is_found_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
