// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * raw.c - an image that is the disk, byte for byte: a file or a block device.
 *
 * It is also the smallest plugin, and a good one to begin another of this tree
 * from: the required members, one option, nothing else.  No tables, so no
 * restarts.
 */
#include <libcow/cow-plugin.h>

#include <common/num.h>
#include <common/size.h>

#include <errno.h>
#include <stdlib.h>

#define RAW_BLOCK_SIZE (64u << 10)

/* All state of an open image is here: one process may open many. */
struct raw {
	uint64_t size;		/* bytes */
	uint32_t block_size;	/* bytes */
	bool writable;
};

/* Any block size will do: there is nothing in the file to tell one. */
static int get_block_size(struct cow_image *img, uint32_t *block_size)
{
	const char *text = cow_image_option(img, "block-size");
	uint64_t n;

	*block_size = RAW_BLOCK_SIZE;
	if (!text)
		return 0;
	if (size_parse(text, &n) || !num_is_pow2(n) ||
	    n < COW_BLOCK_SIZE_MIN || n > COW_BLOCK_SIZE_MAX)
		return cow_error(img, -EINVAL,
			"block-size=%s is no power of two of 512 to 16m",
			text);
	*block_size = (uint32_t)n;
	return 0;
}

/*
 * A disk has whole sectors.  A file that has not can be read (libcow adds
 * zeroes), but a write to its last sector would have no place to go.
 */
static int check_size(struct cow_image *img, const struct raw *raw)
{
	if (raw->writable && raw->size % COW_SECTOR_SIZE)
		return cow_error(img, -EINVAL,
			"has %llu bytes, which is no number of whole sectors of 512 bytes; extend it with truncate, or open it read-only",
			(unsigned long long)raw->size);
	return 0;
}

static int raw_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	struct cow_file_stat st;
	int ret;

	if (!raw)
		return -ENOMEM;
	/* File 0 is open already, with the rights that flags ask for. */
	ret = cow_file_stat(img, 0, &st);
	if (!ret) {
		raw->size = st.size;
		raw->writable = flags & COW_OPEN_WRITE;
		ret = check_size(img, raw);
	}
	if (!ret)
		ret = get_block_size(img, &raw->block_size);
	if (ret) {
		free(raw);
		return ret;
	}
	*handle = raw;
	return 0;
}

static void raw_close(void *handle)
{
	free(handle);
}

static int raw_info(void *handle, struct cow_image_info *info)
{
	const struct raw *raw = handle;

	info->size = raw->size;
	info->block_size = raw->block_size;
	return 0;
}

/* One extent for all: block n stands at n times the block size. */
static int raw_map(void *handle, const struct cow_query *query,
		   struct cow_mapping *mapping)
{
	const struct raw *raw = handle;

	mapping->kind = COW_KIND_LINEAR;
	mapping->flags = raw->writable ? COW_MAPPING_WRITABLE : 0;
	mapping->first = 0;
	mapping->count = num_div_up(raw->size, raw->block_size);
	mapping->file = 0;
	mapping->offset = 0;
	return 0;
}

/* A file of holes.  A device has its size, and keeps it. */
static int raw_create(struct cow_image *img, const struct cow_create *create)
{
	if (create->backing_path)
		return cow_error(img, -EINVAL,
			"an image of the format raw has no backing image");
	return cow_file_extend(img, 0, num_round_up(create->size,
						    COW_SECTOR_SIZE));
}

static const struct cow_option raw_options[] = {
	{ "block-size", "unit of the device, 512 to 16m (64k)",
	  COW_OPTION_OPEN },
	{ 0 }
};

static const struct cow_plugin raw_plugin = {
	COW_PLUGIN_HEADER,
	.name = "raw",
	.description = "the disk itself, in a file or a block device",
	.options = raw_options,
	/* No probe(): any contents may be a raw image. */
	.open = raw_open,
	.close = raw_close,
	.info = raw_info,
	.map = raw_map,
	.create = raw_create,
};

COW_PLUGIN_REGISTER(raw_plugin)
