// SPDX-License-Identifier: GPL-2.0-or-later
/* header.c - the header and its extensions: decode and encode. */
#include "format.h"

#include <common/num.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FEATURE_BYTES 48u

struct extension {
	uint32_t type, len;
	const uint8_t *data;
};

static int refuse(char *why, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(char *why, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, QCOW2_WHY_MAX, fmt, ap);
	va_end(ap);
	return code;
}

static uint32_t get32(const uint8_t *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return be32_get(v);
}

static uint64_t get64(const uint8_t *p)
{
	be64 v;

	memcpy(&v, p, sizeof(v));
	return be64_get(v);
}

/* --- Decode: fields ------------------------------------------------------- */

static void get_fields(const struct qcow2_header_disk *d,
		       struct qcow2_header *h)
{
	h->version = be32_get(d->version);
	h->cluster_bits = be32_get(d->cluster_bits);
	h->size = be64_get(d->size);
	h->l1_size = be32_get(d->l1_size);
	h->l1_offset = be64_get(d->l1_table_offset);
	h->reftable_offset = be64_get(d->refcount_table_offset);
	h->reftable_clusters = be32_get(d->refcount_table_clusters);
	h->nb_snapshots = be32_get(d->nb_snapshots);
	h->snapshots_offset = be64_get(d->snapshots_offset);
	h->refcount_order = 4;
	h->header_length = QCOW2_HEADER_V2;
}

static void get_fields_v3(const struct qcow2_header_disk *d,
			  struct qcow2_header *h)
{
	h->incompatible = be64_get(d->incompatible_features);
	h->compatible = be64_get(d->compatible_features);
	h->autoclear = be64_get(d->autoclear_features);
	h->refcount_order = be32_get(d->refcount_order);
	h->header_length = be32_get(d->header_length);
}

static int check_kind(const struct qcow2_header_disk *d, size_t len,
		      char *why)
{
	uint32_t version, crypt;

	if (len < QCOW2_HEADER_V2 || be32_get(d->magic) != QCOW2_MAGIC)
		return refuse(why, -EINVAL, "is no qcow2 image");
	version = be32_get(d->version);
	if (version == 1)
		return refuse(why, -EINVAL,
			"is an image of the format qcow (version 1), not qcow2");
	if (version != 2 && version != 3)
		return refuse(why, -EOPNOTSUPP,
			"is a qcow2 image of version %u; versions 2 and 3 are known",
			version);
	if (version == 3 && len < QCOW2_HEADER_V3)
		return refuse(why, -EINVAL, "ends within its header");
	crypt = be32_get(d->crypt_method);
	if (crypt == 1)
		return refuse(why, -EOPNOTSUPP,
			"is encrypted (AES), which is not supported; decrypt it with qemu-img convert");
	if (crypt == 2)
		return refuse(why, -EOPNOTSUPP,
			"is encrypted (LUKS), which is not supported; decrypt it with qemu-img convert");
	if (crypt)
		return refuse(why, -EOPNOTSUPP,
			"is encrypted by the unknown method %u", crypt);
	return 0;
}

/* The name that the image gives an incompatible feature, or NULL. */
static const char *feature_name(const struct extension *names, unsigned int bit,
				char *name)
{
	uint32_t at;

	for (at = 0; at + FEATURE_BYTES <= names->len; at += FEATURE_BYTES) {
		const uint8_t *f = names->data + at;
		unsigned int i;

		if (f[0] != 0 || f[1] != bit || !f[2])
			continue;
		for (i = 0; i < FEATURE_BYTES - 2 && f[2 + i]; i++)
			name[i] = f[2 + i] < 0x20 || f[2 + i] > 0x7e ? '?' :
				  (char)f[2 + i];
		name[i] = 0;
		return name;
	}
	return NULL;
}

static int check_features(const struct qcow2_header *h,
			  const struct extension *names, char *why)
{
	uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	char name[FEATURE_BYTES];
	unsigned int bit;

	if (!unknown)
		return 0;
	bit = (unsigned int)__builtin_ctzll(unknown);
	if (feature_name(names, bit, name))
		return refuse(why, -EOPNOTSUPP,
			"uses the incompatible feature \"%s\" (bit %u), which is not known here",
			name, bit);
	return refuse(why, -EOPNOTSUPP,
		"uses the incompatible feature of bit %u, which is not known here",
		bit);
}

static int check_v3(const struct qcow2_header *h, size_t len, char *why)
{
	if (h->header_length < QCOW2_HEADER_V3 || h->header_length % 8 ||
	    h->header_length > len ||
	    h->header_length > 1u << h->cluster_bits)
		return refuse(why, -EINVAL,
			"has a header of %u bytes, which is out of range",
			h->header_length);
	if (h->refcount_order > 6)
		return refuse(why, -EINVAL,
			"has refcounts of 2^%u bits; 2^6 is the most",
			h->refcount_order);
	if (h->incompatible & QCOW2_INCOMPAT_EXTL2 &&
	    h->cluster_bits < QCOW2_CLUSTER_BITS_EXT)
		return refuse(why, -EINVAL,
			"has extended L2 entries with clusters of %u bytes; 16384 is the least",
			1u << h->cluster_bits);
	if (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW &&
	    !(h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
		return refuse(why, -EINVAL,
			"says that its external data file is raw, but has none");
	return 0;
}

static int get_compression(const struct qcow2_header_disk *d,
			   struct qcow2_header *h, char *why)
{
	uint8_t type = 0;
	bool flag = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;

	if (h->header_length > QCOW2_HEADER_V3)
		type = d->compression_type;
	if (type > QCOW2_ZSTD)
		return refuse(why, -EOPNOTSUPP,
			"has clusters compressed by the unknown method %u",
			type);
	if (flag != (type != QCOW2_ZLIB))
		return refuse(why, -EINVAL,
			"has a compression type that its feature bits deny");
	h->compression = type;
	return 0;
}

/* --- Decode: extensions --------------------------------------------------- */

static int copy_name(char *to, size_t max, const uint8_t *from, uint64_t len,
		     const char *what, char *why)
{
	if (len > max)
		return refuse(why, -EINVAL,
			"has %s of %llu bytes; %zu is the most", what,
			(unsigned long long)len, max);
	if (memchr(from, 0, len))
		return refuse(why, -EINVAL, "has %s with a zero byte", what);
	memcpy(to, from, len);
	to[len] = 0;
	return 0;
}

static int get_bitmaps(struct qcow2_header *h, const struct extension *x,
		       char *why)
{
	if (x->len != 24)
		return refuse(why, -EINVAL,
			"has a bitmaps extension of %u bytes instead of 24",
			x->len);
	h->nb_bitmaps = get32(x->data);
	h->bitmaps_bytes = get64(x->data + 8);
	h->bitmaps_offset = get64(x->data + 16);
	return 0;
}

static int get_extension(struct qcow2_header *h, const struct extension *x,
			 struct extension *names, char *why)
{
	switch (x->type) {
	case QCOW2_EXT_BACKING_FORMAT:
		return copy_name(h->backing_format, QCOW2_FORMAT_MAX, x->data,
				 x->len, "a backing format", why);
	case QCOW2_EXT_DATA_FILE:
		return copy_name(h->data_file, QCOW2_NAME_MAX, x->data,
				 x->len, "a name of its data file", why);
	case QCOW2_EXT_FEATURES:
		*names = *x;
		return 0;
	case QCOW2_EXT_BITMAPS:
		return get_bitmaps(h, x, why);
	case QCOW2_EXT_CRYPT:
		return refuse(why, -EINVAL,
			"has an encryption header, but is not encrypted");
	default:
		return 0;
	}
}

static int get_extensions(const uint8_t *buf, size_t end, uint64_t backing,
			  struct qcow2_header *h, struct extension *names,
			  char *why)
{
	size_t at = h->header_length;
	struct extension x;
	int ret;

	/* The name of the backing file ends the area, too. */
	if (backing > at && backing < end)
		end = backing;
	while (at + 8 <= end) {
		x.type = get32(buf + at);
		x.len = get32(buf + at + 4);
		x.data = buf + at + 8;
		if (x.type == QCOW2_EXT_END)
			return 0;
		if (x.len > end - at - 8)
			return refuse(why, -EINVAL,
				"has a header extension at offset %zu that is too long (%u bytes)",
				at, x.len);
		ret = get_extension(h, &x, names, why);
		if (ret)
			return ret;
		at += 8 + num_round_up(x.len, 8);
	}
	return 0;
}

/* --- Decode: all ---------------------------------------------------------- */

static int get_backing(const uint8_t *buf, size_t len,
		       const struct qcow2_header_disk *d,
		       struct qcow2_header *h, char *why)
{
	uint64_t offset = be64_get(d->backing_file_offset);
	uint32_t size = be32_get(d->backing_file_size);

	if (!offset || !size)
		return 0;
	if (!num_run_in(offset, size, len) || offset < h->header_length)
		return refuse(why, -EINVAL,
			"names its backing file at offset %llu, outside of its first cluster",
			(unsigned long long)offset);
	return copy_name(h->backing, QCOW2_NAME_MAX, buf + offset, size,
			 "a name of its backing file", why);
}

static int check_place(const struct qcow2_header *h, uint64_t offset,
		       uint64_t bytes, const char *what, char *why)
{
	uint64_t end;

	if (!num_is_aligned(offset, 1ull << h->cluster_bits))
		return refuse(why, -EINVAL,
			"has its %s at offset %llu, which is not aligned to a cluster",
			what, (unsigned long long)offset);
	if (!offset || num_add_overflow(offset, bytes, &end) ||
	    end > 1ull << 56)
		return refuse(why, -EINVAL,
			"has its %s at offset %llu, which is out of range",
			what, (unsigned long long)offset);
	return 0;
}

bool qcow2_areas_overlap(uint64_t a, uint64_t a_bytes, uint64_t b,
			 uint64_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

static int check_l1(const struct qcow2_header *h, char *why)
{
	struct qcow2_geometry g;
	uint64_t need;

	qcow2_geometry_set(h, &g);
	need = num_div_up(h->size, 1ull << (g.l2_bits + g.cluster_bits));
	if (need * 8 > QCOW2_L1_BYTES_MAX ||
	    h->l1_size * 8ull > QCOW2_L1_BYTES_MAX)
		return refuse(why, -EFBIG,
			"has an L1 table of %llu entries for a disk of %llu bytes; %u is the most",
			(unsigned long long)num_max(need, h->l1_size),
			(unsigned long long)h->size, QCOW2_L1_BYTES_MAX / 8);
	if (h->l1_size < need)
		return refuse(why, -EINVAL,
			"has an L1 table of %u entries, too small for a disk of %llu bytes",
			h->l1_size, (unsigned long long)h->size);
	return h->l1_size ? check_place(h, h->l1_offset, h->l1_size * 8ull,
					"L1 table", why) : 0;
}

static int check_places(const struct qcow2_header *h, char *why)
{
	uint64_t bytes = (uint64_t)h->reftable_clusters << h->cluster_bits;
	int ret;

	if (!bytes || bytes > QCOW2_REFTABLE_BYTES_MAX)
		return refuse(why, -EINVAL,
			"has a refcount table of %u clusters, which is out of range",
			h->reftable_clusters);
	ret = check_place(h, h->reftable_offset, bytes, "refcount table", why);
	if (!ret)
		ret = check_l1(h, why);
	if (ret)
		return ret;
	if (qcow2_areas_overlap(h->reftable_offset, bytes, h->l1_offset,
				h->l1_size * 8ull))
		return refuse(why, -EINVAL,
			"has its L1 table at offset %llu, within its refcount table",
			(unsigned long long)h->l1_offset);
	if (h->nb_snapshots > QCOW2_SNAPSHOTS_MAX)
		return refuse(why, -EFBIG,
			"has %u snapshots; %u is the most", h->nb_snapshots,
			QCOW2_SNAPSHOTS_MAX);
	return h->nb_snapshots ? check_place(h, h->snapshots_offset, 40,
					     "snapshot table", why) : 0;
}

static int check_data_file(const struct qcow2_header *h, char *why)
{
	if (!(h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
		return 0;
	if (h->nb_snapshots)
		return refuse(why, -EINVAL,
			"has both an external data file and snapshots");
	if (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW && *h->backing)
		return refuse(why, -EINVAL,
			"has both a raw external data file and a backing file");
	return 0;
}

int qcow2_header_decode(const uint8_t *buf, size_t len,
			struct qcow2_header *h, char *why)
{
	struct qcow2_header_disk d = { 0 };
	struct extension names = { 0 };
	int ret;

	memset(h, 0, sizeof(*h));
	memcpy(&d, buf, num_min(len, sizeof(d)));
	ret = check_kind(&d, len, why);
	if (ret)
		return ret;
	get_fields(&d, h);
	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
	    h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return refuse(why, -EINVAL,
			"has clusters of 2^%u bytes; 2^9 to 2^21 are known",
			h->cluster_bits);
	len = num_min(len, 1ull << h->cluster_bits);
	if (h->version == 3) {
		get_fields_v3(&d, h);
		ret = check_v3(h, len, why);
	}
	if (!ret)
		ret = get_extensions(buf, len,
				     be64_get(d.backing_file_offset), h,
				     &names, why);
	/* A reader that knows no feature cannot judge what follows. */
	if (!ret || h->incompatible & ~QCOW2_INCOMPAT_KNOWN)
		ret = check_features(h, &names, why) ? -EOPNOTSUPP : ret;
	if (!ret)
		ret = get_compression(&d, h, why);
	if (!ret)
		ret = get_backing(buf, len, &d, h, why);
	if (!ret)
		ret = check_places(h, why);
	if (!ret)
		ret = check_data_file(h, why);
	return ret;
}

/* --- Encode --------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t n)
{
	be32 v = be32_put(n);

	memcpy(p, &v, sizeof(v));
}

static void put_fields(const struct qcow2_header *h,
		       struct qcow2_header_disk *d)
{
	d->magic = be32_put(QCOW2_MAGIC);
	d->version = be32_put(h->version);
	d->cluster_bits = be32_put(h->cluster_bits);
	d->size = be64_put(h->size);
	d->l1_size = be32_put(h->l1_size);
	d->l1_table_offset = be64_put(h->l1_offset);
	d->refcount_table_offset = be64_put(h->reftable_offset);
	d->refcount_table_clusters = be32_put(h->reftable_clusters);
	if (h->version < 3)
		return;
	d->incompatible_features = be64_put(h->incompatible);
	d->compatible_features = be64_put(h->compatible);
	d->autoclear_features = be64_put(h->autoclear);
	d->refcount_order = be32_put(h->refcount_order);
	d->header_length = be32_put(QCOW2_HEADER_NEW);
	d->compression_type = (uint8_t)h->compression;
}

struct writer {
	uint8_t *buf;
	size_t at, end;
};

static int put_extension(struct writer *w, uint32_t type, const void *data,
			 size_t len)
{
	if (!len)
		return 0;
	if (w->end - w->at < 16 + num_round_up(len, 8))
		return -ENAMETOOLONG;
	put32(w->buf + w->at, type);
	put32(w->buf + w->at + 4, (uint32_t)len);
	memcpy(w->buf + w->at + 8, data, len);
	w->at += 8 + num_round_up(len, 8);
	return 0;
}

/* Names for those who do not know the features: a table as qemu has it. */
static int put_feature_names(struct writer *w, const struct qcow2_header *h)
{
	static const struct {
		uint8_t type, bit;
		char name[FEATURE_BYTES - 2];
	} names[] = {
		{ 0, 0, "dirty bit" },
		{ 0, 1, "corrupt bit" },
		{ 0, 2, "external data file" },
		{ 0, 3, "compression type" },
		{ 0, 4, "extended L2 entries" },
		{ 1, 0, "lazy refcounts" },
		{ 2, 0, "bitmaps" },
		{ 2, 1, "raw external data" },
	};

	/* A courtesy: left out where there is no room. */
	if (h->version == 3 && w->end - w->at >= sizeof(names) + 16 + 1024)
		return put_extension(w, QCOW2_EXT_FEATURES, names,
				     sizeof(names));
	return 0;
}

int qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf)
{
	struct qcow2_header_disk d = { 0 };
	struct writer w = { buf, QCOW2_HEADER_V2, 1u << h->cluster_bits };
	size_t len = strlen(h->backing);
	int ret;

	put_fields(h, &d);
	if (h->version == 3)
		w.at = QCOW2_HEADER_NEW;
	ret = put_extension(&w, QCOW2_EXT_BACKING_FORMAT, h->backing_format,
			    strlen(h->backing_format));
	if (!ret)
		ret = put_extension(&w, QCOW2_EXT_DATA_FILE, h->data_file,
				    strlen(h->data_file));
	if (!ret)
		ret = put_feature_names(&w, h);
	if (ret)
		return ret;
	w.at += 8;	/* the end of extensions: zeroes */
	if (len) {
		if (w.at + len > w.end || len > QCOW2_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(buf + w.at, h->backing, len);
		d.backing_file_offset = be64_put(w.at);
		d.backing_file_size = be32_put((uint32_t)len);
	}
	memcpy(buf, &d, h->version == 3 ? QCOW2_HEADER_NEW : QCOW2_HEADER_V2);
	return 0;
}
