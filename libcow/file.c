// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * file.c - one file of an image: open it, lock it, read and write it.
 *
 * Each file has up to two descriptors.  The buffered one holds the lock (an
 * open-file-description lock: it belongs to the descriptor, so two chains of
 * one process exclude each other too).  The other one is for metadata, with
 * O_DIRECT, without which aio is not asynchronous.
 */
#include "internal.h"

#include <common/clock.h>
#include <common/file.h>
#include <common/holders.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

int cow_opener_open(const struct cow_opener *opener, const char *path,
		    int flags)
{
	int fd;

	flags |= O_CLOEXEC;
	if (opener && opener->open_file)
		return opener->open_file(opener->ctx, path, flags);
	fd = open(path, flags & ~COW_OPEN_FILE_SHARED);
	return fd < 0 ? -errno : fd;
}

/*
 * Three kinds of openers.  Who writes alone locks the whole file for writing,
 * a reader locks it for reading.  Those who share lock one byte, far behind
 * all data, for reading: that keeps out who writes alone.  Readers and those
 * who share could not see each other's locks so, and each looks for the
 * other's after taking its own: of two at once, one at least gives up.
 */
#define SHARE_BYTE ((off_t)1 << 62)

static int set_lock(int fd, short type, off_t start, off_t len)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = len,
	};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

/* -EBUSY: somebody else holds a lock on byte at that begins at start. */
static int look_for_lock(int fd, off_t at, off_t start)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = at,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type != F_UNLCK && lock.l_start == start ? -EBUSY : 0;
}

int cow_file_lock(int fd, bool exclusive)
{
	int ret = set_lock(fd, exclusive ? F_WRLCK : F_RDLCK, 0, 0);

	if (ret || exclusive)
		return ret;
	return look_for_lock(fd, SHARE_BYTE, SHARE_BYTE);
}

static int lock_shared(int fd)
{
	int ret = set_lock(fd, F_RDLCK, SHARE_BYTE, 1);

	return ret ? ret : look_for_lock(fd, 0, 0);
}

static int file_identify(const struct cow_log *log, struct cow_file *f)
{
	struct stat st;
	int ret;

	if (fstat(f->fd, &st) < 0)
		return cow_log_error(log, -errno, "%s: cannot be examined: %s",
				     f->path, strerror(errno));
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->block_device = S_ISBLK(st.st_mode);
	ret = file_size(f->fd, &f->size);
	if (ret)
		return cow_log_error(log, ret,
			"%s: is neither a file nor a block device", f->path);
	return 0;
}

static int file_lock(const struct cow_log *log, struct cow_file *f)
{
	int ret = f->shared ? lock_shared(f->fd) :
			      cow_file_lock(f->fd, f->writable);

	if (ret == -EBUSY && f->shared)
		return cow_log_error(log, ret,
			"%s: is in use by another program that does not share it; close it there first",
			f->path);
	if (ret == -EBUSY)
		return cow_log_error(log, ret, f->writable ?
			"%s: is in use by another program; it can be written by one only" :
			"%s: is being written by another program; close it there first",
			f->path);
	if (ret)
		return cow_log_error(log, ret, "%s: cannot be locked: %s",
				     f->path, strerror(-ret));
	return 0;
}

#define LOOP_TRIES 20
#define LOOP_WAIT_MS 50

struct holder_report {
	const struct cow_log *log;
	const char *path;
	unsigned int tries;	/* left */
};

static int report_holder(void *data, const struct holder *h)
{
	const struct holder_report *r = data;
	const char *dev = h->loop[0] ? h->loop : h->number;
	const char *way = h->loop[0] ? "/dev/" : "block device ";

	if (!h->dm[0] && r->tries)
		return -EAGAIN;
	if (!h->dm[0])
		return cow_log_error(r->log, -EBUSY,
			"%s: is used by /dev/%s; end that first: losetup -d /dev/%s",
			r->path, dev, dev);
	if (strncmp(h->uuid, "DMU-", 4))
		return cow_log_error(r->log, -EBUSY,
			"%s: is used by %s%s and the device %s made of it; remove that first",
			r->path, way, dev, h->dm);
	return cow_log_error(r->log, -EBUSY,
		"%s: is used by %s%s (device %s of a cowd that is gone?); run cowd --recover %s, or cowctl stop %s, first",
		r->path, way, dev, h->dm, h->dm, h->dm);
}

/*
 * A cowd that died holds no lock, but its device goes on writing, and what it
 * wrote to is no table's yet.  Where nobody can tell there is none.  A loop
 * device alone may be about to go, as soon as udev closes it: so wait a second.
 */
int cow_file_check_holders(const struct cow_log *log, const char *path, int fd)
{
	struct holder_report report = { log, path, LOOP_TRIES };
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return 0;
	while ((ret = holders_each(&st, false, report_holder, &report)) == -EAGAIN) {
		clock_sleep_ms(LOOP_WAIT_MS);
		report.tries--;
	}
	return ret == -EBUSY ? ret : 0;
}

/*
 * Tables that are no whole pages (a VHD's, a sector each) are read and
 * written by sectors where the file system can.  To write a part of a page
 * through the page cache, while the kernel writes data beside it by direct
 * I/O, could bring old data back.
 */
static uint32_t file_align(int dio_fd)
{
	void *buf;
	ssize_t n;

	if (posix_memalign(&buf, COW_DIO_ALIGN, COW_SECTOR_SIZE))
		return COW_DIO_ALIGN;
	n = pread(dio_fd, buf, COW_SECTOR_SIZE, COW_SECTOR_SIZE);
	free(buf);
	return n < 0 ? COW_DIO_ALIGN : COW_SECTOR_SIZE;
}

/* Without direct I/O all works, by the helper thread.  So no error here. */
static void file_open_direct(const struct cow_opener *opener,
			     struct cow_file *f)
{
	struct stat st;
	int sector, fd;

	fd = cow_opener_open(opener, f->path,
			     (f->writable ? O_RDWR : O_RDONLY) | O_DIRECT |
			     (f->shared ? COW_OPEN_FILE_SHARED : 0));
	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || st.st_dev != f->dev || st.st_ino != f->ino) {
		close(fd);
		return;
	}
	f->direct_data = opener && opener->direct_data;
	if (f->block_device && ioctl(fd, BLKSSZGET, &sector) == 0)
		f->dio_align = (uint32_t)sector;
	else
		f->dio_align = f->direct_data ? file_align(fd) : COW_DIO_ALIGN;
	f->dio_fd = fd;
}

static struct cow_file *file_new(const char *path, bool writable)
{
	struct cow_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fd = -1;
	f->dio_fd = -1;
	f->writable = writable;
	f->path = strdup(path);
	if (!f->path) {
		free(f);
		return NULL;
	}
	return f;
}

void cow_file_close(struct cow_file *f)
{
	if (!f)
		return;
	if (f->dio_fd >= 0)
		close(f->dio_fd);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

/*
 * A block device that is written is opened with O_EXCL: that keeps mounts
 * and other holders out.  O_NONBLOCK: a named pipe must not hold us up.
 */
static int file_open_flags(const char *path, bool writable, bool shared)
{
	int flags = (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK;
	struct stat st;

	if (shared)
		return flags | COW_OPEN_FILE_SHARED;
	if (writable && stat(path, &st) == 0 && S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	return flags;
}

int cow_file_open(const struct cow_opener *opener, const struct cow_log *log,
		  const char *path, bool writable, bool shared,
		  struct cow_file **file)
{
	struct cow_file *f = file_new(path, writable);
	int ret;

	if (!f)
		return -ENOMEM;
	f->shared = shared;
	f->fd = cow_opener_open(opener, path,
				file_open_flags(path, writable, shared));
	if (f->fd < 0) {
		ret = cow_log_error(log, f->fd, "%s: cannot be opened%s: %s",
				    path, writable ? " for writing" : "",
				    strerror(-f->fd));
		goto err;
	}
	ret = file_identify(log, f);
	if (ret)
		goto err;
	ret = file_lock(log, f);
	/* Who opens by himself knows what is his own. */
	if (!ret && writable && !shared && !(opener && opener->open_file))
		ret = cow_file_check_holders(log, path, f->fd);
	if (ret)
		goto err;
	file_open_direct(opener, f);
	*file = f;
	return 0;
err:
	cow_file_close(f);
	return ret;
}

int cow_file_adopt(const struct cow_log *log, const char *path, int fd,
		   struct cow_file **file)
{
	struct cow_file *f = file_new(path, true);
	int ret;

	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	f->fd = fd;
	ret = file_identify(log, f);
	if (ret) {
		cow_file_close(f);
		return ret;
	}
	*file = f;
	return 0;
}

/* --- Past the page cache --------------------------------------------------- */

#define BOUNCE_BYTES (64u << 10)

/* Sectors [offset, offset + len), with buf in the middle, by way of bounce. */
static int write_sectors(struct cow_file *f, uint8_t *bounce, uint64_t offset,
			 size_t len, const void *buf, size_t at, size_t n)
{
	int ret = n == len ? 0 : file_pread_all(f->dio_fd, bounce, len, offset);

	memcpy(bounce + at, buf, n);
	return ret ? ret : file_pwrite_all(f->dio_fd, bounce, len, offset);
}

static int write_direct(struct cow_file *f, const uint8_t *buf, size_t len,
			uint64_t offset)
{
	uint8_t *bounce = aligned_alloc(COW_DIO_ALIGN, BOUNCE_BYTES);
	int ret = bounce ? 0 : -ENOMEM;

	while (!ret && len) {
		uint64_t start = num_round_down(offset, f->dio_align);
		size_t at = (size_t)(offset - start);
		size_t n = num_min(len, BOUNCE_BYTES - at);

		ret = write_sectors(f, bounce, start,
				    num_round_up(at + n, f->dio_align), buf, at,
				    n);
		buf += n;
		offset += n;
		len -= n;
	}
	free(bounce);
	return ret;
}

/*
 * While the kernel writes data by direct I/O, what shares a page with it must not go
 * through the page cache.  Where a file takes direct I/O of larger units only, the loop
 * device goes through the page cache as well.  A file does not become longer by what is
 * beside buf.
 */
static bool must_be_direct(const struct cow_file *f, size_t len,
			   uint64_t offset)
{
	struct stat st;

	if (!f->direct_data || f->dio_fd < 0)
		return false;
	if (f->block_device)
		return true;
	if (f->dio_align != COW_SECTOR_SIZE)
		return false;
	return num_is_aligned(offset | len, COW_SECTOR_SIZE) ||
	       (fstat(f->fd, &st) == 0 &&
		num_round_up(offset + len, COW_SECTOR_SIZE) <=
		(uint64_t)st.st_size);
}

static int write_all(struct cow_file *f, const void *buf, size_t len,
		     uint64_t offset)
{
	int ret = must_be_direct(f, len, offset) ?
		  write_direct(f, buf, len, offset) : -EINVAL;

	/* As in the engine: a file system that does not take it gets it so. */
	return ret == -EINVAL ? file_pwrite_all(f->fd, buf, len, offset) : ret;
}

static int write_zeroes(struct cow_file *f, uint64_t offset, uint64_t len)
{
	static const uint8_t zeroes[64 << 10];

	while (len) {
		size_t n = num_min(len, sizeof(zeroes));
		int ret = write_all(f, zeroes, n, offset);

		if (ret)
			return ret;
		offset += n;
		len -= n;
	}
	return 0;
}

int cow_file_zero(struct cow_file *f, uint64_t offset, uint64_t len)
{
	while (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)offset, (off_t)len) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP || errno == EINVAL)
			return write_zeroes(f, offset, len);
		return -errno;
	}
	return 0;
}

/* --- For plugins -------------------------------------------------------- */

static struct cow_file *image_file(struct cow_image *img, uint32_t file)
{
	return file < img->nr_files ? img->files[file] : NULL;
}

int cow_file_stat(struct cow_image *img, uint32_t file,
		  struct cow_file_stat *st)
{
	struct cow_file *f = image_file(img, file);
	struct stat s;

	if (!f)
		return -EINVAL;
	if (fstat(f->fd, &s) < 0)
		return cow_error(img, -errno, "cannot be examined: %s",
				 strerror(errno));
	memset(st, 0, sizeof(*st));
	st->size = f->block_device ? f->size : (uint64_t)s.st_size;
	st->block_device = f->block_device;
	st->writable = f->writable;
	if (!f->block_device) {
		st->mtime_sec = s.st_mtim.tv_sec;
		st->mtime_nsec = (uint32_t)s.st_mtim.tv_nsec;
	}
	return 0;
}

bool cow_file_in_memory(struct cow_image *img, uint32_t file)
{
	struct cow_file *f = image_file(img, file);
	struct statfs st;

	return f && fstatfs(f->fd, &st) == 0 &&
	       (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC);
}

int cow_file_next_data(struct cow_image *img, uint32_t file, uint64_t offset,
		       uint64_t *data)
{
	struct cow_file *f = image_file(img, file);
	off_t at;

	if (!f)
		return -EINVAL;
	at = lseek(f->fd, (off_t)offset, SEEK_DATA);
	*data = at < 0 ? offset : (uint64_t)at;
	if (at < 0 && errno == ENXIO)
		*data = num_max(offset, f->size);
	return 0;
}

int cow_file_is_hole(struct cow_image *img, uint32_t file,
		     struct cow_hole *last, uint64_t offset, uint64_t len,
		     bool *hole)
{
	int ret = 0;

	if (offset < last->from || offset >= last->to) {
		last->from = offset;
		ret = cow_file_next_data(img, file, offset, &last->to);
	}
	*hole = offset + len <= last->to;
	return ret;
}

int cow_file_extend(struct cow_image *img, uint32_t file, uint64_t size)
{
	struct cow_file *f = image_file(img, file);
	struct cow_chain *c = img->chain;
	int ret;

	if (!f || !f->writable)
		return -EINVAL;
	if (size <= f->size)
		return 0;
	if (f->block_device)
		return cow_error(img, -ENOSPC,
			"needs %llu bytes, but the device %s has %llu",
			(unsigned long long)size, f->path,
			(unsigned long long)f->size);
	if (ftruncate(f->fd, (off_t)size) < 0)
		return cow_error(img, -errno,
			"%s cannot be extended to %llu bytes: %s", f->path,
			(unsigned long long)size, strerror(errno));
	if (c && !img->opening && c->file_resized) {
		ret = c->file_resized(c->ctx, f->index, size);
		if (ret)
			return ret;	/* tried again with the next one */
	}
	f->size = size;
	return 0;
}

int cow_file_shrink(struct cow_image *img, uint32_t file, uint64_t size)
{
	struct cow_file *f = image_file(img, file);

	if (!f || !f->writable || f->block_device || size > f->size)
		return -EINVAL;
	if (ftruncate(f->fd, (off_t)size) < 0)
		return cow_error(img, -errno,
			"%s cannot be cut at %llu bytes: %s", f->path,
			(unsigned long long)size, strerror(errno));
	f->size = size;
	return 0;
}

static int io_error(struct cow_image *img, struct cow_file *f, int ret,
		    const char *what, uint64_t offset)
{
	if (ret == -ENODATA)
		return cow_error(img, -EIO,
			"%s ends before offset %llu is %s", f->path,
			(unsigned long long)offset, what);
	return cow_error(img, ret, "%s cannot be %s at offset %llu: %s",
			 f->path, what, (unsigned long long)offset,
			 strerror(-ret));
}

int cow_read(struct cow_image *img, uint32_t file, void *buf, size_t len,
	     uint64_t offset)
{
	struct cow_file *f = image_file(img, file);
	int ret;

	if (!f)
		return -EINVAL;
	ret = file_pread_all(f->fd, buf, len, offset);
	return ret ? io_error(img, f, ret, "read", offset) : 0;
}

int cow_write(struct cow_image *img, uint32_t file, const void *buf,
	      size_t len, uint64_t offset)
{
	struct cow_file *f = image_file(img, file);
	int ret;

	if (!f || !f->writable)
		return -EINVAL;
	ret = write_all(f, buf, len, offset);
	return ret ? io_error(img, f, ret, "written", offset) : 0;
}

int cow_sync(struct cow_image *img, uint32_t file)
{
	struct cow_file *f = image_file(img, file);

	if (!f)
		return -EINVAL;
	if (!fsync(f->fd))
		return 0;
	/* A file system that only reads, as squashfs, has nothing to sync: fsync(2). */
	if (!f->writable && (errno == EINVAL || errno == EROFS))
		return 0;
	/* The kernel tells once: the next commit must not take it for durable. */
	if (img->chain)
		atomic_store(&img->chain->commit.sync_failed, true);
	return cow_error(img, -errno, "%s cannot be synced: %s", f->path,
			 strerror(errno));
}

int cow_punch(struct cow_image *img, uint32_t file, uint64_t offset,
	      uint64_t len)
{
	struct cow_file *f = image_file(img, file);
	int ret;

	if (!f || !f->writable)
		return -EINVAL;
	ret = cow_file_zero(f, offset, len);
	return ret ? io_error(img, f, ret, "zeroed", offset) : 0;
}

int cow_reserve(struct cow_image *img, uint32_t file, uint64_t offset,
		uint64_t len)
{
	struct cow_file *f = image_file(img, file);

	if (!f || !f->writable)
		return -EINVAL;
	while (fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)len) < 0) {
		if (errno == ENOSPC || errno == EDQUOT)
			return -ENOSPC;
		if (errno == EOPNOTSUPP || errno == ENODEV || errno == EINVAL)
			return 0;
		if (errno != EINTR)
			return io_error(img, f, -errno, "reserved", offset);
	}
	return 0;
}
