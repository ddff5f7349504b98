// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hits on a loop device whose file is known: done on the file itself, by the task
 * that submits them.
 *
 * The loop device gives each request to another thread, which does the same I/O
 * there; to wake it costs more than the I/O.  Nothing else changes: the loop
 * device stays the destination, and whatever does not end whole here (the file
 * would have to wait, or to find space; an error) goes to it as if nothing had been
 * tried: what is tried is a read or a write of the same data, and can be made again.
 *
 * What must hold, I17: the file system below never waits here for what this task
 * has not sent yet, takes no lock that this task may hold, begins nothing that every
 * writer needs to be made first, and does nothing in this task's name that a loop
 * device would not do.
 */
#include "dmu.h"

#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/uio.h>

/* The file of a destination. */
struct dmu_file {
	struct file *file;	/* for the I/O; its times do not change by that */
	struct file *theirs;	/* as it was told of; for its times */
	bool cached;		/* read through its page cache */
	bool written;		/* since its times were set */
	struct delayed_work times_work;
};

/*
 * Direct I/O, but for a part of a file system's block, which xfs may write by way of its
 * page cache; and not before somebody else, as the loop device, has made the file
 * system start the workers for it.
 */
static bool dmu_file_is_direct(const struct dmu_file *f, struct bio *bio)
{
	const struct inode *inode = file_inode(f->file);
	u64 pos = bio->bi_iter.bi_sector << SECTOR_SHIFT;

	if (!READ_ONCE(inode->i_sb->s_dio_done_wq))
		return false;
	return bio_op(bio) == REQ_OP_READ ||
	       !((pos | bio->bi_iter.bi_size) & (i_blocksize(inode) - 1));
}

/* Of what is sent on as a hit, what may be done here. */
static bool dmu_file_can(const struct dmu_file *f, struct bio *bio)
{
	if (bio->bi_opf & (REQ_FUA | REQ_PREFLUSH | REQ_META | REQ_POLLED | REQ_SWAP))
		return false;
	if (bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE)
		return false;
	/* The loop device was made larger, or another part of the file. */
	if (i_size_read(file_inode(f->file)) >> SECTOR_SHIFT != bdev_nr_sectors(bio->bi_bdev))
		return false;
	return f->cached ? bio_op(bio) == REQ_OP_READ : dmu_file_is_direct(f, bio);
}

/*
 * Bios that are sent while another one is being submitted wait in a list until that
 * is done (current->bio_list).  A file system that reads its own metadata would wait for
 * itself, so the list is put away meanwhile; nothing may wait there then, as
 * it would not be sent.
 */
static bool dmu_nothing_unsent(void)
{
	const struct bio_list *lists = current->bio_list;

	return !lists || (bio_list_empty(&lists[0]) && bio_list_empty(&lists[1]));
}

/* Half of the stack is more than a file system and what is below it take. */
static bool dmu_stack_is_left(void)
{
	unsigned long here = (unsigned long)__builtin_frame_address(0);

	return here - (unsigned long)task_stack_page(current) > THREAD_SIZE / 2;
}

/* What this task does for another cgroup, as writeback, would count for its own. */
static bool dmu_is_charged_right(struct bio *bio)
{
#ifdef CONFIG_BLK_CGROUP
	struct cgroup_subsys_state *css = bio_blkcg_css(bio);
	bool right;

	rcu_read_lock();
	right = !css || css == task_css(current, io_cgrp_id);
	rcu_read_unlock();
	return right;
#else
	return true;
#endif
}

/*
 * Is this task one that may enter a file system?  Not in a transaction of another one
 * (journal_info), nor where memory is reclaimed or the caller must not wait for I/O, one
 * level of this file's own doing among that; nor with a limit for files, which would
 * send a signal to who writes to a device.
 */
static bool dmu_task_may(struct bio *bio)
{
	return dmu_nothing_unsent() && !current->journal_info &&
	       !(current->flags & (PF_MEMALLOC | PF_MEMALLOC_NOIO)) &&
	       (bio_op(bio) == REQ_OP_READ ||
		rlimit(RLIMIT_FSIZE) == RLIM_INFINITY) &&
	       in_task() && !rcu_preempt_depth() && dmu_stack_is_left() &&
	       dmu_is_charged_right(bio);
}

static unsigned int dmu_count_bvecs(struct bio *bio)
{
	struct bvec_iter i;
	struct bio_vec bv;
	unsigned int n = 0;

	bio_for_each_bvec(bv, bio, i)
		n++;
	return n;
}

/* A frozen file system is written to by the loop device, which can wait. */
static bool dmu_write_begin(struct super_block *sb)
{
	if (!sb_start_write_trylock(sb))
		return false;
	__sb_writers_release(sb, SB_FREEZE_WRITE);	/* maybe not this task ends it */
	return true;
}

static void dmu_write_end(struct super_block *sb)
{
	__sb_writers_acquired(sb, SB_FREEZE_WRITE);
	sb_end_write(sb);
}

/*
 * To note when a file was changed is a transaction of its file system, which no
 * submitter is to begin; so it is done a second later, at most.
 */
static void dmu_set_times(struct dmu_file *f)
{
	struct super_block *sb = file_inode(f->theirs)->i_sb;

	if (!sb_start_write_trylock(sb)) {
		queue_delayed_work(system_long_wq, &f->times_work, HZ);
		return;
	}
	WRITE_ONCE(f->written, false);
	smp_mb();	/* first: what is written meanwhile counts again, dmu_file_end() */
	if (file_update_time(f->theirs) < 0)
		WRITE_ONCE(f->written, true);	/* as far as it can be told later */
	sb_end_write(sb);
}

static void dmu_times_work(struct work_struct *work)
{
	dmu_set_times(container_of(work, struct dmu_file, times_work.work));
}

/* @io ended, whole or not.  In any context. */
static void dmu_file_end(struct dmu_io *io)
{
	struct dmu_file *f = io->file;

	if (!op_is_write(bio_op(dmu_bio_of(io))))
		return;
	dmu_write_end(file_inode(f->file)->i_sb);
	if (!READ_ONCE(f->written)) {
		WRITE_ONCE(f->written, true);
		queue_delayed_work(system_long_wq, &f->times_work, HZ);
	}
}

static void dmu_file_complete(struct kiocb *iocb, long ret)
{
	struct dmu_io *io = container_of(iocb, struct dmu_io, iocb);
	struct bio *bio = dmu_bio_of(io);
	struct bio_list again = BIO_EMPTY_LIST;

	dmu_file_end(io);
	if (ret == bio->bi_iter.bi_size) {
		dmu_count(io->t->disk, DMU_FILE_IOS);
		bio_endio(bio);
		return;
	}
	dmu_count(io->t->disk, DMU_FILE_MISSES);
	io->flags |= DMU_IO_READY;
	bio_list_add(&again, bio);
	dmu_io_defer(io->t->disk, &again);
}

/*
 * The file system's locks are of the same classes as those that the one above, on our
 * device, may hold, which lockdep would take for one of them taken twice.
 */
static ssize_t dmu_file_submit(struct dmu_io *io, struct iov_iter *iter)
{
	struct bio_list *lists = current->bio_list;
	struct file *file = io->iocb.ki_filp;
	unsigned int noio = memalloc_noio_save();
	ssize_t ret;

	lockdep_off();
	current->bio_list = NULL;
	if (iov_iter_rw(iter) == WRITE)
		ret = file->f_op->write_iter(&io->iocb, iter);
	else
		ret = file->f_op->read_iter(&io->iocb, iter);
	current->bio_list = lists;
	lockdep_on();
	memalloc_noio_restore(noio);
	return ret;
}

/*
 * @bio is on its way to the loop device of @f.  Returns DM_MAPIO_REMAPPED: let it go
 * there; or DM_MAPIO_SUBMITTED: it ends, or has ended.  File systems look at the iocb once
 * more after it was queued: it is there as long as dmu_map() has not returned, by a reference that
 * device-mapper keeps.
 */
int dmu_file_send(struct dmu_target *t, struct bio *bio, struct dmu_file *f)
{
	struct dmu_io *io = dmu_io_of(bio);
	bool write = op_is_write(bio_op(bio));
	struct iov_iter iter;
	ssize_t ret;

	if (!dmu_file_can(f, bio) || !dmu_task_may(bio))
		goto miss;
	io->iocb = (struct kiocb) {
		.ki_filp = f->file,
		.ki_pos = bio->bi_iter.bi_sector << SECTOR_SHIFT,
		.ki_complete = dmu_file_complete,
		.ki_flags = IOCB_NOWAIT | (f->cached ? IOCB_NOIO : IOCB_DIRECT) |
			    (write ? IOCB_WRITE : 0),
		.ki_ioprio = bio->bi_ioprio,
	};
	io->file = f;
	iov_iter_bvec(&iter, write ? WRITE : READ, bio->bi_io_vec + bio->bi_iter.bi_idx,
		      dmu_count_bvecs(bio), bio->bi_iter.bi_size);
	iter.iov_offset = bio->bi_iter.bi_bvec_done;
	if (write && !dmu_write_begin(file_inode(f->file)->i_sb))
		goto miss;
	ret = dmu_file_submit(io, &iter);
	if (ret == -EIOCBQUEUED)	/* and maybe over, @bio and @t as well */
		return DM_MAPIO_SUBMITTED;
	dmu_file_end(io);
	if (ret == bio->bi_iter.bi_size) {
		dmu_count(t->disk, DMU_FILE_IOS);
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
miss:
	dmu_count(t->disk, DMU_FILE_MISSES);
	return DM_MAPIO_REMAPPED;
}

/* ---- which file ----------------------------------------------------------- */

/* Those that were tried, and only where the device below never makes it wait either. */
static bool dmu_file_system_known(struct super_block *sb)
{
	return (sb->s_magic == EXT4_SUPER_MAGIC || sb->s_magic == XFS_SUPER_MAGIC) &&
	       sb->s_bdev && bdev_nowait(sb->s_bdev);
}

/* Its own description: what the caller's one is open for is not enough. */
static struct file *dmu_file_open(struct file *theirs, bool cached)
{
	const fmode_t mode = FMODE_READ | (cached ? 0 : FMODE_WRITE);
	struct file *file;

	if (!S_ISREG(file_inode(theirs)->i_mode) || (theirs->f_mode & mode) != mode)
		return ERR_PTR(-EINVAL);
	if (!dmu_file_system_known(file_inode(theirs)->i_sb))
		return ERR_PTR(-EOPNOTSUPP);
	file = dentry_open(&theirs->f_path, O_LARGEFILE | O_NOATIME |
			   (cached ? O_RDONLY : O_RDWR | O_DIRECT), current_cred());
	if (!IS_ERR(file))
		file->f_mode |= FMODE_NOCMTIME;
	return file;
}

/*
 * Nothing tells what file a loop device is made of.  Of what whoever says it can
 * get wrong, this is what is seen: no loop device, a part of the file, another
 * file of another size.
 */
static int dmu_file_check(struct dmu_dev *dev, struct dmu_file *f)
{
	struct block_device *bdev = dev->dev->bdev;

	if (!(f->file->f_mode & FMODE_NOWAIT))
		return -EOPNOTSUPP;
	if (MAJOR(bdev->bd_dev) != LOOP_MAJOR || f->cached != dev->readonly ||
	    i_size_read(file_inode(f->file)) >> SECTOR_SHIFT != bdev_nr_sectors(bdev))
		return -EINVAL;
	return 0;
}

static void dmu_file_free(struct dmu_file *f)
{
	fput(f->file);
	fput(f->theirs);
	kfree(f);
}

/* Takes @theirs. */
static struct dmu_file *dmu_file_new(struct file *theirs, bool cached)
{
	struct dmu_file *f = kzalloc(sizeof(*f), GFP_KERNEL);
	struct file *file;

	file = f ? dmu_file_open(theirs, cached) : ERR_PTR(-ENOMEM);
	if (IS_ERR(file)) {
		fput(theirs);
		kfree(f);
		return ERR_CAST(file);
	}
	f->file = file;
	f->theirs = theirs;
	f->cached = cached;
	INIT_DELAYED_WORK(&f->times_work, dmu_times_work);
	return f;
}

/*
 * Loop device @index of @t is made of the file that the caller has open as @fd, all of
 * it; @cached: through the page cache, and only read.  0 or a negative errno:
 * -EOPNOTSUPP is no loss, it goes on as before.
 */
int dmu_file_set(struct dmu_target *t, unsigned int index, int fd, bool cached)
{
	struct dmu_dev *dev = &t->devs[index];
	struct file *theirs = fget(fd);
	struct dmu_file *f;
	int r;

	if (!theirs)
		return -EBADF;
	f = dmu_file_new(theirs, cached);
	if (IS_ERR(f))
		return PTR_ERR(f);
	down_write(&t->disk->table_lock);
	r = dev->file ? -EBUSY : dmu_file_check(dev, f);
	if (!r)		/* dmu_file_try(): all of it is there before it is seen */
		smp_store_release(&dev->file, f);
	up_write(&t->disk->table_lock);
	if (r)
		dmu_file_free(f);
	return r;
}

/*
 * No I/O is under way, but the file system's worker that ended the last one may not have
 * left dmu_file_complete() yet.  Times that cannot be set now, as it is frozen, stay as they are.
 */
void dmu_file_put(struct dmu_dev *dev)
{
	struct dmu_file *f = dev->file;
	struct workqueue_struct *wq;

	if (!f)
		return;
	wq = READ_ONCE(file_inode(f->file)->i_sb->s_dio_done_wq);
	if (wq)
		flush_workqueue(wq);
	cancel_delayed_work_sync(&f->times_work);
	if (f->written)
		dmu_set_times(f);
	cancel_delayed_work_sync(&f->times_work);
	dmu_file_free(f);
}
