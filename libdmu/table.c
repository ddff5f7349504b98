// SPDX-License-Identifier: LGPL-2.1-or-later
/* The target's table line, from its parts. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dmu.h"

/* A line under construction; once @err is set nothing is added. */
struct line {
	char *buf;
	size_t size, used;
	int err;
};

__attribute__((format(printf, 2, 3)))
static void add(struct line *line, const char *format, ...)
{
	va_list args;
	int n;

	if (line->err)
		return;
	va_start(args, format);
	n = vsnprintf(line->buf + line->used, line->size - line->used, format,
		      args);
	va_end(args);
	if (n < 0 || (size_t)n >= line->size - line->used)
		line->err = -E2BIG;
	else
		line->used += (size_t)n;
}

/* device-mapper splits at white space and takes a backslash as an escape. */
static bool is_word(const char *s)
{
	return s && *s && !strpbrk(s, " \t\n\v\f\r\\");
}

#define MAX_TIMEOUT_S	(24 * 60 * 60)	/* the target's */

static bool block_sectors_valid(uint32_t n)
{
	return n >= DMU_MIN_BLOCK_SECTORS && n <= DMU_MAX_BLOCK_SECTORS &&
	       !(n & (n - 1));
}

static bool table_valid(const struct dmu_table *table)
{
	uint32_t i;

	if (!is_word(table->key) || strlen(table->key) >= DMU_KEY_LEN)
		return false;
	if (!table->nr_sectors || !block_sectors_valid(table->block_sectors))
		return false;
	if (!table->nr_dests || table->nr_dests > DMU_MAX_DEVS)
		return false;
	for (i = 0; i < table->nr_dests; i++)
		if (!is_word(table->dests[i].dev))
			return false;
	if (table->map_memory_kib > UINT32_MAX)
		return false;
	return table->policy != DMU_POLICY_TIMEOUT ||
	       (table->timeout_s && table->timeout_s <= MAX_TIMEOUT_S);
}

static void add_features(struct line *line, const struct dmu_table *table)
{
	int words = 0;

	if (table->policy == DMU_POLICY_FAIL)
		words += 1;
	if (table->policy == DMU_POLICY_TIMEOUT)
		words += 2;
	if (table->map_memory_kib)
		words += 2;
	if (table->no_space_wait)
		words += 2;
	if (!words)
		return;
	add(line, " %d", words);
	if (table->policy == DMU_POLICY_FAIL)
		add(line, " fail");
	if (table->policy == DMU_POLICY_TIMEOUT)
		add(line, " timeout %" PRIu32, table->timeout_s);
	if (table->map_memory_kib)
		add(line, " map_memory %" PRIu64, table->map_memory_kib);
	if (table->no_space_wait)
		add(line, " no_space wait");
}

int dmu_table_format(const struct dmu_table *table, char *buf, size_t size)
{
	struct line line = { .buf = buf, .size = size };
	uint32_t i;

	if (!table_valid(table))
		return -EINVAL;
	add(&line, "%s %" PRIu32 " %" PRIu32, table->key, table->block_sectors,
	    table->nr_dests);
	for (i = 0; i < table->nr_dests; i++)
		add(&line, " %s%s%s", table->dests[i].fresh ? "new:" : "",
		    table->dests[i].read_only ? "ro:" : "",
		    table->dests[i].dev);
	add_features(&line, table);
	return line.err;
}
