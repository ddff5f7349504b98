/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format.h - the header of a dscow image: docs/formats/dscow.md in C, with
 * the same names.
 */
#ifndef DSCOW_FORMAT_H
#define DSCOW_FORMAT_H

#include <common/diskint.h>

#include <stdbool.h>
#include <stddef.h>

#define DSCOW_MAGIC		"dscow\r\n\x1a"
#define DSCOW_VERSION		1u
#define DSCOW_HEADER_BYTES	512u
#define DSCOW_BASE_PATH_OFFSET	512u
#define DSCOW_BASE_PATH_MAX	4095u
#define DSCOW_BITMAP_OFFSET	8192u	/* what we write; read from the header */
#define DSCOW_BITMAP_ALIGN	4096u
#define DSCOW_BLOCK_SIZE_MIN	4096u
#define DSCOW_BLOCK_SIZE_MAX	(16u << 20)
#define DSCOW_BLOCK_SIZE	(64u << 10)	/* unless told otherwise */
#define DSCOW_FORMAT_NAME_MAX	32u

/* Incompatible features: a reader that does not know one must refuse. */
#define DSCOW_INCOMPAT_MERGING	(1ull << 0)
#define DSCOW_INCOMPAT_KNOWN	DSCOW_INCOMPAT_MERGING

/* base_flags */
#define DSCOW_BASE_REGULAR	(1u << 0)	/* a file: base_mtime counts */
#define DSCOW_BASE_KNOWN	DSCOW_BASE_REGULAR

/* In file order.  All integers little-endian. */
struct dscow_header_disk {
	char magic[8];
	le32 version;
	le32 header_bytes;
	le64 incompatible;
	le64 compatible;
	le64 size;
	le32 block_size;
	le32 bitmap_count;
	le64 bitmap_offset;
	le64 first_block;
	le64 base_size;
	le64 base_file_size;
	le64 base_mtime_sec;
	le32 base_mtime_nsec;
	le32 base_flags;
	le32 base_checksum;
	le32 base_path_length;
	le32 base_path_checksum;
	char base_format[DSCOW_FORMAT_NAME_MAX];
	uint8_t reserved[368];
	le32 header_checksum;
};

#define DSCOW_AT(member, offset) \
	_Static_assert(offsetof(struct dscow_header_disk, member) == (offset), \
		       #member " has moved")
DSCOW_AT(version, 8);
DSCOW_AT(header_bytes, 12);
DSCOW_AT(incompatible, 16);
DSCOW_AT(compatible, 24);
DSCOW_AT(size, 32);
DSCOW_AT(block_size, 40);
DSCOW_AT(bitmap_count, 44);
DSCOW_AT(bitmap_offset, 48);
DSCOW_AT(first_block, 56);
DSCOW_AT(base_size, 64);
DSCOW_AT(base_file_size, 72);
DSCOW_AT(base_mtime_sec, 80);
DSCOW_AT(base_mtime_nsec, 88);
DSCOW_AT(base_flags, 92);
DSCOW_AT(base_checksum, 96);
DSCOW_AT(base_path_length, 100);
DSCOW_AT(base_path_checksum, 104);
DSCOW_AT(base_format, 108);
DSCOW_AT(reserved, 140);
DSCOW_AT(header_checksum, 508);
_Static_assert(sizeof(struct dscow_header_disk) == DSCOW_HEADER_BYTES,
	       "the header is one sector");

/* What a base was when the image was made, to see whether it changed. */
struct dscow_identity {
	uint64_t size;		/* bytes of its disk */
	uint64_t file_size;	/* bytes of its file or device */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	bool regular;
	uint32_t checksum;	/* of samples of the file's contents */
};

/* Checked: see dscow_header_decode() for what holds. */
struct dscow_header {
	uint64_t incompatible;
	uint64_t compatible;
	uint64_t size;		/* bytes of the disk, whole sectors */
	uint32_t block_size;	/* bytes */
	uint32_t bitmap_count;	/* 32-bit words */
	uint64_t bitmap_offset;	/* bytes */
	uint64_t first_block;	/* bytes */
	uint64_t nr_blocks;
	struct dscow_identity base;
	uint32_t base_path_length;
	uint32_t base_path_checksum;
	char base_format[DSCOW_FORMAT_NAME_MAX];
};

/*
 * From the file.  0, or a negative errno and in *why the rest of a sentence
 * that begins with the image's name.
 */
int dscow_header_decode(const struct dscow_header_disk *disk,
			struct dscow_header *h, const char **why);
/* To the file, with its checksum. */
void dscow_header_encode(const struct dscow_header *h,
			 struct dscow_header_disk *disk);
/*
 * Fill nr_blocks, bitmap_count, bitmap_offset and first_block from size and
 * block_size.  -EFBIG when the image would be too large for a file.
 */
int dscow_header_layout(struct dscow_header *h);
/* Bytes that the file has at least: up to the end of the last block. */
uint64_t dscow_file_bytes(const struct dscow_header *h);

#endif /* DSCOW_FORMAT_H */
