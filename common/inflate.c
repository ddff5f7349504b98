// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/inflate.h>

#include <errno.h>

#include <zlib.h>

#define WINDOW_BITS 12

int inflate_cluster(const uint8_t *in, size_t in_len, uint8_t *out,
		    size_t len)
{
	z_stream z = {
		.next_in = (uint8_t *)in,
		.avail_in = (uInt)in_len,
		.next_out = out,
		.avail_out = (uInt)len,
	};
	int ret;

	ret = inflateInit2(&z, -WINDOW_BITS);
	if (ret != Z_OK)
		return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	if (ret == Z_MEM_ERROR)
		return -ENOMEM;
	if (z.avail_out)
		return -EIO;
	return ret == Z_STREAM_END || ret == Z_BUF_ERROR || ret == Z_OK ?
		0 : -EIO;
}
