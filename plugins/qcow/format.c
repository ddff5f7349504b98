// SPDX-License-Identifier: GPL-2.0-or-later
#include "format.h"

#include <common/num.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define RECORD "format="
#define FORMAT_CHARS "abcdefghijklmnopqrstuvwxyz0123456789_-"
/* So that no sum of a few sizes of an image overflows. */
#define SIZE_MAX_DISK ((uint64_t)INT64_MAX - (1u << 30))

static int refuse(char *why, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(char *why, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, QCOW_WHY_MAX, fmt, ap);
	va_end(ap);
	return code;
}

/* --- Decode --------------------------------------------------------------- */

bool qcow_is_image(const void *buf, size_t len)
{
	const struct qcow_header_disk *d = buf;

	return len >= sizeof(*d) && be32_get(d->magic) == QCOW_MAGIC &&
	       be32_get(d->version) == QCOW_VERSION;
}

/* Is this an image that we know at all? */
static int check_kind(const struct qcow_header_disk *d, size_t len, char *why)
{
	uint32_t version, crypt;

	if (len < sizeof(*d) || be32_get(d->magic) != QCOW_MAGIC)
		return refuse(why, -EINVAL, "is no qcow image");
	version = be32_get(d->version);
	if (version == 2 || version == 3)
		return refuse(why, -EINVAL,
			"is an image of the format qcow2 (version %u), not qcow",
			version);
	if (version != QCOW_VERSION)
		return refuse(why, -EOPNOTSUPP,
			"is a qcow image of version %u, which is not known",
			version);
	crypt = be32_get(d->crypt_method);
	if (crypt == 1)
		return refuse(why, -EOPNOTSUPP,
			"is encrypted (AES), which is not supported; decrypt it with qemu-img convert");
	if (crypt)
		return refuse(why, -EOPNOTSUPP,
			"is encrypted by the unknown method %u", crypt);
	return 0;
}

bool qcow_set_l1(struct qcow_header *h)
{
	uint32_t bits = h->cluster_bits + h->l2_bits;

	h->l1_entries = num_div_up(h->size, 1ull << bits);
	return h->size <= SIZE_MAX_DISK && h->l1_entries <= QCOW_L1_MAX;
}

static int check_sizes(struct qcow_header *h, char *why)
{
	if (h->cluster_bits < QCOW_CLUSTER_BITS_MIN ||
	    h->cluster_bits > QCOW_CLUSTER_BITS_MAX)
		return refuse(why, -EINVAL,
			"has clusters of 2^%u bytes; they are 2^9 to 2^16",
			h->cluster_bits);
	if (h->l2_bits < QCOW_L2_BITS_MIN || h->l2_bits > QCOW_L2_BITS_MAX)
		return refuse(why, -EINVAL,
			"has L2 tables of 2^%u entries; they are 2^6 to 2^13",
			h->l2_bits);
	if (!h->size)
		return refuse(why, -EINVAL,
			"has a disk of 0 bytes, which can be no device");
	if (!qcow_set_l1(h))
		return refuse(why, -EFBIG,
			"has a disk of %llu bytes, which is too large for its clusters of 2^%u",
			(unsigned long long)h->size, h->cluster_bits);
	return 0;
}

static int check_name(const struct qcow_header *h, uint64_t file_size,
		      char *why)
{
	if (!h->name_len)
		return 0;
	if (h->name_len > QCOW_NAME_MAX)
		return refuse(why, -EINVAL,
			"has a backing file with a name of %u bytes; %u is the most",
			h->name_len, QCOW_NAME_MAX);
	if (h->name_offset < sizeof(struct qcow_header_disk))
		return refuse(why, -EINVAL,
			"has the name of its backing file at offset %llu, in the header",
			(unsigned long long)h->name_offset);
	if (!num_run_in(h->name_offset, h->name_len, file_size))
		return refuse(why, -EINVAL,
			"has the name of its backing file at offset %llu, past the end of the file at %llu",
			(unsigned long long)h->name_offset,
			(unsigned long long)file_size);
	return 0;
}

static int check_l1(const struct qcow_header *h, uint64_t file_size, char *why)
{
	uint64_t bytes = h->l1_entries * sizeof(be64);

	if (!num_is_aligned(h->l1_offset, sizeof(be64)))
		return refuse(why, -EINVAL,
			"has its L1 table at offset %llu, which is no multiple of 8",
			(unsigned long long)h->l1_offset);
	if (h->l1_offset < sizeof(struct qcow_header_disk))
		return refuse(why, -EINVAL,
			"has its L1 table at offset %llu, in the header",
			(unsigned long long)h->l1_offset);
	if (!num_run_in(h->l1_offset, bytes, file_size))
		return refuse(why, -EINVAL,
			"has its L1 table of %llu bytes at offset %llu, past the end of the file at %llu",
			(unsigned long long)bytes,
			(unsigned long long)h->l1_offset,
			(unsigned long long)file_size);
	if (h->name_len && h->name_offset < h->l1_offset + bytes &&
	    h->l1_offset < h->name_offset + h->name_len)
		return refuse(why, -EINVAL,
			"has its L1 table at offset %llu, in the name of its backing file",
			(unsigned long long)h->l1_offset);
	return 0;
}

int qcow_header_decode(const void *buf, size_t len, uint64_t file_size,
		       struct qcow_header *h, char *why)
{
	const struct qcow_header_disk *d = buf;
	int ret;

	ret = check_kind(d, len, why);
	if (ret)
		return ret;
	memset(h, 0, sizeof(*h));
	h->size = be64_get(d->size);
	h->cluster_bits = d->cluster_bits;
	h->l2_bits = d->l2_bits;
	h->l1_offset = be64_get(d->l1_table_offset);
	h->name_offset = be64_get(d->backing_file_offset);
	h->name_len = h->name_offset ? be32_get(d->backing_file_size) : 0;
	ret = check_sizes(h, why);
	if (!ret)
		ret = check_name(h, file_size, why);
	return ret ? ret : check_l1(h, file_size, why);
}

/* --- Encode --------------------------------------------------------------- */

void qcow_header_encode(const struct qcow_header *h,
			struct qcow_header_disk *d)
{
	memset(d, 0, sizeof(*d));
	d->magic = be32_put(QCOW_MAGIC);
	d->version = be32_put(QCOW_VERSION);
	d->size = be64_put(h->size);
	d->cluster_bits = (uint8_t)h->cluster_bits;
	d->l2_bits = (uint8_t)h->l2_bits;
	d->l1_table_offset = be64_put(h->l1_offset);
	d->backing_file_offset = be64_put(h->name_len ? h->name_offset : 0);
	d->backing_file_size = be32_put(h->name_len);
}

/* --- The backing file's format -------------------------------------------- */

size_t qcow_record_encode(const char *format, char *record)
{
	record[0] = 0;
	return 2 + (size_t)snprintf(record + 1, QCOW_RECORD_MAX - 1,
				    RECORD "%.*s", (int)QCOW_FORMAT_MAX,
				    format);
}

bool qcow_record_decode(const char *record, size_t len, char *format)
{
	size_t start = 1 + strlen(RECORD), n;

	if (len <= start || record[0] ||
	    memcmp(record + 1, RECORD, strlen(RECORD)))
		return false;
	n = strnlen(record + start, len - start);
	if (!n || n > QCOW_FORMAT_MAX || n == len - start ||
	    strspn(record + start, FORMAT_CHARS) != n)
		return false;
	memcpy(format, record + start, n + 1);
	return true;
}
