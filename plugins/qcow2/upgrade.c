// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * upgrade.c - what is put right, or refused, before the first write.
 *
 * An image whose metadata could be handed out as free clusters is refused:
 * whatever the tables refer to that we are going to change must be counted.
 * The refcount table is made as large as it can ever be needed, so that it
 * does not have to grow while the disk is in use.
 */
#include "named.h"
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- The header --------------------------------------------------------------- */

static int write_durably(struct qcow2 *d, const void *buf, size_t len,
			 uint64_t offset)
{
	int ret;

	ret = cow_sync(d->img, 0);
	if (!ret)
		ret = cow_write(d->img, 0, buf, len, offset);
	return ret ? ret : cow_sync(d->img, 0);
}

int qcow2_set_features(struct qcow2 *d, uint64_t incompatible,
		       uint64_t compatible, uint64_t autoclear)
{
	be64 bits[3] = { be64_put(incompatible), be64_put(compatible),
			 be64_put(autoclear) };
	int ret;

	if (d->h.incompatible == incompatible &&
	    d->h.compatible == compatible && d->h.autoclear == autoclear)
		return 0;
	ret = write_durably(d, bits, sizeof(bits),
			    offsetof(struct qcow2_header_disk,
				     incompatible_features));
	if (ret)
		return ret;
	d->h.incompatible = incompatible;
	d->h.compatible = compatible;
	d->h.autoclear = autoclear;
	return 0;
}

/* The two fields are neighbours in one sector: one write switches them. */
int qcow2_set_reftable(struct qcow2 *d, uint64_t offset, uint32_t clusters)
{
	uint8_t bytes[12];
	be64 o = be64_put(offset);
	be32 c = be32_put(clusters);
	int ret;

	memcpy(bytes, &o, sizeof(o));
	memcpy(bytes + sizeof(o), &c, sizeof(c));
	ret = write_durably(d, bytes, sizeof(bytes),
			    offsetof(struct qcow2_header_disk,
				     refcount_table_offset));
	if (ret)
		return ret;
	d->h.reftable_offset = offset;
	d->h.reftable_clusters = clusters;
	d->nr_refblocks = qcow2_bytes(d, clusters) / 8;
	return 0;
}

/* --- Is what we rely on counted? ------------------------------------------------ */

static int must_be_counted(struct qcow2 *d, uint64_t offset, uint64_t bytes,
			   bool once, const char *what)
{
	uint64_t i = qcow2_cluster(d, offset), ref;
	uint64_t end = qcow2_cluster(d, offset + bytes - 1) + 1;
	int ret;

	for (; i < end; i++) {
		ret = qcow2_refcount_read(d, i, &ref);
		if (ret)
			return ret;
		if (!ref || (once && ref != 1))
			return cow_error(d->img, -EIO,
				"its %s at offset %llu has a refcount of %llu; the image is damaged: check and repair it before it is written",
				what, (unsigned long long)qcow2_bytes(d, i),
				(unsigned long long)ref);
	}
	return 0;
}

/* Calls fn for each entry of a table of 64-bit integers, in pieces. */
static int each_entry(struct qcow2 *d, uint64_t offset, uint64_t count,
		      int (*fn)(struct qcow2 *d, uint64_t entry))
{
	be64 *buf = malloc(64 << 10);
	uint64_t i, n;
	int ret = buf ? 0 : -ENOMEM;

	for (; !ret && count; count -= n, offset += n * 8) {
		n = num_min(count, (64 << 10) / 8);
		ret = cow_read(d->img, 0, buf, n * 8, offset);
		for (i = 0; !ret && i < n; i++)
			ret = fn(d, be64_get(buf[i]));
	}
	free(buf);
	return ret;
}

static int check_l1_entry(struct qcow2 *d, uint64_t entry)
{
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	const char *fault = qcow2_l1_fault(&d->g, entry);

	if (fault)
		return cow_error(d->img, -EIO,
			"an entry of its L1 table %s; the image is damaged: check and repair it before it is written",
			fault);
	return offset ? must_be_counted(d, offset, d->g.cluster_size,
					entry & QCOW2_COPIED, "L2 table") : 0;
}

static int check_block(struct qcow2 *d, uint64_t entry)
{
	const char *fault = qcow2_reftable_fault(&d->g, entry);

	if (!fault && entry &&
	    !num_run_in(entry, d->g.cluster_size, d->file_size))
		fault = "points past the end of the file";
	if (fault)
		return cow_error(d->img, -EIO,
			"an entry of its refcount table %s; the image is damaged: check and repair it before it is written",
			fault);
	return entry ? must_be_counted(d, entry, d->g.cluster_size, true,
				       "refcount block") : 0;
}

struct snapshots {
	struct qcow2 *d;
	struct qcow2_areas l1;
};

static int check_snapshot(void *ctx, const struct qcow2_snapshot *s)
{
	struct snapshots *all = ctx;
	int ret;

	ret = must_be_counted(all->d, s->offset, s->bytes, true,
			      "snapshot table");
	if (!ret && s->l1_size)
		ret = qcow2_areas_add(&all->l1, s->l1_offset,
				      s->l1_size * 8ull);
	return ret;
}

/* None of two: so many snapshots take no longer than their tables are. */
static int check_snapshot_l1(struct qcow2 *d, const struct qcow2_area *a)
{
	if (a->overlaps || a->times > 1)
		return cow_error(d->img, -EIO,
			"the L1 table of a snapshot at offset %llu is another one's, too; the image is damaged: check and repair it before it is written",
			(unsigned long long)a->offset);
	return must_be_counted(d, a->offset, a->bytes, true,
			       "L1 table of a snapshot");
}

static int check_snapshots(struct qcow2 *d)
{
	struct snapshots all = { .d = d };
	uint64_t i;
	int ret;

	ret = qcow2_each_snapshot(d, check_snapshot, &all);
	qcow2_areas_sort(&all.l1);
	for (i = 0; !ret && i < all.l1.count; i++)
		ret = check_snapshot_l1(d, &all.l1.list[i]);
	free(all.l1.list);
	return ret;
}

static int check_counted(struct qcow2 *d)
{
	uint64_t reftable = qcow2_bytes(d, d->h.reftable_clusters);
	int ret;

	ret = each_entry(d, d->h.reftable_offset, d->nr_refblocks,
			 check_block);
	if (!ret)
		ret = must_be_counted(d, 0, 1, true, "header");
	if (!ret)
		ret = must_be_counted(d, d->h.reftable_offset, reftable, true,
				      "refcount table");
	if (!ret && d->h.l1_size)
		ret = must_be_counted(d, d->h.l1_offset,
				      d->h.l1_size * 8ull, true, "L1 table");
	if (!ret)
		ret = each_entry(d, d->h.l1_offset, d->h.l1_size,
				 check_l1_entry);
	if (!ret)
		ret = check_snapshots(d);
	return ret;
}

/* --- A larger refcount table ------------------------------------------------------ */

/* Entries that it takes when all of the disk is written, and some more. */
static uint64_t blocks_wanted(const struct qcow2 *d)
{
	uint64_t guest = d->g.data_file ? 0 :
			 num_div_up(d->h.size, d->g.cluster_size);
	uint64_t clusters = num_div_up(d->file_size, d->g.cluster_size) +
			    guest + guest / 8 + d->h.l1_size + 1024;

	return (clusters >> d->g.rb_bits) + (clusters >> d->g.rb_bits) / 8 +
	       2;
}

struct growth {
	uint64_t first;		/* cluster: new blocks, then the table */
	uint64_t nr_blocks, nr_table;	/* clusters */
	uint64_t nr_entries;	/* of the table */
	be64 *table;
};

static uint64_t block_of(const struct qcow2 *d, uint64_t host)
{
	return host >> d->g.rb_bits;
}

static uint64_t growth_end(const struct growth *w)
{
	return w->first + w->nr_blocks + w->nr_table;
}

/* The new clusters are counted by new blocks among them, where need be. */
static void plan(const struct qcow2 *d, struct growth *w)
{
	uint64_t missing = 0, i;

	do {
		w->nr_blocks = missing;
		missing = 0;
		for (i = block_of(d, w->first);
		     i <= block_of(d, growth_end(w) - 1); i++)
			missing += !be64_get(w->table[i]);
	} while (missing != w->nr_blocks);
}

/* New blocks hold nothing but the new clusters' counts. */
static int write_blocks(struct qcow2 *d, struct growth *w)
{
	uint8_t *buf = malloc(d->g.cluster_size);
	uint64_t host = w->first, b, i, end = growth_end(w);
	int ret = buf ? 0 : -ENOMEM;

	for (b = block_of(d, w->first); !ret && b <= block_of(d, end - 1);
	     b++) {
		uint64_t start = b << d->g.rb_bits;
		uint64_t stop = start + (1ull << d->g.rb_bits);

		if (be64_get(w->table[b]))
			continue;
		memset(buf, 0, d->g.cluster_size);
		for (i = num_max(start, w->first); i < num_min(stop, end); i++)
			qcow2_ref_set(buf, d->g.ref_order, i - start, 1);
		w->table[b] = be64_put(qcow2_bytes(d, host));
		ret = cow_write(d->img, 0, buf, d->g.cluster_size,
				qcow2_bytes(d, host++));
	}
	free(buf);
	return ret;
}

/* ... and blocks that are there count them, too. */
static int count_new(struct qcow2 *d, const struct growth *w)
{
	uint64_t i;
	int ret = 0;

	for (i = w->first; !ret && i < growth_end(w); i++) {
		ret = qcow2_refcounts_write(d, i, 1, 1);
		if (ret == -ENOENT)
			ret = 0;
	}
	return ret;
}

static int write_growth(struct qcow2 *d, struct growth *w)
{
	uint64_t old = qcow2_cluster(d, d->h.reftable_offset);
	uint64_t nr_old = d->h.reftable_clusters;
	uint64_t at = qcow2_bytes(d, w->first + w->nr_blocks);
	int ret;

	ret = qcow2_extend(d, w->first, w->nr_blocks + w->nr_table, true);
	if (!ret)
		ret = count_new(d, w);
	if (!ret)
		ret = write_blocks(d, w);
	if (!ret)
		ret = cow_write(d->img, 0, w->table,
				qcow2_bytes(d, w->nr_table), at);
	if (!ret)
		ret = qcow2_set_reftable(d, at, (uint32_t)w->nr_table);
	if (!ret)
		ret = qcow2_refcounts_write(d, old, nr_old, 0);
	return ret ? ret : cow_sync(d->img, 0);
}

/* The last of the new clusters that is in use already; none is: *host is their end. */
static int last_in_use(struct qcow2 *d, const struct growth *w, uint64_t *host)
{
	uint64_t ref = 0;
	int ret = 0;

	for (*host = growth_end(w); !ret && !ref && *host > w->first; --*host)
		ret = qcow2_refcount_read(d, *host - 1, &ref);
	if (!ret && !ref)
		*host = growth_end(w);
	return ret;
}

/* As close to the end of a device as can be; -ENOSPC: there is no room. */
static int plan_on_device(struct qcow2 *d, struct growth *w)
{
	uint64_t end = num_min(qcow2_cluster(d, d->file_size),
			       w->nr_entries << d->g.rb_bits);
	uint64_t used, n;
	int ret;

	for (;;) {
		do {
			n = w->nr_table + w->nr_blocks;
			if (end < d->alloc.old_end + n)
				return -ENOSPC;
			w->first = end - n;
			plan(d, w);
		} while (w->nr_table + w->nr_blocks > n);
		ret = last_in_use(d, w, &used);
		if (ret || used == growth_end(w))
			return ret;
		end = used;
	}
}

/*
 * Behind the end; on a device there may lie what the kernel will tell of.  -ENOSPC: the
 * image can be written as far as its table goes.
 */
static int plan_growth(struct qcow2 *d, struct growth *w)
{
	if (d->alloc.device)
		return plan_on_device(d, w);
	w->first = d->alloc.old_end;
	if (block_of(d, w->first + 64 + 2 * w->nr_table) >= w->nr_entries)
		return -ENOSPC;
	plan(d, w);
	return 0;
}

static int grow_reftable(struct qcow2 *d)
{
	uint64_t bytes = num_min(num_round_up(blocks_wanted(d) * 8,
					      d->g.cluster_size),
				 QCOW2_REFTABLE_BYTES_MAX);
	struct growth w = {
		.nr_table = qcow2_cluster(d, bytes),
		.nr_entries = bytes / 8,
	};
	bool room;
	int ret;

	if (w.nr_table <= d->h.reftable_clusters)
		return 0;
	w.table = calloc(1, bytes);
	if (!w.table)
		return -ENOMEM;
	ret = cow_read(d->img, 0, w.table, d->nr_refblocks * 8,
		       d->h.reftable_offset);
	if (!ret)
		ret = plan_growth(d, &w);
	room = ret != -ENOSPC;
	if (!ret)
		ret = write_growth(d, &w);
	free(w.table);
	if (ret && room)
		return ret;
	qcow2_alloc_init(d);
	return 0;
}

/* --- All of it -------------------------------------------------------------------- */

/* What this program does not keep right must not be believed after it. */
static int clear_features(struct qcow2 *d)
{
	return qcow2_set_features(d, d->h.incompatible, d->h.compatible,
				  d->h.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
}

/*
 * Before the first count can be late, and durable; taken back when the image
 * is closed and nothing is left to be written.
 */
static int mark_lazy(struct qcow2 *d)
{
	/* Counted anew they need space where the kernel may have copied to. */
	d->lazy = d->h.compatible & QCOW2_COMPAT_LAZY && !d->alloc.device;
	if (!d->lazy)
		return 0;
	return qcow2_set_features(d, d->h.incompatible | QCOW2_INCOMPAT_DIRTY,
				  d->h.compatible, d->h.autoclear);
}

int qcow2_finish(void *handle)
{
	struct qcow2 *d = handle;

	if (!d->lazy)
		return 0;
	return qcow2_set_features(d, d->h.incompatible & ~QCOW2_INCOMPAT_DIRTY,
				  d->h.compatible, d->h.autoclear);
}

static int repair_dirty(struct qcow2 *d)
{
	if (!(d->h.incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0;
	cow_warn(d->img, "was not closed properly; its refcounts are repaired");
	return qcow2_repair(d, NULL);
}

/*
 * A commit writes these two, and must be possible when the file system is
 * full.  In a new image they are holes.
 */
static int reserve_tables(struct qcow2 *d)
{
	int ret;

	ret = cow_reserve(d->img, 0, d->h.reftable_offset,
			  qcow2_bytes(d, d->h.reftable_clusters));
	if (!ret && d->h.l1_size)
		ret = cow_reserve(d->img, 0, d->h.l1_offset,
				  d->h.l1_size * 8ull);
	if (ret != -ENOSPC)
		return ret;
	cow_warn(d->img, "there is no space for its L1 and refcount tables: flushes may fail");
	return 0;
}

/*
 * The last cluster as a whole, so that a device made of the file has it.  What
 * a block device has behind its last whole cluster is left alone.
 */
static int whole_clusters(struct qcow2 *d)
{
	uint64_t size = num_round_up(d->file_size, d->g.cluster_size);
	int ret = 0;

	if (d->alloc.device)
		size = num_round_down(d->file_size, d->g.cluster_size);
	else
		ret = cow_file_extend(d->img, 0, size);
	if (ret)
		return ret;
	if (d->alloc.referred_end > qcow2_cluster(d, size))
		return cow_error(d->img, -EINVAL,
			"uses what its block device has behind the last whole cluster, at offset %llu; copy it to a device that holds all of that cluster",
			(unsigned long long)size);
	d->file_size = size;
	return 0;
}

int qcow2_prepare_write(struct qcow2 *d)
{
	int ret;

	if (d->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
		return cow_error(d->img, -EIO,
			"is marked as corrupt; check and repair it before it is written");
	ret = repair_dirty(d);
	if (!ret)
		ret = check_counted(d);
	if (!ret)
		ret = qcow2_verify(d);
	if (ret)
		return ret;
	ret = whole_clusters(d);
	if (ret)
		return ret;
	ret = clear_features(d);
	if (ret)
		return ret;
	qcow2_alloc_init(d);
	ret = grow_reftable(d);
	if (!ret)
		ret = reserve_tables(d);
	if (!ret)
		ret = qcow2_freed_init(d);
	if (!ret)
		ret = qcow2_pending_init(d);
	if (!ret)
		ret = qcow2_moved_init(d);
	if (!ret)
		ret = mark_lazy(d);
	return ret;
}
