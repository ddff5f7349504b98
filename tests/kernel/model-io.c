// SPDX-License-Identifier: GPL-2.0-or-later
/* The contents of the disk, and the threads that change them. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_THREADS 16
#define MAX_IO (1 << 20)

/* Of a sector: versions begun, ended, and safe; which ones are zero. */
static uint32_t *begun, *ended, *safe;
static uint64_t *zero_kinds;		/* bit v % 64 */
static uint8_t *busy;			/* a writer is at it */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct worker {
	pthread_t thread;
	struct rng rng;
	uint8_t *buf;
	uint32_t *from;			/* versions ended when a read began */
	uint64_t since;			/* 0: nothing in flight */
	uint64_t ops;
	enum io_op op;
	uint64_t sector, count;
};

static struct worker workers[MAX_THREADS];
static bool stop;

/* --- what a sector holds ------------------------------------------------------- */

#define MAGIC 0xd15c000000000000ULL

static void stamp(uint64_t *p, uint64_t sector, uint32_t version)
{
	unsigned int i;

	p[0] = MAGIC | version;
	p[1] = sector;
	for (i = 2; i < SECTOR / 8; i++)
		p[i] = (sector << 32 | version) * (2 * i + 1);
}

/* Version 0, as the base has it. */
void base_sector(uint64_t *p, uint64_t sector, bool zero)
{
	if (zero)
		memset(p, 0, SECTOR);
	else
		stamp(p, sector, 0);
}

static bool all_zero(const uint64_t *p)
{
	unsigned int i;

	for (i = 0; i < SECTOR / 8; i++)
		if (p[i])
			return false;
	return true;
}

static bool zero_between(uint64_t sector, uint32_t from, uint32_t to)
{
	uint64_t kinds = __atomic_load_n(&zero_kinds[sector], __ATOMIC_ACQUIRE);
	uint32_t v;

	if (to - from >= 64)
		return true;
	for (v = from; v <= to; v++)
		if (kinds >> (v % 64) & 1)
			return true;
	return false;
}

/* Is @p one of versions @from..@to?  NULL, or what it is instead. */
static const char *wrong(const uint64_t *p, uint64_t sector, uint32_t from,
			 uint32_t to)
{
	static __thread char text[200];
	uint64_t want[SECTOR / 8];
	uint32_t v = p[0];

	if (all_zero(p)) {
		if (zero_between(sector, from, to))
			return NULL;
		snprintf(text, sizeof(text), "is zero");
	} else if ((p[0] & MAGIC) != MAGIC || p[1] != sector) {
		snprintf(text, sizeof(text),
			 "is foreign: version %u of sector %llu", v,
			 (unsigned long long)p[1]);
	} else {
		stamp(want, sector, v);
		if (memcmp(want, p, SECTOR))
			snprintf(text, sizeof(text), "is torn, version %u", v);
		else if (v < from)
			snprintf(text, sizeof(text), "is stale: version %u", v);
		else if (v > to)
			snprintf(text, sizeof(text), "is of the future: %u", v);
		else
			return NULL;
	}
	snprintf(text + strlen(text), sizeof(text) - strlen(text),
		 ", sector %llu (block %llu) may hold %u..%u (safe %u)",
		 (unsigned long long)sector,
		 (unsigned long long)sector / opt.bs, from, to, safe[sector]);
	return text;
}

static void durable_now(uint32_t *floor)
{
	pthread_mutex_lock(&lock);
	memcpy(floor, safe, disk->sectors * sizeof(*floor));
	pthread_mutex_unlock(&lock);
}

void durable_begin(uint32_t *floor)
{
	durable_now(floor);
}

const char *durable_wrong(const void *data, uint64_t sector, uint32_t floor)
{
	uint64_t copy[SECTOR / 8];

	memcpy(copy, data, SECTOR);
	return wrong(copy, sector, floor,
		     __atomic_load_n(&begun[sector], __ATOMIC_ACQUIRE));
}

/* --- operations ------------------------------------------------------------------ */

/* The range is this writer's alone, or false. */
static bool claim(uint64_t sector, uint64_t count)
{
	bool ok;

	pthread_mutex_lock(&lock);
	ok = !memchr(busy + sector, 1, count);
	if (ok)
		memset(busy + sector, 1, count);
	pthread_mutex_unlock(&lock);
	return ok;
}

static void release(uint64_t sector, uint64_t count)
{
	pthread_mutex_lock(&lock);
	memset(busy + sector, 0, count);
	pthread_mutex_unlock(&lock);
}

static void begin_versions(struct worker *w, bool zero)
{
	uint64_t s;

	for (s = w->sector; s < w->sector + w->count; s++) {
		uint32_t v = begun[s] + 1;
		uint64_t bit = 1ULL << (v % 64);
		uint64_t kinds = zero ? zero_kinds[s] | bit :
					zero_kinds[s] & ~bit;

		__atomic_store_n(&zero_kinds[s], kinds, __ATOMIC_RELEASE);
		__atomic_store_n(&begun[s], v, __ATOMIC_RELEASE);
		if (!zero)
			stamp((uint64_t *)(w->buf + (s - w->sector) * SECTOR),
			      s, v);
	}
}

/* The write is through: nobody may see what was before it. */
static void end_versions(struct worker *w, bool fua)
{
	uint64_t s;

	for (s = w->sector; s < w->sector + w->count; s++)
		__atomic_store_n(&ended[s], begun[s], __ATOMIC_RELEASE);
	if (!fua)
		return;
	pthread_mutex_lock(&lock);
	for (s = w->sector; s < w->sector + w->count; s++)
		safe[s] = begun[s];
	pthread_mutex_unlock(&lock);
}

/* Now and then without waiting where it is submitted, if the devices below can. */
static int submit(struct worker *w)
{
	int err = EAGAIN;

	__atomic_store_n(&w->since, now_ms(), __ATOMIC_RELEASE);
	if (w->op <= IO_FUA && rng_chance(&w->rng, 20))
		err = io_sync(disk->fd, IO_READ_NOWAIT + w->op, w->sector, w->count, w->buf);
	if (err == EAGAIN || err == EOPNOTSUPP)
		err = io_sync(disk->fd, w->op, w->sector, w->count, w->buf);
	__atomic_store_n(&w->since, 0, __ATOMIC_RELEASE);
	return err;
}

/*
 * Only commits that the daemon refuses, on purpose, may fail something: each what waits
 * for it, of each thread one operation at most.
 */
static void failed(struct worker *w, int err)
{
	static unsigned long forgiven;

	if (err == EIO && (w->op == IO_FUA || w->op == IO_FLUSH) &&
	    __atomic_add_fetch(&forgiven, 1, __ATOMIC_RELAXED) <=
	    daemon_refused() * opt.threads)
		return;
	fail("operation %d on sectors %llu+%llu: %s", w->op,
	     (unsigned long long)w->sector, (unsigned long long)w->count,
	     strerror(err));
}

static void do_write(struct worker *w)
{
	int err;

	if (!claim(w->sector, w->count))
		return;
	begin_versions(w, w->op == IO_ZERO || w->op == IO_DISCARD);
	err = submit(w);
	if (err == EOPNOTSUPP && w->op == IO_ZERO) {	/* dm-delay below */
		w->op = IO_WRITE;
		memset(w->buf, 0, w->count * SECTOR);
		err = submit(w);
	}
	if (err)
		failed(w, err);
	else if (w->op != IO_DISCARD)	/* which may do nothing */
		end_versions(w, w->op == IO_FUA);
	release(w->sector, w->count);
}

static void do_read(struct worker *w)
{
	uint64_t i;
	int err;

	for (i = 0; i < w->count; i++)
		w->from[i] = __atomic_load_n(&ended[w->sector + i],
					     __ATOMIC_ACQUIRE);
	err = submit(w);
	if (err)
		failed(w, err);
	for (i = 0; i < w->count; i++) {
		uint64_t s = w->sector + i;
		uint32_t to = __atomic_load_n(&begun[s], __ATOMIC_ACQUIRE);
		const char *why = wrong((uint64_t *)(w->buf + i * SECTOR), s,
					w->from[i], to);

		/* a write at the same time: a page is copied by halves */
		check(!why || (to != w->from[i] && strstr(why, "torn")),
		      "read: %s", why);
	}
}

static void do_flush(struct worker *w)
{
	uint32_t *was = malloc(disk->sectors * sizeof(*was));
	uint64_t s;
	int err;

	check(was, "no memory");
	for (s = 0; s < disk->sectors; s++)
		was[s] = __atomic_load_n(&ended[s], __ATOMIC_ACQUIRE);
	w->sector = w->count = 0;
	err = submit(w);
	if (err)
		failed(w, err);
	pthread_mutex_lock(&lock);
	for (s = 0; !err && s < disk->sectors; s++)
		if (was[s] > safe[s])
			safe[s] = was[s];
	pthread_mutex_unlock(&lock);
	free(was);
}

/* Where and how much: often the same few blocks, often whole ones. */
static void choose_range(struct worker *w)
{
	struct rng *r = &w->rng;
	uint64_t blocks = (disk->sectors + opt.bs - 1) / opt.bs;
	uint64_t hot = blocks < 8 ? blocks : blocks / 8;
	uint64_t max = MAX_IO / SECTOR;

	w->sector = rng_below(r, rng_chance(r, 50) ? hot : blocks) * opt.bs;
	if (rng_chance(r, 40)) {		/* whole blocks */
		w->count = opt.bs * (1 + rng_below(r, rng_chance(r, 80) ? 3 :
						      40));
	} else {
		w->sector += rng_below(r, opt.bs);
		w->count = 1 + rng_below(r, rng_chance(r, 70) ? 8 :
					    2 * opt.bs + 8);
	}
	if (w->sector >= disk->sectors)
		w->sector = disk->sectors - 1;
	if (w->count > disk->sectors - w->sector)
		w->count = disk->sectors - w->sector;
	if (w->count > max)
		w->count = max;
}

static void one_op(struct worker *w)
{
	unsigned int p = rng_below(&w->rng, 100);

	choose_range(w);
	w->op = p < 42 ? IO_READ : p < 80 ? IO_WRITE : p < 85 ? IO_FUA :
		p < 90 ? IO_FLUSH : p < 94 ? IO_DISCARD : IO_ZERO;
	if (w->op == IO_READ)
		do_read(w);
	else if (w->op == IO_FLUSH)
		do_flush(w);
	else
		do_write(w);
	__atomic_add_fetch(&w->ops, 1, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		one_op(w);
	return NULL;
}

/* --- from outside ------------------------------------------------------------------ */

void contents_init(void)
{
	uint64_t s, n = disk->sectors;

	begun = calloc(n, sizeof(*begun));
	ended = calloc(n, sizeof(*ended));
	safe = calloc(n, sizeof(*safe));
	zero_kinds = calloc(n, sizeof(*zero_kinds));
	busy = calloc(n, 1);
	check(begun && ended && safe && zero_kinds && busy, "no memory");
	for (s = 0; s < n; s++)
		zero_kinds[s] = block_is_zero(s / opt.bs);
}

void contents_start(void)
{
	unsigned int i;

	stop = false;
	for (i = 0; i < opt.threads; i++) {
		struct worker *w = &workers[i];

		rng_init(&w->rng, opt.seed * 1000 + i);
		w->from = malloc(MAX_IO / SECTOR * sizeof(*w->from));
		check(w->from && !posix_memalign((void **)&w->buf, 4096, MAX_IO),
		      "no memory");
		check(!pthread_create(&w->thread, NULL, work, w), "no thread");
	}
}

bool contents_stuck(void)
{
	uint64_t now = now_ms();
	unsigned int i;

	for (i = 0; i < opt.threads; i++) {
		struct worker *w = &workers[i];
		uint64_t since = __atomic_load_n(&w->since, __ATOMIC_ACQUIRE);

		if (since && now > since + 3 * wait_limit_ms()) {
			printf("# operation %d on sectors %llu+%llu is stuck\n",
			       w->op, (unsigned long long)w->sector,
			       (unsigned long long)w->count);
			return true;
		}
	}
	return false;
}

uint64_t contents_ops(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < opt.threads; i++)
		sum += __atomic_load_n(&workers[i].ops, __ATOMIC_RELAXED);
	return sum;
}

void contents_stop(void)
{
	uint64_t end = now_ms() + 4 * wait_limit_ms();
	unsigned int i;

	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < opt.threads; i++) {
		struct timespec ts;

		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_sec += end > now_ms() ? (end - now_ms()) / 1000 + 1 : 1;
		check(!pthread_timedjoin_np(workers[i].thread, NULL, &ts),
		      "operation %d on sectors %llu+%llu does not end",
		      workers[i].op, (unsigned long long)workers[i].sector,
		      (unsigned long long)workers[i].count);
	}
}

void contents_verify(void)
{
	struct worker *w = &workers[0];

	w->op = IO_READ;
	for (w->sector = 0; w->sector < disk->sectors; w->sector += w->count) {
		w->count = MAX_IO / SECTOR;
		if (w->count > disk->sectors - w->sector)
			w->count = disk->sectors - w->sector;
		do_read(w);
	}
}
