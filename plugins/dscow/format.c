// SPDX-License-Identifier: GPL-2.0-or-later
#include "format.h"

#include <common/crc32c.h>
#include <common/num.h>

#include <errno.h>

#define SECTOR 512u
#define BITS_PER_WORD 32u
/* Room for the shift of the blocks above a file's largest offset. */
#define SIZE_MAX_BYTES (1ull << 61)

static uint32_t header_checksum(const struct dscow_header_disk *d)
{
	return crc32c(0, d, offsetof(struct dscow_header_disk,
				     header_checksum));
}

uint64_t dscow_file_bytes(const struct dscow_header *h)
{
	return h->first_block + h->nr_blocks * h->block_size;
}

static uint64_t bitmap_bytes(const struct dscow_header *h)
{
	return num_round_up(h->bitmap_count * 4ull, DSCOW_BITMAP_ALIGN);
}

static bool block_size_ok(uint32_t n)
{
	return num_is_pow2(n) && n >= DSCOW_BLOCK_SIZE_MIN &&
	       n <= DSCOW_BLOCK_SIZE_MAX;
}

int dscow_header_layout(struct dscow_header *h)
{
	uint64_t words;

	if (!h->size || h->size > SIZE_MAX_BYTES)
		return -EFBIG;
	if (!block_size_ok(h->block_size))
		return -EINVAL;
	h->nr_blocks = num_div_up(h->size, h->block_size);
	words = num_div_up(h->nr_blocks, BITS_PER_WORD);
	if (words > UINT32_MAX)
		return -EFBIG;
	h->bitmap_count = (uint32_t)words;
	h->bitmap_offset = DSCOW_BITMAP_OFFSET;
	h->first_block = num_round_up(h->bitmap_offset + bitmap_bytes(h),
				      h->block_size);
	return 0;
}

/* --- Decode --------------------------------------------------------------- */

/* Is this an image that we know at all? */
static const char *check_kind(const struct dscow_header_disk *d, int *code)
{
	*code = -EINVAL;
	if (memcmp(d->magic, DSCOW_MAGIC, sizeof(d->magic)))
		return "is no dscow image";
	*code = -EOPNOTSUPP;
	if (le32_get(d->version) != DSCOW_VERSION)
		return "is a dscow image of a version that is not known here";
	*code = -EINVAL;
	if (le32_get(d->header_checksum) != header_checksum(d))
		return "has a damaged header: its checksum is wrong";
	*code = -EOPNOTSUPP;
	if (le64_get(d->incompatible) & ~DSCOW_INCOMPAT_KNOWN)
		return "uses features of dscow that are not known here";
	*code = -EINVAL;
	if (le32_get(d->header_bytes) != DSCOW_HEADER_BYTES)
		return "has a header of another length";
	return NULL;
}

static const char *check_sizes(const struct dscow_header *h)
{
	if (!h->size || h->size > SIZE_MAX_BYTES || h->size % SECTOR)
		return "has a header whose size is out of range";
	if (!block_size_ok(h->block_size))
		return "has a header whose block size is out of range";
	if (h->bitmap_count != num_div_up(h->nr_blocks, BITS_PER_WORD))
		return "has a header whose bitmap count does not fit its size";
	return NULL;
}

static const char *check_layout(const struct dscow_header *h)
{
	uint64_t path_end = DSCOW_BASE_PATH_OFFSET + h->base_path_length;

	if (!h->base_path_length || h->base_path_length > DSCOW_BASE_PATH_MAX)
		return "has a header whose base path is out of range";
	if (h->bitmap_offset % DSCOW_BITMAP_ALIGN ||
	    h->bitmap_offset < path_end || h->bitmap_offset > SIZE_MAX_BYTES)
		return "has a header whose bitmap offset is out of range";
	if (h->first_block % h->block_size ||
	    h->first_block > SIZE_MAX_BYTES ||
	    h->first_block < h->bitmap_offset + bitmap_bytes(h))
		return "has a header whose first block is out of range";
	return NULL;
}

static const char *check_base(const struct dscow_header_disk *d)
{
	if (d->base_format[DSCOW_FORMAT_NAME_MAX - 1] || !d->base_format[0])
		return "has a header whose base format is no name";
	if (le32_get(d->base_flags) & ~DSCOW_BASE_KNOWN)
		return "has a header whose base flags are not known here";
	if (le32_get(d->base_mtime_nsec) >= 1000000000u)
		return "has a header whose base time is out of range";
	return NULL;
}

static void get_fields(const struct dscow_header_disk *d,
		       struct dscow_header *h)
{
	h->incompatible = le64_get(d->incompatible);
	h->compatible = le64_get(d->compatible);
	h->size = le64_get(d->size);
	h->block_size = le32_get(d->block_size);
	h->bitmap_count = le32_get(d->bitmap_count);
	h->bitmap_offset = le64_get(d->bitmap_offset);
	h->first_block = le64_get(d->first_block);
	h->nr_blocks = h->block_size ? num_div_up(h->size, h->block_size) : 0;
	h->base.size = le64_get(d->base_size);
	h->base.file_size = le64_get(d->base_file_size);
	h->base.mtime_sec = (int64_t)le64_get(d->base_mtime_sec);
	h->base.mtime_nsec = le32_get(d->base_mtime_nsec);
	h->base.regular = le32_get(d->base_flags) & DSCOW_BASE_REGULAR;
	h->base.checksum = le32_get(d->base_checksum);
	h->base_path_length = le32_get(d->base_path_length);
	h->base_path_checksum = le32_get(d->base_path_checksum);
	memcpy(h->base_format, d->base_format, sizeof(h->base_format));
}

int dscow_header_decode(const struct dscow_header_disk *d,
			struct dscow_header *h, const char **why)
{
	int code;

	*why = check_kind(d, &code);
	if (*why)
		return code;
	get_fields(d, h);
	*why = check_sizes(h);
	if (!*why)
		*why = check_layout(h);
	if (!*why)
		*why = check_base(d);
	return *why ? -EINVAL : 0;
}

void dscow_header_encode(const struct dscow_header *h,
			 struct dscow_header_disk *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, DSCOW_MAGIC, sizeof(d->magic));
	d->version = le32_put(DSCOW_VERSION);
	d->header_bytes = le32_put(DSCOW_HEADER_BYTES);
	d->incompatible = le64_put(h->incompatible);
	d->compatible = le64_put(h->compatible);
	d->size = le64_put(h->size);
	d->block_size = le32_put(h->block_size);
	d->bitmap_count = le32_put(h->bitmap_count);
	d->bitmap_offset = le64_put(h->bitmap_offset);
	d->first_block = le64_put(h->first_block);
	d->base_size = le64_put(h->base.size);
	d->base_file_size = le64_put(h->base.file_size);
	d->base_mtime_sec = le64_put((uint64_t)h->base.mtime_sec);
	d->base_mtime_nsec = le32_put(h->base.mtime_nsec);
	d->base_flags = le32_put(h->base.regular ? DSCOW_BASE_REGULAR : 0);
	d->base_checksum = le32_put(h->base.checksum);
	d->base_path_length = le32_put(h->base_path_length);
	d->base_path_checksum = le32_put(h->base_path_checksum);
	memcpy(d->base_format, h->base_format, sizeof(d->base_format));
	d->header_checksum = le32_put(header_checksum(d));
}
