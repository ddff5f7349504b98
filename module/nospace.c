// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes that found no space below.  With "no_space wait" they are held here
 * and tried again every second: they go the way of a bio that enters, so that
 * whatever changed meanwhile is looked at.  No suspend waits for them: a
 * flushing one lets them fail, another gives them back to device-mapper.
 *
 * One that was sent may lie in many blocks, which need not go one way any more,
 * and device-mapper cuts a bio only where it enters.  So from here on it goes
 * block by block: one after the other is all of the bio, and the end of each
 * is the beginning of the next.
 */
#include "dmu.h"

#define DMU_NO_SPACE_RETRY	HZ

/* A discard needs none, and is not to be taken for a write later. */
static bool dmu_needs_space(struct bio *bio)
{
	return op_is_write(bio_op(bio)) && bio_op(bio) != REQ_OP_DISCARD;
}

/* No suspend waits for it, or one that did not flush was broken off. */
static bool dmu_may_hold(struct dmu_disk *d)
{
	return d->mode == DMU_MODE_RUN || d->mode == DMU_MODE_REQUEUE;
}

/*
 * @bio found no space: it is held, taken back by device-mapper, or ends.  Under
 * the lock, so that a suspend finds it held or is seen.  A DM_ENDIO_ code.
 */
static int dmu_no_space(struct dmu_target *t, struct bio *bio)
{
	struct dmu_disk *d = t->disk;
	int r = DM_ENDIO_DONE;
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (d->no_space_wait && dmu_must_requeue(t)) {
		r = DM_ENDIO_REQUEUE;
	} else if (d->no_space_wait && dmu_may_hold(d)) {
		bio_list_add(&d->no_space, bio);
		queue_delayed_work(d->wq, &d->no_space_work,
				   DMU_NO_SPACE_RETRY);
		r = DM_ENDIO_INCOMPLETE;
	}
	spin_unlock_irqrestore(&d->lock, flags);
	return r;
}

/* Bytes of the rest's first block. */
static unsigned int dmu_rest_block(struct dmu_io *io)
{
	sector_t size = dmu_block_sectors(io->t->disk);
	sector_t start = dm_target_offset(io->t->ti, io->rest.bi_sector);

	return min_t(sector_t, io->rest.bi_size,
		     (size - (start & (size - 1))) << SECTOR_SHIFT);
}

/*
 * The rest's first block is all of @bio now.  What the layers below did to it
 * is undone as device-mapper's own targets do.  FUA is left to a round behind
 * the last block.
 */
static void dmu_rest_take(struct dmu_io *io, struct bio *bio, unsigned int was)
{
	bio->bi_iter = io->rest;
	bio->bi_iter.bi_size = dmu_rest_block(io);
	bio->bi_status = BLK_STS_OK;
	atomic_set(&bio->__bi_remaining, 1);
	io->flags = was & DMU_IO_COMMIT;
	if ((bio->bi_opf & REQ_FUA) || (was & DMU_IO_FUA)) {
		bio->bi_opf &= ~REQ_FUA;
		io->flags |= DMU_IO_COMMIT;
	}
}

/* @bio was sent, with flags as they @was, and came back.  A DM_ENDIO_ code. */
int dmu_no_space_end(struct dmu_target *t, struct bio *bio, unsigned int was)
{
	struct dmu_io *io = dmu_io_of(bio);

	if (!dmu_needs_space(bio) || !READ_ONCE(t->disk->no_space_wait))
		return DM_ENDIO_DONE;
	if (!io->rest.bi_size)
		io->rest = io->iter;
	dmu_rest_take(io, bio, was);
	return dmu_no_space(t, bio);
}

/* A block of @bio is written.  False: it was the last. */
bool dmu_no_space_goes_on(struct bio *bio, unsigned int was)
{
	struct dmu_io *io = dmu_io_of(bio);
	struct bio_list bios = BIO_EMPTY_LIST;

	bio_advance_iter(bio, &io->rest, dmu_rest_block(io));
	if (!io->rest.bi_size)
		return false;
	dmu_rest_take(io, bio, was);
	bio_list_add(&bios, bio);
	dmu_io_defer(io->t->disk, &bios);
	return true;
}

/* @bio was never sent, and cannot go on because of @status. */
void dmu_end_unsent(struct bio *bio, blk_status_t status)
{
	int r = DM_ENDIO_DONE;

	if (status == BLK_STS_NOSPC && dmu_needs_space(bio))
		r = dmu_no_space(dmu_io_of(bio)->t, bio);
	if (r == DM_ENDIO_INCOMPLETE)
		return;
	if (r == DM_ENDIO_REQUEUE)
		status = BLK_STS_DM_REQUEUE;
	bio->bi_status = status;
	bio_endio(bio);
}

/*
 * The daemon did with @bio, a request, what it could.  What it found no space for is
 * from here on written as it would be without it.
 */
void dmu_end_request(struct bio *bio, blk_status_t status)
{
	struct dmu_io *io = dmu_io_of(bio);

	/* Also where it ends now: that is decided under the lock. */
	if (status == BLK_STS_NOSPC && dmu_needs_space(bio)) {
		io->rest = bio->bi_iter;
		dmu_rest_take(io, bio, 0);
	}
	dmu_end_unsent(bio, status);
}

void dmu_no_space_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(to_delayed_work(work),
					  struct dmu_disk, no_space_work);
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock_irq(&d->lock);
	bio_list_merge(&bios, &d->no_space);
	bio_list_init(&d->no_space);
	spin_unlock_irq(&d->lock);
	dmu_io_defer(d, &bios);
}

void dmu_set_no_space_wait(struct dmu_disk *d, bool wait)
{
	spin_lock_irq(&d->lock);
	d->no_space_wait = wait;
	if (!bio_list_empty(&d->no_space))
		mod_delayed_work(d->wq, &d->no_space_work, 0);
	spin_unlock_irq(&d->lock);
}
