// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "descriptor.h"

#define HEAD "# Disk DescriptorFile\nversion=1\nCID=12ab34cd\n" \
	     "parentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
#define EXTENT "RW 100 FLAT \"a-flat.vmdk\" 0\n"

static int parse(const char *text, struct vmdk_descriptor *d, char **copy)
{
	size_t len = strlen(text);
	const char *why = NULL;
	int ret;

	*copy = malloc(len + 1);
	memcpy(*copy, text, len);
	ret = vmdk_descriptor_parse(*copy, len, d, &why);
	assert_true(!ret == !why);
	return ret;
}

static void good(void **state)
{
	struct vmdk_descriptor d;
	char *text;

	assert_int_equal(parse(HEAD "encoding=\"UTF-8\"\r\n"
		"# Extent description\n\n" EXTENT
		"  rdonly 7 sparse \"b c.vmdk\"\n"
		"RW 4192256 ZERO\n" "RW 8 VMFS \"d\" 16\n"
		"#DDB\nddb.adapterType = \"lsilogic\"\n"
		"ddb.virtualHWVersion = \"6\"\n", &d, &text), 0);
	assert_int_equal(d.cid, 0x12ab34cd);
	assert_int_equal(d.cid_digits.at, strstr(HEAD, "12ab") - HEAD);
	assert_int_equal(d.cid_digits.count, 8);
	assert_int_equal(d.parent_cid, VMDK_NO_PARENT);
	assert_null(d.parent);
	assert_string_equal(d.create_type, "monolithicFlat");
	assert_string_equal(d.adapter_type, "lsilogic");
	assert_string_equal(d.hw_version, "6");
	assert_int_equal(d.nr_extents, 4);
	assert_int_equal(d.extents[0].type, VMDK_FLAT);
	assert_int_equal(d.extents[1].access, VMDK_RDONLY);
	assert_int_equal(d.extents[1].type, VMDK_SPARSE);
	assert_int_equal(d.extents[1].sectors, 7);
	assert_string_equal(d.extents[1].path, "b c.vmdk");
	assert_int_equal(d.extents[2].type, VMDK_ZERO);
	assert_int_equal(d.extents[3].type, VMDK_FLAT);
	assert_int_equal(d.extents[3].offset, 16);
	vmdk_descriptor_release(&d);
	free(text);
}

static void parent(void **state)
{
	struct vmdk_descriptor d;
	char *text;

	assert_int_equal(parse("# disk descriptorfile\nCID=1\nparentCID=7f\n"
		"createtype=\"x\"\nparentFileNameHint=\"/a b/c.vmdk\"\n"
		"ddb.longContentID = \"00112233445566778899aabb00000001\"\n"
		EXTENT, &d, &text), 0);
	assert_int_equal(d.cid_digits.count, 1);
	assert_int_equal(d.parent_cid, 0x7f);
	assert_string_equal(d.parent, "/a b/c.vmdk");
	assert_int_equal(d.long_digits.count, 8);
	vmdk_descriptor_release(&d);
	free(text);
}

static void refused(const char *text, int code)
{
	struct vmdk_descriptor d;
	char *copy;
	int ret = parse(text, &d, &copy);

	if (ret != code)
		fail_msg("%d instead of %d for: %s", ret, code, text);
	vmdk_descriptor_release(&d);
	free(copy);
}

static void bad(void **state)
{
	refused("", -EINVAL);
	refused("# Disk Descriptor", -EINVAL);
	refused(HEAD, -EINVAL);
	refused("# Disk DescriptorFile\ncreateType=\"x\"\n" EXTENT, -EINVAL);
	refused("# Disk DescriptorFile\nCID=1\n" EXTENT, -EINVAL);
	refused(HEAD EXTENT "CID=2\n", -EINVAL);
	refused(HEAD EXTENT "parentCID=2\n", -EINVAL);
	refused(HEAD EXTENT "createType=\"y\"\n", -EINVAL);
	refused("# Disk DescriptorFile\nCID=123456789\n", -EINVAL);
	refused("# Disk DescriptorFile\nCID=xyz\n", -EINVAL);
	refused("# Disk DescriptorFile\nCID=1\nparentCID=2\n"
		"createType=\"x\"\n" EXTENT, -EINVAL);
	refused("# Disk DescriptorFile\nversion=4\n", -EOPNOTSUPP);
	refused(HEAD EXTENT "what is this\n", -EINVAL);
	refused(HEAD EXTENT "ddb.x = \"y\n", -EINVAL);
	refused(HEAD EXTENT "encryption.keySafe = \"x\"\n", -EOPNOTSUPP);
	refused(HEAD EXTENT "isNativeSnapshot=\"yes\"\n", -EOPNOTSUPP);
}

static void bad_extents(void **state)
{
	refused(HEAD "RW 100 FLAT\n", -EINVAL);
	refused(HEAD "RW 100 FLAT a.vmdk\n", -EINVAL);
	refused(HEAD "RW 100 FLAT \"\"\n", -EINVAL);
	refused(HEAD "RW 100 FLAT \"a\n", -EINVAL);
	refused(HEAD "RW 100 FLAT \"a\" x\n", -EINVAL);
	refused(HEAD "RW 100 FLAT \"a\" -1\n", -EINVAL);
	refused(HEAD "RW 0 FLAT \"a\"\n", -EINVAL);
	refused(HEAD "RW -5 FLAT \"a\"\n", -EINVAL);
	refused(HEAD "RW 36893488147419103232 FLAT \"a\"\n", -EINVAL);
	refused(HEAD "RW 18446744073709551615 FLAT \"a\"\n", -EINVAL);
	refused(HEAD "RW 1 SPARSE \"a\" 7\n", -EINVAL);
	refused(HEAD "RW 1 VMFSSPARSE \"a\"\n", -EOPNOTSUPP);
	refused(HEAD "RW 1 SESPARSE \"a\"\n", -EOPNOTSUPP);
	refused(HEAD "RW 1 VMFSRDM \"a\"\n", -EOPNOTSUPP);
}

static void many_extents(void **state)
{
	char *text = malloc(64 + 1025 * sizeof(EXTENT) + sizeof(HEAD));
	char *to = stpcpy(text, HEAD);
	unsigned int i;

	for (i = 0; i < VMDK_EXTENTS_MAX + 1; i++)
		to = stpcpy(to, EXTENT);
	refused(text, -E2BIG);
	free(text);
}

static void what_is_written_is_read(void **state)
{
	struct vmdk_new_descriptor n = {
		.cid = 0x0badcafe, .parent_cid = 0x12,
		.create_type = "monolithicSparse", .parent = "../p.vmdk",
		.sectors = 20160, .name = "top.vmdk", .adapter_type = "ide",
		.hw_version = "4",
	};
	struct vmdk_descriptor d;
	char buf[2048], *text;

	assert_true(vmdk_descriptor_format(&n, buf, sizeof(buf)) > 0);
	assert_non_null(strstr(buf, "cylinders = \"20\""));
	assert_int_equal(parse(buf, &d, &text), 0);
	assert_int_equal(d.cid, 0x0badcafe);
	assert_int_equal(d.parent_cid, 0x12);
	assert_string_equal(d.parent, "../p.vmdk");
	assert_int_equal(d.nr_extents, 1);
	assert_int_equal(d.extents[0].sectors, 20160);
	assert_string_equal(d.extents[0].path, "top.vmdk");
	assert_int_equal(vmdk_descriptor_format(&n, buf, 300), -ENOSPC);
	vmdk_descriptor_release(&d);
	free(text);
}

/* No digit stays: a crash that leaves some of them leaves no old number. */
static void every_digit_changes(void **state)
{
	static const char *const old[] = { "fffffffe", "00000000", "89abcdef",
					   "DEADBEEF" };
	unsigned int i, j, k;
	char now[9] = "";

	for (i = 0; i < 4; i++) {
		for (j = 0; j < 1000; j++) {
			memcpy(now, old[i], 8);
			vmdk_change_digits(now, 8, j * 2654435761u);
			for (k = 0; k < 8; k++) {
				assert_true((now[k] | 32) != (old[i][k] | 32));
				assert_non_null(strchr("0123456789abcde",
						       now[k]));
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),
		cmocka_unit_test(parent),
		cmocka_unit_test(bad),
		cmocka_unit_test(bad_extents),
		cmocka_unit_test(many_extents),
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(every_digit_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
