/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integers as they stand in files.  They are structs of bytes, so that the
 * compiler refuses a missing conversion, and have no alignment, so that a
 * struct of them has no padding.
 */
#ifndef COMMON_DISKINT_H
#define COMMON_DISKINT_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint8_t b[2]; } le16;
typedef struct { uint8_t b[4]; } le32;
typedef struct { uint8_t b[8]; } le64;
typedef struct { uint8_t b[2]; } be16;
typedef struct { uint8_t b[4]; } be32;
typedef struct { uint8_t b[8]; } be64;

#define COMMON_DISKINT(order, bits)					\
static inline uint##bits##_t order##bits##_get(order##bits v)		\
{									\
	uint##bits##_t n;						\
									\
	memcpy(&n, v.b, sizeof(n));					\
	return order##bits##toh(n);					\
}									\
									\
static inline order##bits order##bits##_put(uint##bits##_t n)		\
{									\
	order##bits v;							\
									\
	n = hto##order##bits(n);					\
	memcpy(v.b, &n, sizeof(n));					\
	return v;							\
}

COMMON_DISKINT(le, 16)
COMMON_DISKINT(le, 32)
COMMON_DISKINT(le, 64)
COMMON_DISKINT(be, 16)
COMMON_DISKINT(be, 32)
COMMON_DISKINT(be, 64)

#undef COMMON_DISKINT

#endif /* COMMON_DISKINT_H */
