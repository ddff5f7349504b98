/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format.h - the header of a sparse extent: docs/formats/vmdk.md in C, with
 * the names of the specification.
 */
#ifndef VMDK_FORMAT_H
#define VMDK_FORMAT_H

#include <common/diskint.h>

#include <stdbool.h>
#include <stddef.h>

#define VMDK_SECTOR		512u
#define VMDK_MAGIC		"KDMV"
#define VMDK_GTES		512u	/* entries of a grain table */
#define VMDK_GT_BYTES		(VMDK_GTES * 4u)
#define VMDK_GRAIN_MIN		4096u	/* bytes */
#define VMDK_GRAIN_MAX		(16u << 20)
/* Entries of a grain directory: what a check may take memory for. */
#define VMDK_GDES_MAX		(1u << 23)
/* An entry of a table is a sector number of 32 bits. */
#define VMDK_FILE_MAX		((uint64_t)VMDK_SECTOR << 32)
#define VMDK_GD_AT_END		UINT64_MAX
#define VMDK_GTE_ZERO		1u	/* with VMDK_FLAG_ZERO_GRAIN */
#define VMDK_COMPRESS_DEFLATE	1u
#define VMDK_DESCRIPTOR_MAX	(256u << 10)

#define VMDK_FLAG_NEWLINES	(1u << 0)	/* the four bytes are valid */
#define VMDK_FLAG_RGD		(1u << 1)	/* a redundant grain directory */
#define VMDK_FLAG_ZERO_GRAIN	(1u << 2)	/* an entry of 1 is zeroes */
#define VMDK_FLAG_COMPRESSED	(1u << 16)
#define VMDK_FLAG_MARKERS	(1u << 17)
#define VMDK_FLAGS_KNOWN	(VMDK_FLAG_NEWLINES | VMDK_FLAG_RGD | \
				 VMDK_FLAG_ZERO_GRAIN | \
				 VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS)

/* In file order.  All integers little-endian; sizes and offsets in sectors. */
struct vmdk_header_disk {
	char magic[4];
	le32 version;
	le32 flags;
	le64 capacity;
	le64 grain_size;
	le64 descriptor_offset;
	le64 descriptor_size;
	le32 num_gtes_per_gt;
	le64 rgd_offset;
	le64 gd_offset;
	le64 overhead;
	uint8_t unclean_shutdown;
	char newlines[4];
	le16 compress_algorithm;
	uint8_t pad[433];
};

#define VMDK_AT(member, offset) \
	_Static_assert(offsetof(struct vmdk_header_disk, member) == (offset), \
		       #member " has moved")
VMDK_AT(version, 4);
VMDK_AT(flags, 8);
VMDK_AT(capacity, 12);
VMDK_AT(grain_size, 20);
VMDK_AT(descriptor_offset, 28);
VMDK_AT(descriptor_size, 36);
VMDK_AT(num_gtes_per_gt, 44);
VMDK_AT(rgd_offset, 48);
VMDK_AT(gd_offset, 56);
VMDK_AT(overhead, 64);
VMDK_AT(unclean_shutdown, 72);
VMDK_AT(newlines, 73);
VMDK_AT(compress_algorithm, 77);
VMDK_AT(pad, 79);
_Static_assert(sizeof(struct vmdk_header_disk) == VMDK_SECTOR,
	       "the header is one sector");

/* In front of a compressed grain.  size is of the bytes that follow. */
struct vmdk_marker_disk {
	le64 lba;		/* sector of the extent */
	le32 size;
};

_Static_assert(sizeof(struct vmdk_marker_disk) == 12, "a marker has 12 bytes");

/* Checked: see vmdk_header_decode() for what holds.  Bytes, not sectors. */
struct vmdk_header {
	uint32_t version;
	uint32_t flags;
	uint64_t capacity;
	uint32_t grain_size;	/* a power of two */
	uint64_t descriptor_offset;
	uint64_t descriptor_size;	/* 0: there is none */
	bool gd_at_end;		/* the footer tells where the directory is */
	uint64_t gd_offset;
	uint64_t rgd_offset;	/* with VMDK_FLAG_RGD, else 0 */
	uint64_t overhead;
	bool unclean;
	uint64_t nr_grains;
	uint32_t nr_gdes;	/* entries of the grain directory */
};

bool vmdk_is_sparse(const void *sector);
/*
 * From the file.  0, or a negative errno and in *why the rest of a sentence
 * that begins with the file's name.
 */
int vmdk_header_decode(const struct vmdk_header_disk *disk,
		       struct vmdk_header *h, const char **why);
void vmdk_header_encode(const struct vmdk_header *h,
			struct vmdk_header_disk *disk);
/* Bytes of a grain directory, in whole sectors. */
uint64_t vmdk_gd_bytes(const struct vmdk_header *h);
/*
 * Fill the rest from capacity, grain_size, flags and version: descriptor,
 * redundant directory with its tables, directory with its tables, grains.
 * -EFBIG when that is too large.
 */
int vmdk_header_layout(struct vmdk_header *h);

#endif /* VMDK_FORMAT_H */
