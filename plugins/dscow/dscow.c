// SPDX-License-Identifier: GPL-2.0-or-later
/* dscow.c - the plugin: open, and what an image tells of itself. */
#include "dscow.h"

#include <common/crc32c.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

static int dscow_probe(const void *buf, size_t len, uint64_t file_size)
{
	return len >= DSCOW_HEADER_BYTES &&
	       !memcmp(buf, DSCOW_MAGIC, sizeof(DSCOW_MAGIC) - 1);
}

/* --- Open ----------------------------------------------------------------- */

static int read_header(struct dscow *d, uint64_t file_size)
{
	struct dscow_header_disk disk;
	const char *why;
	int ret;

	if (file_size < sizeof(disk))
		return cow_error(d->img, -EINVAL, "is no dscow image");
	ret = cow_read(d->img, 0, &disk, sizeof(disk), 0);
	if (ret)
		return ret;
	ret = dscow_header_decode(&disk, &d->h, &why);
	return ret ? cow_error(d->img, ret, "%s", why) : 0;
}

static int read_base_path(struct dscow *d)
{
	size_t len = d->h.base_path_length;
	int ret;

	ret = cow_read(d->img, 0, d->base_path, len, DSCOW_BASE_PATH_OFFSET);
	if (ret)
		return ret;
	if (crc32c(0, d->base_path, len) != d->h.base_path_checksum ||
	    strlen(d->base_path) != len)
		return cow_error(d->img, -EINVAL,
			"has a damaged header: the checksum of the base's path is wrong");
	return 0;
}

/* flags: who checks or merges may open what no user of the disk may. */
static int check_usable(struct dscow *d, uint32_t flags, uint64_t file_size)
{
	uint64_t want = dscow_file_bytes(&d->h);

	if (file_size < d->h.first_block)
		return cow_error(d->img, -EINVAL,
			"is truncated: it has %llu bytes, and its bitmap ends later",
			(unsigned long long)file_size);
	if (flags & COW_OPEN_UNFINISHED)
		return 0;
	if (file_size < want)
		return cow_error(d->img, -EINVAL,
			"is truncated: it has %llu bytes instead of %llu; see dscow_tool -k",
			(unsigned long long)file_size,
			(unsigned long long)want);
	if (d->h.incompatible & DSCOW_INCOMPAT_MERGING)
		return cow_error(d->img, -EBUSY,
			"its merge into the base was begun and not ended; end it with dscow_tool -m");
	return 0;
}

/*
 * A commit writes the bitmap, and must be possible when the file system is
 * full: overwritten blocks could not be flushed else.
 */
static int reserve_bitmap(struct dscow *d)
{
	int ret = cow_reserve(d->img, 0, d->h.bitmap_offset,
			      num_round_up(d->h.bitmap_count * 4ull,
					   DSCOW_BITMAP_ALIGN));

	if (ret != -ENOSPC)
		return ret;
	cow_warn(d->img, "there is no space for its bitmap: flushes may fail");
	return 0;
}

static int open_image(struct dscow *d, uint32_t flags)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(d->img, 0, &st);
	if (!ret)
		ret = read_header(d, st.size);
	if (!ret)
		ret = check_usable(d, flags, st.size);
	if (!ret)
		ret = read_base_path(d);
	if (!ret)
		ret = cow_image_tables(d->img, DSCOW_TABLE_BYTES,
				       num_div_up(d->h.nr_blocks,
						  DSCOW_TABLE_BLOCKS));
	if (!ret && d->writable)
		ret = reserve_bitmap(d);
	return ret;
}

static int dscow_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct dscow *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return -ENOMEM;
	d->img = img;
	d->writable = flags & COW_OPEN_WRITE;
	ret = open_image(d, flags);
	if (ret) {
		free(d);
		return ret;
	}
	*handle = d;
	return 0;
}

static void dscow_close(void *handle)
{
	free(handle);
}

static int dscow_info(void *handle, struct cow_image_info *info)
{
	const struct dscow *d = handle;

	info->size = d->h.size;
	info->block_size = d->h.block_size;
	info->backing_path = d->base_path;
	info->backing_format = d->h.base_format;
	return 0;
}

static int dscow_backing(void *handle, struct cow_image *base, bool verify)
{
	struct dscow *d = handle;
	struct dscow_identity now;
	int ret;

	d->base = base;
	if (!verify)
		return 0;
	ret = dscow_identify(base, &now);
	return ret ? ret : dscow_verify(d, &now);
}

/* --- Describe ------------------------------------------------------------- */

static int dscow_describe(void *handle, struct cow_describe *to)
{
	const struct dscow *d = handle;
	uint64_t copied, beyond, last;
	int ret;

	ret = dscow_count_bits(d, &copied, &beyond, &last);
	if (ret)
		return ret;
	cow_describe_u64(to, "size", "Size", d->h.size);
	cow_describe_u64(to, "first-block", "First block", d->h.first_block);
	cow_describe_u64(to, "block-size", "Block size", d->h.block_size);
	cow_describe_u64(to, "blocks", "Blocks", d->h.nr_blocks);
	cow_describe_u64(to, "bitmap-count", "Bitmap count",
			 d->h.bitmap_count);
	cow_describe_u64(to, "copied", "Copied", copied);
	cow_describe_str(to, "base", "Base", d->base_path);
	cow_describe_str(to, "base-format", "Base format", d->h.base_format);
	cow_describe_u64(to, "base-size", "Base size", d->h.base.size);
	cow_describe_str(to, "state", "State",
			 d->h.incompatible & DSCOW_INCOMPAT_MERGING ?
			 "merge not ended" : "in order");
	return 0;
}

/* --- The plugin ----------------------------------------------------------- */

static const struct cow_option dscow_options[] = {
	{ "base", "accept: take the base as it is now", COW_OPTION_AMEND },
	{ "merge", "begin, end: around a merge into the base",
	  COW_OPTION_AMEND },
	{ 0 }
};

static const struct cow_plugin dscow_plugin = {
	COW_PLUGIN_HEADER,
	.name = "dscow",
	.description = "sparse overlay, each block at its own position",
	.options = dscow_options,
	.probe = dscow_probe,
	.open = dscow_open,
	.close = dscow_close,
	.info = dscow_info,
	.map = dscow_map,
	.copied_bits = dscow_copied_bits,
	.copied = dscow_copied,
	.backing = dscow_backing,
	.create = dscow_create,
	.check = dscow_check,
	.amend = dscow_amend,
	.describe = dscow_describe,
};

COW_PLUGIN_REGISTER(dscow_plugin)
