// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * qcow2-rules.c - a test for each way in which images of this kind have been
 * damaged elsewhere, and for how few questions may be asked.
 *
 * With QCOW_VERSION_1 it is a program for the format qcow.
 */
#include <libcow/cow.h>

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#ifdef QCOW_VERSION_1
#define FORMAT "qcow"
/* What was given up is lost to others: one finding, of all of it. */
#define MORE_LEAKS 1
/* A file grows by so much. */
#define GROWTH (4ull << 20)
#else
#define FORMAT "qcow2"
#define MORE_LEAKS 0
#define GROWTH (1ull << 20)
#endif

#define KIB 1024ull
#define MIB (1024 * KIB)

static struct cow_plugins *plugins;
static char said[1024];		/* the last error */

static void log_message(void *ctx, enum cow_log_level level, const char *text)
{
	if (level == COW_LOG_ERROR)
		snprintf(said, sizeof(said), "%s", text);
}

static int create(const char *path, uint64_t size, const char *base,
		  const char *const *options)
{
	struct cow_create_params p = {
		.plugins = plugins,
		.path = path,
		.format = FORMAT,
		.size = size,
		.backing_path = base,
		.backing_format = base ? "raw" : NULL,
		.options = options,
		.force = true,
	};

	return cow_create_image(&p);
}

static struct cow_chain *open_as(const char *path, uint32_t flags)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain *c;

	p.plugins = plugins;
	p.path = path;
	p.format = FORMAT;
	p.flags = flags;
	assert_int_equal(cow_chain_open(&p, &c), 0);
	return c;
}

static struct cow_chain *open_image(const char *path)
{
	return open_as(path, COW_OPEN_WRITE);
}

/* A new image, over a base of that byte if it is not 0. */
static struct cow_chain *new_image(uint64_t size, char base, uint32_t cluster)
{
	char option[64], buf[4096];
	const char *options[] = { option, NULL };
	uint64_t at;
	int fd;

	snprintf(option, sizeof(option), "cluster_size=%u", cluster);
	if (base) {
		fd = open("base", O_CREAT | O_TRUNC | O_WRONLY, 0666);
		memset(buf, base, sizeof(buf));
		for (at = 0; at < size; at += sizeof(buf))
			assert_int_equal(file_pwrite_all(fd, buf, sizeof(buf),
							 at), 0);
		close(fd);
	}
	assert_int_equal(create("image", size, base ? "base" : NULL, options),
			 0);
	return open_image("image");
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void check_image(uint64_t leaks)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_check_result result;
	struct cow_chain *c;

	p.plugins = plugins;
	p.path = "image";
	p.format = FORMAT;
	assert_int_equal(cow_chain_open(&p, &c), 0);
	assert_int_equal(cow_chain_check(c, false, NULL, NULL, &result), 0);
	assert_int_equal(result.corrupt, 0);
	assert_in_range(result.leaks, 0, leaks + MORE_LEAKS);
	cow_chain_close(c);
}

static struct cow_answer answer;

static void keep_answer(struct cow_request *req, int status)
{
	answer = req->answer;
}

static int ask(struct cow_chain *c, uint64_t block, uint32_t flags)
{
	struct cow_request req = {
		.op = COW_OP_MAP,
		.flags = flags,
		.first = block,
		.count = 1,
		.done = keep_answer,
	};

	return cow_call(c, &req);
}

/* Where a block would stand if it were written. */
static uint64_t place_of(struct cow_chain *c, uint64_t block)
{
	struct cow_chain_info info;

	cow_chain_info(c, &info);
	assert_int_equal(ask(c, block, COW_QUERY_WRITE), 0);
	return answer.offset + (block - answer.first) * info.block_size;
}

static void write_byte(struct cow_chain *c, char byte, uint64_t len,
		       uint64_t offset)
{
	char *buf = malloc(len);

	memset(buf, byte, len);
	assert_int_equal(cow_pwrite(c, buf, len, offset), 0);
	free(buf);
}

static void expect_byte(struct cow_chain *c, char byte, uint64_t len,
			uint64_t offset)
{
	char *buf = malloc(len);
	uint64_t i;

	assert_int_equal(cow_pread(c, buf, len, offset), 0);
	for (i = 0; i < len; i++) {
		if (buf[i] != byte)
			fail_msg("byte %llu is %02x instead of %02x",
				 (unsigned long long)(offset + i),
				 (uint8_t)buf[i], (uint8_t)byte);
	}
	free(buf);
}

/* --- Few questions ------------------------------------------------------------ */

/* Blocks are written one after the other; who has no answer yet asks. */
static void consecutive_first_writes_ask_once_in_sixteen(void **state)
{
	uint32_t cluster = (uint32_t)(uintptr_t)*state, asked = 0;
	struct cow_chain *c = new_image(256ull * cluster, 0, cluster);
	uint64_t block, known = 0;

	for (block = 0; block < 256; block++) {
		if (block < known)
			continue;
		assert_int_equal(ask(c, block, COW_QUERY_WRITE), 0);
		assert_int_equal(answer.kind, COW_KIND_COW);
		known = answer.first + answer.count;
		asked++;
	}
	cow_chain_close(c);
	assert_in_range(asked, 1, 256 / 16);
}

static void an_image_in_order_is_one_mapping_a_table(void **state)
{
	struct cow_chain *c = new_image(16 * MIB, 0, 4096);
	uint64_t block, known = 0, asked = 0, at;

	for (at = 0; at < 16 * MIB; at += MIB)
		write_byte(c, 'x', MIB, at);
	assert_int_equal(cow_flush(c), 0);
	cow_chain_close(c);
	c = open_image("image");
	for (block = 0; block < 16 * MIB / 4096; block++) {
		if (block < known)
			continue;
		assert_int_equal(ask(c, block, 0), 0);
		assert_int_equal(answer.kind, COW_KIND_LINEAR);
		assert_true(answer.flags & COW_MAPPING_WRITABLE);
		known = answer.first + answer.count;
		asked++;
	}
	cow_chain_close(c);
	/* 8 tables of 512 entries; a table in the way may cut one in two. */
	assert_in_range(asked, 1, 16);
}

#ifndef QCOW_VERSION_1
/* How many tables were asked for of the file, after a question about a table's first block. */
static uint64_t reads_for(struct cow_chain *c, unsigned int table)
{
	struct cow_stats stats;

	assert_int_equal(ask(c, table * 512, 0), 0);
	assert_int_equal(answer.kind, COW_KIND_LINEAR);
	cow_chain_stats(c, &stats);
	return stats.table_reads;
}

/* 8 tables of 512 entries, behind which nothing is; in order, and not. */
static void the_next_table_is_read_ahead(void **state)
{
	struct cow_chain *c = new_image(16 * MIB, 0, 4096);
	int fd = open("image", O_RDONLY | O_DIRECT);
	unsigned int table;

	if (fd < 0) {
		cow_chain_close(c);
		print_message("no direct I/O here, so no table is read ahead\n");
		skip();
	}
	close(fd);
	for (table = 0; table < 8; table++)
		write_byte(c, 'x', 4096, table * 2 * MIB);
	assert_int_equal(cow_flush(c), 0);
	cow_chain_close(c);
	c = open_as("image", 0);
	/* The L1 table, this one, and the next. */
	for (table = 0; table < 7; table++)
		assert_int_equal(reads_for(c, table), 3 + table);
	assert_int_equal(reads_for(c, 7), 9);
	cow_chain_close(c);
	c = open_as("image", 0);
	assert_int_equal(reads_for(c, 5), 2);
	assert_int_equal(reads_for(c, 2), 3);
	assert_int_equal(reads_for(c, 3), 5);
	/* Asked twice, and known. */
	assert_int_equal(reads_for(c, 3), 5);
	assert_int_equal(reads_for(c, 4), 5);
	cow_chain_close(c);
}
#endif

/* --- What others got wrong ------------------------------------------------------ */

static void a_failed_write_leaves_no_reference(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 'b', 65536);

	/* The copy failed: the kernel reports nothing. */
	place_of(c, 3);
	assert_int_equal(cow_flush(c), 0);
	expect_byte(c, 'b', 65536, 3 * 65536);
	cow_chain_close(c);
	check_image(0);
	c = open_image("image");
	expect_byte(c, 'b', 4 * MIB, 0);
	cow_chain_close(c);
}

static void a_freed_cluster_waits_for_the_commit(void **state)
{
	struct cow_chain *c = new_image(8 * MIB, 0, 65536);
	uint64_t old[16], i, block;

	write_byte(c, 'a', MIB, 0);
	assert_int_equal(cow_flush(c), 0);
	for (i = 0; i < 16; i++) {
		assert_int_equal(ask(c, i, 0), 0);
		old[i] = answer.offset + (i - answer.first) * 65536;
	}
	assert_int_equal(cow_pdiscard(c, 0, MIB), 0);
	/* Nothing is committed yet: whoever writes must not get these. */
	for (block = 16; block < 128; block++) {
		uint64_t place = place_of(c, block);

		for (i = 0; i < 16; i++)
			assert_int_not_equal(place, old[i]);
	}
	cow_chain_close(c);
	c = open_image("image");
	expect_byte(c, 'a', MIB, 0);
	cow_chain_close(c);
}

static unsigned int nr_done;
static struct cow_answer both[2];

static void keep_both(struct cow_request *req, int status)
{
	assert_int_equal(status, 0);
	both[nr_done++] = req->answer;
}

static void two_first_writes_at_once_get_one_place(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 'b', 65536);
	struct cow_request req[2];
	int i;

	for (i = 0; i < 2; i++) {
		req[i] = (struct cow_request){
			.op = COW_OP_MAP,
			.flags = COW_QUERY_WRITE,
			.first = 5,
			.count = 1,
			.limit_first = 5,
			.limit_end = 6,
			.done = keep_both,
		};
	}
	nr_done = 0;
	cow_submit(c, &req[0]);
	cow_submit(c, &req[1]);
	while (nr_done < 2) {
		usleep(1000);
		cow_dispatch(c);
	}
	assert_int_equal(both[0].kind, COW_KIND_COW);
	assert_int_equal(both[0].offset, both[1].offset);
	cow_chain_close(c);
}

static void a_place_in_use_is_refused(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 0, 65536);
	struct cow_request copied = {
		.op = COW_OP_COPIED, .first = 9, .count = 1,
	};

	write_byte(c, 'a', 65536, 0);
	assert_int_equal(ask(c, 0, 0), 0);
	copied.offset = answer.offset;
	assert_int_equal(cow_call(c, &copied), -EINVAL);
	copied.offset = 0;			/* the header */
	assert_int_equal(cow_call(c, &copied), -EINVAL);
	copied.offset = 1ull << 40;		/* past the end */
	assert_int_equal(cow_call(c, &copied), -EINVAL);
	cow_chain_close(c);
}

/* Twice told, or told of by another process: nothing new. */
static void copied_may_come_twice(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 0, 65536);
	struct cow_request copied = {
		.op = COW_OP_COPIED, .first = 9, .count = 3,
	};

	copied.offset = place_of(c, 9);
	assert_int_equal(cow_call(c, &copied), 0);
	assert_int_equal(cow_call(c, &copied), 0);
	cow_chain_close(c);		/* nothing was committed */
	c = open_image("image");
	assert_int_equal(cow_call(c, &copied), 0);
	assert_int_equal(cow_flush(c), 0);
	cow_chain_close(c);
	check_image(0);
}

static void space_does_not_grow_under_fsync_churn(void **state)
{
	struct cow_chain *c = new_image(16 * MIB, 'b', 4096);
	uint64_t i, start;

	write_byte(c, 'a', 4 * MIB, 0);
	assert_int_equal(cow_flush(c), 0);
	start = file_bytes("image");
	for (i = 0; i < 200; i++) {
		uint64_t at = i * 7 % 16 * 256 * KIB;

		assert_int_equal(cow_pdiscard(c, at, 256 * KIB), 0);
		assert_int_equal(cow_flush(c), 0);
		write_byte(c, 'c', 256 * KIB, at);
		assert_int_equal(cow_flush(c), 0);
	}
	cow_chain_close(c);
	assert_in_range(file_bytes("image"), start, start + 4 * MIB);
	check_image(0);
}

static void space_does_not_grow_by_opening(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 0, 65536);
	uint64_t i, start = 0;

	cow_chain_close(c);
	for (i = 0; i < 50; i++) {
		c = open_image("image");
		assert_int_equal(cow_pdiscard(c, 0, MIB), 0);
		write_byte(c, 'x', MIB, 0);
		assert_int_equal(cow_flush(c), 0);
		cow_chain_close(c);
		if (i == 5)
			start = file_bytes("image");
	}
	assert_in_range(file_bytes("image"), start, start + 4 * MIB);
	check_image(0);
}

static void set_limit(uint64_t bytes)
{
	struct rlimit r = { bytes, RLIM_INFINITY };

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

#define GROWTHS 5
#define PART (64 * KIB)
#define PARTS (GROWTHS * GROWTH / PART)

/* Up to the first that fails: which one. */
static uint64_t write_parts(struct cow_chain *c, char byte)
{
	static char buf[PART];
	uint64_t i;

	memset(buf, byte, sizeof(buf));
	for (i = 0; i < PARTS; i++)
		if (cow_pwrite(c, buf, PART, 32 * MIB + i * PART))
			break;
	return i;
}

/*
 * The file may not grow past a limit, which is moved on by little each time:
 * so each time that the file grows for a write is the first one that fails.
 */
static void space_runs_out_at_each_step(void **state)
{
	uint64_t limit, first = 0, step, failed, last = PARTS, places = 0;
	struct cow_chain *c;

	for (step = 0; step < 2 * GROWTHS; step++) {
		c = new_image(64 * MIB, 0, 512);
		write_byte(c, 'f', 512, 0);
		assert_int_equal(cow_flush(c), 0);
		if (!step)
			first = file_bytes("image");
		assert_int_equal(file_bytes("image"), first);
		limit = first + step * GROWTH / 2;
		set_limit(limit);
		failed = write_parts(c, 'g');
		cow_flush(c);
		assert_in_range(file_bytes("image"), first, limit);
		set_limit(RLIM_INFINITY);
		places += failed < PARTS && failed != last;
		last = failed;
		/* Once there is space it goes on. */
		expect_byte(c, 'f', 512, 0);
		assert_int_equal(write_parts(c, 'g'), PARTS);
		assert_int_equal(cow_flush(c), 0);
		cow_chain_close(c);
		check_image(64);
		c = open_image("image");
		expect_byte(c, 'g', PARTS * PART, 32 * MIB);
		cow_chain_close(c);
	}
	assert_in_range(places, GROWTHS - 1, 2 * GROWTHS);
}

#ifndef QCOW_VERSION_1
/* --- Lazy refcounts --------------------------------------------------------------- */

static bool is_dirty(void)
{
	int fd = open("image", O_RDONLY);
	uint8_t byte;

	assert_int_equal(file_pread_all(fd, &byte, 1, 79), 0);
	close(fd);
	return byte & 1;
}

static void lazy_refcounts_mark_the_image_while_it_is_open(void **state)
{
	static const char *const lazy[] = { "lazy_refcounts=on", NULL };
	struct cow_chain *c;

	assert_int_equal(create("image", 4 * MIB, NULL, lazy), 0);
	assert_false(is_dirty());
	c = open_image("image");
	assert_true(is_dirty());
	write_byte(c, 'a', MIB, 0);
	assert_int_equal(cow_flush(c), 0);
	assert_true(is_dirty());
	cow_chain_close(c);
	assert_false(is_dirty());
	check_image(0);
	c = open_image("image");
	write_byte(c, 'b', MIB, MIB);
	cow_chain_close(c);		/* nothing was committed */
	assert_true(is_dirty());
	cow_chain_close(open_image("image"));
	assert_false(is_dirty());
	check_image(0);
	c = open_image("image");
	expect_byte(c, 'a', MIB, 0);
	cow_chain_close(c);
}

static void others_are_never_marked(void **state)
{
	struct cow_chain *c = new_image(4 * MIB, 0, 65536);

	write_byte(c, 'a', MIB, 0);
	assert_false(is_dirty());
	cow_chain_close(c);
	assert_false(is_dirty());
}

/* --- Options --------------------------------------------------------------------- */

static void wrong_options_are_refused(void **state)
{
	static const char *const wrong[][4] = {
		{ "cluster_size=1000", "power of two" },
		{ "cluster_size=4m", "power of two" },
		{ "refcount_bits=3", "1, 2, 4" },
		{ "refcount_bits=128", "1, 2, 4" },
		{ "compat=2.0", "0.10 or 1.1" },
		{ "extended_l2=yes", "on or off" },
		{ "lazy_refcounts=1", "on or off" },
		{ "compression_type=lzma", "zlib or zstd" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		const char *options[] = { wrong[i][0], NULL };

		said[0] = 0;
		assert_int_equal(create("wrong", MIB, NULL, options), -EINVAL);
		if (!strstr(said, wrong[i][1]))
			fail_msg("%s: \"%s\"", wrong[i][0], said);
		assert_int_equal(access("wrong", F_OK), -1);
	}
}

static void options_that_do_not_go_together_are_refused(void **state)
{
	static const char *const v2[] = { "compat=0.10", "extended_l2=on",
					  NULL };
	static const char *const small[] = { "cluster_size=8k",
					     "extended_l2=on", NULL };
	static const char *const huge[] = { "cluster_size=512", NULL };

	assert_int_equal(create("wrong", MIB, NULL, v2), -EINVAL);
	assert_int_equal(create("wrong", MIB, NULL, small), -EINVAL);
	assert_int_equal(create("wrong", 1ull << 40, NULL, huge), -EFBIG);
	assert_int_equal(create("wrong", 1ull << 63, NULL, NULL), -EINVAL);
}
#endif

/* --- Start ------------------------------------------------------------------------ */

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char path[256];

	signal(SIGXFSZ, SIG_IGN);
	snprintf(path, sizeof(path), "%s/" FORMAT "-rules.XXXXXX",
		 tmp ? tmp : "/tmp");
	if (!mkdtemp(path) || chdir(path))
		return -1;
	return cow_plugins_new(NULL, log_message, NULL, &plugins);
}

static int tear_down(void **state)
{
	char here[256];

	unlink("image");
	unlink("base");
	cow_plugins_free(plugins);
	return getcwd(here, sizeof(here)) && rmdir(here) ? -1 : 0;
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(
			consecutive_first_writes_ask_once_in_sixteen,
			(void *)65536),
		cmocka_unit_test_prestate(
			consecutive_first_writes_ask_once_in_sixteen,
			(void *)4096),
		cmocka_unit_test_prestate(
			consecutive_first_writes_ask_once_in_sixteen,
			(void *)512),
		T(an_image_in_order_is_one_mapping_a_table),
		T(a_failed_write_leaves_no_reference),
		T(a_freed_cluster_waits_for_the_commit),
		T(two_first_writes_at_once_get_one_place),
		T(a_place_in_use_is_refused),
		T(copied_may_come_twice),
		T(space_does_not_grow_under_fsync_churn),
		T(space_does_not_grow_by_opening),
		T(space_runs_out_at_each_step),
#ifndef QCOW_VERSION_1
		T(the_next_table_is_read_ahead),
		T(lazy_refcounts_mark_the_image_while_it_is_open),
		T(others_are_never_marked),
		T(wrong_options_are_refused),
		T(options_that_do_not_go_together_are_refused),
#endif
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
