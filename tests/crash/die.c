// SPDX-License-Identifier: GPL-2.0-or-later
#include "die.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

void die_errno(const char *what)
{
	die("%s: %s", what, strerror(errno));
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("out of memory");
	return p;
}

void *xrealloc(void *p, size_t n, size_t size)
{
	p = reallocarray(p, n, size);
	if (!p)
		die("out of memory");
	return p;
}

uint64_t number(const char *text, const char *what)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (errno || *end || end == text || *text == '-')
		die("%s %s: not a number", what, text);
	return n;
}

void chance_seed(struct chance *c, uint64_t seed)
{
	c->state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	if (!c->state)
		c->state = 1;
}

uint64_t chance_below(struct chance *c, uint64_t below)
{
	c->state ^= c->state << 13;
	c->state ^= c->state >> 7;
	c->state ^= c->state << 17;
	return (c->state * 0x2545f4914f6cdd1dull >> 16) % below;
}
