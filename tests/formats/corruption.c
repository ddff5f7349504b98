// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * corruption.c - a test for each way in which formats of this kind have lost
 * data elsewhere; README.md has the table.
 *
 *	corruption FORMAT [NAME]	all tests of a format, or those whose
 *					name has NAME in it
 *
 * Each runs in a process of its own, in an empty folder, for each variant of
 * the format.  The kernel is simulated: it asks where a block lives, moves the
 * data, and tells what it copied when it commits.  disk.c fails where asked.
 */
#include "disk.h"

#include <libcow/cow.h>

#include <common/bits.h>
#include <common/diskint.h>
#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define SECTOR 512u
#define UNIT 4096u		/* that contents are told apart by */
#define DISK (4 * MIB)
#define UNITS (DISK / UNIT)

struct variant {
	const char *format, *name;
	const char *base;		/* format of what is below, or NULL */
	uint32_t block;			/* as for cowimg create -s */
	const char *options[3];
	/* Counts may be late on disk, if the image says so: counted anew. */
	bool lazy;
	/*
	 * MiB that a file grows further under churn. Of small clusters one commit frees fewer,
	 * and on a busy machine a write comes before it: after 300 rounds it had grown by 5 to
	 * 20 MiB, after 1200 by 13 to 17. So there are more rounds here; if nothing were used
	 * again they would take 100.
	 */
	uint32_t slack;
	/* Makes "image" instead of us: a command. */
	const char *make;
	/*
	 * What a compressed cluster is that is written in part: commands that
	 * make "image" of the raw file "plain".  NULL: see why_not.
	 */
	const char *compressed, *why_not;
};

/* qemu-img 7.2 ends with status 1 when it was to compress. */
#define QCOW_COMPRESSED \
	"qemu-img convert -c -f raw -O qcow plain image;" \
	"qemu-img compare -f raw -F qcow plain image"
#define QCOW2_COMPRESSED(options) \
	"qemu-img convert -c -f raw -O qcow2 -o cluster_size=16k" options \
	" plain image"
#define STREAM \
	"qemu-img convert -f raw -O vmdk -o subformat=streamOptimized plain base &&" \
	"qemu-img create -q -f vmdk -b base -F vmdk image"

static const struct variant variants[] = {
	{ .format = "dscow", .name = "over a base", .base = "raw",
	  .block = 4096, .why_not = "it has none" },
	{ .format = "qcow", .name = "alone", .block = 4096,
	  .compressed = QCOW_COMPRESSED },
	{ .format = "qcow", .name = "over a base", .base = "raw",
	  .block = 4096, .compressed = QCOW_COMPRESSED },
	{ .format = "qcow", .name = "with tables of many clusters",
	  .options = { "cluster_size=512", "l2_bits=13" },
	  .compressed = QCOW_COMPRESSED },
	{ .format = "qcow", .name = "with many tables",
	  .options = { "cluster_size=512", "l2_bits=6" },
	  .compressed = QCOW_COMPRESSED },
	{ .format = "qcow2", .name = "alone", .block = 4096,
	  .compressed = QCOW2_COMPRESSED("") },
	{ .format = "qcow2", .name = "over a base", .base = "raw",
	  .block = 4096, .compressed =
	  QCOW2_COMPRESSED(",compression_type=zstd") },
	{ .format = "qcow2", .name = "with lazy refcounts", .base = "raw",
	  .block = 4096, .options = { "lazy_refcounts=on" }, .lazy = true,
	  .compressed = QCOW2_COMPRESSED(",lazy_refcounts=on") },
	{ .format = "qcow2", .name = "with subclusters", .base = "raw",
	  .options = { "extended_l2=on", "cluster_size=16k" },
	  .compressed = QCOW2_COMPRESSED(",extended_l2=on") },
	{ .format = "qcow2", .name = "with many tables", .base = "raw",
	  .options = { "cluster_size=1k" }, .slack = 20,
	  .compressed = QCOW2_COMPRESSED(",cluster_size=1k") },
	{ .format = "qcow2", .name = "with a snapshot", .make =
	  "qemu-img create -q -f qcow2 -o cluster_size=4k image 4194304 &&"
	  "qemu-io -f qcow2 -c 'write -q -P 0 0 4M' image &&"
	  "qemu-img snapshot -c s image",
	  .compressed = QCOW2_COMPRESSED(" plain image && qemu-img snapshot -c s image #") },
	{ .format = "qcow2", .name = "of version 2",
	  .options = { "compat=0.10" },
	  .compressed = QCOW2_COMPRESSED(",compat=0.10") },
	{ .format = "vhd", .name = "dynamic", .block = 65536,
	  .why_not = "it has none" },
	{ .format = "vhd", .name = "differencing", .base = "raw",
	  .block = 65536, .why_not = "it has none" },
	{ .format = "vmdk", .name = "alone", .block = 4096,
	  .compressed = STREAM },
	{ .format = "vmdk", .name = "over a base", .base = "vmdk",
	  .block = 4096, .compressed = STREAM },
	{ .format = "vmdk", .name = "without tables", .block = 65536,
	  .make = "python3 \"$FORMATS_SRC/vmdk-make.py\" untabled image 4194304",
	  .compressed = STREAM },
	{ .format = "vmdk", .name = "without tables, of small grains",
	  .make = "python3 \"$FORMATS_SRC/vmdk-make.py\" untabled image 4194304 8",
	  .compressed = STREAM },
};

static const struct variant *variant;
static struct cow_plugins *plugins;
static struct cow_chain *chain;
static struct cow_chain_info info;

static void fail(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *fmt, ...)
{
	va_list ap;

	fputs("#	", stdout);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

#define MUST(condition) do { \
	if (!(condition)) \
		fail("line %d: " #condition, __LINE__); \
} while (0)

/* --- Images ----------------------------------------------------------------- */

static uint8_t base_byte(void)
{
	return variant->base ? 'b' : 0;
}

/* Metadata by direct I/O would go past disk.c. */
static int open_buffered(void *ctx, const char *path, int flags)
{
	int fd;

	if (flags & O_DIRECT)
		return -EINVAL;
	fd = open(path, flags & ~COW_OPEN_FILE_SHARED);
	return fd < 0 ? -errno : fd;
}

static struct cow_chain *open_as(const char *path, const char *format,
				 uint32_t flags)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain *c;

	p.plugins = plugins;
	p.path = path;
	p.format = format;
	p.flags = flags;
	p.open_file = open_buffered;
	if (cow_chain_open(&p, &c))
		fail("%s does not open%s", path,
		     flags & COW_OPEN_WRITE ? " for writing" : "");
	return c;
}

static void open_image(void)
{
	chain = open_as("image", variant->format, COW_OPEN_WRITE);
	cow_chain_info(chain, &info);
}

static void close_image(void)
{
	cow_chain_close(chain);
	chain = NULL;
}

static void write_bytes(struct cow_chain *c, uint8_t byte, uint64_t len,
			uint64_t offset)
{
	uint8_t *buf = malloc(len);

	memset(buf, byte, len);
	MUST(!cow_pwrite(c, buf, len, offset));
	free(buf);
}

static void make_raw(const char *path, uint8_t byte)
{
	uint8_t *buf = malloc(DISK);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);

	memset(buf, byte, DISK);
	MUST(fd >= 0 && !file_pwrite_all(fd, buf, DISK, 0));
	close(fd);
	free(buf);
}

static void create(const char *path, const char *format, const char *base)
{
	struct cow_create_params p = {
		.plugins = plugins,
		.path = path,
		.format = format,
		.size = base ? 0 : DISK,
		.block_size = variant->block,
		.backing_path = base,
		.backing_format = variant->base,
		.options = base || !variant->base ? variant->options : NULL,
		.force = true,
	};

	MUST(!cow_create_image(&p));
}

static void make_base(void)
{
	struct cow_chain *c;

	if (!strcmp(variant->base, "raw")) {
		make_raw("base", base_byte());
		return;
	}
	create("base", variant->base, NULL);
	c = open_as("base", variant->base, COW_OPEN_WRITE);
	write_bytes(c, base_byte(), DISK, 0);
	MUST(!cow_flush(c));
	cow_chain_close(c);
}

static void new_image(void)
{
	unlink("image");
	if (variant->base && access("base", F_OK))
		make_base();
	if (variant->make)
		MUST(!system(variant->make));
	else
		create("image", variant->format,
		       variant->base ? "base" : NULL);
	disk_watch("image");
	open_image();
	MUST(info.size == DISK);
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	MUST(!stat(path, &st));
	return (uint64_t)st.st_size;
}

/* A file that is cut to nothing first would be written out when it is closed. */
static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out;
	off_t at = 0, end;

	unlink(to);
	out = open(to, O_CREAT | O_WRONLY, 0666);
	MUST(in >= 0 && out >= 0);
	MUST(!ftruncate(out, (off_t)file_bytes(from)));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		end = lseek(in, at, SEEK_HOLE);
		MUST(lseek(out, at, SEEK_SET) == at && lseek(in, at, SEEK_SET) == at);
		for (; at < end; at = lseek(in, 0, SEEK_CUR))
			MUST(sendfile(out, in, NULL, (size_t)(end - at)) > 0);
	}
	MUST(errno == ENXIO);
	close(in);
	close(out);
}

static void say_finding(void *ctx, const struct cow_finding *f)
{
	if (f->severity == COW_FOUND_CORRUPT)
		printf("#	%s\n", f->text);
}

/* A VHD ends behind the last place that was given, used or not. */
static bool leaks_places(void)
{
	return !strcmp(variant->format, "vhd");
}

/* What was given up in a qcow image is lost to who does not look for it. */
static bool leaks_freed(void)
{
	return !strcmp(variant->format, "qcow");
}

/* No damage; space may be lost where leaks says so. */
static void check(struct cow_chain *c, bool leaks)
{
	struct cow_check_result result;

	MUST(!cow_chain_check(c, false, say_finding, NULL, &result));
	MUST(!result.corrupt);
	MUST(leaks || !result.leaks);
}

#define DIRTY_AT 79		/* the byte of qcow2's dirty bit */
#define L1_TABLE_AT	40
#define VHD_TABLE_AT (512 + 16)	/* where the offset of its block table is */
#define REFTABLE_AT 48		/* where its refcount table is */

/* Is it marked?  Only then may counts be wrong. */
static bool is_dirty(const char *path)
{
	int fd = open(path, O_RDONLY);
	uint8_t byte;

	MUST(fd >= 0 && !file_pread_all(fd, &byte, 1, DIRTY_AT));
	close(fd);
	return byte & 1;
}

/* What opens a lazy image for writing puts it right. */
static void recover(const char *path)
{
	if (variant->lazy && is_dirty(path))
		cow_chain_close(open_as(path, variant->format,
					COW_OPEN_WRITE));
}

static void check_closed(bool leaks)
{
	struct cow_chain *c;

	recover("image");
	c = open_as("image", variant->format, 0);
	check(c, leaks);
	cow_chain_close(c);
}

/* --- Contents --------------------------------------------------------------- */

static void expect(struct cow_chain *c, uint8_t byte, uint64_t len,
		   uint64_t offset)
{
	uint8_t *buf = malloc(len);
	uint64_t i;

	MUST(!cow_pread(c, buf, len, offset));
	for (i = 0; i < len; i++) {
		if (buf[i] != byte)
			fail("byte %llu reads as %02x instead of %02x",
			     (unsigned long long)(offset + i), buf[i], byte);
	}
	free(buf);
}

/* Some units written, and flushed. */
static void write_some(void)
{
	write_bytes(chain, 'a', 64 * UNIT, 0);
	MUST(!cow_flush(chain));
}

/* --- The simulated kernel --------------------------------------------------- */

struct place {
	bool copied;		/* and no commit knows of it */
	uint32_t file;
	uint64_t offset;
};

static struct place *places;		/* of each block */
static struct cow_answer answer;	/* for block asked */
static bool copied_before;

static void keep_answer(struct cow_request *req, int status)
{
	answer = req->answer;
	copied_before = !status && answer.copied &&
		bits_test(answer.copied, req->first - answer.first);
}

static int ask(uint64_t block, uint32_t flags)
{
	struct cow_request req = {
		.op = COW_OP_MAP,
		.flags = flags,
		.first = block,
		.count = 1,
		.done = keep_answer,
	};

	return cow_call(chain, &req);
}

static int fd_of(uint32_t file)
{
	struct cow_file_info f;

	MUST(!cow_chain_file(chain, file, &f));
	return f.fd;
}

/* Where the block stands, or would stand if it were written. */
static struct place place_of(uint64_t block)
{
	MUST(!ask(block, COW_QUERY_WRITE));
	return (struct place){
		.file = answer.file,
		.offset = answer.offset +
			  (block - answer.first) * info.block_size,
	};
}

/* Up to the disk's end. */
static int copy_block(uint64_t block, const struct place *p)
{
	uint64_t len = num_min(info.block_size, info.size - block * info.block_size);
	uint8_t *buf = calloc(1, info.block_size);
	int ret = 0;

	if (answer.src_file != COW_NO_FILE)
		ret = file_pread_all(fd_of(answer.src_file), buf,
				     len, answer.src_offset +
				     (block - answer.first) * info.block_size);
	if (!ret)
		ret = file_pwrite_all(fd_of(p->file), buf, len, p->offset);
	free(buf);
	return ret;
}

/* Where a block can be written now; it is copied first if need be. */
static int kernel_place(uint64_t block, struct place *p)
{
	int ret;

	*p = places[block];
	if (p->copied)
		return 0;
	ret = ask(block, COW_QUERY_WRITE);
	if (ret)
		return ret;
	p->file = answer.file;
	p->offset = answer.offset + (block - answer.first) * info.block_size;
	if (answer.kind == COW_KIND_LINEAR || copied_before)
		return 0;
	ret = copy_block(block, p);
	if (ret)
		return ret;
	p->copied = true;
	places[block] = *p;
	return 0;
}

static int kernel_write(uint8_t byte, uint64_t len, uint64_t offset)
{
	uint32_t bs = info.block_size;
	uint8_t *buf = malloc(bs);
	struct place p;
	uint64_t n;
	int ret = 0;

	memset(buf, byte, bs);
	if (!places)
		places = calloc(info.nr_blocks, sizeof(*places));
	for (; !ret && len; offset += n, len -= n) {
		n = num_min(len, bs - offset % bs);
		ret = kernel_place(offset / bs, &p);
		if (!ret)
			ret = file_pwrite_all(fd_of(p.file), buf, n,
					      p.offset + offset % bs);
	}
	free(buf);
	return ret;
}

/* All that was copied since the last flush. */
static int kernel_tell(void)
{
	uint64_t i;
	int ret = 0;

	for (i = 0; !ret && places && i < info.nr_blocks; i++) {
		struct cow_request copied = {
			.op = COW_OP_COPIED, .first = i, .count = 1,
			.file = places[i].file, .offset = places[i].offset,
		};

		if (places[i].copied)
			ret = cow_call(chain, &copied);
	}
	return ret;
}

static int kernel_flush(void)
{
	struct cow_request commit = {
		.op = COW_OP_COMMIT, .flags = COW_REQ_DATA_DURABLE,
	};
	uint64_t i;
	int ret;

	for (i = 0; i < info.nr_files; i++)
		fdatasync(fd_of((uint32_t)i));
	ret = kernel_tell();
	if (!ret)
		ret = cow_call(chain, &commit);
	for (i = 0; !ret && places && i < info.nr_blocks; i++)
		places[i].copied = false;
	return ret;
}

/* --- A pointer before what it points to ------------------------------------- */

#define EVENTS 16
#define FLUSHES 32

/* What each unit was, in order; and what of that each flush made durable. */
static struct history {
	uint8_t was[UNITS][EVENTS], nr[UNITS];
	struct {
		uint64_t epoch;
		uint8_t nr[UNITS];
	} flush[FLUSHES];
	unsigned int nr_flushes;
} history;

static void note(uint8_t byte, uint64_t first, uint64_t count)
{
	for (; count; first++, count--) {
		MUST(history.nr[first] < EVENTS);
		history.was[first][history.nr[first]++] = byte;
	}
}

static void note_flush(void)
{
	MUST(history.nr_flushes < FLUSHES);
	history.flush[history.nr_flushes].epoch = disk_epoch();
	memcpy(history.flush[history.nr_flushes++].nr, history.nr,
	       sizeof(history.nr));
}

static void put(uint8_t byte, uint64_t first, uint64_t count)
{
	MUST(!kernel_write(byte, count * UNIT, first * UNIT));
	note(byte, first, count);
}

static void put_zeroes(uint64_t first, uint64_t count)
{
	MUST(!cow_pwrite_zeroes(chain, first * UNIT, count * UNIT));
	note(0, first, count);
}

static void flush(void)
{
	MUST(!kernel_flush());
	note_flush();
}

/* First writes, writes in place, places given up and used again. */
static void some_history(void)
{
	put('c', 0, 8);
	put('d', 64, 16);
	flush();
	put('e', 70, 20);
	put('f', 200, 3);
	flush();
	put_zeroes(0, 64);
	flush();
	put('g', 300, 8);
	put_zeroes(64, 16);
	flush();
	flush();
	put('h', 0, 32);
	put('i', 512, 40);
	flush();
	put('j', 520, 8);
	put_zeroes(0, 16);
	put('k', 1000, 24);
	flush();
	flush();
	put('l', 0, 24);
}

/* What is written in place is whole by sectors. */
static bool may_be(uint64_t epoch, uint64_t unit, const uint8_t *is)
{
	unsigned int f = history.nr_flushes - 1, i;

	if (memcmp(is, is + 1, SECTOR - 1))
		return false;
	while (history.flush[f].epoch > epoch)
		f--;
	for (i = history.flush[f].nr[unit] - 1u; i < history.nr[unit]; i++) {
		if (history.was[unit][i] == *is)
			return true;
	}
	return false;
}

static unsigned int late_counts;

static void look_for_late_counts(const char *path)
{
	struct cow_chain *c = open_as(path, variant->format, 0);
	struct cow_check_result result;

	MUST(!cow_chain_check(c, false, NULL, NULL, &result));
	cow_chain_close(c);
	late_counts += result.corrupt > 0;
	recover(path);
}

static void look_at_cut(uint64_t epoch, enum disk_cut cut, uint64_t write)
{
	static uint8_t buf[DISK];
	struct cow_chain *c;
	uint64_t i;

	copy_file("start", "cut");
	MUST(!truncate("cut", (off_t)file_bytes("image")));
	disk_replay("cut", epoch, cut, write);
	if (variant->lazy)
		look_for_late_counts("cut");
	c = open_as("cut", variant->format, 0);
	check(c, true);
	MUST(!cow_pread(c, buf, DISK, 0));
	for (i = 0; i < DISK; i += SECTOR) {
		if (!may_be(epoch, i / UNIT, buf + i))
			fail("cut in epoch %llu, %s write %llu: byte %llu reads as %02x",
			     (unsigned long long)epoch, cut == DISK_ONLY ?
			     "with" : "without", (unsigned long long)write,
			     (unsigned long long)i, buf[i]);
	}
	cow_chain_close(c);
}

static void begin_history(void)
{
	new_image();
	write_some();
	note(base_byte(), 0, UNITS);
	note('a', 0, 64);
	copy_file("image", "start");
	disk_record();
	note_flush();
}

/*
 * Of what is written between two syncs the disk may keep any part: so with
 * each write alone, and with all but that one, the image must be sound.
 */
static void nothing_is_referred_to_before_it_is_durable(void)
{
	uint64_t epoch, write, n;

	begin_history();
	some_history();
	MUST(disk_epoch() > 10);
	for (epoch = 0; epoch < disk_epoch(); epoch++) {
		n = disk_writes(epoch);
		/* Data is written unit by unit: some of these will do. */
		for (write = 0; write < n; write += num_div_up(n, 12)) {
			look_at_cut(epoch, DISK_ONLY, write);
			look_at_cut(epoch, DISK_WITHOUT, write);
		}
		look_at_cut(epoch, DISK_ONLY, n - 1);
		look_at_cut(epoch, DISK_WITHOUT, n - 1);
	}
	close_image();
	MUST(!late_counts == !variant->lazy);
}

/* --- A write that failed ---------------------------------------------------- */

/* The copy failed: the kernel reports nothing. */
static void a_failed_copy_leaves_no_reference(void)
{
	new_image();
	write_some();
	place_of(64 * UNIT / info.block_size);
	place_of(DISK / info.block_size - 1);
	MUST(!cow_flush(chain));
	expect(chain, base_byte(), DISK - 64 * UNIT, 64 * UNIT);
	close_image();
	check_closed(leaks_places());
	open_image();
	expect(chain, 'a', 64 * UNIT, 0);
	expect(chain, base_byte(), DISK - 64 * UNIT, 64 * UNIT);
	close_image();
}

static void a_failed_write_leaves_no_reference(void)
{
	uint64_t unit = 256, block;
	uint8_t buf[3 * UNIT];
	struct place p;

	new_image();
	write_some();
	block = unit * UNIT / info.block_size;
	p = place_of(block);
	disk_break(p.offset, info.block_size);
	memset(buf, 'x', sizeof(buf));
	MUST(cow_pwrite(chain, buf, UNIT, unit * UNIT) == -EIO);
	MUST(!cow_flush(chain));
	expect(chain, base_byte(), DISK - 64 * UNIT, 64 * UNIT);
	disk_break(0, 0);
	MUST(!cow_pwrite(chain, buf, sizeof(buf), unit * UNIT));
	MUST(!cow_flush(chain));
	close_image();
	check_closed(false);
	open_image();
	expect(chain, 'a', 64 * UNIT, 0);
	expect(chain, 'x', sizeof(buf), unit * UNIT);
	expect(chain, base_byte(), (unit - 64) * UNIT, 64 * UNIT);
	close_image();
}

/*
 * Killed at each write of a commit; the next one is told again of what was copied, and
 * commits it. At first the high half is written to, whose tables are there, then the low.
 */
static bool killed_at(uint64_t write)
{
	bool killed;

	new_image();
	MUST(!kernel_write('a', 4 * UNIT, DISK / 2));
	MUST(!kernel_flush());
	MUST(!kernel_write('b', 8 * UNIT, DISK / 2 + 64 * UNIT));
	MUST(!kernel_write('c', 8 * UNIT, 16 * UNIT));
	MUST(!kernel_write('d', 2 * UNIT, DISK / 2));
	disk_kill_from(write);
	killed = kernel_flush();
	close_image();
	disk_kill_from(DISK_NEVER);
	open_image();
	MUST(!kernel_flush());
	expect(chain, 'd', 2 * UNIT, DISK / 2);
	expect(chain, 'a', 2 * UNIT, DISK / 2 + 2 * UNIT);
	expect(chain, 'b', 8 * UNIT, DISK / 2 + 64 * UNIT);
	expect(chain, 'c', 8 * UNIT, 16 * UNIT);
	close_image();
	check_closed(true);
	return killed;
}

/*
 * Killed before any commit. Its tables are not there, and are made anew as the kernel tells
 * of what was copied, in the order of the disk: not where something lies that is still to
 * be told of.
 */
static void tables_keep_off_what_was_copied(void)
{
	const uint64_t step = 16 * UNIT;
	uint64_t at;

	new_image();
	MUST(!kernel_write('a', UNIT, DISK / 2));
	MUST(!kernel_flush());
	for (at = DISK - step; at; at -= step)
		MUST(!kernel_write((uint8_t)(at / step), UNIT, at + UNIT));
	close_image();
	open_image();
	MUST(!kernel_flush());
	expect(chain, 'a', UNIT, DISK / 2);
	for (at = DISK - step; at; at -= step)
		expect(chain, (uint8_t)(at / step), UNIT, at + UNIT);
	close_image();
	check_closed(true);
}

static void a_commit_is_taken_up_by_the_next_process(void)
{
	uint64_t write;

	for (write = 0; killed_at(write); write++)
		;
	MUST(write > 0 || !strcmp(variant->format, "raw"));
}

/*
 * The image on a block device that is larger by so much, held something else
 * before, and is no multiple of a cluster.
 */
static void put_on_a_device(uint64_t more)
{
	uint64_t from = file_bytes("image"), bytes = num_round_up(from + more, MIB) + SECTOR;
	uint8_t *buf = malloc(bytes - from);
	int fd = open("image", O_WRONLY);

	memset(buf, 0xdb, bytes - from);
	MUST(fd >= 0 && !file_pwrite_all(fd, buf, bytes - from, from));
	close(fd);
	free(buf);
	disk_is_device();
}

/* Its footer is at the end of what it was on: it can be written as far as it goes. */
static void a_vhd_on_a_device_stays_where_it_is(void)
{
	uint64_t bytes;

	if (strcmp(variant->format, "vhd"))
		return;
	new_image();
	write_some();
	close_image();
	bytes = file_bytes("image");
	put_on_a_device(4 * DISK);
	open_image();
	MUST(!kernel_write('b', 8 * UNIT, 4 * UNIT));
	MUST(kernel_write('c', UNIT, DISK / 2) == -ENOSPC);
	MUST(!kernel_flush());
	close_image();
	disk_watch("image");
	MUST(!truncate("image", (off_t)bytes));
	check_closed(false);
	open_image();
	expect(chain, 'a', 4 * UNIT, 0);
	expect(chain, 'b', 8 * UNIT, 4 * UNIT);
	expect(chain, 'a', 52 * UNIT, 12 * UNIT);
	close_image();
}

/* What an earlier process was told of is given up, free, and used again. */
static void give_up_and_write(uint8_t byte, uint64_t len, uint64_t offset)
{
	if (info.can_discard) {
		MUST(!cow_pdiscard(chain, offset, len));
		MUST(!cow_flush(chain) && !cow_flush(chain));
	}
	MUST(!kernel_write(byte, len, offset));
}

/*
 * On a block device, killed before each commit: who comes next is told of what was copied,
 * and finds places for its tables, which lie neither there nor where those before it are.
 * All formats but VHD, which cannot grow on a device.
 */
static void a_device_is_taken_up_again_and_again(void)
{
	const uint64_t part = DISK / 8;
	uint64_t round, at;

	if (!strcmp(variant->format, "vhd"))
		return;
	new_image();
	close_image();
	put_on_a_device(4 * DISK);
	for (round = 0; round < 8; round++) {
		open_image();
		MUST(!kernel_flush());
		if (round)
			give_up_and_write((uint8_t)('a' + round), part, (round - 1) * part);
		MUST(!kernel_write((uint8_t)('A' + round), part, round * part));
		close_image();
	}
	open_image();
	MUST(!kernel_flush());
	for (at = 0; at < DISK; at += part)
		expect(chain, (uint8_t)(at / part < 7 ? 'b' + at / part : 'H'), part, at);
	close_image();
	check_closed(true);
}

/*
 * Here and there, so that each write wants a table, until there is no space; killed before
 * a commit of that. Who comes next is told of all, and finds it in order, again and again.
 * Not VHD and dscow, which never want space on a device.
 */
static void a_full_device_is_taken_up_again_and_again(void)
{
	const uint64_t step = 37;	/* no divisor of UNITS */
	uint8_t holds[UNITS] = { 0 };
	bool in_part[UNITS] = { false };
	uint64_t round, nr, unit = 0;
	int ret;

	if (!strcmp(variant->format, "vhd") || !strcmp(variant->format, "dscow"))
		return;
	new_image();
	close_image();
	put_on_a_device(DISK / 4);
	for (round = 0; round < 4; round++) {
		open_image();
		MUST(!kernel_flush());
		for (nr = 0, ret = 0; !ret && nr < UNITS; nr++) {
			unit = (unit + step) % UNITS;
			ret = kernel_write((uint8_t)('a' + round), UNIT, unit * UNIT);
			/* A unit may be several clusters, and written in part. */
			holds[unit] = ret ? 0 : (uint8_t)('a' + round);
			in_part[unit] = ret;
		}
		MUST(ret == -ENOSPC);
		close_image();
	}
	open_image();
	MUST(!kernel_flush());
	for (unit = 0; unit < UNITS; unit++)
		if (!in_part[unit])
			expect(chain, holds[unit] ? holds[unit] : base_byte(),
			       UNIT, unit * UNIT);
	close_image();
	check_closed(true);
}

static void patch(const char *path, const void *bytes, size_t len, uint64_t offset)
{
	int fd = open(path, O_WRONLY);

	MUST(fd >= 0 && !file_pwrite_all(fd, bytes, len, offset));
	close(fd);
}

/* Not closed properly by another program, and no block of refcounts left. */
static void lose_refcounts(void)
{
	const uint8_t none[8] = { 0 };
	uint8_t features;
	be64 reftable;
	int fd;

	fd = open("image", O_RDONLY);
	MUST(fd >= 0 && !file_pread_all(fd, &reftable, sizeof(reftable), REFTABLE_AT) &&
	     !file_pread_all(fd, &features, 1, DIRTY_AT));
	close(fd);
	features |= 1;
	patch("image", none, sizeof(none), be64_get(reftable));
	patch("image", &features, 1, DIRTY_AT);
}

static void refcounts_are_made_anew_on_a_device(void)
{
	uint64_t round;

	/* Version 2 has no such mark. */
	if (strcmp(variant->format, "qcow2") || !strcmp(variant->name, "of version 2"))
		return;
	new_image();
	write_some();
	MUST(!kernel_flush());
	close_image();
	put_on_a_device(2 * DISK);
	for (round = 0; round < 4; round++) {
		lose_refcounts();
		open_image();
		MUST(!kernel_write((uint8_t)('n' + round), 8 * UNIT, (128 + 64 * round) * UNIT));
		MUST(!kernel_flush());
		close_image();
		check_closed(true);
	}
	open_image();
	expect(chain, 'a', UNIT, 0);
	for (round = 0; round < 4; round++)
		expect(chain, (uint8_t)('n' + round), 8 * UNIT, (128 + 64 * round) * UNIT);
	close_image();
}

/* By qemu-img: zeroes, whatever became of the disk. */
static void a_snapshot_keeps_what_it_holds(void)
{
	if (strcmp(variant->name, "with a snapshot"))
		return;
	new_image();
	MUST(!kernel_write('s', DISK, 0));
	MUST(!kernel_flush());
	MUST(!cow_pdiscard(chain, DISK / 4, DISK / 2));
	MUST(!kernel_flush());
	MUST(!kernel_write('t', DISK / 4, DISK / 2));
	MUST(!kernel_flush());
	close_image();
	check_closed(false);
	MUST(!system("qemu-img convert -f qcow2 -l snapshot.name=s -O raw image held &&"
		     "cmp -n 4194304 held /dev/zero"));
}

/* The disk ends within a cluster, whose rest held something else: made larger it reads as zero. */
static void the_tail_of_the_last_cluster_is_zero(void)
{
	if (strcmp(variant->format, "qcow2") || variant->base)
		return;
	MUST(!system("qemu-img create -q -f qcow2 image 1049088"));
	disk_watch("image");
	put_on_a_device(DISK);
	open_image();
	MUST(!kernel_write('t', SECTOR, MIB));
	MUST(!kernel_flush());
	close_image();
	MUST(!system("qemu-img resize -q -f qcow2 image +64k"));
	open_image();
	expect(chain, 't', SECTOR, MIB);
	expect(chain, 0, 65536, MIB + SECTOR);
	close_image();
}

/* When that cannot be written the place waits for who asks again. */
static void a_tail_that_fails_loses_no_place(void)
{
	struct place p;
	uint64_t last;

	if (strcmp(variant->format, "qcow2") || variant->base)
		return;
	MUST(!system("qemu-img create -q -f qcow2 image 1049088"));
	disk_watch("image");
	open_image();
	MUST(!kernel_write('t', SECTOR, 0));
	MUST(!kernel_flush());
	last = info.nr_blocks - 1;
	close_image();
	open_image();
	p = place_of(last);
	close_image();
	open_image();
	disk_break(p.offset, info.block_size);
	MUST(ask(last, COW_QUERY_WRITE) == -EIO);
	disk_break(0, 0);
	MUST(place_of(last).offset == p.offset);
	MUST(!kernel_write('u', SECTOR, MIB));
	MUST(!kernel_flush());
	close_image();
	check_closed(false);
}

/* However much was told again, here 32 slices of refcounts: the space behind it is found. */
static void space_is_behind_what_was_told_again(void)
{
	static const struct variant small = {
		.format = "qcow2", .options = { "cluster_size=512" },
	};

	if (strcmp(variant->format, "qcow2"))
		return;
	variant = &small;
	new_image();
	close_image();
	put_on_a_device(4 * DISK);
	open_image();
	MUST(!kernel_write('a', DISK - UNIT, 0));
	close_image();
	open_image();
	MUST(!kernel_flush());
	MUST(!kernel_write('b', UNIT, DISK - UNIT));
	MUST(!kernel_flush());
	expect(chain, 'a', DISK - UNIT, 0);
	expect(chain, 'b', UNIT, DISK - UNIT);
	close_image();
	check_closed(true);
}

/* --- Places given up -------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* A format that gives no place up keeps the same one for ever. */
static void places_stay(const uint64_t *old, uint64_t blocks)
{
	uint64_t i;

	MUST(!cow_flush(chain));
	close_image();
	open_image();
	for (i = 0; i < blocks; i++)
		MUST(place_of(i).offset == old[i]);
	close_image();
}

/* Written and given up again and again: that takes all other space. */
static void use_other_places(const uint64_t *old, uint64_t blocks)
{
	uint64_t i, j, at, round;

	for (round = 0; round < 8; round++) {
		for (i = 0; i < blocks; i++) {
			at = place_of(i).offset;
			for (j = 0; j < blocks; j++)
				MUST(!overlap(at, info.block_size, old[j],
					      info.block_size));
		}
		write_bytes(chain, 'x', DISK / 4, 0);
		MUST(!cow_pdiscard(chain, 0, DISK / 4));
	}
}

static void a_freed_place_waits_for_the_commit(void)
{
	uint64_t blocks, *old, i;

	new_image();
	write_bytes(chain, 'a', DISK, 0);
	MUST(!cow_flush(chain));
	blocks = DISK / 4 / info.block_size;
	old = calloc(blocks, sizeof(*old));
	for (i = 0; i < blocks; i++)
		old[i] = place_of(i).offset;
	MUST(!cow_pdiscard(chain, 0, DISK / 4));
	if (!info.can_discard) {
		places_stay(old, blocks);
		return;
	}
	use_other_places(old, blocks);
	/* No commit: the machine stops. */
	close_image();
	open_image();
	expect(chain, 'a', DISK, 0);
	close_image();
	free(old);
}

/* --- Two at once ------------------------------------------------------------ */

static unsigned int nr_done;
static struct cow_answer both[2];

static void keep_both(struct cow_request *req, int status)
{
	MUST(!status);
	both[nr_done++] = req->answer;
}

static void ask_twice(uint64_t block)
{
	struct cow_request req[2];
	int i;

	for (i = 0; i < 2; i++)
		req[i] = (struct cow_request){
			.op = COW_OP_MAP, .flags = COW_QUERY_WRITE,
			.first = block, .count = 1, .limit_first = block,
			.limit_end = block + 1, .done = keep_both,
		};
	cow_submit(chain, &req[0]);
	cow_submit(chain, &req[1]);
	while (nr_done < 2) {
		usleep(1000);
		cow_dispatch(chain);
	}
}

/* Both are told the same; both writes are there, and what was below. */
static void two_first_writes_at_once_get_one_place(void)
{
	uint64_t unit = 300, block, half;
	struct place p;

	new_image();
	block = unit * UNIT / info.block_size;
	half = info.block_size / 2;
	ask_twice(block);
	MUST(both[0].kind == COW_KIND_COW && both[1].kind == COW_KIND_COW);
	MUST(both[0].offset == both[1].offset && both[0].file == both[1].file);
	places = calloc(info.nr_blocks, sizeof(*places));
	MUST(!kernel_place(block, &p) && p.offset == both[0].offset);
	MUST(!kernel_write('1', 10, block * info.block_size));
	MUST(!kernel_write('2', 10, block * info.block_size + half));
	MUST(!kernel_flush());
	places[block].copied = true;	/* the other one tells, too */
	MUST(!kernel_flush());
	close_image();
	check_closed(false);
	open_image();
	expect(chain, '1', 10, block * info.block_size);
	expect(chain, base_byte(), half - 10, block * info.block_size + 10);
	expect(chain, '2', 10, block * info.block_size + half);
	expect(chain, base_byte(), half - 10,
	       block * info.block_size + half + 10);
	close_image();
}

/* --- Metadata on the free list ---------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void no_two_overlap(struct place *p)
{
	uint64_t i;

	qsort(p, info.nr_blocks, sizeof(*p), by_offset);
	for (i = 1; i < info.nr_blocks; i++)
		MUST(p[i].offset >= p[i - 1].offset + info.block_size);
}

/* Whatever stands before the first place is not for data. */
static void refuses_up_to(uint64_t end)
{
	uint64_t at, step = end > 256 * KIB ? UNIT : 512;

	for (at = 0; at < end; at += step) {
		struct cow_request copied = {
			.op = COW_OP_COPIED, .first = 0, .count = 1,
			.offset = at,
		};

		if (cow_call(chain, &copied) != -EINVAL)
			fail("block 0 may stand at offset %llu, where metadata is",
			     (unsigned long long)at);
	}
}

static void metadata_is_never_given(void)
{
	struct place *p;
	uint64_t i;

	new_image();
	write_some();
	MUST(!cow_pdiscard(chain, 0, DISK / 2));
	MUST(!cow_flush(chain) && !cow_flush(chain));
	p = calloc(info.nr_blocks, sizeof(*p));
	MUST(!kernel_write('m', DISK, 0));
	MUST(!kernel_flush());
	for (i = 0; i < info.nr_blocks; i++)
		p[i] = place_of(i);
	no_two_overlap(p);
	close_image();
	check_closed(false);
	open_image();
	expect(chain, 'm', DISK, 0);
	close_image();
	/* And in a new one, where block 0 has no place yet. */
	new_image();
	refuses_up_to(p[0].offset);
	close_image();
	free(p);
}

/* --- Space under fsync churn ------------------------------------------------ */

static void churn(uint64_t rounds)
{
	uint64_t i;

	for (i = 0; i < rounds; i++) {
		uint64_t at = i * 7 % 16 * (DISK / 16);

		MUST(!cow_pwrite_zeroes(chain, at, DISK / 16));
		MUST(!cow_flush(chain));
		write_bytes(chain, (uint8_t)i, DISK / 16, at);
		MUST(!cow_flush(chain));
	}
}

static void space_is_bounded_under_fsync_churn(void)
{
	uint64_t start, i;

	new_image();
	write_bytes(chain, 'a', DISK, 0);
	MUST(!cow_flush(chain));
	start = file_bytes("image");
	churn(variant->slack ? 400 : 100);
	for (i = 0; i < 20; i++) {
		close_image();
		open_image();
		churn(2);
	}
	close_image();
	if (file_bytes("image") > start + DISK + MIB + variant->slack * MIB)
		fail("it has grown from %llu to %llu bytes",
		     (unsigned long long)start,
		     (unsigned long long)file_bytes("image"));
	check_closed(leaks_freed());
}

/* --- Compressed clusters ---------------------------------------------------- */

static uint8_t plain[DISK];

static void make_plain(void)
{
	uint64_t i;
	int fd = open("plain", O_CREAT | O_TRUNC | O_WRONLY, 0666);

	for (i = 0; i < DISK; i++)
		plain[i] = (uint8_t)(i / UNIT * 31 + i % 7);
	MUST(fd >= 0 && !file_pwrite_all(fd, plain, DISK, 0));
	close(fd);
}

static void expect_plain(void)
{
	static uint8_t buf[DISK];
	uint64_t i;

	MUST(!cow_pread(chain, buf, DISK, 0));
	for (i = 0; i < DISK && buf[i] == plain[i]; i++)
		;
	if (i < DISK)
		fail("byte %llu reads as %02x instead of %02x",
		     (unsigned long long)i, buf[i], plain[i]);
}

static void other_program_reads_plain(void)
{
	char command[128];
	int fd = open("plain", O_WRONLY);

	MUST(fd >= 0 && !file_pwrite_all(fd, plain, DISK, 0));
	close(fd);
	snprintf(command, sizeof(command),
		 "qemu-img compare -q -f %s -F raw image plain",
		 variant->format);
	MUST(!system(command));
}

/* Neighbours share host clusters: one that is given up must not take them. */
static void a_compressed_cluster_partly_overwritten_keeps_the_rest(void)
{
	uint64_t i, at;

	make_plain();
	MUST(!system(variant->compressed));
	open_image();
	MUST(info.size == DISK);
	for (i = 0; i < 24; i++) {
		at = i * 5 * 16 * KIB % DISK + i * 700;
		if (i % 2)
			write_bytes(chain, (uint8_t)i, 512, at);
		else
			MUST(!kernel_write((uint8_t)i, 512, at));
		memset(plain + at, (int)i, 512);
		if (i % 3 == 0)
			MUST(!kernel_flush());
		if (i % 6 == 0)
			expect_plain();
	}
	MUST(!kernel_flush());
	close_image();
	check_closed(false);
	open_image();
	expect_plain();
	close_image();
	other_program_reads_plain();
}

/*
 * The sync that a write into a compressed cluster of subclusters needs fails: what other
 * writes left in the file's cache may be gone with it, and the next sync does not tell.
 */
static void a_failed_sync_of_a_plugin_holds_the_commit(void)
{
	make_plain();
	MUST(!system(variant->compressed));
	disk_watch("image");
	open_image();
	MUST(!kernel_write('a', SECTOR, MIB));
	disk_break_sync(EIO);
	MUST(kernel_write('b', SECTOR, 2 * MIB) == -EIO ||
	     disk_sync_is_broken());
	if (!disk_sync_is_broken()) {
		MUST(cow_flush(chain) == -EIO);
		MUST(cow_flush(chain) == -EIO);
		MUST(cow_failed_syncs(chain) == 1);
	} else if (strstr(variant->name, "subclusters")) {
		fail("the plugin did not sync");
	}
	disk_release();
	MUST(!kernel_flush());
	MUST(!cow_flush(chain));
	close_image();
	check_closed(false);
}

/* After a first write of its neighbours that no commit covers: committed data is read. */
static void a_commit_that_is_held_holds_no_read(void)
{
	make_plain();
	MUST(!system(variant->compressed));
	disk_watch("image");
	open_image();
	MUST(!kernel_write('c', SECTOR, 2 * MIB));
	MUST(!kernel_flush());
	MUST(!kernel_write('a', SECTOR, MIB));
	MUST(!kernel_write('b', SECTOR, 3 * MIB));
	MUST(!kernel_tell());
	disk_break_sync(EIO);
	MUST(cow_flush(chain) == -EIO);
	MUST(!ask(2 * MIB / info.block_size, 0));
	MUST(answer.kind == COW_KIND_LINEAR);
	MUST(!(answer.flags & COW_MAPPING_ONCE));
	disk_release();
	MUST(!kernel_flush());
	close_image();
	check_closed(false);
}

/* The caller has it still: a commit says nothing of one that failed and comes again. */
static void a_copied_that_comes_again_fails_no_commit(void)
{
	struct cow_request copied = {
		.op = COW_OP_COPIED, .flags = COW_REQ_AGAIN, .count = 1,
		.offset = SECTOR,	/* that is metadata */
	};

	make_plain();
	MUST(!system(variant->compressed));
	open_image();
	MUST(cow_call(chain, &copied));
	MUST(!cow_flush(chain));
	copied.flags = 0;
	MUST(cow_call(chain, &copied));
	MUST(cow_flush(chain));
	MUST(!cow_flush(chain));
	close_image();
	check_closed(false);
}

static bool told_once(uint64_t block)
{
	MUST(!ask(block, 0));
	MUST(answer.kind == COW_KIND_LINEAR);
	return answer.flags & COW_MAPPING_ONCE;
}

/* Killed, and opened again: the block stands where the answer said. */
static void outlives_a_kill(uint64_t block)
{
	uint64_t place;

	MUST(answer.kind == COW_KIND_LINEAR);
	place = answer.offset + (block - answer.first) * info.block_size;
	disk_kill_from(0);
	close_image();
	disk_kill_from(DISK_NEVER);
	open_image();
	MUST(!ask(block, 0));
	MUST(answer.kind == COW_KIND_LINEAR);
	MUST(place == answer.offset + (block - answer.first) * info.block_size);
	close_image();
	check_closed(true);
}

static void discard_a_part(bool shared)
{
	struct cow_request discard = {
		.op = COW_OP_DISCARD, .first = 0, .count = 8,
	};

	make_plain();
	MUST(!system(variant->compressed));
	MUST(!shared || !system("qemu-img snapshot -c s image"));
	disk_watch("image");
	open_image();
	MUST(!cow_call(chain, &discard));
}

/*
 * Part of a compressed cluster is discarded, the rest unpacked.  Where that lies is told to
 * the kernel, which remembers it, when whoever comes after a kill finds it there as well.
 */
static void a_place_that_is_told_outlives_a_kill(void)
{
	if (!strstr(variant->name, "subclusters"))
		return;
	discard_a_part(false);
	MUST(told_once(20));
	MUST(!kernel_flush());
	MUST(!told_once(20));
	outlives_a_kill(20);

	discard_a_part(false);
	MUST(!ask(20, COW_QUERY_WRITE));
	outlives_a_kill(20);
}

/* The same, but its L2 table is durable, and the L1 entry that leads there is not. */
static void a_place_is_told_when_all_that_leads_to_it_is_durable(void)
{
	be64 l1;
	int fd;

	if (!strstr(variant->name, "subclusters"))
		return;
	discard_a_part(true);
	fd = open("image", O_RDONLY);
	MUST(fd >= 0 && !file_pread_all(fd, &l1, sizeof(l1), L1_TABLE_AT));
	close(fd);
	disk_break(be64_get(l1), SECTOR);
	MUST(cow_flush(chain) == -EIO);
	MUST(ask(20, COW_QUERY_WRITE) == -EIO);
	MUST(told_once(20));
	disk_break(0, 0);
	MUST(!ask(20, COW_QUERY_WRITE));
	outlives_a_kill(20);
}

/* Of a fixed disk of so many bytes, made of the one of the image. */
static void forge_footer(uint8_t *footer, uint64_t bytes)
{
	be64 size = be64_put(bytes);
	be32 fixed = be32_put(2), sum = be32_put(0);
	int fd = open("image", O_RDONLY), i;
	uint32_t total = 0;

	MUST(fd >= 0 && !file_pread_all(fd, footer, SECTOR, 0));
	close(fd);
	memcpy(footer + 48, &size, sizeof(size));
	memcpy(footer + 60, &fixed, sizeof(fixed));
	memcpy(footer + 64, &sum, sizeof(sum));
	for (i = 0; i < (int)SECTOR; i++)
		total += footer[i];
	sum = be32_put(~total);
	memcpy(footer + 64, &sum, sizeof(sum));
}

/* No footer at the end, where the last block is: its last sector is the user's. */
static void a_user_makes_no_other_disk_of_it(void)
{
	const uint64_t last = 64 * KIB - SECTOR;
	uint8_t footer[SECTOR];

	if (strcmp(variant->format, "vhd"))
		return;
	new_image();
	MUST(!kernel_write('a', 16 * UNIT, 0));
	MUST(!kernel_flush());
	close_image();
	MUST(!truncate("image", (off_t)(file_bytes("image") - SECTOR)));
	forge_footer(footer, 16 * KIB);
	open_image();
	MUST(!cow_pwrite(chain, footer, sizeof(footer), last));
	close_image();
	open_image();
	MUST(info.size == DISK);
	expect(chain, 'a', last, 0);
	close_image();
	check_closed(true);
}

/* 32 entries past the end of the file: a repair frees them, and syncs all at once. */
static void entries_are_repaired_together(void)
{
	struct cow_check_result result;
	be32 bad[32];
	struct cow_chain *c;
	be64 table;
	int fd, i;

	if (strcmp(variant->format, "vhd"))
		return;
	new_image();
	write_some();
	close_image();
	fd = open("image", O_RDONLY);
	MUST(fd >= 0 && !file_pread_all(fd, &table, sizeof(table), VHD_TABLE_AT));
	close(fd);
	for (i = 0; i < 32; i++)
		bad[i] = be32_put(0x00ffff00);
	patch("image", bad, sizeof(bad), be64_get(table) + 16 * sizeof(be32));
	disk_record();
	c = open_as("image", variant->format, COW_OPEN_WRITE | COW_OPEN_UNFINISHED);
	MUST(!cow_chain_check(c, true, NULL, NULL, &result));
	MUST(!result.corrupt && disk_epoch() < 4);
	cow_chain_close(c);
	disk_release();
	check_closed(true);
	open_image();
	expect(chain, 'a', 64 * UNIT, 0);
	close_image();
}

/* --- The base of an overlay --------------------------------------------------- */

static void write_base(void)
{
	disk_watch("base");
	disk_record();
	patch("base", "x", 1, 0);
	MUST(!disk_epoch());
}

/*
 * An overlay holds the time when its base was last written: that must not be an earlier one
 * after a power cut.
 */
static void the_time_of_a_base_is_durable_before_it_counts(void)
{
	if (strcmp(variant->format, "dscow"))
		return;
	make_base();
	write_base();
	create("image", variant->format, "base");
	MUST(disk_epoch() == 1);
	open_image();
	MUST(!cow_chain_amend(chain, "merge", "begin"));
	write_base();
	MUST(!cow_chain_amend(chain, "merge", "end"));
	MUST(disk_epoch() == 1);
	write_base();
	MUST(!cow_chain_amend(chain, "base", "accept"));
	MUST(disk_epoch() == 1);
	close_image();
	open_image();
	close_image();
}

/* fsync(2) says EINVAL where a file system only reads, as squashfs does: a base may lie there. */
static void a_base_that_is_never_written_needs_no_sync(void)
{
	if (strcmp(variant->format, "dscow"))
		return;
	make_base();
	write_base();
	disk_break_sync(EINVAL);
	create("image", variant->format, "base");
	MUST(!disk_sync_is_broken());
	disk_release();
}

/* --- Tables here and there ---------------------------------------------------- */

/* More of them than the cache of a small image holds: a discard of all goes on. */
static void a_discard_of_scattered_tables_ends(void)
{
	const uint64_t size = 1024 * MIB, table = 32 * MIB;
	uint64_t at;

	if (strcmp(variant->name, "without tables"))
		return;
	MUST(!system("python3 \"$FORMATS_SRC/vmdk-make.py\" scattered image 1073741824"));
	disk_watch("image");
	open_image();
	MUST(info.size == size);
	for (at = 0; at < size; at += table)
		write_bytes(chain, 'a', UNIT, at);
	MUST(!cow_flush(chain));
	alarm(60);
	MUST(!cow_pdiscard(chain, 0, size));
	MUST(!cow_flush(chain));
	alarm(0);
	for (at = 0; at < size; at += table)
		expect(chain, 0, UNIT, at);
	close_image();
	check_closed(false);
}

/* --- Sector bitmaps that others left ------------------------------------------ */

/* Of the first block. */
static uint64_t bitmap_place(void)
{
	int fd = open("image", O_RDONLY);
	be64 table;
	be32 entry;

	MUST(fd >= 0 && !file_pread_all(fd, &table, sizeof(table), VHD_TABLE_AT) &&
	     !file_pread_all(fd, &entry, sizeof(entry), be64_get(table)));
	close(fd);
	return (uint64_t)be32_get(entry) * SECTOR;
}

/* One of qemu's with a block that is there, as VirtualBox and tapdisk leave it. */
static void make_sparse_block(void)
{
	const uint8_t none[SECTOR] = { 0 };

	MUST(!system("qemu-img create -q -f vpc -o subformat=dynamic,force_size=on image 4M &&"
		     "qemu-io -f vpc -c 'write -q -P 97 0 4k' image >log"));
	patch("image", none, sizeof(none), bitmap_place());
	disk_watch("image");
	open_image();
}

static bool bitmap_is_full(void)
{
	uint8_t bits[SECTOR];
	int fd = open("image", O_RDONLY);

	MUST(fd >= 0 && !file_pread_all(fd, bits, sizeof(bits), bitmap_place()));
	close(fd);
	return bits[0] == 0xff && !memcmp(bits, bits + 1, sizeof(bits) - 1);
}

/*
 * The kernel remembers over a kill that it may write there, and tells nobody then: bits that
 * only memory has set stay clear, and others read zeroes.
 */
static void a_bitmap_is_full_before_its_block_is_written(void)
{
	if (strcmp(variant->format, "vhd") || variant->base)
		return;
	make_sparse_block();
	disk_kill_from(0);
	MUST(!ask(0, 0) && !(answer.flags & COW_MAPPING_WRITABLE));
	MUST(ask(0, COW_QUERY_WRITE) == -EIO);
	MUST(ask(0, COW_QUERY_WRITE) == -EIO);
	MUST(!ask(0, 0) && !(answer.flags & COW_MAPPING_WRITABLE));
	MUST(answer.kind == COW_KIND_LINEAR && !bitmap_is_full());
	close_image();
	disk_kill_from(DISK_NEVER);
	open_image();
	MUST(!ask(0, COW_QUERY_WRITE));
	MUST(answer.kind == COW_KIND_LINEAR && answer.flags & COW_MAPPING_WRITABLE);
	disk_kill_from(0);
	MUST(!ask(0, 0) && answer.flags & COW_MAPPING_WRITABLE);
	close_image();
	MUST(bitmap_is_full());
}

/* --- No space --------------------------------------------------------------- */

/* First writes here and there; how many of the steps failed. */
static unsigned int spread(uint8_t byte)
{
	unsigned int failed = 0;
	uint8_t buf[8 * UNIT];
	uint64_t i;

	memset(buf, byte, sizeof(buf));
	for (i = 0; i < 12; i++) {
		failed += cow_pwrite(chain, buf, sizeof(buf),
				     (64 + i * 80) * UNIT) != 0;
		if (i % 4 == 3)
			failed += cow_flush(chain) != 0;
	}
	return failed;
}

static bool reserving = true;

static void start_without_space(uint64_t step)
{
	new_image();
	if (!reserving)
		disk_cannot_reserve();
	write_some();
	disk_full_from(step);
}

static uint64_t count_steps(void)
{
	uint64_t n;

	start_without_space(DISK_NEVER);
	MUST(!spread('g'));
	n = disk_steps();
	close_image();
	return n;
}

static void expect_spread(uint8_t byte)
{
	uint64_t i;

	expect(chain, 'a', 64 * UNIT, 0);
	for (i = 0; i < 12; i++)
		expect(chain, byte, 8 * UNIT, (64 + i * 80) * UNIT);
}

/* What was flushed before is there, and nothing but old or new. */
static void expect_old_or_new(void)
{
	static uint8_t buf[DISK];
	uint64_t i;

	expect(chain, 'a', 64 * UNIT, 0);
	MUST(!cow_pread(chain, buf, DISK, 0));
	for (i = 64 * UNIT; i < DISK; i++)
		MUST(buf[i] == base_byte() || buf[i] == 'g');
}

static void goes_on_once_there_is_space(uint64_t step)
{
	start_without_space(step);
	MUST(spread('g') > 0);
	disk_full_from(DISK_NEVER);
	expect(chain, 'a', 64 * UNIT, 0);
	if (spread('h'))
		fail("without space from step %llu on, it does not go on once there is some",
		     (unsigned long long)step);
	close_image();
	check_closed(true);
	open_image();
	expect_spread('h');
	close_image();
}

static void stops_without_space(uint64_t step)
{
	start_without_space(step);
	spread('g');
	close_image();
	disk_release();
	check_closed(true);
	open_image();
	expect_old_or_new();
	MUST(!spread('h'));
	close_image();
	check_closed(true);
}

static void space_runs_out_at_each_step(void)
{
	uint64_t n = count_steps(), step;

	MUST(n > 2);
	for (step = 0; step < n; step++) {
		goes_on_once_there_is_space(step);
		stops_without_space(step);
	}
}

/* The steps of commits are among them, then. */
static void space_that_is_not_reserved_runs_out_at_each_step(void)
{
	reserving = false;
	space_runs_out_at_each_step();
}

/* What was written in place could not be flushed else. */
static void commit_without_space(bool first)
{
	uint64_t i;
	int ret;

	new_image();
	if (!first)
		write_some();
	MUST(!kernel_write('s', 64 * UNIT, 0));
	for (i = 64; i < UNITS; i += 48)
		MUST(!kernel_write('s', 3 * UNIT, i * UNIT));
	disk_full_from(0);
	MUST(!kernel_write('t', 64 * UNIT, 0));
	ret = kernel_flush();
	if (ret)
		fail("the flush fails: %s", strerror(-ret));
	close_image();
	disk_release();
	check_closed(true);
	open_image();
	expect(chain, 't', 64 * UNIT, 0);
	for (i = 64; i < UNITS; i += 48)
		expect(chain, 's', 3 * UNIT, i * UNIT);
	close_image();
}

static int refused_write(uint64_t offset, uint64_t len)
{
	return kernel_write('g', len, offset);
}

/* What the format does not do itself, libcow does by writes and holes. */
static int refused_zeroes(uint64_t offset, uint64_t len)
{
	return cow_pwrite_zeroes(chain, offset, len);
}

static int refused_discard(uint64_t offset, uint64_t len)
{
	return cow_pdiscard(chain, offset, len);
}

/* first: nothing was written before, so that no table has its space yet. How many were refused. */
static unsigned int refused(int (*change)(uint64_t offset, uint64_t len), bool first,
			    const char *what)
{
	unsigned int nr_refused = 0;
	uint64_t i;
	int ret;

	new_image();
	if (!first)
		write_some();
	MUST(!kernel_flush());
	disk_full_from(0);
	for (i = 64; i < UNITS; i += 48) {
		if (!first)
			MUST(!kernel_write('t', 64 * UNIT, 0));
		ret = change(i * UNIT, 8 * UNIT);
		MUST(!ret || ret == -ENOSPC);
		nr_refused += ret == -ENOSPC;
		ret = kernel_flush();
		if (ret)
			fail("%s at unit %llu: the flush after it fails: %s", what,
			     (unsigned long long)i, strerror(-ret));
	}
	close_image();
	disk_release();
	check_closed(true);
	open_image();
	if (!first)
		expect(chain, 't', 64 * UNIT, 0);
	close_image();
	return nr_refused;
}

/*
 * Whatever is refused for want of space, or taken then, what was there is flushed. First
 * writes are refused, and so are zeroes over a base that want a table, which dscow has not.
 */
static void a_refused_change_leaves_the_flush_alone(void)
{
	bool want_table = variant->base && strcmp(variant->format, "dscow");

	MUST(refused(refused_write, true, "a write"));
	MUST(refused(refused_write, false, "a write"));
	MUST(refused(refused_zeroes, true, "write-zeroes") || !want_table);
	refused(refused_zeroes, false, "write-zeroes");
	refused(refused_discard, true, "a discard");
	refused(refused_discard, false, "a discard");
}

static void a_commit_has_its_space_before(void)
{
	commit_without_space(true);
	commit_without_space(false);
}

static void punch_page(uint64_t offset)
{
	int fd = open("image", O_WRONLY);

	MUST(fd >= 0 && !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)offset, UNIT));
	close(fd);
}

/* The bitmap of a block that is there may be a hole, as no bit is set. */
static void a_bitmap_has_its_space_before(void)
{
	const uint64_t block_bytes = 64 * KIB;
	uint64_t block;
	struct place p;

	if (strcmp(variant->format, "vhd"))
		return;
	new_image();
	write_some();
	block = block_bytes / info.block_size;
	p = place_of(block);
	close_image();
	punch_page(p.offset - UNIT);
	disk_watch("image");
	open_image();
	disk_full_from(0);
	MUST(kernel_write('s', UNIT, block_bytes) == -ENOSPC);
	MUST(!kernel_flush() && !ask(block, 0));
	expect(chain, variant->base ? base_byte() : 'a', UNIT, block_bytes);
	disk_full_from(DISK_NEVER);
	MUST(!kernel_write('s', UNIT, block_bytes));
	disk_full_from(0);
	MUST(!kernel_write('t', UNIT, block_bytes + 2 * UNIT));
	MUST(!kernel_flush());
	close_image();
	disk_release();
	check_closed(true);
	open_image();
	expect(chain, 's', UNIT, block_bytes);
	expect(chain, 't', UNIT, block_bytes + 2 * UNIT);
	close_image();
}

/* --- Start ------------------------------------------------------------------ */

#define T(name) { #name, name }

static const struct test {
	const char *name;
	void (*run)(void);
} tests[] = {
	T(nothing_is_referred_to_before_it_is_durable),
	T(a_failed_copy_leaves_no_reference),
	T(a_failed_write_leaves_no_reference),
	T(tables_keep_off_what_was_copied),
	T(a_commit_is_taken_up_by_the_next_process),
	T(a_vhd_on_a_device_stays_where_it_is),
	T(a_device_is_taken_up_again_and_again),
	T(a_full_device_is_taken_up_again_and_again),
	T(refcounts_are_made_anew_on_a_device),
	T(a_snapshot_keeps_what_it_holds),
	T(the_tail_of_the_last_cluster_is_zero),
	T(a_tail_that_fails_loses_no_place),
	T(space_is_behind_what_was_told_again),
	T(a_freed_place_waits_for_the_commit),
	T(two_first_writes_at_once_get_one_place),
	T(metadata_is_never_given),
	T(space_is_bounded_under_fsync_churn),
	T(a_compressed_cluster_partly_overwritten_keeps_the_rest),
	T(a_failed_sync_of_a_plugin_holds_the_commit),
	T(a_commit_that_is_held_holds_no_read),
	T(a_copied_that_comes_again_fails_no_commit),
	T(a_place_that_is_told_outlives_a_kill),
	T(a_place_is_told_when_all_that_leads_to_it_is_durable),
	T(a_user_makes_no_other_disk_of_it),
	T(entries_are_repaired_together),
	T(the_time_of_a_base_is_durable_before_it_counts),
	T(a_base_that_is_never_written_needs_no_sync),
	T(a_discard_of_scattered_tables_ends),
	T(a_bitmap_is_full_before_its_block_is_written),
	T(space_runs_out_at_each_step),
	T(space_that_is_not_reserved_runs_out_at_each_step),
	T(a_commit_has_its_space_before),
	T(a_bitmap_has_its_space_before),
	T(a_refused_change_leaves_the_flush_alone),
};

static void say_nothing(void *ctx, enum cow_log_level level, const char *text)
{
	if (getenv("CORRUPTION_LOG"))
		printf("#	%s\n", text);
}

static int run_in(const struct test *t)
{
	char dir[64];
	int status = 1;

	snprintf(dir, sizeof(dir), "corruption.%d", (int)getpid());
	if (mkdir(dir, 0777) || chdir(dir))
		return 1;
	fflush(stdout);
	if (!fork()) {
		if (cow_plugins_new(NULL, say_nothing, NULL, &plugins))
			fail("there are no plugins");
		t->run();
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
	if (chdir("..") || system("rm -rf corruption.*"))
		return 1;
	return status;
}

static bool is_compression(const struct test *t)
{
	return t->run == a_compressed_cluster_partly_overwritten_keeps_the_rest ||
	       t->run == a_failed_sync_of_a_plugin_holds_the_commit ||
	       t->run == a_commit_that_is_held_holds_no_read ||
	       t->run == a_copied_that_comes_again_fails_no_commit ||
	       t->run == a_place_that_is_told_outlives_a_kill ||
	       t->run == a_place_is_told_when_all_that_leads_to_it_is_durable;
}

int main(int argc, char **argv)
{
	unsigned int v, i, nr = 0;
	int failed = 0, status;

	for (v = 0; argc > 1 && v < ARRAY_SIZE(variants); v++) {
		variant = &variants[v];
		if (strcmp(variant->format, argv[1]))
			continue;
		for (i = 0; i < ARRAY_SIZE(tests); i++) {
			if (argc > 2 && !strstr(tests[i].name, argv[2]))
				continue;
			/* The table in README.md says why. */
			if (is_compression(&tests[i]) && variant->why_not)
				continue;
			status = run_in(&tests[i]);
			failed += status != 0;
			printf("%s %u - %s %s: %s\n", status ? "not ok" : "ok",
			       ++nr, variant->format, variant->name,
			       tests[i].name);
		}
	}
	printf("1..%u\n", nr);
	if (!nr)
		fprintf(stderr, "usage: corruption FORMAT [NAME]\n");
	return failed || !nr;
}
