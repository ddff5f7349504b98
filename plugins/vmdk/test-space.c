// SPDX-License-Identifier: GPL-2.0-or-later
/* Places: who has them, and when they may be given again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <common/bits.h>

#include "runs.h"
#include "space.h"

#define UNIT 4096u

static void setup(struct vmdk_space *s, uint64_t end)
{
	assert_int_equal(vmdk_space_init(s, UNIT, end, 100), 0);
	bits_set(s->ref, 0);
	vmdk_space_ready(s);
}

/* Metadata is never given. */
static void header_is_not_given(void **state)
{
	struct vmdk_space s;
	uint64_t unit;

	setup(&s, 4);
	assert_int_equal(vmdk_space_find(&s, 8, &unit), 3);
	assert_int_equal(unit, 1);
	vmdk_space_give(&s, unit, 3);
	assert_int_equal(vmdk_space_find(&s, 1, &unit), 0);
	assert_false(vmdk_space_may_use(&s, 0));
	assert_true(vmdk_space_may_use(&s, 1));
	assert_false(vmdk_space_may_use(&s, 4));
	vmdk_space_free(&s);
}

/* A place that was given up is used again after a commit, not before. */
static void freed_waits_for_a_commit(void **state)
{
	struct vmdk_space s;
	uint64_t unit;

	setup(&s, 2);
	vmdk_space_give(&s, 1, 1);
	vmdk_space_use(&s, 1);
	vmdk_space_commit(&s);
	vmdk_space_drop(&s, 1);
	/* This commit began before it was given up. */
	vmdk_space_committed(&s, true);
	assert_int_equal(vmdk_space_find(&s, 1, &unit), 0);
	assert_false(vmdk_space_may_use(&s, 1));
	vmdk_space_commit(&s);
	assert_int_equal(vmdk_space_find(&s, 1, &unit), 0);
	vmdk_space_committed(&s, false);
	assert_int_equal(vmdk_space_find(&s, 1, &unit), 0);
	vmdk_space_commit(&s);
	vmdk_space_committed(&s, true);
	assert_int_equal(vmdk_space_find(&s, 1, &unit), 1);
	assert_int_equal(unit, 1);
	vmdk_space_free(&s);
}

static void return_keeps_what_is_used(void **state)
{
	struct vmdk_space s;
	uint64_t unit;

	setup(&s, 4);
	vmdk_space_give(&s, 1, 3);
	vmdk_space_use(&s, 2);
	vmdk_space_return(&s, 1, 3);
	assert_int_equal(vmdk_space_find(&s, 3, &unit), 1);
	assert_false(vmdk_space_may_use(&s, 2));
	vmdk_space_free(&s);
}

/* --- Runs ----------------------------------------------------------------- */

static void add(struct vmdk_runs *r, uint64_t first, uint64_t count,
		uint64_t offset)
{
	struct vmdk_run run = { .first = first, .count = count,
				.offset = offset * UNIT };

	vmdk_runs_add(r, &run);
}

static void runs_keep_order(void **state)
{
	struct vmdk_run piece;
	struct vmdk_runs r;

	assert_int_equal(vmdk_runs_init(&r, 4, UNIT), 0);
	add(&r, 20, 4, 50);
	add(&r, 10, 2, 70);
	add(&r, 12, 2, 72);		/* goes on where the last one ended */
	assert_int_equal(r.nr, 2);
	assert_null(vmdk_runs_find(&r, 9));
	assert_int_equal(vmdk_runs_find(&r, 13)->first, 10);
	assert_null(vmdk_runs_find(&r, 14));
	assert_int_equal(vmdk_runs_next(&r, 0), 10);
	assert_int_equal(vmdk_runs_next(&r, 11), 11);
	assert_int_equal(vmdk_runs_next(&r, 14), 20);
	assert_int_equal(vmdk_runs_next(&r, 24), UINT64_MAX);
	/* Out of the middle: three pieces of one. */
	assert_true(vmdk_runs_take(&r, 11, 13, &piece));
	assert_int_equal(piece.first, 11);
	assert_int_equal(piece.count, 2);
	assert_int_equal(piece.offset, 71 * UNIT);
	assert_false(vmdk_runs_take(&r, 11, 13, &piece));
	assert_int_equal(vmdk_runs_find(&r, 10)->count, 1);
	assert_int_equal(vmdk_runs_find(&r, 13)->offset, 73 * UNIT);
	assert_true(vmdk_runs_take(&r, 0, UINT64_MAX, &piece));
	assert_true(vmdk_runs_take(&r, 0, UINT64_MAX, &piece));
	assert_true(vmdk_runs_take(&r, 0, UINT64_MAX, &piece));
	assert_int_equal(piece.first, 20);
	assert_false(vmdk_runs_take(&r, 0, UINT64_MAX, &piece));
	vmdk_runs_free(&r);
}

static void runs_of_two_files_stay_apart(void **state)
{
	struct vmdk_run run = { .first = 12, .count = 1, .offset = 72 * UNIT,
				.file = 1 };
	struct vmdk_runs r;

	assert_int_equal(vmdk_runs_init(&r, 4, UNIT), 0);
	add(&r, 10, 2, 70);
	vmdk_runs_add(&r, &run);
	assert_int_equal(r.nr, 2);
	vmdk_runs_free(&r);
}

static void runs_are_bounded(void **state)
{
	struct vmdk_runs r;
	uint64_t i;

	assert_int_equal(vmdk_runs_init(&r, 4, UNIT), 0);
	for (i = 0; i < 50; i++) {
		add(&r, 100 - 2 * i, 1, 10 + i);
		assert_true(r.nr <= 4);
		assert_non_null(vmdk_runs_find(&r, 100 - 2 * i));
	}
	vmdk_runs_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_is_not_given),
		cmocka_unit_test(freed_waits_for_a_commit),
		cmocka_unit_test(return_keeps_what_is_used),
		cmocka_unit_test(runs_keep_order),
		cmocka_unit_test(runs_of_two_files_stay_apart),
		cmocka_unit_test(runs_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
