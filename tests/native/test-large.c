// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-large.c - an overlay whose bitmap is much larger than the cache, and
 * hundreds of requests at once: tables are evicted, requests starve and go
 * on, commits are forced for room; and nothing gets lost.  Then a commit
 * whose writes fail: it says so, and the next one makes it good.
 */
#include <libcow/cow.h>

#include <common/bits.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DISK (4ull << 40)
#define BLOCK 4096u
#define COPIES 600u
#define MAPS 40u

static struct cow_plugins *plugins;
static unsigned int pending;
static unsigned int failures;

static struct cow_request copies[COPIES + 11], maps[MAPS];
static uint8_t *told;		/* bits of blocks of COPIED */
static bool all_told;		/* no COPIED is under way */
static uint64_t seen;		/* what MAP told as copied */

static void must(int ret, const char *what)
{
	if (!ret)
		return;
	fprintf(stderr, "test-large: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static struct cow_chain *open_chain(uint32_t flags)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain *c;

	p.plugins = plugins;
	p.path = "large.dscow";
	p.format = "dscow";
	p.flags = flags;
	p.cache_bytes = 1 << 20;
	must(cow_chain_open(&p, &c), "open");
	return c;
}

static void make_images(void)
{
	struct cow_create_params p = {
		.plugins = plugins,
		.path = "large.dscow",
		.format = "dscow",
		.block_size = BLOCK,
		.backing_path = "large.base",
		.backing_format = "raw",
	};
	int fd = open("large.base", O_CREAT | O_RDWR, 0666);

	if (fd < 0 || ftruncate(fd, DISK) < 0) {
		printf("no room for a sparse file of 4 TiB: skipped\n");
		exit(77);
	}
	close(fd);
	must(cow_create_image(&p), "create");
}

static void copy_done(struct cow_request *req, int status)
{
	must(status, "copied");
	pending--;
}

/* Nothing is copied but what was told; and once all was told, all of that. */
static void map_done(struct cow_request *req, int status)
{
	const struct cow_answer *a = &req->answer;
	const uint8_t *is = a->copied, *may = told + a->first / 8;
	uint64_t i;

	must(status, "map");
	must(is && a->first % 8 == 0 ? 0 : -EPROTO, "map of a writable overlay");
	for (i = 0; i < a->count / 8; i++) {
		seen += is[i] != 0;
		if (!(is[i] & ~may[i]) && (!all_told || is[i] == may[i]))
			continue;
		fprintf(stderr, "test-large: MAP says %02x of blocks from %llu, of which %02x were told\n",
			is[i], (unsigned long long)(a->first + 8 * i), may[i]);
		failures++;
		break;
	}
	pending--;
}

static void wait_all(struct cow_chain *c)
{
	struct pollfd pfd = { .fd = cow_event_fd(c), .events = POLLIN };

	while (pending) {
		if (poll(&pfd, 1, 20000) == 0) {
			fprintf(stderr, "test-large: %u requests are stuck\n",
				pending);
			exit(1);
		}
		cow_dispatch(c);
	}
}

static uint64_t any_block(void)
{
	return ((uint64_t)random() << 20 ^ (uint64_t)random()) %
	       (DISK / BLOCK - 4096);
}

static void submit_copy(struct cow_chain *c, unsigned int i)
{
	struct cow_chain_info info;
	struct cow_request *req = &copies[i];

	cow_chain_info(c, &info);
	req->op = COW_OP_COPIED;
	req->first = any_block();
	req->count = 1 + (uint64_t)random() % 4000;
	/* The place as the format has it: 128 MiB of bitmap, 8 KiB before. */
	req->offset = 8192 + DISK / BLOCK / 8 + req->first * BLOCK;
	req->done = copy_done;
	bits_set_run(told, req->first, req->count);
	pending++;
	cow_submit(c, req);
}

static void submit_map(struct cow_chain *c, unsigned int i, uint64_t block)
{
	struct cow_request *req = &maps[i];

	req->op = COW_OP_MAP;
	req->first = block;
	req->count = 1;
	req->done = map_done;
	pending++;
	cow_submit(c, req);
}

static void copy_everywhere(struct cow_chain *c)
{
	unsigned int i;

	for (i = 0; i < COPIES; i++) {
		submit_copy(c, i);
		if (i % (COPIES / MAPS) == 0)
			submit_map(c, i / (COPIES / MAPS), any_block());
		if (i % 50 == 0)
			cow_dispatch(c);
	}
	wait_all(c);
}

/* Around blocks that were copied. */
static void ask_again(struct cow_chain *c)
{
	unsigned int i;

	all_told = true;
	for (i = 0; i < MAPS; i++)
		submit_map(c, i, copies[i * (COPIES / MAPS)].first);
	wait_all(c);
	if (seen)
		return;
	fprintf(stderr, "test-large: MAP tells nothing as copied\n");
	failures++;
}

static void check_block(struct cow_chain *c, uint64_t block)
{
	struct cow_where w;

	must(cow_where(c, block * BLOCK, BLOCK, &w), "where");
	if (w.held == bits_test(told, block))
		return;
	fprintf(stderr, "test-large: block %llu is %s\n",
		(unsigned long long)block, w.held ? "held" : "lost");
	failures++;
}

static void check_everywhere(void)
{
	struct cow_chain *c = open_chain(0);
	unsigned int i;

	for (i = 0; i < COPIES + 11; i++) {
		const struct cow_request *r = &copies[i];

		if (!r->count)
			continue;
		check_block(c, r->first);
		check_block(c, r->first + r->count - 1);
		check_block(c, r->first + r->count);
		check_block(c, any_block());
	}
	cow_chain_close(c);
}

/* Files may grow to 4 KiB only: so the bitmap cannot be written. */
static void limit_files(bool on)
{
	struct rlimit limit;

	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = on ? 4096 : limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
}

static void fail_commit(void)
{
	struct cow_chain *c = open_chain(COW_OPEN_WRITE);
	unsigned int i;

	for (i = COPIES; i < COPIES + 10; i++)
		submit_copy(c, i);
	wait_all(c);
	limit_files(true);
	if (cow_flush(c) != -EFBIG) {
		fprintf(stderr, "test-large: a failed commit is not told\n");
		failures++;
	}
	if (!cow_chain_dirty(c)) {
		fprintf(stderr, "test-large: a failed commit left no dirt\n");
		failures++;
	}
	limit_files(false);
	must(cow_flush(c), "commit again");
	cow_chain_close(c);
	check_everywhere();
}

static uint64_t looked_at(struct cow_chain *c)
{
	struct cow_stats stats;

	cow_chain_stats(c, &stats);
	return stats.looked_at;
}

/* What a commit costs: a table that is clean is not looked at for each phase. */
static void count_looks(struct cow_chain *c)
{
	uint64_t before = looked_at(c), nothing, one;
	struct cow_stats stats;

	must(cow_flush(c), "commit of nothing");
	nothing = looked_at(c) - before;
	submit_copy(c, COPIES + 10);
	wait_all(c);
	before = looked_at(c);
	must(cow_flush(c), "commit of one");
	one = looked_at(c) - before;
	cow_chain_stats(c, &stats);
	printf("looked at %llu tables for a commit of nothing, %llu for one, of %llu\n",
	       (unsigned long long)nothing, (unsigned long long)one,
	       (unsigned long long)stats.cache_tables);
	if (!nothing && one && one <= 3 * stats.cache_tables)
		return;
	fprintf(stderr, "test-large: commits look at too many tables\n");
	failures++;
}

static void ignore(void *ctx, enum cow_log_level level, const char *text)
{
	printf("%s\n", text);
}

int main(void)
{
	struct cow_stats stats;
	struct cow_chain *c;

	signal(SIGXFSZ, SIG_IGN);
	srandom(1);
	must(cow_plugins_new(NULL, ignore, NULL, &plugins), "plugins");
	make_images();
	told = calloc(1, DISK / BLOCK / 8);
	must(told ? 0 : -ENOMEM, "told");
	c = open_chain(COW_OPEN_WRITE);
	copy_everywhere(c);
	ask_again(c);
	must(cow_flush(c), "commit");
	cow_chain_stats(c, &stats);
	printf("cache %llu, reads %llu, writes %llu, commits %llu\n",
	       (unsigned long long)stats.cache_bytes,
	       (unsigned long long)stats.table_reads,
	       (unsigned long long)stats.table_writes,
	       (unsigned long long)stats.commits);
	count_looks(c);
	cow_chain_close(c);
	check_everywhere();
	fail_commit();
	cow_plugins_free(plugins);
	free(told);
	if (stats.commits < 2) {
		fprintf(stderr, "test-large: no commit was forced for room\n");
		failures++;
	}
	return failures ? 1 : 0;
}
