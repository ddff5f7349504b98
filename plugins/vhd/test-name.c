// SPDX-License-Identifier: GPL-2.0-or-later
/* Names of parents: UTF-16, paths as Windows writes them, URLs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "name.h"

static void there_and_back(void **state)
{
	static const char *const names[] = {
		"a", "base.vhd", "B\xc3\xa4se", "\xe2\x82\xac",
		"\xf0\x9f\x9a\x80.raw",
	};
	uint8_t raw[VHD_UTF16_MAX];
	char text[VHD_PATH_MAX + 1];
	size_t i;
	int n;

	for (i = 0; i < 2 * sizeof(names) / sizeof(*names); i++) {
		const char *name = names[i / 2];

		n = vhd_name_to_utf16(name, i % 2, raw, sizeof(raw));
		assert_true(n > 0);
		assert_int_equal(vhd_name_from_utf16(raw, (size_t)n, i % 2,
						     text), 0);
		assert_string_equal(text, name);
	}
}

static void no_text(void **state)
{
	uint8_t raw[VHD_UTF16_MAX] = { 0xd8, 0, 0, 'a' };
	char text[VHD_PATH_MAX + 1];

	assert_int_equal(vhd_name_from_utf16(raw, 4, true, text), -EINVAL);
	assert_int_equal(vhd_name_from_utf16(raw, 2, true, text), -EINVAL);
	raw[0] = 0xdc;
	assert_int_equal(vhd_name_from_utf16(raw, 4, true, text), -EINVAL);
	assert_int_equal(vhd_name_from_utf16(raw, 0, true, text), -EINVAL);
	/* As long as it gets: three bytes each. */
	memset(raw, 0x20, sizeof(raw));
	assert_int_equal(vhd_name_from_utf16(raw, sizeof(raw), true, text),
			 -EINVAL);
	assert_int_equal(vhd_name_to_utf16("\xff", true, raw, 100), -EINVAL);
	assert_int_equal(vhd_name_to_utf16("\xc0\x80", true, raw, 100),
			 -EINVAL);
	assert_int_equal(vhd_name_to_utf16("\xed\xa0\x80", true, raw, 100),
			 -EINVAL);
	assert_int_equal(vhd_name_to_utf16("\xe2\x82", true, raw, 100),
			 -EINVAL);
	assert_int_equal(vhd_name_to_utf16("abc", true, raw, 6), -EINVAL);
}

static void windows_paths(void **state)
{
	static const char *const pairs[][2] = {
		{ ".\\base.vhd", "base.vhd" },
		{ "..\\a\\base.vhd", "../a/base.vhd" },
		{ "\\a\\b", "/a/b" },
		{ "/a/b", "/a/b" },
		{ "C:\\Images\\base.vhd", "base.vhd" },
		{ "c:base.vhd", "c:base.vhd" },
		{ "\\\\server\\share\\base.vhd", "base.vhd" },
		{ "base.vhd", "base.vhd" },
	};
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		strcpy(path, pairs[i][0]);
		vhd_name_from_windows(path);
		assert_string_equal(path, pairs[i][1]);
	}
}

static void urls(void **state)
{
	static const char *const pairs[][2] = {
		{ "file:///a%20b/c", "/a b/c" },
		{ "file://localhost/a", "/a" },
		{ "file://./a%2Fb", "a/b" },
		{ "http://a/b", NULL },
		{ "file:///a%0", NULL },
		{ "file:///a%00b", NULL },
		{ "file://./", NULL },
	};
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		strcpy(path, pairs[i][0]);
		assert_int_equal(vhd_name_from_url(path), !!pairs[i][1]);
		if (pairs[i][1])
			assert_string_equal(path, pairs[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(no_text),
		cmocka_unit_test(windows_paths),
		cmocka_unit_test(urls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
