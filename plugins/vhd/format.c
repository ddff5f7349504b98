// SPDX-License-Identifier: GPL-2.0-or-later
#include "format.h"

#include <common/num.h>

#include <errno.h>

#define CHS_CYLINDERS_MAX 65535u
#define CHS_MAX_SIZE (65535ull * 16 * 255 * VHD_SECTOR)
/* More are for disks of blocks that libcow has no such size for. */
#define BLOCK_SIZE_MAX (16u << 20)

uint32_t vhd_bitmap_bytes(uint32_t block_size)
{
	return (uint32_t)num_round_up(num_div_up(block_size / VHD_SECTOR, 8),
				      VHD_SECTOR);
}

/* One's complement of the sum of all bytes but those of the sum itself. */
static uint32_t checksum(const void *data, size_t len, size_t skip)
{
	const uint8_t *p = data;
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		if (i < skip || i >= skip + sizeof(be32))
			sum += p[i];
	}
	return ~sum;
}

static uint32_t footer_checksum(const struct vhd_footer_disk *d)
{
	return checksum(d, sizeof(*d), offsetof(struct vhd_footer_disk,
						checksum));
}

static uint32_t header_checksum(const struct vhd_header_disk *d)
{
	return checksum(d, sizeof(*d), offsetof(struct vhd_header_disk,
						checksum));
}

bool vhd_footer_valid(const struct vhd_footer_disk *d)
{
	return !memcmp(d->cookie, VHD_FOOTER_COOKIE, sizeof(d->cookie)) &&
	       be32_get(d->checksum) == footer_checksum(d);
}

/* --- Sizes ---------------------------------------------------------------- */

/*
 * Virtual PC takes the geometry for the size of a disk, and so did qemu when it
 * called itself so; all others, VirtualBox and Azure too, take current_size, as
 * the specification says.  The largest geometry always means that it cannot tell
 * the size.  The rule of qemu since 10.0 (block/vpc.c); before, it took the geometry
 * of whomever it did not know.
 */
static bool creator_means_chs(const char *creator)
{
	return !memcmp(creator, "vpc ", 4) || !memcmp(creator, "qemu", 4);
}

uint64_t vhd_disk_size(const struct vhd_footer *f)
{
	return f->size_is_chs ? f->chs_size :
				num_round_down(f->current_size, VHD_SECTOR);
}

void vhd_size_from(struct vhd_footer *f, bool chs)
{
	f->size_is_chs = chs && f->chs_size != CHS_MAX_SIZE;
}

bool vhd_size_ok(uint64_t size)
{
	return size <= VHD_SECTORS_MAX * VHD_SECTOR;
}

static void set_chs(struct vhd_footer *f, uint64_t cylinders, uint32_t heads,
		    uint32_t sectors)
{
	f->cylinders = (uint16_t)num_min(cylinders, CHS_CYLINDERS_MAX);
	f->heads = (uint8_t)heads;
	f->sectors = (uint8_t)sectors;
	f->chs_size = (uint64_t)f->cylinders * heads * sectors * VHD_SECTOR;
}

/* The specification's steps: more sectors a track, then more heads. */
static void geometry_of(struct vhd_footer *f, uint64_t total)
{
	uint64_t tracks;
	uint32_t heads;

	if (total > 65535ull * 16 * 63) {
		set_chs(f, total / 255 / 16, 16, 255);
		return;
	}
	tracks = total / 17;
	heads = (uint32_t)num_max(num_div_up(tracks, 1024), 4);
	if (tracks < heads * 1024ull && heads <= 16) {
		set_chs(f, tracks / heads, heads, 17);
		return;
	}
	tracks = total / 31;
	if (tracks < 16 * 1024ull)
		set_chs(f, tracks / 16, 16, 31);
	else
		set_chs(f, total / 63 / 16, 16, 63);
}

void vhd_set_geometry(struct vhd_footer *f, uint64_t size)
{
	geometry_of(f, size / VHD_SECTOR);
	if (f->chs_size != size)
		set_chs(f, CHS_CYLINDERS_MAX, 16, 255);
	vhd_size_from(f, true);
}

/* --- Footer --------------------------------------------------------------- */

static void get_footer(const struct vhd_footer_disk *d, struct vhd_footer *f)
{
	f->type = be32_get(d->type);
	f->data_offset = be64_get(d->data_offset);
	f->current_size = be64_get(d->current_size);
	f->time_stamp = be32_get(d->time_stamp);
	set_chs(f, be16_get(d->cylinders), d->heads, d->sectors);
	vhd_size_from(f, creator_means_chs(d->creator));
	memcpy(f->creator, d->creator, sizeof(d->creator));
	f->creator[4] = 0;
	memcpy(f->unique_id, d->unique_id, sizeof(f->unique_id));
	f->saved_state = d->saved_state;
}

int vhd_footer_decode(const struct vhd_footer_disk *d, struct vhd_footer *f,
		      const char **why)
{
	*why = "is no VHD image";
	if (memcmp(d->cookie, VHD_FOOTER_COOKIE, sizeof(d->cookie)))
		return -EINVAL;
	*why = "has a damaged footer: its checksum is wrong";
	if (be32_get(d->checksum) != footer_checksum(d))
		return -EINVAL;
	*why = "is a VHD of a version that is not known here";
	if (be32_get(d->version) >> 16 != VHD_VERSION >> 16)
		return -EOPNOTSUPP;
	get_footer(d, f);
	*why = "has a footer whose type is none of fixed, dynamic and differencing";
	if (f->type != VHD_FIXED && f->type != VHD_DYNAMIC &&
	    f->type != VHD_DIFFERENCING)
		return -EOPNOTSUPP;
	*why = "has a footer whose size is out of range, 0 to 2040 GiB";
	if (!vhd_size_ok(vhd_disk_size(f)))
		return -EINVAL;
	*why = NULL;
	return 0;
}

void vhd_footer_encode(const struct vhd_footer *f, struct vhd_footer_disk *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->cookie, VHD_FOOTER_COOKIE, sizeof(d->cookie));
	d->features = be32_put(VHD_FEATURE_RESERVED);
	d->version = be32_put(VHD_VERSION);
	d->data_offset = be64_put(f->data_offset);
	d->time_stamp = be32_put(f->time_stamp);
	memcpy(d->creator, f->creator, sizeof(d->creator));
	d->creator_version = be32_put(VHD_VERSION);
	/* There are two names, and all others take one of them. */
	memcpy(d->creator_os, "Wi2k", sizeof(d->creator_os));
	d->original_size = be64_put(f->current_size);
	d->current_size = be64_put(f->current_size);
	d->cylinders = be16_put(f->cylinders);
	d->heads = f->heads;
	d->sectors = f->sectors;
	d->type = be32_put(f->type);
	memcpy(d->unique_id, f->unique_id, sizeof(d->unique_id));
	d->saved_state = f->saved_state;
	d->checksum = be32_put(footer_checksum(d));
}

/* --- Dynamic header ------------------------------------------------------- */

static void get_header(const struct vhd_header_disk *d, struct vhd_header *h)
{
	unsigned int i;

	h->table_offset = be64_get(d->table_offset);
	h->max_table_entries = be32_get(d->max_table_entries);
	h->block_size = be32_get(d->block_size);
	memcpy(h->parent_id, d->parent_id, sizeof(h->parent_id));
	h->parent_time = be32_get(d->parent_time);
	memcpy(h->parent_name, d->parent_name, sizeof(h->parent_name));
	for (i = 0; i < VHD_LOCATORS; i++) {
		h->locator[i].platform = be32_get(d->locator[i].platform);
		h->locator[i].length = be32_get(d->locator[i].data_length);
		h->locator[i].offset = be64_get(d->locator[i].data_offset);
	}
}

int vhd_header_decode(const struct vhd_header_disk *d, struct vhd_header *h,
		      const char **why)
{
	*why = "has no dynamic header where its footer says";
	if (memcmp(d->cookie, VHD_HEADER_COOKIE, sizeof(d->cookie)))
		return -EINVAL;
	*why = "has a damaged dynamic header: its checksum is wrong";
	if (be32_get(d->checksum) != header_checksum(d))
		return -EINVAL;
	*why = "has a dynamic header of a version that is not known here";
	if (be32_get(d->version) >> 16 != VHD_VERSION >> 16)
		return -EOPNOTSUPP;
	get_header(d, h);
	*why = "has a dynamic header whose block size is no power of two of 512 bytes to 16 MiB";
	if (!num_is_pow2(h->block_size) || h->block_size < VHD_SECTOR ||
	    h->block_size > BLOCK_SIZE_MAX)
		return -EINVAL;
	*why = "has a dynamic header whose table of blocks is too large: it has more than 4194304 entries";
	if (h->max_table_entries > VHD_BAT_ENTRIES_MAX)
		return -EINVAL;
	*why = "has a dynamic header whose table of blocks stands at no sector";
	if (!num_is_aligned(h->table_offset, VHD_SECTOR) ||
	    h->table_offset > INT64_MAX / 2)
		return -EINVAL;
	*why = NULL;
	return 0;
}

void vhd_header_encode(const struct vhd_header *h, struct vhd_header_disk *d)
{
	unsigned int i;

	memset(d, 0, sizeof(*d));
	memcpy(d->cookie, VHD_HEADER_COOKIE, sizeof(d->cookie));
	d->data_offset = be64_put(VHD_NO_OFFSET);
	d->table_offset = be64_put(h->table_offset);
	d->version = be32_put(VHD_VERSION);
	d->max_table_entries = be32_put(h->max_table_entries);
	d->block_size = be32_put(h->block_size);
	memcpy(d->parent_id, h->parent_id, sizeof(d->parent_id));
	d->parent_time = be32_put(h->parent_time);
	memcpy(d->parent_name, h->parent_name, sizeof(d->parent_name));
	for (i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &h->locator[i];

		d->locator[i].platform = be32_put(l->platform);
		d->locator[i].data_space = be32_put((uint32_t)num_round_up(
			l->length, VHD_SECTOR));
		d->locator[i].data_length = be32_put(l->length);
		d->locator[i].data_offset = be64_put(l->offset);
	}
	d->checksum = be32_put(header_checksum(d));
}

void vhd_header_set_time(struct vhd_header_disk *d, uint32_t parent_time)
{
	d->parent_time = be32_put(parent_time);
	d->checksum = be32_put(header_checksum(d));
}
