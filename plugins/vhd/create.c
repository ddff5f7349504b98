// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create.c - make a VHD.
 *
 *	0	footer			512	dynamic header
 *	4096	block allocation table, its parts where direct I/O goes
 *	then	parent locators, the footer
 */
#include "vhd.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define HEADER_OFFSET 512u
#define BAT_OFFSET 4096u

struct creation {
	struct cow_image *img;
	const struct cow_create *create;
	struct vhd_footer f;
	struct vhd_header h;
	struct vhd_footer_disk disk;
	uint64_t size;
	uint64_t end;		/* of what was written so far */
};

static int set_footer(struct creation *c, enum vhd_type type)
{
	time_t now = time(NULL);

	c->f.type = type;
	c->f.data_offset = type == VHD_FIXED ? VHD_NO_OFFSET : HEADER_OFFSET;
	c->f.current_size = c->size;
	c->f.time_stamp = (uint32_t)num_max((uint64_t)now, VHD_EPOCH) -
			  VHD_EPOCH;
	memcpy(c->f.creator, "cowd", sizeof(c->f.creator));
	vhd_set_geometry(&c->f, c->size);
	if (getrandom(c->f.unique_id, sizeof(c->f.unique_id), 0) !=
	    sizeof(c->f.unique_id))
		return cow_error(c->img, -EIO,
				 "there are no random bytes for its unique id");
	/* RFC 4122: version 4, variant 1. */
	c->f.unique_id[6] = (c->f.unique_id[6] & 0x0f) | 0x40;
	c->f.unique_id[8] = (c->f.unique_id[8] & 0x3f) | 0x80;
	vhd_footer_encode(&c->f, &c->disk);
	return 0;
}

static int write_footer(struct creation *c, uint64_t offset)
{
	return cow_write(c->img, 0, &c->disk, sizeof(c->disk), offset);
}

/* --- The parent ----------------------------------------------------------- */

static int set_identity(struct creation *c)
{
	struct vhd_footer_disk disk;
	struct vhd_footer f;
	const char *why;
	int ret;

	ret = vhd_file_time(c->create->backing, &c->h.parent_time);
	if (ret || !strcmp(c->create->backing_format, "raw"))
		return ret;
	ret = vhd_read_footer(c->create->backing, &disk);
	if (!ret)
		ret = vhd_footer_decode(&disk, &f, &why);
	if (ret)
		return ret;
	memcpy(c->h.parent_id, f.unique_id, sizeof(f.unique_id));
	return 0;
}

static int bad_name(struct creation *c, const char *path)
{
	return cow_error(c->img, -EINVAL,
		"the name of its parent, %s, cannot be told in a VHD: it must be UTF-8, have no backslash and at most %u bytes",
		path, VHD_PATH_MAX - 2);
}

static int add_locator(struct creation *c, unsigned int i, uint32_t platform,
		       const char *start, const char *path)
{
	char text[VHD_PATH_MAX + 1];
	uint8_t raw[VHD_UTF16_MAX];
	int len;

	if (strlen(path) + strlen(start) > VHD_PATH_MAX || strchr(path, '\\'))
		return bad_name(c, path);
	strcpy(text, start);
	strcat(text, path);
	vhd_name_to_windows(text);
	len = vhd_name_to_utf16(text, false, raw, sizeof(raw));
	if (len <= 0)
		return bad_name(c, path);
	c->h.locator[i] = (struct vhd_locator){
		platform, (uint32_t)len, c->end };
	c->end += num_round_up((uint64_t)len, VHD_SECTOR);
	return cow_write(c->img, 0, raw, (size_t)len,
			 c->h.locator[i].offset);
}

/* Where it is now, whatever the path that was given goes through. */
static int add_absolute(struct creation *c)
{
	char *real = realpath(cow_image_path(c->create->backing), NULL);
	int ret;

	if (!real)
		return cow_error(c->img, -errno,
			"the folder of its parent %s cannot be found",
			cow_image_path(c->create->backing));
	ret = add_locator(c, 1, VHD_W2KU, "", real);
	free(real);
	return ret;
}

static int set_parent(struct creation *c)
{
	const char *path = c->create->backing_path, *name;
	int ret;

	if (strcmp(c->create->backing_format, "raw") &&
	    strcmp(c->create->backing_format, "vhd"))
		return cow_error(c->img, -EINVAL,
			"a VHD has a VHD or a raw disk for its parent, no %s image",
			c->create->backing_format);
	ret = set_identity(c);
	if (ret)
		return ret;
	name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (vhd_name_to_utf16(name, true, c->h.parent_name,
			      sizeof(c->h.parent_name)) < 0)
		return bad_name(c, name);
	/* Two slashes at the start would be another machine's. */
	while (path[0] == '/' && path[1] == '/')
		path++;
	if (*path == '/')
		return add_locator(c, 0, VHD_W2KU, "", path);
	ret = add_locator(c, 0, VHD_W2RU, ".\\", path);
	return ret ? ret : add_absolute(c);
}

/* --- All of it ------------------------------------------------------------ */

static int set_size(struct creation *c)
{
	uint64_t size = c->create->size ? c->create->size :
			c->create->backing_size;

	if (vhd_size_ok(size)) {
		c->size = num_round_up(size, VHD_SECTOR);
		return 0;
	}
	return cow_error(c->img, -EFBIG,
		"a disk of %llu bytes is no VHD's: 2040 GiB are the most",
		(unsigned long long)size);
}

static int set_blocks(struct creation *c)
{
	uint32_t size = c->create->block_size ? c->create->block_size :
						VHD_BLOCK_SIZE;
	uint64_t blocks;

	if (!num_is_pow2(size) || size < VHD_SECTOR ||
	    size > COW_BLOCK_SIZE_MAX)
		return cow_error(c->img, -EINVAL,
			"a block size of %u is no power of two of 512 to 16m",
			size);
	blocks = num_div_up(c->size, size);
	if (blocks > VHD_BAT_ENTRIES_MAX)
		return cow_error(c->img, -EINVAL,
			"a disk of %llu bytes needs blocks larger than %u bytes",
			(unsigned long long)c->size, size);
	c->h.block_size = size;
	c->h.max_table_entries = (uint32_t)blocks;
	c->h.table_offset = BAT_OFFSET;
	return 0;
}

static int write_bat(struct creation *c)
{
	uint64_t end = BAT_OFFSET + num_round_up(
			c->h.max_table_entries * 4ull, VHD_SECTOR);
	uint8_t free_entries[VHD_TABLE];
	int ret = 0;

	memset(free_entries, 0xff, sizeof(free_entries));
	for (c->end = BAT_OFFSET; !ret && c->end < end;) {
		uint64_t n = num_min(sizeof(free_entries), end - c->end);

		ret = cow_write(c->img, 0, free_entries, n, c->end);
		c->end += n;
	}
	return ret;
}

static int create_dynamic(struct creation *c)
{
	struct vhd_header_disk disk;
	int ret;

	ret = set_blocks(c);
	if (!ret)
		ret = set_footer(c, c->create->backing ? VHD_DIFFERENCING :
							 VHD_DYNAMIC);
	if (!ret)
		ret = write_bat(c);
	if (!ret && c->create->backing)
		ret = set_parent(c);
	if (!ret)
		ret = write_footer(c, c->end);
	if (ret)
		return ret;
	vhd_header_encode(&c->h, &disk);
	ret = cow_write(c->img, 0, &disk, sizeof(disk), HEADER_OFFSET);
	return ret ? ret : write_footer(c, 0);
}

static int create_fixed(struct creation *c)
{
	int ret;

	if (c->create->backing)
		return cow_error(c->img, -EINVAL,
			"a fixed VHD has no parent; leave subformat=fixed out");
	ret = set_footer(c, VHD_FIXED);
	if (!ret)
		ret = cow_file_extend(c->img, 0, c->size);
	return ret ? ret : write_footer(c, c->size);
}

int vhd_create(struct cow_image *img, const struct cow_create *create)
{
	const char *subformat = cow_image_option(img, "subformat");
	struct creation c = { .img = img, .create = create };
	int ret;

	ret = set_size(&c);
	if (ret)
		return ret;
	if (!subformat || !strcmp(subformat, "dynamic"))
		return create_dynamic(&c);
	if (!strcmp(subformat, "fixed"))
		return create_fixed(&c);
	return cow_error(img, -EINVAL,
		"subformat=%s is neither dynamic nor fixed", subformat);
}
