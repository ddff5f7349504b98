// SPDX-License-Identifier: GPL-2.0-or-later
/* space.c - which parts of an image's file are in use. */
#include <common/space.h>

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bytes(const struct space *s)
{
	return num_div_up(s->max, 8);
}

int space_init(struct space *s, uint32_t unit, uint64_t end, uint64_t max)
{
	memset(s, 0, sizeof(*s));
	s->unit = unit;
	s->end = end;
	s->max = max;
	s->taken = calloc(1, bytes(s));
	s->ref = calloc(1, bytes(s));
	s->freed = calloc(1, bytes(s));
	s->freeing = calloc(1, bytes(s));
	return s->taken && s->ref && s->freed && s->freeing ? 0 : -ENOMEM;
}

void space_free(struct space *s)
{
	free(s->taken);
	free(s->ref);
	free(s->freed);
	free(s->freeing);
	memset(s, 0, sizeof(*s));
}

void space_ready(struct space *s)
{
	/* Not all that there may ever be: what is not touched takes no memory. */
	memcpy(s->taken, s->ref, num_div_up(s->end, 8));
	s->nr_taken = bits_count(s->taken, 0, s->end);
}

/* --- Find and give -------------------------------------------------------- */

static uint64_t find_from(const struct space *s, uint64_t from, uint64_t to,
			  uint64_t min, uint64_t want, uint64_t *unit)
{
	uint64_t n;

	while (from < to) {
		*unit = bits_next_clear(s->taken, from, to);
		n = bits_next_set(s->taken, *unit, num_min(*unit + want, to)) -
		    *unit;
		if (n >= min)
			return n;
		from = *unit + num_max(n, 1);
	}
	return 0;
}

uint64_t space_find(const struct space *s, uint64_t min, uint64_t want,
		    uint64_t *unit)
{
	uint64_t n;

	if (s->end - s->nr_taken < min)
		return 0;
	n = find_from(s, s->cursor, s->end, min, want, unit);
	if (!n)
		n = find_from(s, 0, s->cursor, min, want, unit);
	return n;
}

uint64_t space_find_from(const struct space *s, uint64_t from, uint64_t min,
			 uint64_t want, uint64_t *unit)
{
	return find_from(s, from, s->end, min, want, unit);
}

bool space_find_last(const struct space *s, uint64_t count, uint64_t *unit)
{
	uint64_t at;

	for (at = s->end; at >= count; at--) {
		*unit = at - count;
		if (bits_next_set(s->taken, *unit, at) == at)
			return true;
	}
	return false;
}

void space_give(struct space *s, uint64_t unit, uint64_t count)
{
	bits_set_run(s->taken, unit, count);
	s->nr_taken += count;
	s->cursor = unit + count < s->end ? unit + count : 0;
}

static void release(struct space *s, uint64_t unit)
{
	bits_clear(s->taken, unit);
	s->nr_taken--;
}

static bool is_idle(const struct space *s, uint64_t unit)
{
	return !bits_test(s->ref, unit) && !bits_test(s->freed, unit) &&
	       !bits_test(s->freeing, unit);
}

void space_return(struct space *s, uint64_t unit, uint64_t count)
{
	for (; count; unit++, count--) {
		if (bits_test(s->taken, unit) && is_idle(s, unit))
			release(s, unit);
	}
}

/* --- Use and drop --------------------------------------------------------- */

bool space_may_use(const struct space *s, uint64_t unit)
{
	return unit < s->end && is_idle(s, unit);
}

void space_use(struct space *s, uint64_t unit)
{
	if (!bits_test(s->taken, unit))
		s->nr_taken++;
	bits_set_run(s->taken, unit, 1);
	bits_set_run(s->ref, unit, 1);
}

void space_drop(struct space *s, uint64_t unit)
{
	bits_clear(s->ref, unit);
	bits_set(s->freed, unit);
	s->nr_freed++;
}

/* --- Commit --------------------------------------------------------------- */

static void take_over(struct space *s)
{
	uint8_t *bits = s->freed;

	s->freed = s->freeing;
	s->freeing = bits;
	s->nr_freeing = s->nr_freed;
	s->nr_freed = 0;
}

/* A commit that failed has left its units in freeing: they go with these. */
static void merge(struct space *s)
{
	uint64_t unit = bits_next_set(s->freeing, 0, s->end);

	for (; unit < s->end; unit = bits_next_set(s->freeing, unit, s->end)) {
		bits_clear(s->freeing, unit);
		bits_set(s->freed, unit);
		s->nr_freed++;
	}
	s->nr_freeing = 0;
}

void space_commit(struct space *s)
{
	if (s->nr_freeing)
		merge(s);
	if (s->nr_freed)
		take_over(s);
}

void space_committed(struct space *s, bool ok)
{
	uint64_t unit;

	if (!ok || !s->nr_freeing)
		return;
	for (unit = bits_next_set(s->freeing, 0, s->end); unit < s->end;
	     unit = bits_next_set(s->freeing, unit, s->end)) {
		bits_clear(s->freeing, unit);
		release(s, unit);
	}
	s->nr_freeing = 0;
}
