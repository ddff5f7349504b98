// SPDX-License-Identifier: GPL-2.0-or-later
/* vhd.c - the plugin: open, and what an image tells of itself. */
#include "vhd.h"

#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FIXED_UNIT (64u << 10)

/* Of a fixed disk the end counts; nothing at the start would be told by. */
static int vhd_probe(const void *buf, size_t len, uint64_t file_size)
{
	const struct vhd_footer_disk *disk = buf;

	return len >= sizeof(*disk) && vhd_footer_valid(disk);
}

/* --- Open: footer and header ---------------------------------------------- */

static int set_size(struct vhd *v)
{
	const char *rule = cow_image_option(v->img, "size");

	if (rule && strcmp(rule, "chs") && strcmp(rule, "footer"))
		return cow_error(v->img, -EINVAL,
			"size=%s is neither chs nor footer", rule);
	if (rule)
		vhd_size_from(&v->f, !strcmp(rule, "chs"));
	v->size = vhd_disk_size(&v->f);
	if (!vhd_size_ok(v->size))
		return cow_error(v->img, -EINVAL,
			"has by size=%s a disk of %llu bytes, which is out of range",
			rule ? rule : "footer", (unsigned long long)v->size);
	return 0;
}

static int read_footer(struct vhd *v)
{
	struct vhd_footer_disk start;
	const char *why;
	int ret;

	ret = vhd_read_footer(v->img, &v->footer);
	if (ret)
		return ret;
	ret = vhd_footer_decode(&v->footer, &v->f, &why);
	if (ret)
		return cow_error(v->img, ret, "%s", why);
	ret = set_size(v);
	if (ret || v->f.type == VHD_FIXED)
		return ret;
	ret = cow_read(v->img, 0, &start, sizeof(start), 0);
	v->copy_damaged = !ret && memcmp(&start, &v->footer, sizeof(start));
	return ret;
}

static int read_header(struct vhd *v)
{
	struct vhd_header_disk disk;
	const char *why;
	int ret;

	if (v->f.data_offset > v->file_bytes ||
	    v->file_bytes - v->f.data_offset < sizeof(disk))
		return cow_error(v->img, -EINVAL,
			"is truncated: its dynamic header would stand at offset %llu",
			(unsigned long long)v->f.data_offset);
	ret = cow_read(v->img, 0, &disk, sizeof(disk), v->f.data_offset);
	if (ret)
		return ret;
	ret = vhd_header_decode(&disk, &v->h, &why);
	return ret ? cow_error(v->img, ret, "%s", why) : 0;
}

static void add_region(struct vhd *v, const char *what, uint64_t start,
		       uint64_t len)
{
	v->region[v->nr_regions++] =
		(struct vhd_region){ what, start, start + len };
}

/* The phrases go on with "the entry of block N ...". */
static void set_regions(struct vhd *v)
{
	unsigned int i;

	add_region(v, "points into the footer at the start", 0, VHD_SECTOR);
	add_region(v, "points into the dynamic header", v->f.data_offset,
		   sizeof(struct vhd_header_disk));
	add_region(v, "points into the block allocation table",
		   v->h.table_offset,
		   num_round_up(v->h.max_table_entries * 4ull, VHD_SECTOR));
	for (i = 0; vhd_is_diff(v) && i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->h.locator[i];

		if (l->platform && l->length)
			add_region(v, "points into a parent locator",
				   l->offset, l->length);
	}
}

static int check_regions(struct vhd *v)
{
	const struct vhd_region *r, *other;

	for (r = v->region; r < v->region + v->nr_regions; r++) {
		if (r->end < r->start || r->end > v->file_bytes)
			return cow_error(v->img, -EINVAL,
				"is truncated: it has %llu bytes, and its metadata at offset %llu would end later",
				(unsigned long long)v->file_bytes,
				(unsigned long long)r->start);
		for (other = v->region; other < r; other++) {
			if (r->start < other->end && other->start < r->end)
				return cow_error(v->img, -EINVAL,
					"has metadata at offset %llu that overlaps other metadata at offset %llu",
					(unsigned long long)r->start,
					(unsigned long long)other->start);
		}
	}
	return 0;
}

static int check_sizes(struct vhd *v)
{
	uint64_t room = (uint64_t)v->h.max_table_entries * v->h.block_size;

	if (room < v->size)
		return cow_error(v->img, -EINVAL,
			"has a table of %u blocks of %u bytes, too few for its disk of %llu bytes",
			v->h.max_table_entries, v->h.block_size,
			(unsigned long long)v->size);
	v->nr_blocks = (uint32_t)num_div_up(v->size, v->h.block_size);
	v->bitmap_bytes = vhd_bitmap_bytes(v->h.block_size);
	v->unit = vhd_is_diff(v) ? VHD_SECTOR :
		  (uint32_t)num_min(VHD_UNIT, v->h.block_size);
	return 0;
}

/* --- Open: blocks --------------------------------------------------------- */

static int report_fault(void *ctx, const struct vhd_block *b,
			const char *what)
{
	struct vhd *v = ctx;

	return cow_error(v->img, -EINVAL,
		"the entry of block %u, at offset %llu, %s", b->block,
		(unsigned long long)(v->h.table_offset + b->block * 4ull),
		what);
}

/* Two blocks at one place can be read, but not written. */
static int report_range(void *ctx, const struct vhd_block *b, const char *what)
{
	struct vhd *v = ctx;

	if (!vhd_place_fault(v, (uint64_t)b->sector * VHD_SECTOR,
			     v->file_bytes))
		return 0;
	return report_fault(ctx, b, what);
}

static int ignore_fault(void *ctx, const struct vhd_block *b, const char *what)
{
	return 0;
}

static int read_blocks(struct vhd *v, uint32_t flags)
{
	vhd_fault_fn fault = flags & COW_OPEN_UNFINISHED ? ignore_fault :
			     v->writable ? report_fault : report_range;

	return vhd_blocks_get(v, v->file_bytes, fault, v, &v->used,
			      &v->nr_used);
}

/* Where does the file end, without its footer? */
static int find_end(struct vhd *v)
{
	uint64_t at = v->file_bytes - sizeof(v->footer), used;
	struct vhd_footer_disk last;
	int ret;

	ret = cow_read(v->img, 0, &last, sizeof(last), at);
	if (ret)
		return ret;
	v->end = num_round_up(v->file_bytes, VHD_SECTOR);
	if (!memcmp(&last, &v->footer, sizeof(last)) &&
	    num_is_aligned(at, VHD_SECTOR)) {
		v->end = at;
		v->footer_at = at;
	}
	if (!v->nr_used)
		return 0;
	used = v->used[v->nr_used - 1].sector * (uint64_t)VHD_SECTOR +
	       vhd_place_bytes(v);
	if (used > v->end) {
		v->end = num_round_up(v->file_bytes, VHD_SECTOR);
		v->footer_at = 0;
	}
	return 0;
}

/*
 * Where data ends with the file, its user could write there what makes another
 * disk of it at the next open: a footer that says fixed.
 */
static int close_end(struct vhd *v)
{
	uint64_t used;
	int ret;

	if (!v->nr_used || v->footer_at || v->device)
		return 0;
	used = v->used[v->nr_used - 1].sector * (uint64_t)VHD_SECTOR +
	       vhd_place_bytes(v);
	if (used + sizeof(v->footer) <= v->file_bytes)
		return 0;
	ret = cow_file_extend(v->img, 0, v->end + sizeof(v->footer));
	if (!ret)
		ret = cow_write(v->img, 0, &v->footer, sizeof(v->footer),
				v->end);
	if (!ret)
		ret = cow_sync(v->img, 0);
	if (!ret)
		v->footer_at = v->end;
	return ret;
}

static int prepare_writing(struct vhd *v, uint32_t flags)
{
	int ret;

	if (v->copy_damaged && !(flags & COW_OPEN_UNFINISHED))
		return cow_error(v->img, -EINVAL,
			"the copy of its footer at offset 0 is damaged: repair it before it is written");
	v->given = calloc(v->nr_blocks, sizeof(*v->given));
	/* One for each block at most, given here or by an earlier process. */
	v->taken = calloc(v->nr_blocks, sizeof(*v->taken));
	v->reserved = calloc(1, num_div_up(v->nr_blocks, 8));
	v->filling = calloc(1, num_div_up(v->nr_blocks, 8));
	if (!v->given || !v->taken || !v->reserved || !v->filling)
		return -ENOMEM;
	ret = find_end(v);
	/* A check does that by itself. */
	if (!ret && !(flags & COW_OPEN_UNFINISHED))
		ret = close_end(v);
	return ret;
}

static int open_dynamic(struct vhd *v, uint32_t flags)
{
	uint64_t tables;
	int ret;

	ret = read_header(v);
	if (!ret)
		ret = check_sizes(v);
	if (ret)
		return ret;
	set_regions(v);
	ret = check_regions(v);
	if (!ret && vhd_is_diff(v))
		ret = vhd_find_parent(v);
	if (!ret)
		ret = read_blocks(v, flags);
	if (!ret && v->writable)
		ret = prepare_writing(v, flags);
	if (ret)
		return ret;
	tables = num_div_up(v->nr_blocks, VHD_TABLE_ENTRIES) + v->nr_blocks;
	return cow_image_tables(v->img, VHD_TABLE, tables + 1);
}

static int open_fixed(struct vhd *v)
{
	v->unit = FIXED_UNIT;
	if (v->size <= v->file_bytes - (sizeof(v->footer) - 1))
		return 0;
	return cow_error(v->img, -EINVAL,
		"is truncated: its disk of %llu bytes does not fit into the %llu bytes before its footer",
		(unsigned long long)v->size,
		(unsigned long long)(v->file_bytes - sizeof(v->footer)));
}

static int open_image(struct vhd *v, uint32_t flags)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(v->img, 0, &st);
	if (ret)
		return ret;
	v->file_bytes = st.size;
	v->device = st.block_device;
	ret = read_footer(v);
	if (ret)
		return ret;
	return v->f.type == VHD_FIXED ? open_fixed(v) : open_dynamic(v, flags);
}

static void vhd_close(void *handle)
{
	struct vhd *v = handle;

	free(v->used);
	free(v->given);
	free(v->taken);
	free(v->reserved);
	free(v->filling);
	free(v);
}

static int vhd_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct vhd *v = calloc(1, sizeof(*v));
	int ret;

	if (!v)
		return -ENOMEM;
	v->img = img;
	v->writable = flags & COW_OPEN_WRITE;
	ret = open_image(v, flags);
	if (ret) {
		vhd_close(v);
		return ret;
	}
	*handle = v;
	return 0;
}

static int vhd_info(void *handle, struct cow_image_info *info)
{
	const struct vhd *v = handle;

	info->size = v->size;
	info->block_size = v->unit;
	if (!vhd_is_diff(v))
		return 0;
	info->backing_path = v->parent_path;
	info->backing_format = vhd_parent_is_raw(v) ? "raw" : "vhd";
	return 0;
}

/* --- Describe ------------------------------------------------------------- */

static void describe_id(struct cow_describe *to, const char *name,
			const char *label, const uint8_t *id)
{
	char text[37];
	unsigned int i, n = 0;

	for (i = 0; i < 16; i++)
		n += (unsigned int)snprintf(text + n, sizeof(text) - n,
			i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" :
								 "%02x", id[i]);
	cow_describe_str(to, name, label, text);
}

static void describe_dynamic(const struct vhd *v, struct cow_describe *to)
{
	cow_describe_u64(to, "block-size", "Block size", v->h.block_size);
	cow_describe_u64(to, "blocks", "Blocks", v->nr_blocks);
	cow_describe_u64(to, "allocated", "Blocks allocated", v->nr_used);
	if (!vhd_is_diff(v))
		return;
	cow_describe_str(to, "parent", "Parent", v->parent_path);
	cow_describe_str(to, "parent-format", "Parent format",
			 vhd_parent_is_raw(v) ? "raw" : "vhd");
	describe_id(to, "parent-id", "Parent unique id", v->h.parent_id);
}

static int vhd_describe(void *handle, struct cow_describe *to)
{
	const struct vhd *v = handle;
	char chs[32], creator[5] = "";
	unsigned int i;

	cow_describe_str(to, "type", "Type",
			 v->f.type == VHD_FIXED ? "fixed" :
			 vhd_is_diff(v) ? "differencing" : "dynamic");
	cow_describe_u64(to, "size", "Size", v->size);
	snprintf(chs, sizeof(chs), "%u/%u/%u", v->f.cylinders, v->f.heads,
		 v->f.sectors);
	cow_describe_str(to, "geometry", "Geometry", chs);
	cow_describe_str(to, "size-from", "Size from",
			 v->f.size_is_chs ? "geometry" : "footer");
	for (i = 0; i < 4; i++)
		creator[i] = v->f.creator[i] < ' ' || v->f.creator[i] > '~' ?
			     ' ' : v->f.creator[i];
	cow_describe_str(to, "creator", "Creator", creator);
	describe_id(to, "unique-id", "Unique id", v->f.unique_id);
	cow_describe_str(to, "saved-state", "Saved state",
			 v->f.saved_state ? "yes" : "no");
	if (v->f.type != VHD_FIXED)
		describe_dynamic(v, to);
	return 0;
}

/* --- The plugin ----------------------------------------------------------- */

static const struct cow_option vhd_options[] = {
	{ "size", "chs, footer: which of them tells the disk's size",
	  COW_OPTION_OPEN },
	{ "parent-time", "any: a parent that was copied or touched will do; amend: now: take it as it is now",
	  COW_OPTION_OPEN | COW_OPTION_AMEND },
	{ "subformat", "dynamic (without it), fixed", COW_OPTION_CREATE },
	{ 0 }
};

static const struct cow_plugin vhd_plugin = {
	COW_PLUGIN_HEADER,
	.name = "vhd",
	.description = "fixed, dynamic and differencing VHD",
	.options = vhd_options,
	.probe = vhd_probe,
	.open = vhd_open,
	.close = vhd_close,
	.info = vhd_info,
	.map = vhd_map,
	.copied_bits = vhd_copied_bits,
	.copied = vhd_copied,
	.commit = vhd_commit,
	.committed = vhd_committed,
	.backing = vhd_backing,
	.create = vhd_create,
	.check = vhd_check,
	.amend = vhd_amend,
	.describe = vhd_describe,
};

COW_PLUGIN_REGISTER(vhd_plugin)
