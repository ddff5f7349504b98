/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * LINEAR, ZERO and ERROR mappings as entries of the map: values, not objects.
 *
 *	bits 0-1	enum dmu_value_kind
 *	bits 2-9	device index
 *	bits 10-62	distance: sector of the place minus sector of the block,
 *			signed; the same all along an extent
 *
 * So neighbours that continue each other are equal and become one entry.
 */
#ifndef DMU_VALUE_H
#define DMU_VALUE_H

#include <linux/bits.h>
#include <linux/xarray.h>

#define DMU_VALUE_DEV_SHIFT	2
#define DMU_VALUE_DIST_SHIFT	10
#define DMU_VALUE_DIST_BITS	53

enum dmu_value_kind {
	DMU_VALUE_RO,
	DMU_VALUE_RW,
	DMU_VALUE_ZERO,
	DMU_VALUE_ERROR,
};

static inline bool dmu_distance_fits(s64 distance)
{
	s64 limit = 1LL << (DMU_VALUE_DIST_BITS - 1);

	return distance >= -limit && distance < limit;
}

static inline void *dmu_value(enum dmu_value_kind kind, u32 dev, s64 distance)
{
	unsigned long v = (unsigned long)distance << DMU_VALUE_DIST_SHIFT;

	v |= (unsigned long)dev << DMU_VALUE_DEV_SHIFT | kind;
	return xa_mk_value(v & LONG_MAX);
}

static inline enum dmu_value_kind dmu_value_kind(const void *entry)
{
	return xa_to_value(entry) & (BIT(DMU_VALUE_DEV_SHIFT) - 1);
}

static inline u32 dmu_value_dev(const void *entry)
{
	return (xa_to_value(entry) >> DMU_VALUE_DEV_SHIFT) & 0xff;
}

static inline s64 dmu_value_distance(const void *entry)
{
	s64 v = (s64)(xa_to_value(entry) << 1);	/* the sign bit to bit 63 */

	return v >> (DMU_VALUE_DIST_SHIFT + 1);
}

#endif
