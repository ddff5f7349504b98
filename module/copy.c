// SPDX-License-Identifier: GPL-2.0-only
/*
 * The copier: a block goes from its source to its destination by kcopyd
 * before the first write to a part of it.  The copy holds the SRCU section of
 * the write that leads its cell, so that INVALIDATE waits for it.
 */
#include "dmu.h"
#include "trace.h"

/* Those that waited for this copy; the rest only met it on the way. */
static void dmu_copy_fail(struct dmu_disk *d, struct dmu_cow *cow,
			  struct bio_list *bios)
{
	struct bio_list again = BIO_EMPTY_LIST;
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		if (dmu_io_of(bio)->cow == cow)
			bio_io_error(bio);
		else
			bio_list_add(&again, bio);
	}
	dmu_io_defer(d, &again);
}

static void dmu_copy_done(int read_err, unsigned long write_err, void *context)
{
	struct dmu_io *io = context;
	struct dmu_disk *d = io->t->disk;
	struct dmu_cow *cow = io->cow;
	u64 block = io->cell.first;
	struct bio_list bios = BIO_EMPTY_LIST;
	int idx = io->srcu_idx;
	bool failed = read_err || write_err;

	trace_dmu_copy(d->key, block, failed);
	spin_lock_irq(&d->lock);
	if (!failed)
		dmu_cow_mark_dirty(cow, block, 1);
	dmu_cell_release(d, &io->cell, &bios);
	dmu_cow_put(cow);
	spin_unlock_irq(&d->lock);

	if (failed) {
		dmu_count(d, DMU_COPY_ERRORS);
		DMERR_LIMIT("%s: cannot copy block %llu: %s error", d->key,
			    block, read_err ? "read" : "write");
		dmu_copy_fail(d, cow, &bios);
	} else {
		dmu_count(d, DMU_COPIES);
		dmu_io_defer(d, &bios);
	}
	dmu_flight_end(d, idx);
}

/* The cell of @io is in place; from here on @io may be gone at any time. */
void dmu_copy_start(struct dmu_io *io)
{
	struct dmu_target *t = io->t;
	struct dmu_disk *d = t->disk;
	struct dmu_cow *cow = io->cow;
	sector_t start = dmu_block_to_sector(d, io->cell.first);
	struct dm_io_region from, to;

	to.bdev = t->devs[cow->dev].dev->bdev;
	to.sector = start + cow->distance;
	to.count = min(dmu_block_sectors(d), t->nr_sectors - start);

	if (cow->src_dev == DMU_DEV_NONE) {
		dm_kcopyd_zero(d->kcopyd, 1, &to, 0, dmu_copy_done, io);
		return;
	}
	from.bdev = t->devs[cow->src_dev].dev->bdev;
	from.sector = start + cow->src_distance;
	from.count = to.count;
	dm_kcopyd_copy(d->kcopyd, &from, 1, &to, 0, dmu_copy_done, io);
}
