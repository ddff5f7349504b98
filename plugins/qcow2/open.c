// SPDX-License-Identifier: GPL-2.0-or-later
/* open.c - open: what must hold before anything in the image is believed. */
#include "qcow2.h"

#include <common/num.h>
#include <common/qemu-name.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_BYTES (64u << 10)

/* --- Header ---------------------------------------------------------------- */

static int read_header(struct qcow2 *d)
{
	size_t len = num_min(d->file_size, 1u << QCOW2_CLUSTER_BITS_MAX);
	uint8_t *buf = malloc(len + 1);
	char why[QCOW2_WHY_MAX];
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = len ? cow_read(d->img, 0, buf, len, 0) : 0;
	if (!ret) {
		ret = qcow2_header_decode(buf, len, &d->h, why);
		if (ret)
			cow_error(d->img, ret, "%s", why);
	}
	free(buf);
	return ret;
}

/* What must stand as a whole in the file. */
static int check_in_file(struct qcow2 *d, uint64_t offset, uint64_t bytes,
			 const char *what)
{
	if (num_run_in(offset, bytes, d->file_size))
		return 0;
	return cow_error(d->img, -EINVAL,
		"has its %s at offset %llu, past the end of the file at %llu",
		what, (unsigned long long)offset,
		(unsigned long long)d->file_size);
}

static int check_areas(struct qcow2 *d)
{
	uint64_t reftable = (uint64_t)d->h.reftable_clusters <<
			    d->h.cluster_bits;
	int ret;

	ret = check_in_file(d, d->h.reftable_offset, reftable,
			    "refcount table");
	if (!ret && d->h.l1_size)
		ret = check_in_file(d, d->h.l1_offset, d->h.l1_size * 8ull,
				    "L1 table");
	return ret;
}

/*
 * What is behind the last entry, in its cluster, is nobody's.  With it the table is
 * written past the page cache, in which data beside it would be old (test-direct.c).
 */
static uint64_t l1_bytes(const struct qcow2 *d)
{
	uint64_t bytes = d->h.l1_size * 8ull;
	uint64_t whole = num_round_up(bytes, COW_SECTOR_SIZE);

	return num_run_in(d->h.l1_offset, whole, d->file_size) ? whole : bytes;
}

/* --- Other files ------------------------------------------------------------ */

static int check_backing(struct qcow2 *d)
{
	const char *path = qemu_name_path(d->h.backing);

	if (!*d->h.backing)
		return 0;
	if (!path)
		return cow_error(d->img, -EOPNOTSUPP,
			"has a backing image that is no file: %s",
			d->h.backing);
	d->backing_path = strdup(path);
	if (*d->h.backing_format)
		d->backing_format = qemu_name_format(d->h.backing_format);
	return d->backing_path ? 0 : -ENOMEM;
}

static int open_data_file(struct qcow2 *d)
{
	const char *path = cow_image_option(d->img, "data_file");
	struct cow_file_stat st;
	int ret;

	if (!d->g.data_file)
		return path ? cow_error(d->img, -EINVAL,
			"keeps its data itself; it has no external data file") :
			0;
	if (!path)
		path = d->h.data_file;
	if (!*path)
		return cow_error(d->img, -EINVAL,
			"does not name its external data file; tell it by the option data_file");
	ret = cow_file_add(d->img, path, &d->data_file);
	if (!ret && d->writable)
		ret = cow_file_extend(d->img, d->data_file,
				      num_round_up(d->h.size, 512));
	if (!ret)
		ret = cow_file_stat(d->img, d->data_file, &st);
	d->data_size = st.size;
	return ret;
}

/* --- Open -------------------------------------------------------------------- */

/* Large clusters: an L2 table in at most QCOW2_SLICES_MAX slices. */
static uint32_t slice_bytes(const struct qcow2 *d)
{
	uint32_t size = d->g.cluster_size;

	return (uint32_t)num_max(num_min(size, SLICE_BYTES),
				 size / QCOW2_SLICES_MAX);
}

static int init_tables(struct qcow2 *d)
{
	uint64_t slice = d->slice_bytes, n;

	n = num_div_up(d->h.l1_size * 8ull, slice);
	n += d->h.size / d->g.cluster_size / (slice / d->g.entry_size) + 1;
	n += num_div_up(d->nr_refblocks * 8, slice);
	n += d->file_size / d->g.cluster_size /
	     ((slice * 8) >> d->g.ref_order) + 64;
	return cow_image_tables(d->img, (uint32_t)num_max(slice,
				COW_TABLE_SIZE_MIN), n);
}

/*
 * Version 2 cannot say that a block is zero where the backing image has
 * data; and a raw data file has to be zero where the disk is.
 */
static bool can_say_zero(const struct qcow2 *d)
{
	return (d->g.version > 2 || !d->backing_path) &&
	       !(d->h.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
}

static int open_image(struct qcow2 *d, uint32_t flags)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(d->img, 0, &st);
	if (ret)
		return ret;
	d->file_size = st.size;
	d->alloc.device = st.block_device;
	ret = read_header(d);
	if (ret)
		return ret;
	qcow2_geometry_set(&d->h, &d->g);
	d->slice_bytes = slice_bytes(d);
	d->nr_refblocks = ((uint64_t)d->h.reftable_clusters <<
			   d->g.cluster_bits) / 8;
	ret = check_areas(d);
	if (!ret)
		ret = check_backing(d);
	if (!ret)
		ret = open_data_file(d);
	if (!ret)
		ret = qcow2_buffers_init(d);
	if (!ret && d->writable && !(flags & COW_OPEN_UNFINISHED))
		ret = qcow2_prepare_write(d);
	d->l1_bytes = l1_bytes(d);	/* a file that is written has whole clusters now */
	if (!ret)
		ret = init_tables(d);
	if (!ret && !can_say_zero(d))
		ret = cow_image_fixed_places(d->img);
	return ret;
}

void qcow2_close(void *handle)
{
	struct qcow2 *d = handle;

	qcow2_buffers_free(d);
	qcow2_moved_free(d);
	qcow2_pending_free(d);
	qcow2_freed_free(d);
	free(d->alloc.left);
	free(d->backing_path);
	free(d);
}

int qcow2_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct qcow2 *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return -ENOMEM;
	d->img = img;
	d->writable = flags & COW_OPEN_WRITE;
	ret = open_image(d, flags);
	if (ret) {
		qcow2_close(d);
		return ret;
	}
	*handle = d;
	return 0;
}
