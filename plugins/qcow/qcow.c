// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow.c - the plugin, and what an image tells of itself. */
#include "qcow.h"

#include <common/num.h>

static int qcow_probe(const void *buf, size_t len, uint64_t file_size)
{
	return qcow_is_image(buf, len);
}

static int qcow_info(void *handle, struct cow_image_info *info)
{
	const struct qcow *d = handle;

	info->size = d->h.size;
	info->block_size = d->cluster_size;
	info->backing_path = d->backing_path;
	info->backing_format = *d->backing_format ? d->backing_format : NULL;
	info->backing_guess = "raw";
	info->run_blocks = d->l2_piece / sizeof(be64);
	return 0;
}

/* --- Commit --------------------------------------------------------------- */

static int qcow_commit(void *handle)
{
	struct qcow *d = handle;

	space_commit(&d->space);
	return 0;
}

static void qcow_committed(void *handle, int status)
{
	struct qcow *d = handle;

	space_committed(&d->space, !status);
}

/* --- Describe ------------------------------------------------------------- */

static int qcow_describe(void *handle, struct cow_describe *to)
{
	const struct qcow *d = handle;

	cow_describe_u64(to, "size", "Size", d->h.size);
	cow_describe_u64(to, "cluster-size", "Cluster size", d->cluster_size);
	cow_describe_u64(to, "l2-bits", "L2 bits", d->h.l2_bits);
	if (d->backing_path)
		cow_describe_str(to, "backing-file", "Backing file",
				 d->backing_path);
	if (*d->backing_format)
		cow_describe_str(to, "backing-format", "Backing format",
				 d->backing_format);
	return 0;
}

/* --- The plugin ----------------------------------------------------------- */

static const struct cow_option qcow_options[] = {
	{ "backing_format", "the format of the backing file, which others do not record",
	  COW_OPTION_OPEN },
	{ "cluster_size", "512 to 64k, a power of two (64k)",
	  COW_OPTION_CREATE },
	{ "l2_bits", "6 to 13: an L2 table has 2 to the power of it entries",
	  COW_OPTION_CREATE },
	{ 0 }
};

static const struct cow_plugin qcow_plugin = {
	COW_PLUGIN_HEADER,
	.name = "qcow",
	.description = "qcow, version 1",
	.options = qcow_options,
	.probe = qcow_probe,
	.open = qcow_open,
	.close = qcow_close,
	.info = qcow_info,
	.map = qcow_map,
	.copied = qcow_copied,
	.commit = qcow_commit,
	.committed = qcow_committed,
	.discard = qcow_discard,
	.write_zeroes = qcow_discard,
	.read = qcow_read,
	.create = qcow_create,
	.check = qcow_check,
	.describe = qcow_describe,
};

COW_PLUGIN_REGISTER(qcow_plugin)
