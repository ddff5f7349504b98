// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * scan.c - all tables: for an open for writing, which must know what is free
 * and that nothing is damaged, and for a check.
 *
 * Three rounds:
 *  1. L2 tables: where they can be, and no two at one place
 *  2. clusters: where they can be, no table and no other cluster there
 *  3. compressed clusters, if there are any: in the file, none of the others
 *     there.  They begin at any byte, also in the cluster where the L1 table
 *     ends.  Two of them may share a cluster of the file.
 */
#include "qcow.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK (16u << 10)

int qcow_units(struct qcow *d, uint64_t *units)
{
	*units = num_div_up(d->end, d->cluster_size);
	if (*units <= QCOW_UNITS_MAX)
		return 0;
	return cow_error(d->img, -EFBIG,
		"has a file of %llu bytes, too large to be written or checked with clusters of %u bytes; it can be read, or converted",
		(unsigned long long)d->end, d->cluster_size);
}

/* --- Findings ------------------------------------------------------------- */

__attribute__((format(printf, 3, 4)))
static int found(struct qcow_scan *s, enum cow_severity severity,
		 const char *fmt, ...)
{
	char text[250];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (severity == COW_FOUND_CORRUPT)
		s->corrupt++;
	if (s->check) {
		cow_check_found(s->check, severity, false, "%s", text);
		return 0;
	}
	if (severity == COW_FOUND_LEAK)
		return 0;
	return cow_error(s->d->img, -EINVAL,
		"is damaged, and not opened for writing: %s; read it, or convert it",
		text);
}

static int bad_table(struct qcow_scan *s, uint64_t nr, uint64_t offset,
		     const char *why)
{
	return found(s, COW_FOUND_CORRUPT,
		"L2 table %llu cannot lie at offset %llu: %s",
		(unsigned long long)nr, (unsigned long long)offset, why);
}

static int bad_cluster(struct qcow_scan *s, uint64_t cluster, uint64_t offset,
		       const char *why)
{
	return found(s, COW_FOUND_CORRUPT,
		"%scluster %llu cannot lie at offset %llu: %s",
		s->look_packed ? "the compressed " : "",
		(unsigned long long)cluster, (unsigned long long)offset, why);
}

/* --- Reading -------------------------------------------------------------- */

typedef int (*table_fn)(struct qcow_scan *s, uint64_t nr, uint64_t offset);

static int each_of_chunk(struct qcow_scan *s, uint64_t first, uint64_t count,
			 const be64 *l1, table_fn fn)
{
	uint64_t i;
	int ret = 0;

	for (i = 0; !ret && i < count; i++) {
		if (be64_get(l1[i]))
			ret = fn(s, first + i, be64_get(l1[i]));
	}
	return ret;
}

/* fn() for each L2 table that the L1 table has. */
static int each_table(struct qcow_scan *s, table_fn fn)
{
	uint64_t entries = s->d->h.l1_entries, first, n, offset;
	be64 *l1 = malloc(CHUNK);
	bool hole = false;
	int ret = l1 ? 0 : -ENOMEM;

	for (first = 0; !ret && first < entries; first += n) {
		n = num_min(CHUNK / sizeof(be64), entries - first);
		offset = s->d->h.l1_offset + first * sizeof(be64);
		ret = cow_file_is_hole(s->d->img, 0, &s->hole, offset,
				       n * sizeof(be64), &hole);
		if (ret || hole)
			continue;
		ret = cow_read(s->d->img, 0, l1, n * sizeof(be64), offset);
		if (!ret)
			ret = each_of_chunk(s, first, n, l1, fn);
	}
	free(l1);
	return ret;
}

/* --- Round 1: places of tables -------------------------------------------- */

static void mark_units(struct qcow_scan *s, uint64_t offset, uint64_t len)
{
	uint64_t unit = offset >> s->d->h.cluster_bits;
	uint64_t end = num_div_up(offset + len, s->d->cluster_size);

	for (; unit < num_min(end, s->units); unit++) {
		bits_set(s->ref, unit);
		bits_set(s->meta, unit);
	}
}

static void mark_fixed(struct qcow_scan *s)
{
	const struct qcow_header *h = &s->d->h;

	mark_units(s, 0, sizeof(struct qcow_header_disk));
	mark_units(s, h->l1_offset, h->l1_entries * sizeof(be64));
	if (h->name_len)
		mark_units(s, h->name_offset, h->name_len + s->d->fixed_tail);
}

static int place_table(struct qcow_scan *s, uint64_t nr, uint64_t offset)
{
	const char *why = qcow_l2_fault(s->d, offset);
	uint64_t unit = offset >> s->d->h.cluster_bits, i;

	for (i = 0; !why && i < qcow_table_units(s->d); i++) {
		if (unit + i < s->units && bits_test(s->ref, unit + i))
			why = "another L2 table is there";
	}
	if (why) {
		bits_set(s->passed, nr);
		return bad_table(s, nr, offset, why);
	}
	mark_units(s, offset, s->d->l2_bytes);
	return 0;
}

/* --- Rounds 2 and 3: entries ---------------------------------------------- */

static int place_cluster(struct qcow_scan *s, uint64_t cluster, uint64_t entry)
{
	const char *why = qcow_cluster_fault(s->d, entry);
	uint64_t unit = entry >> s->d->h.cluster_bits;

	s->clusters++;
	if (!why && bits_test(s->meta, unit))
		why = "an L2 table is there";
	if (!why && bits_test(s->ref, unit))
		why = "another cluster is there";
	if (why)
		return bad_cluster(s, cluster, entry, why);
	bits_set(s->ref, unit);
	return 0;
}

/*
 * Tables that fill whole clusters leave no room there; in others, and where
 * header and L1 table end, a compressed cluster may stand.
 */
static const char *packed_in_way(const struct qcow_scan *s, uint64_t unit)
{
	const struct qcow *d = s->d;

	if (!bits_test(s->ref, unit))
		return NULL;
	if (!bits_test(s->meta, unit))
		return "another cluster is there";
	if (d->l2_bytes >= d->cluster_size &&
	    !qcow_in_fixed(d, qcow_bytes(d, unit), d->cluster_size))
		return "an L2 table is there";
	return NULL;
}

static int place_packed(struct qcow_scan *s, uint64_t cluster, uint64_t entry)
{
	const char *why = qcow_packed_fault(s->d, entry);
	uint64_t offset = qcow_packed_offset(&s->d->h, entry), unit, last;

	s->packed++;
	if (why)
		return bad_cluster(s, cluster, offset, why);
	last = (offset + qcow_packed_len(&s->d->h, entry) - 1) >>
	       s->d->h.cluster_bits;
	unit = offset >> s->d->h.cluster_bits;
	for (; !why && unit <= last; unit++)
		why = packed_in_way(s, unit);
	if (why)
		return bad_cluster(s, cluster, offset, why);
	for (unit = offset >> s->d->h.cluster_bits; unit <= last; unit++)
		bits_set(s->shared, unit);
	return 0;
}

/* What stands past the end of the disk is no damage, but its place is used. */
static int past_end(struct qcow_scan *s, uint64_t cluster, uint64_t entry)
{
	if (!(entry & QCOW_COMPRESSED) && !qcow_cluster_fault(s->d, entry))
		bits_set(s->ref, entry >> s->d->h.cluster_bits);
	return found(s, COW_FOUND_LEAK,
		"an entry for cluster %llu stands past the end of the disk",
		(unsigned long long)cluster);
}

static int scan_entry(struct qcow_scan *s, uint64_t cluster, uint64_t entry)
{
	bool packed = entry & QCOW_COMPRESSED;

	if (!entry)
		return 0;
	if (cluster >= s->d->nr_clusters)
		return s->look_packed ? 0 : past_end(s, cluster, entry);
	if (packed != s->look_packed) {
		s->packed += packed;
		return 0;
	}
	return packed ? place_packed(s, cluster, entry) :
			place_cluster(s, cluster, entry);
}

static int scan_table(struct qcow_scan *s, uint64_t nr, uint64_t offset)
{
	uint64_t i;
	bool hole;
	int ret;

	if (bits_test(s->passed, nr))
		return 0;
	ret = cow_file_is_hole(s->d->img, 0, &s->hole, offset, s->d->l2_bytes,
			       &hole);
	if (ret || hole)
		return ret;
	ret = cow_read(s->d->img, 0, s->table, s->d->l2_bytes, offset);
	for (i = 0; !ret && i < 1u << s->d->h.l2_bits; i++)
		ret = scan_entry(s, (nr << s->d->h.l2_bits) + i,
				 be64_get(s->table[i]));
	return ret;
}

/* --- All of it ------------------------------------------------------------ */

static int scan(struct qcow_scan *s)
{
	uint64_t i;
	int ret;

	mark_fixed(s);
	ret = each_table(s, place_table);
	if (!ret)
		ret = each_table(s, scan_table);
	if (ret || !s->packed)
		return ret;
	s->packed = 0;
	s->look_packed = true;
	ret = each_table(s, scan_table);
	for (i = 0; i < num_div_up(s->units, 8); i++)
		s->ref[i] |= s->shared[i];
	return ret;
}

int qcow_scan(struct qcow_scan *s)
{
	int ret;

	s->meta = calloc(1, num_div_up(s->units, 8));
	s->shared = calloc(1, num_div_up(s->units, 8));
	s->passed = calloc(1, num_div_up(s->d->h.l1_entries, 8));
	s->table = malloc(s->d->l2_bytes);
	ret = s->meta && s->shared && s->passed && s->table ? scan(s) :
							      -ENOMEM;
	free(s->meta);
	free(s->shared);
	free(s->passed);
	free(s->table);
	return ret;
}
