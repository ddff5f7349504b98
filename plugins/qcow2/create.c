// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create.c - a new image: header, refcount table, refcount blocks, L1 table,
 * one after the other; nothing of the disk is allocated.
 */
#include "qcow2.h"

#include <common/num.h>
#include <common/size.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTER_SIZE (64u << 10)

/* Clusters of the new file. */
struct layout {
	uint64_t nr_reftable, nr_blocks, nr_l1;
};

/* --- Options ------------------------------------------------------------------ */

static int bad_option(struct cow_image *img, const char *name,
		      const char *value, const char *want)
{
	return cow_error(img, -EINVAL, "%s=%s: must be %s", name, value, want);
}

static int get_flag(struct cow_image *img, const char *name, bool *on)
{
	const char *value = cow_image_option(img, name);

	*on = value && !strcmp(value, "on");
	if (!value || *on || !strcmp(value, "off"))
		return 0;
	return bad_option(img, name, value, "on or off");
}

static int get_cluster_bits(struct cow_image *img,
			    const struct cow_create *create,
			    struct qcow2_header *h)
{
	const char *value = cow_image_option(img, "cluster_size");
	uint64_t size = create->block_size;

	if (h->incompatible & QCOW2_INCOMPAT_EXTL2)
		size *= 32;	/* a block is a subcluster */
	if (!size)
		size = CLUSTER_SIZE;
	if (value && size_parse(value, &size))
		size = 0;
	if (!num_is_pow2(size) || size < 1u << QCOW2_CLUSTER_BITS_MIN ||
	    size > 1u << QCOW2_CLUSTER_BITS_MAX) {
		if (value)
			return bad_option(img, "cluster_size", value,
				"a power of two of 512 to 2m");
		return cow_error(img, -EINVAL,
			"clusters of %llu bytes: must be a power of two of 512 to 2m",
			(unsigned long long)size);
	}
	h->cluster_bits = (uint32_t)__builtin_ctzll(size);
	return 0;
}

static int get_version(struct cow_image *img, struct qcow2_header *h)
{
	const char *value = cow_image_option(img, "compat");

	h->version = 3;
	if (!value || !strcmp(value, "1.1") || !strcmp(value, "3"))
		return 0;
	h->version = 2;
	if (!strcmp(value, "0.10") || !strcmp(value, "2"))
		return 0;
	return bad_option(img, "compat", value, "0.10 or 1.1");
}

static int get_refcount_order(struct cow_image *img, struct qcow2_header *h)
{
	const char *value = cow_image_option(img, "refcount_bits");
	uint64_t bits = 16;

	if (value && (size_parse(value, &bits) || !num_is_pow2(bits) ||
		      bits > 64))
		return bad_option(img, "refcount_bits", value,
				  "1, 2, 4, 8, 16, 32 or 64");
	h->refcount_order = (uint32_t)__builtin_ctzll(bits);
	return 0;
}

static int get_compression(struct cow_image *img, struct qcow2_header *h)
{
	const char *value = cow_image_option(img, "compression_type");

	if (!value || !strcmp(value, "zlib"))
		return 0;
	if (strcmp(value, "zstd"))
		return bad_option(img, "compression_type", value,
				  "zlib or zstd");
	h->compression = QCOW2_ZSTD;
	h->incompatible |= QCOW2_INCOMPAT_COMPRESSION;
	return 0;
}

static int copy_name(struct cow_image *img, char *to, size_t max,
		     const char *from)
{
	if (strlen(from) > max)
		return cow_error(img, -ENAMETOOLONG,
			"the name %s is longer than %zu bytes", from, max);
	memcpy(to, from, strlen(from));
	return 0;
}

static int get_names(struct cow_image *img, const struct cow_create *create,
		     struct qcow2_header *h)
{
	const char *data = cow_image_option(img, "data_file");
	const char *format = create->backing_format;
	int ret = 0;

	if (data) {
		h->incompatible |= QCOW2_INCOMPAT_DATA_FILE;
		ret = copy_name(img, h->data_file, QCOW2_NAME_MAX, data);
	}
	if (ret || !create->backing_path)
		return ret;
	if (format && !strcmp(format, "vhd"))
		format = "vpc";		/* as qemu has it */
	ret = copy_name(img, h->backing, QCOW2_NAME_MAX,
			create->backing_path);
	if (!ret && format)
		ret = copy_name(img, h->backing_format, QCOW2_FORMAT_MAX,
				format);
	return ret;
}

static int check_options(struct cow_image *img, const struct qcow2_header *h,
			 bool lazy)
{
	if (h->version == 2 && (h->incompatible || lazy ||
				h->refcount_order != 4))
		return cow_error(img, -EINVAL,
			"compat=0.10 has none of the other options; use compat=1.1");
	if (h->incompatible & QCOW2_INCOMPAT_EXTL2 &&
	    h->cluster_bits < QCOW2_CLUSTER_BITS_EXT)
		return cow_error(img, -EINVAL,
			"extended_l2=on needs clusters of 16k or more");
	return 0;
}

static int get_options(struct cow_image *img, const struct cow_create *create,
		       struct qcow2_header *h)
{
	bool lazy = false, extended = false;
	int ret;

	h->size = num_round_up(create->size ? create->size :
			       create->backing_size, 512);
	if (h->size > INT64_MAX)
		return cow_error(img, -EINVAL,
			"the size of the disk is out of range");
	ret = get_version(img, h);
	if (!ret)
		ret = get_flag(img, "lazy_refcounts", &lazy);
	if (!ret)
		ret = get_flag(img, "extended_l2", &extended);
	h->compatible = lazy ? QCOW2_COMPAT_LAZY : 0;
	h->incompatible = extended ? QCOW2_INCOMPAT_EXTL2 : 0;
	if (!ret)
		ret = get_cluster_bits(img, create, h);
	if (!ret)
		ret = get_refcount_order(img, h);
	if (!ret)
		ret = get_compression(img, h);
	if (!ret)
		ret = get_names(img, create, h);
	return ret ? ret : check_options(img, h, lazy);
}

/* --- Layout --------------------------------------------------------------------- */

static uint64_t all_clusters(const struct layout *l)
{
	return 1 + l->nr_reftable + l->nr_blocks + l->nr_l1;
}

static int make_layout(struct cow_image *img, struct qcow2_header *h,
		       struct layout *l)
{
	struct qcow2_geometry g;
	uint64_t blocks;

	qcow2_geometry_set(h, &g);
	blocks = num_div_up(h->size, 1ull << (g.l2_bits + g.cluster_bits));
	if (blocks * 8 > QCOW2_L1_BYTES_MAX)
		return cow_error(img, -EFBIG,
			"a disk of %llu bytes needs larger clusters than %u bytes",
			(unsigned long long)h->size, g.cluster_size);
	h->l1_size = (uint32_t)blocks;
	l->nr_l1 = num_div_up(blocks * 8, g.cluster_size);
	l->nr_blocks = 0;
	l->nr_reftable = 1;
	do {
		blocks = l->nr_blocks;
		l->nr_blocks = num_div_up(all_clusters(l), 1ull << g.rb_bits);
		l->nr_reftable = num_div_up(l->nr_blocks * 8, g.cluster_size);
	} while (blocks != l->nr_blocks);
	h->reftable_offset = g.cluster_size;
	h->reftable_clusters = (uint32_t)l->nr_reftable;
	h->l1_offset = (all_clusters(l) - l->nr_l1) << g.cluster_bits;
	return 0;
}

/* --- Write ---------------------------------------------------------------------- */

static int write_refcounts(struct cow_image *img,
			   const struct qcow2_header *h,
			   const struct layout *l)
{
	uint32_t size = 1u << h->cluster_bits;
	uint64_t all = all_clusters(l), i, n, at;
	uint64_t per = (size * 8ull) >> h->refcount_order;
	uint8_t *buf = malloc(size);
	be64 entry;
	int ret = buf ? 0 : -ENOMEM;

	for (i = 0; !ret && i < l->nr_blocks; i++) {
		at = (1 + l->nr_reftable + i) << h->cluster_bits;
		memset(buf, 0, size);
		for (n = 0; n < per && i * per + n < all; n++)
			qcow2_ref_set(buf, h->refcount_order, n, 1);
		ret = cow_write(img, 0, buf, size, at);
		entry = be64_put(at);
		if (!ret)
			ret = cow_write(img, 0, &entry, sizeof(entry),
					h->reftable_offset + i * 8);
	}
	free(buf);
	return ret;
}

static int write_header(struct cow_image *img, const struct qcow2_header *h)
{
	uint32_t size = 1u << h->cluster_bits;
	uint8_t *buf = calloc(1, size);
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = qcow2_header_encode(h, buf);
	if (ret)
		cow_error(img, ret,
			"the names do not fit into a cluster of %u bytes",
			size);
	else
		ret = cow_write(img, 0, buf, size, 0);
	free(buf);
	return ret;
}

int qcow2_create(struct cow_image *img, const struct cow_create *create)
{
	struct qcow2_header *h = calloc(1, sizeof(*h));
	struct layout l = { 0 };
	int ret;

	if (!h)
		return -ENOMEM;
	ret = get_options(img, create, h);
	if (!ret)
		ret = make_layout(img, h, &l);
	if (!ret)
		ret = cow_file_extend(img, 0, all_clusters(&l) <<
				      h->cluster_bits);
	/* A device may hold anything: what is not written must be zero. */
	if (!ret)
		ret = cow_punch(img, 0, 0, all_clusters(&l) <<
				h->cluster_bits);
	if (!ret)
		ret = write_refcounts(img, h, &l);
	if (!ret)
		ret = write_header(img, h);
	free(h);
	return ret;
}
