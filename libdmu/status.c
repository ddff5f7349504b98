// SPDX-License-Identifier: LGPL-2.1-or-later
/* What the target says of itself, its status and table lines, to its parts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dmu.h"

#define FIELD(name) { #name, offsetof(struct dmu_status, name) }

static const struct {
	const char *name;
	size_t offset;
} fields[] = {
	FIELD(hits_read),	FIELD(hits_write),	FIELD(faults),
	FIELD(copies),		FIELD(copy_errors),	FIELD(overwrites),
	FIELD(commits),		FIELD(discards),	FIELD(extents),
	FIELD(map_bytes),	FIELD(map_budget),	FIELD(evictions),
	FIELD(waiting),		FIELD(uncommitted),	FIELD(metadata_dirty),
	FIELD(failed),		FIELD(events),		FIELD(flushes),
	FIELD(commit_errors),	FIELD(no_space),	FIELD(data_lost),
	FIELD(file_ios),	FIELD(file_misses),
};

/* The next word of *@line into @word, which holds @size; false at the end. */
static bool next_word(const char **line, char *word, size_t size)
{
	const char *start = *line + strspn(*line, " ");
	size_t len = strcspn(start, " \n");

	if (!len || len >= size)
		return false;
	memcpy(word, start, len);
	word[len] = '\0';
	*line = start + len;
	return true;
}

static int parse_number(const char *word, uint64_t *value)
{
	char *end;

	if (*word < '0' || *word > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(word, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static int next_number(const char **line, uint64_t *value)
{
	char word[32];

	if (!next_word(line, word, sizeof(word)))
		return -EINVAL;
	return parse_number(word, value);
}

static int find_policy(const char *word, enum dmu_policy *policy)
{
	static const char *const names[] = {
		[DMU_POLICY_QUEUE] = "queue",
		[DMU_POLICY_FAIL] = "fail",
		[DMU_POLICY_TIMEOUT] = "timeout",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(word, names[i]))
			continue;
		*policy = (enum dmu_policy)i;
		return 0;
	}
	return -EINVAL;
}

static int next_policy(const char **line, struct dmu_status *status)
{
	char word[32];

	if (!next_word(line, word, sizeof(word)))
		return -EINVAL;
	return find_policy(word, &status->policy);
}

/* Names that a newer kernel added are passed over. */
static void set_field(struct dmu_status *status, const char *name,
		      uint64_t value)
{
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (!strcmp(fields[i].name, name))
			memcpy((char *)status + fields[i].offset, &value,
			       sizeof(value));
}

int dmu_status_parse(const char *line, struct dmu_status *status)
{
	uint64_t attached, block_sectors, pairs, value;
	char name[64];

	memset(status, 0, sizeof(*status));
	if (next_number(&line, &attached) || attached > 1 ||
	    next_policy(&line, status) ||
	    next_number(&line, &block_sectors) ||
	    block_sectors > DMU_MAX_BLOCK_SECTORS ||
	    next_number(&line, &pairs))
		return -EINVAL;
	status->attached = attached;
	status->block_sectors = (uint32_t)block_sectors;
	for (; pairs; pairs--) {
		if (!next_word(&line, name, sizeof(name)) ||
		    next_number(&line, &value))
			return -EINVAL;
		set_field(status, name, value);
	}
	return line[strspn(line, " \n")] ? -EINVAL : 0;
}

/* To the words of the features: their number, or 0 for none. */
static int skip_devices(const char **line, uint64_t *nr_words)
{
	char word[DMU_KEY_LEN];
	uint64_t nr_devs;

	if (!next_word(line, word, sizeof(word)) ||
	    !next_word(line, word, sizeof(word)) ||
	    next_number(line, &nr_devs) || nr_devs > DMU_MAX_DEVS)
		return -EINVAL;
	for (; nr_devs; nr_devs--)
		if (!next_word(line, word, sizeof(word)))
			return -EINVAL;
	*nr_words = 0;
	return (*line)[strspn(*line, " \n")] ? next_number(line, nr_words) : 0;
}

static int set_feature(struct dmu_table *table, const char *name,
		       const char *value)
{
	uint64_t number;

	if (!strcmp(name, "no_space")) {
		table->no_space_wait = !strcmp(value, "wait");
		return 0;
	}
	if (strcmp(name, "timeout") && strcmp(name, "map_memory"))
		return 0;
	if (parse_number(value, &number) || !number || number > UINT32_MAX)
		return -EINVAL;
	if (*name == 't')
		table->timeout_s = (uint32_t)number;
	else
		table->map_memory_kib = number;
	return 0;
}

/* A policy is one word, but timeout; all other features have a value. */
int dmu_table_features(const char *line, struct dmu_table *table)
{
	char name[32], value[32];
	uint64_t nr_words;

	table->policy = DMU_POLICY_QUEUE;
	table->timeout_s = 0;
	table->no_space_wait = false;
	table->map_memory_kib = 0;
	if (skip_devices(&line, &nr_words))
		return -EINVAL;
	for (; nr_words; nr_words--) {
		if (!next_word(&line, name, sizeof(name)))
			return -EINVAL;
		if (!find_policy(name, &table->policy) &&
		    table->policy != DMU_POLICY_TIMEOUT)
			continue;
		if (!--nr_words || !next_word(&line, value, sizeof(value)) ||
		    set_feature(table, name, value))
			return -EINVAL;
	}
	return 0;
}
