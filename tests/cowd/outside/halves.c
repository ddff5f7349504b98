// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * halves.c - a plugin from outside of the tree: a disk whose halves stand in
 * the file the other way round, so that a reader sees that it was asked.
 */
#include <libcow/cow-plugin.h>

#include <errno.h>
#include <stdlib.h>

#define BLOCK 65536u

struct halves {
	uint64_t blocks;	/* of one half */
	bool writable;
};

static int halves_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct halves *h = calloc(1, sizeof(*h));
	struct cow_file_stat st;
	int ret;

	if (!h)
		return -ENOMEM;
	ret = cow_file_stat(img, 0, &st);
	if (!ret && (!st.size || st.size % (2 * BLOCK)))
		ret = cow_error(img, -EINVAL, "has no two halves of whole blocks");
	if (ret) {
		free(h);
		return ret;
	}
	h->blocks = st.size / 2 / BLOCK;
	h->writable = flags & COW_OPEN_WRITE;
	*handle = h;
	return 0;
}

static void halves_close(void *handle)
{
	free(handle);
}

static int halves_info(void *handle, struct cow_image_info *info)
{
	const struct halves *h = handle;

	info->size = 2 * h->blocks * BLOCK;
	info->block_size = BLOCK;
	return 0;
}

static int halves_map(void *handle, const struct cow_query *query,
		      struct cow_mapping *mapping)
{
	const struct halves *h = handle;
	bool second = query->first >= h->blocks;

	mapping->kind = COW_KIND_LINEAR;
	mapping->flags = h->writable ? COW_MAPPING_WRITABLE : 0;
	mapping->first = second ? h->blocks : 0;
	mapping->count = h->blocks;
	mapping->file = 0;
	mapping->offset = second ? 0 : h->blocks * BLOCK;
	return 0;
}

static const struct cow_plugin halves_plugin = {
	COW_PLUGIN_HEADER,
	.name = "halves",
	.description = "the two halves of a file the other way round",
	.open = halves_open,
	.close = halves_close,
	.info = halves_info,
	.map = halves_map,
};

COW_PLUGIN_REGISTER(halves_plugin)
