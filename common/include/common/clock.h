/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds of a clock that nobody sets. */
static inline int64_t clock_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static inline void clock_sleep_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

#define CLOCK_STEP_MAX_MS	50

/*
 * How long to wait between two looks at what nobody tells, after @ms, 0 at first: most
 * comes at once, and what does not comes seldom.
 */
static inline int clock_next_step_ms(int ms)
{
	ms = ms ? ms * 2 : 1;
	return ms < CLOCK_STEP_MAX_MS ? ms : CLOCK_STEP_MAX_MS;
}

#endif /* COMMON_CLOCK_H */
