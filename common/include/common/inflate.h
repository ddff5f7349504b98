/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_INFLATE_H
#define COMMON_INFLATE_H

#include <stddef.h>
#include <stdint.h>

/*
 * A compressed cluster of qcow and qcow2: raw deflate, window 2^12.  What
 * follows in the input does not matter, nor what would come out after len bytes.
 * -EIO: not as many came out.  Or -ENOMEM.
 */
int inflate_cluster(const uint8_t *in, size_t in_len, uint8_t *out,
		    size_t len);

#endif /* COMMON_INFLATE_H */
