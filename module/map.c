// SPDX-License-Identifier: GPL-2.0-only
/*
 * The remembered map: a maple tree from blocks to entries.
 *
 * LINEAR, ZERO and ERROR entries are values (value.h), a COW entry is a pointer to a
 * struct dmu_cow.
 *
 * Readers hold SRCU (which keeps a dmu_cow) and RCU (which keeps the nodes).
 * Everyone who changes the map holds map_mutex.
 */
#include "dmu.h"

#define DMU_MAP_GFP		(GFP_NOIO | __GFP_NOWARN)

static struct shrinker *dmu_shrinker;

static bool dmu_map_walk_to(struct dmu_disk *d, u64 block,
			    struct dmu_found *found)
{
	MA_STATE(mas, &d->map, block, block);
	unsigned int seq;

	seq = raw_read_seqcount(&d->map_seq);
	if (seq & 1)
		return false;
	rcu_read_lock();
	found->entry = mas_walk(&mas);
	found->first = mas.index;
	found->last = mas.last;
	rcu_read_unlock();
	return !read_seqcount_retry(&d->map_seq, seq);
}

static void dmu_remember_found(struct dmu_disk *d, const struct dmu_found *found)
{
	if (!in_task())
		return;
	preempt_disable();
	this_cpu_ptr(d->stats)->found = *found;
	preempt_enable();
}

/* As dmu_map_lookup(), by the tree. */
bool dmu_map_find(struct dmu_disk *d, u64 gen, u64 block, void **entry, u64 *last)
{
	struct dmu_found found = { .map_gen = gen };

	if (!dmu_map_walk_to(d, block, &found))
		return false;
	dmu_remember_found(d, &found);
	*entry = found.entry;
	*last = found.last;
	return true;
}

/* Bytes of what is remembered. */
u64 dmu_map_bytes(struct dmu_disk *d)
{
	return READ_ONCE(d->nr_entries) * DMU_ENTRY_COST +
	       atomic64_read(&d->cow_bytes);
}

/*
 * Call @fn for each entry that meets [first, last], with the part of it
 * inside.  Stops at the first non-zero return.
 */
static int dmu_map_walk(struct dmu_disk *d, u64 first, u64 last,
			int (*fn)(struct dmu_disk *d, u64 first, u64 last,
				  void *entry, void *arg), void *arg)
{
	MA_STATE(mas, &d->map, first, first);
	unsigned int n = 0;
	void *entry;
	int r = 0;

	lockdep_assert_held(&d->map_mutex);
	rcu_read_lock();
	mas_for_each(&mas, entry, last) {
		r = fn(d, max_t(u64, mas.index, first),
		       min_t(u64, mas.last, last), entry, arg);
		if (r)
			break;
		if (++n % 1024 == 0) {
			mas_pause(&mas);
			rcu_read_unlock();
			cond_resched();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
	return r;
}

/*
 * The store itself, after dmu_compat_prepare(): it does not wait.  Readers wait
 * for it: the tree changes a node in place where it can, and they must not
 * take the new value for the old range.  Interrupts stay on, as the allocator
 * wants; who could spin on this CPU meanwhile is kept off.
 */
static int dmu_store(struct dmu_disk *d, struct ma_state *mas, void *entry)
{
	int r;

	lockdep_assert_held(&d->map_mutex);
	local_bh_disable();
	raw_write_seqcount_begin(&d->map_seq);
	smp_store_release(&d->map_gen, d->map_gen + 1);	/* after the count, before the change */
	smp_wmb();
	r = dmu_compat_store(mas, entry);
	raw_write_seqcount_end(&d->map_seq);
	local_bh_enable();
	return r;
}

/* Where the entry that holds @block begins and ends, if it is @entry. */
static bool dmu_map_span(struct dmu_disk *d, u64 block, void *entry,
			 u64 *first, u64 *last)
{
	MA_STATE(mas, &d->map, block, block);
	bool same;

	rcu_read_lock();
	same = mas_walk(&mas) == entry;
	*first = mas.index;
	*last = mas.last;
	rcu_read_unlock();
	return same;
}

/* What a store is about to replace. */
struct dmu_drop {
	u64 entries;
	struct list_head gone;		/* COW extents that leave the map */
	bool dirty;			/* an extent with uncommitted blocks */
};

static int dmu_count_entry(struct dmu_disk *d, u64 first, u64 last,
			   void *entry, void *arg)
{
	struct dmu_drop *drop = arg;

	drop->entries++;
	return 0;
}

static int dmu_drop_entry(struct dmu_disk *d, u64 first, u64 last,
			  void *entry, void *arg)
{
	struct dmu_drop *drop = arg;
	struct dmu_cow *cow = entry;

	if (xa_is_value(entry))
		return 0;
	cow->mapped -= last - first + 1;
	if (!cow->mapped)
		list_move(&cow->list, &drop->gone);
	/* One that is not revoked may be written to first as long as somebody sees it. */
	if (!dmu_cow_is_revoked(cow) || READ_ONCE(cow->refs) > 1) {
		WRITE_ONCE(cow->cut, true);
		drop->dirty = true;	/* or will be: dmu_cow_mark_dirty() */
	}
	return 0;
}

static int dmu_undrop_entry(struct dmu_disk *d, u64 first, u64 last,
			    void *entry, void *arg)
{
	struct dmu_cow *cow = entry;

	if (!xa_is_value(entry))
		cow->mapped += last - first + 1;
	return 0;
}

/*
 * Blocks of an extent that leaves the map uncommitted may come to live
 * elsewhere before the commit: from now on order counts.
 */
static void dmu_keep_order(struct dmu_disk *d, const struct dmu_drop *drop)
{
	if (!drop->dirty)
		return;
	spin_lock_irq(&d->lock);
	d->keep_order = true;
	spin_unlock_irq(&d->lock);
}

/* The map's references on the extents it lost. */
static void dmu_drop_finish(struct dmu_disk *d, struct dmu_drop *drop)
{
	struct dmu_cow *cow, *next;

	list_for_each_entry_safe(cow, next, &drop->gone, list) {
		list_del_init(&cow->list);
		spin_lock_irq(&d->lock);
		dmu_cow_put(cow);
		spin_unlock_irq(&d->lock);
	}
}

/* How many entries reach over the ends of [first, last], counted per end. */
static unsigned int dmu_map_rests(struct dmu_disk *d, u64 first, u64 last)
{
	MA_STATE(left, &d->map, first, first);
	MA_STATE(right, &d->map, last, last);
	unsigned int rests = 0;

	rcu_read_lock();
	if (mas_walk(&left) && left.index < first)
		rests++;
	if (mas_walk(&right) && right.last > last)
		rests++;
	rcu_read_unlock();
	return rests;
}

/* Grow [first, last] over neighbours that carry the same value. */
static void dmu_map_merge(struct dmu_disk *d, u64 *first, u64 *last, void *entry)
{
	u64 from, to;

	if (!xa_is_value(entry))
		return;
	if (*first && dmu_map_span(d, *first - 1, entry, &from, &to))
		*first = from;
	if (dmu_map_span(d, *last + 1, entry, &from, &to))
		*last = to;
}

/* Put @entry, or nothing, at [first, last]; on an error nothing changes. */
static int dmu_map_replace(struct dmu_disk *d, u64 first, u64 last,
			   void *entry, gfp_t gfp)
{
	MA_STATE(mas, &d->map, 0, 0);
	struct dmu_drop drop = { .gone = LIST_HEAD_INIT(drop.gone) };
	u64 wide_first = first, wide_last = last;
	unsigned int stay;
	int r;

	lockdep_assert_held(&d->map_mutex);
	dmu_map_merge(d, &wide_first, &wide_last, entry);
	dmu_map_walk(d, wide_first, wide_last, dmu_count_entry, &drop);
	if (!entry && !drop.entries)
		return 0;
	stay = dmu_map_rests(d, wide_first, wide_last) + !!entry;

	mas_set_range(&mas, wide_first, wide_last);
	r = dmu_compat_prepare(&mas, entry, gfp);
	if (r)
		return r;
	dmu_map_walk(d, first, last, dmu_drop_entry, &drop);
	dmu_keep_order(d, &drop);
	r = dmu_store(d, &mas, entry);
	if (r) {
		dmu_map_walk(d, first, last, dmu_undrop_entry, NULL);
		list_splice(&drop.gone, &d->cows);
		return r;
	}
	WRITE_ONCE(d->nr_entries, d->nr_entries + stay - drop.entries);
	dmu_drop_finish(d, &drop);
	return 0;
}

/*
 * Map [first, last] to @entry.  For a COW extent the map takes the caller's
 * reference.  -ENOMEM: nothing changed.
 */
int dmu_map_store(struct dmu_disk *d, u64 first, u64 last, void *entry)
{
	int r = dmu_map_replace(d, first, last, entry, DMU_MAP_GFP);
	struct dmu_cow *cow = entry;

	if (!r && !xa_is_value(entry))
		list_add_tail(&cow->list, &d->cows);
	return r;
}

/* Forget [first, last].  -ENOMEM: nothing changed. */
int dmu_map_erase(struct dmu_disk *d, u64 first, u64 last)
{
	return dmu_map_replace(d, first, last, NULL, DMU_MAP_GFP);
}

/*
 * Would @entry at [first, last] say the same as the revoked extent @cow for
 * every block that was copied under it and is not committed?
 */
static bool dmu_agrees(struct dmu_disk *d, struct dmu_cow *cow,
		       u64 first, u64 last, const void *entry)
{
	const struct dmu_cow *new = entry;
	u64 b, n;
	bool own;

	if (!cow->nr_uncommitted || !entry)
		return true;
	for (b = first; b <= last; b += n) {
		n = dmu_cow_run(cow, b, last - b + 1, &own);
		if (!own)
			continue;
		if (xa_is_value(entry)) {
			if (dmu_value_kind(entry) > DMU_VALUE_RW ||
			    dmu_value_dev(entry) != cow->dev ||
			    dmu_value_distance(entry) != cow->distance)
				return false;
		} else if (new->dev != cow->dev ||
			   new->distance != cow->distance ||
			   dmu_cow_run((struct dmu_cow *)new, b, n, &own) < n ||
			   !own) {
			return false;
		}
	}
	return true;
}

/* I5: may @arg (an entry) take the place of @entry? */
static int dmu_check_entry(struct dmu_disk *d, u64 first, u64 last,
			   void *entry, void *arg)
{
	if (xa_is_value(entry)) {
		if (dmu_value_kind(entry) == DMU_VALUE_RW && entry != arg)
			return -EEXIST;
		return 0;
	}
	if (!dmu_cow_is_revoked(entry))
		return -EEXIST;
	return dmu_agrees(d, entry, first, last, arg) ? 0 : -EEXIST;
}

int dmu_map_check(struct dmu_disk *d, u64 first, u64 last, const void *entry)
{
	return dmu_map_walk(d, first, last, dmu_check_entry, (void *)entry);
}

/* The first entry at or after *@first. */
static void *dmu_map_next(struct dmu_disk *d, u64 *first, u64 *last)
{
	MA_STATE(mas, &d->map, *first, *first);
	void *entry;

	rcu_read_lock();
	entry = mas_find(&mas, ULONG_MAX);
	if (entry) {
		*first = mas.index;
		*last = mas.last;
	}
	rcu_read_unlock();
	return entry;
}

/*
 * Forget one entry, unless something is busy under it or uncommitted.  Returns
 * what it was reckoned at, 0, or -ENOMEM.
 */
static s64 dmu_evict_one(struct dmu_disk *d, u64 first, u64 last, void *entry,
			 gfp_t gfp)
{
	struct dmu_cow *cow = xa_is_value(entry) ? NULL : entry;
	/* A part of an extent frees its entry only. */
	bool all = cow && cow->mapped == last - first + 1;
	s64 bytes = DMU_ENTRY_COST + (all ? cow->bytes : 0);
	bool was_revoked = cow && READ_ONCE(cow->revoked);
	int r;

	if (cow && !dmu_cow_retire(cow, 1))
		return 0;
	r = dmu_map_replace(d, first, last, NULL, gfp);
	if (r) {
		/* Where a part left the map before, others may live by now. */
		if (cow)
			WRITE_ONCE(cow->revoked, was_revoked);
		return r;
	}
	dmu_count(d, DMU_EVICTIONS);
	return bytes;
}

/*
 * Forget entries, round and round through the map, until @bytes are free or
 * every entry was looked at once.  Returns the bytes.
 */
u64 dmu_map_evict(struct dmu_disk *d, u64 bytes, gfp_t gfp)
{
	u64 looked = 0, total = d->nr_entries, freed = 0;
	u64 first, last = 0;
	void *entry;
	s64 r;

	lockdep_assert_held(&d->map_mutex);
	while (freed < bytes && looked++ <= total) {
		first = d->evict_next;
		entry = dmu_map_next(d, &first, &last);
		if (!entry) {
			d->evict_next = 0;
			continue;
		}
		d->evict_next = last + 1;
		r = dmu_evict_one(d, first, last, entry, gfp);
		if (r < 0)
			break;
		freed += r;
		cond_resched();
	}
	return freed;
}

/* Make @bytes of the budget free.  -E2BIG: cannot be. */
int dmu_map_make_room(struct dmu_disk *d, u64 bytes)
{
	u64 used = dmu_map_bytes(d) + bytes;

	if (bytes > d->map_budget)
		return -E2BIG;
	if (used <= d->map_budget)
		return 0;
	used -= d->map_budget;
	return dmu_map_evict(d, used, DMU_MAP_GFP) >= used ? 0 : -E2BIG;
}

/*
 * The same for an extent.  What was forgotten keeps its memory until I/O under way has
 * ended: to forget more on its account would free nothing, and both together are twice
 * the budget at most (I12).
 */
int dmu_map_make_room_for_cow(struct dmu_disk *d, u64 bytes)
{
	if (bytes + atomic64_read(&d->dying_bytes) > d->map_budget)
		return -E2BIG;
	return dmu_map_make_room(d, bytes);
}

struct dmu_settle {
	struct dmu_cow *cow;
	u64 first, last;
	bool found;
};

static int dmu_find_part(struct dmu_disk *d, u64 first, u64 last, void *entry,
			 void *arg)
{
	struct dmu_settle *s = arg;

	if (entry != s->cow)
		return 0;
	s->first = first;
	s->last = last;
	s->found = true;
	return 1;
}

/*
 * After a commit: an extent with nothing but CLEAN blocks is LINEAR rw, and
 * one that was not to be remembered goes, unless something is busy under it.
 * -ENOMEM: it stays as it is, which is right as well.  The caller holds the
 * second reference.
 */
int dmu_map_settle(struct dmu_disk *d, struct dmu_cow *cow)
{
	u64 end = cow->first + cow->count;
	struct dmu_settle s = { .cow = cow };
	void *entry = NULL;
	bool retired = false;
	u64 from;
	int r = 0;

	lockdep_assert_held(&d->map_mutex);
	if (cow->remember) {
		if (cow->nr_clean < cow->count)
			return 0;
		entry = dmu_value(DMU_VALUE_RW, cow->dev, cow->distance);
	} else {
		retired = !READ_ONCE(cow->revoked);
		if (!dmu_cow_retire(cow, 2))
			return 0;
	}
	for (from = cow->first; !r && cow->mapped && from < end;
	     from = s.last + 1) {
		s.found = false;
		dmu_map_walk(d, from, end - 1, dmu_find_part, &s);
		if (WARN_ON_ONCE(!s.found))
			break;
		r = dmu_map_replace(d, s.first, s.last, entry, DMU_MAP_GFP);
		if (!r)
			retired = false;	/* others may live there now */
	}
	if (r && retired)
		WRITE_ONCE(cow->revoked, false);
	return r;
}

/* Every index of the live table has the same meaning in @t. */
static bool dmu_same_indexes(struct dmu_disk *d, struct dmu_target *t)
{
	unsigned int i;

	for (i = 0; i < t->nr_devs; i++)
		if (t->devs[i].fresh)
			return false;
	return !d->target || t->nr_devs >= d->target->nr_devs;
}

/*
 * What was copied and is not committed stands in a device of the new table, under its
 * index: else the daemon would be told of a place that never held it.
 */
bool dmu_uncommitted_fit(struct dmu_disk *d, struct dmu_target *t)
{
	struct dmu_cow *cow;
	bool fit = true, all;
	u64 seen = 0;

	spin_lock_irq(&d->lock);
	list_for_each_entry(cow, &d->dirty, dirty) {
		seen += cow->nr_uncommitted;
		if (cow->nr_uncommitted &&
		    (cow->dev >= t->nr_devs || t->devs[cow->dev].fresh))
			fit = false;
	}
	/* A round may have the list in its hands. */
	all = seen == atomic64_read(&d->nr_uncommitted);
	spin_unlock_irq(&d->lock);
	return fit && (all || dmu_same_indexes(d, t));
}

static bool dmu_place_fits(struct dmu_disk *d, struct dmu_target *t, u32 dev,
			   s64 distance, u64 first, u64 last, bool writable)
{
	sector_t start = dmu_block_to_sector(d, first);
	sector_t end = min(dmu_block_to_sector(d, last + 1), t->nr_sectors);

	return dev < t->nr_devs && !t->devs[dev].fresh &&
	       !(writable && t->devs[dev].readonly) &&
	       (s64)start + distance >= 0 &&
	       dmu_is_aligned(t->devs[dev].dev->bdev, start + distance) &&
	       end + distance <= bdev_nr_sectors(t->devs[dev].dev->bdev);
}

struct dmu_prune {
	struct dmu_target *t;
	u64 first, last;
};

/* Stops at the first entry that does not fit the new table. */
static int dmu_prune_entry(struct dmu_disk *d, u64 first, u64 last,
			   void *entry, void *arg)
{
	struct dmu_prune *p = arg;
	struct dmu_cow *cow = entry;
	bool fits;

	p->first = first;
	p->last = last;
	if (xa_is_value(entry))
		fits = dmu_value_kind(entry) > DMU_VALUE_RW ||
		       dmu_place_fits(d, p->t, dmu_value_dev(entry),
				      dmu_value_distance(entry), first, last,
				      dmu_value_kind(entry) == DMU_VALUE_RW);
	else
		fits = dmu_place_fits(d, p->t, cow->dev, cow->distance,
				      first, last, true) &&
		       (cow->src_dev == DMU_DEV_NONE ||
			dmu_place_fits(d, p->t, cow->src_dev,
				       cow->src_distance, first, last, false));
	return !fits;
}

/*
 * Table @t takes over, the last one had @was sectors: drop what does not hold
 * any more.  No I/O is in flight.
 */
int dmu_map_prune(struct dmu_disk *d, struct dmu_target *t, sector_t was)
{
	struct dmu_prune p = { .t = t };
	u64 from = ULONG_MAX;
	int r = 0;

	lockdep_assert_held(&d->map_mutex);
	if (was != t->nr_sectors)
		from = dmu_sector_to_block(d, min(was, t->nr_sectors));
	if (from != ULONG_MAX)
		r = dmu_map_erase(d, from, ULONG_MAX - 1);
	while (!r && dmu_map_walk(d, p.first, ULONG_MAX - 1, dmu_prune_entry, &p))
		r = dmu_map_erase(d, p.first, p.last);
	return r;
}

static void dmu_count_disk(struct dmu_disk *d, void *arg)
{
	*(unsigned long *)arg += READ_ONCE(d->nr_entries) +
				 dmu_copy_idle_bytes(d) / DMU_ENTRY_COST;
}

static unsigned long dmu_shrink_count(struct shrinker *s,
				      struct shrink_control *sc)
{
	unsigned long n = 0;

	dmu_disk_for_each(dmu_count_disk, &n);
	return n;
}

struct dmu_shrink {
	u64 entries;
	unsigned long freed;
};

static void dmu_shrink_disk(struct dmu_disk *d, void *arg)
{
	struct dmu_shrink *s = arg;
	u64 before = READ_ONCE(d->nr_entries);

	if (s->freed < s->entries)
		s->freed += dmu_copy_free_idle(d) / DMU_ENTRY_COST;
	if (s->freed >= s->entries || !mutex_trylock(&d->map_mutex))
		return;
	dmu_map_evict(d, (s->entries - s->freed) * DMU_ENTRY_COST,
		      GFP_NOWAIT | __GFP_NOWARN);
	s->freed += before - min(before, d->nr_entries);
	mutex_unlock(&d->map_mutex);
}

static unsigned long dmu_shrink_scan(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	struct dmu_shrink s = { .entries = sc->nr_to_scan };

	dmu_disk_for_each(dmu_shrink_disk, &s);
	return s.freed ?: SHRINK_STOP;
}

int dmu_map_init(void)
{
	dmu_shrinker = dmu_compat_shrinker(dmu_shrink_count, dmu_shrink_scan);
	return dmu_shrinker ? 0 : -ENOMEM;
}

/* Nobody reads any more. */
void dmu_map_destroy(struct dmu_disk *d)
{
	mutex_lock(&d->map_mutex);
	__mt_destroy(&d->map);
	mutex_unlock(&d->map_mutex);
}

void dmu_map_exit(void)
{
	dmu_compat_shrinker_free(dmu_shrinker);
}
