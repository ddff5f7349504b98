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

/* True when exactly len bytes came out.  More cannot. */
static bool unpack_zstd(const uint8_t *in, size_t in_len, uint8_t *out,
			size_t len)
{
	ZSTD_inBuffer from = { in, in_len, 0 };
	ZSTD_outBuffer to = { out, len, 0 };
	ZSTD_DStream *stream = ZSTD_createDStream();
	size_t ret = 1, before;

	if (!stream)
		return false;
	while (to.pos < to.size) {
		before = from.pos + to.pos;
		ret = ZSTD_decompressStream(stream, &to, &from);
		if (ZSTD_isError(ret) || from.pos + to.pos == before)
			break;
	}
	ZSTD_freeDStream(stream);
	return !ZSTD_isError(ret) && to.pos == to.size;
}

int qcow2_unpack(struct qcow2 *d, uint64_t host, uint32_t sectors)
{
	size_t len;
	bool ok;
	int ret;

	ret = read_packed(d, host, sectors, &len);
	if (ret)
		return ret;
	ok = d->h.compression == QCOW2_ZSTD ?
		unpack_zstd(d->packed, len, d->unpacked, d->g.cluster_size) :
		inflate_cluster(d->packed, len, d->unpacked, d->g.cluster_size);
	if (ok)
		return 0;
	return cow_error(d->img, -EIO,
		"the compressed cluster at offset %llu cannot be unpacked; the image is damaged",
		(unsigned long long)host);
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
