// SPDX-License-Identifier: GPL-2.0-or-later
#include "load.h"
#include "die.h"
#include "record.h"
#include "stamp.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_BLOCKS_WHOLE 4	/* written at once */

struct run {
	const struct load *load;
	struct load_result result;
	/* Held for writing by who has the disk for itself. */
	pthread_rwlock_t disk;
	/* Guards all below, and the order of the record. */
	pthread_mutex_t lock;
	int record;
	uint64_t version, ops, marks;
	/* The last plain write to durable parts, and up to where a flush went. */
	uint64_t whole, flushed;
	time_t end;
};

struct worker {
	struct run *run;
	pthread_t thread;
	unsigned int nr;
	struct chance chance;
	char *buf;
};

struct extent {
	uint64_t sector, count;
};

static uint64_t chance(struct worker *w, uint64_t below)
{
	return chance_below(&w->chance, below);
}

/* --- Record --------------------------------------------------------------- */

static void add(struct run *r, struct record_entry e)
{
	record_add(r->record, &e);
}

static uint64_t issue(struct run *r, enum record_kind kind, struct extent x)
{
	uint64_t version;

	pthread_mutex_lock(&r->lock);
	version = ++r->version;
	add(r, (struct record_entry){
		.type = RECORD_ISSUE, .kind = (uint16_t)kind,
		.version = version, .sector = x.sector, .count = x.count });
	pthread_mutex_unlock(&r->lock);
	return version;
}

/* version: of a write that is durable by itself, else 0. */
static void mark_locked(struct run *r, unsigned int thread, uint64_t version)
{
	char name[24];

	snprintf(name, sizeof(name), "m%llu", (unsigned long long)r->marks);
	if (r->load->mark)
		r->load->mark(r->load->ctx, name);
	add(r, (struct record_entry){
		.type = RECORD_MARK, .thread = thread, .version = version,
		.sector = r->marks });
	r->marks++;
}

static void done(struct run *r, uint64_t version, int status, bool durable)
{
	pthread_mutex_lock(&r->lock);
	r->result.writes++;
	if (status) {
		r->result.write_errors++;
	} else {
		add(r, (struct record_entry){ .type = RECORD_DONE,
					      .version = version });
		if (durable)
			mark_locked(r, 0, version);
	}
	pthread_mutex_unlock(&r->lock);
	if (status && !r->load->errors)
		die("write %llu failed: %s", (unsigned long long)version,
		    strerror(-status));
}

/* --- Operations ----------------------------------------------------------- */

static void op_flush(struct worker *w)
{
	struct run *r = w->run;
	uint64_t upto;
	int status;

	pthread_mutex_lock(&r->lock);
	upto = r->whole;
	add(r, (struct record_entry){ .type = RECORD_FLUSH, .thread = w->nr });
	pthread_mutex_unlock(&r->lock);
	status = r->load->flush(r->load->ctx);
	pthread_mutex_lock(&r->lock);
	r->result.flushes++;
	if (status) {
		r->result.flush_errors++;
	} else {
		mark_locked(r, w->nr, 0);
		if (upto > r->flushed)
			r->flushed = upto;
	}
	pthread_mutex_unlock(&r->lock);
	if (status && !r->load->errors)
		die("flush failed: %s", strerror(-status));
}

static void do_write(struct worker *w, struct extent x, bool durable)
{
	struct run *r = w->run;
	uint64_t version = issue(r, RECORD_WRITE, x);
	int status;

	stamp_make_run(w->buf, x.sector, x.count, version);
	status = r->load->write(r->load->ctx, w->buf, x.count * SECTOR,
				x.sector * SECTOR, durable);
	done(r, version, status, durable);
}

/* A part of the lane, in its plain part or in its durable one. */
static struct extent lane_part(struct worker *w, bool durable)
{
	const struct load *l = w->run->load;
	uint64_t block = l->block_size / SECTOR;
	uint64_t lane = block / l->threads, plain = lane - lane / 4;
	uint64_t blocks = l->size / l->block_size;
	uint64_t from = durable ? plain : 0;
	uint64_t room = durable ? lane - plain : plain;
	struct extent x;

	/* A few blocks are hot. */
	blocks = chance(w, 4) ? blocks : blocks / 16 + 1;
	x.count = 1 + chance(w, room);
	x.sector = chance(w, blocks) * block + w->nr * lane + from +
		   chance(w, room - x.count + 1);
	return x;
}

static struct extent whole_blocks(struct worker *w)
{
	const struct load *l = w->run->load;
	uint64_t block = l->block_size / SECTOR;
	uint64_t blocks = l->size / l->block_size;
	uint64_t n = 1 + chance(w, MAX_BLOCKS_WHOLE);

	if (n > blocks)
		n = blocks;
	return (struct extent){ chance(w, blocks - n + 1) * block, n * block };
}

static void do_zero(struct worker *w, struct extent x)
{
	const struct load *l = w->run->load;
	bool discard = chance(w, 2);
	uint64_t version;
	int status;

	version = issue(w->run, discard ? RECORD_DISCARD : RECORD_ZERO, x);
	status = (discard ? l->discard : l->zero)(l->ctx, x.count * SECTOR,
						  x.sector * SECTOR);
	done(w->run, version, status, false);
}

/* Nobody else writes meanwhile. */
static void note_whole(struct run *r)
{
	pthread_mutex_lock(&r->lock);
	r->whole = r->version;
	pthread_mutex_unlock(&r->lock);
}

static bool whole_is_flushed(struct run *r)
{
	bool yes;

	pthread_mutex_lock(&r->lock);
	yes = r->flushed >= r->whole;
	pthread_mutex_unlock(&r->lock);
	return yes;
}

static void op_whole(struct worker *w)
{
	const struct load *l = w->run->load;

	pthread_rwlock_wrlock(&w->run->disk);
	if (chance(w, 100) < l->zero_percent)
		do_zero(w, whole_blocks(w));
	else
		do_write(w, whole_blocks(w), false);
	note_whole(w->run);
	pthread_rwlock_unlock(&w->run->disk);
}

static void op_part(struct worker *w)
{
	bool durable = chance(w, 100) < w->run->load->durable_percent;

	pthread_rwlock_rdlock(&w->run->disk);
	if (durable && !whole_is_flushed(w->run))
		op_flush(w);
	do_write(w, lane_part(w, durable), durable);
	pthread_rwlock_unlock(&w->run->disk);
}

static void one_op(struct worker *w)
{
	if (chance(w, 100) < w->run->load->flush_percent)
		op_flush(w);
	else if (chance(w, 5) == 0)
		op_whole(w);
	else
		op_part(w);
}

/* --- Threads -------------------------------------------------------------- */

static volatile sig_atomic_t stopped;

void load_stop(void)
{
	stopped = 1;
}

static bool more(struct run *r)
{
	bool yes;

	pthread_mutex_lock(&r->lock);
	yes = r->load->seconds ? time(NULL) < r->end :
				 r->ops < r->load->ops;
	r->ops++;
	pthread_mutex_unlock(&r->lock);
	return yes && !stopped;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	const struct load *l = w->run->load;

	while (more(w->run)) {
		one_op(w);
		if (l->pause_ms)
			usleep((useconds_t)chance(w, l->pause_ms * 1000 + 1));
	}
	return NULL;
}

static void worker_init(struct worker *w, struct run *r, unsigned int nr)
{
	w->run = r;
	w->nr = nr;
	chance_seed(&w->chance, r->load->seed * RECORD_THREADS + nr);
	if (posix_memalign((void **)&w->buf, 4096,
			   (size_t)MAX_BLOCKS_WHOLE * r->load->block_size))
		die("out of memory");
}

static void run_workers(struct run *r)
{
	struct worker *workers = xcalloc(r->load->threads, sizeof(*workers));
	unsigned int i;

	for (i = 0; i < r->load->threads; i++)
		worker_init(&workers[i], r, i);
	/* One alone stays in this thread: a chain of libcow belongs to it. */
	for (i = 1; i < r->load->threads; i++)
		if (pthread_create(&workers[i].thread, NULL, worker_main,
				   &workers[i]))
			die("a thread cannot be made");
	worker_main(&workers[0]);
	for (i = 1; i < r->load->threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < r->load->threads; i++)
		free(workers[i].buf);
	free(workers);
}

static void check(const struct load *l)
{
	if (!l->threads || l->threads > RECORD_THREADS)
		die("1 to %u threads", RECORD_THREADS);
	if (!l->block_size || l->block_size % SECTOR ||
	    l->block_size / SECTOR / l->threads < 4)
		die("the block is too small for %u threads", l->threads);
	if (l->size < l->block_size)
		die("the disk is smaller than a block");
}

void load_run(const struct load *load, struct load_result *result)
{
	struct run r = { .load = load };

	check(load);
	pthread_rwlock_init(&r.disk, NULL);
	pthread_mutex_init(&r.lock, NULL);
	r.record = record_create(load->record);
	r.end = time(NULL) + (time_t)load->seconds;
	/* m0: everything before the load is durable. */
	mark_locked(&r, RECORD_THREADS, 0);
	run_workers(&r);
	close(r.record);
	r.result.marks = r.marks;
	*result = r.result;
}
