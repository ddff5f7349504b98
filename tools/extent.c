// SPDX-License-Identifier: GPL-2.0-or-later
#include "extent.h"

#include <common/num.h>

#include <errno.h>
#include <unistd.h>

/* Where next begins, at or after offset; what fails says end. */
static uint64_t seek(const struct extent *e, int whence, uint64_t end)
{
	off_t at = lseek(e->file.fd, (off_t)e->offset, whence);

	return at < 0 ? end : num_min((uint64_t)at, end);
}

/*
 * A file that cannot tell its holes has none.  What is past its end is no
 * hole, but damage for the reader to find.
 */
static void cut_at_holes(struct extent *e)
{
	uint64_t end = e->offset + e->len, at;

	if (end > e->file.size)
		return;
	errno = 0;
	at = seek(e, SEEK_DATA, end);
	if (errno && errno != ENXIO)
		return;
	if (at > e->offset)
		e->kind = EXTENT_ZERO;
	else
		at = seek(e, SEEK_HOLE, end);
	e->len = at - e->offset;
}

int extent_at(struct cow_chain *chain, uint64_t start, struct extent *e)
{
	struct cow_chain_info info;
	struct cow_where w;
	int ret;

	cow_chain_info(chain, &info);
	ret = cow_where(chain, start, info.size - start, &w);
	if (ret)
		return ret;
	*e = (struct extent){
		.kind = EXTENT_ZERO,
		.start = start,
		.len = w.len,
		.offset = w.offset,
	};
	if (w.zero)
		return 0;
	cow_chain_file(chain, w.file, &e->file);
	e->kind = e->file.scratch ? EXTENT_MADE : EXTENT_DATA;
	if (e->kind == EXTENT_DATA)
		cut_at_holes(e);
	return 0;
}
