// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The core against a kernel, a libcow and a clock that are all played here: read()
 * and write() of the channel are taken over by the linker's --wrap, and the
 * few functions of libcow that the core calls are below.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <dmu.h>
#include <libcow/cow.h>

#include "serve.h"

#define MAX_EVENTS	6000
#define MAX_REPLIES	20000
#define MAX_REQUESTS	512
#define NR_BLOCKS	6000

/* ---- memory ------------------------------------------------------------- */

static unsigned int nr_allocated;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	nr_allocated++;
	return __real_calloc(n, size);
}

/* ---- the kernel --------------------------------------------------------- */

static struct {
	int fd;
	struct dmu_event events[MAX_EVENTS];
	unsigned int nr_events, nr_read;
	struct dmu_reply replies[MAX_REPLIES];
	unsigned int nr_replies;
	/* Refuse replies of this type while it says so. */
	uint32_t bad_type;
	uint64_t more_than;	/* blocks; extents that are larger */
	uint64_t bad_id;	/* only replies with it, unless 0 */
	int error, times;
	int64_t now;		/* ms */
	uint64_t last_flush;	/* id */
	bool no_flush;		/* the test sends FLUSH itself */
} kernel;

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	(void)clock;
	ts->tv_sec = kernel.now / 1000;
	ts->tv_nsec = kernel.now % 1000 * 1000000;
	return 0;
}

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);

static bool refuses(const struct dmu_reply *reply)
{
	return kernel.times && reply->type == kernel.bad_type &&
	       reply->count > kernel.more_than &&
	       (!kernel.bad_id || reply->id == kernel.bad_id);
}

static void event(uint32_t type, uint32_t flags, uint64_t id, uint64_t block,
		  uint64_t count);

/* As the kernel does it: one round for all that wait. */
static void flush_wanted(void)
{
	unsigned int i;

	for (i = kernel.nr_read; i < kernel.nr_events; i++)
		if (kernel.events[i].type == DMU_EV_FLUSH)
			return;
	event(DMU_EV_FLUSH, 0, ++kernel.last_flush, 0, 0);
}

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	struct dmu_reply reply;
	size_t pos = 0;

	if (fd != kernel.fd)
		return __real_write(fd, buf, len);
	while (pos < len) {
		memcpy(&reply, (const char *)buf + pos, sizeof(reply));
		if (refuses(&reply)) {
			if (pos)
				return (ssize_t)pos;
			kernel.times--;
			errno = kernel.error;
			return -1;
		}
		assert_true(kernel.nr_replies < MAX_REPLIES);
		kernel.replies[kernel.nr_replies++] = reply;
		if (reply.type == DMU_RE_COMMIT && reply.flags & DMU_RE_METADATA &&
		    !kernel.no_flush)
			flush_wanted();
		pos += sizeof(reply) + reply.bitmap_len;
	}
	return (ssize_t)len;
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	unsigned int n = kernel.nr_events - kernel.nr_read;

	if (fd != kernel.fd)
		return __real_read(fd, buf, len);
	if (!n) {
		errno = EAGAIN;
		return -1;
	}
	if (n > len / sizeof(struct dmu_event))
		n = (unsigned int)(len / sizeof(struct dmu_event));
	memcpy(buf, &kernel.events[kernel.nr_read], n * sizeof(struct dmu_event));
	kernel.nr_read += n;
	return (ssize_t)(n * sizeof(struct dmu_event));
}

static void event(uint32_t type, uint32_t flags, uint64_t id, uint64_t block,
		  uint64_t count)
{
	assert_true(kernel.nr_events < MAX_EVENTS);
	kernel.events[kernel.nr_events++] = (struct dmu_event){
		.type = type, .flags = flags, .id = id, .block = block,
		.count = count,
	};
}

/* How many answers to MAP said where @block lives. */
static unsigned int replied_about(uint64_t block)
{
	unsigned int i, n = 0;

	for (i = 0; i < kernel.nr_replies; i++)
		n += kernel.replies[i].type == DMU_RE_MAP &&
		     block - kernel.replies[i].block < kernel.replies[i].count;
	return n;
}

/* How many replies of @type with @id there were; @last is the last. */
static unsigned int replied(uint32_t type, uint64_t id, struct dmu_reply *last)
{
	unsigned int i, n = 0;

	for (i = 0; i < kernel.nr_replies; i++) {
		if (kernel.replies[i].type != type || kernel.replies[i].id != id)
			continue;
		n++;
		if (last)
			*last = kernel.replies[i];
	}
	return n;
}

/* ---- libcow ------------------------------------------------------------- */

static struct {
	bool at_once;		/* answer MAP within cow_submit() */
	uint64_t widest;	/* blocks of an answer, 0: as the limits say */
	unsigned int narrow;	/* so many answers are that wide, 0: all */
	uint32_t flags;		/* of answers */
	int map_status, commit_status, discard_status, copied_status;
	bool held, sync_fails;
	uint64_t failed_syncs;
	struct cow_request *requests[MAX_REQUESTS];	/* not done yet */
	unsigned int nr_requests, nr_maps;
	unsigned int nr_discards, nr_commits;
	struct dmu_extent scratch;	/* that is full */
	unsigned int nr_emptied;
} cow;

static uint8_t bits[NR_BLOCKS / 8 + 1];

/* A COW extent as wide as it may be: block n at sector 8 n of file 0. */
static void answer_map(struct cow_request *req)
{
	uint64_t first = req->limit_first, end = req->limit_end;

	if (cow.widest) {
		first = req->first;
		end = first + cow.widest < end ? first + cow.widest : end;
	}
	assert_true(first <= req->first && req->first < end);
	req->answer = (struct cow_answer){
		.kind = COW_KIND_COW,	.first = first,
		.count = end - first,	.offset = first * 4096,
		.src_file = 1,		.src_offset = first * 4096,
		.copied = bits,		.flags = cow.flags,
	};
	if (cow.narrow && !--cow.narrow)
		cow.widest = 0;
	req->done(req, cow.map_status);
}

static void complete(struct cow_request *req)
{
	if (req->op == COW_OP_COMMIT) {
		cow.held = cow.sync_fails;
		cow.failed_syncs += cow.sync_fails;
	}
	if (req->op == COW_OP_MAP)
		answer_map(req);
	else
		req->done(req, req->op == COW_OP_COMMIT ? cow.commit_status :
			       req->op == COW_OP_COPIED ? cow.copied_status :
							  cow.discard_status);
}

void cow_submit(struct cow_chain *chain, struct cow_request *req)
{
	(void)chain;
	cow.nr_maps += req->op == COW_OP_MAP;
	cow.nr_discards += req->op == COW_OP_DISCARD;
	cow.nr_commits += req->op == COW_OP_COMMIT;
	if (req->op == COW_OP_COMMIT)
		assert_true(req->flags & COW_REQ_DATA_DURABLE);
	if (cow.at_once && req->op == COW_OP_MAP) {
		answer_map(req);
		return;
	}
	assert_true(cow.nr_requests < MAX_REQUESTS);
	cow.requests[cow.nr_requests++] = req;
}

/* Only here: completions that come later, on the test's word. */
static bool may_complete;

int cow_dispatch(struct cow_chain *chain)
{
	struct cow_request *list[MAX_REQUESTS];
	unsigned int i, n = cow.nr_requests;

	(void)chain;
	if (!may_complete)
		return 0;
	memcpy(list, cow.requests, sizeof(list));
	cow.nr_requests = 0;
	for (i = 0; i < n; i++)
		complete(list[i]);
	return (int)n;
}

void cow_hold_commits(struct cow_chain *chain)
{
	(void)chain;
	cow.held = true;
}

uint64_t cow_failed_syncs(const struct cow_chain *chain)
{
	(void)chain;
	return cow.failed_syncs;
}

bool cow_scratch_full(struct cow_chain *chain, uint64_t *first, uint64_t *count)
{
	(void)chain;
	*first = cow.scratch.block;
	*count = cow.scratch.count;
	return *count;
}

int cow_scratch_empty(struct cow_chain *chain, uint64_t first, uint64_t count)
{
	(void)chain;
	assert_int_equal(first, cow.scratch.block);
	assert_int_equal(count, cow.scratch.count);
	cow.scratch.count = 0;
	cow.nr_emptied++;
	return 0;
}

void cow_chain_info(const struct cow_chain *chain, struct cow_chain_info *info)
{
	(void)chain;
	*info = (struct cow_chain_info){
		.size = NR_BLOCKS * 4096,	.block_size = 4096,
		.nr_blocks = NR_BLOCKS,		.nr_files = 2,
		.writable = true,		.can_discard = true,
		.can_write_zeroes = true,
	};
}

/* ---- tests -------------------------------------------------------------- */

static int start(void **state)
{
	struct cowd_serve *serve;
	int err;

	memset(&kernel, 0, sizeof(kernel));
	memset(&cow, 0, sizeof(cow));
	cow.at_once = true;
	may_complete = true;
	kernel.fd = open("/dev/null", O_RDWR);
	kernel.now = 1000;
	err = cowd_serve_new(NULL, kernel.fd, &serve);
	*state = serve;
	return err;
}

static int stop(void **state)
{
	kernel.fd = -1;
	cowd_serve_free(*state);
	return 0;
}

static void work(struct cowd_serve *serve)
{
	assert_int_equal(cowd_serve_work(serve, true), 0);
}

/* As the worker does it: until something comes, or the time that the core says. */
static void pass_time(struct cowd_serve *serve)
{
	int ms = cowd_serve_timeout(serve);

	if (kernel.nr_read == kernel.nr_events && ms > 0)
		kernel.now += ms;
}

/* Work until all that was begun is answered. */
static void work_out(struct cowd_serve *serve)
{
	struct cowd_serve_stats stats;
	int i;

	for (i = 0; i < 1000; i++) {
		work(serve);
		cowd_serve_stats(serve, &stats);
		if (!stats.in_flight && kernel.nr_read == kernel.nr_events)
			return;
		pass_time(serve);
	}
	fail_msg("%llu questions are never answered",
		 (unsigned long long)stats.in_flight);
}

static void question_is_answered_once(void **state)
{
	struct dmu_reply reply;

	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 10, 3);
	work_out(*state);
	assert_int_equal(kernel.nr_replies, 1);
	assert_int_equal(replied(DMU_RE_MAP, 7, &reply), 1);
	assert_int_equal(reply.kind, DMU_KIND_COW);
	assert_int_equal(reply.flags, DMU_RE_REMEMBER);
	assert_int_equal(reply.count, NR_BLOCKS);
	assert_int_equal(reply.bitmap_len, DMU_BITMAP_LEN(NR_BLOCKS));
	assert_int_equal(reply.src_dev, 1);
}

/* The least that there is to do, and by far the most often: no look at 256 slots. */
static void question_alone_costs_few_looks(void **state)
{
	struct cowd_serve_stats stats;

	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 10, 3);
	work_out(*state);
	cowd_serve_stats(*state, &stats);
	assert_int_equal(replied(DMU_RE_MAP, 7, NULL), 1);
	assert_in_range(stats.looked_at, 1, 8);
}

/* The slots in use lie together again when those before them were freed. */
static void freed_slots_are_taken_again(void **state)
{
	struct cowd_serve_stats before, after;
	unsigned int i;

	cow.at_once = false;
	for (i = 0; i < 64; i++)
		event(DMU_EV_MAP, 0, i + 1, i, 1);
	work(*state);
	work_out(*state);
	for (i = 0; i < 64; i++)
		assert_true(replied_about(i));
	cowd_serve_stats(*state, &before);
	event(DMU_EV_MAP, 0, 100, 100, 1);
	work_out(*state);
	cowd_serve_stats(*state, &after);
	assert_in_range(after.looked_at - before.looked_at, 1, 8);
}

/* An answer that comes too late for its own question covers no other one. */
static void late_answer_covers_nothing(void **state)
{
	event(DMU_EV_MAP, DMU_EV_WRITE, 1, 10, 1);
	event(DMU_EV_MAP, DMU_EV_WRITE, 2, 11, 1);
	kernel.bad_type = DMU_RE_MAP;
	kernel.bad_id = 1;
	kernel.error = ENOENT;
	kernel.times = 1;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 1, NULL), 0);
	assert_int_equal(replied(DMU_RE_MAP, 2, NULL), 1);
}

/* The rest of a question is covered, the answer to its beginning refused: all is asked again. */
static void refused_beginning_is_not_covered(void **state)
{
	struct dmu_reply reply;

	cow.widest = 1;
	cow.narrow = 1;
	event(DMU_EV_MAP, DMU_EV_WRITE, 1, 10, 2);
	event(DMU_EV_MAP, DMU_EV_WRITE, 2, 12, 1);
	kernel.bad_type = DMU_RE_MAP;
	kernel.bad_id = 1;
	kernel.error = EEXIST;
	kernel.times = 1;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 1, &reply), 1);
	assert_true(reply.block <= 10);
}

/* The kernel hears that metadata changed, if not by the answer that did it. */
static void late_answer_with_metadata_asks_for_a_commit(void **state)
{
	struct dmu_reply reply;

	cow.flags = COW_MAPPING_DIRTY;
	event(DMU_EV_MAP, DMU_EV_WRITE, 1, 10, 1);
	kernel.bad_type = DMU_RE_MAP;
	kernel.error = ENOENT;
	kernel.times = 1;
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 1, NULL), 0);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, &reply), 1);
	assert_int_equal(reply.flags, DMU_RE_METADATA);
}

/* S6 */
static void question_waits_for_the_replay(void **state)
{
	may_complete = false;
	event(DMU_EV_COPIED, 0, 0, 120, 1);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	event(DMU_EV_MAP, DMU_EV_WRITE, 4, 10, 1);
	work(*state);
	work(*state);
	assert_int_equal(cow.nr_maps, 0);
	assert_false(cowd_serve_wants_events(*state));
	may_complete = true;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

static void answer_avoids_what_was_copied(void **state)
{
	struct dmu_reply reply;

	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work(*state);
	may_complete = false;
	event(DMU_EV_COPIED, 0, 0, 120, 1);
	event(DMU_EV_MAP, 0, 4, 120, 1);
	event(DMU_EV_MAP, 0, 5, 10, 1);
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 0);
	assert_int_equal(replied(DMU_RE_MAP, 5, &reply), 1);
	assert_int_equal(reply.block + reply.count, 120);
	may_complete = true;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

/* The question 4, of block 10: libcow has not answered it yet. */
static void question_on_its_way(struct cowd_serve *serve)
{
	cow.at_once = false;
	may_complete = false;
	event(DMU_EV_MAP, 0, 4, 10, 1);
	work(serve);
}

/* Also when the change is through before the answer is there. */
static void answer_from_before_a_copy_is_not_given(void **state)
{
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work(*state);
	question_on_its_way(*state);
	event(DMU_EV_COPIED, 0, 0, 120, 1);
	work(*state);
	may_complete = true;
	work_out(*state);
	assert_int_equal(cow.nr_maps, 2);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

static void one_answer_covers_the_batch(void **state)
{
	uint64_t id;

	for (id = 1; id <= 50; id++)
		event(DMU_EV_MAP, id % 2 ? DMU_EV_WRITE : 0, id, id, 2);
	work_out(*state);
	assert_int_equal(kernel.nr_replies, 1);
	assert_int_equal(cow.nr_maps, 1);
}

static void pending_questions_are_covered_too(void **state)
{
	uint64_t id;

	cow.at_once = false;
	for (id = 1; id <= 50; id++)
		event(DMU_EV_MAP, 0, id, id, 1);
	work_out(*state);
	assert_int_equal(kernel.nr_replies, 1);
}

static void long_question_gets_several_answers(void **state)
{
	struct dmu_reply reply;

	cow.widest = 10;
	event(DMU_EV_MAP, 0, 7, 100, 35);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 7, &reply), 4);
	assert_int_equal(reply.block, 130);
}

static void too_big_is_answered_smaller(void **state)
{
	struct dmu_reply reply;
	unsigned int i;
	uint64_t id;

	kernel.bad_type = DMU_RE_MAP;
	kernel.more_than = 64;
	kernel.error = E2BIG;
	kernel.times = 1000;
	for (id = 1; id <= 40; id++)
		event(DMU_EV_MAP, DMU_EV_WRITE, id, id * 20, 1);
	work_out(*state);
	/* Each question has an answer that holds it, or is held by another's. */
	for (id = 1; id <= 40; id++) {
		for (i = 0; i < kernel.nr_replies; i++) {
			reply = kernel.replies[i];
			if (reply.block <= id * 20 &&
			    id * 20 < reply.block + reply.count)
				break;
		}
		assert_true(i < kernel.nr_replies);
		assert_true(reply.count <= 64);
	}
}

/* @n questions, each after the answer to the one before. */
static void ask_in_turn(struct cowd_serve *serve, unsigned int n)
{
	for (; n; n--) {
		kernel.nr_events = kernel.nr_read = kernel.nr_replies = 0;
		event(DMU_EV_MAP, DMU_EV_WRITE, n, n % NR_BLOCKS, 1);
		work_out(serve);
		assert_int_equal(replied(DMU_RE_MAP, n, NULL), 1);
	}
}

static void width_is_learnt_and_forgotten(void **state)
{
	kernel.bad_type = DMU_RE_MAP;
	kernel.more_than = 64;
	kernel.error = E2BIG;
	kernel.times = 1000;
	ask_in_turn(*state, 200);
	/* 6000, 4096, 2048, 1024, 512, 256 and 128 once, and 128 again three times. */
	assert_int_equal(1000 - kernel.times, 10);
	kernel.more_than = NR_BLOCKS;
	ask_in_turn(*state, 600);
	assert_int_equal(kernel.replies[0].count, NR_BLOCKS);
}

static void full_budget_waits_for_a_commit(void **state)
{
	struct dmu_reply reply;
	uint64_t id;
	int i;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = E2BIG;
	kernel.times = 1000000;
	for (id = 1; id <= 400; id++)
		event(DMU_EV_MAP, DMU_EV_WRITE, id, id, 1);
	for (i = 0; i < 40; i++) {
		work(*state);
		pass_time(*state);
	}
	/* Asked for, and there is room to read that it comes. */
	assert_true(replied(DMU_RE_COMMIT, 0, NULL) > 0);
	assert_int_equal(kernel.nr_read, 400);
	event(DMU_EV_FLUSH, 0, 1000, 0, 0);
	for (i = 0; i < 10; i++) {
		work(*state);
		pass_time(*state);
	}
	assert_int_equal(replied(DMU_RE_FLUSHED, 1000, NULL), 1);
	kernel.times = 0;
	cow.widest = 1;
	work_out(*state);
	for (id = 1; id <= 400; id++) {
		assert_int_equal(replied(DMU_RE_FAIL, id, NULL), 0);
		assert_int_equal(replied(DMU_RE_MAP, id, &reply), 1);
	}
}

/* Two answers that are under way fill the budget: the width stays what it was. */
static void short_want_of_room_is_not_learnt(void **state)
{
	ask_in_turn(*state, 1);
	kernel.bad_type = DMU_RE_MAP;
	kernel.more_than = 256;
	kernel.error = E2BIG;
	kernel.times = 1000;
	ask_in_turn(*state, 1);
	assert_int_equal(kernel.replies[0].count, 256);
	kernel.more_than = 0;
	kernel.times = 1;
	ask_in_turn(*state, 1);
	kernel.times = 0;
	ask_in_turn(*state, 1);
	assert_int_equal(kernel.replies[0].count, 256);
}

/* ... unless it comes again and again: then narrower answers leave some room. */
static void frequent_want_of_room_is_learnt(void **state)
{
	unsigned int i;

	kernel.bad_type = DMU_RE_MAP;
	kernel.more_than = 256;
	kernel.error = E2BIG;
	kernel.times = 1000;
	ask_in_turn(*state, 1);
	for (i = 0; i < 2; i++) {
		kernel.more_than = 0;
		kernel.times = 1;
		ask_in_turn(*state, 1);
	}
	ask_in_turn(*state, 1);
	assert_int_equal(kernel.replies[0].count, 128);
}

/* A question without any room says nothing for long about the next ones. */
static void failure_is_forgotten(void **state)
{
	kernel.bad_type = DMU_RE_MAP;
	kernel.error = ENOMEM;
	kernel.times = 1000;
	event(DMU_EV_MAP, 0, 7, 5, 2);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FAIL, 7, NULL), 1);
	kernel.times = 0;
	ask_in_turn(*state, 1000);
	assert_int_equal(kernel.replies[0].count, NR_BLOCKS);
}

static void no_memory_fails_in_the_end(void **state)
{
	struct dmu_reply reply;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = ENOMEM;
	kernel.times = 1000;
	event(DMU_EV_MAP, 0, 7, 5, 2);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FAIL, 7, &reply), 1);
	assert_true(kernel.now > 30000);
	assert_int_equal(reply.error, ENOMEM);
	assert_int_equal(reply.block, 5);
	assert_int_equal(reply.count, 2);
}

/* What follows the block is wanted too: the next write there is not to ask. */
static void mapping_before_is_left_out(void **state)
{
	struct dmu_reply reply;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = EEXIST;
	kernel.times = 1;
	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 5, 1);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 7, &reply), 1);
	assert_int_equal(reply.block, 5);
	assert_int_equal(reply.count, NR_BLOCKS - 5);
}

/* A table took over after the kernel had asked: no error, and no question after question. */
static void answer_during_a_replay_is_given_after_it(void **state)
{
	int i;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = EBUSY;
	kernel.times = 1;
	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 5, 1);
	for (i = 0; i < 10; i++)
		work(*state);
	assert_int_equal(kernel.nr_replies, 0);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 7, NULL), 1);
	assert_int_equal(replied(DMU_RE_FAIL, 7, NULL), 0);
}

static void mapping_in_the_way_is_taken_away(void **state)
{
	struct dmu_reply reply;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = EEXIST;
	kernel.times = 3;	/* wide, from there on, narrow */
	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 5, 1);
	work(*state);
	assert_int_equal(kernel.nr_replies, 1);
	reply = kernel.replies[0];
	assert_int_equal(reply.type, DMU_RE_INVALIDATE);
	assert_int_equal(reply.block, 5);
	work(*state);
	assert_int_equal(kernel.nr_replies, 1);
	event(DMU_EV_INVALIDATED, 0, reply.id, 5, 1);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 7, NULL), 1);
}

static void wrong_answer_is_an_error(void **state)
{
	struct dmu_reply reply;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = ERANGE;
	kernel.times = 1;
	event(DMU_EV_MAP, 0, 7, 5, 1);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FAIL, 7, &reply), 1);
	assert_int_equal(reply.error, EIO);
}

static void failed_lookup_fails_the_question(void **state)
{
	struct dmu_reply reply;

	cow.map_status = -EIO;
	event(DMU_EV_MAP, 0, 7, 5, 9);
	work_out(*state);
	assert_int_equal(kernel.nr_replies, 1);
	assert_int_equal(replied(DMU_RE_FAIL, 7, &reply), 1);
	assert_int_equal(reply.count, 9);
}

static void commit_status_reaches_the_flush(void **state)
{
	struct dmu_reply reply;

	event(DMU_EV_FLUSH, 0, 1, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 1, &reply), 1);
	assert_int_equal(reply.error, 0);
	cow.commit_status = -ENOSPC;
	event(DMU_EV_FLUSH, 0, 2, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 2, &reply), 1);
	assert_int_equal(reply.error, ENOSPC);
}

/* Told once, and before the failure that it is the reason of. */
static void failed_sync_is_told(void **state)
{
	cow.sync_fails = true;
	cow.commit_status = -EIO;
	event(DMU_EV_FLUSH, 0, 1, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 1, NULL), 1);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 1);
	assert_int_equal(kernel.replies[0].type, DMU_RE_COMMIT);
	assert_int_equal(kernel.replies[0].flags, DMU_RE_LOST);
	work(*state);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 1);
	/* The kernel asks again, so it trusts the data: fails again, told again. */
	event(DMU_EV_FLUSH, 0, 2, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 2);
}

static void lost_data_is_not_committed(void **state)
{
	event(DMU_EV_LOST, 0, 0, 0, 0);
	work_out(*state);
	assert_true(cow.held);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 0);
}

/* Told of a loss, then asked for a commit, which libcow begins after what was copied before. */
static void trust_is_not_taken_back(void **state)
{
	struct dmu_reply reply;

	event(DMU_EV_LOST, 0, 0, 0, 0);
	work_out(*state);
	may_complete = false;
	event(DMU_EV_COPIED, 0, 0, 10, 5);
	event(DMU_EV_FLUSH, 0, 1, 0, 0);
	work(*state);
	work(*state);
	assert_true(cow.held);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 0);
	/* Another sync that fails meanwhile is news. */
	cow.failed_syncs++;
	work(*state);
	work(*state);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, &reply), 1);
	assert_int_equal(reply.flags, DMU_RE_LOST);
	may_complete = true;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 1, NULL), 1);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, NULL), 1);
}

static void discard_comes_after_invalidated(void **state)
{
	struct dmu_reply reply;

	event(DMU_EV_DISCARD, 0, 3, 100, 50);
	work(*state);
	assert_int_equal(kernel.nr_replies, 1);
	reply = kernel.replies[0];
	assert_int_equal(reply.type, DMU_RE_INVALIDATE);
	assert_int_equal(reply.flags, DMU_RE_FORGET);
	assert_int_equal(reply.block, 100);
	assert_int_equal(reply.count, 50);
	assert_int_equal(cow.nr_discards, 0);

	/* Within it a question waits; beside it an answer stops before it. */
	event(DMU_EV_MAP, 0, 4, 120, 1);
	event(DMU_EV_MAP, 0, 5, 10, 1);
	event(DMU_EV_MAP, 0, 6, 900, 1);
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 0);
	assert_int_equal(replied(DMU_RE_MAP, 5, &reply), 1);
	assert_int_equal(reply.block + reply.count, 100);
	assert_int_equal(replied(DMU_RE_MAP, 6, &reply), 1);
	assert_int_equal(reply.block, 150);

	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 100, 50);
	work_out(*state);
	assert_int_equal(cow.nr_discards, 1);
	assert_int_equal(replied(DMU_RE_DONE, 3, NULL), 1);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

/* What was answered before the discard was met is refused: that is asked again, too. */
static void question_across_a_discard_is_whole(void **state)
{
	struct dmu_reply reply;

	cow.widest = 5;
	event(DMU_EV_DISCARD, 0, 3, 15, 5);
	work(*state);
	event(DMU_EV_MAP, 0, 4, 10, 10);
	kernel.bad_type = DMU_RE_MAP;
	kernel.bad_id = 4;
	kernel.error = E2BIG;
	kernel.times = 1;
	work(*state);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 15, 5);
	kernel.bad_id = 0;
	work_out(*state);
	assert_true(replied(DMU_RE_MAP, 4, &reply) >= 2);
	assert_int_equal(kernel.replies[1].type, DMU_RE_MAP);
	assert_int_equal(kernel.replies[1].block, 10);
}

static void answer_on_its_way_gives_in_to_a_discard(void **state)
{
	struct dmu_reply reply;

	question_on_its_way(*state);
	event(DMU_EV_DISCARD, 0, 3, 100, 50);
	work(*state);
	may_complete = true;
	work(*state);
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, &reply), 1);
	assert_int_equal(reply.block + reply.count, 100);
}

static void discard_waits_for_what_was_copied(void **state)
{
	may_complete = false;
	event(DMU_EV_DISCARD, 0, 3, 100, 50);
	work(*state);
	event(DMU_EV_COPIED, 0, 0, 120, 1);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 100, 50);
	work(*state);
	assert_int_equal(cow.nr_discards, 0);
	may_complete = true;
	work_out(*state);
	assert_int_equal(cow.nr_discards, 1);
	assert_int_equal(replied(DMU_RE_DONE, 3, NULL), 1);
}

/* Invalidated, and libcow is done with it. */
static void begun_discard(struct cowd_serve *serve)
{
	kernel.no_flush = true;
	event(DMU_EV_WRITE_ZEROES, 0, 3, 100, 50);
	work(serve);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 100, 50);
	work(serve);
	work(serve);
}

/* S5, and S3: mappings of what it did are given out before. */
static void discard_is_answered_after_a_commit(void **state)
{
	struct dmu_reply reply;

	begun_discard(*state);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, &reply), 1);
	assert_int_equal(reply.flags, DMU_RE_METADATA);
	event(DMU_EV_MAP, 0, 4, 120, 1);
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
	assert_int_equal(replied(DMU_RE_DONE, 3, NULL), 0);
	event(DMU_EV_FLUSH, 0, 9, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 9, NULL), 1);
	assert_int_equal(replied(DMU_RE_DONE, 3, &reply), 1);
	assert_int_equal(reply.error, 0);
}

/* The commit that is under way does not hold it. */
static void discard_waits_for_a_later_commit(void **state)
{
	kernel.no_flush = true;
	event(DMU_EV_WRITE_ZEROES, 0, 3, 100, 50);
	work(*state);
	may_complete = false;
	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 100, 50);
	event(DMU_EV_FLUSH, 0, 8, 0, 0);
	work(*state);
	may_complete = true;
	work(*state);
	work(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 8, NULL), 1);
	assert_int_equal(replied(DMU_RE_DONE, 3, NULL), 0);
	event(DMU_EV_FLUSH, 0, 9, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_DONE, 3, NULL), 1);
}

static void discard_fails_with_its_commit(void **state)
{
	struct dmu_reply reply;

	begun_discard(*state);
	cow.commit_status = -ENOSPC;
	event(DMU_EV_FLUSH, 0, 9, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_DONE, 3, &reply), 1);
	assert_int_equal(reply.error, ENOSPC);
}

/* What was done of it before is to be committed by the next flush. */
static void failed_discard_wants_a_commit(void **state)
{
	struct dmu_reply reply;

	cow.discard_status = -ENOSPC;
	begun_discard(*state);
	assert_int_equal(replied(DMU_RE_DONE, 3, &reply), 1);
	assert_int_equal(reply.error, ENOSPC);
	assert_int_equal(replied(DMU_RE_COMMIT, 0, &reply), 1);
	assert_int_equal(reply.flags, DMU_RE_METADATA);
}

/* No commit comes any more, so it does not wait for one. */
static void discard_fails_when_data_was_lost(void **state)
{
	struct dmu_reply reply;

	begun_discard(*state);
	event(DMU_EV_LOST, 0, 0, 0, 0);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_DONE, 3, &reply), 1);
	assert_int_equal(reply.error, EIO);
	event(DMU_EV_WRITE_ZEROES, 0, 5, 100, 50);
	work(*state);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[kernel.nr_replies - 1].id, 100, 50);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_DONE, 5, &reply), 1);
	assert_int_equal(reply.error, EIO);
}

/* S7 */
static void full_scratch(struct cowd_serve *serve)
{
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work(serve);
	cow.scratch = (struct dmu_extent){ 100, 50 };
}

static void scratch_is_emptied_after_invalidated(void **state)
{
	struct dmu_reply reply;

	full_scratch(*state);
	work(*state);
	assert_int_equal(kernel.nr_replies, 1);
	reply = kernel.replies[0];
	assert_int_equal(reply.type, DMU_RE_INVALIDATE);
	assert_int_equal(reply.flags, 0);
	assert_int_equal(reply.block, 100);
	assert_int_equal(reply.count, 50);
	event(DMU_EV_MAP, 0, 4, 120, 1);
	event(DMU_EV_MAP, 0, 5, 10, 1);
	work(*state);
	work(*state);
	assert_int_equal(cow.nr_emptied, 0);
	assert_int_equal(replied(DMU_RE_INVALIDATE, kernel.replies[0].id, NULL), 1);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 0);
	assert_int_equal(replied(DMU_RE_MAP, 5, &reply), 1);
	assert_int_equal(reply.block + reply.count, 100);

	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 100, 50);
	work_out(*state);
	assert_int_equal(cow.nr_emptied, 1);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

/* It says where a block stands that is about to be thrown away. */
static void answer_on_its_way_gives_in_to_the_scratch_file(void **state)
{
	unsigned int maps;

	full_scratch(*state);
	cow.scratch.count = 0;
	question_on_its_way(*state);
	cow.scratch = (struct dmu_extent){ 0, NR_BLOCKS };
	work(*state);
	maps = cow.nr_maps;
	may_complete = true;
	work(*state);
	work(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 0);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[0].id, 0, NR_BLOCKS);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
	assert_int_equal(cow.nr_maps, maps + 1);
}

/* A question larger than the scratch file: each time it is emptied, a block more is answered. */
static void large_question_is_answered_through_a_small_scratch_file(void **state)
{
	unsigned int round, told = 0;
	uint64_t block;

	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work(*state);
	cow.at_once = false;
	cow.widest = 1;
	event(DMU_EV_MAP, 0, 4, 100, 10);
	for (round = 0; round < 40; round++) {
		work(*state);
		if (!cow.scratch.count && replied(DMU_RE_MAP, 4, NULL) > told) {
			told = replied(DMU_RE_MAP, 4, NULL);
			cow.scratch = (struct dmu_extent){ 0, NR_BLOCKS };
			work(*state);
			work(*state);
			event(DMU_EV_INVALIDATED, 0,
			      kernel.replies[kernel.nr_replies - 1].id, 0, NR_BLOCKS);
		}
	}
	assert_int_equal(cow.nr_emptied, 10);
	for (block = 0; block < 10; block++)
		assert_int_equal(replied_about(100 + block), 1);
	work_out(*state);
}

static void refused_scratch_is_tried_again(void **state)
{
	full_scratch(*state);
	kernel.bad_type = DMU_RE_INVALIDATE;
	kernel.error = ENOMEM;
	kernel.times = 1;
	work(*state);
	assert_int_equal(cow.nr_emptied, 0);
	event(DMU_EV_MAP, 0, 4, 120, 1);
	work(*state);
	event(DMU_EV_INVALIDATED, 0, kernel.replies[kernel.nr_replies - 1].id, 100, 50);
	work_out(*state);
	assert_int_equal(cow.nr_emptied, 1);
	assert_int_equal(replied(DMU_RE_MAP, 4, NULL), 1);
}

/*
 * The place of a block that was copied before is not known to be taken: an answer might
 * give it to another one.
 */
static void replay_that_fails_gives_no_answer(void **state)
{
	unsigned int i;

	event(DMU_EV_COPIED, 0, 0, 10, 5);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	event(DMU_EV_MAP, DMU_EV_WRITE, 7, 500, 1);
	cow.copied_status = -ENOSPC;
	for (i = 0; i < 20; i++) {
		work(*state);
		kernel.now += 500;
	}
	assert_int_equal(replied(DMU_RE_MAP, 7, NULL), 0);
	assert_int_equal(replied(DMU_RE_FAIL, 7, NULL), 0);
	cow.copied_status = 0;
	kernel.now += 1000;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_MAP, 7, NULL), 1);
}

/* Nothing is committed before that, and then all of it. */
static void flush_waits_for_the_replay(void **state)
{
	struct dmu_reply reply;
	unsigned int i;

	event(DMU_EV_COPIED, 0, 0, 10, 5);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	event(DMU_EV_FLUSH, 0, 9, 0, 0);
	cow.copied_status = -ENOSPC;
	for (i = 0; i < 20; i++) {
		work(*state);
		kernel.now += 500;
	}
	assert_int_equal(cow.nr_commits, 0);
	cow.copied_status = 0;
	kernel.now += 1000;
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FLUSHED, 9, &reply), 1);
	assert_int_equal(reply.error, 0);
}

/* In the end cowd is: who comes next is told of it again. */
static void replay_that_fails_for_long_is_the_end(void **state)
{
	unsigned int i;
	int err = 0;

	event(DMU_EV_COPIED, 0, 0, 10, 5);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	cow.copied_status = -EIO;
	for (i = 0; i < 100 && !err; i++) {
		err = cowd_serve_work(*state, true);
		kernel.now += 500;
	}
	assert_int_equal(err, -EIO);
	assert_true(kernel.now > 30000);
	cow.copied_status = 0;
}

/* What was told of a block later is not overtaken by what is tried again. */
static void replay_keeps_its_order(void **state)
{
	unsigned int i;
	int err = 0;

	event(DMU_EV_COPIED, 0, 0, 10, 5);
	cow.copied_status = -ENOSPC;
	work(*state);
	work(*state);
	cow.copied_status = 0;
	event(DMU_EV_COPIED, 0, 0, 12, 1);
	for (i = 0; i < 5 && !err; i++)
		err = cowd_serve_work(*state, true);
	assert_int_equal(err, -EIO);
}

/* A question that waited for room, and was owed no more, says nothing of later ones. */
static void room_that_nobody_waits_for_is_forgotten(void **state)
{
	kernel.bad_type = DMU_RE_MAP;
	kernel.error = E2BIG;
	kernel.times = 1000;
	event(DMU_EV_MAP, 0, 1, 5, 1);
	do
		work(*state);
	while (cowd_serve_timeout(*state) <= 0 ||
	       cowd_serve_timeout(*state) > 100);
	kernel.error = ENOENT;
	kernel.times = 1;
	kernel.now += 100;
	work_out(*state);
	kernel.now += 31000;
	kernel.error = E2BIG;
	kernel.times = 12;
	event(DMU_EV_MAP, 0, 2, 500, 1);
	work_out(*state);
	assert_int_equal(replied(DMU_RE_FAIL, 2, NULL), 0);
}

static void wait_for_room(struct cowd_serve *serve, unsigned int count, int rounds)
{
	unsigned int id;

	kernel.bad_type = DMU_RE_MAP;
	kernel.error = E2BIG;
	kernel.times = 1000000;
	cow.widest = 1;
	for (id = 1; id <= count; id++)
		event(DMU_EV_MAP, DMU_EV_WRITE, id, id % NR_BLOCKS, 1);
	while (rounds--)
		work(serve);
	assert_int_equal(kernel.nr_read, count);
}

/* However many questions wait for room, they wait. */
static void thousands_wait_for_room(void **state)
{
	unsigned int i;

	wait_for_room(*state, 5500, 1000);
	kernel.times = 0;
	work_out(*state);
	for (i = 0; i < kernel.nr_replies; i++)
		assert_int_not_equal(kernel.replies[i].type, DMU_RE_FAIL);
	for (i = 1; i <= 5500; i++)
		assert_true(replied_about(i));
}

/* Nor is memory wanted for that, when it may be what is short, for as many as are usual. */
static void waiting_for_room_wants_no_memory(void **state)
{
	unsigned int before = nr_allocated;

	wait_for_room(*state, 4000, 500);
	assert_int_equal(nr_allocated, before);
	kernel.times = 0;
	work_out(*state);
}

/* Whatever else fails meanwhile. */
static void no_memory_fails_though_others_fail(void **state)
{
	unsigned int i;

	kernel.bad_type = DMU_RE_MAP;
	kernel.bad_id = 7;
	kernel.error = ENOMEM;
	kernel.times = 100000;
	event(DMU_EV_MAP, 0, 7, 5, 2);
	for (i = 0; i < 10; i++) {
		work(*state);
		cow.map_status = -EIO;
		event(DMU_EV_MAP, 0, 100 + i, 500, 1);
		work(*state);
		assert_int_equal(replied(DMU_RE_FAIL, 100 + i, NULL), 1);
		cow.map_status = 0;
		kernel.now += 5000;
	}
	work(*state);
	assert_int_equal(replied(DMU_RE_FAIL, 7, NULL), 1);
}

/* What was copied before is not known yet. */
static void scratch_waits_for_the_replay(void **state)
{
	cow.scratch = (struct dmu_extent){ 100, 50 };
	work(*state);
	assert_int_equal(kernel.nr_replies, 0);
	event(DMU_EV_REPLAY_END, 0, 0, 0, 0);
	work(*state);
	work(*state);
	assert_int_equal(kernel.replies[0].type, DMU_RE_INVALIDATE);
}

/* S4: whatever waits for INVALIDATED, there is room to read it. */
static void many_discards_do_not_stop_the_reading(void **state)
{
	unsigned int i, answered = 0;
	uint64_t id;

	for (id = 1; id <= 300; id++)
		event(DMU_EV_DISCARD, 0, id, id, 1);
	for (i = 0; i < 1000; i++) {
		work(*state);
		for (; answered < kernel.nr_replies; answered++)
			if (kernel.replies[answered].type == DMU_RE_INVALIDATE) {
				/* Room for the answers: the array is a log. */
				if (kernel.nr_events == MAX_EVENTS) {
					assert_int_equal(kernel.nr_read, MAX_EVENTS);
					kernel.nr_events = kernel.nr_read = 0;
				}
				event(DMU_EV_INVALIDATED, 0,
				      kernel.replies[answered].id, 0, 0);
				work(*state);
			}
	}
	for (id = 1; id <= 300; id++)
		assert_int_equal(replied(DMU_RE_DONE, id, NULL), 1);
	work_out(*state);
}

static void reading_stops_when_there_is_no_room(void **state)
{
	uint64_t id;

	may_complete = false;
	cow.at_once = false;
	for (id = 1; id <= 400; id++)
		event(DMU_EV_MAP, 0, id, id, 1);
	for (id = 0; id < 10; id++)
		work(*state);
	assert_false(cowd_serve_wants_events(*state));
	assert_true(kernel.nr_read < 400);
	cow.widest = 1;
	may_complete = true;
	work_out(*state);
	for (id = 1; id <= 400; id++)
		assert_int_equal(replied(DMU_RE_MAP, id, NULL), 1);
}

#define SERVE_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SERVE_TEST(question_is_answered_once),
		SERVE_TEST(question_alone_costs_few_looks),
		SERVE_TEST(freed_slots_are_taken_again),
		SERVE_TEST(late_answer_covers_nothing),
		SERVE_TEST(refused_beginning_is_not_covered),
		SERVE_TEST(late_answer_with_metadata_asks_for_a_commit),
		SERVE_TEST(question_waits_for_the_replay),
		SERVE_TEST(answer_avoids_what_was_copied),
		SERVE_TEST(answer_from_before_a_copy_is_not_given),
		SERVE_TEST(question_across_a_discard_is_whole),
		SERVE_TEST(one_answer_covers_the_batch),
		SERVE_TEST(pending_questions_are_covered_too),
		SERVE_TEST(long_question_gets_several_answers),
		SERVE_TEST(too_big_is_answered_smaller),
		SERVE_TEST(width_is_learnt_and_forgotten),
		SERVE_TEST(failure_is_forgotten),
		SERVE_TEST(full_budget_waits_for_a_commit),
		SERVE_TEST(short_want_of_room_is_not_learnt),
		SERVE_TEST(replay_that_fails_gives_no_answer),
		SERVE_TEST(replay_that_fails_for_long_is_the_end),
		SERVE_TEST(flush_waits_for_the_replay),
		SERVE_TEST(replay_keeps_its_order),
		SERVE_TEST(waiting_for_room_wants_no_memory),
		SERVE_TEST(no_memory_fails_though_others_fail),
		SERVE_TEST(room_that_nobody_waits_for_is_forgotten),
		SERVE_TEST(thousands_wait_for_room),
		SERVE_TEST(frequent_want_of_room_is_learnt),
		SERVE_TEST(no_memory_fails_in_the_end),
		SERVE_TEST(mapping_before_is_left_out),
		SERVE_TEST(answer_during_a_replay_is_given_after_it),
		SERVE_TEST(mapping_in_the_way_is_taken_away),
		SERVE_TEST(wrong_answer_is_an_error),
		SERVE_TEST(failed_lookup_fails_the_question),
		SERVE_TEST(commit_status_reaches_the_flush),
		SERVE_TEST(failed_sync_is_told),
		SERVE_TEST(lost_data_is_not_committed),
		SERVE_TEST(trust_is_not_taken_back),
		SERVE_TEST(discard_comes_after_invalidated),
		SERVE_TEST(scratch_is_emptied_after_invalidated),
		SERVE_TEST(answer_on_its_way_gives_in_to_the_scratch_file),
		SERVE_TEST(large_question_is_answered_through_a_small_scratch_file),
		SERVE_TEST(refused_scratch_is_tried_again),
		SERVE_TEST(scratch_waits_for_the_replay),
		SERVE_TEST(answer_on_its_way_gives_in_to_a_discard),
		SERVE_TEST(discard_waits_for_what_was_copied),
		SERVE_TEST(discard_is_answered_after_a_commit),
		SERVE_TEST(discard_waits_for_a_later_commit),
		SERVE_TEST(discard_fails_with_its_commit),
		SERVE_TEST(failed_discard_wants_a_commit),
		SERVE_TEST(discard_fails_when_data_was_lost),
		SERVE_TEST(many_discards_do_not_stop_the_reading),
		SERVE_TEST(reading_stops_when_there_is_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
