// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * recorder - put a stamped load on an image by libcow, without a kernel, and
 * log in which order its file was written and synced.
 *
 *	recorder --image FORMAT --record FILE --log FILE [OPTION...] PATH [FILE...]
 *
 * FILEs are what the image keeps besides PATH.
 * With --kernel the data goes as the kernel target sends it: it asks once
 * where a block lives, copies, and tells what it copied when it commits.
 */
#include "die.h"
#include "interpose.h"
#include "load.h"
#include "stamp.h"

#include <libcow/cow.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOAD_BLOCK_MIN 4096u

/* What the simulated kernel remembers of a block. */
struct block {
	bool known, cow, copied, uncommitted;
	uint32_t file, src_file;
	uint64_t offset, src_offset;
};

struct target {
	struct cow_chain *chain;
	struct cow_chain_info info;
	struct block *blocks;
	uint8_t *copy;
};

/* --- By libcow alone ------------------------------------------------------ */

static int plain_flush(void *ctx)
{
	struct target *t = ctx;

	return cow_flush(t->chain);
}

static int plain_write(void *ctx, const void *buf, uint64_t len,
		       uint64_t offset, bool durable)
{
	struct target *t = ctx;
	int ret = cow_pwrite(t->chain, buf, len, offset);

	return ret || !durable ? ret : plain_flush(t);
}

static int plain_zero(void *ctx, uint64_t len, uint64_t offset)
{
	struct target *t = ctx;

	return cow_pwrite_zeroes(t->chain, offset, len);
}

static int plain_discard(void *ctx, uint64_t len, uint64_t offset)
{
	struct target *t = ctx;

	return cow_pdiscard(t->chain, offset, len);
}

/* --- As the kernel does --------------------------------------------------- */

static int fd_of(struct target *t, uint32_t file)
{
	struct cow_file_info info;

	if (cow_chain_file(t->chain, file, &info))
		die("file %u is not in the chain", file);
	return info.fd;
}

static void remember(struct cow_request *req, int status)
{
	const struct cow_answer *a = &req->answer;
	struct target *t = req->user;
	uint64_t i;

	for (i = 0; !status && i < a->count; i++) {
		struct block *b = &t->blocks[a->first + i];

		if (b->copied)
			continue;
		b->known = true;
		b->cow = a->kind == COW_KIND_COW;
		b->file = a->file;
		b->offset = a->offset + i * t->info.block_size;
		b->src_file = a->src_file;
		b->src_offset = a->src_offset + i * t->info.block_size;
		b->copied = !b->cow ||
			    (a->copied && a->copied[i / 8] >> i % 8 & 1);
	}
}

static int learn(struct target *t, uint64_t nr)
{
	struct cow_request req = {
		.op = COW_OP_MAP,
		.flags = COW_QUERY_WRITE,
		.first = nr,
		.count = 1,
		.done = remember,
		.user = t,
	};

	return t->blocks[nr].known ? 0 : cow_call(t->chain, &req);
}

static int copy_block(struct target *t, struct block *b)
{
	uint64_t len = t->info.block_size;

	memset(t->copy, 0, len);
	if (b->src_file != COW_NO_FILE &&
	    pread(fd_of(t, b->src_file), t->copy, len,
		  (off_t)b->src_offset) < 0)
		return -errno;
	if (pwrite(fd_of(t, b->file), t->copy, len, (off_t)b->offset) !=
	    (ssize_t)len)
		return -EIO;
	b->copied = true;
	b->uncommitted = true;
	return 0;
}

/* The part of one block. */
static int kernel_part(struct target *t, uint64_t nr, const void *buf,
		       uint64_t skip, uint64_t len)
{
	struct block *b = &t->blocks[nr];
	int ret = learn(t, nr);

	if (!ret && !b->copied && len != t->info.block_size)
		ret = copy_block(t, b);
	if (!ret && pwrite(fd_of(t, b->file), buf, len,
			   (off_t)(b->offset + skip)) != (ssize_t)len)
		ret = -EIO;
	if (!ret && !b->copied) {
		b->copied = true;
		b->uncommitted = true;
	}
	return ret;
}

static int tell_copied(struct target *t)
{
	uint64_t i;
	int ret = 0;

	for (i = 0; !ret && i < t->info.nr_blocks; i++) {
		struct block *b = &t->blocks[i];
		struct cow_request req = {
			.op = COW_OP_COPIED, .first = i, .count = 1,
			.file = b->file, .offset = b->offset,
		};

		if (b->uncommitted)
			ret = cow_call(t->chain, &req);
	}
	return ret;
}

static int kernel_flush(void *ctx)
{
	struct cow_request commit = {
		.op = COW_OP_COMMIT, .flags = COW_REQ_DATA_DURABLE,
	};
	struct target *t = ctx;
	uint64_t i;
	int ret;

	for (i = 0; i < t->info.nr_files; i++) {
		if (fdatasync(fd_of(t, (uint32_t)i)))
			return -errno;
	}
	ret = tell_copied(t);
	if (!ret)
		ret = cow_call(t->chain, &commit);
	for (i = 0; !ret && i < t->info.nr_blocks; i++)
		t->blocks[i].uncommitted = false;
	return ret;
}

static int kernel_write(void *ctx, const void *buf, uint64_t len,
			uint64_t offset, bool durable)
{
	struct target *t = ctx;
	const char *p = buf;
	int ret = 0;

	while (!ret && len) {
		uint64_t nr = offset / t->info.block_size;
		uint64_t skip = offset % t->info.block_size;
		uint64_t n = t->info.block_size - skip;

		n = n < len ? n : len;
		ret = kernel_part(t, nr, p, skip, n);
		p += n;
		offset += n;
		len -= n;
	}
	return ret || !durable ? ret : kernel_flush(t);
}

static int kernel_zero(void *ctx, uint64_t len, uint64_t offset)
{
	void *zeroes = xcalloc(1, len);
	int ret = kernel_write(ctx, zeroes, len, offset, false);

	free(zeroes);
	return ret;
}

/* Blocks that were not copied stay as they are. */
static int kernel_discard(void *ctx, uint64_t len, uint64_t offset)
{
	struct target *t = ctx;
	uint64_t bs = t->info.block_size, nr;

	for (nr = (offset + bs - 1) / bs; nr < (offset + len) / bs; nr++) {
		struct block *b = &t->blocks[nr];

		if (b->copied && fallocate(fd_of(t, b->file),
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)b->offset, (off_t)bs))
			return -errno;
	}
	return 0;
}

/* --- Start ---------------------------------------------------------------- */

static void mark(void *ctx, const char *name)
{
	interpose_mark(name);
}

static void open_target(struct target *t, const char *path, const char *format)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;

	if (cow_plugins_new(NULL, NULL, NULL, &p.plugins))
		die("no plugins");
	p.path = path;
	p.format = format;
	p.flags = COW_OPEN_WRITE;
	if (cow_chain_open(&p, &t->chain))
		die("%s: does not open", path);
	cow_chain_info(t->chain, &t->info);
	t->blocks = xcalloc(t->info.nr_blocks, sizeof(*t->blocks));
	t->copy = xcalloc(1, t->info.block_size);
}

static void be_kernel(struct load *l)
{
	l->write = kernel_write;
	l->zero = kernel_zero;
	l->discard = kernel_discard;
	l->flush = kernel_flush;
}

static const struct option options[] = {
	{ "image", required_argument, NULL, 'i' },
	{ "record", required_argument, NULL, 'r' },
	{ "log", required_argument, NULL, 'l' },
	{ "seed", required_argument, NULL, 's' },
	{ "ops", required_argument, NULL, 'n' },
	{ "flush", required_argument, NULL, 'f' },
	{ "zero", required_argument, NULL, 'z' },
	{ "kernel", no_argument, NULL, 'k' },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct target t = { 0 };
	struct load l = {
		.write = plain_write, .zero = plain_zero,
		.discard = plain_discard, .flush = plain_flush,
		.mark = mark, .ctx = &t, .seed = 1, .threads = 1, .ops = 200,
		.flush_percent = 15, .durable_percent = 5, .zero_percent = 30,
	};
	const char *format = NULL, *log_path = NULL;
	struct load_result res;
	struct log_writer log;
	int opt, i;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'i': format = optarg; break;
		case 'r': l.record = optarg; break;
		case 'l': log_path = optarg; break;
		case 's': l.seed = number(optarg, "--seed"); break;
		case 'n': l.ops = number(optarg, "--ops"); break;
		case 'f': l.flush_percent = (unsigned int)number(optarg, "--flush"); break;
		case 'z': l.zero_percent = (unsigned int)number(optarg, "--zero"); break;
		case 'k': be_kernel(&l); break;
		default: return 2;
		}
	}
	if (!format || !l.record || !log_path || optind >= argc)
		die("wants --image FORMAT, --record FILE, --log FILE and a path");
	open_target(&t, argv[optind], format);
	l.size = t.info.size;
	/* A sector has no room for the lanes of a load. */
	l.block_size = t.info.block_size < LOAD_BLOCK_MIN ? LOAD_BLOCK_MIN :
							    t.info.block_size;
	log_create(&log, log_path);
	interpose_file(argv[optind]);
	for (i = optind + 1; i < argc; i++)
		interpose_file(argv[i]);
	interpose_start(&log);
	load_run(&l, &res);
	interpose_stop();
	log_finish(&log);
	cow_chain_close(t.chain);
	printf("recorder: seed %llu: %llu writes, %llu flushes, %llu marks\n",
	       (unsigned long long)l.seed, (unsigned long long)res.writes,
	       (unsigned long long)res.flushes, (unsigned long long)res.marks);
	return 0;
}
