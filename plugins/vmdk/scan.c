// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * scan.c - all tables of a sparse extent: for an open for writing, which must
 * know what is free and that nothing is damaged, and for a check.
 *
 * Three rounds:
 *  1. places of the tables: in the file, in none of the fixed parts, no two
 *     of them at one place
 *  2. entries of the first copy: in the file, no two at one place
 *  3. the second copy is equal; where it is not, and it can be said which of
 *     the two is right, a repair makes it so
 *
 * The first copy is what everybody reads.  It is right unless it points to
 * where no grain can be.  In an extent that was not closed it is right even
 * where it has no grain and the second one has: that change was under way.
 * There the difference is no damage, but what the next open for writing ends.
 */
#include "vmdk.h"

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- Findings ------------------------------------------------------------- */

__attribute__((format(printf, 4, 5)))
static int found(struct vmdk_scan *s, enum cow_severity severity,
		 bool repaired, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (severity == COW_FOUND_CORRUPT && !repaired)
		s->corrupt++;
	if (s->check) {
		cow_check_found(s->check, severity, repaired, "file %u: %s",
				s->e->file, text);
		return 0;
	}
	if (severity == COW_FOUND_LEAK || repaired)
		return 0;
	return cow_error(s->v->img, -EINVAL,
		"is damaged, and not opened for writing: in its file %u %s; check and repair it",
		s->e->file, text);
}

/* --- Is a place a good one? ----------------------------------------------- */

/*
 * As in extent.c, but in the file as it was when the scan began: what a repair puts behind
 * that end is in nobody's table yet.
 */
static bool table_ok(const struct vmdk_scan *s, uint32_t gde)
{
	return num_run_in((uint64_t)gde * VMDK_SECTOR, VMDK_GT_BYTES, s->limit) &&
	       vmdk_table_ok(s->e, gde);
}

static bool grain_ok(const struct vmdk_scan *s, uint32_t gte)
{
	return (uint64_t)gte * VMDK_SECTOR < s->limit &&
	       vmdk_grain_ok(s->e, gte);
}

static bool entry_ok(const struct vmdk_scan *s, uint32_t gte)
{
	return !vmdk_is_grain(s->e, gte) || grain_ok(s, gte);
}

/* --- Reading -------------------------------------------------------------- */

struct table {
	le32 entry[VMDK_GTES];
};

/* A large image has gigabytes of tables that were never written. */
static int read_table(struct vmdk_scan *s, uint32_t gde, struct table *t,
		      bool *data)
{
	uint64_t offset = (uint64_t)gde * VMDK_SECTOR;
	bool hole;
	int ret;

	ret = cow_file_is_hole(s->v->img, s->e->file, &s->hole, offset,
			       sizeof(*t), &hole);
	*data = !hole;
	if (!ret && *data)
		ret = cow_read(s->v->img, s->e->file, t, sizeof(*t), offset);
	else
		memset(t, 0, sizeof(*t));
	return ret;
}

/* --- Each entry of the directories ---------------------------------------- */

#define CHUNK (16u << 10)

typedef int (*table_fn)(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
			uint32_t rgde);

static int each_of_chunk(struct vmdk_scan *s, uint32_t first, uint32_t n,
			 const le32 *gd, const le32 *rgd, table_fn fn)
{
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < n; i++) {
		uint32_t gde = le32_get(gd[i]), rgde = le32_get(rgd[i]);

		if (gde || rgde)
			ret = fn(s, first + i, gde, rgde);
	}
	return ret;
}

static int each_table(struct vmdk_scan *s, table_fn fn)
{
	uint32_t nr = s->e->h.nr_gdes, first, n;
	le32 *gd = calloc(2, CHUNK), *rgd = gd + CHUNK / sizeof(le32);
	int ret = gd ? 0 : -ENOMEM;

	for (first = 0; !ret && first < nr; first += n) {
		n = (uint32_t)num_min(CHUNK / sizeof(le32), nr - first);
		ret = cow_read(s->v->img, s->e->file, gd, n * sizeof(le32),
			       s->e->h.gd_offset + first * sizeof(le32));
		if (!ret && vmdk_has_rgd(s->e))
			ret = cow_read(s->v->img, s->e->file, rgd,
				       n * sizeof(le32), s->e->h.rgd_offset +
				       first * sizeof(le32));
		if (!ret)
			ret = each_of_chunk(s, first, n, gd, rgd, fn);
	}
	free(gd);
	return ret;
}

/* --- Round 1: places of tables -------------------------------------------- */

/* Units that hold tables hold no grain. */
static void mark_units(struct vmdk_scan *s, uint64_t offset, uint64_t len)
{
	uint64_t unit = offset / s->e->h.grain_size;
	uint64_t end = num_div_up(offset + len, s->e->h.grain_size);

	end = num_min(end, s->units);
	if (unit < end)
		bits_set_run(s->ref, unit, end - unit);
}

static void mark_fixed(struct vmdk_scan *s)
{
	struct vmdk_header *h = &s->e->h;

	mark_units(s, 0, VMDK_SECTOR);
	mark_units(s, h->descriptor_offset, h->descriptor_size);
	mark_units(s, h->gd_offset, vmdk_gd_bytes(h));
	if (vmdk_has_rgd(s->e))
		mark_units(s, h->rgd_offset, vmdk_gd_bytes(h));
}

static int place_table(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
		       const char *copy)
{
	if (!gde)
		return 0;
	if (!table_ok(s, gde))
		return found(s, COW_FOUND_CORRUPT, false,
			"the %sgrain table %u cannot lie at offset %llu",
			copy, nr, (unsigned long long)gde * VMDK_SECTOR);
	mark_units(s, (uint64_t)gde * VMDK_SECTOR, VMDK_GT_BYTES);
	s->tables[s->nr_tables++] = gde;
	return 0;
}

static int place_tables(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
			uint32_t rgde)
{
	int ret;

	ret = place_table(s, nr, gde, "");
	return ret ? ret : place_table(s, nr, rgde, "redundant ");
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int check_disjoint(struct vmdk_scan *s)
{
	uint64_t i;
	int ret = 0;

	if (s->nr_tables)
		qsort(s->tables, s->nr_tables, sizeof(*s->tables), by_number);
	for (i = 1; !ret && i < s->nr_tables; i++) {
		if (s->tables[i] - s->tables[i - 1] <
		    VMDK_GT_BYTES / VMDK_SECTOR)
			ret = found(s, COW_FOUND_CORRUPT, false,
				"two grain tables overlap at offset %llu",
				(unsigned long long)s->tables[i] *
				VMDK_SECTOR);
	}
	return ret;
}

static int scan_places(struct vmdk_scan *s)
{
	int ret;

	s->tables = calloc(2ull * s->e->h.nr_gdes, sizeof(*s->tables));
	ret = s->tables ? 0 : -ENOMEM;
	if (!ret)
		ret = each_table(s, place_tables);
	if (!ret)
		ret = check_disjoint(s);
	s->seen = calloc(1, num_div_up(s->nr_tables, 8) + 1);
	return ret || s->seen ? ret : -ENOMEM;
}

/*
 * The first time that a round gets to the table there?  Of two that are one the
 * second is told of, and not read again.
 */
static bool first_time(struct vmdk_scan *s, uint32_t gde)
{
	uint64_t lo = 0, hi = s->nr_tables;

	while (lo < hi) {
		uint64_t at = lo + (hi - lo) / 2;

		if (s->tables[at] < gde)
			lo = at + 1;
		else
			hi = at;
	}
	if (bits_test(s->seen, lo))
		return false;
	bits_set(s->seen, lo);
	return true;
}

/* --- Round 2: entries ----------------------------------------------------- */

/* Can the second copy say what the first one does not? */
static bool has_second(const struct vmdk_scan *s, uint32_t rgde)
{
	return vmdk_has_rgd(s->e) && rgde && table_ok(s, rgde);
}

static int mark_grain(struct vmdk_scan *s, uint64_t nr, uint32_t gte)
{
	uint64_t offset = (uint64_t)gte * VMDK_SECTOR;
	uint64_t unit = offset / s->e->h.grain_size;

	s->grains++;
	if (s->e->h.flags & VMDK_FLAG_COMPRESSED)
		return 0;
	if (!num_is_aligned(offset, s->e->h.grain_size)) {
		s->aligned = false;
		return 0;
	}
	if (bits_test(s->ref, unit))
		return found(s, COW_FOUND_CORRUPT, false,
			"grain %llu at offset %llu lies where another grain or a table is",
			(unsigned long long)nr, (unsigned long long)offset);
	bits_set(s->ref, unit);
	return 0;
}

/* Of a compressed grain: is it there, and this one's? */
static int check_marker(struct vmdk_scan *s, uint64_t nr, uint32_t gte)
{
	uint64_t offset = (uint64_t)gte * VMDK_SECTOR;
	struct vmdk_marker_disk marker;
	uint32_t len;
	int ret;

	if (!num_run_in(offset, sizeof(marker), s->e->end))
		return found(s, COW_FOUND_CORRUPT, false,
			"the compressed grain %llu at offset %llu lies past the end of the file",
			(unsigned long long)nr, (unsigned long long)offset);
	ret = cow_read(s->v->img, s->e->file, &marker, sizeof(marker), offset);
	if (ret)
		return ret;
	len = le32_get(marker.size);
	if (le64_get(marker.lba) * VMDK_SECTOR == nr * s->e->h.grain_size &&
	    num_run_in(offset + sizeof(marker), len, s->e->end))
		return 0;
	return found(s, COW_FOUND_CORRUPT, false,
		"the compressed grain %llu at offset %llu has a marker of another one, or a size that cannot be",
		(unsigned long long)nr, (unsigned long long)offset);
}

static int scan_entry(struct vmdk_scan *s, uint64_t nr, uint32_t gte,
		      bool second)
{
	int ret;

	if (!gte)
		return 0;
	if (nr >= s->e->h.nr_grains) {
		if (vmdk_is_grain(s->e, gte) && grain_ok(s, gte))
			mark_units(s, (uint64_t)gte * VMDK_SECTOR, 1);
		return found(s, COW_FOUND_LEAK, false,
			"an entry for grain %llu stands past the end of the disk",
			(unsigned long long)nr);
	}
	if (!vmdk_is_grain(s->e, gte)) {
		s->zeroes++;
		return 0;
	}
	if (!grain_ok(s, gte)) {
		/* Round 3 tells of it, if it can be repaired or not. */
		if (second)
			return 0;
		return found(s, COW_FOUND_CORRUPT, false,
			"grain %llu cannot lie at offset %llu",
			(unsigned long long)nr,
			(unsigned long long)gte * VMDK_SECTOR);
	}
	ret = mark_grain(s, nr, gte);
	if (!ret && s->e->h.flags & VMDK_FLAG_COMPRESSED)
		ret = check_marker(s, nr, gte);
	return ret;
}

static int scan_table(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
		      uint32_t rgde)
{
	struct table t;
	uint64_t i;
	bool data;
	int ret;

	if (!gde || !table_ok(s, gde) || !first_time(s, gde))
		return 0;
	ret = read_table(s, gde, &t, &data);
	for (i = 0; !ret && data && i < VMDK_GTES; i++)
		ret = scan_entry(s, (uint64_t)nr * VMDK_GTES + i,
				 le32_get(t.entry[i]), has_second(s, rgde));
	return ret;
}

/* --- Round 3: the second copy --------------------------------------------- */

static int write_table(struct vmdk_scan *s, uint32_t gde,
		       const struct table *t)
{
	return cow_write(s->v->img, s->e->file, t, sizeof(*t),
			 (uint64_t)gde * VMDK_SECTOR);
}

static enum cow_severity difference(const struct vmdk_scan *s)
{
	return s->e->h.unclean ? COW_FOUND_LEAK : COW_FOUND_CORRUPT;
}

/* Is the second entry a grain that nobody else has? */
static bool second_is_better(const struct vmdk_scan *s, uint32_t first,
			     uint32_t second)
{
	uint64_t offset = (uint64_t)second * VMDK_SECTOR;

	if (entry_ok(s, first) || !entry_ok(s, second))
		return false;
	return !vmdk_is_grain(s->e, second) ||
	       (num_is_aligned(offset, s->e->h.grain_size) &&
		!bits_test(s->ref, offset / s->e->h.grain_size));
}

static int compare_entry(struct vmdk_scan *s, uint64_t nr, le32 *first,
			 le32 *second, bool *repaired)
{
	uint32_t a = le32_get(*first), b = le32_get(*second);
	bool repair = s->repair;

	if (a == b && entry_ok(s, a))
		return 0;
	if (second_is_better(s, a, b)) {
		if (repair) {
			*first = *second;
			mark_units(s, (uint64_t)b * VMDK_SECTOR, 1);
		}
	} else if (entry_ok(s, a) && (a || s->e->h.unclean)) {
		if (repair)
			*second = *first;
	} else {
		repair = false;
	}
	*repaired |= repair;
	if (a == b)
		return found(s, COW_FOUND_CORRUPT, false,
			"grain %llu cannot lie at offset %llu",
			(unsigned long long)nr,
			(unsigned long long)a * VMDK_SECTOR);
	return found(s, entry_ok(s, a) ? difference(s) : COW_FOUND_CORRUPT,
		     repair,
		"grain %llu lies at sector %u by one grain table and at %u by the redundant one",
		(unsigned long long)nr, a, b);
}

static int compare_entries(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
			   uint32_t rgde)
{
	bool data, data2, repaired = false;
	struct table t, t2;
	uint64_t i, n;
	int ret;

	ret = read_table(s, gde, &t, &data);
	if (!ret)
		ret = read_table(s, rgde, &t2, &data2);
	if (ret || (!data && !data2))
		return ret;
	n = num_min(VMDK_GTES, s->e->h.nr_grains - (uint64_t)nr * VMDK_GTES);
	for (i = 0; !ret && i < n; i++)
		ret = compare_entry(s, (uint64_t)nr * VMDK_GTES + i,
				    &t.entry[i], &t2.entry[i], &repaired);
	if (ret || !repaired)
		return ret;
	ret = write_table(s, gde, &t);
	return ret ? ret : write_table(s, rgde, &t2);
}

static int write_rgde(struct vmdk_scan *s, uint32_t nr, uint32_t rgde)
{
	le32 entry = le32_put(rgde);

	return cow_write(s->v->img, s->e->file, &entry, sizeof(entry),
			 s->e->h.rgd_offset + nr * sizeof(entry));
}

/* A table that the first directory has not. */
static int only_second(struct vmdk_scan *s, uint32_t nr, uint32_t rgde)
{
	bool data, repair = s->repair && s->e->h.unclean;
	struct table t;
	int ret = 0;

	if (!table_ok(s, rgde) || !first_time(s, rgde))
		return 0;
	ret = read_table(s, rgde, &t, &data);
	if (ret)
		return ret;
	if (!data)
		repair = s->repair;
	if (repair)
		ret = write_rgde(s, nr, 0);
	if (ret)
		return ret;
	return found(s, difference(s), repair,
		"grain table %u is in the redundant grain directory only", nr);
}

/* At the end of the file: there is nothing that could be in the way. */
static int add_second(struct vmdk_scan *s, uint32_t nr, uint32_t gde)
{
	uint64_t at = num_round_up(s->e->end, s->e->h.grain_size);
	struct table t;
	bool data;
	int ret;

	if (at + s->e->h.grain_size > VMDK_FILE_MAX)
		return cow_error(s->v->img, -ENOSPC,
			"has no place for a redundant grain table in its file %u",
			s->e->file);
	ret = cow_file_extend(s->v->img, s->e->file, at + s->e->h.grain_size);
	if (ret)
		return ret;
	s->e->end = at + s->e->h.grain_size;
	ret = read_table(s, gde, &t, &data);
	if (!ret)
		ret = write_table(s, (uint32_t)(at / VMDK_SECTOR), &t);
	if (!ret)
		ret = cow_sync(s->v->img, s->e->file);
	return ret ? ret : write_rgde(s, nr, (uint32_t)(at / VMDK_SECTOR));
}

static int only_first(struct vmdk_scan *s, uint32_t nr, uint32_t gde)
{
	int ret = 0;

	if (!table_ok(s, gde) || !first_time(s, gde))
		return 0;
	if (s->repair)
		ret = add_second(s, nr, gde);
	if (ret)
		return ret;
	return found(s, difference(s), s->repair,
		"grain table %u is not in the redundant grain directory", nr);
}

static int compare_table(struct vmdk_scan *s, uint32_t nr, uint32_t gde,
			 uint32_t rgde)
{
	if (!gde)
		return only_second(s, nr, rgde);
	if (!rgde)
		return only_first(s, nr, gde);
	if (!table_ok(s, gde) || !table_ok(s, rgde) ||
	    !first_time(s, gde) || !first_time(s, rgde))
		return 0;
	return compare_entries(s, nr, gde, rgde);
}

/* --- All of it ------------------------------------------------------------ */

static int scan(struct vmdk_scan *s)
{
	int ret;

	ret = scan_places(s);
	if (!ret)
		ret = each_table(s, scan_table);
	if (ret || !vmdk_has_rgd(s->e))
		return ret;
	memset(s->seen, 0, num_div_up(s->nr_tables, 8));
	return each_table(s, compare_table);
}

int vmdk_scan(struct vmdk_scan *s)
{
	int ret;

	s->aligned = true;
	s->limit = s->e->end;
	mark_fixed(s);
	ret = scan(s);
	free(s->tables);
	free(s->seen);
	if (!ret && s->repair)
		ret = cow_sync(s->v->img, s->e->file);
	return ret;
}
