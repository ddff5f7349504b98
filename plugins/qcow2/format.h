/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format.h - what stands in a qcow2 file, with the names of its
 * specification, and the codec: from file order to checked values and back.
 * Nothing here does I/O.
 */
#ifndef QCOW2_FORMAT_H
#define QCOW2_FORMAT_H

#include <common/diskint.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QCOW2_MAGIC		0x514649fbu	/* "QFI\xfb" */
#define QCOW2_HEADER_V2		72u
#define QCOW2_HEADER_V3		104u
#define QCOW2_HEADER_NEW	112u	/* what we write: with compression */
#define QCOW2_CLUSTER_BITS_MIN	9u
#define QCOW2_CLUSTER_BITS_MAX	21u
#define QCOW2_CLUSTER_BITS_EXT	14u	/* least with extended L2 entries */
#define QCOW2_NAME_MAX		1023u
#define QCOW2_FORMAT_MAX	31u
/* Limits that qemu sets, too: larger ones it could not open. */
#define QCOW2_L1_BYTES_MAX	(32u << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8u << 20)
#define QCOW2_SNAPSHOTS_MAX	65536u
#define QCOW2_SNAPSHOT_BYTES_MAX 2048u	/* of one entry of the table */

/* incompatible_features */
#define QCOW2_INCOMPAT_DIRTY	(1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT	(1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXTL2	(1ull << 4)
#define QCOW2_INCOMPAT_KNOWN	0x1full
/* compatible_features */
#define QCOW2_COMPAT_LAZY	(1ull << 0)
/* autoclear_features */
#define QCOW2_AUTOCLEAR_BITMAPS	(1ull << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW (1ull << 1)

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* Types of header extensions. */
#define QCOW2_EXT_END		0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURES	0x6803f857u
#define QCOW2_EXT_BITMAPS	0x23852875u
#define QCOW2_EXT_CRYPT		0x0537be77u
#define QCOW2_EXT_DATA_FILE	0x44415441u

/* In file order.  All integers big-endian. */
struct qcow2_header_disk {
	be32 magic;
	be32 version;
	be64 backing_file_offset;
	be32 backing_file_size;
	be32 cluster_bits;
	be64 size;
	be32 crypt_method;
	be32 l1_size;
	be64 l1_table_offset;
	be64 refcount_table_offset;
	be32 refcount_table_clusters;
	be32 nb_snapshots;
	be64 snapshots_offset;
	/* Version 3. */
	be64 incompatible_features;
	be64 compatible_features;
	be64 autoclear_features;
	be32 refcount_order;
	be32 header_length;
	uint8_t compression_type;
	uint8_t padding[7];
};

_Static_assert(offsetof(struct qcow2_header_disk, incompatible_features) ==
	       QCOW2_HEADER_V2, "version 2");
_Static_assert(offsetof(struct qcow2_header_disk, compression_type) ==
	       QCOW2_HEADER_V3, "version 3");
_Static_assert(sizeof(struct qcow2_header_disk) == QCOW2_HEADER_NEW, "new");

struct qcow2_header {
	uint32_t version;
	uint32_t cluster_bits;
	uint64_t size;			/* bytes of the disk */
	uint32_t l1_size;		/* entries */
	uint64_t l1_offset;
	uint64_t reftable_offset;
	uint32_t reftable_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order;	/* refcounts have 1 << order bits */
	uint32_t header_length;
	enum qcow2_compression compression;
	/* Names; empty when there is none. */
	char backing[QCOW2_NAME_MAX + 1];
	char backing_format[QCOW2_FORMAT_MAX + 1];
	char data_file[QCOW2_NAME_MAX + 1];
	/* Bitmaps extension. */
	uint32_t nb_bitmaps;
	uint64_t bitmaps_offset, bitmaps_bytes;
};

/* Room for a sentence about what is wrong. */
#define QCOW2_WHY_MAX 256

/*
 * Decode the header and its extensions out of the file's first len bytes (a
 * cluster, or the file if that is shorter).  0 or a negative errno with a
 * sentence in why.
 */
int qcow2_header_decode(const uint8_t *buf, size_t len,
			struct qcow2_header *h, char *why);
/* Offsets and bytes; neither ends behind 2^64. */
bool qcow2_areas_overlap(uint64_t a, uint64_t a_bytes, uint64_t b,
			 uint64_t b_bytes);
/* Encode into buf, a cluster of zeroes.  -ENAMETOOLONG: names do not fit. */
int qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf);

/* --- L1 and L2 entries (entry.c) ---------------------------------------- */

#define QCOW2_COPIED		(1ull << 63)
#define QCOW2_COMPRESSED	(1ull << 62)
#define QCOW2_ZERO		(1ull << 0)
#define QCOW2_OFFSET_MASK	0x00fffffffffffe00ull
#define QCOW2_L1_RESERVED	0x7f000000000001ffull
#define QCOW2_L2_RESERVED	0x3f000000000001feull

/* What an entry is to be judged by. */
struct qcow2_geometry {
	uint32_t version;
	uint32_t cluster_bits;
	uint32_t cluster_size;
	bool extended;		/* L2 entries with subclusters */
	bool data_file;		/* clusters stand in a file of their own */
	uint32_t sub_bits;	/* blocks of a cluster: 1 << sub_bits */
	uint32_t block_size;
	uint32_t entry_size;	/* bytes of an L2 entry */
	uint32_t l2_bits;	/* entries of an L2 table: 1 << l2_bits */
	uint32_t ref_order;
	uint32_t rb_bits;	/* refcounts of a block: 1 << rb_bits */
};

void qcow2_geometry_set(const struct qcow2_header *h,
			struct qcow2_geometry *g);

/*
 * An L2 entry.  A cluster is one block without extended entries, so one bit
 * of alloc and zero says all.  host may be set though nothing is allocated.
 */
struct qcow2_entry {
	uint64_t host;		/* bytes; of compressed data: any offset */
	uint32_t sectors;	/* compressed: bytes / 512 from host's sector */
	uint32_t alloc, zero;	/* a bit for each block of the cluster */
	bool copied;		/* host's refcount is one */
	bool has_host;		/* 0 is a place in a data file */
	bool compressed;
};

#define QCOW2_ALL(g) ((g)->sub_bits ? UINT32_MAX : 1u)

/* Returns NULL or what is wrong with it.  guest: bytes of the disk. */
const char *qcow2_entry_decode(const struct qcow2_geometry *g,
			       const be64 *disk, uint64_t guest,
			       struct qcow2_entry *e);
void qcow2_entry_encode(const struct qcow2_geometry *g,
			const struct qcow2_entry *e, be64 *disk);
/* NULL or what is wrong with an L1 or a refcount table entry. */
const char *qcow2_l1_fault(const struct qcow2_geometry *g, uint64_t entry);
const char *qcow2_reftable_fault(const struct qcow2_geometry *g,
				 uint64_t entry);

/* --- Refcounts of 1 to 64 bits (refcounts.c) ----------------------------- */

uint64_t qcow2_ref_get(const uint8_t *block, uint32_t order, uint64_t n);
void qcow2_ref_set(uint8_t *block, uint32_t order, uint64_t n, uint64_t ref);
static inline uint64_t qcow2_ref_max(uint32_t order)
{
	return order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
}

/* The first n in [from, end) with (without) a refcount of 0, or end. */
uint64_t qcow2_ref_next_free(const uint8_t *block, uint32_t order,
			     uint64_t from, uint64_t end);
uint64_t qcow2_ref_next_used(const uint8_t *block, uint32_t order,
			     uint64_t from, uint64_t end);

#endif /* QCOW2_FORMAT_H */
