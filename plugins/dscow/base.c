// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * base.c - is the base still what it was?
 *
 * An overlay is worth nothing over another base.  What can be seen cheaply
 * is compared: sizes, the time of the last change of a regular file, and a
 * checksum over samples spread over the file.
 */
#include "dscow.h"

#include <common/crc32c.h>
#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

#define SAMPLE_BYTES (64u << 10)
#define SAMPLES 16u

static uint64_t sample_offset(uint64_t file_size, unsigned int i)
{
	uint64_t room = file_size - SAMPLE_BYTES;

	if (i == SAMPLES - 1)
		return room;
	return num_round_down(room / (SAMPLES - 1) * i, 4096);
}

static int checksum_run(struct cow_image *base, uint8_t *buf, uint64_t offset,
			uint64_t len, uint32_t *crc)
{
	int ret = cow_read(base, 0, buf, len, offset);

	if (!ret)
		*crc = crc32c(*crc, buf, len);
	return ret;
}

static int checksum(struct cow_image *base, uint64_t file_size, uint32_t *crc)
{
	uint8_t *buf = malloc(SAMPLE_BYTES);
	uint64_t offset;
	unsigned int i;
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	*crc = 0;
	if (file_size <= SAMPLES * SAMPLE_BYTES) {
		for (offset = 0; !ret && offset < file_size;
		     offset += SAMPLE_BYTES)
			ret = checksum_run(base, buf, offset,
				num_min(SAMPLE_BYTES, file_size - offset),
				crc);
	} else {
		for (i = 0; !ret && i < SAMPLES; i++)
			ret = checksum_run(base, buf,
				sample_offset(file_size, i), SAMPLE_BYTES,
				crc);
	}
	free(buf);
	return ret;
}

int dscow_identify(struct cow_image *base, struct dscow_identity *id)
{
	struct cow_file_stat st;
	int ret;

	ret = cow_file_stat(base, 0, &st);
	if (ret)
		return ret;
	id->size = cow_image_size(base);
	id->file_size = st.size;
	id->regular = !st.block_device;
	id->mtime_sec = st.mtime_sec;
	id->mtime_nsec = st.mtime_nsec;
	return checksum(base, st.size, &id->checksum);
}

int dscow_identify_durable(struct cow_image *base, struct dscow_identity *id)
{
	int ret = cow_sync(base, 0);

	return ret ? ret : dscow_identify(base, id);
}

static const char *difference(const struct dscow_identity *was,
			      const struct dscow_identity *now)
{
	if (now->size < was->size || now->file_size < was->file_size)
		return "it shrank";
	if (now->size > was->size || now->file_size > was->file_size)
		return "it grew";
	if (now->checksum != was->checksum)
		return "its contents are others";
	if (now->regular != was->regular)
		return now->regular ? "it was a block device and is a file" :
				      "it was a file and is a block device";
	if (now->mtime_sec != was->mtime_sec ||
	    now->mtime_nsec != was->mtime_nsec)
		return "it was written since";
	return NULL;
}

int dscow_verify(const struct dscow *d, const struct dscow_identity *now)
{
	const char *what = difference(&d->h.base, now);

	if (!what)
		return 0;
	return cow_error(d->img, -ESTALE,
		"its base %s is not what it was when the overlay was made: %s; if it is right as it is now, use dscow_tool --accept-base",
		cow_image_path(d->base), what);
}
