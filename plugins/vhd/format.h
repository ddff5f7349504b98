/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format.h - footer and dynamic header of a VHD: docs/formats/vhd.md in C.
 *
 * The names are those of the specification.  Offsets and sizes are bytes
 * unless a name says sectors.
 */
#ifndef VHD_FORMAT_H
#define VHD_FORMAT_H

#include <common/diskint.h>

#include <stdbool.h>
#include <stddef.h>

#define VHD_SECTOR		512u
#define VHD_FOOTER_COOKIE	"conectix"
#define VHD_HEADER_COOKIE	"cxsparse"
#define VHD_VERSION		0x00010000u
#define VHD_FEATURE_RESERVED	0x2u		/* always set */
#define VHD_NO_OFFSET		UINT64_MAX
#define VHD_BAT_FREE		0xffffffffu	/* of the BAT: no block */
#define VHD_BLOCK_SIZE		(2u << 20)	/* unless told otherwise */
#define VHD_LOCATORS		8u
/* 2040 GiB: what all who read the format take. */
#define VHD_SECTORS_MAX		0xff000000ull
/* Bounds the memory that a table in an image may cost. */
#define VHD_BAT_ENTRIES_MAX	(4u << 20)
/* Seconds from 1970 to 2000, where VHD's time begins. */
#define VHD_EPOCH		946684800

enum vhd_type {
	VHD_FIXED = 2,
	VHD_DYNAMIC = 3,
	VHD_DIFFERENCING = 4,
};

/* In file order.  All integers big-endian. */
struct vhd_footer_disk {
	char cookie[8];
	be32 features;
	be32 version;
	be64 data_offset;
	be32 time_stamp;
	char creator[4];
	be32 creator_version;
	char creator_os[4];
	be64 original_size;
	be64 current_size;
	be16 cylinders;
	uint8_t heads;
	uint8_t sectors;
	be32 type;
	be32 checksum;
	uint8_t unique_id[16];
	uint8_t saved_state;
	uint8_t reserved[427];
};

struct vhd_locator_disk {
	be32 platform;
	be32 data_space;
	be32 data_length;
	be32 reserved;
	be64 data_offset;
};

struct vhd_header_disk {
	char cookie[8];
	be64 data_offset;
	be64 table_offset;
	be32 version;
	be32 max_table_entries;
	be32 block_size;
	be32 checksum;
	uint8_t parent_id[16];
	be32 parent_time;
	be32 reserved1;
	uint8_t parent_name[512];
	struct vhd_locator_disk locator[VHD_LOCATORS];
	uint8_t reserved2[256];
};

#define VHD_AT(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), \
		       #member " has moved")
VHD_AT(vhd_footer_disk, features, 8);
VHD_AT(vhd_footer_disk, version, 12);
VHD_AT(vhd_footer_disk, data_offset, 16);
VHD_AT(vhd_footer_disk, time_stamp, 24);
VHD_AT(vhd_footer_disk, creator, 28);
VHD_AT(vhd_footer_disk, creator_version, 32);
VHD_AT(vhd_footer_disk, creator_os, 36);
VHD_AT(vhd_footer_disk, original_size, 40);
VHD_AT(vhd_footer_disk, current_size, 48);
VHD_AT(vhd_footer_disk, cylinders, 56);
VHD_AT(vhd_footer_disk, heads, 58);
VHD_AT(vhd_footer_disk, sectors, 59);
VHD_AT(vhd_footer_disk, type, 60);
VHD_AT(vhd_footer_disk, checksum, 64);
VHD_AT(vhd_footer_disk, unique_id, 68);
VHD_AT(vhd_footer_disk, saved_state, 84);
VHD_AT(vhd_header_disk, data_offset, 8);
VHD_AT(vhd_header_disk, table_offset, 16);
VHD_AT(vhd_header_disk, version, 24);
VHD_AT(vhd_header_disk, max_table_entries, 28);
VHD_AT(vhd_header_disk, block_size, 32);
VHD_AT(vhd_header_disk, checksum, 36);
VHD_AT(vhd_header_disk, parent_id, 40);
VHD_AT(vhd_header_disk, parent_time, 56);
VHD_AT(vhd_header_disk, parent_name, 64);
VHD_AT(vhd_header_disk, locator, 576);
VHD_AT(vhd_header_disk, reserved2, 768);
_Static_assert(sizeof(struct vhd_footer_disk) == 512, "one sector");
_Static_assert(sizeof(struct vhd_header_disk) == 1024, "two sectors");

/* Checked: see vhd_footer_decode() and vhd_header_decode(). */
struct vhd_footer {
	enum vhd_type type;
	uint64_t data_offset;	/* of the dynamic header */
	uint64_t current_size;
	uint64_t chs_size;	/* what the geometry says */
	bool size_is_chs;	/* which of them the creator means */
	uint32_t time_stamp;	/* seconds since 2000 */
	uint16_t cylinders;
	uint8_t heads, sectors;
	char creator[5];
	uint8_t unique_id[16];
	bool saved_state;
};

struct vhd_locator {
	uint32_t platform;
	uint32_t length;
	uint64_t offset;
};

struct vhd_header {
	uint64_t table_offset;
	uint32_t max_table_entries;
	uint32_t block_size;
	uint8_t parent_id[16];
	uint32_t parent_time;
	uint8_t parent_name[512];	/* UTF-16, big-endian */
	struct vhd_locator locator[VHD_LOCATORS];
};

/* Does a footer stand here that is whole? */
bool vhd_footer_valid(const struct vhd_footer_disk *disk);
/*
 * From the file.  0, or a negative errno and in *why the rest of a sentence
 * that begins with the image's name.
 */
int vhd_footer_decode(const struct vhd_footer_disk *disk,
		      struct vhd_footer *f, const char **why);
int vhd_header_decode(const struct vhd_header_disk *disk,
		      struct vhd_header *h, const char **why);
/* To the file, with the checksum. */
void vhd_footer_encode(const struct vhd_footer *f,
		       struct vhd_footer_disk *disk);
void vhd_header_encode(const struct vhd_header *h,
		       struct vhd_header_disk *disk);
/* Of a header as it stands in a file: all else stays. */
void vhd_header_set_time(struct vhd_header_disk *disk, uint32_t parent_time);

/* The disk's size by the rule of the creator, or by vhd_size_from(). */
uint64_t vhd_disk_size(const struct vhd_footer *f);
/* The largest geometry stays what it is: no size. */
void vhd_size_from(struct vhd_footer *f, bool chs);
bool vhd_size_ok(uint64_t size);
/*
 * Geometry for a disk of so many bytes, such that both rules give the size:
 * the specification's if that is exact, else the largest, which all readers
 * take as "see current_size".
 */
void vhd_set_geometry(struct vhd_footer *f, uint64_t size);

/* Bytes of a block's sector bitmap: whole sectors. */
uint32_t vhd_bitmap_bytes(uint32_t block_size);

#endif /* VHD_FORMAT_H */
