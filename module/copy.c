// SPDX-License-Identifier: GPL-2.0-only
/*
 * The copier: a block goes from its source to its destination before the first
 * write to a part of it, or together with it.  The copy holds the SRCU section
 * of the write that leads its cell, so that INVALIDATE waits for it.
 *
 * What the write leaves of the block is read into a buffer, and then the block
 * is written whole, the write's own data in the middle: two I/Os below, and one
 * wait for the worker between them.  That takes memory that is there at once.
 * Where none is, for large blocks, and for zeroes, kcopyd copies, which has
 * reserves, and the write runs again behind it: this is the way that always
 * goes on.
 *
 * Writeback sends page after page, each to a block of its own: copies take a
 * multiple of the memory that they are to free. So there are only so many at a
 * time, of both kinds; the others wait, in order, for one to end.
 */
#include "dmu.h"
#include "trace.h"

/* Larger blocks, and writes in more pieces, are left to kcopyd. */
#define DMU_COPY_BYTES		(256 << 10)
#define DMU_COPY_PIECES		16

/* Buffers kept for the next copies: pages fresh from the kernel are zeroed first. */
#define DMU_COPY_IDLE_BYTES	(2 << 20)

/* Copies at a time: so much memory, but some of any size. */
#define DMU_COPIES_BYTES	(16 << 20)
#define DMU_COPIES_MIN		4
#define DMU_COPIES_MAX		256

struct dmu_copy {
	struct list_head list;		/* lock: disk->idle_copies */
	struct work_struct work;
	struct dmu_io *io;
	struct page *buffer;		/* of a block */
	unsigned int order;
	struct bio bio;			/* the read, then the write */
	struct bio_vec vecs[DMU_COPY_PIECES + 2];
};

/* Those that waited for this copy; the rest only met it on the way. */
static void dmu_copy_fail(struct dmu_disk *d, struct dmu_cow *cow,
			  struct bio_list *bios, blk_status_t status)
{
	struct bio_list mine = BIO_EMPTY_LIST, again = BIO_EMPTY_LIST;
	struct bio *bio;

	while ((bio = bio_list_pop(bios)))
		bio_list_add(dmu_io_of(bio)->cow == cow ? &mine : &again, bio);
	dmu_io_defer(d, &again);
	while ((bio = bio_list_pop(&mine)))
		dmu_end_unsent(bio, status);
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

static struct dm_io_region dmu_copy_from(struct dmu_io *io)
{
	struct dmu_target *t = io->t;
	struct dm_io_region r = dmu_copy_to(io);

	r.bdev = t->devs[io->cow->src_dev].dev->bdev;
	r.sector += io->cow->src_distance - io->cow->distance;
	return r;
}

static void dmu_copy_free(struct dmu_copy *c)
{
	__free_pages(c->buffer, c->order);
	kfree(c);
}

static unsigned int dmu_copy_order(struct dmu_disk *d)
{
	return get_order(dmu_block_sectors(d) << SECTOR_SHIFT);
}

u64 dmu_copy_idle_bytes(struct dmu_disk *d)
{
	return (u64)READ_ONCE(d->nr_idle_copies) << (dmu_copy_order(d) + PAGE_SHIFT);
}

/* Returns the bytes. */
u64 dmu_copy_free_idle(struct dmu_disk *d)
{
	u64 bytes = dmu_copy_idle_bytes(d);
	struct dmu_copy *c, *next;
	unsigned long flags;
	LIST_HEAD(idle);

	spin_lock_irqsave(&d->lock, flags);
	list_splice_init(&d->idle_copies, &idle);
	d->nr_idle_copies = 0;
	spin_unlock_irqrestore(&d->lock, flags);
	list_for_each_entry_safe(c, next, &idle, list)
		dmu_copy_free(c);
	return bytes;
}

/* False: there are enough. */
static bool dmu_copy_keep(struct dmu_disk *d, struct dmu_copy *c)
{
	lockdep_assert_held(&d->lock);
	if (dmu_copy_idle_bytes(d) >= DMU_COPY_IDLE_BYTES)
		return false;
	list_add(&c->list, &d->idle_copies);
	d->nr_idle_copies++;
	return true;
}

/* The write went with the copy.  With FUA its block has to be committed first. */
static void dmu_copy_complete(struct dmu_target *t, struct bio *bio)
{
	if (bio->bi_opf & REQ_FUA) {
		if (dmu_flush_wait(t, bio))
			return;
		bio->bi_status = BLK_STS_DM_REQUEUE;
	}
	bio_endio(bio);
}

/*
 * The block stands whole at its destination, or, with a @status, is as before.
 * With @c the write that leads the cell is there as well.  Who is completed
 * last may be the last that keeps @d.
 */
static void dmu_copy_end(struct dmu_io *io, blk_status_t status, struct dmu_copy *c)
{
	struct dmu_target *t = io->t;
	struct dmu_disk *d = t->disk;
	struct dmu_cow *cow = io->cow;
	struct bio_list bios = BIO_EMPTY_LIST;
	struct bio *leader = NULL;
	int idx = io->srcu_idx;
	unsigned long flags;

	trace_dmu_copy(d->key, io->cell.first, !!status);
	spin_lock_irqsave(&d->lock, flags);
	if (!status)
		dmu_cow_mark_dirty(cow, io->cell.first, 1);
	dmu_cell_release(d, &io->cell, &bios);
	dmu_cow_put(cow);
	d->nr_copies--;
	if (!list_empty(&d->waiting_copies))
		queue_work(d->wq, &d->waiting_work);
	if (c && !status)
		leader = bio_list_pop(&bios);
	if (c && dmu_copy_keep(d, c))
		c = NULL;
	spin_unlock_irqrestore(&d->lock, flags);

	dmu_count(d, status ? DMU_COPY_ERRORS : DMU_COPIES);
	dmu_flight_end(d, idx);
	if (c)
		dmu_copy_free(c);
	if (status)
		dmu_copy_fail(d, cow, &bios, status);
	else
		dmu_io_defer(d, &bios);
	if (leader)
		dmu_copy_complete(t, leader);
}

static void dmu_copy_complain(struct dmu_io *io, bool read)
{
	DMERR_LIMIT("%s: cannot copy block %llu: %s error", io->t->disk->key,
		    io->cell.first, read ? "read" : "write");
}

/* with the write */

static void dmu_copy_written(struct bio *bio)
{
	struct dmu_copy *c = bio->bi_private;
	blk_status_t status = bio->bi_status;

	bio_uninit(bio);
	if (status)
		dmu_copy_complain(c->io, false);
	dmu_copy_end(c->io, status, c);
}

static void dmu_copy_add(struct dmu_copy *c, u32 from, u32 to)
{
	if (from < to)
		__bio_add_page(&c->bio, c->buffer + from / PAGE_SIZE, to - from,
			       from % PAGE_SIZE);
}

/* Where the write begins in its block. */
static u32 dmu_copy_head(struct dmu_io *io)
{
	struct dmu_target *t = io->t;
	sector_t s = dm_target_offset(t->ti, dmu_bio_of(io)->bi_iter.bi_sector);

	return (s & (dmu_block_sectors(t->disk) - 1)) << SECTOR_SHIFT;
}

/* Send c->bio on for the writer: the copy is on its account. */
static void dmu_copy_submit(struct dmu_copy *c, bio_end_io_t *end)
{
	struct bio *bio = dmu_bio_of(c->io);

	c->bio.bi_private = c;
	c->bio.bi_end_io = end;
	c->bio.bi_ioprio = bio->bi_ioprio;
	bio_clone_blkg_association(&c->bio, bio);
	submit_bio_noacct(&c->bio);
}

/* What a write tells of its data holds for the whole block, but not how it is to be made durable. */
#define DMU_COPY_FLAGS (REQ_SYNC | REQ_META | REQ_PRIO | REQ_IDLE | REQ_BACKGROUND)

static void dmu_copy_write(struct dmu_copy *c)
{
	struct dmu_io *io = c->io;
	struct bio *bio = dmu_bio_of(io);
	struct dm_io_region to = dmu_copy_to(io);
	u32 head = dmu_copy_head(io);
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_reset(&c->bio, to.bdev, REQ_OP_WRITE | (bio->bi_opf & DMU_COPY_FLAGS));
	c->bio.bi_iter.bi_sector = to.sector;
	dmu_copy_add(c, 0, head);
	bio_for_each_bvec(bv, bio, iter)
		__bio_add_page(&c->bio, bv.bv_page, bv.bv_len, bv.bv_offset);
	dmu_copy_add(c, head + bio->bi_iter.bi_size, to.count << SECTOR_SHIFT);
	dmu_copy_submit(c, dmu_copy_written);
}

/* Not where the read completes: that may be an interrupt. */
static void dmu_copy_go_on(struct work_struct *work)
{
	struct dmu_copy *c = container_of(work, struct dmu_copy, work);

	if (!c->bio.bi_status) {
		dmu_copy_write(c);
		return;
	}
	bio_uninit(&c->bio);
	dmu_copy_complain(c->io, true);
	dmu_copy_end(c->io, BLK_STS_IOERR, c);
}

static void dmu_copy_was_read(struct bio *bio)
{
	struct dmu_copy *c = bio->bi_private;

	queue_work(c->io->t->disk->wq, &c->work);
}

/* From the first to the last byte that the write leaves: one read, with its place if that is between. */
static void dmu_copy_read(struct dmu_copy *c)
{
	struct dm_io_region from = dmu_copy_from(c->io);
	u32 end = from.count << SECTOR_SHIFT;
	u32 head = dmu_copy_head(c->io);
	u32 tail = head + dmu_bio_of(c->io)->bi_iter.bi_size;

	if (tail == end)
		end = head;
	if (head)
		tail = 0;
	bio_init(&c->bio, from.bdev, c->vecs, ARRAY_SIZE(c->vecs), REQ_OP_READ);
	c->bio.bi_iter.bi_sector = from.sector + (tail >> SECTOR_SHIFT);
	dmu_copy_add(c, tail, end);
	dmu_copy_submit(c, dmu_copy_was_read);
}

static bool dmu_copy_suits(struct dmu_io *io)
{
	struct bio *bio = dmu_bio_of(io);
	unsigned int pieces = 0;
	struct bvec_iter iter;
	struct bio_vec bv;

	if (io->cow->src_dev == DMU_DEV_NONE || bio_op(bio) != REQ_OP_WRITE ||
	    dmu_block_sectors(io->t->disk) > DMU_COPY_BYTES >> SECTOR_SHIFT)
		return false;
	bio_for_each_bvec(bv, bio, iter)
		pieces++;
	return pieces <= DMU_COPY_PIECES;
}

static struct dmu_copy *dmu_copy_alloc(struct dmu_disk *d)
{
	const gfp_t gfp = GFP_NOWAIT | __GFP_NOWARN | __GFP_NORETRY | __GFP_NOMEMALLOC;
	struct dmu_copy *c = kmalloc(sizeof(*c), gfp);

	if (!c)
		return NULL;
	c->order = dmu_copy_order(d);
	c->buffer = alloc_pages(gfp | __GFP_COMP, c->order);
	if (!c->buffer) {
		kfree(c);
		return NULL;
	}
	INIT_WORK(&c->work, dmu_copy_go_on);
	return c;
}

/* One that was kept, or NULL. */
static struct dmu_copy *dmu_copy_take_idle(struct dmu_disk *d)
{
	struct dmu_copy *c;

	lockdep_assert_held(&d->lock);
	c = list_first_entry_or_null(&d->idle_copies, struct dmu_copy, list);
	if (c) {
		list_del(&c->list);
		d->nr_idle_copies--;
	}
	return c;
}

/* by kcopyd, before the write */

/*
 * kcopyd does not tell why a write failed, and a person must be able to tell
 * a full file system from a broken disk.  Nothing is visible of the place
 * before the copy is whole, so that zeroes may be tried there.  Where zeroes
 * are what it is to hold, they are the copy: a device may say that it can zero
 * by itself, and not be able to, which kcopyd takes for an error.
 */
static blk_status_t dmu_copy_failed(struct dmu_io *io)
{
	struct dm_io_region to = dmu_copy_to(io);
	int err;

	err = blkdev_issue_zeroout(to.bdev, to.sector, to.count, GFP_NOIO,
				   BLKDEV_ZERO_NOUNMAP);
	if (!err && io->cow->src_dev == DMU_DEV_NONE)
		return BLK_STS_OK;
	dmu_copy_complain(io, false);
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
		dmu_copy_end(io, dmu_copy_failed(io), NULL);
}

static void dmu_copy_done(int read_err, unsigned long write_err, void *context)
{
	struct dmu_io *io = context;
	struct dmu_disk *d = io->t->disk;

	if (read_err)
		dmu_copy_complain(io, true);
	if (read_err || !write_err) {
		dmu_copy_end(io, read_err ? BLK_STS_IOERR : BLK_STS_OK, NULL);
		return;
	}
	spin_lock_irq(&d->lock);
	list_add_tail(&io->cell.list, &d->failed_copies);
	queue_work(d->wq, &d->copy_work);
	spin_unlock_irq(&d->lock);
}

/* @c is a buffer that was kept, or NULL. */
static void dmu_copy_begin(struct dmu_io *io, struct dmu_copy *c)
{
	struct dmu_disk *d = io->t->disk;
	struct dm_io_region from, to = dmu_copy_to(io);

	if (!c && dmu_copy_suits(io))
		c = dmu_copy_alloc(d);
	if (c) {
		c->io = io;
		dmu_copy_read(c);
	} else if (io->cow->src_dev == DMU_DEV_NONE) {
		dm_kcopyd_zero(d->kcopyd, 1, &to, 0, dmu_copy_done, io);
	} else {
		from = dmu_copy_from(io);
		dm_kcopyd_copy(d->kcopyd, &from, 1, &to, 0, dmu_copy_done, io);
	}
}

static bool dmu_copy_has_room(struct dmu_disk *d)
{
	unsigned int shift = d->block_shift + SECTOR_SHIFT;

	lockdep_assert_held(&d->lock);
	return d->nr_copies < clamp_t(unsigned int, DMU_COPIES_BYTES >> shift,
				      DMU_COPIES_MIN, DMU_COPIES_MAX);
}

/* The cell of @io is in place; from here on @io may be gone at any time. */
void dmu_copy_start(struct dmu_io *io)
{
	struct dmu_disk *d = io->t->disk;
	struct dmu_copy *c = NULL;
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!list_empty(&d->waiting_copies) || !dmu_copy_has_room(d)) {
		list_add_tail(&io->cell.list, &d->waiting_copies);
		spin_unlock_irqrestore(&d->lock, flags);
		return;
	}
	d->nr_copies++;
	if (dmu_copy_suits(io))
		c = dmu_copy_take_idle(d);
	spin_unlock_irqrestore(&d->lock, flags);
	dmu_copy_begin(io, c);
}

/* The first one that waits, if it has its turn. */
static struct dmu_io *dmu_next_waiting(struct dmu_disk *d, struct dmu_copy **c)
{
	struct dmu_cell *cell = NULL;
	struct dmu_io *io = NULL;

	*c = NULL;
	spin_lock_irq(&d->lock);
	if (dmu_copy_has_room(d))
		cell = list_first_entry_or_null(&d->waiting_copies,
						struct dmu_cell, list);
	if (cell) {
		list_del(&cell->list);
		io = container_of(cell, struct dmu_io, cell);
		d->nr_copies++;
		if (dmu_copy_suits(io))
			*c = dmu_copy_take_idle(d);
	}
	spin_unlock_irq(&d->lock);
	return io;
}

/* A work of its own: zeroes for a copy that failed may take long. */
void dmu_waiting_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(work, struct dmu_disk, waiting_work);
	struct dmu_copy *c;
	struct dmu_io *io;

	while ((io = dmu_next_waiting(d, &c)))
		dmu_copy_begin(io, c);
}
