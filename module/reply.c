// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the daemon says: checked in full first, then carried out (I11).
 */
#include "dmu.h"
#include "trace.h"

#include <linux/uaccess.h>

/* A MAP or PRELOAD that has been checked against the table. */
struct dmu_mapping {
	u64 first;
	u64 last;
	enum dmu_kind kind;
	bool writable;
	u32 dev;
	s64 distance;
	s64 src_distance;
	void *entry;		/* for the map; NULL: a COW extent to be made */
	struct dmu_cow *cow;	/* the entry, for COW */
};

/* Fields that a type does not use must be zero. */
static bool dmu_unused_fields(const struct dmu_reply *r)
{
	bool map = r->type == DMU_RE_MAP || r->type == DMU_RE_PRELOAD;
	bool linear = map && r->kind == DMU_KIND_LINEAR;
	bool cow = map && r->kind == DMU_KIND_COW;
	bool error = r->type == DMU_RE_FAIL || r->type == DMU_RE_FLUSHED ||
		     r->type == DMU_RE_DONE;
	bool extent = map || r->type == DMU_RE_FAIL ||
		      r->type == DMU_RE_INVALIDATE;
	bool id = r->type != DMU_RE_PRELOAD && r->type != DMU_RE_COMMIT;

	return r->pad || memchr_inv(r->reserved, 0, sizeof(r->reserved)) ||
	       (r->kind && !map) || (r->error && !error) ||
	       ((r->block || r->count) && !extent) || (r->id && !id) ||
	       ((r->dev || r->sector) && !linear && !cow) ||
	       ((r->src_dev || r->src_sector || r->bitmap_len) && !cow) ||
	       (cow && r->src_dev == DMU_DEV_NONE && r->src_sector);
}

static u32 dmu_known_flags(const struct dmu_reply *r)
{
	u32 flags = 0;

	if (r->type == DMU_RE_MAP)
		flags |= DMU_RE_REMEMBER;
	if (r->type == DMU_RE_COMMIT)
		flags |= DMU_RE_LOST | DMU_RE_METADATA;
	if (r->type == DMU_RE_INVALIDATE)
		flags |= DMU_RE_FORGET;
	if (r->type == DMU_RE_MAP || r->type == DMU_RE_PRELOAD) {
		flags |= DMU_RE_METADATA;
		if (r->kind == DMU_KIND_LINEAR)
			flags |= DMU_RE_WRITABLE;
	}
	return flags;
}

/* The daemon holds uncommitted metadata: only a round begun from now on tells it to commit. */
static void dmu_note_metadata(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	WRITE_ONCE(d->metadata_seq, d->metadata_seq + 1);
}

static int dmu_check_form(const struct dmu_reply *r)
{
	if (r->type < DMU_RE_MAP || r->type > DMU_RE_COMMIT)
		return -EINVAL;
	if (r->flags & ~dmu_known_flags(r))
		return -EINVAL;
	if (dmu_unused_fields(r))
		return -EINVAL;
	if (r->error > MAX_ERRNO || (r->type == DMU_RE_FAIL && !r->error))
		return -EINVAL;
	if (r->type == DMU_RE_INVALIDATE && !r->id)
		return -EINVAL;
	if (r->type != DMU_RE_MAP && r->type != DMU_RE_PRELOAD)
		return 0;
	if (r->kind < DMU_KIND_LINEAR || r->kind > DMU_KIND_ERROR)
		return -EINVAL;
	if (r->bitmap_len && r->bitmap_len != DMU_BITMAP_LEN(r->count))
		return -EINVAL;
	return 0;
}

/* Is [block, block + count) inside the target? */
static int dmu_check_extent(struct dmu_disk *d, const struct dmu_reply *r)
{
	u64 blocks = dmu_sector_to_block(d, d->nr_sectors +
					    dmu_block_sectors(d) - 1);

	if (!r->count)
		return -EINVAL;
	return r->block < blocks && r->count <= blocks - r->block ? 0 : -ERANGE;
}

/* Sectors of the extent; its last block may be short. */
static sector_t dmu_extent_sectors(struct dmu_disk *d, const struct dmu_reply *r)
{
	return min(dmu_block_to_sector(d, r->block + r->count), d->nr_sectors) -
	       dmu_block_to_sector(d, r->block);
}

/* Does the extent, put at @sector of device @dev, stand inside it? */
static int dmu_check_place(struct dmu_disk *d, const struct dmu_reply *r,
			   u32 dev, u64 sector, bool writable, s64 *distance)
{
	struct dmu_target *t = d->target;
	struct block_device *bdev;
	sector_t len = dmu_extent_sectors(d, r);

	if (dev >= t->nr_devs)
		return -ENXIO;
	if (writable && t->devs[dev].readonly)
		return -EROFS;
	bdev = t->devs[dev].dev->bdev;
	if (sector > bdev_nr_sectors(bdev) ||
	    len > bdev_nr_sectors(bdev) - sector)
		return -ERANGE;
	if (!dmu_is_aligned(bdev, sector))
		return -EINVAL;
	*distance = sector - dmu_block_to_sector(d, r->block);
	return dmu_distance_fits(*distance) ? 0 : -ERANGE;
}

/* A block must not be copied onto itself or onto another one's source. */
static int dmu_check_overlap(struct dmu_disk *d, const struct dmu_reply *r)
{
	struct dmu_target *t = d->target;
	sector_t len = dmu_extent_sectors(d, r);

	if (r->src_dev == DMU_DEV_NONE ||
	    t->devs[r->dev].dev->bdev != t->devs[r->src_dev].dev->bdev)
		return 0;
	if (r->sector < r->src_sector + len && r->src_sector < r->sector + len)
		return -EINVAL;
	return 0;
}

static int dmu_check_cow(struct dmu_disk *d, const struct dmu_reply *r,
			 struct dmu_mapping *m)
{
	int err;

	if (r->count > DMU_MAX_COW_BLOCKS)
		return -E2BIG;
	m->writable = true;
	m->entry = m->cow;
	err = dmu_check_place(d, r, r->dev, r->sector, true, &m->distance);
	if (err || r->src_dev == DMU_DEV_NONE)
		return err;
	err = dmu_check_place(d, r, r->src_dev, r->src_sector, false,
			      &m->src_distance);
	return err ?: dmu_check_overlap(d, r);
}

/*
 * What was copied is not told yet: before REPLAY_END, and between INVALIDATE
 * and INVALIDATED, the daemon cannot say where the blocks live.
 */
static int dmu_check_settled(struct dmu_disk *d, const struct dmu_reply *r)
{
	bool busy;

	spin_lock_irq(&d->lock);
	busy = d->replaying ||
	       dmu_inval_pending(d, r->block, r->block + r->count - 1);
	spin_unlock_irq(&d->lock);
	return busy ? -EBUSY : 0;
}

/* Under table_lock: fill @m from @r, or refuse. */
static int dmu_check_mapping(struct dmu_disk *d, const struct dmu_reply *r,
			     struct dmu_mapping *m)
{
	int err;

	if (!d->target)		/* nothing is held, and there is no device */
		return r->type == DMU_RE_MAP ? -ENOENT : -ENXIO;
	err = dmu_check_extent(d, r);
	if (!err)
		err = dmu_check_settled(d, r);
	if (err)
		return err;
	m->first = r->block;
	m->last = r->block + r->count - 1;
	m->kind = r->kind;
	m->dev = r->dev;
	switch (m->kind) {
	case DMU_KIND_LINEAR:
		m->writable = r->flags & DMU_RE_WRITABLE;
		err = dmu_check_place(d, r, r->dev, r->sector, m->writable,
				      &m->distance);
		m->entry = dmu_value(m->writable ? DMU_VALUE_RW : DMU_VALUE_RO,
				     r->dev, m->distance);
		return err;
	case DMU_KIND_COW:
		return dmu_check_cow(d, r, m);
	case DMU_KIND_ZERO:
		m->entry = dmu_value(DMU_VALUE_ZERO, 0, 0);
		return 0;
	case DMU_KIND_ERROR:
		m->entry = dmu_value(DMU_VALUE_ERROR, 0, 0);
		return 0;
	}
	return -EINVAL;
}

/* Would the mapping serve a question of this sort? */
static bool dmu_suffices(const struct dmu_mapping *m, bool write)
{
	return !write || m->writable || m->kind == DMU_KIND_ERROR;
}

/*
 * Is a question @id owed in [first, last]?  With @m: does it suffice?
 */
static int dmu_owed(struct dmu_disk *d, u64 id, u64 first, u64 last,
		    const struct dmu_mapping *m)
{
	struct dmu_cell *cell;
	int r = -ENOENT;

	spin_lock_irq(&d->lock);
	for (cell = dmu_cell_first(d, first, last); cell && cell->first <= last;
	     cell = dmu_cell_next(cell)) {
		if (cell->kind != DMU_CELL_ASK || !id || cell->id != id)
			continue;
		r = !m || dmu_suffices(m, cell->write) ? 0 : -EPERM;
		break;
	}
	spin_unlock_irq(&d->lock);
	return r;
}

/* One bio under a mapping that is not remembered. */
static void dmu_send_once(struct dmu_disk *d, const struct dmu_mapping *m,
			  struct bio *bio, struct bio_list *again)
{
	struct dmu_io *io = dmu_io_of(bio);

	if (!dmu_suffices(m, op_is_write(bio_op(bio)))) {
		bio_list_add(again, bio);
	} else if (m->kind == DMU_KIND_ERROR) {
		bio_io_error(bio);
	} else if (m->kind == DMU_KIND_ZERO) {
		zero_fill_bio(bio);
		bio_endio(bio);
	} else if (dmu_io_send(io->t, bio, m->dev, m->distance,
			       dmu_flight_begin(d)) == DM_MAPIO_REMAPPED) {
		io->flags |= DMU_IO_READY;
		bio_list_add(again, bio);
	} else {
		bio_io_error(bio);
	}
}

/*
 * Release what the mapping answers: the question @id, and, when it is
 * remembered, every other one in its extent that it suffices for.  When it
 * was to be @remember'ed and could not be, those are asked again: the daemon
 * will not answer them.
 */
static void dmu_answer(struct dmu_disk *d, u64 id, const struct dmu_mapping *m,
		       bool remember, bool remembered)
{
	struct bio_list bios = BIO_EMPTY_LIST, again = BIO_EMPTY_LIST;
	struct dmu_cell *cell, *next;
	struct bio *bio;

	spin_lock_irq(&d->lock);
	for (cell = dmu_cell_first(d, m->first, m->last);
	     cell && cell->first <= m->last; cell = next) {
		next = dmu_cell_next(cell);
		if (cell->kind != DMU_CELL_ASK ||
		    !dmu_suffices(m, cell->write))
			continue;
		if (cell->id == id || remembered)
			dmu_cell_release(d, cell, &bios);
		else if (remember)
			dmu_cell_unread(d, cell);
	}
	if (!bio_list_empty(&bios))
		dmu_drain_goes_on(d);
	spin_unlock_irq(&d->lock);

	if (!remembered) {
		while ((bio = bio_list_pop(&bios)))
			dmu_send_once(d, m, bio, &again);
		bio_list_merge(&bios, &again);
	}
	dmu_io_defer(d, &bios);
}

/* An extent that has nothing but CLEAN blocks from the start. */
static void dmu_settle_new(struct dmu_disk *d, struct dmu_cow *cow)
{
	spin_lock_irq(&d->lock);
	dmu_cow_get(cow);
	spin_unlock_irq(&d->lock);
	if (cow->remember && cow->nr_clean == cow->count)
		dmu_map_settle(d, cow);
	spin_lock_irq(&d->lock);
	dmu_cow_put(cow);
	spin_unlock_irq(&d->lock);
}

/* Put the mapping into the map.  -ENOMEM, -E2BIG: it is not remembered. */
static int dmu_remember(struct dmu_disk *d, struct dmu_mapping *m)
{
	int r;

	if (!m->cow) {		/* a dmu_cow is in the sum already */
		r = dmu_map_make_room(d, DMU_ENTRY_COST);
		if (r)
			return r;
	}
	r = dmu_map_store(d, m->first, m->last, m->entry);
	if (!r && m->cow)
		dmu_settle_new(d, m->cow);
	return r;
}

/* Under table_lock and map_mutex: everything that can be held against it. */
static int dmu_check_whole(struct dmu_disk *d, const struct dmu_reply *r,
			   struct dmu_mapping *m)
{
	int err = dmu_check_mapping(d, r, m);

	if (!err && r->type == DMU_RE_MAP)
		err = dmu_owed(d, r->id, m->first, m->last, m);
	if (!err)
		err = dmu_map_check(d, m->first, m->last, m->entry);
	return err;
}

/* Under table_lock and map_mutex. */
static int dmu_apply_mapping(struct dmu_disk *d, const struct dmu_reply *r,
			     struct dmu_mapping *m)
{
	bool remember = m->cow || r->type == DMU_RE_PRELOAD ||
			(r->flags & DMU_RE_REMEMBER);
	bool remembered = false;
	int err = dmu_check_whole(d, r, m);

	if (err)
		return err;
	/* Before anybody can write by it: a flush must know. */
	if (m->writable)
		set_bit(m->dev, d->written);
	if (r->flags & DMU_RE_METADATA) {
		spin_lock_irq(&d->lock);
		dmu_note_metadata(d);
		spin_unlock_irq(&d->lock);
	}
	if (remember) {
		err = dmu_remember(d, m);
		if (err && (m->cow || r->type == DMU_RE_PRELOAD))
			return err;
		remembered = !err;
	}
	m->cow = NULL;		/* the map has it */
	dmu_answer(d, r->id, m, remember, remembered);
	return 0;
}

/* The bitmap of user space becomes the lo bits. */
static int dmu_read_bitmap(struct dmu_cow *cow, const char __user *bitmap,
			   size_t len)
{
	__u64 chunk[32];
	size_t done = 0, n, i;
	u64 tail = cow->count % 64;

	while (done < len) {
		n = min(sizeof(chunk), len - done);
		if (copy_from_user(chunk, bitmap + done, n))
			return -EFAULT;
		for (i = 0; i < n / sizeof(__u64); i++)
			cow->words[done / sizeof(__u64) + i].lo = chunk[i];
		done += n;
		cond_resched();
	}
	if (len && tail && cow->words[cow->count / 64].lo >> tail)
		return -EINVAL;
	dmu_cow_load(cow);
	return 0;
}

/*
 * The object of a COW extent, its bits read.  User space may make us wait
 * there, so no lock is held, and the reply is checked before, so that one to
 * be refused costs no memory, and again after.
 */
static int dmu_prepare_cow(struct dmu_disk *d, const struct dmu_reply *r,
			   const char __user *bitmap, struct dmu_mapping *m)
{
	struct dmu_cow *cow;
	int err;

	down_read(&d->table_lock);
	mutex_lock(&d->map_mutex);
	err = dmu_check_whole(d, r, m);
	if (!err)
		err = dmu_map_make_room_for_cow(d, dmu_cow_cost(r->count) +
						   DMU_ENTRY_COST);
	mutex_unlock(&d->map_mutex);
	up_read(&d->table_lock);
	if (err)
		return err;
	cow = dmu_cow_alloc(d, r->block, r->count);
	if (!cow)
		return -ENOMEM;
	cow->dev = r->dev;
	cow->distance = m->distance;
	cow->src_dev = r->src_dev;
	cow->src_distance = m->src_distance;
	cow->remember = r->type == DMU_RE_PRELOAD ||
			(r->flags & DMU_RE_REMEMBER);
	m->cow = cow;
	return dmu_read_bitmap(cow, bitmap, r->bitmap_len);
}

static int dmu_reply_map(struct dmu_disk *d, const struct dmu_reply *r,
			 const char __user *bitmap)
{
	struct dmu_mapping m = { };
	int err = 0;

	if (r->kind == DMU_KIND_COW)
		err = dmu_prepare_cow(d, r, bitmap, &m);
	if (!err) {
		down_read(&d->table_lock);
		mutex_lock(&d->map_mutex);
		err = dmu_apply_mapping(d, r, &m);
		mutex_unlock(&d->map_mutex);
		up_read(&d->table_lock);
	}
	if (m.cow)
		dmu_cow_free(m.cow);	/* refused: nobody saw it */
	return err;
}

static int dmu_reply_fail(struct dmu_disk *d, const struct dmu_reply *r)
{
	struct bio_list bios = BIO_EMPTY_LIST;
	struct dmu_cell *cell, *next;
	u64 last = r->block + r->count - 1;
	struct bio *bio;
	int err;

	down_read(&d->table_lock);
	err = dmu_check_extent(d, r);
	up_read(&d->table_lock);
	if (!err)
		err = dmu_owed(d, r->id, r->block, last, NULL);
	if (err)
		return err;

	spin_lock_irq(&d->lock);
	for (cell = dmu_cell_first(d, r->block, last);
	     cell && cell->first <= last; cell = next) {
		next = dmu_cell_next(cell);
		if (cell->kind == DMU_CELL_ASK && cell->id == r->id)
			dmu_cell_release(d, cell, &bios);
	}
	dmu_drain_goes_on(d);
	spin_unlock_irq(&d->lock);
	while ((bio = bio_list_pop(&bios)))
		dmu_end_unsent(bio, dmu_status_of(r->error));
	return 0;
}

static int dmu_reply_done(struct dmu_disk *d, const struct dmu_reply *r)
{
	struct bio_list bios = BIO_EMPTY_LIST;
	struct dmu_cell *cell;
	struct bio *bio;
	int err = -ENOENT;

	spin_lock_irq(&d->lock);
	list_for_each_entry(cell, &d->asked, list) {
		if (cell->kind != DMU_CELL_REQUEST || cell->id != r->id)
			continue;
		dmu_cell_release(d, cell, &bios);
		dmu_drain_goes_on(d);
		err = 0;
		break;
	}
	spin_unlock_irq(&d->lock);
	while ((bio = bio_list_pop(&bios)))
		dmu_end_request(bio, dmu_status_of(r->error));
	return err;
}

/* Does an INVALIDATE under way meet [first, last]? */
bool dmu_inval_pending(struct dmu_disk *d, u64 first, u64 last)
{
	struct dmu_inval *inval;

	lockdep_assert_held(&d->lock);
	list_for_each_entry(inval, &d->pending_invals, pending)
		if (inval->block <= last &&
		    first <= inval->block + inval->count - 1)
			return true;
	return false;
}

/* What was asked and not read is to be asked when @inval is through. */
static void dmu_inval_begin(struct dmu_disk *d, struct dmu_inval *inval)
{
	u64 last = inval->block + inval->count - 1;
	struct dmu_cell *cell;

	spin_lock_irq(&d->lock);
	list_add(&inval->pending, &d->pending_invals);
	for (cell = dmu_cell_first(d, inval->block, last);
	     cell && cell->first <= last; cell = dmu_cell_next(cell))
		if (cell->kind == DMU_CELL_ASK && !cell->id)
			list_move_tail(&cell->list, &d->stalled);
	spin_unlock_irq(&d->lock);
}

/* It was told, or nobody is there to be told: what it stalled may be asked. */
void dmu_inval_end(struct dmu_inval *inval)
{
	struct dmu_disk *d = inval->disk;
	struct dmu_cell *cell, *next;

	lockdep_assert_held(&d->lock);
	list_del_init(&inval->pending);
	list_for_each_entry_safe(cell, next, &d->stalled, list)
		if (!dmu_inval_pending(d, cell->first, cell->last))
			list_move_tail(&cell->list, &d->asks);
	if (!list_empty(&d->asks))
		dmu_wake(d);
}

void dmu_inval_free(struct dmu_inval *inval)
{
	dmu_inval_end(inval);
	kfree(inval);
}

/*
 * The grace period is over: nothing is in flight under what was there before.
 * What it was waited for belongs to one attach.
 */
void dmu_inval_done(struct rcu_head *rcu)
{
	struct dmu_inval *inval = container_of(rcu, struct dmu_inval, rcu);
	struct dmu_disk *d = inval->disk;
	unsigned long flags;

	spin_lock_irqsave(&d->lock, flags);
	if (!d->channel || inval->generation != d->generation) {
		dmu_inval_free(inval);
	} else if (inval->id) {
		list_add_tail(&inval->list, &d->invals);
		dmu_round_kick(d);
	} else {
		d->replay_wanted = true;
		dmu_inval_free(inval);
		dmu_round_kick(d);
	}
	spin_unlock_irqrestore(&d->lock, flags);
}

/*
 * Is a discard or write-zeroes of all these blocks owed?  Else what is there may be
 * newer than one that ended without the daemon, in a suspend, say.
 */
static bool dmu_owes_request(struct dmu_disk *d, const struct dmu_reply *r)
{
	struct dmu_cell *cell;
	bool owed = false;

	spin_lock_irq(&d->lock);
	list_for_each_entry(cell, &d->asked, list) {
		owed = cell->kind == DMU_CELL_REQUEST && cell->first <= r->block &&
		       r->block + r->count - 1 <= cell->last;
		if (owed)
			break;
	}
	spin_unlock_irq(&d->lock);
	return owed;
}

static int dmu_reply_invalidate(struct dmu_disk *d, const struct dmu_reply *r)
{
	struct dmu_inval *inval = kzalloc(sizeof(*inval), GFP_NOIO | __GFP_NOWARN);
	int err;

	if (!inval)
		return -ENOMEM;
	inval->disk = d;
	inval->id = r->id;
	inval->block = r->block;
	inval->count = r->count;
	inval->generation = d->generation;
	inval->forget = r->flags & DMU_RE_FORGET;
	INIT_LIST_HEAD(&inval->pending);

	down_read(&d->table_lock);
	mutex_lock(&d->map_mutex);
	err = dmu_check_extent(d, r);
	if (!err && inval->forget && !dmu_owes_request(d, r))
		err = -ENOENT;
	if (!err) {
		dmu_inval_begin(d, inval);
		err = dmu_map_erase(d, r->block, r->block + r->count - 1);
	}
	mutex_unlock(&d->map_mutex);
	up_read(&d->table_lock);
	if (!err) {
		call_srcu(&d->srcu, &inval->rcu, dmu_inval_done);
		return 0;
	}
	spin_lock_irq(&d->lock);
	dmu_inval_free(inval);
	dmu_round_kick(d);	/* who reads may have waited for its end */
	spin_unlock_irq(&d->lock);
	return err;
}

static int dmu_reply_commit(struct dmu_disk *d, const struct dmu_reply *r)
{
	if (r->flags & DMU_RE_LOST)
		dmu_data_lost(d);
	spin_lock_irq(&d->lock);
	if (r->flags & DMU_RE_METADATA)
		dmu_note_metadata(d);
	if (dmu_must_commit(d))
		d->commit_wanted = true;
	spin_unlock_irq(&d->lock);
	dmu_round_kick(d);
	return 0;
}

static int dmu_reply_type(struct dmu_disk *d, const struct dmu_reply *r,
			  const char __user *bitmap)
{
	switch (r->type) {
	case DMU_RE_MAP:
	case DMU_RE_PRELOAD:
		return dmu_reply_map(d, r, bitmap);
	case DMU_RE_FAIL:
		return dmu_reply_fail(d, r);
	case DMU_RE_FLUSHED:
		return dmu_round_flushed(d, r->id, -(int)r->error);
	case DMU_RE_DONE:
		return dmu_reply_done(d, r);
	case DMU_RE_INVALIDATE:
		return dmu_reply_invalidate(d, r);
	case DMU_RE_COMMIT:
		return dmu_reply_commit(d, r);
	}
	return -EINVAL;
}

/* Carry out @r, or refuse it with a negative errno and no effect. */
int dmu_reply(struct dmu_disk *d, const struct dmu_reply *r,
	      const char __user *bitmap)
{
	int err = dmu_check_form(r);

	if (!err)
		err = dmu_has_ended(d) ? -ENODEV :
					   dmu_reply_type(d, r, bitmap);
	trace_dmu_reply(d->key, r->type, r->id, r->block, r->count, err);
	return err;
}
