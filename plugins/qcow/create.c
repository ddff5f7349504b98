// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create.c - a new image: the header, the name of the backing file and its
 * format; then, from the next cluster on, the L1 table.
 */
#include "qcow.h"

#include <common/num.h>
#include <common/qemu-name.h>
#include <common/size.h>

#include <errno.h>
#include <stdio.h>

#define DEFAULT_CLUSTER (64u << 10)
/* Smaller L2 tables would make a large L1 table. */
#define DEFAULT_L2_BITS 12u

static int bad_option(struct cow_image *img, const char *name,
		      const char *value, const char *want)
{
	return cow_error(img, -EINVAL, "%s=%s: must be %s", name, value, want);
}

static int get_cluster_bits(struct cow_image *img,
			    const struct cow_create *create,
			    struct qcow_header *h)
{
	const char *value = cow_image_option(img, "cluster_size");
	uint64_t size = create->block_size ? create->block_size :
					     DEFAULT_CLUSTER;
	char text[32];

	if (value && size_parse(value, &size))
		size = 0;
	if (!num_is_pow2(size) || size < 1u << QCOW_CLUSTER_BITS_MIN ||
	    size > 1u << QCOW_CLUSTER_BITS_MAX) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
		return bad_option(img, "cluster_size", value ? value : text,
				  "a power of two of 512 to 64k");
	}
	h->cluster_bits = (uint32_t)__builtin_ctzll(size);
	return 0;
}

static int get_l2_bits(struct cow_image *img, struct qcow_header *h)
{
	const char *value = cow_image_option(img, "l2_bits");
	uint64_t bits = num_max(h->cluster_bits - 3, DEFAULT_L2_BITS);

	if (value && (size_parse(value, &bits) || bits < QCOW_L2_BITS_MIN ||
		      bits > QCOW_L2_BITS_MAX))
		return bad_option(img, "l2_bits", value, "6 to 13");
	h->l2_bits = (uint32_t)bits;
	return 0;
}

/* Others see whole sectors only. */
static int set_size(struct cow_image *img, const struct cow_create *create,
		    struct qcow_header *h)
{
	uint64_t size = create->size ? create->size : create->backing_size;

	if (!size)
		return cow_error(img, -EINVAL,
			"a disk of 0 bytes cannot be had");
	h->size = size < INT64_MAX ? num_round_up(size, COW_SECTOR_SIZE) :
				     UINT64_MAX;
	if (qcow_set_l1(h))
		return 0;
	return cow_error(img, -EFBIG,
		"a disk of %llu bytes cannot be had with clusters of %u bytes and L2 tables of %u entries",
		(unsigned long long)size, 1u << h->cluster_bits,
		1u << h->l2_bits);
}

static int set_name(struct cow_image *img, const struct cow_create *create,
		    struct qcow_header *h)
{
	size_t len = create->backing_path ? strlen(create->backing_path) : 0;

	if (len > QCOW_NAME_MAX)
		return cow_error(img, -ENAMETOOLONG,
			"the name %s is longer than %u bytes",
			create->backing_path, QCOW_NAME_MAX);
	if (len && !qemu_name_path(create->backing_path))
		return cow_error(img, -EINVAL,
			"the name %s would be taken for a protocol, as a colon comes before any slash; put ./ before it",
			create->backing_path);
	h->name_len = (uint32_t)len;
	h->name_offset = sizeof(struct qcow_header_disk);
	return 0;
}

static int write_name(struct cow_image *img, const struct cow_create *create,
		      const struct qcow_header *h)
{
	char record[QCOW_RECORD_MAX];
	int ret;

	ret = cow_write(img, 0, create->backing_path, h->name_len,
			h->name_offset);
	if (ret)
		return ret;
	return cow_write(img, 0, record,
			 qcow_record_encode(create->backing_format, record),
			 h->name_offset + h->name_len);
}

/* The file is empty: all of it that is not written reads as zero. */
static int write_all(struct cow_image *img, const struct cow_create *create,
		     struct qcow_header *h)
{
	uint32_t cluster = 1u << h->cluster_bits;
	struct qcow_header_disk disk;
	int ret;

	h->l1_offset = num_round_up(h->name_offset + h->name_len +
				    QCOW_RECORD_MAX, cluster);
	ret = cow_file_extend(img, 0, num_round_up(h->l1_offset +
			      h->l1_entries * sizeof(be64), cluster));
	if (!ret && h->name_len)
		ret = write_name(img, create, h);
	if (ret)
		return ret;
	qcow_header_encode(h, &disk);
	return cow_write(img, 0, &disk, sizeof(disk), 0);
}

int qcow_create(struct cow_image *img, const struct cow_create *create)
{
	struct qcow_header h = { 0 };
	int ret;

	ret = get_cluster_bits(img, create, &h);
	if (!ret)
		ret = get_l2_bits(img, &h);
	if (!ret)
		ret = set_size(img, create, &h);
	if (!ret)
		ret = set_name(img, create, &h);
	return ret ? ret : write_all(img, create, &h);
}
