// SPDX-License-Identifier: GPL-2.0-or-later
/* open.c - open: what must hold before anything in the image is believed. */
#include "qcow.h"

#include <common/bits.h>
#include <common/num.h>
#include <common/qemu-name.h>

#include <errno.h>
#include <stdlib.h>

/* Room for clusters given up that wait for a commit: all, up to so much. */
#define SLACK_MAX (4ull << 30)
#define SLACK_MORE (4ull << 20)
#define RUNS_MAX 16384u

/* --- What is fixed -------------------------------------------------------- */

static bool touches(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

bool qcow_in_fixed(const struct qcow *d, uint64_t offset, uint64_t len)
{
	const struct qcow_header *h = &d->h;

	return touches(offset, len, 0, sizeof(struct qcow_header_disk)) ||
	       touches(offset, len, h->l1_offset,
		       h->l1_entries * sizeof(be64)) ||
	       (h->name_len && touches(offset, len, h->name_offset,
				       h->name_len + d->fixed_tail));
}

static const char *place_fault(const struct qcow *d, uint64_t offset,
			       uint64_t len)
{
	if (!num_is_aligned(offset, d->cluster_size))
		return "that is no multiple of the cluster size";
	if (offset >= d->end)
		return "that is past the end of the file";
	if (qcow_in_fixed(d, offset, len))
		return "the header or the L1 table is there";
	return NULL;
}

const char *qcow_l2_fault(const struct qcow *d, uint64_t offset)
{
	const char *why = place_fault(d, offset,
		(uint64_t)qcow_table_units(d) << d->h.cluster_bits);

	if (!why && !num_run_in(offset, d->l2_bytes, d->end))
		why = "the file ends within it";
	return why;
}

/* The file may end in the last cluster: what is missing reads as zeroes. */
const char *qcow_cluster_fault(const struct qcow *d, uint64_t offset)
{
	return place_fault(d, offset, d->cluster_size);
}

/* No such cluster is written here: all are in the file as it was opened. */
const char *qcow_packed_fault(const struct qcow *d, uint64_t entry)
{
	uint64_t offset = qcow_packed_offset(&d->h, entry);
	uint32_t len = qcow_packed_len(&d->h, entry);

	if (!len)
		return "its length is 0";
	if (!num_run_in(offset, len, d->opened_end))
		return "it is past the end of the file";
	if (qcow_in_fixed(d, offset, len))
		return "the header or the L1 table is there";
	return NULL;
}

/* --- Header --------------------------------------------------------------- */

static int read_header(struct qcow *d)
{
	size_t len = num_min(d->end, sizeof(struct qcow_header_disk));
	struct qcow_header_disk disk;
	char why[QCOW_WHY_MAX];
	int ret;

	ret = len ? cow_read(d->img, 0, &disk, len, 0) : 0;
	if (ret)
		return ret;
	ret = qcow_header_decode(&disk, len, d->end, &d->h, why);
	return ret ? cow_error(d->img, ret, "%s", why) : 0;
}

/* What stands behind the name, if it is no table. */
static void read_record(struct qcow *d, const char *record, size_t len)
{
	uint64_t at = d->h.name_offset + d->h.name_len;

	if (at <= d->h.l1_offset)
		len = num_min(len, d->h.l1_offset - at);
	if (qcow_record_decode(record, len, d->backing_format))
		d->fixed_tail = (uint32_t)strlen(record + 1) + 2;
}

static int check_format(struct qcow *d)
{
	const char *given = cow_image_option(d->img, "backing_format");

	if (given && !d->backing_path)
		return cow_error(d->img, -EINVAL,
			"has no backing file, and so none of the format %s",
			given);
	if (!given)
		return 0;
	given = qemu_name_format(given);
	if (!*given || strlen(given) > QCOW_FORMAT_MAX)
		return cow_error(d->img, -EINVAL,
			"backing_format=%s: is no name of a format", given);
	strcpy(d->backing_format, given);
	return 0;
}

static int read_backing(struct qcow *d)
{
	char name[QCOW_NAME_MAX + QCOW_RECORD_MAX + 1] = "";
	size_t len = d->h.name_len, more;
	const char *path;
	int ret;

	if (!len)
		return 0;
	more = num_min(QCOW_RECORD_MAX, d->end - d->h.name_offset - len);
	ret = cow_read(d->img, 0, name, len + more, d->h.name_offset);
	if (ret)
		return ret;
	read_record(d, name + len, more);
	name[len] = 0;
	if (strlen(name) != len)
		return cow_error(d->img, -EINVAL,
			"has a zero byte in the name of its backing file at offset %llu",
			(unsigned long long)d->h.name_offset);
	path = qemu_name_path(name);
	if (!path)
		return cow_error(d->img, -EOPNOTSUPP,
			"has a backing image that is no file: %s", name);
	d->backing_path = strdup(path);
	return d->backing_path ? 0 : -ENOMEM;
}

/* --- Geometry ------------------------------------------------------------- */

static int set_geometry(struct qcow *d)
{
	uint64_t pieces;

	d->cluster_size = 1u << d->h.cluster_bits;
	d->nr_clusters = num_div_up(d->h.size, d->cluster_size);
	d->l2_bytes = (uint32_t)sizeof(be64) << d->h.l2_bits;
	d->l2_piece = (uint32_t)num_min(d->l2_bytes, QCOW_PIECE_MAX);
	d->l1_piece = (uint32_t)num_min(d->cluster_size, QCOW_PIECE_MAX);
	pieces = d->h.l1_entries * (d->l2_bytes / d->l2_piece) +
		 num_div_up(d->h.l1_entries * sizeof(be64), d->l1_piece) + 4;
	return cow_image_tables(d->img, QCOW_PIECE_MAX, pieces);
}

/* --- For writing ---------------------------------------------------------- */

/* The file has whole clusters; new bytes read as zeroes. */
static int round_file(struct qcow *d)
{
	int ret = 0;

	d->end = num_round_up(d->opened_end, d->cluster_size);
	if (d->device)
		d->end = num_round_down(d->opened_end, d->cluster_size);
	else
		ret = cow_file_extend(d->img, 0, d->end);
	d->space.end = d->end >> d->h.cluster_bits;
	d->opened_units = d->space.end;
	return ret;
}

static int make_space(struct qcow *d, uint64_t units)
{
	uint64_t tables = d->h.l1_entries * qcow_table_units(d);
	uint64_t slack = num_min(qcow_bytes(d, d->nr_clusters), SLACK_MAX) +
			 SLACK_MORE;
	uint64_t max = units + d->nr_clusters + tables +
		       (slack >> d->h.cluster_bits);

	return space_init(&d->space, d->cluster_size, units,
			  num_min(max, QCOW_UNITS_MAX));
}

/*
 * What is free must be known, and nothing may be damaged: a cluster that two
 * of the disk have must not be written.
 */
static int prepare_writing(struct qcow *d)
{
	struct qcow_scan scan = { .d = d };
	int ret;

	ret = qcow_units(d, &scan.units);
	if (!ret)
		ret = make_space(d, scan.units);
	if (ret)
		return ret;
	scan.ref = d->space.ref;
	ret = qcow_scan(&scan);
	if (!ret)
		ret = round_file(d);
	if (!ret)
		ret = runs_init(&d->runs, RUNS_MAX, d->cluster_size);
	if (!ret && d->backing_path)
		ret = cow_image_fixed_places(d->img);
	if (!ret)
		space_ready(&d->space);
	return ret;
}

/* --- All of it ------------------------------------------------------------ */

static int open_image(struct qcow *d, uint32_t flags)
{
	struct cow_file_stat st;
	int ret;

	/* Who checks looks at what is damaged, and writes by itself. */
	d->writable = flags & COW_OPEN_WRITE && !(flags & COW_OPEN_UNFINISHED);
	ret = cow_file_stat(d->img, 0, &st);
	if (ret)
		return ret;
	d->device = st.block_device;
	d->opened_end = st.size;
	d->end = st.size;
	ret = read_header(d);
	if (!ret)
		ret = read_backing(d);
	if (!ret)
		ret = check_format(d);
	if (!ret)
		ret = set_geometry(d);
	if (ret)
		return ret;
	d->packed = malloc(d->cluster_size);
	d->unpacked = malloc(d->cluster_size);
	if (!d->packed || !d->unpacked)
		return -ENOMEM;
	return d->writable ? prepare_writing(d) : 0;
}

void qcow_close(void *handle)
{
	struct qcow *d = handle;

	space_free(&d->space);
	runs_free(&d->runs);
	free(d->backing_path);
	free(d->packed);
	free(d->unpacked);
	free(d);
}

int qcow_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct qcow *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return -ENOMEM;
	d->img = img;
	ret = open_image(d, flags);
	if (ret) {
		qcow_close(d);
		return ret;
	}
	*handle = d;
	return 0;
}
