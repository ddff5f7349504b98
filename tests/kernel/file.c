// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hits that go to the file of a loop device themselves (I17), on the file
 * system that is mounted at $FILE_FS: that they are right, and when they must not.
 */
#include "lib.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BS		8
#define BLOCKS		2048
#define SECTORS		(BLOCKS * BS)
#define TAG		7
#define RW		DMU_RE_WRITABLE

static char path[PATH_MAX];
static int file;			/* through the page cache */
static struct dev *dev;
static struct disk *d;
static struct chan *c;

/* ---- the file ------------------------------------------------------------- */

static const char *file_system(void)
{
	const char *dir = getenv("FILE_FS");

	check(dir, "FILE_FS is not set: run file.sh");
	return dir;
}

static void file_named(void)
{
	static int counter;

	snprintf(path, sizeof(path), "%s/%d.%d", file_system(), getpid(), counter++);
	file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	check(file >= 0, "%s: %s", path, strerror(errno));
}

static void file_new(void)
{
	file_named();
	check(!unlink(path), "%s: %s", path, strerror(errno));
}

static void file_write(uint64_t block, uint64_t count, uint32_t tag)
{
	uint64_t len = count * BS * SECTOR;
	uint8_t *buf = malloc(len);

	check(buf, "no memory");
	fill(buf, count * BS, tag, block * BS);
	check(pwrite(file, buf, len, block * BS * SECTOR) == (ssize_t)len,
	      "%s: %s", path, strerror(errno));
	free(buf);
}

/* Nothing of it is in memory, its metadata neither. */
static void file_cold(void)
{
	check(!fsync(file), "%s: %s", path, strerror(errno));
	sh("sync; echo 3 > /proc/sys/vm/drop_caches");
}

static void file_expect(uint64_t sector, uint64_t count, uint32_t tag, uint64_t first)
{
	static uint8_t buf[1 << 20];

	check(pread(file, buf, count * SECTOR, sector * SECTOR) == (ssize_t)(count * SECTOR),
	      "%s: %s", path, strerror(errno));
	check(filled(buf, count, tag, first), "sectors %llu+%llu of the file are wrong",
	      (unsigned long long)sector, (unsigned long long)count);
}

/* When the file says that it was written to, in ms. */
static int64_t changed(void)
{
	struct stat st;

	check(!fstat(file, &st), "%s: %s", path, strerror(errno));
	return st.st_mtim.tv_sec * 1000LL + st.st_mtim.tv_nsec / 1000000;
}

/* ---- the disk ------------------------------------------------------------- */

static int tell(int fd, const char *how)
{
	return dm_message(d->name, "file 0 %d %s", fd, how);
}

static void map_all(int flags)
{
	re_send(c, re_preload(re_linear(0, 0, BLOCKS, 0, 0,
					flags & DEV_READONLY ? 0 : RW)));
}

static void disk_over_file(int flags)
{
	struct disk want = { .sectors = SECTORS, .bs = BS };

	dev = dev_on_file(file, SECTORS, flags);
	want.devs[0] = dev->path;
	d = disk_new(&want);
	c = chan_new(d, 0);
	map_all(flags);
}

/* Like the first one; it knows of no file, and the one before lets go of its own. */
static void another_table(void)
{
	check_eq(disk_reload(d), 0);
	check_eq(dm_suspend(d->name, 0), 0);
	check_eq(dm_resume(d->name), 0);
}

static void setup(void)
{
	file_new();
	file_write(0, BLOCKS, TAG);
	file_cold();
	disk_over_file(DEV_DIRECT);
	/* Whoever is the first to write starts workers of the file system. */
	disk_write(d, SECTORS - 8, 8, 1);
	check_eq(tell(file, "direct"), 0);
}

/* How many I/Os the file served itself, and the loop device, since the last call. */
static void check_served(uint64_t by_file, uint64_t by_loop)
{
	static uint64_t ios, misses;
	uint64_t now;

	now = disk_status(d, "file_ios");
	check_eq(now - ios, by_file);
	ios = now;
	now = disk_status(d, "file_misses");
	check_eq(now - misses, by_loop);
	misses = now;
}

/* ---- right ---------------------------------------------------------------- */

static void hits(void)
{
	setup();
	disk_expect(d, 0, 1, TAG, 0);
	disk_expect(d, 77, 500, TAG, 77);
	disk_write(d, 1000, 512, 9);
	io_ok(io_start(d, IO_READ_NOWAIT, 5, 3, 0));
	io_ok(io_start(d, IO_WRITE_NOWAIT, 2000, 8, 10));
	check_served(5, 0);
	disk_write(d, 9, 1, 8);			/* parts of the file system's blocks */
	disk_write(d, 1511, 2, 9);
	check_served(0, 2);
	disk_expect(d, 9, 1, 8, 9);
	disk_expect(d, 10, 990, TAG, 10);
	disk_expect(d, 1000, 513, 9, 1000);
	disk_flush(d);
	file_expect(0, 9, TAG, 0);
	file_expect(9, 1, 8, 9);
	file_expect(1000, 513, 9, 1000);
	file_expect(1513, 400, TAG, 1513);
	file_expect(2000, 8, 10, 2000);
}

/* A bio that is cut in three, the middle part to elsewhere. */
static void split(void)
{
	setup();
	re_send(c, re_invalidate(7, 4, 1));
	ev_want(c, DMU_EV_INVALIDATED, 4, 1, 0);
	re_send(c, re_preload(re_linear(0, 4, 1, 0, 900 * BS, RW)));
	disk_write(d, 2 * BS, 6 * BS, 9);
	check_served(3, 0);
	disk_expect(d, 2 * BS, 6 * BS, 9, 2 * BS);
	disk_expect(d, 8 * BS, 6 * BS, TAG, 8 * BS);
	disk_flush(d);
	file_expect(900 * BS, BS, 9, 4 * BS);
	file_expect(4 * BS, BS, TAG, 4 * BS);
	file_expect(5 * BS, 3 * BS, 9, 5 * BS);
}

/* In sectors; each eighth is no multiple of a file system's block. */
static uint64_t crowd_size(unsigned int i)
{
	return i % 8 ? 8 + 8 * ((i * 37) % 31) : 1 + i;
}

/* Many at once, of all sizes; each sector is of the last write. */
static void crowd(void)
{
	uint64_t before, by_file = 0;
	struct io *io[64];
	unsigned int i, round;

	setup();
	for (round = 1; round < 8; round++) {
		before = disk_status(d, "file_ios");
		for (i = 0; i < ARRAY_SIZE(io); i++)
			io[i] = io_start(d, IO_WRITE, i * 256, crowd_size(i), 100 * round + i);
		for (i = 0; i < ARRAY_SIZE(io); i++)
			io_ok(io[i]);
		by_file += disk_status(d, "file_ios") - before;
		for (i = 0; i < ARRAY_SIZE(io); i++)
			disk_expect(d, i * 256, crowd_size(i), 100 * round + i, i * 256);
	}
	check(by_file > 200, "%llu of 448 writes by the file", (unsigned long long)by_file);
}

/* ---- not waiting for itself ----------------------------------------------- */

/* The file system begins anew: it knows nothing of the file, which keeps its name. */
static void mount_again(void)
{
	close(file);
	check(!sh("umount %s && mount /dev/mapper/below %s", file_system(), file_system()),
	      "cannot mount %s again", file_system());
	file = open(path, O_RDWR | O_CLOEXEC);
	check(file >= 0 && !unlink(path), "%s: %s", path, strerror(errno));
}

/* What is written directly, by way of no device of ours, to another file. */
static void start_workers(void)
{
	int fd = open(file_system(), O_TMPFILE | O_RDWR | O_DIRECT, 0600);
	void *buf;

	check(fd >= 0 && !posix_memalign(&buf, 4096, 4096), "%s", strerror(errno));
	memset(buf, 0, 4096);
	/* One that makes the file larger is waited for where it is submitted. */
	check(!io_sync(fd, IO_WRITE, 0, 8, buf) && !io_sync(fd, IO_FUA, 0, 8, buf),
	      "%s: %s", path, strerror(errno));
	close(fd);
}

/*
 * A file system that has to read where the blocks are, while the bio that asks is
 * still being submitted.
 */
static void metadata_is_cold(void)
{
	uint64_t i, misses;

	file_named();
	check(!ftruncate(file, SECTORS * SECTOR), "%s", strerror(errno));
	for (i = 0; i < BLOCKS; i += 2)		/* an extent for each: a tree with nodes */
		file_write(i, 1, TAG);
	mount_again();
	start_workers();
	disk_over_file(DEV_DIRECT);
	check_eq(tell(file, "direct"), 0);
	for (i = 0; i < BLOCKS; i += 202)
		disk_expect(d, i * BS, BS, TAG, i * BS);
	check(disk_status(d, "file_ios") > 0, "not by the file");
	disk_expect_zero(d, BS, BS);		/* a hole */
	misses = disk_status(d, "file_misses");
	disk_write(d, BS, BS, 9);		/* which the loop device fills */
	check_eq(disk_status(d, "file_misses"), misses + 1);
	disk_expect(d, BS, BS, 9, BS);
	file_expect(BS, BS, 9, BS);
}

/* ---- when it must not ----------------------------------------------------- */

static void frozen(void)
{
	struct io *io;

	setup();
	disk_write(d, 0, BS, 8);
	check_served(1, 0);
	check(!sh("fsfreeze -f %s", file_system()), "cannot freeze %s", file_system());
	io = io_start(d, IO_WRITE, BS, BS, 9);
	sleep_ms(300);
	disk_expect(d, 0, BS, 8, 0);
	check(!sh("fsfreeze -u %s", file_system()), "cannot thaw %s", file_system());
	io_ok(io);
	check_served(1, 1);
	disk_expect(d, BS, BS, 9, BS);
}

/* Whoever frees the file system is not waited for, and finds the time of the last write. */
static void frozen_times(void)
{
	int64_t before, end;

	setup();
	before = changed();
	sleep_ms(20);
	disk_write(d, 0, BS, 8);
	check_served(1, 0);
	check(!sh("fsfreeze -f %s", file_system()), "cannot freeze %s", file_system());
	sleep_ms(2500);
	check_eq(changed() == before, 1);
	check(!sh("fsfreeze -u %s", file_system()), "cannot thaw %s", file_system());
	for (end = now_ms() + wait_limit_ms(); changed() == before; sleep_ms(50))
		check((int64_t)now_ms() < end, "the file's time does not change");
	disk_write(d, 0, BS, 9);
	check(!sh("fsfreeze -f %s", file_system()), "cannot freeze %s", file_system());
	another_table();
	check(!sh("fsfreeze -u %s", file_system()), "cannot thaw %s", file_system());
	disk_expect(d, 0, BS, 9, 0);
}

/* A limit for files is none for devices: no SIGXFSZ, which would end this process. */
static void limited(void)
{
	struct rlimit small = { 4096, 4096 };

	setup();
	check(!setrlimit(RLIMIT_FSIZE, &small), "setrlimit");
	signal(SIGXFSZ, SIG_DFL);
	disk_write(d, 1000, 8, 9);
	check_served(0, 1);
	disk_expect(d, 1000, 8, 9, 1000);
}

/* Who reads the file through the page cache sees what was written by the device. */
static void page_cache(void)
{
	setup();
	file_expect(0, 64, TAG, 0);		/* now it is in memory */
	disk_write(d, 8, 8, 9);
	check_served(0, 1);
	disk_write(d, 8, 8, 9);			/* the loop device took it out of there */
	check_served(1, 0);
	file_expect(8, 8, 9, 8);
	file_write(2, 1, 10);			/* dirty, not written back */
	disk_expect(d, 16, 8, 10, 16);
	disk_write(d, 24, 8, 11);
	file_expect(16, 8, 10, 16);
	file_expect(24, 8, 11, 24);
}

static void fua_and_flush(void)
{
	uint64_t flushes;

	setup();
	disk_write(d, 0, 8, 8);
	check_served(1, 0);
	flushes = dev_stat(dev, DEV_FLUSHES);
	disk_flush(d);
	check_eq(dev_stat(dev, DEV_FLUSHES), flushes + 1);
	io_ok(io_start(d, IO_FUA, 8, 8, 9));
	check_served(0, 1);
	check(dev_stat(dev, DEV_FLUSHES) > flushes + 1, "FUA was not flushed");
	file_expect(8, 8, 9, 8);
}

/* The file ends earlier than it did: no I/O hangs, none reads what is not there. */
static void shorter(void)
{
	struct io *io;

	setup();
	check(!ftruncate(file, SECTORS / 2 * SECTOR), "%s", strerror(errno));
	disk_expect(d, 0, 8, TAG, 0);
	io = io_start(d, IO_READ, SECTORS - 8, 8, 0);
	io_wait(io);
	io = io_start(d, IO_WRITE, SECTORS - 16, 8, 9);
	io_wait(io);
	check_served(0, 3);
}

static void below(const char *table)
{
	check(!sh("s=$(blockdev --getsz /dev/ram0); dmsetup load below --table \"0 $s %s\" && "
		  "dmsetup suspend --noflush --nolockfs below && dmsetup resume --noudevsync below",
		  table), "cannot make the device below %s", table);
}

/* What the file cannot do the loop device cannot either, and says so. */
static void broken(void)
{
	setup();
	disk_write(d, 0, 8, 8);
	disk_flush(d);
	sh("sync");
	check_served(1, 0);
	below("error");
	io_fails(io_start(d, IO_READ, 0, 8, 0), EIO);
	below("linear /dev/ram0 0");
	check_served(0, 1);
	disk_expect(d, 0, 8, 8, 0);
	disk_write(d, 0, 8, 9);
	check_served(2, 0);
	disk_expect(d, 0, 8, 9, 0);
}

/* What is only read: from memory if it is there, else the loop device fetches it. */
static void cached(void)
{
	file_new();
	file_write(0, BLOCKS, TAG);
	file_cold();
	disk_over_file(DEV_READONLY);
	check_eq(tell(file, "direct"), EINVAL);
	check_eq(tell(file, "cached"), 0);
	disk_expect(d, 64, 8, TAG, 64);
	check_served(0, 1);
	disk_expect(d, 64, 8, TAG, 64);
	check_served(1, 0);
	file_expect(0, 512, TAG, 0);
	disk_expect(d, 7, 505, TAG, 7);
	check_served(1, 0);
	file_cold();
	map_all(DEV_READONLY);			/* which the shrinker took */
	disk_expect(d, 0, 8, TAG, 0);
	check_served(0, 1);
}

/* A little later; the last time at the latest when it is let go. */
static void times(void)
{
	int64_t before, end = now_ms() + wait_limit_ms();

	setup();
	before = changed();
	sleep_ms(20);
	disk_write(d, 0, 8, 8);
	while (changed() == before) {
		check((int64_t)now_ms() < end, "the file's time does not change");
		sleep_ms(50);
	}
	before = changed();
	sleep_ms(20);
	disk_write(d, 0, 8, 8);
	check_served(2, 0);
	another_table();
	check(changed() > before, "it does not say that it was written to");
}

/* Another table knows nothing of the file. */
static void reloaded(void)
{
	setup();
	disk_write(d, 0, 8, 8);
	another_table();
	disk_expect(d, 0, 8, 8, 0);
	check_served(1, 0);
	check_eq(tell(file, "direct"), 0);
	disk_expect(d, 0, 8, 8, 0);
	check_served(1, 0);
}

static void refused(void)
{
	char other[PATH_MAX + 8];
	int fd;

	setup();
	check_eq(tell(file, "direct"), EBUSY);
	check_eq(dm_message(d->name, "file 1 %d direct", file), EINVAL);
	another_table();
	check_eq(tell(12345, "direct"), EBADF);
	check_eq(tell(file, "somehow"), EINVAL);
	check_eq(dm_message(d->name, "file x %d direct", file), EINVAL);
	fd = open(file_system(), O_RDONLY | O_DIRECTORY);
	check_eq(tell(fd, "direct"), EINVAL);
	close(fd);
	fd = open("/proc/self/exe", O_RDONLY);
	check_eq(tell(fd, "direct"), EINVAL);
	close(fd);
	fd = open(dev->path, O_RDWR);
	check_eq(tell(fd, "direct"), EINVAL);
	close(fd);
	snprintf(other, sizeof(other), "%s.other", path);
	fd = open(other, O_RDWR | O_CREAT | O_EXCL, 0600);
	check(fd >= 0 && !unlink(other) && !ftruncate(fd, SECTORS * SECTOR + SECTOR),
	      "%s: %s", other, strerror(errno));
	check_eq(tell(fd, "direct"), EINVAL);
	close(fd);
	fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
	check(fd >= 0 && !ftruncate(fd, SECTORS * SECTOR), "tmpfs: %s", strerror(errno));
	check_eq(tell(fd, "direct"), EOPNOTSUPP);
	close(fd);
	check_eq(tell(file, "direct"), 0);
}

#define T(name) { #name, name }
static const struct test tests[] = {
	T(hits), T(split), T(crowd), T(metadata_is_cold), T(frozen), T(frozen_times), T(limited),
	T(page_cache), T(fua_and_flush), T(shorter), T(broken), T(cached), T(times), T(reloaded), T(refused),
};

int main(int argc, char **argv)
{
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
