// SPDX-License-Identifier: GPL-2.0-or-later
#include "dscow.h"

#include <common/bits.h>

#include <errno.h>

/* Bits of the last word that stand for no block. */
static int clear_beyond(struct dscow *d)
{
	uint64_t first = d->h.nr_blocks, end = d->h.bitmap_count * 32ull;
	uint64_t offset = d->h.bitmap_offset + (d->h.bitmap_count - 1) * 4ull;
	uint64_t base = end - 32, i;
	uint8_t word[4];
	int ret;

	ret = cow_read(d->img, 0, word, sizeof(word), offset);
	if (ret)
		return ret;
	for (i = first; i < end; i++)
		bits_clear(word, i - base);
	ret = cow_write(d->img, 0, word, sizeof(word), offset);
	return ret ? ret : cow_sync(d->img, 0);
}

static int check_beyond(struct dscow *d, struct cow_check *check, bool repair,
			uint64_t beyond)
{
	int ret = 0;

	if (!beyond)
		return 0;
	if (repair)
		ret = clear_beyond(d);
	if (!ret)
		cow_check_found(check, COW_FOUND_LEAK, repair,
			"%llu bits of the bitmap stand for blocks past the end of the disk",
			(unsigned long long)beyond);
	return ret;
}

static int check_length(struct dscow *d, struct cow_check *check, bool repair,
			uint64_t copied, uint64_t last)
{
	uint64_t want = dscow_file_bytes(&d->h);
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(d->img, 0, &st);
	if (ret || st.size >= want)
		return ret;
	if (copied && st.size < d->h.first_block +
				(last + 1) * d->h.block_size) {
		cow_check_found(check, COW_FOUND_CORRUPT, false,
			"the file is truncated: it ends at %llu, but block %llu ends at %llu",
			(unsigned long long)st.size,
			(unsigned long long)last,
			(unsigned long long)(d->h.first_block +
					     (last + 1) * d->h.block_size));
		return 0;
	}
	if (repair)
		ret = cow_file_extend(d->img, 0, want);
	if (!ret && repair)
		ret = cow_sync(d->img, 0);
	if (!ret)
		cow_check_found(check, COW_FOUND_LEAK, repair,
			"the file ends at %llu instead of %llu, where no block was written",
			(unsigned long long)st.size, (unsigned long long)want);
	return ret;
}

int dscow_check(void *handle, struct cow_check *check, bool repair)
{
	struct dscow *d = handle;
	uint64_t copied, beyond, last;
	int ret;

	ret = dscow_count_bits(d, &copied, &beyond, &last);
	if (ret)
		return ret;
	ret = check_beyond(d, check, repair, beyond);
	if (!ret)
		ret = check_length(d, check, repair, copied, last);
	if (!ret && d->h.incompatible & DSCOW_INCOMPAT_MERGING)
		cow_check_found(check, COW_FOUND_CORRUPT, false,
			"its merge into the base was begun and not ended; end it with dscow_tool -m");
	return ret;
}
