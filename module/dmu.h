/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dm-userspace: what the files of the module share.  States, invariants
 * (I1...) and lock order are in docs/kernel.md.
 */
#ifndef DMU_H
#define DMU_H

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/dm-kcopyd.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/maple_tree.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rbtree.h>
#include <linux/rwsem.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/dm-userspace.h>

#include "compat/compat.h"
#include "value.h"

/* Map values have 63 bits, map indexes are unsigned long. */
#if BITS_PER_LONG != 64
#error "dm-userspace wants a 64-bit kernel"
#endif

/* Who reads the map spins for who stores into it, which must not be preempted. */
#ifdef CONFIG_PREEMPT_RT
#error "dm-userspace does not run on PREEMPT_RT"
#endif

#define DM_MSG_PREFIX "userspace"

/* What an entry of the map is reckoned at; see docs/kernel.md, I12. */
#define DMU_ENTRY_COST		48
#define DMU_DEFAULT_MAP_KIB	65536
/* How long a flushing suspend waits for an attached daemon. */
#define DMU_DRAIN_SECONDS	30

struct dmu_disk;

enum dmu_stat {
	DMU_HITS_READ,
	DMU_HITS_WRITE,
	DMU_FAULTS,
	DMU_EVENTS,
	DMU_COPIES,
	DMU_COPY_ERRORS,
	DMU_OVERWRITES,
	DMU_COMMITS,
	DMU_COMMIT_ERRORS,
	DMU_FLUSHES,
	DMU_DISCARDS,
	DMU_EVICTIONS,
	DMU_FILE_IOS,
	DMU_FILE_MISSES,
	DMU_NR_STATS
};

/* What a lookup found last: right as long as the map is of that generation. */
struct dmu_found {
	u64 map_gen;			/* 0: nothing */
	u64 first, last;
	void *entry;
};

/* Of one CPU. */
struct dmu_stats {
	u64 v[DMU_NR_STATS];
	struct dmu_found found;		/* preemption off */
};

/* A destination device of one table. */
struct dmu_dev {
	struct dm_dev *dev;
	bool readonly;
	bool fresh;		/* holds nothing of what the last table's device held */
	struct dmu_file *file;	/* of a loop device, if known; never changes once set */
};

enum dmu_policy {
	DMU_POLICY_QUEUE,
	DMU_POLICY_TIMEOUT,
	DMU_POLICY_FAIL,
};

/* One loaded table line. */
struct dmu_target {
	struct dm_target *ti;
	struct dmu_disk *disk;
	struct list_head list;		/* table_lock: disk->targets */
	sector_t nr_sectors;
	bool has_policy;		/* of the table line, if given */
	enum dmu_policy policy;
	unsigned int timeout;
	bool has_no_space;		/* of the table line, if given */
	bool no_space_wait;
	u64 map_budget;			/* 0: not given */
	unsigned int nr_devs;
	struct dmu_dev devs[];
};

/*
 * The bits of one word of blocks: (hi, lo) is 00 OLD, 01 DIRTY,
 * 10 COMMITTING, 11 CLEAN.
 */
struct dmu_word {
	unsigned long lo;
	unsigned long hi;
};

/* Blocks are summed up in chunks, so that sparse dirt is found quickly. */
#define DMU_CHUNK_WORDS		64
#define DMU_CHUNK_BLOCKS	(DMU_CHUNK_WORDS * BITS_PER_LONG)

/* A delegated copy-on-write extent. */
struct dmu_cow {
	struct dmu_disk *disk;
	u64 first;			/* blocks [first, first + count) */
	u64 count;
	s64 distance;			/* sector of a block -> its place */
	s64 src_distance;
	u32 dev;
	u32 src_dev;			/* DMU_DEV_NONE: zeroes */
	bool remember;
	bool revoked;			/* lock: by the kernel itself */
	bool cut;			/* lost blocks of the map that may be written to */
	u64 generation;			/* of the attach that gave it */

	unsigned int refs;		/* lock: map, dirty list, each cell */
	u64 mapped;			/* map_mutex: blocks of the map here */
	u64 nr_uncommitted;		/* lock: DIRTY or COMMITTING */
	u64 nr_clean;			/* lock */
	struct list_head list;		/* map_mutex: disk->cows */
	struct list_head dirty;		/* lock: disk->dirty */
	struct rcu_head rcu;
	size_t bytes;			/* what it is reckoned at */

	unsigned long *chunks;		/* lock: chunks with dirt */
	struct dmu_word *words;
	struct dmu_word one_word;	/* words, when one is enough */
	unsigned long one_chunk;
};

enum dmu_cell_kind {
	DMU_CELL_ASK,			/* a question to the daemon */
	DMU_CELL_COPY,			/* kcopyd copies the block */
	DMU_CELL_CLAIM,			/* one write covers OLD blocks */
	DMU_CELL_REQUEST,		/* discard, write-zeroes; no exclusion */
};

struct dmu_cell {
	struct rb_node node;		/* lock: disk->cells, but for REQUEST */
	u64 first;			/* blocks [first, last] */
	u64 last;
	enum dmu_cell_kind kind;
	bool write;			/* ASK: for writing */
	bool overwrite;			/* ASK: one write covers the block */
	u64 id;				/* ASK, REQUEST: of the event, 0 unread */
	struct list_head list;		/* lock: ->asks, ->asked, ->failed_copies, ->waiting_copies */
	struct bio_list waiters;	/* lock: the leader too, but for CLAIM */
};

#define DMU_IO_SENT		(1 << 0)	/* holds an SRCU section */
#define DMU_IO_CLAIM		(1 << 1)	/* leads a CLAIM cell */
#define DMU_IO_COMMIT		(1 << 2)	/* FUA: complete after a round */
#define DMU_IO_READY		(1 << 3)	/* remapped, only to be sent */
#define DMU_IO_FLUSH		(1 << 4)	/* a flush that was sent on */
#define DMU_IO_FUA		(1 << 5)	/* SENT so; the layers below may strip it */

/* What each bio of ours carries in device-mapper's per-bio data. */
struct dmu_io {
	struct dmu_target *t;
	struct dmu_cow *cow;		/* COPY, CLAIM */
	int srcu_idx;
	unsigned int flags;
	struct bvec_iter iter;		/* SENT: as it was sent */
	struct bvec_iter rest;		/* had no space: from this block on */
	union {
		struct dmu_cell cell;	/* before it is sent on, but for CLAIM */
		struct {		/* sent on to a file */
			struct kiocb iocb;
			struct dmu_file *file;
		};
	};
};

enum dmu_mode {
	DMU_MODE_RUN,
	DMU_MODE_DRAIN,			/* suspending, the daemon must answer */
	DMU_MODE_REQUEUE,		/* suspending, noflush */
	DMU_MODE_FAIL,			/* suspending, and no answer came */
};

enum dmu_phase {
	DMU_ROUND_IDLE,
	DMU_ROUND_FLUSHING,		/* the worker has it */
	DMU_ROUND_REPORTING,		/* the channel's reader has it */
	DMU_ROUND_DELIVERING,		/* its last events go to user space */
	DMU_ROUND_WAITING,		/* for FLUSHED */
	DMU_ROUND_CLEANING,		/* FLUSHED is being applied */
};

/* lock, except where the phase gives it to one owner */
struct dmu_round {
	enum dmu_phase phase;
	struct bio_list flushes;	/* complete with this round */
	bool flush;			/* FLUSH is to be sent */
	bool replay;			/* REPLAY_END is to be sent */
	struct list_head invals;	/* INVALIDATED is to be sent */
	struct dmu_cow *cow;		/* cursor of the report */
	u64 block;
	u64 id;				/* of the FLUSH event */
	u64 metadata_seq;
};

/*
 * An INVALIDATE on its way, or an attach that waits to replay (id 0).  From
 * INVALIDATE to INVALIDATED no question about its blocks is asked, and
 * no mapping of them is taken: the daemon cannot know yet what was copied.
 */
struct dmu_inval {
	struct dmu_disk *disk;
	u64 id;
	u64 block;
	u64 count;
	u64 generation;			/* of the channel that asked */
	bool forget;			/* what was copied there, too */
	struct list_head pending;	/* lock: disk->pending_invals */
	struct list_head list;
	struct rcu_head rcu;
};

/* An open file of the control node. */
struct dmu_channel {
	struct dmu_disk *disk;		/* NULL until attached */
	struct mutex read_mutex;
	struct mutex write_mutex;
	wait_queue_head_t wait;
	struct dmu_event *events;	/* read_mutex: DMU_READ_BATCH */
};

struct dmu_disk {
	struct kref ref;
	struct list_head list;		/* dmu_disks_mutex */
	char key[DMU_KEY_LEN];
	struct mapped_device *md;
	struct dm_table *newest_table;	/* dmu_disks_mutex: only compared */
	unsigned int nr_targets;	/* dmu_disks_mutex */
	unsigned int block_shift;	/* sectors to blocks */

	struct rw_semaphore table_lock;
	struct dmu_target *target;	/* table_lock: the live table */
	struct list_head targets;	/* table_lock: all loaded ones */
	sector_t nr_sectors;		/* of the live table */

	/* the map: read under SRCU and RCU, changed under map_mutex */
	struct srcu_struct srcu;
	struct maple_tree map;
	seqcount_t map_seq;		/* value and range of a lookup agree */
	u64 map_gen;			/* counts stores; of what a CPU found */
	struct mutex map_mutex;
	struct list_head cows;		/* map_mutex */
	u64 nr_entries;			/* map_mutex */
	atomic64_t cow_bytes;		/* of extents, but for those that */
	atomic64_t dying_bytes;		/* wait for their last reader */
	u64 map_budget;
	u64 evict_next;			/* map_mutex: where to go on */
	DECLARE_BITMAP(written, DMU_MAX_DEVS + 1); /* devices written to */

	spinlock_t lock;
	struct rb_root cells;
	struct list_head asks;		/* unread, in order */
	struct list_head asked;		/* read by the daemon */
	struct list_head stalled;	/* asked when an INVALIDATE is through */
	struct list_head pending_invals;
	struct bio_list deferred;	/* for the worker to run again */
	struct bio_list no_space;	/* for another try */
	bool no_space_wait;
	struct list_head failed_copies;	/* cells, for the worker to end */
	struct list_head waiting_copies; /* cells, until there is room for a copy */
	unsigned int nr_copies;		/* under way */
	struct list_head idle_copies;	/* struct dmu_copy, for another one */
	unsigned int nr_idle_copies;
	unsigned long nr_waiting;	/* held bios */
	enum dmu_mode mode;
	enum dmu_policy policy;
	unsigned int timeout;		/* seconds */
	bool expired;			/* the policy's time is over */

	struct list_head dirty;		/* lock: cows with uncommitted blocks */
	bool keep_order;		/* lock: see dmu_sort_dirty() */
	atomic64_t nr_uncommitted;
	u64 metadata_seq;		/* lock: raised by DMU_RE_METADATA */
	u64 metadata_done;		/* lock: the part that is committed */
	bool lost;			/* lock: I14, nothing may be committed */
	bool lost_told;			/* lock: the daemon knows */
	struct bio_list flushes;	/* lock: for the next round */
	bool commit_wanted;		/* lock */
	bool replay_wanted;		/* lock */
	struct list_head invals;	/* lock: for the next round */
	struct dmu_round round;
	bool unflushed;			/* round's worker: frozen since devices were flushed */
	int last_flush;			/* of the devices of the live table that went */

	struct dmu_channel *channel;	/* lock */
	bool replaying;			/* lock: before REPLAY_END */
	u64 generation;			/* lock: counts attaches */
	u64 features;			/* lock: of the last attach */
	u64 next_id;			/* lock */
	bool dead;			/* lock: no target any more */

	struct workqueue_struct *wq;
	struct work_struct deferred_work;
	struct work_struct copy_work;
	struct work_struct waiting_work;
	struct work_struct round_work;
	struct delayed_work policy_work;
	struct delayed_work no_space_work;
	struct dm_kcopyd_client *kcopyd;
	struct dmu_stats __percpu *stats;
};

/* Unit changes. */
static inline u64 dmu_sector_to_block(const struct dmu_disk *d, sector_t s)
{
	return s >> d->block_shift;
}

static inline sector_t dmu_block_to_sector(const struct dmu_disk *d, u64 b)
{
	return b << d->block_shift;
}

static inline sector_t dmu_block_sectors(const struct dmu_disk *d)
{
	return (sector_t)1 << d->block_shift;
}

static inline void dmu_count(struct dmu_disk *d, enum dmu_stat s)
{
	this_cpu_inc(d->stats->v[s]);
}

/*
 * What is in flight under the map: from where a bio is sent on to where it
 * completes.  The section belongs to the bio, so that sparse cannot balance it.
 */
static inline int dmu_flight_begin(struct dmu_disk *d)
{
	int idx = srcu_down_read(&d->srcu);

	__release(&d->srcu);
	return idx;
}

static inline void dmu_flight_end(struct dmu_disk *d, int idx)
{
	__acquire(&d->srcu);
	srcu_up_read(&d->srcu, idx);
}

static inline struct dmu_io *dmu_io_of(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct dmu_io));
}

static inline struct bio *dmu_bio_of(struct dmu_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(*io));
}

static inline bool dmu_must_commit(struct dmu_disk *d)
{
	return atomic64_read(&d->nr_uncommitted) ||
	       READ_ONCE(d->metadata_seq) != READ_ONCE(d->metadata_done);
}

/* disk.c */
struct dmu_disk *dmu_disk_get(const char *key, struct dm_target *ti,
			      unsigned int block_shift, char **error);
void dmu_disk_put_target(struct dmu_disk *d, struct dm_table *table);
struct dmu_disk *dmu_disk_find(const char *key);
void dmu_disk_put(struct dmu_disk *d);
u64 dmu_disk_stat(struct dmu_disk *d, enum dmu_stat s);
void dmu_disk_for_each(void (*fn)(struct dmu_disk *, void *), void *arg);
bool dmu_must_fail(struct dmu_disk *d);
void dmu_arm_policy(struct dmu_disk *d);
void dmu_drain_goes_on(struct dmu_disk *d);
void dmu_set_policy(struct dmu_disk *d, enum dmu_policy p, unsigned int timeout);
void dmu_policy_work(struct work_struct *work);
void dmu_fail_held(struct dmu_disk *d);
void dmu_notify(struct dmu_disk *d);
void dmu_set_mode(struct dmu_disk *d, enum dmu_mode mode);
void dmu_suspended(struct dmu_disk *d);

/* map.c */
bool dmu_map_find(struct dmu_disk *d, u64 gen, u64 block, void **entry, u64 *last);
int dmu_map_check(struct dmu_disk *d, u64 first, u64 last, const void *entry);
int dmu_map_store(struct dmu_disk *d, u64 first, u64 last, void *entry);
int dmu_map_erase(struct dmu_disk *d, u64 first, u64 last);
int dmu_map_make_room(struct dmu_disk *d, u64 bytes);
int dmu_map_make_room_for_cow(struct dmu_disk *d, u64 bytes);
u64 dmu_map_evict(struct dmu_disk *d, u64 bytes, gfp_t gfp);
u64 dmu_map_bytes(struct dmu_disk *d);
bool dmu_uncommitted_fit(struct dmu_disk *d, struct dmu_target *t);
int dmu_map_prune(struct dmu_disk *d, struct dmu_target *t, sector_t was);

static inline bool dmu_is_aligned(struct block_device *bdev, sector_t sector)
{
	return !((sector << SECTOR_SHIFT) & (bdev_logical_block_size(bdev) - 1));
}
void dmu_map_destroy(struct dmu_disk *d);
int dmu_map_settle(struct dmu_disk *d, struct dmu_cow *cow);
int dmu_map_init(void);
void dmu_map_exit(void);

/*
 * I16: an entry leaves the map by a store only, which makes @gen another one before,
 * and it is freed a grace period after that.  So what was found in the same generation
 * is there still, as long as the caller's SRCU section lasts.
 */
static inline bool dmu_found_before(struct dmu_disk *d, u64 gen, u64 block,
				    void **entry, u64 *last)
{
	struct dmu_found *f;
	bool same;

	if (unlikely(!in_task()))	/* it may have interrupted who writes it */
		return false;
	preempt_disable();
	f = &this_cpu_ptr(d->stats)->found;
	same = f->map_gen == gen && f->first <= block && block <= f->last;
	if (same) {
		*entry = f->entry;
		*last = f->last;
	}
	preempt_enable();
	return same;
}

/*
 * The entry of @block, or NULL; *@last: up to where it, or the gap, reaches.
 * The caller is in an SRCU section.  False: a store is under way, look again,
 * but not before disk->lock is released, which an interrupt of the storing CPU
 * may want.
 */
static inline bool dmu_map_lookup(struct dmu_disk *d, u64 block, void **entry,
				  u64 *last)
{
	/* Pairs with dmu_store(): what is looked up now may be newer, never older. */
	u64 gen = smp_load_acquire(&d->map_gen);

	return dmu_found_before(d, gen, block, entry, last) ||
	       dmu_map_find(d, gen, block, entry, last);
}

/* cow.c */
struct dmu_cow *dmu_cow_alloc(struct dmu_disk *d, u64 first, u64 count);
void dmu_cow_free(struct dmu_cow *cow);
void dmu_cow_load(struct dmu_cow *cow);
bool dmu_cow_is_revoked(const struct dmu_cow *cow);
bool dmu_cow_retire(struct dmu_cow *cow, unsigned int refs);
void dmu_cow_get(struct dmu_cow *cow);
void dmu_cow_put(struct dmu_cow *cow);
u64 dmu_cow_cost(u64 count);
u64 dmu_cow_run(struct dmu_cow *cow, u64 block, u64 max, bool *own);
bool dmu_cow_is_own(struct dmu_cow *cow, u64 block);
void dmu_cow_mark_dirty(struct dmu_cow *cow, u64 block, u64 count);
void dmu_cow_freeze(struct dmu_disk *d);
void dmu_cow_clean(struct dmu_disk *d);
void dmu_cow_forget(struct dmu_disk *d, u64 block, u64 count);
u64 dmu_cow_next_committing(struct dmu_cow *cow, u64 block, u64 *count);

/* io.c */
bool dmu_must_requeue(struct dmu_target *t);
int dmu_io_map(struct dmu_target *t, struct bio *bio);
int dmu_io_end(struct dmu_target *t, struct bio *bio, blk_status_t *error);
int dmu_io_send(struct dmu_target *t, struct bio *bio, u32 dev, s64 distance,
		int srcu_idx);
void dmu_io_defer(struct dmu_disk *d, struct bio_list *bios);
void dmu_deferred_work(struct work_struct *work);
blk_status_t dmu_status_of(int error);
void dmu_complete_list(struct bio_list *bios, blk_status_t status);

/* cell.c */
struct dmu_cell *dmu_cell_first(struct dmu_disk *d, u64 first, u64 last);
void dmu_cell_insert(struct dmu_disk *d, struct dmu_cell *cell);
void dmu_cell_remove(struct dmu_disk *d, struct dmu_cell *cell);
bool dmu_cell_writes_first(struct dmu_disk *d);
struct dmu_cell *dmu_cell_next(struct dmu_cell *cell);
void dmu_cell_release(struct dmu_disk *d, struct dmu_cell *cell,
		     struct bio_list *bios);
void dmu_take_held(struct dmu_disk *d, struct bio_list *bios);
struct list_head *dmu_ask_list(struct dmu_disk *d, const struct dmu_cell *cell);
void dmu_unread(struct dmu_disk *d, u64 from_id);
void dmu_cell_unread(struct dmu_disk *d, struct dmu_cell *cell);
void dmu_hold(struct dmu_disk *d, struct dmu_cell *cell, struct bio *bio);

/* file.c */
int dmu_file_set(struct dmu_target *t, unsigned int index, int fd, bool cached);
void dmu_file_put(struct dmu_dev *dev);
int dmu_file_send(struct dmu_target *t, struct bio *bio, struct dmu_file *f);

/* @bio was sent on to a device: or to its file. */
static inline int dmu_file_try(struct dmu_target *t, struct bio *bio, u32 dev)
{
	/* dmu_file_set() has filled it in before */
	struct dmu_file *f = smp_load_acquire(&t->devs[dev].file);

	return f ? dmu_file_send(t, bio, f) : DM_MAPIO_REMAPPED;
}

/* nospace.c */
int dmu_no_space_end(struct dmu_target *t, struct bio *bio, unsigned int was);
bool dmu_no_space_goes_on(struct bio *bio, unsigned int was);
void dmu_end_unsent(struct bio *bio, blk_status_t status);
void dmu_end_request(struct bio *bio, blk_status_t status);
void dmu_no_space_work(struct work_struct *work);
void dmu_set_no_space_wait(struct dmu_disk *d, bool wait);

/* copy.c */
void dmu_copy_start(struct dmu_io *io);
void dmu_copy_work(struct work_struct *work);
void dmu_waiting_work(struct work_struct *work);
u64 dmu_copy_idle_bytes(struct dmu_disk *d);
u64 dmu_copy_free_idle(struct dmu_disk *d);

/* commit.c */
void dmu_round_work(struct work_struct *work);
void dmu_round_kick(struct dmu_disk *d);
void dmu_round_retell(struct dmu_disk *d);
void dmu_round_last(struct dmu_disk *d, struct dmu_target *t);
void dmu_round_last_again(struct dmu_disk *d, struct dmu_target *t);
bool dmu_is_over(struct dmu_disk *d);
bool dmu_has_ended(struct dmu_disk *d);
void dmu_round_detach(struct dmu_disk *d);
int dmu_round_flushed(struct dmu_disk *d, u64 id, int error);
void dmu_data_lost(struct dmu_disk *d);
void dmu_commit_anyway(struct dmu_disk *d);
unsigned int dmu_round_report(struct dmu_disk *d, struct dmu_event *ev,
			      unsigned int max, struct list_head *done);
void dmu_round_delivered(struct dmu_disk *d, const struct dmu_round *was,
			 struct list_head *done, bool ok);
bool dmu_flush_through(struct dmu_target *t, struct bio *bio, int *result);
bool dmu_flush_wait(struct dmu_target *t, struct bio *bio);

/* channel.c */
int dmu_channel_init(void);
void dmu_channel_exit(void);
void dmu_wake(struct dmu_disk *d);
bool dmu_is_attached(struct dmu_disk *d);

/* reply.c */
int dmu_reply(struct dmu_disk *d, const struct dmu_reply *r,
	      const char __user *bitmap);
void dmu_inval_done(struct rcu_head *rcu);
void dmu_inval_end(struct dmu_inval *inval);
void dmu_inval_free(struct dmu_inval *inval);
bool dmu_inval_pending(struct dmu_disk *d, u64 first, u64 last);

/* target.c */
extern struct target_type dmu_target_type;

#endif
