// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow2.c - the plugin, and what an image tells of itself. */
#include "qcow2.h"

#include <errno.h>
#include <string.h>

static int qcow2_probe(const void *buf, size_t len, uint64_t file_size)
{
	const struct qcow2_header_disk *d = buf;

	return len >= QCOW2_HEADER_V2 && be32_get(d->magic) == QCOW2_MAGIC &&
	       (be32_get(d->version) == 2 || be32_get(d->version) == 3);
}

static int qcow2_info(void *handle, struct cow_image_info *info)
{
	const struct qcow2 *d = handle;

	info->size = d->h.size;
	info->block_size = d->g.block_size;
	info->backing_path = d->backing_path;
	info->backing_format = d->backing_format;
	/* Of one slice of an L2 table. */
	info->run_blocks = (uint64_t)(d->slice_bytes / d->g.entry_size) <<
			   d->g.sub_bits;
	return 0;
}

/* --- Amend ------------------------------------------------------------------ */

static int amend_lazy(struct qcow2 *d, const char *value)
{
	uint64_t bits = d->h.compatible & ~QCOW2_COMPAT_LAZY;

	if (d->g.version < 3)
		return cow_error(d->img, -EOPNOTSUPP,
			"is of version 2, which has no lazy refcounts");
	if (!strcmp(value, "on"))
		bits |= QCOW2_COMPAT_LAZY;
	else if (strcmp(value, "off"))
		return cow_error(d->img, -EINVAL,
			"lazy_refcounts=%s: must be on or off", value);
	return qcow2_set_features(d, d->h.incompatible, bits,
				  d->h.autoclear);
}

static int qcow2_amend(void *handle, const char *name, const char *value)
{
	struct qcow2 *d = handle;

	if (!strcmp(name, "lazy_refcounts"))
		return amend_lazy(d, value);
	return cow_error(d->img, -EINVAL, "%s cannot be amended", name);
}

/* --- Describe --------------------------------------------------------------- */

static void describe_flag(struct cow_describe *to, const char *name,
			  const char *label, bool on)
{
	cow_describe_str(to, name, label, on ? "yes" : "no");
}

static void describe_optional(struct cow_describe *to, const char *name,
			      const char *label, const char *value)
{
	if (*value)
		cow_describe_str(to, name, label, value);
}

static const char *state_of(const struct qcow2 *d)
{
	if (d->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
		return "corrupt";
	if (d->h.incompatible & QCOW2_INCOMPAT_DIRTY)
		return "not closed properly";
	return "in order";
}

static int qcow2_describe(void *handle, struct cow_describe *to)
{
	const struct qcow2 *d = handle;
	const struct qcow2_header *h = &d->h;

	cow_describe_u64(to, "size", "Size", h->size);
	cow_describe_str(to, "compat", "Compat",
			 h->version == 2 ? "0.10" : "1.1");
	cow_describe_u64(to, "cluster-size", "Cluster size",
			 d->g.cluster_size);
	cow_describe_u64(to, "refcount-bits", "Refcount bits",
			 1u << h->refcount_order);
	cow_describe_str(to, "compression-type", "Compression type",
			 h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
	describe_flag(to, "lazy-refcounts", "Lazy refcounts",
		      h->compatible & QCOW2_COMPAT_LAZY);
	describe_flag(to, "extended-l2", "Extended L2", d->g.extended);
	cow_describe_u64(to, "snapshots", "Snapshots", h->nb_snapshots);
	describe_optional(to, "data-file", "Data file", h->data_file);
	if (d->g.data_file)
		describe_flag(to, "data-file-raw", "Data file raw",
			      h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
	describe_optional(to, "backing-file", "Backing file", h->backing);
	describe_optional(to, "backing-format", "Backing format",
			  h->backing_format);
	cow_describe_str(to, "state", "State", state_of(d));
	return 0;
}

/* --- The plugin ------------------------------------------------------------- */

static const struct cow_option qcow2_options[] = {
	{ "cluster_size", "512 to 2m, a power of two (64k)",
	  COW_OPTION_CREATE },
	{ "compat", "0.10 (version 2) or 1.1 (version 3, the default)",
	  COW_OPTION_CREATE },
	{ "compression_type", "zlib (the default) or zstd",
	  COW_OPTION_CREATE },
	{ "data_file", "a file that exists, for the data",
	  COW_OPTION_CREATE | COW_OPTION_OPEN },
	{ "extended_l2", "on or off: allocate by subclusters (off)",
	  COW_OPTION_CREATE },
	{ "lazy_refcounts", "on or off: refcounts may be late, and are counted anew after a crash (off)",
	  COW_OPTION_CREATE | COW_OPTION_AMEND },
	{ "refcount_bits", "1 to 64, a power of two (16)",
	  COW_OPTION_CREATE },
	{ 0 }
};

static const struct cow_plugin qcow2_plugin = {
	COW_PLUGIN_HEADER,
	.name = "qcow2",
	.description = "qcow2, versions 2 and 3",
	.options = qcow2_options,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.info = qcow2_info,
	.map = qcow2_map,
	.copied = qcow2_copied,
	.commit = qcow2_commit,
	.committed = qcow2_committed,
	.discard = qcow2_discard,
	.write_zeroes = qcow2_discard,
	.read = qcow2_read,
	.create = qcow2_create,
	.check = qcow2_check,
	.amend = qcow2_amend,
	.describe = qcow2_describe,
	.finish = qcow2_finish,
};

COW_PLUGIN_REGISTER(qcow2_plugin)
