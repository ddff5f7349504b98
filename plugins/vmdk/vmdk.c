// SPDX-License-Identifier: GPL-2.0-or-later
/* vmdk.c - the plugin: open, and what an image tells of itself. */
#include "vmdk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int vmdk_probe(const void *buf, size_t len, uint64_t file_size)
{
	return (len >= VMDK_SECTOR && vmdk_is_sparse(buf)) ||
	       vmdk_is_descriptor(buf, len);
}

static int vmdk_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct vmdk *v = calloc(1, sizeof(*v));
	int ret;

	if (!v)
		return -ENOMEM;
	v->img = img;
	ret = vmdk_open_image(v, flags);
	if (ret) {
		vmdk_release(v);
		return ret;
	}
	*handle = v;
	return 0;
}

static void vmdk_close(void *handle)
{
	vmdk_release(handle);
}

/* The parent of a VMDK is a VMDK: the format knows no other. */
static int vmdk_info(void *handle, struct cow_image_info *info)
{
	const struct vmdk *v = handle;

	info->size = v->size;
	info->block_size = v->block_size;
	/* One table a time: each may lie in windows of its own. */
	info->run_blocks = VMDK_GTES;
	info->backing_path = v->d.parent;
	info->backing_format = v->d.parent ? "vmdk" : NULL;
	return 0;
}

/* --- The parent ----------------------------------------------------------- */

int vmdk_content_id(struct cow_image *img, uint32_t *cid)
{
	struct vmdk_descriptor d;
	struct vmdk_header h;
	const char *why;
	uint64_t offset;
	char *text;
	bool sparse;
	size_t len;
	int ret;

	ret = vmdk_load_descriptor(img, &h, &sparse, &text, &offset, &len);
	if (!ret) {
		ret = vmdk_descriptor_parse(text, len, &d, &why);
		if (ret)
			cow_error(img, ret, "%s", why);
		*cid = d.cid;
		vmdk_descriptor_release(&d);
	}
	free(text);
	return ret;
}

static int vmdk_backing(void *handle, struct cow_image *parent, bool verify)
{
	const struct vmdk *v = handle;
	uint32_t cid;
	int ret;

	if (!verify)
		return 0;
	ret = vmdk_content_id(parent, &cid);
	if (ret || cid == v->d.parent_cid)
		return ret;
	return cow_error(v->img, -ESTALE,
		"its parent %s is not what it was when this image was made: its content ID is %08x instead of %08x; it was written since, or is another one",
		cow_image_path(parent), cid, v->d.parent_cid);
}

/* --- Describe ------------------------------------------------------------- */

static void describe_id(struct cow_describe *to, const char *name,
			const char *label, uint32_t id)
{
	char text[16];

	snprintf(text, sizeof(text), "%08x", id);
	cow_describe_str(to, name, label, text);
}

static void describe_extent(const struct vmdk *v, uint32_t i,
			    struct cow_describe *to)
{
	static const char *const types[] = { "SPARSE", "FLAT", "ZERO" };
	const struct vmdk_extent_line *line = &v->d.extents[i];
	const struct vmdk_extent *e = &v->extents[i];
	char text[400];

	if (e->type == VMDK_SPARSE)
		snprintf(text, sizeof(text),
			 "SPARSE %llu bytes, version %u, grains of %u bytes%s%s%s, \"%.200s\"",
			 (unsigned long long)e->size, e->h.version,
			 e->h.grain_size, e->h.flags & VMDK_FLAG_COMPRESSED ?
			 ", compressed" : "", e->h.flags & VMDK_FLAG_RGD ?
			 ", tables twice" : "",
			 e->h.flags & VMDK_FLAG_ZERO_GRAIN ?
			 ", zeroed grains" : "", line->path);
	else
		snprintf(text, sizeof(text), "%s %llu bytes%s%.200s%s",
			 types[e->type], (unsigned long long)e->size,
			 line->path ? ", \"" : "", line->path ? line->path : "",
			 line->path ? "\"" : "");
	cow_describe_str(to, "extent", "Extent", text);
}

static const char *state_of(const struct vmdk *v)
{
	uint32_t i;

	for (i = 0; i < v->nr_extents; i++) {
		if (v->extents[i].h.unclean)
			return "not closed after it was written";
	}
	return "in order";
}

int vmdk_describe(void *handle, struct cow_describe *to)
{
	const struct vmdk *v = handle;
	uint32_t i;

	cow_describe_str(to, "create-type", "Type", v->d.create_type);
	describe_id(to, "content-id", "Content ID", v->d.cid);
	if (v->d.parent) {
		cow_describe_str(to, "parent", "Parent", v->d.parent);
		describe_id(to, "parent-content-id", "Parent content ID",
			    v->d.parent_cid);
	}
	if (v->d.adapter_type)
		cow_describe_str(to, "adapter-type", "Adapter type",
				 v->d.adapter_type);
	if (v->d.hw_version)
		cow_describe_str(to, "hwversion", "Hardware version",
				 v->d.hw_version);
	cow_describe_u64(to, "extents", "Extents", v->nr_extents);
	for (i = 0; i < v->nr_extents; i++)
		describe_extent(v, i, to);
	cow_describe_str(to, "state", "State", state_of(v));
	return 0;
}

/* --- The plugin ----------------------------------------------------------- */

static const struct cow_option vmdk_options[] = {
	{ "subformat", "monolithicSparse, the only one that is created",
	  COW_OPTION_CREATE },
	{ "adapter-type", "ide (default), buslogic, lsilogic or legacyESX",
	  COW_OPTION_CREATE },
	{ "hwversion", "version of the virtual hardware, a number (4)",
	  COW_OPTION_CREATE },
	{ "zeroed-grain", "on or off: grains that read as zeroes need no space (on over a parent, else off)",
	  COW_OPTION_CREATE },
	{ 0 }
};

static const struct cow_plugin vmdk_plugin = {
	COW_PLUGIN_HEADER,
	.name = "vmdk",
	.description = "disks of VMware: monolithic and split, sparse and flat",
	.options = vmdk_options,
	.probe = vmdk_probe,
	.open = vmdk_open,
	.close = vmdk_close,
	.info = vmdk_info,
	.map = vmdk_map,
	.copied = vmdk_copied,
	.commit = vmdk_commit,
	.committed = vmdk_committed,
	.discard = vmdk_discard,
	.write_zeroes = vmdk_discard,
	.read = vmdk_read,
	.backing = vmdk_backing,
	.create = vmdk_create,
	.check = vmdk_check,
	.describe = vmdk_describe,
	.finish = vmdk_finish,
};

COW_PLUGIN_REGISTER(vmdk_plugin)
