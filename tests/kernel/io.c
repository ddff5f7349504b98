// SPDX-License-Identifier: GPL-2.0-or-later
/* Devices, disks, and the I/O of the tests. */
#include "lib.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>

/* devices */

static int loop_configure(struct dev *dev, unsigned int logical, int flags)
{
	struct loop_config lc = {
		.fd = dev->memfd,
		.block_size = logical,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int nr;

	if (ctl < 0 && !sh("modprobe loop max_loop=0"))
		ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	check(ctl >= 0, "no /dev/loop-control: %s", strerror(errno));
	if (flags & DEV_READONLY)
		lc.info.lo_flags |= LO_FLAGS_READ_ONLY;
	if (flags & DEV_DIRECT)
		lc.info.lo_flags |= LO_FLAGS_DIRECT_IO;
	do {
		nr = ioctl(ctl, LOOP_CTL_GET_FREE);
		check(nr >= 0, "no free loop device: %s", strerror(errno));
		snprintf(dev->path, sizeof(dev->path), "/dev/loop%d", nr);
		dev->fd = open(dev->path, (flags & DEV_READONLY ? O_RDONLY :
					   O_RDWR) | O_CLOEXEC);
		check(dev->fd >= 0, "%s: %s", dev->path, strerror(errno));
		if (!ioctl(dev->fd, LOOP_CONFIGURE, &lc))
			break;
		check(errno == EBUSY, "%s: LOOP_CONFIGURE: %s", dev->path,
		      strerror(errno));
		close(dev->fd);
	} while (1);
	close(ctl);
	return nr;
}

struct dev *dev_new_opts(uint64_t sectors, unsigned int logical, int flags)
{
	struct dev *dev = calloc(1, sizeof(*dev));

	check(dev, "no memory");
	dev->sectors = sectors;
	dev->memfd = memfd_create("dmut", MFD_CLOEXEC);
	check(dev->memfd >= 0 && !ftruncate(dev->memfd, sectors * SECTOR),
	      "no memory for a device: %s", strerror(errno));
	dev->data = mmap(NULL, sectors * SECTOR, PROT_READ | PROT_WRITE,
			 MAP_SHARED, dev->memfd, 0);
	check(dev->data != MAP_FAILED, "mmap: %s", strerror(errno));
	loop_configure(dev, logical, flags);
	return dev;
}

struct dev *dev_on_file(int fd, uint64_t sectors, int flags)
{
	struct dev *dev = calloc(1, sizeof(*dev));

	check(dev, "no memory");
	dev->sectors = sectors;
	dev->memfd = fd;
	loop_configure(dev, 512, flags);
	return dev;
}

struct dev *dev_new(uint64_t sectors)
{
	return dev_new_opts(sectors, 512, 0);
}

void dev_free(struct dev *dev)
{
	close(dev->fd);
	munmap(dev->data, dev->sectors * SECTOR);
	close(dev->memfd);
	free(dev);
}

/*
 * A request is counted behind its end, so who was told of that may look too early.
 * To set what is set waits until the device has no request left, the counting included.
 */
static void dev_settle(struct dev *dev)
{
	struct loop_info64 info;

	check(!ioctl(dev->fd, LOOP_GET_STATUS64, &info) &&
	      !ioctl(dev->fd, LOOP_SET_STATUS64, &info),
	      "%s: its status cannot be set: %s", dev->path, strerror(errno));
}

/* One number of /sys/block/DEV/stat, of all that is over. */
uint64_t dev_stat(struct dev *dev, int field)
{
	unsigned long long v = 0;
	char path[128];
	FILE *f;
	int i;

	dev_settle(dev);
	snprintf(path, sizeof(path), "/sys/block/%s/stat", dev->path + 5);
	f = fopen(path, "r");
	check(f, "%s: %s", path, strerror(errno));
	for (i = 0; i <= field; i++)
		check(fscanf(f, "%llu", &v) == 1, "%s is too short", path);
	fclose(f);
	return v;
}

bool dev_is_hole(struct dev *dev, uint64_t sector, uint64_t count)
{
	off_t data = lseek(dev->memfd, sector * SECTOR, SEEK_DATA);

	return data < 0 || data >= (off_t)((sector + count) * SECTOR);
}

/* patterns */

static void fill_sector(uint64_t *p, uint32_t tag, uint64_t sector)
{
	unsigned int i;

	for (i = 0; i < SECTOR / 8; i++)
		p[i] = (uint64_t)tag << 40 | sector << 8 | i;
}

void fill(void *buf, uint64_t count, uint32_t tag, uint64_t first)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		fill_sector((uint64_t *)buf + i * (SECTOR / 8), tag, first + i);
}

static bool is_zero(const void *buf, size_t len)
{
	const char *p = buf;

	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

bool filled(const void *buf, uint64_t count, uint32_t tag, uint64_t first)
{
	uint64_t i, want[SECTOR / 8];

	for (i = 0; i < count; i++) {
		fill_sector(want, tag, first + i);
		if (memcmp((const char *)buf + i * SECTOR, want, SECTOR))
			return false;
	}
	return true;
}

static void expect(const char *what, const void *buf, uint64_t sector,
		   uint64_t count, uint32_t tag, uint64_t first)
{
	uint64_t i;

	for (i = 0; i < count; i++) {
		const uint64_t *p = (const uint64_t *)buf + i * (SECTOR / 8);

		if (!filled(p, 1, tag, first + i))
			fail("%s sector %llu holds tag %llu sector %llu, not tag %u sector %llu",
			     what, (unsigned long long)(sector + i),
			     (unsigned long long)(*p >> 40),
			     (unsigned long long)(*p >> 8 & 0xffffffff), tag,
			     (unsigned long long)(first + i));
	}
}

/* Every sector of @dev names @tag and where it stands. */
void dev_fill(struct dev *dev, uint32_t tag)
{
	fill(dev->data, dev->sectors, tag, 0);
}

void dev_check(struct dev *dev, uint64_t sector, uint64_t count, uint32_t tag,
	       uint64_t first)
{
	expect(dev->path, dev->data + sector * SECTOR, sector, count, tag, first);
}

void dev_check_zero(struct dev *dev, uint64_t sector, uint64_t count)
{
	check(is_zero(dev->data + sector * SECTOR, count * SECTOR),
	      "%s sector %llu..%llu is not zero", dev->path,
	      (unsigned long long)sector, (unsigned long long)(sector + count));
}

/* disks */

char *disk_params(const struct disk *d, char *buf, size_t len)
{
	unsigned int i, n = 0;
	int at;

	while (n < DISK_DEVS && d->devs[n])
		n++;
	at = snprintf(buf, len, "%s %u %u", d->name, d->bs, n);
	for (i = 0; i < n; i++)
		at += snprintf(buf + at, len - at, " %s", d->devs[i]);
	if (d->features)
		snprintf(buf + at, len - at, " %s", d->features);
	return buf;
}

int disk_reload(struct disk *d)
{
	char params[1000];

	d->blocks = (d->sectors + d->bs - 1) / d->bs;
	return dm_load(d->name, d->sectors, DMU_TARGET_NAME,
		       disk_params(d, params, sizeof(params)), false);
}

/* Create, load, resume, open. */
struct disk *disk_new(const struct disk *want)
{
	struct disk *d = malloc(sizeof(*d));
	static int counter;
	char path[32];
	int err, minor;

	check(d, "no memory");
	*d = *want;
	if (!*d->name)
		snprintf(d->name, sizeof(d->name), "dmut%d", counter++);
	err = dm_create(d->name, &minor);
	check(!err, "cannot create %s: %s", d->name, strerror(err));
	err = disk_reload(d);
	check(!err, "cannot load the table of %s: %s", d->name, strerror(err));
	err = dm_resume(d->name);
	check(!err, "cannot resume %s: %s", d->name, strerror(err));
	snprintf(path, sizeof(path), "/dev/dm-%d", minor);
	d->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	check(d->fd >= 0, "%s: %s", path, strerror(errno));
	return d;
}

void disk_status_text(struct disk *d, char *buf, size_t len)
{
	int err = dm_text(d->name, false, buf, len);

	check(!err, "no status of %s: %s", d->name, strerror(err));
}

uint64_t disk_status(struct disk *d, const char *name)
{
	char buf[1000], want[64];
	const char *p;

	disk_status_text(d, buf, sizeof(buf));
	snprintf(want, sizeof(want), " %s ", name);
	p = strstr(buf, want);
	check(p, "status has no %s: %s", name, buf);
	return strtoull(p + strlen(want), NULL, 10);
}

void disk_wait_status(struct disk *d, const char *name, uint64_t value)
{
	uint64_t end = now_ms() + wait_limit_ms(), v;

	while ((v = disk_status(d, name)) != value) {
		check(now_ms() < end, "%s is %llu and does not become %llu",
		      name, (unsigned long long)v, (unsigned long long)value);
		sleep_ms(2);
	}
}

/* I/O */

/* One write with FUA, and no flush behind it, as O_DSYNC by pwrite() has. */
static int write_fua(int fd, uint64_t sector, uint64_t count, void *buf, int flags)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_rw_flags = RWF_DSYNC | flags,
		.aio_fildes = fd, .aio_buf = (uintptr_t)buf,
		.aio_nbytes = count * SECTOR, .aio_offset = sector * SECTOR,
	}, *cbp = &cb;
	struct io_event ev = { .res = -EIO };
	aio_context_t ctx = 0;

	if (syscall(SYS_io_setup, 1, &ctx))
		return errno;
	if (syscall(SYS_io_submit, ctx, 1, &cbp) != 1)
		ev.res = -errno;
	else
		while (syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL) != 1)
			;
	syscall(SYS_io_destroy, ctx);
	if (ev.res < 0)
		return -ev.res;
	return ev.res == (int64_t)(count * SECTOR) ? 0 : EIO;
}

static int whole(ssize_t r, uint64_t count)
{
	if (r < 0)
		return errno;
	return r == (ssize_t)(count * SECTOR) ? 0 : EIO;
}

/* Returns a positive errno, or 0. */
int io_sync(int fd, enum io_op op, uint64_t sector, uint64_t count, void *buf)
{
	uint64_t range[2] = { sector * SECTOR, count * SECTOR };
	struct iovec iov = { buf, range[1] };

	switch (op) {
	case IO_READ:
		return whole(pread(fd, buf, range[1], range[0]), count);
	case IO_READ_NOWAIT:
		return whole(preadv2(fd, &iov, 1, range[0], RWF_NOWAIT), count);
	case IO_WRITE:
		return whole(pwrite(fd, buf, range[1], range[0]), count);
	case IO_WRITE_NOWAIT:
		return whole(pwritev2(fd, &iov, 1, range[0], RWF_NOWAIT), count);
	case IO_FUA:
		return write_fua(fd, sector, count, buf, 0);
	case IO_FUA_NOWAIT:
		return write_fua(fd, sector, count, buf, RWF_NOWAIT);
	case IO_FLUSH:
		return fsync(fd) ? errno : 0;
	case IO_DISCARD:
		return ioctl(fd, BLKDISCARD, range) ? errno : 0;
	case IO_ZERO:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 range[0], range[1]) ? errno : 0;
	}
	return EINVAL;
}

static void *io_thread(void *arg)
{
	struct io *io = arg;

	io->err = io_sync(io->fd, io->op, io->sector, io->count, io->buf);
	__atomic_store_n(&io->done, true, __ATOMIC_RELEASE);
	return NULL;
}

struct io *io_start(struct disk *d, enum io_op op, uint64_t sector,
		    uint64_t count, uint32_t tag)
{
	struct io *io = calloc(1, sizeof(*io));

	check(io, "no memory");
	io->op = op;
	io->fd = d->fd;
	io->sector = sector;
	io->count = count;
	io->tag = tag;
	if (op <= IO_FUA || op >= IO_READ_NOWAIT) {
		/* one bio as long as it fits into one: whole huge pages */
		size_t align = count > 64 ? 2 << 20 : 4096;

		check(!posix_memalign(&io->buf, align, (count * SECTOR + align - 1)
				      & ~(align - 1)), "no memory");
		memset(io->buf, 0x5a, count * SECTOR);
	}
	if (op == IO_WRITE || op == IO_FUA || op >= IO_WRITE_NOWAIT)
		fill(io->buf, count, tag, sector);
	check(!pthread_create(&io->thread, NULL, io_thread, io), "no thread");
	return io;
}

bool io_done(struct io *io)
{
	return __atomic_load_n(&io->done, __ATOMIC_ACQUIRE);
}

void io_pending(struct io *io)
{
	sleep_ms(30);
	check(!io_done(io), "I/O at sector %llu did not wait: %s",
	      (unsigned long long)io->sector, strerror(io->err));
}

int io_wait(struct io *io)
{
	uint64_t end = now_ms() + wait_limit_ms();

	while (!io_done(io)) {
		check(now_ms() < end,
		      "I/O %d at sector %llu, %llu sectors, does not end",
		      io->op, (unsigned long long)io->sector,
		      (unsigned long long)io->count);
		sleep_ms(1);
	}
	pthread_join(io->thread, NULL);
	return io->err;
}

void io_ok(struct io *io)
{
	int err = io_wait(io);

	check(!err, "I/O %d at sector %llu failed: %s", io->op,
	      (unsigned long long)io->sector, strerror(err));
}

void io_fails(struct io *io, int want)
{
	int err = io_wait(io);

	check(err == want, "I/O %d at sector %llu: %s, wanted %s", io->op,
	      (unsigned long long)io->sector, strerror(err), strerror(want));
}

void disk_write(struct disk *d, uint64_t sector, uint64_t count, uint32_t tag)
{
	io_ok(io_start(d, IO_WRITE, sector, count, tag));
}

void disk_flush(struct disk *d)
{
	io_ok(io_start(d, IO_FLUSH, 0, 0, 0));
}

/* What is read at @sector is what @tag wrote at @first. */
void disk_expect(struct disk *d, uint64_t sector, uint64_t count, uint32_t tag,
		 uint64_t first)
{
	struct io *io = io_start(d, IO_READ, sector, count, 0);

	io_ok(io);
	expect("disk", io->buf, sector, count, tag, first);
	free(io->buf);
	free(io);
}

void disk_expect_zero(struct disk *d, uint64_t sector, uint64_t count)
{
	struct io *io = io_start(d, IO_READ, sector, count, 0);

	io_ok(io);
	check(is_zero(io->buf, count * SECTOR), "sectors %llu+%llu are not zero",
	      (unsigned long long)sector, (unsigned long long)count);
	free(io->buf);
	free(io);
}
