// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes that found no space below.  With "no_space wait" they are held here
 * and tried again every second: they go the way of a bio that enters, so that
 * whatever changed meanwhile is looked at.  No suspend waits for them: a
 * flushing one lets them fail, another gives them back to device-mapper.
 */
#include "dmu.h"

#define DMU_NO_SPACE_RETRY	HZ

/* False: the write must end. */
static bool dmu_no_space_hold(struct dmu_disk *d, struct bio *bio)
{
	unsigned long flags;
	bool hold;

	spin_lock_irqsave(&d->lock, flags);
	hold = d->no_space_wait && d->mode == DMU_MODE_RUN;
	if (hold) {
		bio_list_add(&d->no_space, bio);
		queue_delayed_work(d->wq, &d->no_space_work,
				   DMU_NO_SPACE_RETRY);
	}
	spin_unlock_irqrestore(&d->lock, flags);
	return hold;
}

/*
 * @bio was sent and came back: @fua as it entered.  A DM_ENDIO_ code.  What
 * the layers below did to the bio is undone as device-mapper's own targets do.
 */
int dmu_no_space_end(struct dmu_target *t, struct bio *bio, bool fua)
{
	if (!op_is_write(bio_op(bio)) || !READ_ONCE(t->disk->no_space_wait))
		return DM_ENDIO_DONE;
	if (dmu_must_requeue(t))
		return DM_ENDIO_REQUEUE;
	bio->bi_iter = dmu_io_of(bio)->iter;
	bio->bi_status = BLK_STS_OK;
	atomic_set(&bio->__bi_remaining, 1);
	if (fua)
		bio->bi_opf |= REQ_FUA;
	if (dmu_no_space_hold(t->disk, bio))
		return DM_ENDIO_INCOMPLETE;
	return DM_ENDIO_DONE;
}

/* @bio was never sent, and cannot go on because of @status. */
void dmu_end_unsent(struct bio *bio, blk_status_t status)
{
	struct dmu_target *t = dmu_io_of(bio)->t;

	if (status == BLK_STS_NOSPC && op_is_write(bio_op(bio)) &&
	    READ_ONCE(t->disk->no_space_wait)) {
		if (dmu_must_requeue(t))
			status = BLK_STS_DM_REQUEUE;
		else if (dmu_no_space_hold(t->disk, bio))
			return;
	}
	bio->bi_status = status;
	bio_endio(bio);
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
