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
#include <common/runs.h>
#include <common/space.h>

#define UNIT 4096u

static void setup(struct space *s, uint64_t end)
{
	assert_int_equal(space_init(s, UNIT, end, 100), 0);
	bits_set(s->ref, 0);
	space_ready(s);
}

/* Metadata is never given. */
static void header_is_not_given(void **state)
{
	struct space s;
	uint64_t unit;

	setup(&s, 4);
	assert_int_equal(space_find(&s, 1, 8, &unit), 3);
	assert_int_equal(unit, 1);
	space_give(&s, unit, 3);
	assert_int_equal(space_find(&s, 1, 1, &unit), 0);
	assert_false(space_may_use(&s, 0));
	assert_true(space_may_use(&s, 1));
	assert_false(space_may_use(&s, 4));
	space_free(&s);
}

/* Out of the way of what is found first. */
static void last_and_from(void **state)
{
	struct space s;
	uint64_t unit;

	setup(&s, 8);
	space_give(&s, 6, 1);
	assert_true(space_find_last(&s, 1, &unit));
	assert_int_equal(unit, 7);
	assert_true(space_find_last(&s, 2, &unit));
	assert_int_equal(unit, 4);
	assert_false(space_find_last(&s, 6, &unit));
	assert_int_equal(space_find_from(&s, 3, 2, 9, &unit), 3);
	assert_int_equal(unit, 3);
	assert_int_equal(space_find_from(&s, 8, 1, 1, &unit), 0);
	space_free(&s);
}

/* A place that was given up is used again after a commit, not before. */
static void freed_waits_for_a_commit(void **state)
{
	struct space s;
	uint64_t unit;

	setup(&s, 2);
	space_give(&s, 1, 1);
	space_use(&s, 1);
	space_commit(&s);
	space_drop(&s, 1);
	/* This commit began before it was given up. */
	space_committed(&s, true);
	assert_int_equal(space_find(&s, 1, 1, &unit), 0);
	assert_false(space_may_use(&s, 1));
	space_commit(&s);
	assert_int_equal(space_find(&s, 1, 1, &unit), 0);
	space_committed(&s, false);
	assert_int_equal(space_find(&s, 1, 1, &unit), 0);
	space_commit(&s);
	space_committed(&s, true);
	assert_int_equal(space_find(&s, 1, 1, &unit), 1);
	assert_int_equal(unit, 1);
	space_free(&s);
}

static void return_keeps_what_is_used(void **state)
{
	struct space s;
	uint64_t unit;

	setup(&s, 4);
	space_give(&s, 1, 3);
	space_use(&s, 2);
	space_return(&s, 1, 3);
	assert_int_equal(space_find(&s, 1, 3, &unit), 1);
	assert_false(space_may_use(&s, 2));
	space_free(&s);
}

/* A table needs its units in a row, wherever the cursor is. */
static void a_row_is_found_whole(void **state)
{
	struct space s;
	uint64_t unit;

	setup(&s, 12);
	space_give(&s, 1, 11);
	space_return(&s, 2, 1);
	space_return(&s, 4, 3);
	space_return(&s, 9, 2);
	s.cursor = 8;
	assert_int_equal(space_find(&s, 1, 8, &unit), 2);
	assert_int_equal(unit, 9);
	assert_int_equal(space_find(&s, 3, 3, &unit), 3);
	assert_int_equal(unit, 4);
	assert_int_equal(space_find(&s, 4, 4, &unit), 0);
	assert_int_equal(space_find(&s, 7, 7, &unit), 0);
	space_free(&s);
}

/* --- Runs ----------------------------------------------------------------- */

static void add(struct runs *r, uint64_t first, uint64_t count,
		uint64_t offset)
{
	struct run run = { .first = first, .count = count,
			   .offset = offset * UNIT };

	runs_add(r, &run);
}

static void runs_keep_order(void **state)
{
	struct run piece;
	struct runs r;

	assert_int_equal(runs_init(&r, 4, UNIT), 0);
	add(&r, 20, 4, 50);
	add(&r, 10, 2, 70);
	add(&r, 12, 2, 72);		/* goes on where the last one ended */
	assert_int_equal(r.nr, 2);
	assert_null(runs_find(&r, 9));
	assert_int_equal(runs_find(&r, 13)->first, 10);
	assert_null(runs_find(&r, 14));
	assert_int_equal(runs_next(&r, 0), 10);
	assert_int_equal(runs_next(&r, 11), 11);
	assert_int_equal(runs_next(&r, 14), 20);
	assert_int_equal(runs_next(&r, 24), UINT64_MAX);
	/* Out of the middle: three pieces of one. */
	assert_true(runs_take(&r, 11, 13, &piece));
	assert_int_equal(piece.first, 11);
	assert_int_equal(piece.count, 2);
	assert_int_equal(piece.offset, 71 * UNIT);
	assert_false(runs_take(&r, 11, 13, &piece));
	assert_int_equal(runs_find(&r, 10)->count, 1);
	assert_int_equal(runs_find(&r, 13)->offset, 73 * UNIT);
	assert_true(runs_take(&r, 0, UINT64_MAX, &piece));
	assert_true(runs_take(&r, 0, UINT64_MAX, &piece));
	assert_true(runs_take(&r, 0, UINT64_MAX, &piece));
	assert_int_equal(piece.first, 20);
	assert_false(runs_take(&r, 0, UINT64_MAX, &piece));
	runs_free(&r);
}

/* It goes on where the one before ended, but for what the caller set. */
static void stays_apart(struct run run)
{
	struct runs r;

	run.first = 12;
	run.count = 1;
	run.offset = 72 * UNIT;
	assert_int_equal(runs_init(&r, 4, UNIT), 0);
	add(&r, 10, 2, 70);
	runs_add(&r, &run);
	assert_int_equal(r.nr, 2);
	runs_free(&r);
}

static void runs_of_two_files_stay_apart(void **state)
{
	stays_apart((struct run){ .file = 1 });
}

static void runs_of_two_sources_stay_apart(void **state)
{
	stays_apart((struct run){ .source = 1 });
}

static void runs_are_bounded(void **state)
{
	struct runs r;
	uint64_t i;

	assert_int_equal(runs_init(&r, 4, UNIT), 0);
	for (i = 0; i < 50; i++) {
		add(&r, 100 - 2 * i, 1, 10 + i);
		assert_true(r.nr <= 4);
		assert_non_null(runs_find(&r, 100 - 2 * i));
	}
	runs_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_is_not_given),
		cmocka_unit_test(last_and_from),
		cmocka_unit_test(freed_waits_for_a_commit),
		cmocka_unit_test(return_keeps_what_is_used),
		cmocka_unit_test(a_row_is_found_whole),
		cmocka_unit_test(runs_keep_order),
		cmocka_unit_test(runs_of_two_files_stay_apart),
		cmocka_unit_test(runs_of_two_sources_stay_apart),
		cmocka_unit_test(runs_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
