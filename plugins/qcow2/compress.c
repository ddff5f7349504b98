// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * compress.c - blocks that stand nowhere as they are: compressed clusters,
 * and the cluster within which a file ends that is open for reading.
 *
 * It runs in libcow's helper thread, one call at a time.
 */
#include "qcow2.h"

#include <common/inflate.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>
#include <zstd_errors.h>

/*
 * A window as large as a cluster, 2^21, does for all that is in it, and QEMU
 * asks for no more; the rest is for others, whose level may ask for 2^23.  What
 * a frame asks for is memory, which cowd locks.
 */
#define WINDOW_BITS_MAX 23

int qcow2_buffers_init(struct qcow2 *d)
{
	/* The number of sectors has bits enough for two clusters. */
	d->packed = malloc(2ull * d->g.cluster_size);
	d->unpacked = malloc(d->g.cluster_size);
	return d->packed && d->unpacked ? 0 : -ENOMEM;
}

void qcow2_buffers_free(struct qcow2 *d)
{
	free(d->packed);
	free(d->unpacked);
}

/* What is there of it: the last one may end with the file. */
static int read_packed(struct qcow2 *d, uint64_t host, uint32_t sectors,
		       size_t *len)
{
	struct cow_file_stat st;
	int ret;

	*len = sectors * 512ull - host % 512;
	ret = cow_file_stat(d->img, 0, &st);
	if (ret)
		return ret;
	if (host >= st.size)
		return cow_error(d->img, -EIO,
			"a compressed cluster at offset %llu is past the end of the file; the image is damaged",
			(unsigned long long)host);
	*len = num_min(*len, st.size - host);
	return cow_read(d->img, 0, d->packed, *len, host);
}

static int zstd_error(size_t ret)
{
	switch (ZSTD_getErrorCode(ret)) {
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	case ZSTD_error_frameParameter_windowTooLarge:
		return -E2BIG;
	default:
		return -EIO;
	}
}

/* 0 when exactly len bytes came out; of a frame that goes on, not, as in QEMU. */
static int unstream_zstd(ZSTD_DStream *stream, const uint8_t *in, size_t in_len,
			 uint8_t *out, size_t len)
{
	ZSTD_inBuffer from = { in, in_len, 0 };
	ZSTD_outBuffer to = { out, len, 0 };
	size_t ret, before;

	ret = ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax,
				     WINDOW_BITS_MAX);
	while (!ZSTD_isError(ret) && to.pos < to.size) {
		before = from.pos + to.pos;
		ret = ZSTD_decompressStream(stream, &to, &from);
		if (!ZSTD_isError(ret) && from.pos + to.pos == before)
			return -EIO;
	}
	if (ZSTD_isError(ret))
		return zstd_error(ret);
	return ret ? -EIO : 0;
}

static int unpack_zstd(const uint8_t *in, size_t in_len, uint8_t *out,
		       size_t len)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	int ret;

	if (!stream)
		return -ENOMEM;
	ret = unstream_zstd(stream, in, in_len, out, len);
	ZSTD_freeDStream(stream);
	return ret;
}

static int report_packed(struct qcow2 *d, uint64_t host, int ret)
{
	if (ret == -ENOMEM)
		return cow_error(d->img, ret,
			"the compressed cluster at offset %llu cannot be unpacked: not enough memory",
			(unsigned long long)host);
	if (ret == -E2BIG)
		return cow_error(d->img, -EIO,
			"the compressed cluster at offset %llu cannot be unpacked: it asks for more memory than a cluster needs; the image is damaged",
			(unsigned long long)host);
	return cow_error(d->img, -EIO,
		"the compressed cluster at offset %llu cannot be unpacked; the image is damaged",
		(unsigned long long)host);
}

int qcow2_unpack(struct qcow2 *d, uint64_t host, uint32_t sectors)
{
	size_t len;
	int ret;

	ret = read_packed(d, host, sectors, &len);
	if (ret)
		return ret;
	if (d->h.compression == QCOW2_ZSTD)
		ret = unpack_zstd(d->packed, len, d->unpacked,
				  d->g.cluster_size);
	else
		ret = inflate_cluster(d->packed, len, d->unpacked,
				      d->g.cluster_size);
	return ret ? report_packed(d, host, ret) : 0;
}

/* A block of which the file holds only the start. */
static int read_ragged(struct qcow2 *d, const struct cow_mapping *m,
		       uint8_t *buf, size_t len)
{
	uint64_t size = d->g.data_file ? d->data_size : d->file_size;
	size_t there = num_min(len, size - m->src_offset);

	memset(buf + there, 0, len - there);
	return cow_read(d->img, d->data_file, buf, there, m->src_offset);
}

int qcow2_read(void *handle, const struct cow_mapping *m, void *buf,
	       size_t len)
{
	struct qcow2 *d = handle;
	uint64_t sub = m->first & ((1u << d->g.sub_bits) - 1);
	int ret;

	if (!m->cookie)
		return read_ragged(d, m, buf, len);
	ret = qcow2_unpack(d, m->src_offset, (uint32_t)m->cookie);
	if (!ret)
		memcpy(buf, d->unpacked + sub * d->g.block_size, len);
	return ret;
}
