// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * model.c - a long random sequence of operations on a chain of images,
 * against the same sequence on an array in memory.
 *
 *	model SEED [STEPS]
 *
 * MODEL_FORMAT and MODEL_OPTIONS ("NAME=VALUE,...") say what the top image is.
 * The same seed does the same again.  Two ways lead to the data, chosen by
 * the seed: libcow's own (io.c), and a kernel as simulated here, which asks
 * once, remembers, copies by itself, reports what it copied late, and keeps
 * its state while the daemon dies and another one attaches.
 *
 * After a crash of the whole machine each block must read as what it was at
 * the last flush or, if it was written since, as that or as what it was at
 * the crash.
 */
#include <libcow/cow.h>

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DISK (6u << 20)

/* --- Chance --------------------------------------------------------------- */

static uint64_t rng;

static uint64_t chance(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 16) % below;
}

static void fill(uint8_t *buf, uint64_t len)
{
	uint64_t i, n = chance(UINT32_MAX);

	for (i = 0; i < len; i++) {
		n = n * 6364136223846793005ull + 1442695040888963407ull;
		buf[i] = (uint8_t)(n >> 56);
	}
}

/* --- The test ------------------------------------------------------------- */

enum block_state { UNKNOWN, LINEAR, LINEAR_RW, COW, ZERO };

/* What the kernel remembers of a block. */
/*
 * What a block was when it was emptied.  A commit may come at any time, also
 * by itself, so a crash may bring back each place that was given up since the
 * last flush, with all that was written to it; or nothing but zeroes.
 */
struct saved {
	struct saved *next;
	uint8_t data[];
};

struct block {
	enum block_state state;
	bool copied;		/* COW: stands at its place */
	bool uncommitted;	/* ... and no commit knows */
	bool touched;		/* written since the last flush */
	struct saved *saved;	/* what it was when it was emptied since then */
	uint32_t file, src_file;
	uint64_t offset, src_offset;
};

struct test {
	uint64_t seed, step;
	struct cow_plugins *plugins;
	struct cow_chain *chain;
	struct cow_chain_info info;
	const char *format;
	char block_option[64];
	bool kernel;		/* the simulated one, else io.c */
	uint8_t *now;		/* what the disk must read as */
	uint8_t *flushed;	/* what it read as at the last flush */
	uint8_t *buf;
	struct block *blocks;
};

static struct test t;
static const char *const top_path = "top.img";

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "model: seed %llu, step %llu: ",
		(unsigned long long)t.seed, (unsigned long long)t.step);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void must(int ret, const char *what)
{
	if (ret)
		die("%s: %s", what, strerror(-ret));
}

/* --- Attach and detach ---------------------------------------------------- */

static void attach(void)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	const char *options[] = { t.block_option, NULL };

	p.plugins = t.plugins;
	p.path = top_path;
	p.format = t.format;
	p.flags = COW_OPEN_WRITE;
	p.options = *t.block_option ? options : NULL;
	must(cow_chain_open(&p, &t.chain), "open");
	cow_chain_info(t.chain, &t.info);
}

/* What is not committed is lost to the daemon. */
static void detach(void)
{
	cow_chain_close(t.chain);
	t.chain = NULL;
}

static int fd_of(uint32_t file)
{
	struct cow_file_info info;

	must(cow_chain_file(t.chain, file, &info), "file");
	return info.fd;
}

static uint64_t block_len(uint64_t b)
{
	return num_min(t.info.block_size,
		       t.info.size - b * t.info.block_size);
}

/* --- The simulated kernel ------------------------------------------------- */

static void remember(struct cow_request *req, int status)
{
	const struct cow_answer *a = &req->answer;
	uint64_t i, bs = t.info.block_size;

	must(status, "map");
	if (a->first > req->first || a->first + a->count <= req->first ||
	    a->first + a->count > t.info.nr_blocks)
		die("answer for block %llu is %llu+%llu",
		    (unsigned long long)req->first,
		    (unsigned long long)a->first,
		    (unsigned long long)a->count);
	for (i = 0; i < a->count; i++) {
		struct block *b = &t.blocks[a->first + i];
		bool bit = a->copied && a->copied[i / 8] >> (i % 8) & 1;

		/* What is ours already is not for the daemon to say. */
		if (b->copied)
			continue;
		b->state = a->kind == COW_KIND_ZERO ? ZERO :
			   a->kind == COW_KIND_COW ? COW :
			   a->flags & COW_MAPPING_WRITABLE ? LINEAR_RW :
							      LINEAR;
		b->file = a->file;
		b->offset = a->offset + i * bs;
		b->src_file = a->src_file;
		b->src_offset = a->src_offset + i * bs;
		b->copied = bit;
	}
}

static void fault(uint64_t b, bool write, bool overwrite)
{
	struct cow_request req = {
		.op = COW_OP_MAP,
		.flags = (write ? COW_QUERY_WRITE : 0) |
			 (overwrite ? COW_QUERY_OVERWRITE : 0),
		.first = b,
		.count = 1,
		.done = remember,
	};

	/* Sometimes only a part of the disk is of interest. */
	if (chance(3) == 0) {
		req.limit_first = b - chance(b + 1);
		req.limit_end = b + 1 + chance(t.info.nr_blocks - b);
	}
	must(cow_call(t.chain, &req), "map");
}

static void read_source(const struct block *b, uint8_t *buf, uint64_t skip,
			uint64_t len)
{
	if (b->src_file == COW_NO_FILE)
		memset(buf, 0, len);
	else
		must(file_pread_all(fd_of(b->src_file), buf, len,
				    b->src_offset + skip), "read source");
}

static void kernel_read(uint64_t nr, uint64_t skip, uint8_t *buf,
			uint64_t len)
{
	struct block *b = &t.blocks[nr];

	if (b->state == UNKNOWN)
		fault(nr, false, false);
	if (b->state == ZERO)
		memset(buf, 0, len);
	else if (b->state == COW && !b->copied)
		read_source(b, buf, skip, len);
	else
		must(file_pread_all(fd_of(b->file), buf, len,
				    b->offset + skip), "read");
}

static void kernel_copy(uint64_t nr, bool skip_copy)
{
	struct block *b = &t.blocks[nr];
	uint64_t len = block_len(nr);
	uint8_t *copy = malloc(len);

	if (!skip_copy) {
		read_source(b, copy, 0, len);
		must(file_pwrite_all(fd_of(b->file), copy, len, b->offset),
		     "copy");
	}
	free(copy);
	b->copied = true;
	b->uncommitted = true;
}

static struct block *kernel_for_write(uint64_t nr, uint64_t len)
{
	struct block *b = &t.blocks[nr];
	bool whole = len == block_len(nr);

	if (b->state != COW && b->state != LINEAR_RW)
		fault(nr, true, whole);
	if (b->state == COW && !b->copied)
		kernel_copy(nr, whole);
	return b;
}

static void kernel_write(uint64_t nr, uint64_t skip, const uint8_t *buf,
			 uint64_t len)
{
	struct block *b = kernel_for_write(nr, len);

	must(file_pwrite_all(fd_of(b->file), buf, len, b->offset + skip),
	     "write");
}

static void punch(const struct block *b, uint64_t skip, uint64_t len)
{
	if (fallocate(fd_of(b->file), FALLOC_FL_PUNCH_HOLE |
		      FALLOC_FL_KEEP_SIZE, (off_t)(b->offset + skip),
		      (off_t)len) < 0)
		must(-errno, "punch");
}

/* Blocks that are neighbours, on the disk and at their place, go together. */
static void report_copied(void)
{
	uint64_t i, n;

	for (i = 0; i < t.info.nr_blocks; i += n) {
		const struct block *b = &t.blocks[i];
		struct cow_request req = {
			.op = COW_OP_COPIED,
			.first = i,
			.file = b->file,
			.offset = b->offset,
		};

		n = 1;
		if (!b->uncommitted)
			continue;
		while (i + n < t.info.nr_blocks && b[n].uncommitted &&
		       b[n].offset == b->offset + n * t.info.block_size &&
		       b[n].file == b->file && chance(20))
			n++;
		req.count = n;
		must(cow_call(t.chain, &req), "copied");
	}
}

static void kernel_flush(void)
{
	struct cow_request commit = {
		.op = COW_OP_COMMIT,
		.flags = COW_REQ_DATA_DURABLE,
	};
	uint64_t i;

	for (i = 0; i < t.info.nr_files; i++)
		fdatasync(fd_of((uint32_t)i));
	report_copied();
	must(cow_call(t.chain, &commit), "commit");
	for (i = 0; i < t.info.nr_blocks; i++)
		t.blocks[i].uncommitted = false;
}

/* The daemon died: delegations are revoked, copied blocks replayed. */
static void kernel_attach_again(void)
{
	uint64_t i;

	for (i = 0; i < t.info.nr_blocks; i++) {
		if (!t.blocks[i].uncommitted)
			t.blocks[i] = (struct block){
				.touched = t.blocks[i].touched,
				.saved = t.blocks[i].saved };
	}
	report_copied();
}

/* --- Operations ----------------------------------------------------------- */

struct range {
	uint64_t offset, len;
};

static struct range any_range(void)
{
	uint64_t max = num_min(t.info.size, chance(4) ?
			       3ull * t.info.block_size : MAX_DISK);
	struct range r;

	r.len = 1 + chance(max);
	r.offset = chance(t.info.size - r.len + 1);
	if (chance(2)) {
		r.offset = num_round_down(r.offset, t.info.block_size);
		r.len = num_min(num_round_up(r.len, t.info.block_size),
				t.info.size - r.offset);
	} else if (chance(2)) {
		r.offset = num_round_down(r.offset, 512);
		r.len = num_min(num_round_up(r.len, 512),
				t.info.size - r.offset);
	}
	return r;
}

/* Calls fn for the part of each block that the range covers. */
static void each_block(struct range r,
		       void (*fn)(uint64_t nr, uint64_t skip, uint64_t len))
{
	while (r.len) {
		uint64_t nr = r.offset / t.info.block_size;
		uint64_t skip = r.offset % t.info.block_size;
		uint64_t n = num_min(r.len, t.info.block_size - skip);

		fn(nr, skip, n);
		r.offset += n;
		r.len -= n;
	}
}

static void touch(uint64_t nr, uint64_t skip, uint64_t len)
{
	t.blocks[nr].touched = true;
}

static uint64_t at(uint64_t nr, uint64_t skip)
{
	return nr * t.info.block_size + skip;
}

static void forget_saved(struct block *b)
{
	struct saved *next;

	for (; b->saved; b->saved = next) {
		next = b->saved->next;
		free(b->saved);
	}
}

static void save_before(uint64_t nr, uint64_t skip, uint64_t len)
{
	struct block *b = &t.blocks[nr];
	struct saved *saved;

	b->touched = true;
	if (len != block_len(nr))
		return;
	saved = malloc(sizeof(*saved) + len);
	if (!saved)
		die("no memory");
	memcpy(saved->data, t.now + at(nr, 0), len);
	saved->next = b->saved;
	b->saved = saved;
}

static void read_part(uint64_t nr, uint64_t skip, uint64_t len)
{
	kernel_read(nr, skip, t.buf + at(nr, skip), len);
}

static void compare(struct range r, const char *when)
{
	uint64_t i;

	for (i = r.offset; i < r.offset + r.len; i++) {
		if (t.buf[i] != t.now[i])
			die("%s: byte %llu (block %llu) is %02x instead of %02x",
			    when, (unsigned long long)i,
			    (unsigned long long)(i / t.info.block_size),
			    t.buf[i], t.now[i]);
	}
}

static void load(struct range r)
{
	if (t.kernel)
		each_block(r, read_part);
	else
		must(cow_pread(t.chain, t.buf + r.offset, r.len, r.offset),
		     "pread");
}

static void op_read(void)
{
	struct range r = any_range();

	load(r);
	compare(r, "read");
}

static void write_part(uint64_t nr, uint64_t skip, uint64_t len)
{
	kernel_write(nr, skip, t.now + at(nr, skip), len);
}

static void op_write(void)
{
	struct range r = any_range();

	fill(t.now + r.offset, r.len);
	each_block(r, touch);
	if (t.kernel)
		each_block(r, write_part);
	else
		must(cow_pwrite(t.chain, t.now + r.offset, r.len, r.offset),
		     "pwrite");
}

/* The image does it; what was reported and what it did is committed. */
static void native_zero(uint64_t nr, enum cow_op op)
{
	struct cow_request req = { .op = op, .first = nr, .count = 1 };
	struct cow_request commit = { .op = COW_OP_COMMIT };

	if (t.blocks[nr].uncommitted)
		report_copied();
	must(cow_call(t.chain, &req), "native discard");
	t.blocks[nr] = (struct block){ .touched = true };
	must(cow_call(t.chain, &commit), "commit of a discard");
	memset(t.now + at(nr, 0), 0, block_len(nr));
	/* Durable by itself. */
	memset(t.flushed + at(nr, 0), 0, block_len(nr));
}

static void zero_part(uint64_t nr, uint64_t skip, uint64_t len)
{
	if (t.info.can_write_zeroes && len == block_len(nr) && chance(2))
		native_zero(nr, COW_OP_WRITE_ZEROES);
	else
		punch(kernel_for_write(nr, len), skip, len);
}

static void op_zeroes(void)
{
	struct range r = any_range();

	each_block(r, save_before);
	memset(t.now + r.offset, 0, r.len);
	if (t.kernel)
		each_block(r, zero_part);
	else
		must(cow_pwrite_zeroes(t.chain, r.offset, r.len), "zeroes");
}

/* Whole blocks that are ours are emptied, others stay as they are. */
static void discard_part(uint64_t nr, uint64_t skip, uint64_t len)
{
	struct block *b = &t.blocks[nr];

	if (len != block_len(nr))
		return;
	if (t.info.can_discard) {
		native_zero(nr, COW_OP_DISCARD);
		return;
	}
	if (b->state == UNKNOWN)
		fault(nr, false, false);
	if (b->state != LINEAR_RW && !b->copied)
		return;
	punch(b, skip, len);
	b->touched = true;
	memset(t.now + at(nr, 0), 0, len);
}

/* What a discard did is for the image to choose: old contents or zeroes. */
static void settle_discard(uint64_t nr, uint64_t skip, uint64_t len)
{
	uint8_t *is = t.buf + at(nr, 0), *was = t.now + at(nr, 0);
	uint64_t i, n = block_len(nr);

	for (i = 0; i < n && !is[i]; i++)
		;
	if (len != n || (i < n && memcmp(is, was, n)))
		i = 0;
	else
		memcpy(was, is, n);
	t.blocks[nr].touched = true;
}

static void op_discard(void)
{
	struct range r = any_range();

	if (t.kernel) {
		each_block(r, discard_part);
		return;
	}
	each_block(r, save_before);
	must(cow_pdiscard(t.chain, r.offset, r.len), "discard");
	load((struct range){ 0, t.info.size });
	each_block(r, settle_discard);
	compare(r, "discard");
}

static void op_flush(void)
{
	uint64_t i;

	if (t.kernel)
		kernel_flush();
	else
		must(cow_flush(t.chain), "flush");
	memcpy(t.flushed, t.now, t.info.size);
	for (i = 0; i < t.info.nr_blocks; i++) {
		t.blocks[i].touched = false;
		forget_saved(&t.blocks[i]);
	}
}

static void check_image(void);

/* May a crash leave this block, written since the last flush, as it is? */
static bool may_be(const struct block *b, uint64_t from, uint64_t n)
{
	static const uint8_t zeroes[4096];
	const struct saved *saved;
	uint64_t i;

	if (!memcmp(t.buf + from, t.flushed + from, n))
		return true;
	for (saved = b->saved; saved; saved = saved->next)
		if (!memcmp(t.buf + from, saved->data, n))
			return true;
	for (i = 0; b->saved && i < n; i += sizeof(zeroes))
		if (memcmp(t.buf + from + i, zeroes,
			   num_min(n - i, sizeof(zeroes))))
			return false;
	return b->saved;
}

/* The machine goes down: the kernel's state is lost as well. */
static void op_crash(void)
{
	uint64_t i;

	detach();
	attach();
	check_image();
	for (i = 0; i < t.info.nr_blocks; i++)
		t.blocks[i] = (struct block){
			.touched = t.blocks[i].touched,
			.saved = t.blocks[i].saved };
	load((struct range){ 0, t.info.size });
	for (i = 0; i < t.info.nr_blocks; i++) {
		uint64_t from = at(i, 0), n = block_len(i);

		if (t.blocks[i].touched && may_be(&t.blocks[i], from, n))
			memcpy(t.now + from, t.buf + from, n);
	}
	compare((struct range){ 0, t.info.size }, "crash");
	op_flush();
}

/* The daemon dies; the kernel, and so the data, goes on. */
static void op_daemon_death(void)
{
	if (!t.kernel) {
		op_crash();
		return;
	}
	detach();
	attach();
	kernel_attach_again();
}

/* --- Images --------------------------------------------------------------- */

static uint32_t any_block_size(uint32_t least, uint32_t most)
{
	return least << chance(__builtin_ctz(most / least) + 1);
}

/* What the format may be created with. */
static uint32_t block_size_of(const char *format)
{
	if (!strcmp(format, "qcow"))
		return any_block_size(512, 64u << 10);
	return any_block_size(4096, 1u << 20);
}

static void make_base(uint64_t size)
{
	int fd = open("base.img", O_CREAT | O_TRUNC | O_RDWR, 0666);

	if (fd < 0)
		must(-errno, "base.img");
	must(file_pwrite_all(fd, t.now, size, 0), "base.img");
	close(fd);
}

static void make_overlay(const char *path, const char *own_format,
			 const char *base, const char *format)
{
	static char text[256];
	static const char *options[8];
	struct cow_create_params p = {
		.plugins = t.plugins,
		.path = path,
		.format = own_format,
		.block_size = block_size_of(own_format),
		.options = options,
		.backing_path = base,
		.backing_format = format,
		.force = true,
	};
	unsigned int i;

	memset(options, 0, sizeof(options));
	if (path == top_path && getenv("MODEL_OPTIONS")) {
		snprintf(text, sizeof(text), "%s", getenv("MODEL_OPTIONS"));
		options[0] = strtok(text, ",");
		for (i = 1; i < 7 && options[i - 1]; i++)
			options[i] = strtok(NULL, ",");
	}
	must(cow_create_image(&p), "create");
}

/* An overlay between base and top, some of whose blocks are written. */
static void write_middle(const char *format)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain_info info;
	struct cow_chain *c;
	unsigned int i;

	p.plugins = t.plugins;
	p.path = "middle.img";
	p.format = format;
	p.flags = COW_OPEN_WRITE;
	must(cow_chain_open(&p, &c), "open middle");
	cow_chain_info(c, &info);
	for (i = 0; i < 8; i++) {
		uint64_t len = 1 + chance(num_min(100000, info.size));
		uint64_t offset = chance(info.size - len + 1);

		fill(t.now + offset, len);
		must(cow_pwrite(c, t.now + offset, len, offset), "middle");
	}
	must(cow_flush(c), "flush middle");
	cow_chain_close(c);
}

static uint64_t any_size(bool odd)
{
	uint64_t size = 1 + chance(chance(3) ? MAX_DISK : 20000);

	return odd ? size : num_round_up(size, 512);
}

static void prepare_raw(void)
{
	uint64_t size = any_size(false);

	fill(t.now, size);
	make_base(size);
	must(rename("base.img", top_path) ? -errno : 0, "rename");
	t.format = "raw";
	snprintf(t.block_option, sizeof(t.block_option), "block-size=%u",
		 any_block_size(512, 1u << 20));
}

/* middle_format: of an image between the two, or "raw" for none. */
static void prepare_overlay(const char *format, const char *middle_format)
{
	uint64_t size = any_size(chance(2));
	bool middle = chance(2) && strcmp(middle_format, "raw");

	fill(t.now, size);
	make_base(size);
	if (middle) {
		make_overlay("middle.img", middle_format, "base.img", "raw");
		write_middle(middle_format);
	}
	make_overlay(top_path, format, middle ? "middle.img" : "base.img",
		     middle ? middle_format : "raw");
	t.format = format;
}

static void make_alone(const char *path, const char *format)
{
	struct cow_create_params p = {
		.plugins = t.plugins,
		.path = path,
		.format = format,
		.size = any_size(chance(2)),
		.block_size = block_size_of(format),
		.force = true,
	};

	must(cow_create_image(&p), "create");
}

/* Over one or two of the same format, where there can be no other. */
static void prepare_self(const char *format)
{
	make_alone("middle.img", format);
	write_middle(format);
	if (chance(2)) {
		must(rename("middle.img", "base.img") ? -errno : 0, "rename");
		make_overlay("middle.img", format, "base.img", format);
		write_middle(format);
	}
	make_overlay(top_path, format, "middle.img", format);
	t.format = format;
}

/*
 * MODEL_FORMAT=NAME tests another format than dscow; MODEL_BASE says over
 * what: none, raw, self for images of that format, or the format of an image
 * between it and the raw base.
 */
static void prepare_format(const char *format)
{
	const char *base = getenv("MODEL_BASE");

	if (!base)
		base = strcmp(format, "toy") ? "dscow" : "raw";
	t.format = format;
	if (!strcmp(base, "none"))
		make_alone(top_path, format);
	else if (!strcmp(base, "self"))
		prepare_self(format);
	else
		prepare_overlay(format, base);
}

static void prepare(void)
{
	t.now = calloc(1, MAX_DISK + 4096);
	t.flushed = calloc(1, MAX_DISK + 4096);
	t.buf = calloc(1, MAX_DISK + 4096);
	if (!t.now || !t.flushed || !t.buf)
		die("no memory");
	t.kernel = chance(2);
	if (getenv("MODEL_FORMAT"))
		prepare_format(getenv("MODEL_FORMAT"));
	else if (chance(4))
		prepare_format("dscow");
	else
		prepare_raw();
	attach();
	t.blocks = calloc(t.info.nr_blocks, sizeof(*t.blocks));
	memcpy(t.flushed, t.now, t.info.size);
	printf("seed %llu: %s, %s, %llu bytes, blocks of %u, %u files\n",
	       (unsigned long long)t.seed, t.kernel ? "kernel" : "io",
	       t.format, (unsigned long long)t.info.size, t.info.block_size,
	       t.info.nr_files);
	load((struct range){ 0, t.info.size });
	compare((struct range){ 0, t.info.size }, "at first");
}

/* Whatever happened, there must be no damage. */
static void check_image(void)
{
	struct cow_check_result result;

	if (!strcmp(t.format, "raw"))
		return;
	must(cow_chain_check(t.chain, false, NULL, NULL, &result), "check");
	if (result.corrupt)
		die("%llu damaged", (unsigned long long)result.corrupt);
}

static void one_step(void)
{
	uint64_t n = chance(100);

	if (n < 35)
		op_write();
	else if (n < 70)
		op_read();
	else if (n < 80)
		op_flush();
	else if (n < 88)
		op_zeroes();
	else if (n < 95)
		op_discard();
	else if (n < 98)
		op_daemon_death();
	else
		op_crash();
}

int main(int argc, char **argv)
{
	uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 300;

	if (argc < 2) {
		fprintf(stderr, "usage: model SEED [STEPS]\n");
		return 1;
	}
	t.seed = strtoull(argv[1], NULL, 0);
	rng = t.seed * 0x9e3779b97f4a7c15ull + 1;
	must(cow_plugins_new(NULL, NULL, NULL, &t.plugins), "plugins");
	prepare();
	for (t.step = 1; t.step <= steps; t.step++)
		one_step();
	op_flush();
	detach();
	attach();
	memset(t.blocks, 0, t.info.nr_blocks * sizeof(*t.blocks));
	load((struct range){ 0, t.info.size });
	compare((struct range){ 0, t.info.size }, "at last");
	check_image();
	detach();
	cow_plugins_free(t.plugins);
	free(t.blocks);
	free(t.now);
	free(t.flushed);
	free(t.buf);
	return 0;
}
