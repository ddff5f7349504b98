// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * read.c - grains that do not stand in the file as they are: compressed ones,
 * and the last one of a file that ends within it.  Another thread calls this:
 * nothing here changes after the open but the buffers, which are its own.
 */
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>
#include <string.h>

static int bad(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
	       uint64_t offset, const char *what)
{
	return cow_error(v->img, -EIO,
		"is damaged: the compressed grain %llu at offset %llu of its file %u %s",
		(unsigned long long)nr, (unsigned long long)offset, e->file,
		what);
}

/* Deflate never adds as much as this to a grain. */
static uint32_t packed_max(const struct vmdk_extent *e)
{
	return 2 * e->h.grain_size;
}

static int read_packed(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		       uint64_t offset, uint32_t *len)
{
	struct vmdk_marker_disk marker;
	int ret;

	if (!num_run_in(offset, sizeof(marker), e->end))
		return bad(v, e, nr, offset, "lies past the end of the file");
	ret = cow_read(v->img, e->file, &marker, sizeof(marker), offset);
	if (ret)
		return ret;
	*len = le32_get(marker.size);
	if (le64_get(marker.lba) * VMDK_SECTOR != nr * e->h.grain_size)
		return bad(v, e, nr, offset, "is marked as that of another place");
	if (!*len || *len > packed_max(e) ||
	    !num_run_in(offset + sizeof(marker), *len, e->end))
		return bad(v, e, nr, offset, "is of a size that cannot be");
	return cow_read(v->img, e->file, v->packed, *len,
			offset + sizeof(marker));
}

/* No more than a grain comes out, whatever went in. */
static int unpack(struct vmdk *v, struct vmdk_extent *e, uint64_t nr,
		  uint64_t offset, uint32_t len)
{
	int ret;

	inflateReset(&v->zlib);
	v->zlib.next_in = v->packed;
	v->zlib.avail_in = len;
	v->zlib.next_out = v->grain;
	v->zlib.avail_out = e->h.grain_size;
	ret = inflate(&v->zlib, Z_FINISH);
	if (ret != Z_STREAM_END)
		return bad(v, e, nr, offset, ret == Z_DATA_ERROR ||
			   v->zlib.avail_out ? "cannot be decompressed" :
			   "holds more than a grain");
	if (e->h.grain_size - v->zlib.avail_out < vmdk_grain_len(e, nr))
		return bad(v, e, nr, offset, "holds less than a grain");
	return 0;
}

/* Of a file that ends here, zeroes follow. */
static int read_tail(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
		     void *buf, size_t len)
{
	size_t there = offset < e->end ? num_min(len, e->end - offset) : 0;

	memset((uint8_t *)buf + there, 0, len - there);
	return there ? cow_read(v->img, e->file, buf, there, offset) : 0;
}

int vmdk_read(void *handle, const struct cow_mapping *m, void *buf, size_t len)
{
	struct vmdk *v = handle;
	struct vmdk_extent *e = vmdk_extent_of(v, m->first);
	uint64_t pos = (m->first - e->first) * v->block_size;
	uint64_t nr = pos / e->h.grain_size, skip = pos % e->h.grain_size;
	uint32_t packed = 0;
	int ret;

	if (!(e->h.flags & VMDK_FLAG_COMPRESSED))
		return read_tail(v, e, m->cookie + skip, buf, len);
	ret = read_packed(v, e, nr, m->cookie, &packed);
	if (!ret)
		ret = unpack(v, e, nr, m->cookie, packed);
	if (!ret)
		memcpy(buf, v->grain + skip, len);
	return ret;
}
