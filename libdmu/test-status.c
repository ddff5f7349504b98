// SPDX-License-Identifier: LGPL-2.1-or-later
/* Status lines: fields are found by name, and what is damaged is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dmu.h"

static void fields(void **state)
{
	struct dmu_status st;

	(void)state;
	assert_int_equal(dmu_status_parse("1 queue 128 3 faults 7 hits_read 9 map_bytes 18446744073709551615",
					  &st), 0);
	assert_true(st.attached);
	assert_int_equal(st.policy, DMU_POLICY_QUEUE);
	assert_int_equal(st.block_sectors, 128);
	assert_int_equal(st.faults, 7);
	assert_int_equal(st.hits_read, 9);
	assert_true(st.map_bytes == UINT64_MAX);
	assert_int_equal(st.hits_write, 0);
}

static void policies(void **state)
{
	struct dmu_status st;

	(void)state;
	assert_int_equal(dmu_status_parse("0 fail 1 0", &st), 0);
	assert_int_equal(st.policy, DMU_POLICY_FAIL);
	assert_false(st.attached);
	assert_int_equal(dmu_status_parse("0 timeout 8 1 failed 1", &st), 0);
	assert_int_equal(st.policy, DMU_POLICY_TIMEOUT);
	assert_int_equal(st.failed, 1);
}

static void newer_kernel(void **state)
{
	struct dmu_status st;

	(void)state;
	assert_int_equal(dmu_status_parse("1 queue 128 2 something_new 5 faults 1",
					  &st), 0);
	assert_int_equal(st.faults, 1);
}

static void damaged(void **state)
{
	static const char *const lines[] = {
		"", "1", "2 queue 128 0", "1 other 128 0", "1 queue",
		"1 queue x 0", "1 queue 128", "1 queue 128 1", "1 queue 128 1 a",
		"1 queue 128 1 a b", "1 queue 128 1 a 1 b", "1 queue 128 1 a -1",
		"1 timeout:3 8 0", "1 Queue 8 0", "1 queue 99999999 0",
		"1 queue 128 1 a 99999999999999999999",
	};
	struct dmu_status st;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (dmu_status_parse(lines[i], &st) != -EINVAL)
			fail_msg("accepted: %s", lines[i]);
}

static void table_features(void **state)
{
	static const struct {
		const char *line;
		int err;
		enum dmu_policy policy;
		uint32_t timeout_s;
		uint64_t map_memory_kib;
		bool no_space_wait;
	} lines[] = {
		{ "mydev 128 2 7:0 ro:7:1 5 queue map_memory 65536 no_space fail",
		  0, DMU_POLICY_QUEUE, 0, 65536, false },
		{ "mydev 128 2 7:0 ro:7:1 3 fail map_memory 65536\n", 0,
		  DMU_POLICY_FAIL, 0, 65536, false },
		{ "mydev 128 1 7:0 4 timeout 30 map_memory 65536", 0,
		  DMU_POLICY_TIMEOUT, 30, 65536, false },
		{ "mydev 128 1 7:0 4 map_memory 65536 timeout 86400", 0,
		  DMU_POLICY_TIMEOUT, 86400, 65536, false },
		/* Names of devices and keys are not words of the policy. */
		{ "fail 128 1 timeout", 0, DMU_POLICY_QUEUE, 0, 0, false },
		{ "fail 128 1 timeout 2 newer fail", 0, DMU_POLICY_QUEUE, 0, 0,
		  false },
		{ "mydev 128 1 7:0 3 no_space wait fail", 0, DMU_POLICY_FAIL, 0,
		  0, true },
		{ .line = "", .err = -EINVAL },
		{ .line = "mydev 128", .err = -EINVAL },
		{ .line = "mydev 128 2 7:0", .err = -EINVAL },
		{ .line = "mydev 128 99999 7:0 1 fail", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 2 fail", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 x", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 1 newer", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 1 timeout", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 1 timeout 30", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 2 timeout 0", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 2 timeout 4294967296", .err = -EINVAL },
		{ .line = "mydev 128 1 7:0 2 map_memory x", .err = -EINVAL },
	};
	struct dmu_table table;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (dmu_table_features(lines[i].line, &table) != lines[i].err)
			fail_msg("%s: not as wanted", lines[i].line);
		if (lines[i].err)
			continue;
		assert_int_equal(table.policy, lines[i].policy);
		assert_int_equal(table.timeout_s, lines[i].timeout_s);
		assert_int_equal(table.map_memory_kib, lines[i].map_memory_kib);
		assert_int_equal(table.no_space_wait, lines[i].no_space_wait);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(policies),
		cmocka_unit_test(newer_kernel),
		cmocka_unit_test(damaged),
		cmocka_unit_test(table_features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
