// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * open.c - the files of an image, and what they are.
 *
 * File 0 is a descriptor, which names the files of the extents; or it is a
 * sparse extent with the descriptor in it, and then the only one.
 */
#include "vmdk.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- The descriptor ------------------------------------------------------- */

static int read_header(struct cow_image *img, uint32_t file, uint64_t offset,
		       struct vmdk_header *h)
{
	struct vmdk_header_disk disk;
	const char *why;
	int ret;

	ret = cow_read(img, file, &disk, sizeof(disk), offset);
	if (ret)
		return ret;
	ret = vmdk_header_decode(&disk, h, &why);
	if (ret && file)
		return cow_error(img, ret, "its file %u %s", file, why);
	return ret ? cow_error(img, ret, "%s", why) : 0;
}

static int read_text(struct cow_image *img, uint64_t offset, size_t len,
		     char **text)
{
	*text = malloc(len + 1);
	if (!*text)
		return -ENOMEM;
	return cow_read(img, 0, *text, len, offset);
}

static int find_embedded(struct cow_image *img, struct vmdk_header *h,
			 uint64_t file_size)
{
	int ret = read_header(img, 0, 0, h);

	if (ret)
		return ret;
	if (!h->descriptor_size)
		return cow_error(img, -EINVAL,
			"is one extent of a VMDK image; open the image by the file that has its descriptor");
	if (!num_run_in(h->descriptor_offset, h->descriptor_size, file_size))
		return cow_error(img, -EINVAL,
			"is truncated: it has %llu bytes, and its descriptor ends later",
			(unsigned long long)file_size);
	return 0;
}

static int look_at(struct cow_image *img, uint64_t file_size, bool *sparse)
{
	char first[64] = "";
	int ret;

	ret = cow_read(img, 0, first, num_min(sizeof(first), file_size), 0);
	if (ret)
		return ret;
	*sparse = file_size >= VMDK_SECTOR && vmdk_is_sparse(first);
	if (*sparse || vmdk_is_descriptor(first, sizeof(first)))
		return 0;
	if (!memcmp(first, "COWD", 4))
		return cow_error(img, -EOPNOTSUPP,
			"is an extent of the type VMFSSPARSE (COWD), which is not supported");
	return cow_error(img, -EINVAL, "is no VMDK image");
}

int vmdk_load_descriptor(struct cow_image *img, struct vmdk_header *h,
			 bool *sparse, char **text, uint64_t *offset,
			 size_t *len)
{
	struct cow_file_stat st;
	int ret;

	*text = NULL;
	ret = cow_file_stat(img, 0, &st);
	if (!ret)
		ret = look_at(img, st.size, sparse);
	if (ret)
		return ret;
	if (*sparse) {
		ret = find_embedded(img, h, st.size);
		*offset = h->descriptor_offset;
		*len = h->descriptor_size;
	} else {
		*offset = 0;
		*len = st.size;
		if (st.size > VMDK_DESCRIPTOR_MAX)
			ret = cow_error(img, -EFBIG,
				"has a descriptor of %llu bytes, of at most %u",
				(unsigned long long)st.size,
				VMDK_DESCRIPTOR_MAX);
	}
	return ret ? ret : read_text(img, *offset, *len, text);
}

static int check_type(struct vmdk *v)
{
	static const char *const types[] = {
		"monolithicSparse", "twoGbMaxExtentSparse", "2GbMaxExtentSparse",
		"monolithicFlat", "twoGbMaxExtentFlat", "2GbMaxExtentFlat",
		"vmfs", "vmfsThin", "vmfsPreallocated", "vmfsEagerZeroedThick",
		"streamOptimized",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		if (!strcasecmp(v->d.create_type, types[i]))
			return 0;
	}
	return cow_error(v->img, -EOPNOTSUPP,
		"is a VMDK image of the type \"%.40s\", which is not supported",
		v->d.create_type);
}

static int read_descriptor(struct vmdk *v, struct vmdk_header *h, bool *sparse)
{
	const char *why;
	size_t len = 0;
	int ret;

	ret = vmdk_load_descriptor(v->img, h, sparse, &v->text,
				   &v->text_offset, &len);
	if (ret)
		return ret;
	v->text_end = v->text_offset + len;
	ret = vmdk_descriptor_parse(v->text, len, &v->d, &why);
	if (ret)
		return cow_error(v->img, ret, "%s", why);
	snprintf(v->cid_text, sizeof(v->cid_text), "%08x", v->d.cid);
	return check_type(v);
}

/* --- Sparse extents ------------------------------------------------------- */

/* A stream tells at its end where the directory is. */
static int read_footer(struct vmdk *v, struct vmdk_extent *e)
{
	struct vmdk_header footer;
	int ret;

	if (e->end < 4 * VMDK_SECTOR)
		return cow_error(v->img, -EINVAL,
			"is truncated: its file %u has no footer", e->file);
	ret = read_header(v->img, e->file, e->end - 2 * VMDK_SECTOR, &footer);
	if (ret)
		return ret;
	if (footer.gd_at_end || footer.capacity != e->h.capacity ||
	    footer.grain_size != e->h.grain_size ||
	    footer.flags != e->h.flags)
		return cow_error(v->img, -EINVAL,
			"has a footer in its file %u that does not belong to the header",
			e->file);
	e->h.gd_offset = footer.gd_offset;
	e->h.rgd_offset = footer.rgd_offset;
	return 0;
}

static int check_directory(struct vmdk *v, struct vmdk_extent *e)
{
	uint64_t len = vmdk_gd_bytes(&e->h);

	if (num_run_in(e->h.gd_offset, len, e->end) &&
	    (!vmdk_has_rgd(e) || num_run_in(e->h.rgd_offset, len, e->end)))
		return 0;
	return cow_error(v->img, -EINVAL,
		"is truncated: its file %u has %llu bytes, and a grain directory ends later",
		e->file, (unsigned long long)e->end);
}

static int open_sparse(struct vmdk *v, struct vmdk_extent *e,
		       const struct vmdk_extent_line *line)
{
	uint64_t want = line->sectors * VMDK_SECTOR, grain;
	int ret = 0;

	if (e->file)
		ret = read_header(v->img, e->file, 0, &e->h);
	if (ret)
		return ret;
	grain = e->h.grain_size;
	if (num_round_up(want, grain) != num_round_up(e->h.capacity, grain))
		return cow_error(v->img, -EINVAL,
			"has an extent of %llu sectors in its descriptor, but of %llu in the header of its file %u",
			(unsigned long long)line->sectors,
			(unsigned long long)(e->h.capacity / VMDK_SECTOR),
			e->file);
	e->size = num_min(want, e->h.capacity);
	if (e->h.gd_at_end)
		ret = read_footer(v, e);
	return ret ? ret : check_directory(v, e);
}

/* --- Extents -------------------------------------------------------------- */

static int open_flat(struct vmdk *v, struct vmdk_extent *e,
		     const struct vmdk_extent_line *line)
{
	if (!num_run_in(line->offset, line->sectors, e->end / VMDK_SECTOR))
		return cow_error(v->img, -EINVAL,
			"is truncated: its file %u has %llu bytes, and its extent of %llu sectors from sector %llu on ends later",
			e->file, (unsigned long long)e->end,
			(unsigned long long)line->sectors,
			(unsigned long long)line->offset);
	e->size = line->sectors * VMDK_SECTOR;
	e->offset = line->offset * VMDK_SECTOR;
	return 0;
}

static int open_file(struct vmdk *v, struct vmdk_extent *e,
		     const struct vmdk_extent_line *line, bool embedded)
{
	struct cow_file_stat st;
	int ret = 0;

	if (!embedded)
		ret = cow_file_add(v->img, line->path, &e->file);
	if (!ret)
		ret = cow_file_stat(v->img, e->file, &st);
	if (ret)
		return ret;
	e->end = st.size;
	return line->type == VMDK_SPARSE ? open_sparse(v, e, line) :
					   open_flat(v, e, line);
}

static int open_extent(struct vmdk *v, struct vmdk_extent *e,
		       const struct vmdk_extent_line *line, bool embedded)
{
	e->type = line->type;
	if (line->access == VMDK_NOACCESS)
		return cow_error(v->img, -EACCES,
			"has an extent that must not be accessed (NOACCESS)");
	if (v->writable && (line->access == VMDK_RDONLY ||
			    line->type == VMDK_ZERO))
		return cow_error(v->img, -EROFS,
			"has an extent that cannot be written (%s); open it read-only, or put an overlay on it",
			line->type == VMDK_ZERO ? "ZERO" : "RDONLY");
	if (line->type != VMDK_ZERO)
		return open_file(v, e, line, embedded);
	e->file = UINT32_MAX;
	e->size = line->sectors * VMDK_SECTOR;
	return 0;
}

static int open_extents(struct vmdk *v, const struct vmdk_header *h,
			bool embedded)
{
	uint32_t i;
	int ret = 0;

	if (embedded && (v->d.nr_extents != 1 ||
			 v->d.extents[0].type != VMDK_SPARSE))
		return cow_error(v->img, -EOPNOTSUPP,
			"has a descriptor inside of an extent that names other extents, which is not supported");
	v->extents = calloc(v->d.nr_extents, sizeof(*v->extents));
	if (!v->extents)
		return -ENOMEM;
	v->extents[0].h = *h;
	for (i = 0; !ret && i < v->d.nr_extents; i++) {
		v->nr_extents++;
		ret = open_extent(v, &v->extents[i], &v->d.extents[i],
				  embedded);
		if (!ret && num_add_overflow(v->size, v->extents[i].size,
					     &v->size))
			ret = cow_error(v->img, -EFBIG,
				"has extents that are too large together");
	}
	return ret;
}

/* --- Blocks --------------------------------------------------------------- */

/* The largest block that lies in one grain, and in one extent. */
static void set_block_size(struct vmdk *v)
{
	uint64_t size = 0, at = 0;
	uint32_t i;

	for (i = 0; i < v->nr_extents; i++) {
		const struct vmdk_extent *e = &v->extents[i];

		if (e->type == VMDK_SPARSE)
			size = num_min(size ? size : e->h.grain_size,
				       e->h.grain_size);
	}
	if (!size)
		size = VMDK_BLOCK_SIZE;
	for (i = 0; i < v->nr_extents; i++) {
		while (!num_is_aligned(at, size))
			size /= 2;
		at += v->extents[i].size;
	}
	v->block_size = (uint32_t)size;
}

static void place_blocks(struct vmdk *v)
{
	uint64_t at = 0;
	uint32_t i;

	for (i = 0; i < v->nr_extents; i++) {
		v->extents[i].first = at;
		v->extents[i].nr_blocks = num_div_up(v->extents[i].size,
						     v->block_size);
		at += v->extents[i].nr_blocks;
	}
}

/* Windows are never larger than a grain: see vmdk.h. */
static int set_tables(struct vmdk *v)
{
	uint64_t count = 4;
	uint32_t i;

	v->window = VMDK_WINDOW_MAX;
	for (i = 0; i < v->nr_extents; i++) {
		const struct vmdk_extent *e = &v->extents[i];

		if (e->type == VMDK_SPARSE)
			v->window = (uint32_t)num_min(v->window,
						      e->h.grain_size);
	}
	for (i = 0; i < v->nr_extents; i++) {
		uint64_t bytes = v->extents[i].h.nr_gdes *
				 (2ull * VMDK_GT_BYTES + 8);

		count += num_div_up(bytes, v->window) + 8;
	}
	return cow_image_tables(v->img, v->window, count);
}

/* --- For writing ---------------------------------------------------------- */

static int check_writable(struct vmdk *v, const struct vmdk_extent *e)
{
	if (e->type != VMDK_SPARSE)
		return 0;
	if (e->h.flags & VMDK_FLAG_COMPRESSED)
		return cow_error(v->img, -EROFS,
			"has compressed grains (streamOptimized), and cannot be written in place; put an overlay on it");
	if (e->h.version == 3)
		return cow_error(v->img, -EROFS,
			"is of version 3, whose tracking of changes is not supported: it can only be read; put an overlay on it");
	if (e->h.grain_size != v->block_size)
		return cow_error(v->img, -EROFS,
			"has extents that do not begin at whole grains of one size: it can only be read; put an overlay on it");
	return 0;
}

static bool can_say_zero(const struct vmdk *v, const struct vmdk_extent *e)
{
	return e->type == VMDK_SPARSE &&
	       (!v->d.parent || e->h.flags & VMDK_FLAG_ZERO_GRAIN);
}

/* The file has whole units; new bytes read as zeroes. */
static int round_file(struct vmdk *v, struct vmdk_extent *e)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(v->img, e->file, &st);
	if (ret)
		return ret;
	e->device = st.block_device;
	e->end = num_round_up(st.size, e->h.grain_size);
	if (st.block_device)
		e->end = num_round_down(st.size, e->h.grain_size);
	else
		ret = cow_file_extend(v->img, e->file, e->end);
	return ret;
}

/* Units that the file may ever come to have. */
static uint64_t max_units(const struct vmdk_extent *e)
{
	uint64_t unit = e->h.grain_size;
	uint64_t tables = 2ull * e->h.nr_gdes * VMDK_GT_BYTES;
	uint64_t end = num_div_up(num_min(e->end, VMDK_FILE_MAX), unit), max;

	/* Each grain twice: given up, and given again before the commit. */
	max = end + 2 * e->h.nr_grains + tables / unit + 2 + (4u << 20) / unit;
	return num_max(num_min(max, VMDK_FILE_MAX / unit), end);
}

/* A small file can say that it is of a large disk; and this memory is locked. */
static int check_space(struct vmdk *v)
{
	uint64_t units = 0;
	uint32_t i;

	for (i = 0; i < v->nr_extents; i++) {
		if (v->extents[i].type == VMDK_SPARSE)
			units += max_units(&v->extents[i]);
	}
	if (units <= VMDK_UNITS_MAX)
		return 0;
	return cow_error(v->img, -EFBIG,
		"has extents of %llu grains together, which take too much memory to be written: %llu are the most; it can only be read; put an overlay on it",
		(unsigned long long)units,
		(unsigned long long)VMDK_UNITS_MAX);
}

static int make_space(struct vmdk *v, struct vmdk_extent *e)
{
	uint32_t unit = e->h.grain_size;
	uint64_t end = num_min(e->end, VMDK_FILE_MAX) / unit;

	e->opened_units = end;
	e->reserved = calloc(1, num_div_up(e->h.nr_gdes, 8));
	if (!e->reserved)
		return -ENOMEM;
	return space_init(&e->space, unit, end, max_units(e));
}

/*
 * What is free must be known, and nothing may be damaged: a grain that two
 * blocks have must not be written.  After a crash the two copies of the tables
 * may differ; they are made equal.
 */
static int scan_extent(struct vmdk *v, struct vmdk_extent *e)
{
	struct vmdk_scan scan = { .v = v, .e = e, .repair = e->h.unclean };
	uint64_t end;
	int ret;

	ret = round_file(v, e);
	if (!ret)
		ret = make_space(v, e);
	if (ret)
		return ret;
	scan.ref = e->space.ref;
	scan.units = e->space.max;
	ret = vmdk_scan(&scan);
	if (ret)
		return ret;
	if (!scan.aligned)
		return cow_error(v->img, -EROFS,
			"has grains in its file %u that do not stand at multiples of their size: it can only be read; put an overlay on it",
			e->file);
	/* A repair may have put tables behind what was the end. */
	end = num_min(e->end, VMDK_FILE_MAX) / e->space.unit;
	if (end > e->space.end) {
		bits_set_run(e->space.ref, e->space.end, end - e->space.end);
		e->space.end = end;
	}
	space_ready(&e->space);
	/* The disk has this mark already, and it says no more than before. */
	if (e->h.unclean)
		e->mark = VMDK_MARKED;
	return 0;
}

static int prepare_writing(struct vmdk *v)
{
	uint32_t i;
	int ret = 0;

	if (v->d.change_track)
		return cow_error(v->img, -EROFS,
			"has a change-tracking file, which writing here would make wrong; put an overlay on it");
	for (i = 0; !ret && i < v->nr_extents; i++) {
		ret = check_writable(v, &v->extents[i]);
		if (!can_say_zero(v, &v->extents[i]))
			v->fixed = true;
	}
	if (!ret)
		ret = check_space(v);
	for (i = 0; !ret && i < v->nr_extents; i++) {
		if (v->extents[i].type == VMDK_SPARSE)
			ret = scan_extent(v, &v->extents[i]);
	}
	if (!ret && v->fixed)
		ret = cow_image_fixed_places(v->img);
	if (!ret)
		ret = runs_init(&v->runs, VMDK_RUNS_MAX, v->block_size);
	return ret;
}

/* --- Compressed grains ---------------------------------------------------- */

/* All memory that ->read() needs is had now. */
static int prepare_reading(struct vmdk *v)
{
	uint32_t grain = 0, i;

	for (i = 0; i < v->nr_extents; i++) {
		if (v->extents[i].type == VMDK_SPARSE &&
		    v->extents[i].h.flags & VMDK_FLAG_COMPRESSED)
			grain = (uint32_t)num_max(grain,
				v->extents[i].h.grain_size);
	}
	if (!grain)
		return 0;
	v->packed = malloc(2 * (size_t)grain);
	v->grain = malloc(grain);
	if (!v->packed || !v->grain || inflateInit(&v->zlib) != Z_OK)
		return -ENOMEM;
	v->has_zlib = true;
	return 0;
}

/* --- All of it ------------------------------------------------------------ */

void vmdk_release(struct vmdk *v)
{
	uint32_t i;

	for (i = 0; i < v->nr_extents; i++) {
		space_free(&v->extents[i].space);
		free(v->extents[i].reserved);
	}
	if (v->has_zlib)
		inflateEnd(&v->zlib);
	runs_free(&v->runs);
	vmdk_descriptor_release(&v->d);
	free(v->extents);
	free(v->packed);
	free(v->grain);
	free(v->text);
	free(v);
}

int vmdk_open_image(struct vmdk *v, uint32_t flags)
{
	struct vmdk_header h = { 0 };
	bool embedded = false;
	int ret;

	/* Who checks looks at what is damaged, and writes by itself. */
	v->writable = flags & COW_OPEN_WRITE && !(flags & COW_OPEN_UNFINISHED);
	ret = read_descriptor(v, &h, &embedded);
	if (!ret)
		ret = open_extents(v, &h, embedded);
	if (ret)
		return ret;
	set_block_size(v);
	place_blocks(v);
	ret = set_tables(v);
	if (!ret && v->writable)
		ret = prepare_writing(v);
	if (!ret)
		ret = prepare_reading(v);
	return ret;
}
