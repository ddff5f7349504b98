// SPDX-License-Identifier: GPL-2.0-only
/*
 * A delegated copy-on-write extent and the two bits of each of its blocks.
 *
 * (hi, lo): 00 OLD, 01 DIRTY, 10 COMMITTING, 11 CLEAN; docs/kernel.md has the
 * diagram.  Transitions happen under disk->lock.  Readers hold SRCU only: they
 * take lo before hi, and every transition sets before it clears, so none of
 * them can mistake a block that left OLD for an old one.
 */
#include "dmu.h"

#include <linux/list_sort.h>
#include <linux/mm.h>

#define DMU_WORD_BLOCKS BITS_PER_LONG

/* Blocks in one COPIED event at most: bounds the time under the lock. */
#define DMU_MAX_REPORT (1 << 20)

static u64 dmu_cow_nr_words(u64 count)
{
	return DIV_ROUND_UP_ULL(count, DMU_WORD_BLOCKS);
}

static u64 dmu_cow_nr_chunks(u64 count)
{
	return DIV_ROUND_UP_ULL(count, DMU_CHUNK_BLOCKS);
}

/* Bytes that an extent of @count blocks is reckoned at, without its entries in the map. */
u64 dmu_cow_cost(u64 count)
{
	u64 bytes = sizeof(struct dmu_cow);

	if (count > DMU_WORD_BLOCKS)
		bytes += dmu_cow_nr_words(count) * sizeof(struct dmu_word) +
			 BITS_TO_LONGS(dmu_cow_nr_chunks(count)) *
			 sizeof(unsigned long);
	return bytes;
}

/* All blocks OLD, one reference, in no map.  NULL: no memory. */
struct dmu_cow *dmu_cow_alloc(struct dmu_disk *d, u64 first, u64 count)
{
	struct dmu_cow *cow = kzalloc(sizeof(*cow), GFP_NOIO | __GFP_NOWARN);

	if (!cow)
		return NULL;
	cow->disk = d;
	cow->generation = READ_ONCE(d->generation);
	cow->first = first;
	cow->count = count;
	cow->refs = 1;
	cow->mapped = count;
	INIT_LIST_HEAD(&cow->list);
	INIT_LIST_HEAD(&cow->dirty);
	if (count <= DMU_WORD_BLOCKS) {
		cow->words = &cow->one_word;
		cow->chunks = &cow->one_chunk;
	} else {
		cow->words = kvcalloc(dmu_cow_nr_words(count),
				      sizeof(*cow->words),
				      GFP_NOIO | __GFP_NOWARN);
		cow->chunks = kvcalloc(BITS_TO_LONGS(dmu_cow_nr_chunks(count)),
				       sizeof(*cow->chunks),
				       GFP_NOIO | __GFP_NOWARN);
	}
	cow->bytes = dmu_cow_cost(count);
	atomic64_add(cow->bytes, &d->cow_bytes);
	if (!cow->words || !cow->chunks) {
		dmu_cow_free(cow);
		return NULL;
	}
	return cow;
}

static void dmu_cow_release(struct dmu_cow *cow)
{
	if (cow->words != &cow->one_word)
		kvfree(cow->words);
	if (cow->chunks != &cow->one_chunk)
		kvfree(cow->chunks);
	kfree(cow);
}

/* Nobody reads it: it was never in the map, or no I/O is left. */
void dmu_cow_free(struct dmu_cow *cow)
{
	atomic64_sub(cow->bytes, &cow->disk->cow_bytes);
	dmu_cow_release(cow);
}

static void dmu_cow_free_rcu(struct rcu_head *rcu)
{
	struct dmu_cow *cow = container_of(rcu, struct dmu_cow, rcu);

	atomic64_sub(cow->bytes, &cow->disk->dying_bytes);
	dmu_cow_release(cow);
}

void dmu_cow_get(struct dmu_cow *cow)
{
	lockdep_assert_held(&cow->disk->lock);
	WARN_ON_ONCE(!cow->refs);
	cow->refs++;
}

/* No copy and no claim starts under it any more.  Stable under disk->lock. */
bool dmu_cow_is_revoked(const struct dmu_cow *cow)
{
	return READ_ONCE(cow->revoked) ||
	       cow->generation != READ_ONCE(cow->disk->generation);
}

/*
 * Revoke the extent if nothing is busy under it but @refs holders that the
 * caller knows, and nothing is uncommitted: then it may leave the map without
 * the daemon being told (I8).
 */
bool dmu_cow_retire(struct dmu_cow *cow, unsigned int refs)
{
	struct dmu_disk *d = cow->disk;
	bool idle;

	spin_lock_irq(&d->lock);
	idle = cow->refs == refs && !cow->nr_uncommitted;
	if (idle)
		WRITE_ONCE(cow->revoked, true);
	spin_unlock_irq(&d->lock);
	return idle;
}

/* The last one frees it after every reader that may still see it. */
void dmu_cow_put(struct dmu_cow *cow)
{
	struct dmu_disk *d = cow->disk;

	lockdep_assert_held(&d->lock);
	if (--cow->refs)
		return;
	atomic64_add(cow->bytes, &d->dying_bytes);
	atomic64_sub(cow->bytes, &d->cow_bytes);
	call_srcu(&d->srcu, &cow->rcu, dmu_cow_free_rcu);
}

/* The bitmap of CLEAN blocks was read into the lo bits: complete the state. */
void dmu_cow_load(struct dmu_cow *cow)
{
	u64 i, n = dmu_cow_nr_words(cow->count);

	for (i = 0; i < n; i++) {
		cow->words[i].hi = cow->words[i].lo;
		cow->nr_clean += hweight_long(cow->words[i].lo);
	}
}

/* Bits of blocks that live at the destination. */
static unsigned long dmu_word_own(const struct dmu_word *w)
{
	unsigned long lo = READ_ONCE(w->lo);

	smp_rmb();	/* pairs with the smp_wmb() of dmu_word_freeze() */
	return lo | READ_ONCE(w->hi);
}

bool dmu_cow_is_own(struct dmu_cow *cow, u64 block)
{
	u64 i = block - cow->first;

	return dmu_word_own(&cow->words[i / DMU_WORD_BLOCKS]) &
	       (1UL << (i % DMU_WORD_BLOCKS));
}

/*
 * How many blocks from @block on, at most @max, live on the same side;
 * *@own tells which.
 */
u64 dmu_cow_run(struct dmu_cow *cow, u64 block, u64 max, bool *own)
{
	u64 at = block - cow->first;
	u64 end = min(at + max, cow->count);
	u64 i = at;
	/* Looked at once: the block may leave OLD at any time. */
	unsigned long w = dmu_word_own(&cow->words[i / DMU_WORD_BLOCKS]);

	*own = w >> (i % DMU_WORD_BLOCKS) & 1;
	for (;;) {
		unsigned int bit = i % DMU_WORD_BLOCKS;

		w = (*own ? ~w : w) >> bit;
		if (w)
			return min(i + __ffs(w), end) - at;
		i += DMU_WORD_BLOCKS - bit;
		if (i >= end)
			return end - at;
		w = dmu_word_own(&cow->words[i / DMU_WORD_BLOCKS]);
	}
}

/* OLD to DIRTY: the blocks now stand whole at the destination. */
void dmu_cow_mark_dirty(struct dmu_cow *cow, u64 block, u64 count)
{
	struct dmu_disk *d = cow->disk;
	u64 i, first = block - cow->first;

	lockdep_assert_held(&d->lock);
	for (i = first; i < first + count; i++) {
		struct dmu_word *w = &cow->words[i / DMU_WORD_BLOCKS];
		unsigned long bit = 1UL << (i % DMU_WORD_BLOCKS);

		if (WARN_ON_ONCE((w->lo | w->hi) & bit))
			continue;
		/*
		 * Who sees the block here must also see that there is
		 * something to commit: pairs with dmu_io_send() and, by way
		 * of a completed write, with dmu_flush_through().
		 */
		atomic64_inc(&d->nr_uncommitted);
		smp_mb__after_atomic();	/* the count before the bit */
		WRITE_ONCE(w->lo, w->lo | bit);
		__set_bit(i / DMU_CHUNK_BLOCKS, cow->chunks);
		cow->nr_uncommitted++;
	}
	if (cow->nr_uncommitted && list_empty(&cow->dirty)) {
		if (READ_ONCE(cow->cut))
			cow->disk->keep_order = true;
		dmu_cow_get(cow);
		list_add_tail(&cow->dirty, &d->dirty);
	}
}

/* DIRTY to COMMITTING; returns which. */
static unsigned long dmu_word_freeze(struct dmu_word *w)
{
	unsigned long dirty = w->lo & ~w->hi;

	if (dirty) {
		WRITE_ONCE(w->hi, w->hi | dirty);
		smp_wmb();	/* set before clear: never seen as OLD */
		WRITE_ONCE(w->lo, w->lo & ~dirty);
	}
	return dirty;
}

/* COMMITTING to CLEAN, those of @mask; returns which. */
static unsigned long dmu_word_clean_some(struct dmu_word *w, unsigned long mask)
{
	unsigned long committing = w->hi & ~w->lo & mask;

	if (committing)
		WRITE_ONCE(w->lo, w->lo | committing);
	return committing;
}

static unsigned long dmu_word_clean(struct dmu_word *w)
{
	return dmu_word_clean_some(w, ~0UL);
}

/* Run @fn over the words of a chunk; returns how many blocks it changed. */
static u64 dmu_chunk_apply(struct dmu_cow *cow, u64 chunk,
			   unsigned long (*fn)(struct dmu_word *))
{
	u64 i = chunk * DMU_CHUNK_WORDS;
	u64 end = min(i + DMU_CHUNK_WORDS, dmu_cow_nr_words(cow->count));
	u64 changed = 0;

	for (; i < end; i++)
		changed += hweight_long(fn(&cow->words[i]));
	return changed;
}

static bool dmu_chunk_is_clean(struct dmu_cow *cow, u64 chunk)
{
	u64 i = chunk * DMU_CHUNK_WORDS;
	u64 end = min(i + DMU_CHUNK_WORDS, dmu_cow_nr_words(cow->count));

	for (; i < end; i++)
		if (cow->words[i].lo != cow->words[i].hi)
			return false;
	return true;
}

static void dmu_chunk_freeze(struct dmu_cow *cow, u64 chunk)
{
	if (dmu_chunk_apply(cow, chunk, dmu_word_freeze))
		cow->disk->unflushed = true;
}

/* @n blocks of @chunk became CLEAN. */
static void dmu_chunk_cleaned(struct dmu_cow *cow, u64 chunk, u64 n)
{
	cow->nr_clean += n;
	cow->nr_uncommitted -= n;
	atomic64_sub(n, &cow->disk->nr_uncommitted);
	if (dmu_chunk_is_clean(cow, chunk))
		__clear_bit(chunk, cow->chunks);
}

static void dmu_chunk_clean(struct dmu_cow *cow, u64 chunk)
{
	dmu_chunk_cleaned(cow, chunk, dmu_chunk_apply(cow, chunk, dmu_word_clean));
}

/* COMMITTING to CLEAN from @i to before @end, both within @chunk. */
static void dmu_chunk_forget(struct dmu_cow *cow, u64 chunk, u64 i, u64 end)
{
	u64 n = 0, next;

	for (; i < end; i = next) {
		unsigned int bit = i % DMU_WORD_BLOCKS;
		unsigned long mask = ~0UL << bit;

		next = min(end, i - bit + DMU_WORD_BLOCKS);
		if (next % DMU_WORD_BLOCKS)
			mask &= ~(~0UL << next % DMU_WORD_BLOCKS);
		n += hweight_long(dmu_word_clean_some(&cow->words[i / DMU_WORD_BLOCKS],
						      mask));
	}
	dmu_chunk_cleaned(cow, chunk, n);
}

/*
 * Call @fn for each chunk with dirt of each uncommitted extent, the lock taken
 * for a chunk at a time.  Only the owner of the round takes extents off the
 * dirty list, so that it can be walked across the breaks.
 */
static void dmu_walk_chunks(struct dmu_disk *d,
			    void (*fn)(struct dmu_cow *, u64))
{
	struct dmu_cow *cow;

	spin_lock_irq(&d->lock);
	list_for_each_entry(cow, &d->dirty, dirty) {
		u64 nr = dmu_cow_nr_chunks(cow->count);
		u64 c = 0;

		for (;;) {
			c = find_next_bit(cow->chunks, nr, c);
			if (c >= nr)
				break;
			fn(cow, c++);
			spin_unlock_irq(&d->lock);
			cond_resched();
			spin_lock_irq(&d->lock);
		}
	}
	spin_unlock_irq(&d->lock);
}

static int dmu_cow_cmp(void *priv, const struct list_head *a,
		       const struct list_head *b)
{
	u64 fa = list_entry(a, struct dmu_cow, dirty)->first;
	u64 fb = list_entry(b, struct dmu_cow, dirty)->first;

	return fa < fb ? -1 : fa > fb;
}

/*
 * Neighbours next to each other, so that they are reported as one extent.
 * Where an extent was taken off blocks that it had copied, the order in which
 * extents became dirty is the order in which places of one block followed
 * each other, and stays.
 */
static void dmu_sort_dirty(struct dmu_disk *d)
{
	LIST_HEAD(all);

	spin_lock_irq(&d->lock);
	if (!d->keep_order)
		list_splice_init(&d->dirty, &all);
	spin_unlock_irq(&d->lock);

	list_sort(NULL, &all, dmu_cow_cmp);
	spin_lock_irq(&d->lock);
	list_splice(&all, &d->dirty);
	spin_unlock_irq(&d->lock);
}

/*
 * Every block DIRTY at the time of the call becomes COMMITTING.  The caller
 * owns the round.
 */
void dmu_cow_freeze(struct dmu_disk *d)
{
	dmu_sort_dirty(d);
	dmu_walk_chunks(d, dmu_chunk_freeze);
}

/* Every COMMITTING block becomes CLEAN. */
void dmu_cow_clean(struct dmu_disk *d)
{
	dmu_walk_chunks(d, dmu_chunk_clean);
}

static void dmu_cow_forget_part(struct dmu_cow *cow, u64 first, u64 end)
{
	struct dmu_disk *d = cow->disk;
	u64 nr = (end - 1) / DMU_CHUNK_BLOCKS + 1;
	u64 c = first / DMU_CHUNK_BLOCKS;

	for (;; c++) {
		c = find_next_bit(cow->chunks, nr, c);
		if (c >= nr)
			break;
		dmu_chunk_forget(cow, c, max(first, c * DMU_CHUNK_BLOCKS),
				 min(end, (c + 1) * DMU_CHUNK_BLOCKS));
		spin_unlock_irq(&d->lock);
		cond_resched();
		spin_lock_irq(&d->lock);
	}
}

/*
 * Every COMMITTING block of [block, block + count) becomes CLEAN without a
 * commit: the daemon puts something else there.  The caller owns the round.
 */
void dmu_cow_forget(struct dmu_disk *d, u64 block, u64 count)
{
	struct dmu_cow *cow;
	unsigned int n = 0;

	spin_lock_irq(&d->lock);
	list_for_each_entry(cow, &d->dirty, dirty) {
		u64 first = max(block, cow->first);
		u64 end = min(block + count, cow->first + cow->count);

		if (first < end)
			dmu_cow_forget_part(cow, first - cow->first,
					    end - cow->first);
		if (++n % 256)
			continue;
		spin_unlock_irq(&d->lock);
		cond_resched();
		spin_lock_irq(&d->lock);
	}
	spin_unlock_irq(&d->lock);
}

/*
 * The first run of COMMITTING blocks at or after @block, or the first part of
 * a very long one: returns its first block and *@count, or the end of the
 * extent and 0.
 */
u64 dmu_cow_next_committing(struct dmu_cow *cow, u64 block, u64 *count)
{
	u64 i = block - cow->first;
	u64 nr = dmu_cow_nr_chunks(cow->count);
	u64 start = cow->count;

	lockdep_assert_held(&cow->disk->lock);
	*count = 0;
	while (i < cow->count && *count < DMU_MAX_REPORT) {
		struct dmu_word *w = &cow->words[i / DMU_WORD_BLOCKS];
		unsigned int bit = i % DMU_WORD_BLOCKS;
		unsigned long c = (w->hi & ~w->lo) >> bit;

		if (*count) {
			unsigned int n = c == ~0UL >> bit ?
					 DMU_WORD_BLOCKS - bit : ffz(c);

			*count += n;
			if (n < DMU_WORD_BLOCKS - bit)
				break;
			i += n;
		} else if (c) {
			i += __ffs(c);
			start = i;
			*count = 1;
			i++;
		} else {
			i += DMU_WORD_BLOCKS - bit;
			if (i % DMU_CHUNK_BLOCKS == 0)
				i = (u64)find_next_bit(cow->chunks, nr,
						       i / DMU_CHUNK_BLOCKS) *
				    DMU_CHUNK_BLOCKS;
		}
	}
	*count = min(*count, cow->count - start);
	return cow->first + start;
}
