// SPDX-License-Identifier: GPL-2.0-or-later
#include "disk.h"

#include <common/bits.h>
#include <common/num.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096ull
#define PAGES (1u << 18)		/* of files of up to 1 GiB */

struct record {
	uint64_t epoch, offset, len;
	uint8_t *data;			/* NULL: zeroes */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool watching, recording, cannot_reserve, is_device;
static int sync_fails;		/* errno, or 0 */
static dev_t watch_dev;
static ino_t watch_ino;
static uint8_t has_space[PAGES / 8];
static uint64_t steps, full_from = DISK_NEVER, broken_at, broken_len;
static uint64_t writes_left = DISK_NEVER;	/* until it is killed */
static struct record *records;
static uint64_t nr_records, epoch;

typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);
typedef int fallocate_fn(int, int, off_t, off_t);
typedef int fstat_fn(int, struct stat *);

static void fatal(const char *what)
{
	perror(what);
	exit(1);
}

/* Of the next library that has it. */
static void *real(const char *name)
{
	void *symbol = dlsym(RTLD_NEXT, name);

	if (!symbol)
		fatal(name);
	return symbol;
}

static bool is_ours(int fd)
{
	struct stat st;

	return watching && !((fstat_fn *)real("fstat"))(fd, &st) &&
	       st.st_dev == watch_dev && st.st_ino == watch_ino;
}

/* --- Space ------------------------------------------------------------------ */

static uint64_t page_end(uint64_t offset, uint64_t len)
{
	uint64_t end = num_div_up(offset + len, PAGE);

	if (end > PAGES) {
		errno = EFBIG;
		fatal("disk.c: the file is too large for a test");
	}
	return end;
}

static bool needs_space(uint64_t offset, uint64_t len)
{
	uint64_t end = page_end(offset, len);

	return bits_next_clear(has_space, offset / PAGE, end) < end;
}

/* Is there room for it?  Then the pages are the file's. */
static bool take_space(uint64_t offset, uint64_t len)
{
	if (!needs_space(offset, len))
		return true;
	if (steps++ >= full_from)
		return false;
	bits_set_run(has_space, offset / PAGE,
		     page_end(offset, len) - offset / PAGE);
	return true;
}

static void give_space(uint64_t offset, uint64_t len)
{
	uint64_t i, end = (offset + len) / PAGE;

	for (i = num_div_up(offset, PAGE); i < end; i++)
		bits_clear(has_space, i);
}

static void find_space(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t at = 0, end;

	memset(has_space, 0, sizeof(has_space));
	if (fd < 0)
		fatal(path);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		take_space((uint64_t)at, (uint64_t)(end - at));
		at = end;
	}
	close(fd);
}

/* --- Records ---------------------------------------------------------------- */

static void keep(const void *data, uint64_t offset, uint64_t len)
{
	struct record *r;

	if (!recording)
		return;
	records = realloc(records, (nr_records + 1) * sizeof(*records));
	if (!records)
		fatal("disk.c");
	r = &records[nr_records++];
	*r = (struct record){ .epoch = epoch, .offset = offset, .len = len };
	if (!data)
		return;
	r->data = malloc(len);
	if (!r->data)
		fatal("disk.c");
	memcpy(r->data, data, len);
}

static void forget_records(void)
{
	uint64_t i;

	for (i = 0; i < nr_records; i++)
		free(records[i].data);
	free(records);
	records = NULL;
	nr_records = 0;
	epoch = 0;
	recording = false;
}

/* --- In the place of the library's ------------------------------------------ */

static bool is_broken(uint64_t offset, uint64_t len)
{
	return broken_len && offset < broken_at + broken_len &&
	       broken_at < offset + len;
}

static ssize_t do_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	uint64_t at = (uint64_t)offset;
	bool broken = is_broken(at, len);
	ssize_t n = -1;

	if (!is_ours(fd))
		return ((pwrite_fn *)real("pwrite"))(fd, buf, len, offset);
	pthread_mutex_lock(&lock);
	if (writes_left && writes_left != DISK_NEVER)
		writes_left--;
	else if (!writes_left)
		broken = true;
	if (broken) {
		errno = EIO;
	} else if (!take_space(at, len)) {
		errno = ENOSPC;
	} else {
		n = ((pwrite_fn *)real("pwrite"))(fd, buf, len, offset);
		if (n > 0)
			keep(buf, at, (uint64_t)n);
	}
	pthread_mutex_unlock(&lock);
	return n;
}

/* Power is cut by disk_replay() only: nothing has to be synced for that. */
static int do_sync(int fd)
{
	int ret = 0;

	if (!is_ours(fd))
		return 0;
	pthread_mutex_lock(&lock);
	if (sync_fails) {
		errno = sync_fails;
		sync_fails = 0;
		ret = -1;
	} else if (recording && nr_records && records[nr_records - 1].epoch == epoch)
		epoch++;
	pthread_mutex_unlock(&lock);
	return ret;
}

static int do_fallocate(int fd, int mode, off_t offset, off_t len)
{
	bool punch = mode & FALLOC_FL_PUNCH_HOLE;
	int ret = -1;

	if (!is_ours(fd))
		return ((fallocate_fn *)real("fallocate"))(fd, mode, offset,
							    len);
	pthread_mutex_lock(&lock);
	if (!punch && cannot_reserve) {
		errno = EOPNOTSUPP;
	} else if (!punch &&
		   !take_space((uint64_t)offset, (uint64_t)len)) {
		errno = ENOSPC;
	} else {
		ret = ((fallocate_fn *)real("fallocate"))(fd, mode, offset,
							   len);
		if (punch && !ret) {
			give_space((uint64_t)offset, (uint64_t)len);
			keep(NULL, (uint64_t)offset, (uint64_t)len);
		}
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

int fstat(int fd, struct stat *st)
{
	int ret = ((fstat_fn *)real("fstat"))(fd, st);

	if (!ret && is_device && is_ours(fd))
		st->st_mode = S_IFBLK | 0666;
	return ret;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return do_pwrite(fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	return do_pwrite(fd, buf, len, offset);
}

int fdatasync(int fd)
{
	return do_sync(fd);
}

int fsync(int fd)
{
	return do_sync(fd);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return do_fallocate(fd, mode, offset, len);
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
	return do_fallocate(fd, mode, offset, len);
}

/* --- Control ---------------------------------------------------------------- */

void disk_watch(const char *path)
{
	struct stat st;

	disk_release();
	if (stat(path, &st))
		fatal(path);
	find_space(path);
	watch_dev = st.st_dev;
	watch_ino = st.st_ino;
	watching = true;
}

void disk_release(void)
{
	watching = false;
	full_from = DISK_NEVER;
	broken_len = 0;
	sync_fails = 0;
	writes_left = DISK_NEVER;
	cannot_reserve = false;
	is_device = false;
	forget_records();
}

void disk_full_from(uint64_t step)
{
	pthread_mutex_lock(&lock);
	steps = 0;
	full_from = step;
	pthread_mutex_unlock(&lock);
}

uint64_t disk_steps(void)
{
	return steps;
}

void disk_is_device(void)
{
	is_device = true;
}

void disk_cannot_reserve(void)
{
	cannot_reserve = true;
}

void disk_break(uint64_t offset, uint64_t len)
{
	broken_at = offset;
	broken_len = len;
}

void disk_break_sync(int error)
{
	pthread_mutex_lock(&lock);
	sync_fails = error;
	pthread_mutex_unlock(&lock);
}

bool disk_sync_is_broken(void)
{
	return sync_fails;
}

void disk_kill_from(uint64_t write)
{
	pthread_mutex_lock(&lock);
	writes_left = write;
	pthread_mutex_unlock(&lock);
}

void disk_record(void)
{
	forget_records();
	recording = true;
}

uint64_t disk_epoch(void)
{
	return epoch;
}

uint64_t disk_writes(uint64_t of)
{
	uint64_t i, n = 0;

	for (i = 0; i < nr_records; i++)
		n += records[i].epoch == of;
	return n;
}

static void put_record(int fd, const struct record *r, const char *path)
{
	uint8_t *zeroes = r->data ? NULL : calloc(1, r->len);
	const uint8_t *data = r->data ? r->data : zeroes;

	if (!data || ((pwrite_fn *)real("pwrite"))(fd, data, r->len,
			(off_t)r->offset) != (ssize_t)r->len)
		fatal(path);
	free(zeroes);
}

void disk_replay(const char *path, uint64_t of, enum disk_cut cut,
		 uint64_t write)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	uint64_t i, nr = 0;

	if (fd < 0)
		fatal(path);
	for (i = 0; i < nr_records && records[i].epoch <= of; i++) {
		if (records[i].epoch < of ||
		    (nr++ == write) == (cut == DISK_ONLY))
			put_record(fd, &records[i], path);
	}
	close(fd);
}
