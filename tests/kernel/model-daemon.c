// SPDX-License-Identifier: GPL-2.0-or-later
/* The placement policy of the model test, played at random. */
#include "model.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_RUN		64	/* blocks in an answer */
#define MAX_OWED	4096	/* blocks with a question to be answered later */
#define BATCH		64

/* Of each block: where it lives; what is given but not copied; both in slots. */
static struct where *durable, *cur, *given;	/* given: AT_PLACE or not */
static bool *pending;			/* cur is not in durable */
static uint8_t *invalidating;		/* between INVALIDATE and its event */
static uint32_t *slot_refs[NR_PLACES];	/* 0: free */
static uint32_t nr_slots;
static uint64_t nr_blocks;

/* INVALIDATEs under way: when over, a place that is no longer needed. */
struct retire {
	uint64_t id, block, count;
	struct where old;		/* AT_PLACE: free it then */
	bool move;			/* the block gets a new place then */
};

#define MAX_RETIRE 256
static struct retire retire[MAX_RETIRE];
static unsigned int nr_retire;
static uint64_t next_inval;

/* Questions that could not be answered yet. */
struct owed {
	uint64_t id, block;
	bool write;
};

static struct owed owed[MAX_OWED];
static unsigned int nr_owed;

/* Places of blocks that changed in commits, to be given back. */
struct leftover {
	uint64_t block;
	struct where old;
};

static struct leftover *leftovers;
static unsigned int nr_leftovers;

static struct chan *chan;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool die, alive, replayed;
static struct rng rng;
static struct {
	unsigned long lives, maps, copied, commits, refused, moves, invals,
		preloads, crashes, big;
} num;

bool block_is_zero(uint64_t block)
{
	return block / 7 % 3 == 1;
}

/* --- slots ------------------------------------------------------------------------- */

static uint64_t slot_sector(uint32_t slot)
{
	return PLACE_SHIFT + (uint64_t)slot * opt.bs;
}

static void ref(const struct where *w)
{
	if (w->state == AT_PLACE)
		slot_refs[w->dev][w->slot]++;
}

static void unref(const struct where *w)
{
	if (w->state != AT_PLACE)
		return;
	check(slot_refs[w->dev][w->slot], "slot %u:%u freed twice", w->dev,
	      w->slot);
	slot_refs[w->dev][w->slot]--;
}

static void set_where(struct where *w, struct where to)
{
	ref(&to);
	unref(w);
	*w = to;
}

static struct where home(uint64_t block)
{
	return (struct where){
		.state = block_is_zero(block) ? AT_ZERO : AT_BASE,
	};
}

static bool same(const struct where *x, const struct where *y)
{
	return x->state == y->state &&
	       (x->state != AT_PLACE || (x->dev == y->dev && x->slot == y->slot));
}

static bool at(const struct where *w, uint32_t dev, uint32_t slot)
{
	return w->state == AT_PLACE && w->dev == dev && w->slot == slot;
}

/* A free slot, preferably with free ones behind it. */
static bool find_slot(uint32_t *dev, uint32_t *slot)
{
	unsigned int tries, d;
	uint32_t i, start;

	for (tries = 0; tries < 2; tries++) {
		d = rng_below(&rng, NR_PLACES);
		start = rng_below(&rng, nr_slots);
		for (i = 0; i < nr_slots; i++) {
			uint32_t s = (start + i) % nr_slots;

			if (slot_refs[d][s])
				continue;
			*dev = d;
			*slot = s;
			return true;
		}
	}
	return false;
}

/* --- crash: what the devices and the durable metadata say ------------------------------ */

static const void *durable_data(uint64_t sector, uint64_t *buf)
{
	uint64_t block = sector / opt.bs;
	struct where *w = &durable[block];

	switch (w->state) {
	case AT_PLACE:
		return places[w->dev]->data +
		       (slot_sector(w->slot) + sector % opt.bs) * SECTOR;
	case AT_BASE:
		return base_dev->data + (BASE_SHIFT + sector) * SECTOR;
	default:
		memset(buf, 0, SECTOR);
		return buf;
	}
}

/* A sector that is being written may be seen half done: look again. */
static void crash_sector(uint64_t sector, uint32_t floor)
{
	uint64_t zero[SECTOR / 8];
	const void *p = durable_data(sector, zero);
	const char *why = NULL;
	int i;

	for (i = 0; i < 50; i++) {
		why = durable_wrong(p, sector, floor);
		if (!why)
			return;
		sleep_ms(2);
	}
	fail("after a crash: %s; block at %s %u:%u", why,
	     durable[sector / opt.bs].state == AT_PLACE ? "place" : "base",
	     durable[sector / opt.bs].dev, durable[sector / opt.bs].slot);
}

/* The lock stops commits and keeps places from being used anew. */
void crash_check(void)
{
	uint32_t *floor = malloc(disk->sectors * sizeof(*floor));
	uint64_t s;

	check(floor, "no memory");
	pthread_mutex_lock(&lock);
	durable_begin(floor);
	for (s = 0; s < disk->sectors; s++)
		crash_sector(s, floor[s]);
	num.crashes++;
	pthread_mutex_unlock(&lock);
	free(floor);
}

/* --- answers ------------------------------------------------------------------------------ */

static struct dmu_reply reply_base(uint64_t id, uint64_t block, uint64_t count)
{
	return (struct dmu_reply){
		.type = id ? DMU_RE_MAP : DMU_RE_PRELOAD, .id = id,
		.block = block, .count = count,
	};
}

static void maybe_remember(struct dmu_reply *r)
{
	if (r->type == DMU_RE_MAP && rng_chance(&rng, 80))
		r->flags |= DMU_RE_REMEMBER;
}

static bool settled(uint64_t block)
{
	return block < nr_blocks && !invalidating[block] &&
	       given[block].state != AT_PLACE;
}

/* A run of blocks that live side by side, for reading, or writing in place. */
static int answer_linear(uint64_t id, uint64_t block, uint64_t max)
{
	struct where w = cur[block];
	struct dmu_reply r;
	uint64_t n = 1;

	if (w.state == AT_PLACE) {
		while (n < max && settled(block + n) &&
		       at(&cur[block + n], w.dev, w.slot + n))
			n++;
	} else {
		while (n < max && settled(block + n) &&
		       cur[block + n].state == w.state)
			n++;
	}
	r = reply_base(id, block, n);
	maybe_remember(&r);
	if (w.state == AT_ZERO) {
		r.kind = DMU_KIND_ZERO;
	} else {
		r.kind = DMU_KIND_LINEAR;
		r.dev = w.state == AT_PLACE ? w.dev : BASE_DEV;
		r.sector = w.state == AT_PLACE ? slot_sector(w.slot) :
						 BASE_SHIFT + block * opt.bs;
		if (w.state == AT_PLACE)
			r.flags |= DMU_RE_WRITABLE;
	}
	if (rng_chance(&rng, 2))
		r.flags |= DMU_RE_METADATA;
	return re_try(chan, &r);
}

/* Does the copy source of @block, if it is OLD, continue that of @first? */
static bool source_goes_on(uint64_t first, uint64_t block)
{
	struct where *f = &cur[first], *w = &cur[block];

	if (f->state != AT_PLACE)
		return w->state == f->state;
	return at(w, f->dev, f->slot + (block - first));
}

/*
 * How far a COW extent from @block, with its first block at @to, can go, and
 * which blocks of it are there already.
 */
static uint64_t cow_extent(uint64_t block, struct where to, uint64_t max,
			   uint64_t *bits)
{
	uint64_t n;

	for (n = 0; n < max && block + n < nr_blocks; n++) {
		uint64_t b = block + n;
		uint32_t slot = to.slot + n;

		if (slot >= nr_slots || (n && !settled(b)))
			break;
		if (n && at(&cur[b], to.dev, slot)) {
			bits[n / 64] |= 1ULL << n % 64;
			continue;
		}
		if (slot_refs[to.dev][slot])
			break;
		if (n && (pending[b] || !source_goes_on(block, b)))
			break;
	}
	return n;
}

static void give(uint64_t block, uint64_t n, struct where to, const uint64_t *bits)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		if (!(bits[i / 64] >> i % 64 & 1))
			set_where(&given[block + i],
				  (struct where){ AT_PLACE, to.dev, to.slot + i });
}

/* Delegate the copying of @block, which is OLD, and of some behind it. */
static int answer_cow(uint64_t id, uint64_t block, uint64_t max)
{
	uint64_t bits[MAX_RUN / 64 + 1] = { 0 }, n;
	struct where to = { .state = AT_PLACE }, src = cur[block];
	struct dmu_reply r;
	uint32_t dev;
	int err;

	if (!find_slot(&dev, &to.slot))
		fail("no slot is free: the model leaks them");
	to.dev = dev;
	n = cow_extent(block, to, max, bits);
	r = reply_base(id, block, n);
	r.kind = DMU_KIND_COW;
	r.dev = dev;
	r.sector = slot_sector(to.slot);
	r.src_dev = src.state == AT_PLACE ? src.dev :
		    src.state == AT_BASE ? BASE_DEV : DMU_DEV_NONE;
	r.src_sector = src.state == AT_PLACE ? slot_sector(src.slot) :
		       src.state == AT_BASE ? BASE_SHIFT + block * opt.bs : 0;
	maybe_remember(&r);
	if (bits[0] || bits[1] || rng_chance(&rng, 10))
		err = re_try_bitmap(chan, r, bits);
	else
		err = re_try(chan, &r);
	if (!err)
		give(block, n, to, bits);
	return err;
}

static uint64_t some_run(void)
{
	return rng_chance(&rng, 40) ? 1 : 1 + rng_below(&rng, MAX_RUN);
}

static int answer_some(uint64_t id, uint64_t block, bool write, uint64_t max,
		       bool move)
{
	if (!move && cur[block].state == AT_PLACE)
		return answer_linear(id, block, max);
	if (!move && !write && rng_chance(&rng, 50))
		return answer_linear(id, block, max);
	return answer_cow(id, block, max);
}

/*
 * An answer for @block and maybe some behind it, asked (@id) or not.  What was
 * given before and is asked for again has left the kernel's map uncopied; if
 * the answer is refused, it has not.
 */
static int answer(uint64_t id, uint64_t block, bool write, uint64_t max)
{
	struct where old = given[block];
	bool move = old.state == AT_PLACE && cur[block].state == AT_PLACE;
	int err;

	ref(&old);
	set_where(&given[block], (struct where){ 0 });
	err = answer_some(id, block, write, max, move);
	if (err)
		set_where(&given[block], old);
	unref(&old);
	return err;
}

static void push_owed(uint64_t id, uint64_t block, bool write)
{
	check(nr_owed < MAX_OWED, "too many questions are owed");
	owed[nr_owed++] = (struct owed){ id, block, write };
}

/* @block of question @id; what cannot be answered now is kept. */
static void answer_block(uint64_t id, uint64_t block, bool write)
{
	uint64_t max = some_run();
	int err;

	if (invalidating[block]) {
		push_owed(id, block, write);
		return;
	}
	err = answer(id, block, write, max);
	if (err == EEXIST && max > 1)
		err = answer(id, block, write, 1);
	switch (err) {
	case 0:
		num.maps++;
		break;
	case ENOENT:			/* by an answer to another one */
		break;
	case E2BIG:			/* full of uncommitted extents */
		num.big++;
		re_send(chan, re_commit());
		push_owed(id, block, write);
		break;
	case ENOMEM:
	case EBUSY:
		push_owed(id, block, write);
		break;
	default:
		fail("answer for block %llu (%s, lives at %u %u:%u, pending %d): %s",
		     (unsigned long long)block, write ? "write" : "read",
		     cur[block].state, cur[block].dev, cur[block].slot,
		     pending[block], strerror(err));
	}
}

static void answer_owed(void)
{
	struct owed list[MAX_OWED];
	unsigned int i, n = nr_owed;

	memcpy(list, owed, n * sizeof(*list));
	nr_owed = 0;
	for (i = 0; i < n; i++)
		answer_block(list[i].id, list[i].block, list[i].write);
}

/* In any order, some of them later. */
static void on_map(const struct dmu_event *ev)
{
	uint64_t b, n;

	for (n = 0; n < ev->count; n++) {
		b = ev->block + n;
		check(b < nr_blocks, "a question behind the end");
		if (rng_chance(&rng, 10))
			push_owed(ev->id, b, ev->flags & DMU_EV_WRITE);
		else
			answer_block(ev->id, b, ev->flags & DMU_EV_WRITE);
	}
}

/* --- commits ------------------------------------------------------------------------------ */

static void copied(uint64_t block, struct where to)
{
	check(block < nr_blocks && to.slot < nr_slots, "COPIED out of range");
	if (same(&cur[block], &to))
		return;
	if (replayed)
		check(same(&given[block], &to),
		      "COPIED of block %llu at %u:%u, which was not given",
		      (unsigned long long)block, to.dev, to.slot);
	else
		check(!slot_refs[to.dev][to.slot],
		      "replay: block %llu stands at %u:%u, which is in use",
		      (unsigned long long)block, to.dev, to.slot);
	set_where(&cur[block], to);
	set_where(&given[block], (struct where){ 0 });
	pending[block] = true;
	num.copied++;
}

static void on_copied(const struct dmu_event *ev)
{
	uint64_t i, at = ev->sector - PLACE_SHIFT;

	check(ev->dev < NR_PLACES && ev->sector >= PLACE_SHIFT &&
	      at % opt.bs == 0, "COPIED at %u:%llu", ev->dev,
	      (unsigned long long)ev->sector);
	for (i = 0; i < ev->count; i++)
		copied(ev->block + i, (struct where){ AT_PLACE, ev->dev,
						      at / opt.bs + i });
}

/* The metadata changes all at once. */
static void commit(void)
{
	uint64_t b;

	for (b = 0; b < nr_blocks; b++) {
		if (!pending[b])
			continue;
		pending[b] = false;
		if (durable[b].state == AT_PLACE &&
		    !same(&durable[b], &cur[b])) {
			ref(&durable[b]);	/* until no read is there */
			leftovers[nr_leftovers++] =
				(struct leftover){ b, durable[b] };
		}
		set_where(&durable[b], cur[b]);
	}
}

static void on_flush(uint64_t id)
{
	if (rng_chance(&rng, 3)) {
		__atomic_add_fetch(&num.refused, 1, __ATOMIC_RELEASE);
		re_send(chan, re_flushed(id, ENOSPC == EIO ? EIO : EIO));
		return;
	}
	commit();
	num.commits++;
	if (rng_chance(&rng, 5))
		sleep_ms(rng_below(&rng, 20));
	re_send(chan, re_flushed(id, 0));
}

/* --- invalidation and moves --------------------------------------------------------------- */

static bool invalidate(uint64_t block, uint64_t count, struct where old, bool move)
{
	struct dmu_reply r = re_invalidate(++next_inval, block, count);
	uint64_t b;
	int err;

	if (nr_retire == MAX_RETIRE)
		return false;
	err = re_try(chan, &r);
	check(!err || err == ENOMEM, "INVALIDATE: %s", strerror(err));
	if (err)
		return false;
	retire[nr_retire++] = (struct retire){ r.id, block, count, old, move };
	for (b = block; b < block + count; b++)
		invalidating[b]++;
	num.invals++;
	return true;
}

/* All that was copied there has been told: what is given only, is free. */
static void invalidated(uint64_t block, bool move)
{
	invalidating[block]--;
	set_where(&given[block], (struct where){ 0 });
	if (move && cur[block].state == AT_PLACE && !pending[block] &&
	    !invalidating[block]) {
		struct where to = { .state = AT_PLACE };
		uint32_t dev;

		if (!find_slot(&dev, &to.slot))
			return;
		to.dev = dev;		/* marks it; the place comes later */
		set_where(&given[block], to);
		num.moves++;
	}
}

static void on_invalidated(const struct dmu_event *ev)
{
	unsigned int i;
	uint64_t b;

	for (i = 0; i < nr_retire && retire[i].id != ev->id; i++)
		;
	check(i < nr_retire, "INVALIDATED %llu was not asked for",
	      (unsigned long long)ev->id);
	check(ev->block == retire[i].block && ev->count == retire[i].count,
	      "INVALIDATED of another extent");
	for (b = ev->block; b < ev->block + ev->count; b++)
		invalidated(b, retire[i].move);
	unref(&retire[i].old);
	retire[i] = retire[--nr_retire];
}

static void retire_leftovers(void)
{
	while (nr_leftovers && nr_retire < MAX_RETIRE) {
		struct leftover *l = &leftovers[nr_leftovers - 1];

		if (!invalidate(l->block, 1, l->old, false))
			return;
		nr_leftovers--;
	}
}

static void random_acts(void)
{
	uint64_t block = rng_below(&rng, nr_blocks), n = some_run();
	int err;

	if (n > nr_blocks - block)
		n = nr_blocks - block;
	if (rng_chance(&rng, 20))
		invalidate(block, n, (struct where){ 0 }, rng_chance(&rng, 70));
	if (rng_chance(&rng, 3))
		re_send(chan, re_commit());
	block = rng_below(&rng, nr_blocks);
	if (rng_chance(&rng, 30) && settled(block) && nr_leftovers < 100) {
		err = answer(0, block, rng_chance(&rng, 50), n);
		check(!err || err == EEXIST || err == E2BIG || err == ENOMEM ||
		      err == EBUSY, "PRELOAD: %s", strerror(err));
		num.preloads += !err;
	}
}

/* --- life and death ----------------------------------------------------------------------- */

static bool dying(void)
{
	return __atomic_load_n(&die, __ATOMIC_ACQUIRE);
}

static void on_event(const struct dmu_event *ev)
{
	switch (ev->type) {
	case DMU_EV_MAP:
		check(replayed, "a question before REPLAY_END");
		on_map(ev);
		break;
	case DMU_EV_COPIED:
		on_copied(ev);
		break;
	case DMU_EV_FLUSH:
		on_flush(ev->id);
		break;
	case DMU_EV_INVALIDATED:
		on_invalidated(ev);
		break;
	case DMU_EV_REPLAY_END:
		replayed = true;
		break;
	default:
		fail("event %u, with no feature agreed", ev->type);
	}
}

static void live_once(void)
{
	struct dmu_event ev[BATCH];
	struct pollfd p = { .fd = chan->fd, .events = POLLIN };
	ssize_t n;
	size_t i;

	poll(&p, 1, 5);
	n = read(chan->fd, ev, (1 + rng_below(&rng, BATCH)) * sizeof(*ev));
	check(n >= 0 || errno == EAGAIN, "read: %s", strerror(errno));
	pthread_mutex_lock(&lock);
	for (i = 0; n > 0 && i < n / sizeof(*ev); i++) {
		if (rng_chance(&rng, 1) && dying())
			break;
		on_event(&ev[i]);
	}
	if (replayed && !dying()) {
		answer_owed();
		retire_leftovers();
		if (rng_chance(&rng, 25))
			random_acts();
	}
	pthread_mutex_unlock(&lock);
	if (rng_chance(&rng, 5))
		sleep_ms(rng_below(&rng, 10));
}

static void *live(void *arg)
{
	while (!dying())
		live_once();
	return NULL;
}

/* Nothing is known but the metadata. */
static void forget(void)
{
	uint64_t b;
	unsigned int i;

	for (i = 0; i < NR_PLACES; i++)
		memset(slot_refs[i], 0, nr_slots * sizeof(**slot_refs));
	for (b = 0; b < nr_blocks; b++) {
		ref(&durable[b]);
		cur[b] = durable[b];
		ref(&cur[b]);
		given[b] = (struct where){ 0 };
		pending[b] = false;
		invalidating[b] = 0;
	}
	nr_retire = nr_owed = nr_leftovers = 0;
	replayed = false;
}

void daemon_init(void)
{
	uint64_t b;
	unsigned int i;

	rng_init(&rng, opt.seed ^ 0xdae);
	nr_blocks = (disk->sectors + opt.bs - 1) / opt.bs;
	nr_slots = (places[0]->sectors - PLACE_SHIFT) / opt.bs;
	durable = calloc(nr_blocks, sizeof(*durable));
	cur = calloc(nr_blocks, sizeof(*cur));
	given = calloc(nr_blocks, sizeof(*given));
	pending = calloc(nr_blocks, sizeof(*pending));
	invalidating = calloc(nr_blocks, sizeof(*invalidating));
	leftovers = calloc(NR_PLACES * nr_slots + nr_blocks, sizeof(*leftovers));
	check(durable && cur && given && pending && invalidating && leftovers,
	      "no memory");
	for (i = 0; i < NR_PLACES; i++) {
		slot_refs[i] = calloc(nr_slots, sizeof(**slot_refs));
		check(slot_refs[i], "no memory");
	}
	for (b = 0; b < nr_blocks; b++)
		durable[b] = home(b);
}

void daemon_start(void)
{
	pthread_mutex_lock(&lock);
	forget();
	die = false;
	chan = chan_raw(disk, 0);
	num.lives++;
	alive = true;
	pthread_mutex_unlock(&lock);
	check(!pthread_create(&thread, NULL, live, NULL), "no thread");
}

void daemon_kill(void)
{
	__atomic_store_n(&die, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	chan_close(chan);
	chan = NULL;
	alive = false;
}

bool daemon_alive(void)
{
	return alive;
}

void daemon_lock(void)
{
	pthread_mutex_lock(&lock);
}

void daemon_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void daemon_numbers(void)
{
	printf("# daemons %lu, answers %lu, unasked %lu, copied %lu, commits %lu (%lu refused), invalidations %lu, moves %lu, crash checks %lu, too big %lu\n",
	       num.lives, num.maps, num.preloads, num.copied, num.commits,
	       num.refused, num.invals, num.moves, num.crashes, num.big);
}

unsigned long daemon_refused(void)
{
	return __atomic_load_n(&num.refused, __ATOMIC_ACQUIRE);
}

void daemon_worked(void)
{
	check(num.maps && num.copied && num.commits && num.crashes,
	      "%lu answers, %lu copied, %lu commits, %lu crash checks",
	      num.maps, num.copied, num.commits, num.crashes);
}
