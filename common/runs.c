// SPDX-License-Identifier: GPL-2.0-or-later
/* runs.c - blocks that have a place no table refers to yet. */
#include <common/runs.h>

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int runs_init(struct runs *r, size_t max, uint32_t block_size)
{
	memset(r, 0, sizeof(*r));
	r->run = calloc(max, sizeof(*r->run));
	r->max = max;
	r->block_size = block_size;
	return r->run ? 0 : -ENOMEM;
}

void runs_free(struct runs *r)
{
	free(r->run);
	r->run = NULL;
}

static uint64_t end_of(const struct run *run)
{
	return run->first + run->count;
}

/* Index of the first run that ends behind block. */
static size_t lower(const struct runs *r, uint64_t block)
{
	size_t lo = 0, hi = r->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (end_of(&r->run[mid]) > block)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

const struct run *runs_find(const struct runs *r, uint64_t block)
{
	size_t i = lower(r, block);

	return i < r->nr && r->run[i].first <= block ? &r->run[i] : NULL;
}

uint64_t runs_next(const struct runs *r, uint64_t block)
{
	size_t i = lower(r, block);

	return i < r->nr ? num_max(r->run[i].first, block) : UINT64_MAX;
}

static void delete_at(struct runs *r, size_t i)
{
	r->nr--;
	memmove(&r->run[i], &r->run[i + 1], (r->nr - i) * sizeof(*r->run));
}

/* Somebody must go; not always the same part of the disk. */
static void forget_one(struct runs *r)
{
	r->victim = (r->victim + 1) % r->nr;
	delete_at(r, r->victim);
}

static bool continues(const struct runs *r, const struct run *a,
		      const struct run *b)
{
	return end_of(a) == b->first && a->file == b->file &&
	       a->source == b->source && a->cookie == b->cookie &&
	       a->offset + a->count * r->block_size == b->offset;
}

void runs_add(struct runs *r, const struct run *run)
{
	size_t i;

	if (r->nr == r->max)
		forget_one(r);
	i = lower(r, run->first);
	if (i > 0 && continues(r, &r->run[i - 1], run)) {
		r->run[i - 1].count += run->count;
		return;
	}
	memmove(&r->run[i + 1], &r->run[i], (r->nr - i) * sizeof(*r->run));
	r->run[i] = *run;
	r->nr++;
}

/* The part of run behind block; empty when there is none. */
static struct run tail_from(const struct runs *r, const struct run *run,
			    uint64_t block)
{
	struct run tail = *run;
	uint64_t skip = num_min(block - run->first, run->count);

	tail.first += skip;
	tail.count -= skip;
	tail.offset += skip * r->block_size;
	return tail;
}

bool runs_take(struct runs *r, uint64_t first, uint64_t end,
	       struct run *piece)
{
	size_t i = lower(r, first);
	struct run run, tail;

	if (i == r->nr || r->run[i].first >= end)
		return false;
	run = r->run[i];
	*piece = tail_from(r, &run, num_max(first, run.first));
	piece->count = num_min(piece->count, end - piece->first);
	tail = tail_from(r, &run, end_of(piece));
	r->run[i].count = piece->first - run.first;
	if (!r->run[i].count)
		delete_at(r, i);
	if (tail.count)
		runs_add(r, &tail);
	return true;
}
