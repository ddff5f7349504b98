// SPDX-License-Identifier: GPL-2.0-or-later
#include "dscow.h"

#include <common/crc32c.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

static int set_sizes(struct cow_image *img, const struct cow_create *create,
		     struct dscow_header *h)
{
	int ret;

	h->size = num_round_up(create->size ? create->size :
			       create->backing_size, COW_SECTOR_SIZE);
	h->block_size = create->block_size ? create->block_size :
					     DSCOW_BLOCK_SIZE;
	ret = dscow_header_layout(h);
	if (ret == -EINVAL)
		return cow_error(img, ret,
			"a block size of %u is no power of two of 4k to 16m",
			h->block_size);
	if (ret)
		return cow_error(img, ret,
			"a disk of %llu bytes cannot be had with blocks of %u bytes",
			(unsigned long long)h->size, h->block_size);
	return 0;
}

static int set_base(struct cow_image *img, const struct cow_create *create,
		    struct dscow_header *h)
{
	size_t len = strlen(create->backing_path);

	if (len > DSCOW_BASE_PATH_MAX)
		return cow_error(img, -ENAMETOOLONG,
			"the base's path has %zu bytes, of at most %u", len,
			DSCOW_BASE_PATH_MAX);
	h->base_path_length = (uint32_t)len;
	h->base_path_checksum = crc32c(0, create->backing_path, len);
	strncpy(h->base_format, create->backing_format,
		sizeof(h->base_format) - 1);
	return dscow_identify_durable(create->backing, &h->base);
}

static int write_header(struct cow_image *img,
			const struct cow_create *create,
			const struct dscow_header *h)
{
	struct dscow_header_disk disk;
	int ret;

	/* The file is empty: all of it that is not written reads as zero. */
	cow_zeroes_end(img, h->first_block);
	ret = cow_file_extend(img, 0, dscow_file_bytes(h));
	if (!ret)
		ret = cow_write(img, 0, create->backing_path,
				h->base_path_length, DSCOW_BASE_PATH_OFFSET);
	if (ret)
		return ret;
	dscow_header_encode(h, &disk);
	return cow_write(img, 0, &disk, sizeof(disk), 0);
}

int dscow_create(struct cow_image *img, const struct cow_create *create)
{
	struct dscow_header h = { 0 };
	int ret;

	if (!create->backing)
		return cow_error(img, -EINVAL, "a dscow image needs a base");
	ret = set_sizes(img, create, &h);
	if (!ret)
		ret = set_base(img, create, &h);
	if (!ret)
		ret = write_header(img, create, &h);
	return ret;
}
