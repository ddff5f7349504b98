// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * amend.c - change the header of an image.
 *
 * The header is one sector, so it is written as a whole or not at all.
 *
 * A merge puts all blocks of the overlay into the base, and so changes the
 * base under an overlay that was made for it as it was.  Its steps:
 *  1. merge-begin: the header says that a merge is on its way.  From now on
 *     the image opens only to go on with it.
 *  2. Who merges writes the blocks into the base and makes that durable.
 *     Doing it again after a crash does no harm.
 *  3. merge-end: the bitmap is cleared, then the header takes the base as it
 *     is now and forgets the merge, then the space is given back.
 * A crash anywhere leaves the merge begun (and it is done again), or done.
 */
#include "dscow.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

static int write_header(struct dscow *d)
{
	struct dscow_header_disk disk;
	int ret;

	dscow_header_encode(&d->h, &disk);
	ret = cow_write(d->img, 0, &disk, sizeof(disk), 0);
	return ret ? ret : cow_sync(d->img, 0);
}

static int take_base(struct dscow *d)
{
	if (!d->base)
		return cow_error(d->img, -EINVAL, "its base is not open");
	return dscow_identify_durable(d->base, &d->h.base);
}

static int accept_base(struct dscow *d)
{
	int ret = take_base(d);

	return ret ? ret : write_header(d);
}

static int clear_bitmap(struct dscow *d)
{
	uint64_t bytes = num_round_up(d->h.bitmap_count * 4ull,
				      DSCOW_BITMAP_ALIGN);
	int ret;

	ret = cow_punch(d->img, 0, d->h.bitmap_offset, bytes);
	return ret ? ret : cow_sync(d->img, 0);
}

static int merge_begin(struct dscow *d)
{
	d->h.incompatible |= DSCOW_INCOMPAT_MERGING;
	return write_header(d);
}

static int merge_end(struct dscow *d)
{
	int ret;

	if (!(d->h.incompatible & DSCOW_INCOMPAT_MERGING))
		return cow_error(d->img, -EINVAL, "no merge was begun");
	ret = take_base(d);
	if (!ret)
		ret = clear_bitmap(d);
	if (ret)
		return ret;
	d->h.incompatible &= ~DSCOW_INCOMPAT_MERGING;
	ret = write_header(d);
	if (ret)
		return ret;
	return cow_punch(d->img, 0, d->h.first_block,
			 d->h.nr_blocks * d->h.block_size);
}

int dscow_amend(void *handle, const char *name, const char *value)
{
	struct dscow *d = handle;

	if (!strcmp(name, "base") && !strcmp(value, "accept"))
		return accept_base(d);
	if (!strcmp(name, "merge") && !strcmp(value, "begin"))
		return merge_begin(d);
	if (!strcmp(name, "merge") && !strcmp(value, "end"))
		return merge_end(d);
	return cow_error(d->img, -EINVAL, "cannot be amended by %s=%s", name,
			 value);
}
