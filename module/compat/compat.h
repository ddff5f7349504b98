/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that this builds on, each behind the name
 * of an ability that Kbuild probed for.
 */
#ifndef DMU_COMPAT_H
#define DMU_COMPAT_H

#include <linux/blkdev.h>
#include <linux/maple_tree.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>

/* Later kernels want to be told what was the default. */
#ifndef DMU_HAS_WQ_PERCPU
#define WQ_PERCPU 0
#endif

/*
 * An SRCU section entered where a bio is sent on and left where it completes,
 * maybe in an interrupt: lockdep must not track it per task.
 */
#ifndef DMU_HAS_SRCU_DOWN_READ
static inline int srcu_down_read(struct srcu_struct *ssp) __acquires(ssp)
{
	return __srcu_read_lock(ssp);
}

static inline void srcu_up_read(struct srcu_struct *ssp, int idx)
	__releases(ssp)
{
	__srcu_read_unlock(ssp, idx);
}
#endif

/*
 * A store into a tree whose lock is a mutex of ours: memory first, which may
 * wait, then the store, which may not.  6.1 does not export the first step;
 * there the store takes its few hundred bytes from the reserves, or fails.
 */
#ifdef DMU_HAS_MAS_PREALLOCATE
static inline int dmu_compat_prepare(struct ma_state *mas, void *entry,
				     gfp_t gfp)
{
	return mas_preallocate(mas, entry, gfp);
}

static inline int dmu_compat_store(struct ma_state *mas, void *entry)
{
	mas_store_prealloc(mas, entry);
	return 0;
}
#else
static inline int dmu_compat_prepare(struct ma_state *mas, void *entry,
				     gfp_t gfp)
{
	return 0;
}

static inline int dmu_compat_store(struct ma_state *mas, void *entry)
{
	return mas_store_gfp(mas, entry, GFP_ATOMIC | __GFP_NOWARN);
}
#endif

/* How a device is opened. */
#ifndef DMU_HAS_BLK_MODE
#define blk_mode_t fmode_t
#define DMU_OPEN_WRITE FMODE_WRITE
#else
#define DMU_OPEN_WRITE BLK_OPEN_WRITE
#endif

static inline void dmu_compat_discard_limit(struct queue_limits *limits,
					    unsigned int sectors)
{
	limits->max_hw_discard_sectors = sectors;
#ifndef DMU_HAS_USER_DISCARD_LIMIT
	limits->max_discard_sectors = sectors;
#endif
}

#ifdef DMU_HAS_SHRINKER_ALLOC
static inline struct shrinker *
dmu_compat_shrinker(unsigned long (*count)(struct shrinker *,
					   struct shrink_control *),
		    unsigned long (*scan)(struct shrinker *,
					  struct shrink_control *))
{
	struct shrinker *s = shrinker_alloc(0, "dm-userspace");

	if (!s)
		return NULL;
	s->count_objects = count;
	s->scan_objects = scan;
	shrinker_register(s);
	return s;
}

static inline void dmu_compat_shrinker_free(struct shrinker *s)
{
	shrinker_free(s);
}
#else
static inline struct shrinker *
dmu_compat_shrinker(unsigned long (*count)(struct shrinker *,
					   struct shrink_control *),
		    unsigned long (*scan)(struct shrinker *,
					  struct shrink_control *))
{
	struct shrinker *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return NULL;
	s->count_objects = count;
	s->scan_objects = scan;
	s->seeks = DEFAULT_SEEKS;
	if (register_shrinker(s, "dm-userspace")) {
		kfree(s);
		return NULL;
	}
	return s;
}

static inline void dmu_compat_shrinker_free(struct shrinker *s)
{
	unregister_shrinker(s);
	kfree(s);
}
#endif

#endif
