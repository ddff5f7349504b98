/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CRASH_DIE_H
#define CRASH_DIE_H

#include <stddef.h>
#include <stdint.h>

/* Each says "program: ..." on stderr and ends the program with status 2. */
void die(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
void die_errno(const char *what) __attribute__((noreturn));

void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n, size_t size);

/* A number of a command line; dies of anything else. */
uint64_t number(const char *text, const char *what);

/* A small generator: the same seed, the same numbers. */
struct chance {
	uint64_t state;
};

void chance_seed(struct chance *c, uint64_t seed);
uint64_t chance_below(struct chance *c, uint64_t below);

#endif
