// SPDX-License-Identifier: GPL-2.0-only
/*
 * A disk: what belongs to one key and outlives a table.  Keys are unique on
 * the machine; every table of one mapped device that names the key shares
 * its disk.
 */
#include "dmu.h"

#include <linux/module.h>

static DEFINE_MUTEX(dmu_disks_mutex);
static LIST_HEAD(dmu_disks);

static struct dmu_disk *dmu_disk_lookup(const char *key)
{
	struct dmu_disk *d;

	lockdep_assert_held(&dmu_disks_mutex);
	list_for_each_entry(d, &dmu_disks, list)
		if (!strcmp(d->key, key))
			return d;
	return NULL;
}

static void dmu_disk_init_fields(struct dmu_disk *d)
{
	kref_init(&d->ref);
	init_rwsem(&d->table_lock);
	mutex_init(&d->map_mutex);
	/*
	 * ALLOC_RANGE for its nodes: in a tree without it mt_free_walk() takes
	 * the metadata of an inner node with 15 children for a child (6.1).
	 */
	mt_init_flags(&d->map, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU |
			       MT_FLAGS_LOCK_EXTERN);
	mt_set_external_lock(&d->map, &d->map_mutex);
	seqcount_init(&d->map_seq);
	d->map_gen = 1;
	INIT_LIST_HEAD(&d->targets);
	INIT_LIST_HEAD(&d->cows);
	spin_lock_init(&d->lock);
	d->cells = RB_ROOT;
	INIT_LIST_HEAD(&d->asks);
	INIT_LIST_HEAD(&d->asked);
	INIT_LIST_HEAD(&d->stalled);
	INIT_LIST_HEAD(&d->pending_invals);
	INIT_LIST_HEAD(&d->failed_copies);
	INIT_LIST_HEAD(&d->waiting_copies);
	INIT_LIST_HEAD(&d->idle_copies);
	bio_list_init(&d->deferred);
	INIT_LIST_HEAD(&d->dirty);
	bio_list_init(&d->flushes);
	INIT_LIST_HEAD(&d->invals);
	bio_list_init(&d->round.flushes);
	INIT_LIST_HEAD(&d->round.invals);
	INIT_WORK(&d->deferred_work, dmu_deferred_work);
	INIT_WORK(&d->copy_work, dmu_copy_work);
	INIT_WORK(&d->waiting_work, dmu_waiting_work);
	INIT_DELAYED_WORK(&d->no_space_work, dmu_no_space_work);
	INIT_WORK(&d->round_work, dmu_round_work);
	INIT_DELAYED_WORK(&d->policy_work, dmu_policy_work);
	d->map_budget = (u64)DMU_DEFAULT_MAP_KIB << 10;
	d->last_flush = -ENODEV;
}

static struct dmu_disk *dmu_disk_create(const char *key, unsigned int shift)
{
	struct dmu_disk *d = kzalloc(sizeof(*d), GFP_KERNEL);
	int r = -ENOMEM;

	if (!d)
		return ERR_PTR(-ENOMEM);
	dmu_disk_init_fields(d);
	strscpy(d->key, key, sizeof(d->key));
	d->block_shift = shift;

	d->stats = alloc_percpu(struct dmu_stats);
	if (!d->stats)
		goto free_disk;
	r = init_srcu_struct(&d->srcu);
	if (r)
		goto free_stats;
	r = -ENOMEM;
	/*
	 * Not WQ_UNBOUND: what we wait for may be a loop device, which works in
	 * the pool of the unbound and has no rescuer.  A worker of that pool that
	 * waits for it in a flush could be the last one that memory is there for.
	 */
	d->wq = alloc_workqueue("dmu-%.16s", WQ_MEM_RECLAIM | WQ_PERCPU, 0,
				key);
	if (!d->wq)
		goto free_srcu;
	d->kcopyd = dm_kcopyd_client_create(NULL);
	if (IS_ERR(d->kcopyd)) {
		r = PTR_ERR(d->kcopyd);
		goto free_wq;
	}
	return d;

free_wq:
	destroy_workqueue(d->wq);
free_srcu:
	cleanup_srcu_struct(&d->srcu);
free_stats:
	free_percpu(d->stats);
free_disk:
	kfree(d);
	return ERR_PTR(r);
}

static void dmu_disk_free_cows(struct dmu_disk *d)
{
	struct dmu_cow *cow, *next;

	list_for_each_entry_safe(cow, next, &d->dirty, dirty) {
		list_del_init(&cow->dirty);
		if (!--cow->refs)
			dmu_cow_free(cow);
	}
	list_for_each_entry_safe(cow, next, &d->cows, list) {
		list_del(&cow->list);
		WARN_ON(--cow->refs);
		dmu_cow_free(cow);
	}
}

/* The last reference is gone: no target, so no bio, and no channel. */
static void dmu_disk_free(struct kref *ref)
{
	struct dmu_disk *d = container_of(ref, struct dmu_disk, ref);

	cancel_delayed_work_sync(&d->policy_work);
	cancel_delayed_work_sync(&d->no_space_work);
	dm_kcopyd_client_destroy(d->kcopyd);
	destroy_workqueue(d->wq);
	srcu_barrier(&d->srcu);

	/* I1: nothing is held, nothing is under way. */
	WARN_ON(d->nr_waiting);
	WARN_ON(!RB_EMPTY_ROOT(&d->cells));
	WARN_ON(!bio_list_empty(&d->deferred));
	WARN_ON(!list_empty(&d->failed_copies));
	WARN_ON(!list_empty(&d->waiting_copies) || d->nr_copies);
	WARN_ON(!bio_list_empty(&d->no_space));
	WARN_ON(!bio_list_empty(&d->flushes));
	WARN_ON(!bio_list_empty(&d->round.flushes));

	dmu_copy_free_idle(d);
	dmu_disk_free_cows(d);
	dmu_map_destroy(d);
	cleanup_srcu_struct(&d->srcu);
	free_percpu(d->stats);
	kfree(d);
}

void dmu_disk_put(struct dmu_disk *d)
{
	kref_put(&d->ref, dmu_disk_free);
}

/* May a table that is being loaded join disk @d? */
static char *dmu_disk_refuse(struct dmu_disk *d, struct dm_target *ti,
			     unsigned int shift)
{
	if (d->md != dm_table_get_md(ti->table))
		return "key is in use by another device";
	if (d->newest_table == ti->table)
		return "key stands twice in one table";
	if (d->block_shift != shift)
		return "block size differs from that of the live table";
	return NULL;
}

/*
 * The disk of @key for a table that is being loaded, made if it is new.
 * Balanced by dmu_disk_put_target().
 */
struct dmu_disk *dmu_disk_get(const char *key, struct dm_target *ti,
			      unsigned int shift, char **error)
{
	struct dmu_disk *d, *new = NULL;

	mutex_lock(&dmu_disks_mutex);
	d = dmu_disk_lookup(key);
	if (!d) {
		/* Without the mutex: what memory waits for may need an attach. */
		mutex_unlock(&dmu_disks_mutex);
		new = dmu_disk_create(key, shift);
		if (IS_ERR(new)) {
			*error = "cannot allocate the state of the key";
			return new;
		}
		mutex_lock(&dmu_disks_mutex);
		d = dmu_disk_lookup(key);
	}
	if (d) {
		*error = dmu_disk_refuse(d, ti, shift);
		if (!*error)
			kref_get(&d->ref);
	} else {
		d = new;
		new = NULL;
		d->md = dm_table_get_md(ti->table);
		list_add(&d->list, &dmu_disks);
		*error = NULL;
	}
	if (!*error) {
		d->nr_targets++;
		d->newest_table = ti->table;
	}
	mutex_unlock(&dmu_disks_mutex);
	if (new)
		dmu_disk_put(new);
	return *error ? ERR_PTR(-EBUSY) : d;
}

void dmu_disk_put_target(struct dmu_disk *d, struct dm_table *table)
{
	mutex_lock(&dmu_disks_mutex);
	if (d->newest_table == table)	/* another may get its address */
		d->newest_table = NULL;
	if (!--d->nr_targets) {
		list_del(&d->list);
		spin_lock_irq(&d->lock);
		d->dead = true;
		dmu_wake(d);
		spin_unlock_irq(&d->lock);
	}
	mutex_unlock(&dmu_disks_mutex);
	dmu_disk_put(d);
}

/* The disk of @key with a reference, or NULL. */
struct dmu_disk *dmu_disk_find(const char *key)
{
	struct dmu_disk *d;

	mutex_lock(&dmu_disks_mutex);
	d = dmu_disk_lookup(key);
	if (d)
		kref_get(&d->ref);
	mutex_unlock(&dmu_disks_mutex);
	return d;
}

/* For the shrinker: gives up rather than waits. */
void dmu_disk_for_each(void (*fn)(struct dmu_disk *, void *), void *arg)
{
	struct dmu_disk *d;

	if (!mutex_trylock(&dmu_disks_mutex))
		return;
	list_for_each_entry(d, &dmu_disks, list)
		fn(d, arg);
	mutex_unlock(&dmu_disks_mutex);
}

u64 dmu_disk_stat(struct dmu_disk *d, enum dmu_stat s)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(d->stats, cpu)->v[s];
	return sum;
}

/* Does what needs the daemon fail at once? */
bool dmu_must_fail(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	if (d->mode == DMU_MODE_FAIL)
		return true;
	return !d->channel && (d->policy == DMU_POLICY_FAIL || d->expired);
}

/* The daemon is gone, or the policy is new: from now on its time runs. */
void dmu_arm_policy(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	if (!d->channel && d->policy == DMU_POLICY_TIMEOUT)
		mod_delayed_work(d->wq, &d->policy_work,
				 (unsigned long)d->timeout * HZ);
}

/* Wake who waits for an event of the device: a daemon went, I/O fails. */
void dmu_notify(struct dmu_disk *d)
{
	down_read(&d->table_lock);
	if (d->target)
		dm_table_event(d->target->ti->table);
	up_read(&d->table_lock);
}

/* Fail every held bio and every flush that waits for a commit. */
void dmu_fail_held(struct dmu_disk *d)
{
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock_irq(&d->lock);
	dmu_take_held(d, &bios);
	spin_unlock_irq(&d->lock);
	dmu_complete_list(&bios, BLK_STS_IOERR);
}

/* Is something held that the daemon, or a commit, has to let go? */
static bool dmu_daemon_owes(struct dmu_disk *d)
{
	return !list_empty(&d->asked) || !list_empty(&d->asks) ||
	       !list_empty(&d->stalled) || !bio_list_empty(&d->flushes) ||
	       !bio_list_empty(&d->round.flushes);
}

/*
 * A drain is given up when the daemon lets nothing go for so long, not when there is
 * much to do: this says that it did.
 */
void dmu_drain_goes_on(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	if (d->mode == DMU_MODE_DRAIN)
		mod_delayed_work(d->wq, &d->policy_work,
				 DMU_DRAIN_SECONDS * HZ);
}

void dmu_policy_work(struct work_struct *work)
{
	struct dmu_disk *d = container_of(to_delayed_work(work),
					  struct dmu_disk, policy_work);
	bool fail;

	spin_lock_irq(&d->lock);
	if (d->mode == DMU_MODE_DRAIN && d->channel && !dmu_daemon_owes(d))
		dmu_drain_goes_on(d);
	else if (d->mode == DMU_MODE_DRAIN)
		d->mode = DMU_MODE_FAIL;
	else if (!d->channel && d->policy == DMU_POLICY_TIMEOUT)
		d->expired = true;
	fail = dmu_must_fail(d);
	spin_unlock_irq(&d->lock);

	if (fail) {
		DMWARN("%s: no answer from a daemon, failing the I/O that waits",
		       d->key);
		dmu_fail_held(d);
		dmu_notify(d);
	}
}

void dmu_set_policy(struct dmu_disk *d, enum dmu_policy p, unsigned int timeout)
{
	bool fail;

	spin_lock_irq(&d->lock);
	d->policy = p;
	d->timeout = timeout;
	d->expired = false;
	fail = dmu_must_fail(d);
	dmu_arm_policy(d);
	spin_unlock_irq(&d->lock);
	if (fail)
		dmu_fail_held(d);
}

static void dmu_requeue_held(struct dmu_disk *d)
{
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock_irq(&d->lock);
	dmu_take_held(d, &bios);
	bio_list_merge(&bios, &d->no_space);
	bio_list_init(&d->no_space);
	spin_unlock_irq(&d->lock);
	dmu_complete_list(&bios, BLK_STS_DM_REQUEUE);
}

/* Nothing is in flight any more: the drain needs no limit. */
void dmu_suspended(struct dmu_disk *d)
{
	spin_lock_irq(&d->lock);
	if (d->mode == DMU_MODE_DRAIN) {
		d->mode = DMU_MODE_RUN;
		cancel_delayed_work(&d->policy_work);
	}
	spin_unlock_irq(&d->lock);
}

/* A suspend starts (DRAIN, REQUEUE) or is over (RUN). */
void dmu_set_mode(struct dmu_disk *d, enum dmu_mode mode)
{
	spin_lock_irq(&d->lock);
	if (mode == DMU_MODE_DRAIN && !d->channel)
		mode = DMU_MODE_FAIL;
	d->mode = mode;
	dmu_drain_goes_on(d);
	if (mode == DMU_MODE_RUN)
		dmu_arm_policy(d);
	spin_unlock_irq(&d->lock);

	if (mode == DMU_MODE_FAIL)
		dmu_fail_held(d);
	else if (mode == DMU_MODE_REQUEUE)
		dmu_requeue_held(d);
}
