// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A fuzzer of the control node: random and mutated replies, ids twice and
 * late, bad addresses, several readers and writers, attach and close at any
 * time, messages, all of it under I/O.  There is nothing to compare: the
 * kernel must stay well, every I/O must end, and the device must go away.
 */
#include "lib.h"

#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS		300
#define DEV_SECTORS	8192
#define NR_DEVS		3
#define NR_IDS		64
#define NR_DAEMONS	3
#define NR_IO		4

static struct {
	uint64_t seed;
	unsigned int seconds;
} opt = { .seconds = 20 };

static struct disk *disk;
static bool stop;
static int fd = -1;			/* of the channel, shared by all */
static pthread_rwlock_t fd_lock = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t ids[NR_IDS];		/* seen in events */
static struct dmu_event last_events[NR_IDS];
static unsigned int newest;
static char *edge;			/* the end of mapped memory */
static unsigned long taken, refused, events, attaches, ios, errors;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static void count(unsigned long *n)
{
	__atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
}

/* --- replies ------------------------------------------------------------------------- */

static uint64_t odd_number(struct rng *r)
{
	static const uint64_t odd[] = {
		0, 1, 2, 7, 8, BLOCKS - 1, BLOCKS, BLOCKS + 1, 4095, 4096,
		DEV_SECTORS - 8, DEV_SECTORS, 1ULL << 31, 1ULL << 32,
		1ULL << 52, 1ULL << 61, 1ULL << 63, UINT64_MAX, UINT64_MAX - 7,
	};

	return rng_chance(r, 70) ? odd[rng_below(r, ARRAY_SIZE(odd))] :
				   rng_next(r) >> rng_below(r, 64);
}

/* Something that is likely to be taken. */
static void good_reply(struct rng *r, struct dmu_reply *re)
{
	const struct dmu_event *ev = &last_events[rng_chance(r, 60) ?
						  newest : rng_below(r, NR_IDS)];

	memset(re, 0, sizeof(*re));
	re->type = 1 + rng_below(r, 7);
	if (rng_chance(r, 60))
		re->type = DMU_RE_MAP;
	re->id = ev->id;
	re->block = ev->block % BLOCKS;
	re->count = 1 + rng_below(r, rng_chance(r, 50) ? ev->count + 1 : 40);
	if (re->type == DMU_RE_MAP || re->type == DMU_RE_PRELOAD) {
		re->kind = 1 + rng_below(r, 4);
		re->flags = re->type == DMU_RE_MAP ? rng_below(r, 2) : 0;
		if (rng_chance(r, 10))
			re->flags |= DMU_RE_METADATA;
		if (re->kind <= DMU_KIND_COW) {
			re->dev = rng_below(r, NR_DEVS);
			re->sector = rng_below(r, DEV_SECTORS);
		}
		if (re->kind == DMU_KIND_LINEAR && rng_chance(r, 60))
			re->flags |= DMU_RE_WRITABLE;
		if (re->kind == DMU_KIND_COW) {
			re->src_dev = rng_chance(r, 30) ? DMU_DEV_NONE :
						rng_below(r, NR_DEVS);
			if (re->src_dev != DMU_DEV_NONE)
				re->src_sector = rng_below(r, DEV_SECTORS);
			if (rng_chance(r, 30))
				re->bitmap_len = DMU_BITMAP_LEN(re->count);
		}
	}
	if (re->type == DMU_RE_FAIL || rng_chance(r, 2))
		re->error = 1 + rng_below(r, 133);
	if (re->type == DMU_RE_PRELOAD || re->type == DMU_RE_COMMIT)
		re->id = 0;
	if (re->type == DMU_RE_COMMIT && rng_chance(r, 10))
		re->flags = DMU_RE_LOST;
	if (re->type == DMU_RE_COMMIT && rng_chance(r, 30))
		re->flags |= DMU_RE_METADATA;
	if (re->type == DMU_RE_INVALIDATE && rng_chance(r, 50))
		re->flags = DMU_RE_FORGET;
	if (re->type == DMU_RE_FLUSHED || re->type == DMU_RE_DONE ||
	    re->type == DMU_RE_COMMIT)
		re->block = re->count = 0;
	if (re->type == DMU_RE_FLUSHED)
		re->id = ids[rng_below(r, NR_IDS)];
	if (re->type == DMU_RE_INVALIDATE)
		re->id = 1 + rng_next(r) % 1000;
}

static void mutate(struct rng *r, struct dmu_reply *re)
{
	unsigned char *p = (unsigned char *)re;

	switch (rng_below(r, 10)) {
	case 0:
		p[rng_below(r, sizeof(*re))] ^= 1 << rng_below(r, 8);
		break;
	case 1:
		p[rng_below(r, sizeof(*re))] = rng_next(r);
		break;
	case 2:
		((uint64_t *)re)[rng_below(r, sizeof(*re) / 8)] = odd_number(r);
		break;
	case 3:
		((uint32_t *)re)[rng_below(r, sizeof(*re) / 4)] = odd_number(r);
		break;
	case 4:
		re->block = odd_number(r);
		re->count = odd_number(r);
		break;
	case 5:
		re->sector = odd_number(r);
		re->src_sector = odd_number(r);
		break;
	case 6:
		re->bitmap_len = odd_number(r);
		break;
	}
}

/* A batch with bitmaps; returns its length. */
static size_t batch(struct rng *r, char *buf, size_t room)
{
	size_t len = 0;
	unsigned int n = 1 + rng_below(r, 5);

	while (n--) {
		struct dmu_reply re;
		size_t bits, i;

		good_reply(r, &re);
		if (rng_chance(r, 25))
			mutate(r, &re);
		bits = re.bitmap_len > 4096 ? 8 : re.bitmap_len;
		if (len + sizeof(re) + bits > room)
			break;
		memcpy(buf + len, &re, sizeof(re));
		len += sizeof(re);
		for (i = 0; i < bits; i++)
			buf[len++] = rng_chance(r, 50) && i + 8 < bits ?
				     rng_next(r) : 0;
	}
	if (rng_chance(r, 3))
		len -= rng_below(r, len);
	return len;
}

static void do_write(struct rng *r)
{
	static const size_t room = 8192;
	char *buf = malloc(room), *from = buf;
	size_t len = batch(r, buf, room);
	ssize_t n;

	if (rng_chance(r, 3)) {			/* up to the edge, or over */
		from = edge - rng_below(r, len + 1);
		memcpy(from, buf, edge - from);
	} else if (rng_chance(r, 1)) {
		from = (char *)(uintptr_t)odd_number(r);
	}
	n = write(fd, from, len);
	count(n > 0 ? &taken : &refused);
	free(buf);
}

static void do_read(struct rng *r)
{
	struct dmu_event ev[40];
	void *to = ev;
	size_t len = rng_below(r, sizeof(ev) + 1);
	ssize_t n;
	size_t i;

	if (rng_chance(r, 5))
		to = edge - rng_below(r, len + 1);
	else if (rng_chance(r, 1))
		to = (char *)(uintptr_t)odd_number(r);
	n = read(fd, to, len);
	if (n <= 0 || to != ev)
		return;
	for (i = 0; i < n / sizeof(*ev); i++) {
		unsigned int at = rng_below(r, NR_IDS);

		last_events[at] = ev[i];
		ids[at] = ev[i].id;
		newest = at;
		count(&events);
	}
}

static void do_attach(struct rng *r)
{
	struct dmu_attach arg;

	attach_arg(&arg, disk->name);
	if (rng_chance(r, 40))
		arg.features = rng_below(r, 4);
	if (rng_chance(r, 10))
		((unsigned char *)&arg)[rng_below(r, sizeof(arg))] ^=
			1 << rng_below(r, 8);
	if (rng_chance(r, 2))
		ioctl(fd, DMU_IOC_ATTACH, odd_number(r));
	if (!ioctl(fd, DMU_IOC_ATTACH, &arg))
		count(&attaches);
}

/* Close and open: nobody else has the file then, or somebody is inside. */
static void do_reopen(struct rng *r)
{
	int new = open("/dev/" DMU_DEVICE_NAME, O_RDWR | O_CLOEXEC |
		       (rng_chance(r, 80) ? O_NONBLOCK : 0)), old;

	new = new < 0 ? -1 : new;
	if (new >= 0)
		fcntl(new, F_SETFL, O_NONBLOCK);	/* nobody sleeps here */
	pthread_rwlock_wrlock(&fd_lock);
	old = fd;
	fd = new;
	pthread_rwlock_unlock(&fd_lock);
	close(old);
}

static void *daemon_thread(void *arg)
{
	struct rng r;

	rng_init(&r, opt.seed * 77 + (uintptr_t)arg);
	while (!stopped()) {
		unsigned int p = rng_below(&r, 1000);

		if (p < 4) {
			do_reopen(&r);
			continue;
		}
		pthread_rwlock_rdlock(&fd_lock);
		if (p < 30) {
			do_attach(&r);
		} else if (p < 500) {
			do_read(&r);
		} else if (p < 990) {
			do_write(&r);
		} else {
			struct pollfd pfd = { .fd = fd, .events = POLLIN };

			poll(&pfd, 1, 1);
		}
		pthread_rwlock_unlock(&fd_lock);
	}
	return NULL;
}

/* --- I/O and the rest ------------------------------------------------------------------- */

static uint64_t io_since[NR_IO];

static void *io_thread(void *arg)
{
	uintptr_t self = (uintptr_t)arg;
	struct rng r;
	void *buf;

	rng_init(&r, opt.seed * 99 + self);
	check(!posix_memalign(&buf, 4096, 128 * SECTOR), "no memory");
	while (!stopped()) {
		enum io_op op = rng_below(&r, 6);
		uint64_t sector = rng_below(&r, disk->sectors);
		uint64_t n = 1 + rng_below(&r, rng_chance(&r, 70) ? 16 : 128);

		if (n > disk->sectors - sector)
			n = disk->sectors - sector;
		__atomic_store_n(&io_since[self], now_ms(), __ATOMIC_RELEASE);
		count(io_sync(disk->fd, op, sector, n, buf) ? &errors : &ios);
		__atomic_store_n(&io_since[self], 0, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void disturb(struct rng *r)
{
	static const char *const messages[] = {
		"evict", "evict", "map_memory 1", "map_memory 64",
		"map_memory 65536", "policy queue", "policy fail",
		"policy timeout 1", "policy", "map_memory x",
		"no_space wait", "no_space fail", "no_space",
		"commit_anyway", "commit_anyway",
	};
	char text[1000];

	switch (rng_below(r, 8)) {
	case 0:
		dm_suspend(disk->name, DM_NOFLUSH | DM_NOLOCKFS);
		if (rng_chance(r, 50)) {
			disk->sectors = BLOCKS * 8 - rng_below(r, 2) * 13;
			disk_reload(disk);
		}
		dm_resume(disk->name);
		break;
	case 1:
		dm_text(disk->name, rng_chance(r, 50), text, sizeof(text));
		break;
	default:
		dm_message(disk->name, "%s",
			   messages[rng_below(r, ARRAY_SIZE(messages))]);
	}
}

/* Let all I/O end: whoever answered badly is gone. */
static void finish(pthread_t *daemons, pthread_t *io)
{
	uint64_t end;
	int i;

	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < NR_DAEMONS; i++)
		pthread_join(daemons[i], NULL);
	close(fd);
	dm_message(disk->name, "policy fail");
	end = now_ms() + 2 * wait_limit_ms();
	for (i = 0; i < NR_IO; i++) {
		while (__atomic_load_n(&io_since[i], __ATOMIC_ACQUIRE)) {
			check(now_ms() < end, "I/O does not end, seed %llu",
			      (unsigned long long)opt.seed);
			sleep_ms(5);
		}
		pthread_join(io[i], NULL);
	}
	disk_wait_status(disk, "waiting", 0);
	close(disk->fd);
	check(!dm_remove(disk->name), "the device does not go, seed %llu",
	      (unsigned long long)opt.seed);
}

static void fuzz(void)
{
	struct disk want = { .sectors = BLOCKS * 8 - 13, .bs = 8 };
	uint64_t end = now_ms() + opt.seconds * 1000ULL;
	pthread_t daemons[NR_DAEMONS], io[NR_IO];
	struct rng r;
	uintptr_t i;

	rng_init(&r, opt.seed);
	for (i = 0; i < NR_DEVS; i++)
		want.devs[i] = dev_new(DEV_SECTORS)->path;
	disk = disk_new(&want);
	edge = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	edge += 1 << 19;
	munmap(edge, 1 << 19);
	do_reopen(&r);
	for (i = 0; i < NR_DAEMONS; i++)
		check(!pthread_create(&daemons[i], NULL, daemon_thread,
				      (void *)i), "no thread");
	for (i = 0; i < NR_IO; i++)
		check(!pthread_create(&io[i], NULL, io_thread, (void *)i),
		      "no thread");
	while (now_ms() < end) {
		sleep_ms(1 + rng_below(&r, 40));
		disturb(&r);
	}
	finish(daemons, io);
	printf("# replies taken %lu, refused %lu, events %lu, attaches %lu, I/O %lu, failed %lu\n",
	       taken, refused, events, attaches, ios, errors);
	fflush(stdout);
	check(taken && refused && events && attaches && ios,
	      "the fuzzer reached nothing");
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	static const struct test test = { "fuzz", fuzz };
	char *self[] = { argv[0], NULL };
	int c;

	opt.seed = now_ms() * 31 + getpid();
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's': opt.seed = strtoull(optarg, NULL, 0); break;
		case 't': opt.seconds = atoi(optarg); break;
		default:
			puts("usage: fuzz [--seed N] [--seconds N]");
			return 2;
		}
	}
	printf("# fuzz --seed %llu\n", (unsigned long long)opt.seed);
	test_limit_ms = (opt.seconds + 120) * 1000;
	return run_tests(&test, 1, 1, self);
}
