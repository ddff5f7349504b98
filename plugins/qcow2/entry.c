// SPDX-License-Identifier: GPL-2.0-or-later
/* entry.c - entries of the L1, L2 and refcount tables. */
#include "format.h"

#include <common/num.h>

void qcow2_geometry_set(const struct qcow2_header *h,
			struct qcow2_geometry *g)
{
	g->version = h->version;
	g->cluster_bits = h->cluster_bits;
	g->cluster_size = 1u << h->cluster_bits;
	g->extended = h->incompatible & QCOW2_INCOMPAT_EXTL2;
	g->data_file = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
	g->sub_bits = g->extended ? 5 : 0;
	g->block_size = g->cluster_size >> g->sub_bits;
	g->entry_size = g->extended ? 16 : 8;
	g->l2_bits = h->cluster_bits - (g->extended ? 4 : 3);
	g->ref_order = h->refcount_order;
	g->rb_bits = h->cluster_bits + 3 - h->refcount_order;
}

/* Bits 0 to x - 1 are the offset, x to 61 the number of further sectors. */
static const char *decode_compressed(const struct qcow2_geometry *g,
				     uint64_t raw, struct qcow2_entry *e)
{
	uint32_t x = 62 - (g->cluster_bits - 8);
	uint64_t offset = raw & ((1ull << x) - 1);

	if (raw & QCOW2_COPIED)
		return "is compressed and marked as used once";
	if (g->data_file)
		return "is compressed, but data lies in an external file";
	if (offset >> 56)
		return "points to an offset that is out of range";
	e->compressed = true;
	e->has_host = true;
	e->host = offset;
	e->sectors = (uint32_t)(raw >> x &
				((1u << (g->cluster_bits - 8)) - 1)) + 1;
	return NULL;
}

static const char *decode_place(const struct qcow2_geometry *g, uint64_t raw,
				uint64_t guest, struct qcow2_entry *e)
{
	e->host = raw & QCOW2_OFFSET_MASK;
	e->copied = raw & QCOW2_COPIED;
	e->has_host = e->host || (g->data_file && e->copied);
	if (!num_is_aligned(e->host, g->cluster_size))
		return "points to an offset that is not aligned to a cluster";
	if (!e->has_host && e->copied)
		return "is marked as used once, but points nowhere";
	if (g->data_file && e->has_host && e->host != guest)
		return "points to another place in the data file than its own";
	return NULL;
}

const char *qcow2_entry_decode(const struct qcow2_geometry *g,
			       const be64 *disk, uint64_t guest,
			       struct qcow2_entry *e)
{
	uint64_t raw = be64_get(disk[0]);
	uint64_t bitmap = g->extended ? be64_get(disk[1]) : 0;
	const char *fault;

	*e = (struct qcow2_entry){ 0 };
	if (raw & QCOW2_COMPRESSED)
		return bitmap ? "is compressed, but has subclusters" :
				decode_compressed(g, raw, e);
	if (raw & QCOW2_L2_RESERVED)
		return "has reserved bits set";
	if (raw & QCOW2_ZERO && (g->version < 3 || g->extended))
		return "has the zero bit set, which its kind of image has not";
	fault = decode_place(g, raw, guest, e);
	if (fault)
		return fault;
	if (g->extended) {
		e->alloc = (uint32_t)bitmap;
		e->zero = (uint32_t)(bitmap >> 32);
	} else if (raw & QCOW2_ZERO) {
		e->zero = 1;
	} else {
		e->alloc = e->has_host;
	}
	if (e->alloc & e->zero)
		return "has a subcluster that is both allocated and zero";
	if (e->alloc && !e->has_host)
		return "has allocated subclusters, but points nowhere";
	return NULL;
}

void qcow2_entry_encode(const struct qcow2_geometry *g,
			const struct qcow2_entry *e, be64 *disk)
{
	uint64_t raw = e->host;

	if (e->copied)
		raw |= QCOW2_COPIED;
	if (!g->extended && e->zero)
		raw |= QCOW2_ZERO;
	disk[0] = be64_put(raw);
	if (g->extended)
		disk[1] = be64_put((uint64_t)e->zero << 32 | e->alloc);
}

const char *qcow2_l1_fault(const struct qcow2_geometry *g, uint64_t entry)
{
	if (entry & QCOW2_L1_RESERVED)
		return "has reserved bits set";
	if (!num_is_aligned(entry & QCOW2_OFFSET_MASK, g->cluster_size))
		return "points to an offset that is not aligned to a cluster";
	if (entry & QCOW2_COPIED && !(entry & QCOW2_OFFSET_MASK))
		return "is marked as used once, but points nowhere";
	return NULL;
}

const char *qcow2_reftable_fault(const struct qcow2_geometry *g,
				 uint64_t entry)
{
	if (!num_is_aligned(entry, g->cluster_size))
		return "points to an offset that is not aligned to a cluster";
	if (entry >> 56)
		return "points to an offset that is out of range";
	return NULL;
}
