// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * read.c - clusters that do not stand in the file as they are: compressed
 * ones, and one within which a file ends that is open for reading.  Another
 * thread calls this: nothing here changes after the open but the buffers,
 * which are its own.
 */
#include "qcow.h"

#include <common/inflate.h>
#include <common/num.h>

#include <errno.h>

static int read_packed(struct qcow *d, uint64_t cluster, uint64_t entry)
{
	uint64_t offset = qcow_packed_offset(&d->h, entry);
	uint32_t len = qcow_packed_len(&d->h, entry);
	int ret;

	ret = cow_read(d->img, 0, d->packed, len, offset);
	if (ret)
		return ret;
	ret = inflate_cluster(d->packed, len, d->unpacked, d->cluster_size);
	if (!ret)
		return 0;
	if (ret == -ENOMEM)
		return cow_error(d->img, ret,
			"the compressed cluster %llu cannot be unpacked: not enough memory",
			(unsigned long long)cluster);
	return cow_error(d->img, -EIO,
		"is damaged: the compressed cluster %llu at offset %llu cannot be unpacked",
		(unsigned long long)cluster, (unsigned long long)offset);
}

/* Of a file that ends here, zeroes follow. */
static int read_tail(struct qcow *d, uint64_t offset, uint8_t *buf, size_t len)
{
	size_t there = num_min(len, d->opened_end - offset);

	memset(buf + there, 0, len - there);
	return cow_read(d->img, 0, buf, there, offset);
}

int qcow_read(void *handle, const struct cow_mapping *m, void *buf, size_t len)
{
	struct qcow *d = handle;
	int ret;

	if (!(m->cookie & QCOW_COMPRESSED))
		return read_tail(d, m->cookie, buf, len);
	ret = read_packed(d, m->first, m->cookie);
	if (!ret)
		memcpy(buf, d->unpacked, len);
	return ret;
}
