// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-calls.c - what libcow promises a plugin that dscow and raw do not ask
 * for.  Uses the plugin toy; test-plugin.sh builds it and runs this.
 */
#include <libcow/cow.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define IN_USE_AT 52u		/* in the header of toy */
#define SIZE (48 * MIB)
#define BLOCK 512u		/* 98304 of them: 192 tables */

static struct cow_plugins *plugins;

#define MUST(what) must((what), #what, __LINE__)

static void must(int ok, const char *what, int line)
{
	if (!ok) {
		fprintf(stderr, "test-calls.c:%d: not so: %s\n", line, what);
		exit(1);
	}
}

static struct cow_chain *attach(const char *option)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	const char *options[] = { option, NULL };
	struct cow_chain *c;

	p.plugins = plugins;
	p.path = "calls.toy";
	p.format = "toy";
	p.flags = COW_OPEN_WRITE;
	p.options = option ? options : NULL;
	MUST(!cow_chain_open(&p, &c));
	return c;
}

static void make_image(void)
{
	struct cow_create_params p = {
		.plugins = plugins,
		.path = "calls.toy",
		.format = "toy",
		.block_size = BLOCK,
		.backing_path = "calls.base",
		.backing_format = "raw",
		.force = true,
	};
	int fd = open("calls.base", O_CREAT | O_TRUNC | O_RDWR, 0666);

	MUST(fd >= 0 && !ftruncate(fd, SIZE));
	close(fd);
	MUST(!cow_create_image(&p));
}

static int in_use(void)
{
	int fd = open("calls.toy", O_RDONLY);
	char byte = 2;

	MUST(pread(fd, &byte, 1, IN_USE_AT) == 1);
	close(fd);
	return byte;
}

/* cow_commit_first(): it is in the file before the write is let through. */
static void commit_comes_first(void)
{
	struct cow_chain *c = attach(NULL);
	char byte = 1;

	MUST(!in_use());
	MUST(!cow_pwrite(c, &byte, 1, 0));
	MUST(in_use());
	cow_chain_close(c);
}

/* ->finish() is called when all is durable, and only then. */
static void finish_when_settled(void)
{
	struct cow_chain *c;
	char byte = 1;

	MUST(in_use());
	c = attach(NULL);
	MUST(!cow_pwrite(c, &byte, 1, 70000));
	MUST(!cow_flush(c));
	cow_chain_close(c);
	MUST(!in_use());
}

/* Changes come in steps: none needs more tables than a request may hold. */
static void changes_in_steps(void)
{
	struct cow_chain *c = attach(NULL);
	char byte = 1;

	MUST(!cow_pwrite_zeroes(c, 0, SIZE));
	MUST(!cow_pdiscard(c, 0, SIZE));
	MUST(!cow_pread(c, &byte, 1, 70000));
	MUST(!byte);
	MUST(!cow_flush(c));
	cow_chain_close(c);
}

/* cow_image_fixed_places(): discards and zeroes go to the places. */
static void fixed_places(void)
{
	struct cow_chain *c = attach("fixed=1");
	struct cow_request req = { .op = COW_OP_DISCARD, .count = 1 };
	struct cow_chain_info info;
	struct cow_where where;
	char block[BLOCK];

	cow_chain_info(c, &info);
	MUST(!info.can_discard && !info.can_write_zeroes);
	MUST(cow_call(c, &req) == -EOPNOTSUPP);
	req.op = COW_OP_WRITE_ZEROES;
	MUST(cow_call(c, &req) == -EOPNOTSUPP);
	memset(block, 7, sizeof(block));
	MUST(!cow_pwrite(c, block, sizeof(block), 4096));
	MUST(!cow_pwrite_zeroes(c, 4096, sizeof(block)));
	MUST(!cow_pread(c, block, sizeof(block), 4096));
	MUST(!block[0] && !block[BLOCK - 1]);
	MUST(!cow_where(c, 4096, sizeof(block), &where));
	MUST(where.held && !where.zero);
	cow_chain_close(c);
}

static unsigned int errors;

static void count_errors(void *ctx, enum cow_log_level level, const char *text)
{
	errors += level == COW_LOG_ERROR;
	fprintf(stderr, "%s\n", text);
}

/* cow_table_expect(): more reads fail than the cache has room, and nobody is told. */
static void expected_in_vain(void)
{
	struct cow_chain *c = attach("ahead=only");
	struct cow_stats stats;
	char byte = 1;
	uint64_t i;

	cow_chain_stats(c, &stats);
	for (i = 0; i < 3 * stats.cache_bytes / 4096; i++)
		MUST(!cow_pread(c, &byte, 1, i * BLOCK));
	MUST(!errors);
	MUST(!cow_flush(c));
	cow_chain_close(c);
}

/* A new table where such a read failed: who makes it does not mind. */
static void new_where_reads_fail(void)
{
	struct cow_chain *c = attach("ahead=new");
	char byte = 1;

	MUST(!cow_pread(c, &byte, 1, 0));
	MUST(!cow_flush(c));
	cow_chain_close(c);
}

static void next_data(void)
{
	struct cow_chain *c = attach(NULL);
	struct cow_image *base = cow_chain_image(c, 1);
	int fd = open("calls.base", O_RDWR);
	struct cow_hole last = { 0 };
	uint64_t at;
	bool hole;

	MUST(pwrite(fd, "x", 1, 9 * MIB + 5) == 1);
	MUST(!cow_file_next_data(base, 0, 0, &at));
	MUST(at <= 9 * MIB + 5);
	MUST(!cow_file_next_data(base, 0, 9 * MIB + 5, &at));
	MUST(at == 9 * MIB + 5);
	MUST(!cow_file_next_data(base, 0, 20 * MIB, &at));
	MUST(at >= 20 * MIB && at <= SIZE);
	MUST(cow_file_next_data(base, 1, 0, &at) == -EINVAL);
	MUST(cow_file_is_hole(base, 1, &last, 0, 1, &hole) == -EINVAL);
	/* What was found is remembered, and an end beyond it is none of the hole. */
	MUST(!cow_file_is_hole(base, 0, &last, 9 * MIB + 5, 1, &hole) && !hole);
	MUST(!cow_file_is_hole(base, 0, &last, 20 * MIB, MIB, &hole));
	MUST(hole == (last.to >= 21 * MIB));
	MUST(!cow_file_is_hole(base, 0, &last, 20 * MIB, SIZE, &hole) && !hole);
	close(fd);
	cow_chain_close(c);
}

int main(void)
{
	MUST(!cow_plugins_new(NULL, count_errors, NULL, &plugins));
	make_image();
	commit_comes_first();
	finish_when_settled();
	changes_in_steps();
	fixed_places();
	expected_in_vain();
	new_where_reads_fail();
	next_data();
	cow_plugins_free(plugins);
	return 0;
}
