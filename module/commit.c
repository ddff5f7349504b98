// SPDX-License-Identifier: GPL-2.0-only
/*
 * Flushes and commits: rounds of freeze, device flush, report, FLUSHED.
 * docs/kernel.md tells the steps; I7 and I10 are kept by the order here.
 *
 * A round has one owner at a time: FLUSHING the worker, REPORTING and
 * DELIVERING the channel's reader, WAITING nobody, CLEANING the writer that
 * brought FLUSHED.
 */
#include "dmu.h"
#include "trace.h"

void dmu_round_kick(struct dmu_disk *d)
{
	queue_work(d->wq, &d->round_work);
}

/*
 * A flush, or a written FUA bio, waits for the next round.  False: it cannot
 * wait for the daemon now, device-mapper must take it back.
 */
bool dmu_flush_wait(struct dmu_target *t, struct bio *bio)
{
	struct dmu_disk *d = t->disk;
	unsigned long flags;
	bool wait;

	spin_lock_irqsave(&d->lock, flags);
	wait = !dmu_must_requeue(t) || !dmu_must_commit(d);
	if (wait) {
		bio_list_add(&d->flushes, bio);
		dmu_round_kick(d);	/* under the lock: @d may go after */
	}
	spin_unlock_irqrestore(&d->lock, flags);
	return wait;
}

/*
 * With nothing to commit and at most one device written to, a flush needs no
 * round: it is complete, or is that device's flush.
 */
bool dmu_flush_through(struct dmu_target *t, struct bio *bio, int *result)
{
	struct dmu_disk *d = t->disk;
	unsigned int dev;

	if (dmu_must_commit(d))
		return false;
	dev = find_first_bit(d->written, t->nr_devs);
	if (find_next_bit(d->written, t->nr_devs, dev + 1) < t->nr_devs)
		return false;
	dmu_count(d, DMU_FLUSHES);
	if (dev >= t->nr_devs) {
		bio_endio(bio);
		*result = DM_MAPIO_SUBMITTED;
	} else {
		dmu_io_of(bio)->flags |= DMU_IO_FLUSH;
		bio_set_dev(bio, t->devs[dev].dev->bdev);
		*result = DM_MAPIO_REMAPPED;
	}
	return true;
}

/*
 * The flush of a device failed, ours or the daemon's: what had been written to
 * it may be gone, and no later flush says otherwise.  Who flushed is told and
 * can write again what it wrote, but not the rest of a block that was copied
 * for it: I14.
 */
void dmu_data_lost(struct dmu_disk *d)
{
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!d->lost && (dmu_must_commit(d) || dmu_cell_writes_first(d))) {
		WRITE_ONCE(d->lost, true);
		d->lost_told = false;
		DMERR("%s: data of uncommitted blocks may be lost, as a flush failed: none is committed until the message commit_anyway",
		      d->key);
		dmu_round_kick(d);
	}
	spin_unlock_irqrestore(&d->lock, flags);
}

/* Who asks for it says that nothing was lost. */
void dmu_commit_anyway(struct dmu_disk *d)
{
	spin_lock_irq(&d->lock);
	WRITE_ONCE(d->lost, false);
	spin_unlock_irq(&d->lock);
}

/* What was written to a destination of @t is durable after this. */
static int dmu_flush_target(struct dmu_disk *d, struct dmu_target *t)
{
	unsigned int i;
	int r = 0, err;

	for_each_set_bit(i, d->written, t->nr_devs) {
		err = blkdev_issue_flush(t->devs[i].dev->bdev);
		if (err == -EOPNOTSUPP)
			err = 0;
		if (err)
			DMERR_LIMIT("%s: flush of device %s failed: %d",
				    d->key, t->devs[i].dev->name, err);
		r = r ?: err;
	}
	if (r)
		dmu_data_lost(d);
	return r;
}

/* Without a table nothing was written since the last one went. */
static int dmu_flush_devices(struct dmu_disk *d)
{
	int r;

	down_read(&d->table_lock);
	r = d->target ? dmu_flush_target(d, d->target) : d->last_flush;
	up_read(&d->table_lock);
	if (!r)
		d->unflushed = false;
	return r;
}

/*
 * Table @t goes, no I/O in flight under it.  If it is the live one (the last, or the next
 * does not take over), what is uncommitted is made durable while its devices are there,
 * and the daemon that is attached is asked for a commit; nobody waits for it.
 */
static void dmu_ask_last(struct dmu_disk *d, struct dmu_target *t)
{
	if (d->target != t || !dmu_is_attached(d) || !dmu_must_commit(d))
		return;
	d->last_flush = dmu_flush_target(d, t);
	spin_lock_irq(&d->lock);
	d->commit_wanted = true;	/* its round begins when @t is gone */
	spin_unlock_irq(&d->lock);
}

/* Without keeping out who replies, or detaches: devices may be slow. */
void dmu_round_last(struct dmu_disk *d, struct dmu_target *t)
{
	down_read(&d->table_lock);
	if (d->target == t) {
		d->last_flush = -ENODEV;
		dmu_ask_last(d, t);
	}
	up_read(&d->table_lock);
}

/* For who attached since. */
void dmu_round_last_again(struct dmu_disk *d, struct dmu_target *t)
{
	lockdep_assert_held_write(&d->table_lock);
	if (d->last_flush == -ENODEV)
		dmu_ask_last(d, t);
}

/* Nothing is told before the replay, which waits for its grace period. */
static bool dmu_round_may_tell(struct dmu_disk *d, bool replay)
{
	return d->channel && (!d->replaying || replay);
}

static bool dmu_must_tell_lost(struct dmu_disk *d)
{
	return d->lost && !d->lost_told;
}

/* Does device-mapper take back what waits?  A noflush suspend may have been broken off. */
static bool dmu_flushes_requeue(struct bio_list *flushes)
{
	struct bio *bio = bio_list_peek(flushes);

	return bio && dmu_must_requeue(dmu_io_of(bio)->t);
}

/*
 * Is there something that a round can get on with now?  A commit that is wanted and
 * has nobody to make it waits for who attaches; flushes end without.
 */
static bool dmu_round_due(struct dmu_disk *d)
{
	bool tell = dmu_round_may_tell(d, d->replay_wanted);

	lockdep_assert_held(&d->lock);
	if (d->round.phase != DMU_ROUND_IDLE)
		return false;
	if (tell && (d->replay_wanted || !list_empty(&d->invals) ||
		     dmu_must_tell_lost(d)))
		return true;
	if (tell || d->lost || !dmu_must_commit(d))
		return d->commit_wanted || !bio_list_empty(&d->flushes);
	if (dmu_must_fail(d))
		return !bio_list_empty(&d->flushes);
	return dmu_flushes_requeue(&d->flushes);
}

/* The target is gone, and the daemon knows all that it may still commit. */
bool dmu_is_over(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	if (!d->dead || d->lost)
		return d->dead;
	return !d->replaying && list_empty(&d->pending_invals) &&
	       d->round.phase == DMU_ROUND_IDLE && !dmu_round_due(d);
}

/* The same without disk->lock, which costs nothing while the device is there. */
bool dmu_has_ended(struct dmu_disk *d)
{
	bool over;

	if (!READ_ONCE(d->dead))
		return false;
	spin_lock_irq(&d->lock);
	over = dmu_is_over(d);
	spin_unlock_irq(&d->lock);
	return over;
}

/* The round takes all that waits. */
static bool dmu_round_begin(struct dmu_disk *d)
{
	struct dmu_round *r = &d->round;

	spin_lock_irq(&d->lock);
	if (!dmu_round_due(d)) {
		if (dmu_is_over(d))
			dmu_wake(d);
		spin_unlock_irq(&d->lock);
		return false;
	}
	r->phase = DMU_ROUND_FLUSHING;
	bio_list_merge(&r->flushes, &d->flushes);
	bio_list_init(&d->flushes);
	r->flush = d->commit_wanted || !bio_list_empty(&r->flushes);
	d->commit_wanted = false;
	r->replay = d->replay_wanted;
	d->replay_wanted = false;
	list_splice_tail_init(&d->invals, &r->invals);
	r->metadata_seq = d->metadata_seq;
	spin_unlock_irq(&d->lock);
	return true;
}

/* What the round was to do waits for the next one. */
static void dmu_round_abort(struct dmu_disk *d)
{
	struct dmu_round *r = &d->round;

	bio_list_merge_head(&d->flushes, &r->flushes);
	bio_list_init(&r->flushes);
	list_splice_init(&r->invals, &d->invals);
	d->commit_wanted = d->commit_wanted || r->flush;
	r->flush = false;
	r->phase = DMU_ROUND_IDLE;
}

/*
 * What comes after freeze and device flush.  Flushes that are over go to
 * @bios, to be completed with *@status.
 */
static void dmu_round_next(struct dmu_disk *d, blk_status_t *status,
			   struct bio_list *bios)
{
	struct dmu_round *r = &d->round;
	bool commit = r->flush && !*status && dmu_must_commit(d);

	if (commit && d->lost) {
		*status = BLK_STS_IOERR;
		dmu_count(d, DMU_COMMIT_ERRORS);
		commit = false;
	}
	/* A suspend lets no bio wait; the commit itself may still be made. */
	if (commit && dmu_flushes_requeue(&r->flushes))
		*status = BLK_STS_DM_REQUEUE;
	else if (commit && dmu_must_fail(d))
		*status = BLK_STS_IOERR;
	if (!commit)
		this_cpu_add(d->stats->v[DMU_FLUSHES],
			     bio_list_size(&r->flushes));
	if (!commit || *status) {
		bio_list_merge(bios, &r->flushes);
		bio_list_init(&r->flushes);
	}
	r->flush = commit;
	if (!dmu_round_may_tell(d, r->replay)) {
		dmu_round_abort(d);
		return;
	}
	if (!commit && !r->replay && list_empty(&r->invals) &&
	    !dmu_must_tell_lost(d)) {
		r->phase = DMU_ROUND_IDLE;
		return;
	}
	r->cow = NULL;
	r->block = 0;
	r->phase = DMU_ROUND_REPORTING;
	dmu_wake(d);
}

/* One of the round's invalidations that is to forget, once.  Detach frees them. */
static bool dmu_next_to_forget(struct dmu_disk *d, u64 *block, u64 *count)
{
	struct dmu_inval *inval;
	bool found = false;

	spin_lock_irq(&d->lock);
	list_for_each_entry(inval, &d->round.invals, list) {
		if (!inval->forget)
			continue;
		inval->forget = false;
		*block = inval->block;
		*count = inval->count;
		found = true;
		break;
	}
	spin_unlock_irq(&d->lock);
	return found;
}

/*
 * I15: nothing is in flight under what these took away, all that was copied under
 * it is frozen by now, and nothing newer is there: no mapping of these blocks was
 * taken meanwhile.
 */
static void dmu_forget_discarded(struct dmu_disk *d)
{
	u64 block, count;

	while (dmu_next_to_forget(d, &block, &count))
		dmu_cow_forget(d, block, count);
}

void dmu_round_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(work, struct dmu_disk, round_work);

	while (dmu_round_begin(d)) {
		struct bio_list bios = BIO_EMPTY_LIST;
		blk_status_t status = BLK_STS_OK;

		dmu_cow_freeze(d);
		dmu_forget_discarded(d);
		/*
		 * I7: whoever is told of a block may commit it.  Without a
		 * table, nobody but the daemon is left to flush.
		 */
		if (d->round.flush || d->unflushed)
			status = errno_to_blk_status(dmu_flush_devices(d));
		if (status)
			dmu_count(d, DMU_COMMIT_ERRORS);
		spin_lock_irq(&d->lock);
		dmu_round_next(d, &status, &bios);
		spin_unlock_irq(&d->lock);
		dmu_complete_list(&bios, status);
	}
}

static void dmu_free_invals(struct list_head *invals)
{
	struct dmu_inval *inval, *next;

	list_for_each_entry_safe(inval, next, invals, list)
		dmu_inval_free(inval);
	INIT_LIST_HEAD(invals);
}

/*
 * The channel is gone.  Whatever was for it alone is forgotten; while the
 * worker owns the round it finds out by itself.
 */
void dmu_round_detach(struct dmu_disk *d)
{
	struct dmu_round *r = &d->round;
	struct dmu_inval *inval, *next;

	lockdep_assert_held(&d->lock);
	r->replay = false;
	d->replay_wanted = false;
	d->lost_told = false;
	if (r->phase == DMU_ROUND_REPORTING || r->phase == DMU_ROUND_WAITING)
		dmu_round_abort(d);
	dmu_free_invals(&r->invals);
	dmu_free_invals(&d->invals);
	/* Those whose grace period is not over: who attaches next hears of no end. */
	list_for_each_entry_safe(inval, next, &d->pending_invals, pending)
		dmu_inval_end(inval);
}

static void dmu_event_init(struct dmu_event *ev, u32 type, u64 id)
{
	memset(ev, 0, sizeof(*ev));
	ev->type = type;
	ev->id = id;
}

/*
 * Uncommitted blocks may have lost their mapping without an INVALIDATE: the
 * daemon that is attached hears of them again before it is asked anything.
 */
void dmu_round_retell(struct dmu_disk *d)
{
	spin_lock_irq(&d->lock);
	if (d->channel && !d->replaying && atomic64_read(&d->nr_uncommitted)) {
		d->replaying = true;
		d->replay_wanted = true;
		dmu_round_kick(d);
	}
	spin_unlock_irq(&d->lock);
}

/* The next COMMITTING run behind the cursor, or false. */
static bool dmu_round_run(struct dmu_disk *d, struct dmu_cow **cow, u64 *block,
			  u64 *count)
{
	struct dmu_round *r = &d->round;

	if (!r->cow) {
		if (list_empty(&d->dirty))
			return false;
		r->cow = list_first_entry(&d->dirty, struct dmu_cow, dirty);
		r->block = r->cow->first;
	}
	for (;;) {
		*block = dmu_cow_next_committing(r->cow, r->block, count);
		*cow = r->cow;
		if (*count) {
			r->block = *block + *count;
			return true;
		}
		r->block = *block;
		if (list_is_last(&r->cow->dirty, &d->dirty))
			return false;
		r->cow = list_next_entry(r->cow, dirty);
		r->block = r->cow->first;
	}
}

/* Does the run continue the extent that @ev reports? */
static bool dmu_continues(struct dmu_disk *d, const struct dmu_event *ev,
			  const struct dmu_cow *cow, u64 block)
{
	return ev && ev->dev == cow->dev && ev->block + ev->count == block &&
	       ev->sector + dmu_block_to_sector(d, ev->count) ==
	       dmu_block_to_sector(d, block) + cow->distance;
}

/* Runs looked at in one go at most: bounds the time under the lock. */
#define DMU_MAX_RUNS 4096

/* COPIED events, up to @max; *@all: there are no more. */
static unsigned int dmu_report_copied(struct dmu_disk *d, struct dmu_event *ev,
				      unsigned int max, bool *all)
{
	struct dmu_round *r = &d->round;
	struct dmu_event *last = NULL;
	unsigned int n = 0, runs;
	struct dmu_cow *cow, *at_cow;
	u64 block, count, at_block;

	*all = false;
	for (runs = 0; runs < DMU_MAX_RUNS; runs++) {
		at_cow = r->cow;
		at_block = r->block;
		if (!dmu_round_run(d, &cow, &block, &count)) {
			*all = true;
			break;
		}
		if (dmu_continues(d, last, cow, block)) {
			last->count += count;
			continue;
		}
		if (n == max) {		/* for the next read */
			r->cow = at_cow;
			r->block = at_block;
			break;
		}
		last = &ev[n++];
		dmu_event_init(last, DMU_EV_COPIED, 0);
		last->block = block;
		last->count = count;
		last->dev = cow->dev;
		last->sector = dmu_block_to_sector(d, block) + cow->distance;
	}
	return n;
}

static unsigned int dmu_report_invals(struct dmu_disk *d, struct dmu_event *ev,
				      unsigned int max, struct list_head *done)
{
	struct dmu_inval *inval, *next;
	unsigned int n = 0;

	list_for_each_entry_safe(inval, next, &d->round.invals, list) {
		if (n == max)
			break;
		dmu_event_init(&ev[n], DMU_EV_INVALIDATED, inval->id);
		ev[n].block = inval->block;
		ev[n++].count = inval->count;
		list_move_tail(&inval->list, done);
	}
	return n;
}

/* User space has the events of the last report, or, @ok false, has not. */
void dmu_round_delivered(struct dmu_disk *d, const struct dmu_round *was,
			 struct list_head *done, bool ok)
{
	struct dmu_round *r = &d->round;

	lockdep_assert_held(&d->lock);
	if (!ok) {
		d->lost_told = false;
		if (was->phase == DMU_ROUND_REPORTING) {
			d->replaying = d->replaying || was->replay;
			r->phase = was->phase;
			r->replay = was->replay;
			r->cow = was->cow;
			r->block = was->block;
		}
		list_splice_init(done, &r->invals);
		return;
	}
	dmu_free_invals(done);
	if (r->phase != DMU_ROUND_DELIVERING)
		return;
	r->phase = r->flush ? DMU_ROUND_WAITING : DMU_ROUND_IDLE;
	if (!r->flush)
		dmu_round_kick(d);
}

/*
 * Events of the round under way, up to @max.  After the last one the phase is
 * DELIVERING, which the reader ends when user space has them.  Invalidations
 * that were told go to @done.
 */
unsigned int dmu_round_report(struct dmu_disk *d, struct dmu_event *ev,
			      unsigned int max, struct list_head *done)
{
	struct dmu_round *r = &d->round;
	unsigned int n;
	bool all;

	lockdep_assert_held(&d->lock);
	if (r->phase != DMU_ROUND_REPORTING)
		return 0;
	/* Before any block that it is about; the next round fails its flushes. */
	if (dmu_must_tell_lost(d)) {
		d->lost_told = true;
		bio_list_merge_head(&d->flushes, &r->flushes);
		bio_list_init(&r->flushes);
		r->flush = false;
		dmu_event_init(ev, DMU_EV_LOST, 0);
		return 1;
	}
	n = dmu_report_copied(d, ev, max, &all);
	if (!all)
		return n;
	n += dmu_report_invals(d, ev + n, max - n, done);
	if (r->replay && n < max) {
		dmu_event_init(&ev[n++], DMU_EV_REPLAY_END, 0);
		r->replay = false;
		d->replaying = false;
	}
	if (n == max)
		return n;
	if (r->flush) {
		r->id = ++d->next_id;
		dmu_event_init(&ev[n++], DMU_EV_FLUSH, r->id);
	}
	r->phase = DMU_ROUND_DELIVERING;
	return n;
}

/*
 * An extent that is not to be remembered, and is in the map because something
 * was busy under it: the next commit looks again.
 */
static bool dmu_cow_is_passing(struct dmu_cow *cow)
{
	return !cow->remember && cow->mapped;
}

/*
 * Committed extents leave the dirty list; the clean ones become LINEAR.  What
 * stays keeps its order, and comes before what became dirty meanwhile.
 */
static void dmu_settle_committed(struct dmu_disk *d)
{
	struct dmu_cow *cow;
	LIST_HEAD(all);
	LIST_HEAD(stay);

	spin_lock_irq(&d->lock);
	list_splice_init(&d->dirty, &all);
	while (!list_empty(&all)) {
		cow = list_first_entry(&all, struct dmu_cow, dirty);
		spin_unlock_irq(&d->lock);
		dmu_map_settle(d, cow);
		cond_resched();
		spin_lock_irq(&d->lock);
		if (cow->nr_uncommitted || dmu_cow_is_passing(cow)) {
			list_move_tail(&cow->dirty, &stay);
		} else {
			list_del_init(&cow->dirty);
			dmu_cow_put(cow);
		}
	}
	list_splice(&stay, &d->dirty);
	if (list_empty(&d->dirty))
		d->keep_order = false;
	spin_unlock_irq(&d->lock);
}

/* FLUSHED @id with 0 or a negative errno.  -ENOENT: not owed. */
int dmu_round_flushed(struct dmu_disk *d, u64 id, int error)
{
	struct dmu_round *r = &d->round;
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock_irq(&d->lock);
	if (r->phase != DMU_ROUND_WAITING || r->id != id) {
		spin_unlock_irq(&d->lock);
		return -ENOENT;
	}
	r->phase = DMU_ROUND_CLEANING;
	spin_unlock_irq(&d->lock);

	trace_dmu_commit(d->key, id, error);
	if (!error) {
		mutex_lock(&d->map_mutex);
		dmu_cow_clean(d);
		dmu_settle_committed(d);
		mutex_unlock(&d->map_mutex);
		dmu_count(d, DMU_COMMITS);
	} else {
		dmu_count(d, DMU_COMMIT_ERRORS);
		DMERR_LIMIT("%s: the daemon could not commit: %d", d->key, error);
	}

	spin_lock_irq(&d->lock);
	if (!error)
		d->metadata_done = r->metadata_seq;
	if (!bio_list_empty(&r->flushes))
		dmu_drain_goes_on(d);
	bio_list_merge(&bios, &r->flushes);
	bio_list_init(&r->flushes);
	r->flush = false;
	r->phase = DMU_ROUND_IDLE;
	spin_unlock_irq(&d->lock);
	/* fsync() takes "not supported" for success, as of a disk without a cache. */
	dmu_complete_list(&bios, error == -EOPNOTSUPP ? BLK_STS_IOERR :
							dmu_status_of(-error));
	dmu_round_kick(d);
	return 0;
}
