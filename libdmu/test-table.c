// SPDX-License-Identifier: LGPL-2.1-or-later
/* Table lines: what is written, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dmu.h"

static const struct dmu_dest two[] = {
	{ .dev = "/dev/loop0" },
	{ .dev = "7:1", .read_only = true },
};

static struct dmu_table good(void)
{
	return (struct dmu_table){
		.key = "mydev",		.nr_sectors = 2048,
		.block_sectors = 128,	.nr_dests = 2,
		.dests = two,
	};
}

static void expect_line(const struct dmu_table *table, const char *line)
{
	char buf[256];

	assert_int_equal(dmu_table_format(table, buf, sizeof(buf)), 0);
	assert_string_equal(buf, line);
}

static void expect_refused(const struct dmu_table *table)
{
	char buf[256];

	assert_int_equal(dmu_table_format(table, buf, sizeof(buf)), -EINVAL);
}

static void lines(void **state)
{
	struct dmu_table table = good();
	struct dmu_dest fresh;

	(void)state;
	expect_line(&table, "mydev 128 2 /dev/loop0 ro:7:1");
	table.policy = DMU_POLICY_FAIL;
	expect_line(&table, "mydev 128 2 /dev/loop0 ro:7:1 1 fail");
	table.policy = DMU_POLICY_TIMEOUT;
	table.timeout_s = 30;
	table.map_memory_kib = 512;
	expect_line(&table, "mydev 128 2 /dev/loop0 ro:7:1 4 timeout 30 map_memory 512");
	table.policy = DMU_POLICY_QUEUE;
	fresh = table.dests[1];
	fresh.fresh = true;
	table.dests = &fresh;
	table.nr_dests = 1;
	expect_line(&table, "mydev 128 1 new:ro:7:1 2 map_memory 512");
	table.dests = good().dests;
	expect_line(&table, "mydev 128 1 /dev/loop0 2 map_memory 512");
	table.no_space_wait = true;
	expect_line(&table, "mydev 128 1 /dev/loop0 4 map_memory 512 no_space wait");
	table.no_space_wait = false;
}

static void refused(void **state)
{
	static const struct dmu_dest odd = { .dev = "/dev/with space" };
	struct dmu_table table;
	char key[DMU_KEY_LEN + 1];

	(void)state;
	memset(key, 'k', sizeof(key));
	key[DMU_KEY_LEN] = '\0';
#define REFUSED(field, value) do {			\
		table = good();				\
		table.field = value;			\
		expect_refused(&table);			\
	} while (0)
	REFUSED(key, NULL);
	REFUSED(key, "");
	REFUSED(key, "a b");
	REFUSED(key, "a\\b");
	REFUSED(key, key);
	REFUSED(nr_sectors, 0);
	REFUSED(block_sectors, 0);
	REFUSED(block_sectors, 3);
	REFUSED(block_sectors, 65536);
	REFUSED(nr_dests, 0);
	REFUSED(nr_dests, DMU_MAX_DEVS + 1);
	REFUSED(policy, DMU_POLICY_TIMEOUT);
	REFUSED(map_memory_kib, 1ull << 32);
	table = good();
	table.policy = DMU_POLICY_TIMEOUT;
	table.timeout_s = 86401;
	expect_refused(&table);
	table = good();
	table.dests = &odd;
	table.nr_dests = 1;
	expect_refused(&table);
}

static void too_long(void **state)
{
	struct dmu_table table = good();
	const char *line = "mydev 128 2 /dev/loop0 ro:7:1";
	char buf[64];

	(void)state;
	assert_int_equal(dmu_table_format(&table, buf, strlen(line)), -E2BIG);
	assert_int_equal(dmu_table_format(&table, buf, strlen(line) + 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(refused),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
