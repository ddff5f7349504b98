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
			  struct bio_list *bios, blk_status_t status)
{
	struct bio_list again = BIO_EMPTY_LIST;
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		if (dmu_io_of(bio)->cow != cow) {
			bio_list_add(&again, bio);
			continue;
		}
		dmu_end_unsent(bio, status);
	}
	dmu_io_defer(d, &again);
}

static struct dm_io_region dmu_copy_to(struct dmu_io *io)
{
	struct dmu_target *t = io->t;
	sector_t start = dmu_block_to_sector(t->disk, io->cell.first);

	return (struct dm_io_region){
		.bdev = t->devs[io->cow->dev].dev->bdev,
		.sector = start + io->cow->distance,
		.count = min(dmu_block_sectors(t->disk), t->nr_sectors - start),
	};
}

static void dmu_copy_end(struct dmu_io *io, blk_status_t status)
{
	struct dmu_disk *d = io->t->disk;
	struct dmu_cow *cow = io->cow;
	struct bio_list bios = BIO_EMPTY_LIST;
	int idx = io->srcu_idx;

	trace_dmu_copy(d->key, io->cell.first, !!status);
	spin_lock_irq(&d->lock);
	if (!status)
		dmu_cow_mark_dirty(cow, io->cell.first, 1);
	dmu_cell_release(d, &io->cell, &bios);
	dmu_cow_put(cow);
	spin_unlock_irq(&d->lock);

	if (status) {
		dmu_count(d, DMU_COPY_ERRORS);
		dmu_copy_fail(d, cow, &bios, status);
	} else {
		dmu_count(d, DMU_COPIES);
		dmu_io_defer(d, &bios);
	}
	dmu_flight_end(d, idx);
}

/*
 * kcopyd does not tell why a write failed, and a person must be able to tell
 * a full file system from a broken disk.  Nothing is visible of the place
 * before the copy is whole, so that zeroes may be tried there.
 */
static blk_status_t dmu_copy_error(struct dmu_io *io)
{
	struct dm_io_region to = dmu_copy_to(io);
	int err;

	err = blkdev_issue_zeroout(to.bdev, to.sector, to.count, GFP_NOIO,
				   BLKDEV_ZERO_NOUNMAP);
	return err == -ENOSPC ? BLK_STS_NOSPC : BLK_STS_IOERR;
}

static struct dmu_io *dmu_next_failed(struct dmu_disk *d)
{
	struct dmu_cell *cell;

	spin_lock_irq(&d->lock);
	cell = list_first_entry_or_null(&d->failed_copies, struct dmu_cell,
					list);
	if (cell)
		list_del(&cell->list);
	spin_unlock_irq(&d->lock);
	return cell ? container_of(cell, struct dmu_io, cell) : NULL;
}

void dmu_copy_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(work, struct dmu_disk, copy_work);
	struct dmu_io *io;

	while ((io = dmu_next_failed(d)))
		dmu_copy_end(io, dmu_copy_error(io));
}

static void dmu_copy_done(int read_err, unsigned long write_err, void *context)
{
	struct dmu_io *io = context;
	struct dmu_disk *d = io->t->disk;

	if (read_err || write_err)
		DMERR_LIMIT("%s: cannot copy block %llu: %s error", d->key,
			    io->cell.first, read_err ? "read" : "write");
	if (read_err || !write_err) {
		dmu_copy_end(io, read_err ? BLK_STS_IOERR : BLK_STS_OK);
		return;
	}
	spin_lock_irq(&d->lock);
	list_add_tail(&io->cell.list, &d->failed_copies);
	queue_work(d->wq, &d->copy_work);
	spin_unlock_irq(&d->lock);
}

/* The cell of @io is in place; from here on @io may be gone at any time. */
void dmu_copy_start(struct dmu_io *io)
{
	struct dmu_target *t = io->t;
	struct dmu_disk *d = t->disk;
	struct dmu_cow *cow = io->cow;
	sector_t start = dmu_block_to_sector(d, io->cell.first);
	struct dm_io_region from, to = dmu_copy_to(io);

	if (cow->src_dev == DMU_DEV_NONE) {
		dm_kcopyd_zero(d->kcopyd, 1, &to, 0, dmu_copy_done, io);
		return;
	}
	from.bdev = t->devs[cow->src_dev].dev->bdev;
	from.sector = start + cow->src_distance;
	from.count = to.count;
	dm_kcopyd_copy(d->kcopyd, &from, 1, &to, 0, dmu_copy_done, io);
}
