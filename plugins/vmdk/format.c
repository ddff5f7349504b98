// SPDX-License-Identifier: GPL-2.0-or-later
#include "format.h"

#include <common/num.h>

#include <errno.h>

#define NEWLINES "\n \r\n"
/* So that no sum of a few sizes of an image overflows. */
#define SECTORS_MAX (1ull << 50)
/* What we write, as all others do. */
#define DESCRIPTOR_SECTOR 1u
#define DESCRIPTOR_SECTORS 20u

bool vmdk_is_sparse(const void *sector)
{
	return !memcmp(sector, VMDK_MAGIC, 4);
}

uint64_t vmdk_gd_bytes(const struct vmdk_header *h)
{
	return num_round_up(h->nr_gdes * 4ull, VMDK_SECTOR);
}

static void set_counts(struct vmdk_header *h)
{
	h->nr_grains = num_div_up(h->capacity, h->grain_size);
	h->nr_gdes = (uint32_t)num_div_up(h->nr_grains, VMDK_GTES);
}

/* --- Decode --------------------------------------------------------------- */

/* Is this an extent that we know at all? */
static const char *check_kind(const struct vmdk_header_disk *d, int *code)
{
	uint32_t version = le32_get(d->version), flags = le32_get(d->flags);

	*code = -EINVAL;
	if (!vmdk_is_sparse(d))
		return "is no sparse extent of a VMDK image";
	if (flags & VMDK_FLAG_NEWLINES &&
	    memcmp(d->newlines, NEWLINES, sizeof(d->newlines)))
		return "was damaged by a transfer that changed its line ends; transfer it again as binary";
	*code = -EOPNOTSUPP;
	if (version < 1 || version > 3)
		return "is a sparse extent of a version other than 1, 2 and 3";
	if (flags & ~VMDK_FLAGS_KNOWN)
		return "uses features of sparse extents that are not known here";
	if (le32_get(d->num_gtes_per_gt) != VMDK_GTES)
		return "has grain tables of another size than 512 entries";
	if (flags & VMDK_FLAG_COMPRESSED && !(flags & VMDK_FLAG_MARKERS))
		return "has compressed grains without markers, which is not supported";
	if (flags & VMDK_FLAG_COMPRESSED &&
	    le16_get(d->compress_algorithm) != VMDK_COMPRESS_DEFLATE)
		return "has grains compressed by another method than deflate";
	return NULL;
}

static const char *check_sizes(const struct vmdk_header_disk *d)
{
	uint64_t capacity = le64_get(d->capacity);
	uint64_t grain = le64_get(d->grain_size);

	if (!num_is_pow2(grain) || grain > VMDK_GRAIN_MAX / VMDK_SECTOR ||
	    grain < VMDK_GRAIN_MIN / VMDK_SECTOR)
		return "has grains whose size is no power of two of 4 KiB to 16 MiB";
	if (!capacity)
		return "has a capacity of 0";
	if (capacity > SECTORS_MAX ||
	    num_div_up(capacity, grain * VMDK_GTES) > VMDK_GDES_MAX)
		return "has a capacity that is too large for its grains";
	return NULL;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a_len && b_len && a < b + b_len && b < a + a_len;
}

/* The fixed parts, one against all others.  Sizes are small: no overflow. */
static const char *check_places(const struct vmdk_header *h)
{
	uint64_t gd = vmdk_gd_bytes(h), max = SECTORS_MAX * VMDK_SECTOR;

	if (h->descriptor_size > VMDK_DESCRIPTOR_MAX)
		return "has an embedded descriptor larger than 256 KiB";
	if (h->descriptor_offset > max || h->rgd_offset > max ||
	    (!h->gd_at_end && h->gd_offset > max) || h->overhead > max)
		return "has an offset in its header that is out of range";
	if (h->descriptor_size && h->descriptor_offset < VMDK_SECTOR)
		return "has its descriptor in the header";
	if (h->flags & VMDK_FLAG_RGD && h->rgd_offset < VMDK_SECTOR)
		return "has its redundant grain directory in the header";
	if (!h->gd_at_end && h->gd_offset < VMDK_SECTOR)
		return "has its grain directory in the header";
	if (overlap(h->descriptor_offset, h->descriptor_size, h->gd_offset,
		    h->gd_at_end ? 0 : gd))
		return "has its grain directory in the descriptor";
	if (!(h->flags & VMDK_FLAG_RGD))
		return NULL;
	if (overlap(h->descriptor_offset, h->descriptor_size, h->rgd_offset,
		    gd))
		return "has its redundant grain directory in the descriptor";
	if (!h->gd_at_end && overlap(h->gd_offset, gd, h->rgd_offset, gd))
		return "has two grain directories that overlap";
	return NULL;
}

/* Too large ones become what check_places() refuses. */
static uint64_t bytes_of(le64 sectors)
{
	uint64_t n = le64_get(sectors);

	return n > SECTORS_MAX ? UINT64_MAX : n * VMDK_SECTOR;
}

int vmdk_header_decode(const struct vmdk_header_disk *d,
		       struct vmdk_header *h, const char **why)
{
	int code;

	*why = check_kind(d, &code);
	if (*why)
		return code;
	*why = check_sizes(d);
	if (*why)
		return -EINVAL;
	memset(h, 0, sizeof(*h));
	h->version = le32_get(d->version);
	h->flags = le32_get(d->flags);
	h->capacity = bytes_of(d->capacity);
	h->grain_size = (uint32_t)bytes_of(d->grain_size);
	h->descriptor_offset = bytes_of(d->descriptor_offset);
	h->descriptor_size = h->descriptor_offset ?
			     bytes_of(d->descriptor_size) : 0;
	h->gd_at_end = le64_get(d->gd_offset) == VMDK_GD_AT_END;
	h->gd_offset = h->gd_at_end ? 0 : bytes_of(d->gd_offset);
	h->rgd_offset = h->flags & VMDK_FLAG_RGD ? bytes_of(d->rgd_offset) : 0;
	h->overhead = bytes_of(d->overhead);
	h->unclean = d->unclean_shutdown;
	set_counts(h);
	*why = check_places(h);
	return *why ? -EINVAL : 0;
}

/* --- Encode --------------------------------------------------------------- */

static le64 sectors_of(uint64_t bytes)
{
	return le64_put(bytes / VMDK_SECTOR);
}

void vmdk_header_encode(const struct vmdk_header *h,
			struct vmdk_header_disk *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, VMDK_MAGIC, sizeof(d->magic));
	d->version = le32_put(h->version);
	d->flags = le32_put(h->flags);
	d->capacity = sectors_of(h->capacity);
	d->grain_size = sectors_of(h->grain_size);
	d->descriptor_offset = sectors_of(h->descriptor_offset);
	d->descriptor_size = sectors_of(h->descriptor_size);
	d->num_gtes_per_gt = le32_put(VMDK_GTES);
	d->rgd_offset = sectors_of(h->rgd_offset);
	d->gd_offset = h->gd_at_end ? le64_put(VMDK_GD_AT_END) :
				      sectors_of(h->gd_offset);
	d->overhead = sectors_of(h->overhead);
	d->unclean_shutdown = h->unclean;
	memcpy(d->newlines, NEWLINES, sizeof(d->newlines));
	d->compress_algorithm = le16_put(h->flags & VMDK_FLAG_COMPRESSED ?
					 VMDK_COMPRESS_DEFLATE : 0);
}

int vmdk_header_layout(struct vmdk_header *h)
{
	uint64_t tables;

	if (!h->capacity || h->capacity > SECTORS_MAX * VMDK_SECTOR ||
	    num_div_up(h->capacity, (uint64_t)h->grain_size * VMDK_GTES) >
	    VMDK_GDES_MAX)
		return -EFBIG;
	set_counts(h);
	tables = vmdk_gd_bytes(h) + (uint64_t)h->nr_gdes * VMDK_GT_BYTES;
	h->descriptor_offset = DESCRIPTOR_SECTOR * VMDK_SECTOR;
	h->descriptor_size = DESCRIPTOR_SECTORS * VMDK_SECTOR;
	h->rgd_offset = h->descriptor_offset + h->descriptor_size;
	h->gd_offset = h->rgd_offset + tables;
	h->overhead = num_round_up(h->gd_offset + tables, h->grain_size);
	return h->overhead < VMDK_FILE_MAX ? 0 : -EFBIG;
}
