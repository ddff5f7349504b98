// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio: hit, first write, or fault.
 *
 * A bio is cut where it enters so that what must wait lies in one block (I3).
 * What waited runs the same way again when its cell is gone, in order, from
 * the disk's worker; it is never cut again.
 */
#include "dmu.h"
#include "trace.h"

/* An answer of dmu_route_*(): look at the map again. */
#define DMU_RETRY (-1)

enum dmu_action {
	DMU_SEND,		/* to (dev, distance) */
	DMU_READ_ZERO,
	DMU_ERROR,
	DMU_FIRST_WRITE,	/* to an OLD block of cow */
	DMU_FAULT,
};

struct dmu_way {
	enum dmu_action action;
	u32 dev;
	s64 distance;
	u64 blocks;		/* for so many blocks, at least one */
	struct dmu_cow *cow;
};

/* What the map says of a run that begins in a COW extent. */
static void dmu_way_cow(struct dmu_way *w, struct dmu_cow *cow, u64 block,
			bool write)
{
	bool own;

	w->cow = cow;
	w->blocks = dmu_cow_run(cow, block, w->blocks, &own);
	if (own) {
		w->action = DMU_SEND;
		w->dev = cow->dev;
		w->distance = cow->distance;
	} else if (write) {
		w->action = dmu_cow_is_revoked(cow) ? DMU_FAULT :
						      DMU_FIRST_WRITE;
	} else if (cow->src_dev == DMU_DEV_NONE) {
		w->action = DMU_READ_ZERO;
	} else {
		w->action = DMU_SEND;
		w->dev = cow->src_dev;
		w->distance = cow->src_distance;
	}
}

static void dmu_way_value(struct dmu_way *w, const void *entry, bool write)
{
	w->dev = dmu_value_dev(entry);
	w->distance = dmu_value_distance(entry);
	switch (dmu_value_kind(entry)) {
	case DMU_VALUE_RW:
		w->action = DMU_SEND;
		break;
	case DMU_VALUE_RO:
		w->action = write ? DMU_FAULT : DMU_SEND;
		break;
	case DMU_VALUE_ZERO:
		w->action = write ? DMU_FAULT : DMU_READ_ZERO;
		break;
	case DMU_VALUE_ERROR:
		w->action = DMU_ERROR;
		break;
	}
}

/*
 * In an SRCU section: what to do with I/O to [block, block + count).  False:
 * the map is being changed, try again.  In line, and what is no hit is not: calls
 * are a good part of what a hit costs.
 */
static __always_inline bool dmu_find_way(struct dmu_disk *d, u64 block, u64 count, bool write,
			 struct dmu_way *w)
{
	void *entry;
	u64 last;

	if (!dmu_map_lookup(d, block, &entry, &last))
		return false;
	w->cow = NULL;
	w->blocks = min(count - 1, last - block) + 1;
	if (!entry)
		w->action = DMU_FAULT;
	else if (xa_is_value(entry))
		dmu_way_value(w, entry, write);
	else
		dmu_way_cow(w, entry, block, write);
	return true;
}

static sector_t dmu_bio_sector(struct dmu_target *t, struct bio *bio)
{
	return dm_target_offset(t->ti, bio->bi_iter.bi_sector);
}

static u64 dmu_bio_block(struct dmu_target *t, struct bio *bio)
{
	return dmu_sector_to_block(t->disk, dmu_bio_sector(t, bio));
}

/* Blocks that @bio touches. */
static u64 dmu_bio_blocks(struct dmu_target *t, struct bio *bio)
{
	sector_t end = dmu_bio_sector(t, bio) + bio_sectors(bio);

	return dmu_sector_to_block(t->disk, end - 1) - dmu_bio_block(t, bio) + 1;
}

/* Blocks that @bio covers whole, counted from the one it starts in. */
static u64 dmu_bio_whole_blocks(struct dmu_target *t, struct bio *bio)
{
	struct dmu_disk *d = t->disk;
	sector_t start = dmu_bio_sector(t, bio);
	sector_t end = start + bio_sectors(bio);

	if (start & (dmu_block_sectors(d) - 1))
		return 0;
	if (end == t->nr_sectors)	/* the last block may be short */
		end = round_up(end, dmu_block_sectors(d));
	return dmu_sector_to_block(d, end - start);
}

/* Keep of @bio what lies in its first @blocks blocks. */
static void dmu_cut(struct dmu_target *t, struct bio *bio, u64 blocks)
{
	struct dmu_disk *d = t->disk;
	sector_t start = dmu_bio_sector(t, bio);
	sector_t end = dmu_block_to_sector(d, dmu_sector_to_block(d, start) +
					      blocks);

	if (end - start < bio_sectors(bio))
		dm_accept_partial_bio(bio, end - start);
}

/*
 * What a daemon's errno means for a bio.  Only those that say something about
 * the data pass: others have a meaning of their own between layers.
 */
blk_status_t dmu_status_of(int error)
{
	switch (error) {
	case 0:
	case ENOSPC:
	case ETIMEDOUT:
	case EOPNOTSUPP:
	case ENODATA:
		return errno_to_blk_status(-error);
	default:
		return BLK_STS_IOERR;
	}
}

void dmu_complete_list(struct bio_list *bios, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

/* Let the worker run @bios again. */
void dmu_io_defer(struct dmu_disk *d, struct bio_list *bios)
{
	unsigned long flags;

	if (bio_list_empty(bios))
		return;
	spin_lock_irqsave(&d->lock, flags);
	bio_list_merge(&d->deferred, bios);
	queue_work(d->wq, &d->deferred_work);	/* under the lock: @d may go after */
	spin_unlock_irqrestore(&d->lock, flags);
}

/* ways */

/*
 * Nothing may be held: device-mapper takes it back.  Only while it says so
 * itself; when a suspend is broken off it does not any more, and then what
 * comes must wait as usual.
 */
bool dmu_must_requeue(struct dmu_target *t)
{
	return t->disk->mode == DMU_MODE_REQUEUE && dm_noflush_suspending(t->ti);
}

/* The table that takes over prunes what does not fit it: @dev is one of @t. */
int dmu_io_send(struct dmu_target *t, struct bio *bio, u32 dev,
		s64 distance, int srcu_idx)
{
	struct dmu_io *io = dmu_io_of(bio);

	io->srcu_idx = srcu_idx;
	io->flags |= DMU_IO_SENT;
	io->iter = bio->bi_iter;
	if (bio->bi_opf & REQ_FUA) {
		smp_rmb();	/* the bits first: dmu_cow_mark_dirty() */
		if ((io->flags & DMU_IO_CLAIM) || dmu_must_commit(t->disk)) {
			bio->bi_opf &= ~REQ_FUA;
			io->flags |= DMU_IO_COMMIT;
		} else {
			io->flags |= DMU_IO_FUA;
		}
	}
	bio->bi_iter.bi_sector = dmu_bio_sector(t, bio) + distance;
	bio_set_dev(bio, t->devs[dev].dev->bdev);
	return DM_MAPIO_REMAPPED;
}

/* Keeps short what is done to the bits of a claim under the lock. */
#define DMU_MAX_CLAIM 1024

/*
 * How many OLD blocks one write may claim: those it covers whole that nothing
 * is busy with.
 */
static u64 dmu_claimable(struct dmu_disk *d, struct dmu_cow *cow, u64 block,
			 u64 count)
{
	struct dmu_cell *next;
	bool own;

	if (!count)
		return 0;
	count = dmu_cow_run(cow, block, min_t(u64, count, DMU_MAX_CLAIM), &own);
	next = dmu_cell_first(d, block, block + count - 1);
	return next ? next->first - block : count;
}

static void dmu_lead(struct dmu_disk *d, struct dmu_io *io,
		     enum dmu_cell_kind kind, u64 block, u64 count)
{
	struct dmu_cell *cell = &io->cell;

	cell->kind = kind;
	cell->first = block;
	cell->last = block + count - 1;
	cell->id = 0;
	bio_list_init(&cell->waiters);
	if (kind != DMU_CELL_REQUEST)
		dmu_cell_insert(d, cell);
}

/*
 * Who sends @bio on later is not who made it: the cgroup that it counts for is
 * noted before it is held.  What is sent on at once has it noted there.
 */
static void dmu_note_cgroup(struct bio *bio)
{
	bio_set_dev(bio, bio->bi_bdev);
}

/* A write to an OLD block: claim it, copy it, or wait for who does. */
static noinline int dmu_first_write(struct dmu_target *t, struct bio *bio,
			   struct dmu_way *w, int idx)
{
	struct dmu_disk *d = t->disk;
	struct dmu_io *io = dmu_io_of(bio);
	struct dmu_cow *cow = w->cow;
	u64 block = dmu_bio_block(t, bio);
	struct dmu_cell *cell;
	unsigned long flags;
	u64 n;

	dmu_note_cgroup(bio);
	spin_lock_irqsave(&d->lock, flags);
	/* refs 0: it left the map meanwhile, and dies when this section ends */
	if (!cow->refs || dmu_cow_is_revoked(cow) ||
	    dmu_cow_is_own(cow, block)) {
		spin_unlock_irqrestore(&d->lock, flags);
		dmu_flight_end(d, idx);
		return DMU_RETRY;
	}
	cell = dmu_cell_first(d, block, block);
	if (cell) {
		dmu_cut(t, bio, 1);
		io->cow = cow;	/* only compared: who fails with the copy */
		dmu_hold(d, cell, bio);
		spin_unlock_irqrestore(&d->lock, flags);
		dmu_flight_end(d, idx);
		return DM_MAPIO_SUBMITTED;
	}

	dmu_cow_get(cow);
	io->cow = cow;
	n = dmu_claimable(d, cow, block,
			  min(dmu_bio_whole_blocks(t, bio), w->blocks));
	dmu_cut(t, bio, n ?: 1);
	if (n) {
		dmu_lead(d, io, DMU_CELL_CLAIM, block, n);
		spin_unlock_irqrestore(&d->lock, flags);
		io->flags |= DMU_IO_CLAIM;
		return dmu_io_send(t, bio, cow->dev, cow->distance, idx);
	}
	dmu_lead(d, io, DMU_CELL_COPY, block, 1);
	dmu_hold(d, &io->cell, bio);
	io->srcu_idx = idx;
	spin_unlock_irqrestore(&d->lock, flags);
	dmu_copy_start(io);
	return DM_MAPIO_SUBMITTED;
}

/* The map does not say enough: ask, or join who asks or is busy. */
static int dmu_fault_locked(struct dmu_target *t, struct bio *bio, bool write)
{
	struct dmu_disk *d = t->disk;
	struct dmu_io *io = dmu_io_of(bio);
	u64 block = dmu_bio_block(t, bio);
	struct dmu_cell *cell;
	struct dmu_way w;

	/* The mapping may have come before the lock was taken. */
	if (!dmu_find_way(d, block, 1, write, &w) || w.action != DMU_FAULT)
		return DMU_RETRY;
	if (dmu_must_requeue(t))
		return DM_MAPIO_REQUEUE;

	cell = dmu_cell_first(d, block, block);
	if (!cell && dmu_must_fail(d))
		return DM_MAPIO_KILL;
	dmu_cut(t, bio, 1);
	if (!cell) {
		cell = &io->cell;
		cell->write = write;
		cell->overwrite = write && dmu_bio_whole_blocks(t, bio);
		dmu_lead(d, io, DMU_CELL_ASK, block, 1);
		list_add_tail(&cell->list, dmu_ask_list(d, cell));
		dmu_count(d, DMU_FAULTS);
		trace_dmu_fault(d->key, block, write);
		dmu_wake(d);
	} else if (cell->kind == DMU_CELL_ASK && !cell->id && write &&
		   !cell->write) {
		cell->write = true;
		cell->overwrite = dmu_bio_whole_blocks(t, bio);
	}
	dmu_hold(d, cell, bio);
	return DM_MAPIO_SUBMITTED;
}

static noinline int dmu_fault(struct dmu_target *t, struct bio *bio, bool write, int idx)
{
	struct dmu_disk *d = t->disk;
	unsigned long flags;
	int r;

	dmu_note_cgroup(bio);
	spin_lock_irqsave(&d->lock, flags);
	r = dmu_fault_locked(t, bio, write);
	spin_unlock_irqrestore(&d->lock, flags);
	/* A held bio may have ended by now, and @t with it. */
	dmu_flight_end(d, idx);
	return r;
}

/* Returns a DM_MAPIO_ code or DMU_RETRY; ends the SRCU section, or hands it on. */
static int dmu_route_once(struct dmu_target *t, struct bio *bio, bool entering)
{
	bool write = op_is_write(bio_op(bio));
	u64 block = dmu_bio_block(t, bio), count = dmu_bio_blocks(t, bio);
	struct dmu_disk *d = t->disk;
	struct dmu_way w;
	int idx = dmu_flight_begin(d);

	while (!dmu_find_way(d, block, count, write, &w))
		cpu_relax();
	switch (w.action) {
	case DMU_SEND:
		if (w.blocks < count)
			dmu_cut(t, bio, w.blocks);
		if (!entering)
			return dmu_io_send(t, bio, w.dev, w.distance, idx);
		dmu_count(d, write ? DMU_HITS_WRITE : DMU_HITS_READ);
		dmu_io_send(t, bio, w.dev, w.distance, idx);
		return dmu_file_try(t, bio, w.dev);
	case DMU_READ_ZERO:
		dmu_cut(t, bio, w.blocks);
		dmu_flight_end(d, idx);
		if (entering)
			dmu_count(d, DMU_HITS_READ);
		zero_fill_bio(bio);
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	case DMU_FIRST_WRITE:
		return dmu_first_write(t, bio, &w, idx);
	case DMU_FAULT:
		return dmu_fault(t, bio, write, idx);
	case DMU_ERROR:
		break;
	}
	dmu_flight_end(d, idx);
	return DM_MAPIO_KILL;
}

static int dmu_route(struct dmu_target *t, struct bio *bio, bool entering)
{
	int r;

	do {
		r = dmu_route_once(t, bio, entering);
	} while (r == DMU_RETRY);
	return r;
}

/*
 * What waited and may go on.  REQ_NOWAIT is a promise to whoever submitted it, who
 * got away long ago; this worker may wait for a request below.
 */
static void dmu_run_again(struct bio *bio)
{
	struct dmu_io *io = dmu_io_of(bio);

	bio->bi_opf &= ~REQ_NOWAIT;
	if (io->flags & DMU_IO_READY) {
		io->flags &= ~DMU_IO_READY;
		submit_bio_noacct(bio);
		return;
	}
	/* I3: device-mapper would cut its stack. */
	if (WARN_ON_ONCE(dmu_bio_blocks(io->t, bio) > 1)) {
		bio_io_error(bio);
		return;
	}
	switch (dmu_route(io->t, bio, false)) {
	case DM_MAPIO_REMAPPED:
		submit_bio_noacct(bio);
		break;
	case DM_MAPIO_REQUEUE:
		bio->bi_status = BLK_STS_DM_REQUEUE;
		bio_endio(bio);
		break;
	case DM_MAPIO_KILL:
		bio_io_error(bio);
		break;
	}
}

void dmu_deferred_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(work, struct dmu_disk, deferred_work);
	struct bio_list bios = BIO_EMPTY_LIST;
	struct blk_plug plug;
	struct bio *bio;

	spin_lock_irq(&d->lock);
	bio_list_merge(&bios, &d->deferred);
	bio_list_init(&d->deferred);
	spin_unlock_irq(&d->lock);

	blk_start_plug(&plug);
	while ((bio = bio_list_pop(&bios)))
		dmu_run_again(bio);
	blk_finish_plug(&plug);
}

/* discard and write-zeroes */

/*
 * Hold @bio, whole blocks, until the daemon has done what it asks for.  DMU_RETRY: by now
 * the daemon is one that does without @feature.
 */
static int dmu_request(struct dmu_target *t, struct bio *bio, u64 blocks,
		       u64 feature)
{
	struct dmu_disk *d = t->disk;
	struct dmu_io *io = dmu_io_of(bio);
	unsigned long flags;
	int r = DM_MAPIO_SUBMITTED;

	dmu_note_cgroup(bio);
	spin_lock_irqsave(&d->lock, flags);
	if (!(d->features & feature)) {
		r = DMU_RETRY;
	} else if (dmu_must_requeue(t)) {
		r = DM_MAPIO_REQUEUE;
	} else if (dmu_must_fail(d)) {
		r = DM_MAPIO_KILL;
	} else {
		dmu_cut(t, bio, blocks);
		dmu_lead(d, io, DMU_CELL_REQUEST, dmu_bio_block(t, bio), blocks);
		list_add_tail(&io->cell.list, &d->asks);
		dmu_hold(d, &io->cell, bio);
		dmu_wake(d);
	}
	spin_unlock_irqrestore(&d->lock, flags);
	return r;
}

static int dmu_done(struct bio *bio)
{
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

/* A part of a block cannot be given back; that is no error. */
static int dmu_discard_asked(struct dmu_target *t, struct bio *bio)
{
	u64 n = dmu_bio_whole_blocks(t, bio);

	if (n)
		return dmu_request(t, bio, n, DMU_FEAT_DISCARD);
	dmu_cut(t, bio, 1);
	return dmu_done(bio);
}

/*
 * Without the daemon: what is ours goes to its destination; what is not ours
 * stays as it reads, because a discard must not bring up other data.
 */
static noinline int dmu_discard(struct dmu_target *t, struct bio *bio)
{
	struct dmu_disk *d = t->disk;
	struct dmu_way w;
	int idx, r;

	dmu_count(d, DMU_DISCARDS);
	if (READ_ONCE(d->features) & DMU_FEAT_DISCARD) {
		r = dmu_discard_asked(t, bio);
		if (r != DMU_RETRY)
			return r;
	}

	idx = dmu_flight_begin(d);
	while (!dmu_find_way(d, dmu_bio_block(t, bio), dmu_bio_blocks(t, bio),
			     true, &w))
		cpu_relax();
	dmu_cut(t, bio, w.blocks);
	if (w.action == DMU_SEND &&
	    bdev_max_discard_sectors(t->devs[w.dev].dev->bdev))
		return dmu_io_send(t, bio, w.dev, w.distance, idx);
	dmu_flight_end(d, idx);
	return dmu_done(bio);
}

static noinline int dmu_write_zeroes(struct dmu_target *t, struct bio *bio)
{
	u64 n = dmu_bio_whole_blocks(t, bio);
	int r;

	dmu_count(t->disk, DMU_DISCARDS);
	if (n && (READ_ONCE(t->disk->features) & DMU_FEAT_WRITE_ZEROES)) {
		r = dmu_request(t, bio, n, DMU_FEAT_WRITE_ZEROES);
		if (r != DMU_RETRY)
			return r;
	}
	return dmu_route(t, bio, true);
}

static noinline int dmu_flush(struct dmu_target *t, struct bio *bio)
{
	int r;

	if (dmu_flush_through(t, bio, &r))
		return r;
	return dmu_flush_wait(t, bio) ? DM_MAPIO_SUBMITTED :
					DM_MAPIO_REQUEUE;
}

/* A bio enters. */
int dmu_io_map(struct dmu_target *t, struct bio *bio)
{
	struct dmu_io *io = dmu_io_of(bio);

	io->t = t;
	io->cow = NULL;
	io->flags = 0;
	io->rest.bi_size = 0;
	if (bio->bi_opf & REQ_PREFLUSH)
		return dmu_flush(t, bio);
	switch (bio_op(bio)) {
	case REQ_OP_DISCARD:
		return dmu_discard(t, bio);
	case REQ_OP_WRITE_ZEROES:
		return dmu_write_zeroes(t, bio);
	default:
		return dmu_route(t, bio, true);
	}
}

/* A write that covers OLD blocks is through: they are ours, or as before. */
static void dmu_claim_end(struct dmu_disk *d, struct dmu_io *io,
			  blk_status_t error)
{
	struct dmu_cell *cell = &io->cell;
	u64 n = cell->last - cell->first + 1;
	struct bio_list bios = BIO_EMPTY_LIST;
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!error)
		dmu_cow_mark_dirty(io->cow, cell->first, n);
	dmu_cell_release(d, cell, &bios);
	dmu_cow_put(io->cow);
	spin_unlock_irqrestore(&d->lock, flags);
	if (!error)
		this_cpu_add(d->stats->v[DMU_OVERWRITES], n);
	dmu_io_defer(d, &bios);
}

/*
 * Has a flush failed with @error?  Below, FUA may be a flush behind the write,
 * but where the write finds no space, nothing is flushed behind it.  What would
 * have had to wait (REQ_NOWAIT) was not begun.
 */
static bool dmu_flush_failed(const struct bio *bio, unsigned int was,
			     blk_status_t error)
{
	if (!error || error == BLK_STS_NOTSUPP || error == BLK_STS_AGAIN)
		return false;
	if (was & DMU_IO_FLUSH)
		return true;
	return (was & DMU_IO_SENT) && (bio->bi_opf & REQ_FUA) &&
	       error != BLK_STS_NOSPC;
}

/* A bio comes back, or ends here. */
int dmu_io_end(struct dmu_target *t, struct bio *bio, blk_status_t *error)
{
	struct dmu_disk *d = t->disk;
	struct dmu_io *io = dmu_io_of(bio);
	unsigned int was = io->flags;

	if (likely((was & ~DMU_IO_FUA) == DMU_IO_SENT && !*error && !io->rest.bi_size)) {
		io->flags = 0;
		dmu_flight_end(d, io->srcu_idx);
		return DM_ENDIO_DONE;
	}
	if (dmu_flush_failed(bio, was, *error))
		dmu_data_lost(d);
	io->flags = 0;
	if (was & DMU_IO_CLAIM)
		dmu_claim_end(d, io, *error);
	if (was & DMU_IO_SENT)
		dmu_flight_end(d, io->srcu_idx);
	if ((was & DMU_IO_SENT) && *error == BLK_STS_NOSPC)
		return dmu_no_space_end(t, bio, was);
	if (*error)
		return DM_ENDIO_DONE;
	if (io->rest.bi_size && dmu_no_space_goes_on(bio, was))
		return DM_ENDIO_INCOMPLETE;
	if (was & DMU_IO_COMMIT)
		return dmu_flush_wait(t, bio) ? DM_ENDIO_INCOMPLETE :
						DM_ENDIO_REQUEUE;
	return DM_ENDIO_DONE;
}
