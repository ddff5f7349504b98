// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ram.c - a disk in memory that several openers on one host share.
 *
 * The disk is a file of a file system in memory (tmpfs), byte for byte.  The
 * file's name is the disk's, its mode says who may open it, and it lives until
 * it is deleted or its file system goes.  There is no metadata, so nothing is
 * cached that another opener would have to know: all see one memory.
 */
#include <libcow/cow-plugin.h>

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

#define RAM_BLOCK_SIZE (64u << 10)

struct ram {
	uint64_t size;		/* bytes, whole sectors */
	bool writable;
};

/* Elsewhere a disk that is lost with the machine would be a surprise. */
static int check_file(struct cow_image *img)
{
	if (cow_file_in_memory(img, 0))
		return 0;
	return cow_error(img, -EINVAL,
		"is no file in memory; a ram disk lies in a tmpfs such as /dev/shm");
}

static int check_size(struct cow_image *img, uint64_t size)
{
	if (size && num_is_aligned(size, COW_SECTOR_SIZE))
		return 0;
	return cow_error(img, -EINVAL,
		"has %llu bytes, which is no number of whole sectors of 512 bytes",
		(unsigned long long)size);
}

static int ram_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct cow_file_stat st;
	struct ram *ram;
	int ret;

	ret = cow_file_stat(img, 0, &st);
	if (!ret)
		ret = check_file(img);
	if (!ret)
		ret = check_size(img, st.size);
	if (ret)
		return ret;
	ram = malloc(sizeof(*ram));
	if (!ram)
		return -ENOMEM;
	ram->size = st.size;
	ram->writable = flags & COW_OPEN_WRITE;
	*handle = ram;
	return 0;
}

static void ram_close(void *handle)
{
	free(handle);
}

static int ram_info(void *handle, struct cow_image_info *info)
{
	const struct ram *ram = handle;

	info->size = ram->size;
	info->block_size = RAM_BLOCK_SIZE;
	return 0;
}

static int ram_map(void *handle, const struct cow_query *query,
		   struct cow_mapping *mapping)
{
	const struct ram *ram = handle;

	mapping->kind = COW_KIND_LINEAR;
	mapping->flags = ram->writable ? COW_MAPPING_WRITABLE : 0;
	mapping->count = num_div_up(ram->size, RAM_BLOCK_SIZE);
	return 0;
}

static int ram_create(struct cow_image *img, const struct cow_create *create)
{
	int ret = check_file(img);

	if (ret)
		return ret;
	if (create->backing_path)
		return cow_error(img, -EINVAL,
			"an image of the format ram has no backing image");
	ret = check_size(img, create->size);
	return ret ? ret : cow_file_extend(img, 0, create->size);
}

static const struct cow_plugin ram_plugin = {
	COW_PLUGIN_HEADER,
	.name = "ram",
	.description = "a disk in memory, which several may have open",
	/* No probe(): any contents may be a disk. */
	.open = ram_open,
	.close = ram_close,
	.info = ram_info,
	.map = ram_map,
	.create = ram_create,
	.shared = true,
};

COW_PLUGIN_REGISTER(ram_plugin)
