// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * parent.c - the parent of a differencing disk: which file, and is it the
 * same still?
 *
 * A child names its parent up to nine times: by a path relative to itself, by
 * an absolute one, by a URL, and in its header.  The first name behind which
 * there is a file counts.  A parent id of zeroes stands for a raw disk (so
 * blktap writes it); any other for a VHD, whose footer holds the same id.
 */
#include "vhd.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

/* --- Names ---------------------------------------------------------------- */

static bool take_name(struct vhd *v, const char *path)
{
	if (!*path)
		return false;
	if (cow_file_exists(v->img, path)) {
		strcpy(v->parent_path, path);
		return true;
	}
	/* Who opens it will say that it is missing. */
	if (!*v->parent_path)
		strcpy(v->parent_path, path);
	return false;
}

static int read_locator(struct vhd *v, const struct vhd_locator *l, char *path)
{
	uint8_t raw[VHD_UTF16_MAX];
	int ret;

	if (!l->length || l->length > sizeof(raw))
		return -EINVAL;
	ret = cow_read(v->img, 0, raw, l->length, l->offset);
	if (ret)
		return ret;
	if (l->platform != VHD_MACX) {
		ret = vhd_name_from_utf16(raw, l->length, false, path);
		if (!ret)
			vhd_name_from_windows(path);
		return ret;
	}
	if (l->length > VHD_PATH_MAX)
		return -EINVAL;
	memcpy(path, raw, l->length);
	path[l->length] = 0;
	return vhd_name_from_url(path) ? 0 : -EINVAL;
}

static bool try_locators(struct vhd *v, uint32_t platform)
{
	char path[VHD_PATH_MAX + 1];
	unsigned int i;

	for (i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->h.locator[i];

		if (l->platform == platform && !read_locator(v, l, path) &&
		    take_name(v, path))
			return true;
	}
	return false;
}

static bool try_header(struct vhd *v)
{
	char path[VHD_PATH_MAX + 1];

	if (vhd_name_from_utf16(v->h.parent_name, sizeof(v->h.parent_name),
				true, path))
		return false;
	vhd_name_from_windows(path);
	return take_name(v, path);
}

int vhd_find_parent(struct vhd *v)
{
	if (try_locators(v, VHD_W2RU) || try_locators(v, VHD_W2KU) ||
	    try_locators(v, VHD_MACX) || try_header(v) || *v->parent_path)
		return 0;
	return cow_error(v->img, -EINVAL,
		"is a differencing disk, but neither its header nor a parent locator holds the name of its parent");
}

bool vhd_parent_is_raw(const struct vhd *v)
{
	static const uint8_t none[16];

	return !memcmp(v->h.parent_id, none, sizeof(none));
}

/* --- Identity ------------------------------------------------------------- */

int vhd_file_time(struct cow_image *img, uint32_t *time)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(img, 0, &st);
	if (ret)
		return ret;
	*time = st.mtime_sec < VHD_EPOCH ? 0 :
		(uint32_t)(st.mtime_sec - VHD_EPOCH);
	return 0;
}

/*
 * The end counts first: the first sector of a fixed disk is its user's, who
 * could write a footer there.
 */
int vhd_read_footer(struct cow_image *img, struct vhd_footer_disk *disk)
{
	struct vhd_footer_disk start;
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(img, 0, &st);
	if (ret)
		return ret;
	if (st.size < sizeof(*disk))
		return cow_error(img, -EINVAL, "is no VHD image");
	ret = cow_read(img, 0, disk, sizeof(*disk), st.size - sizeof(*disk));
	if (!ret && !vhd_footer_valid(disk) &&
	    st.size % VHD_SECTOR == VHD_SECTOR - 1) {
		/* Virtual PC before 2004 wrote one byte less. */
		memset(disk, 0, sizeof(*disk));
		ret = cow_read(img, 0, disk, sizeof(*disk) - 1,
			       st.size - (sizeof(*disk) - 1));
	}
	if (ret || (vhd_footer_valid(disk) &&
		    be32_get(disk->type) == VHD_FIXED))
		return ret;
	ret = cow_read(img, 0, &start, sizeof(start), 0);
	if (ret)
		return ret;
	if (vhd_footer_valid(&start) ? be32_get(start.type) != VHD_FIXED :
	    memcmp(disk->cookie, VHD_FOOTER_COOKIE, sizeof(disk->cookie)))
		*disk = start;
	return 0;
}

static int verify_id(struct vhd *v)
{
	struct vhd_footer_disk disk;
	struct vhd_footer f;
	const char *why;
	int ret;

	ret = vhd_read_footer(v->parent, &disk);
	if (ret)
		return ret;
	ret = vhd_footer_decode(&disk, &f, &why);
	if (ret)
		return cow_error(v->parent, ret, "%s", why);
	if (!memcmp(f.unique_id, v->h.parent_id, sizeof(f.unique_id)))
		return 0;
	return cow_error(v->img, -ESTALE,
		"its parent %s is not the disk that it was made for: their unique ids differ",
		cow_image_path(v->parent));
}

static int verify_time(struct vhd *v)
{
	const char *option = cow_image_option(v->img, "parent-time");
	uint32_t now;
	int ret;

	if (option && !strcmp(option, "any"))
		return 0;
	ret = vhd_file_time(v->parent, &now);
	if (ret || !now || !v->h.parent_time || now == v->h.parent_time)
		return ret;
	return cow_error(v->img, -ESTALE,
		"its parent %s was written since: its time stamp differs; if it was only copied, open with the option parent-time=any, or amend it with parent-time=now",
		cow_image_path(v->parent));
}

int vhd_backing(void *handle, struct cow_image *parent, bool verify)
{
	struct vhd *v = handle;
	int ret = 0;

	v->parent = parent;
	if (!verify)
		return 0;
	if (!vhd_parent_is_raw(v))
		ret = verify_id(v);
	return ret ? ret : verify_time(v);
}

/* --- Amend ---------------------------------------------------------------- */

/* Time stamp and checksum stand in the first sector: one write changes both. */
static int write_time(struct vhd *v, uint32_t time)
{
	struct vhd_header_disk disk;
	int ret;

	ret = cow_read(v->img, 0, &disk, sizeof(disk), v->f.data_offset);
	if (ret)
		return ret;
	vhd_header_set_time(&disk, time);
	ret = cow_write(v->img, 0, &disk, VHD_SECTOR, v->f.data_offset);
	if (!ret)
		ret = cow_sync(v->img, 0);
	if (!ret)
		v->h.parent_time = time;
	return ret;
}

int vhd_amend(void *handle, const char *name, const char *value)
{
	struct vhd *v = handle;
	uint32_t now;
	int ret;

	if (strcmp(name, "parent-time") || strcmp(value, "now"))
		return cow_error(v->img, -EINVAL,
			"%s=%s cannot be amended; parent-time=now can", name,
			value);
	if (!vhd_is_diff(v) || !v->parent)
		return cow_error(v->img, -EINVAL,
			"has no parent whose time could be taken");
	ret = vhd_parent_is_raw(v) ? 0 : verify_id(v);
	if (!ret)
		ret = vhd_file_time(v->parent, &now);
	return ret ? ret : write_time(v, now);
}
