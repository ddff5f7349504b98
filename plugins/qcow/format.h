/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format.h - the header of a qcow image, version 1, and its table entries:
 * docs/formats/qcow.md in C.
 *
 * Offsets and sizes are bytes.
 */
#ifndef QCOW_FORMAT_H
#define QCOW_FORMAT_H

#include <common/diskint.h>

#include <stdbool.h>
#include <stddef.h>

#define QCOW_MAGIC		0x514649fbu	/* "QFI\xfb" */
#define QCOW_VERSION		1u
#define QCOW_CLUSTER_BITS_MIN	9u
#define QCOW_CLUSTER_BITS_MAX	16u
#define QCOW_L2_BITS_MIN	6u
#define QCOW_L2_BITS_MAX	13u
/* Entries of an L1 table, as QEMU has it: 2 GiB of them. */
#define QCOW_L1_MAX		((uint64_t)INT32_MAX / 8)
#define QCOW_NAME_MAX		1023u
#define QCOW_FORMAT_MAX		32u	/* of the name of a format */
#define QCOW_WHY_MAX		200u
/* Of an L2 entry: the rest is length and place of a compressed cluster. */
#define QCOW_COMPRESSED		(1ull << 63)

/* In file order.  All integers big-endian. */
struct qcow_header_disk {
	be32 magic;
	be32 version;
	be64 backing_file_offset;
	be32 backing_file_size;
	be32 mtime;
	be64 size;
	uint8_t cluster_bits;
	uint8_t l2_bits;
	uint8_t padding[2];
	be32 crypt_method;
	be64 l1_table_offset;
};

#define QCOW_AT(member, offset) \
	_Static_assert(offsetof(struct qcow_header_disk, member) == (offset), \
		       #member " has moved")
QCOW_AT(version, 4);
QCOW_AT(backing_file_offset, 8);
QCOW_AT(backing_file_size, 16);
QCOW_AT(mtime, 20);
QCOW_AT(size, 24);
QCOW_AT(cluster_bits, 32);
QCOW_AT(l2_bits, 33);
QCOW_AT(crypt_method, 36);
QCOW_AT(l1_table_offset, 40);
_Static_assert(sizeof(struct qcow_header_disk) == 48, "48 bytes");

/* Checked: see qcow_header_decode() for what holds. */
struct qcow_header {
	uint64_t size;		/* of the disk, not 0 */
	uint32_t cluster_bits;
	uint32_t l2_bits;
	uint64_t l1_offset;
	uint64_t l1_entries;	/* as many as the size needs */
	uint64_t name_offset;
	uint32_t name_len;	/* of the backing file's name, 0: none */
};

bool qcow_is_image(const void *buf, size_t len);
/*
 * From the file, of file_size bytes, of which buf holds the first len.  0, or
 * a negative errno and in why the rest of a sentence that begins with the
 * image's name.
 */
int qcow_header_decode(const void *buf, size_t len, uint64_t file_size,
		       struct qcow_header *h, char *why);
void qcow_header_encode(const struct qcow_header *h,
			struct qcow_header_disk *disk);
/* Set l1_entries; false when they are more than there can be. */
bool qcow_set_l1(struct qcow_header *h);

/*
 * What images created here say behind the backing file's name: a zero byte,
 * "format=", the name of the format, a zero byte.  Others overlook it.
 */
#define QCOW_RECORD_MAX (sizeof("format=") + QCOW_FORMAT_MAX + 1)
/* Bytes written; format is of at most QCOW_FORMAT_MAX. */
size_t qcow_record_encode(const char *format, char *record);
/* format has room for QCOW_FORMAT_MAX + 1.  False: there is none. */
bool qcow_record_decode(const char *record, size_t len, char *format);

/* A compressed cluster: bytes from a byte of the file on. */
static inline uint64_t qcow_packed_offset(const struct qcow_header *h,
					  uint64_t entry)
{
	return entry & ((1ull << (63 - h->cluster_bits)) - 1);
}

static inline uint32_t qcow_packed_len(const struct qcow_header *h,
				       uint64_t entry)
{
	return (uint32_t)(entry >> (63 - h->cluster_bits)) &
	       ((1u << h->cluster_bits) - 1);
}

#endif /* QCOW_FORMAT_H */
