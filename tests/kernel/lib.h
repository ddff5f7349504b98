/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the kernel target share: devices, the control node, I/O
 * that may wait, and a runner that gives each test a process of its own.
 *
 * A check that does not hold ends the test; every wait is bounded.
 */
#ifndef LIB_H
#define LIB_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <linux/dm-userspace.h>

#define SECTOR 512ULL
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* runner */

struct test {
	const char *name;
	void (*fn)(void);
};

extern int test_limit_ms;		/* 0: the usual time for a test */
extern void (*before_test)(size_t i);	/* in its process, if set */
int run_tests(const struct test *tests, size_t n, int argc, char **argv);
void fail_at(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
#define fail(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define check(cond, ...)						\
	do {								\
		if (!(cond))						\
			fail_at(__FILE__, __LINE__, __VA_ARGS__);	\
	} while (0)
#define check_eq(a, b)							\
	do {								\
		unsigned long long a_ = (a), b_ = (b);			\
		if (a_ != b_)						\
			fail_at(__FILE__, __LINE__,			\
				"%s is %llu, not %llu", #a, a_, b_);	\
	} while (0)

int wait_limit_ms(void);	/* how long anything may take */
uint64_t now_ms(void);
void sleep_ms(int ms);

/* random numbers that a seed repeats */
struct rng {
	uint64_t s;
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);	/* 0 .. n-1 */
bool rng_chance(struct rng *r, unsigned int percent);

/* destination devices: loop devices over memory, seen by both ends */

struct dev {
	char path[64];
	int fd;			/* of the loop device */
	int memfd;
	uint8_t *data;		/* what stands there */
	uint64_t sectors;
};

#define DEV_READONLY	1
#define DEV_DIRECT	2
struct dev *dev_new(uint64_t sectors);
struct dev *dev_new_opts(uint64_t sectors, unsigned int logical, int flags);
struct dev *dev_on_file(int fd, uint64_t sectors, int flags);	/* no ->data */
void dev_free(struct dev *dev);
uint64_t dev_stat(struct dev *dev, int field);
#define DEV_READS	0
#define DEV_READ_SECTORS 2
#define DEV_WRITES	4
#define DEV_WRITE_SECTORS 6
#define DEV_DISCARDS	11
#define DEV_FLUSHES	15
bool dev_is_hole(struct dev *dev, uint64_t sector, uint64_t count);

/* Each sector is filled with words that name @tag and its number. */
void fill(void *buf, uint64_t count, uint32_t tag, uint64_t first);
bool filled(const void *buf, uint64_t count, uint32_t tag, uint64_t first);
void dev_fill(struct dev *dev, uint32_t tag);
void dev_check(struct dev *dev, uint64_t sector, uint64_t count, uint32_t tag,
	       uint64_t first);
void dev_check_zero(struct dev *dev, uint64_t sector, uint64_t count);

/* device-mapper: errors are returned as positive errno */

int dm_create(const char *name, int *minor);
int dm_load(const char *name, uint64_t sectors, const char *target,
	    const char *params, bool readonly);
#define DM_NOFLUSH	1
#define DM_NOLOCKFS	2
int dm_suspend(const char *name, int flags);
int dm_resume(const char *name);
int dm_remove(const char *name);
int dm_text(const char *name, bool table, char *buf, size_t len);
int dm_message(const char *name, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int dm_linear_over(const char *name, struct dev *dev, char *path, size_t len);
const char *dm_path(const char *name, char *buf, size_t len);

/* a disk under test */

#define DISK_DEVS 8
struct disk {
	char name[32];
	uint64_t sectors;
	unsigned int bs;		/* sectors in a block */
	uint64_t blocks;
	const char *devs[DISK_DEVS];	/* as in the table line */
	const char *features;		/* of the table line, or NULL */
	int fd;
};

struct disk *disk_new(const struct disk *want);
char *disk_params(const struct disk *d, char *buf, size_t len);
int disk_reload(struct disk *d);	/* load; the caller resumes */
uint64_t disk_status(struct disk *d, const char *name);
void disk_wait_status(struct disk *d, const char *name, uint64_t value);
void disk_status_text(struct disk *d, char *buf, size_t len);

/* the channel */

#define CHAN_QUEUE 64
struct chan {
	int fd;
	struct dmu_event q[CHAN_QUEUE];
	unsigned int head, n;
};

struct chan *chan_open(void);
int chan_attach_arg(struct chan *c, struct dmu_attach *a); /* 0 or errno */
void attach_arg(struct dmu_attach *a, const char *key);
struct chan *chan_new(struct disk *d, uint64_t features); /* and REPLAY_END */
struct chan *chan_raw(struct disk *d, uint64_t features);
void chan_close(struct chan *c);
struct dmu_event ev_get(struct chan *c);
bool ev_poll(struct chan *c, struct dmu_event *ev, int ms);
struct dmu_event ev_want(struct chan *c, uint32_t type, uint64_t block,
			 uint64_t count, uint32_t flags);
struct dmu_event ev_copied(struct chan *c, uint64_t block, uint64_t count,
			   uint32_t dev, uint64_t sector);
void ev_none(struct chan *c);
uint64_t ev_flush(struct chan *c);

struct dmu_reply re_linear(uint64_t id, uint64_t block, uint64_t count,
			   uint32_t dev, uint64_t sector, uint32_t flags);
struct dmu_reply re_cow(uint64_t id, uint64_t block, uint64_t count,
			uint32_t dev, uint64_t sector,
			uint32_t src_dev, uint64_t src_sector);
struct dmu_reply re_kind(uint64_t id, uint64_t block, uint64_t count,
			 uint32_t kind, uint32_t flags);
struct dmu_reply re_fail(uint64_t id, uint64_t block, uint64_t count, int err);
struct dmu_reply re_flushed(uint64_t id, int err);
struct dmu_reply re_done(uint64_t id, int err);
struct dmu_reply re_invalidate(uint64_t id, uint64_t block, uint64_t count);
struct dmu_reply re_commit(void);
struct dmu_reply re_preload(struct dmu_reply r);
int re_try(struct chan *c, const struct dmu_reply *r); /* 0 or errno */
int re_try_bitmap(struct chan *c, struct dmu_reply r, const uint64_t *bitmap);
void re_send(struct chan *c, struct dmu_reply r);

/* I/O, each in a thread */

enum io_op {
	IO_READ, IO_WRITE, IO_FUA, IO_FLUSH, IO_DISCARD, IO_ZERO,
	/* not to be waited for where they are submitted: EAGAIN then */
	IO_READ_NOWAIT, IO_WRITE_NOWAIT, IO_FUA_NOWAIT,
};

struct io {
	enum io_op op;
	int fd;
	uint64_t sector, count;
	uint32_t tag;
	void *buf;
	int err;
	bool done;
	pthread_t thread;
};

struct io *io_start(struct disk *d, enum io_op op, uint64_t sector,
		    uint64_t count, uint32_t tag);
void io_pending(struct io *io);		/* it waits */
bool io_done(struct io *io);
int io_wait(struct io *io);		/* positive errno */
void io_ok(struct io *io);
void io_fails(struct io *io, int err);
int io_sync(int fd, enum io_op op, uint64_t sector, uint64_t count, void *buf);

/* In one go. */
void disk_write(struct disk *d, uint64_t sector, uint64_t count, uint32_t tag);
void disk_flush(struct disk *d);
void disk_expect(struct disk *d, uint64_t sector, uint64_t count, uint32_t tag,
		 uint64_t first);
void disk_expect_zero(struct disk *d, uint64_t sector, uint64_t count);

/* Run a shell command; returns its exit status. */
int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
