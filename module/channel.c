// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control node: attach, events out by read(), replies in by write().
 */
#include "dmu.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

/* Events handed over by one read() at most. */
#define DMU_READ_BATCH (4 * PAGE_SIZE / sizeof(struct dmu_event))

/* There may be something to read. */
void dmu_wake(struct dmu_disk *d)
{
	lockdep_assert_held(&d->lock);
	if (d->channel)
		wake_up_interruptible(&d->channel->wait);
}

bool dmu_is_attached(struct dmu_disk *d)
{
	return READ_ONCE(d->channel);
}

/* The disk that the open file is attached to, or NULL. */
static struct dmu_disk *dmu_disk_of(struct dmu_channel *c)
{
	return smp_load_acquire(&c->disk);	/* pairs with dmu_attach() */
}

static int dmu_open(struct inode *inode, struct file *file)
{
	struct dmu_channel *c;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	if (!c)
		return -ENOMEM;
	c->events = kvcalloc(DMU_READ_BATCH, sizeof(*c->events), GFP_KERNEL);
	if (!c->events) {
		kfree(c);
		return -ENOMEM;
	}
	mutex_init(&c->read_mutex);
	mutex_init(&c->write_mutex);
	init_waitqueue_head(&c->wait);
	file->private_data = c;
	return stream_open(inode, file);
}

/* The daemon is gone: what it owed is owed by the next one. */
static void dmu_detach(struct dmu_disk *d)
{
	bool fail;

	spin_lock_irq(&d->lock);
	d->channel = NULL;
	d->replaying = false;
	dmu_round_detach(d);
	dmu_unread(d, 0);
	if (d->mode == DMU_MODE_DRAIN)
		d->mode = DMU_MODE_FAIL;
	d->expired = false;
	fail = dmu_must_fail(d);
	dmu_arm_policy(d);
	spin_unlock_irq(&d->lock);

	if (fail)
		dmu_fail_held(d);
	dmu_round_kick(d);
	dmu_notify(d);
}

static int dmu_release(struct inode *inode, struct file *file)
{
	struct dmu_channel *c = file->private_data;

	if (c->disk) {
		dmu_detach(c->disk);
		dmu_disk_put(c->disk);
	}
	kvfree(c->events);
	kfree(c);
	return 0;
}

static u32 dmu_ask_type(struct dmu_cell *cell)
{
	struct bio *bio = bio_list_peek(&cell->waiters);

	if (cell->kind == DMU_CELL_ASK)
		return DMU_EV_MAP;
	return bio_op(bio) == REQ_OP_DISCARD ? DMU_EV_DISCARD :
					       DMU_EV_WRITE_ZEROES;
}

/*
 * Requests that wait for a daemon with a feature that this one has not: a
 * discard may be ignored, and who wants zeroes can write them.
 */
static void dmu_take_unwanted(struct dmu_disk *d, struct bio_list *discards,
			      struct bio_list *zeroes)
{
	struct dmu_cell *cell, *next;

	list_for_each_entry_safe(cell, next, &d->asks, list) {
		u32 type = dmu_ask_type(cell);

		if (type == DMU_EV_DISCARD && !(d->features & DMU_FEAT_DISCARD))
			dmu_cell_release(d, cell, discards);
		else if (type == DMU_EV_WRITE_ZEROES &&
			 !(d->features & DMU_FEAT_WRITE_ZEROES))
			dmu_cell_release(d, cell, zeroes);
	}
}

static int dmu_attach_disk(struct dmu_channel *c, struct dmu_disk *d,
			   struct dmu_attach *a)
{
	struct dmu_inval *replay = kzalloc(sizeof(*replay), GFP_KERNEL);
	struct bio_list discards = BIO_EMPTY_LIST, zeroes = BIO_EMPTY_LIST;
	int r = 0;

	if (!replay)
		return -ENOMEM;
	down_read(&d->table_lock);
	if (!d->target)
		r = -ENODEV;
	else
		a->nr_devs = d->target->nr_devs;
	a->nr_sectors = d->nr_sectors;
	a->block_sectors = dmu_block_sectors(d);

	spin_lock_irq(&d->lock);
	if (d->dead)
		r = -ENODEV;
	else if (d->channel)
		r = -EBUSY;
	if (!r) {
		d->channel = c;
		d->replaying = true;
		d->expired = false;
		d->features = a->features;
		replay->disk = d;
		INIT_LIST_HEAD(&replay->pending);
		/* I9: this revokes every delegation that there is. */
		WRITE_ONCE(d->generation, d->generation + 1);
		replay->generation = d->generation;
		dmu_take_unwanted(d, &discards, &zeroes);
	}
	spin_unlock_irq(&d->lock);
	up_read(&d->table_lock);	/* a table that goes sees who is attached */
	dmu_complete_list(&discards, BLK_STS_OK);
	dmu_complete_list(&zeroes, BLK_STS_NOTSUPP);
	if (r) {
		kfree(replay);
		return r;
	}
	/* I9: the replay starts when what is under way is through. */
	call_srcu(&d->srcu, &replay->rcu, dmu_inval_done);
	return 0;
}

/* Why the request is malformed, or 0. */
static int dmu_attach_check(struct dmu_attach *a)
{
	size_t len = strnlen(a->key, sizeof(a->key));

	if (a->version != DMU_VERSION) {
		a->version = DMU_VERSION;
		return -EPROTO;
	}
	if (a->pad || memchr_inv(a->reserved, 0, sizeof(a->reserved)) ||
	    a->block_sectors || a->nr_devs || a->nr_sectors)
		return -EINVAL;
	if (!len || len == sizeof(a->key) ||
	    memchr_inv(a->key + len, 0, sizeof(a->key) - len))
		return -EINVAL;
	if (a->features & ~DMU_FEATURES_ALL) {
		a->features = DMU_FEATURES_ALL;
		return -EOPNOTSUPP;
	}
	return 0;
}

static int dmu_attach(struct dmu_channel *c, struct dmu_attach *a)
{
	struct dmu_disk *d;
	int r;

	r = dmu_attach_check(a);
	if (r)
		return r;
	if (dmu_disk_of(c))	/* whose reader may sleep with the mutex */
		return -EALREADY;
	d = dmu_disk_find(a->key);
	if (!d)
		return -ENODEV;

	mutex_lock(&c->read_mutex);
	mutex_lock(&c->write_mutex);
	r = c->disk ? -EALREADY : dmu_attach_disk(c, d, a);
	if (!r)
		smp_store_release(&c->disk, d);	/* pairs with dmu_disk_of() */
	mutex_unlock(&c->write_mutex);
	mutex_unlock(&c->read_mutex);
	if (r)
		dmu_disk_put(d);
	return r;
}

static long dmu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dmu_channel *c = file->private_data;
	void __user *p = (void __user *)arg;
	struct dmu_attach a;
	int r;

	if (cmd != DMU_IOC_ATTACH)
		return -ENOTTY;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&a, p, sizeof(a)))
		return -EFAULT;
	r = dmu_attach(c, &a);
	if (r && r != -EPROTO && r != -EOPNOTSUPP)
		return r;
	return copy_to_user(p, &a, sizeof(a)) ? -EFAULT : r;
}

/* events */

/* Does @next go on where @cell ends, ask the same, and may be asked? */
static bool dmu_ask_goes_on(struct dmu_disk *d, const struct dmu_cell *cell,
			    const struct dmu_cell *next)
{
	return next && next->kind == DMU_CELL_ASK && !next->id &&
	       next->first == cell->last + 1 && next->write == cell->write &&
	       next->overwrite == cell->overwrite &&
	       dmu_ask_list(d, next) == &d->asks;
}

static void dmu_ask_read(struct dmu_disk *d, struct dmu_event *ev)
{
	struct dmu_cell *cell = list_first_entry(&d->asks, struct dmu_cell, list);
	struct dmu_cell *next;

	memset(ev, 0, sizeof(*ev));
	ev->type = dmu_ask_type(cell);
	ev->id = ++d->next_id;
	ev->block = cell->first;
	if (cell->kind == DMU_CELL_ASK)
		ev->flags = (cell->write ? DMU_EV_WRITE : 0) |
			    (cell->overwrite ? DMU_EV_OVERWRITE : 0);
	for (;;) {
		cell->id = ev->id;
		list_move_tail(&cell->list, &d->asked);
		ev->count += cell->last - cell->first + 1;
		if (cell->kind != DMU_CELL_ASK)
			break;
		next = dmu_cell_next(cell);
		if (!dmu_ask_goes_on(d, cell, next))
			break;
		cell = next;
	}
	if (ev->type == DMU_EV_MAP)
		dmu_count(d, DMU_EVENTS);
}

/* Up to @max events into c->events; what to take back if they get lost. */
struct dmu_batch {
	struct dmu_round was;
	u64 first_id;
	struct list_head done;
	unsigned int n;
};

static int dmu_batch_fill(struct dmu_channel *c, unsigned int max,
			  struct dmu_batch *b)
{
	struct dmu_disk *d = c->disk;
	int r;

	INIT_LIST_HEAD(&b->done);
	spin_lock_irq(&d->lock);
	if (dmu_is_over(d)) {
		r = d->lost ? -EIO : -ENODEV;
		spin_unlock_irq(&d->lock);
		return r;
	}
	b->was = d->round;
	b->first_id = d->next_id + 1;
	b->n = dmu_round_report(d, c->events, max, &b->done);
	while (!d->replaying && b->n < max && !list_empty(&d->asks))
		dmu_ask_read(d, &c->events[b->n++]);
	if (!b->n)
		dmu_round_delivered(d, &b->was, &b->done, true);
	spin_unlock_irq(&d->lock);
	return 0;
}

static void dmu_batch_end(struct dmu_disk *d, struct dmu_batch *b, bool ok)
{
	spin_lock_irq(&d->lock);
	if (!ok)
		dmu_unread(d, b->first_id);
	dmu_round_delivered(d, &b->was, &b->done, ok);
	spin_unlock_irq(&d->lock);
}

static bool dmu_readable(struct dmu_disk *d)
{
	bool r;

	spin_lock_irq(&d->lock);
	r = dmu_is_over(d) || d->round.phase == DMU_ROUND_REPORTING ||
	    (!d->replaying && !list_empty(&d->asks));
	spin_unlock_irq(&d->lock);
	return r;
}

static ssize_t dmu_read_locked(struct file *file, char __user *buf,
			       unsigned int max)
{
	struct dmu_channel *c = file->private_data;
	struct dmu_batch b;
	size_t len;
	int r;

	for (;;) {
		r = dmu_batch_fill(c, max, &b);
		if (r)
			return r;
		if (b.n)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		r = wait_event_interruptible(c->wait, dmu_readable(c->disk));
		if (r)
			return r;
	}
	len = b.n * sizeof(struct dmu_event);
	r = copy_to_user(buf, c->events, len);
	dmu_batch_end(c->disk, &b, !r);
	return r ? -EFAULT : len;
}

static ssize_t dmu_read(struct file *file, char __user *buf, size_t len,
			loff_t *pos)
{
	struct dmu_channel *c = file->private_data;
	size_t max = min_t(size_t, len / sizeof(struct dmu_event),
			   DMU_READ_BATCH);
	ssize_t r;

	if (!dmu_disk_of(c))
		return -ENOTCONN;
	if (!max)
		return -EINVAL;
	if (mutex_lock_interruptible(&c->read_mutex))
		return -ERESTARTSYS;
	r = dmu_read_locked(file, buf, max);
	mutex_unlock(&c->read_mutex);
	return r;
}

/* replies */

/* Take one reply at @buf; returns its length with the bitmap. */
static ssize_t dmu_write_one(struct dmu_disk *d, const char __user *buf,
			     size_t len)
{
	struct dmu_reply reply;
	size_t whole;
	int r;

	if (len < sizeof(reply))
		return -EINVAL;
	if (copy_from_user(&reply, buf, sizeof(reply)))
		return -EFAULT;
	whole = sizeof(reply) + (size_t)reply.bitmap_len;
	if (len < whole)
		return -EINVAL;
	r = dmu_reply(d, &reply, buf + sizeof(reply));
	return r ? r : whole;
}

static ssize_t dmu_write(struct file *file, const char __user *buf, size_t len,
			 loff_t *pos)
{
	struct dmu_channel *c = file->private_data;
	size_t done = 0;
	ssize_t r = -EINVAL;

	if (!dmu_disk_of(c))
		return -ENOTCONN;
	if (mutex_lock_interruptible(&c->write_mutex))
		return -ERESTARTSYS;
	while (done < len) {
		r = dmu_write_one(c->disk, buf + done, len - done);
		if (r < 0)
			break;
		done += r;
		cond_resched();
	}
	mutex_unlock(&c->write_mutex);
	return done ? done : r;
}

static __poll_t dmu_poll(struct file *file, poll_table *wait)
{
	struct dmu_channel *c = file->private_data;
	struct dmu_disk *d = dmu_disk_of(c);
	__poll_t mask = EPOLLOUT | EPOLLWRNORM;

	if (!d)
		return EPOLLERR;
	poll_wait(file, &c->wait, wait);
	if (dmu_readable(d))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (dmu_has_ended(d))
		mask |= EPOLLHUP;
	return mask;
}

static const struct file_operations dmu_fops = {
	.owner		= THIS_MODULE,
	.open		= dmu_open,
	.release	= dmu_release,
	.read		= dmu_read,
	.write		= dmu_write,
	.poll		= dmu_poll,
	.unlocked_ioctl	= dmu_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice dmu_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= DMU_DEVICE_NAME,
	.mode	= 0600,
	.fops	= &dmu_fops,
};

int dmu_channel_init(void)
{
	return misc_register(&dmu_misc);
}

void dmu_channel_exit(void)
{
	misc_deregister(&dmu_misc);
}
