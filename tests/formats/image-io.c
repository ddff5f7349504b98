// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image-io.c - what the tests of formats do with an image, by libcow alone.
 *
 *	image-io open FORMAT PATH		open it, read nothing
 *	image-io read FORMAT PATH [OUT]		its contents, to OUT or stdout
 *	image-io load FORMAT PATH MIRROR SEED OPS [--no-commit]
 *						see load.c
 *	image-io hold FORMAT PATH		open it, and wait for a signal
 *	image-io share FORMAT PATH SEED		write by two openers in turn, and
 *						read by the other one
 *	image-io make OUT SIZE SEED		random sparse contents
 *	image-io between FILE OLD NEW		each sector of FILE is as in
 *						one of the two
 *
 * Options: -o NAME=VALUE for the image, -w to open it for writing, -r not,
 * -a DIR to follow names found in images into that folder only.
 * Status: 0, 1 with one sentence on stderr, 2 for wrong arguments.
 */
#include "image-io.h"

#include <common/file.h>
#include <common/num.h>
#include <common/size.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define SECTOR 512u
#define MAX_OPTIONS 16

struct args {
	char **arg;
	int count;
	bool writable, no_commit;
};

void die(const char *fmt, ...)
{
	va_list ap;

	fputs("image-io: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void must(int ret)
{
	if (ret)
		exit(1);
}

void must_file(int ret, const char *path)
{
	if (ret)
		die("%s: %s", path, strerror(-ret));
}

int file_make(const char *path, uint64_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0666);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		must_file(-errno, path);
	return fd;
}

void image_open(struct image *img, uint32_t flags)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain_info info;

	p.plugins = img->plugins;
	p.path = img->path;
	p.format = img->format;
	p.options = img->options;
	p.allowed_dirs = img->allowed[0] ? img->allowed : NULL;
	p.flags = flags;
	must(cow_chain_open(&p, &img->chain));
	cow_chain_info(img->chain, &info);
	img->size = info.size;
	img->block_size = info.block_size;
}

void image_close(struct image *img)
{
	cow_chain_close(img->chain);
	img->chain = NULL;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* A hole stays one in a file that was made as long as the disk. */
static void put(int fd, const uint8_t *buf, size_t len, uint64_t offset,
		const char *out)
{
	size_t done = 0;

	if (out) {
		if (!is_zero(buf, len))
			must_file(file_pwrite_all(fd, buf, len, offset), out);
		return;
	}
	while (done < len) {
		ssize_t n = write(fd, buf + done, len - done);

		if (n < 0)
			must_file(-errno, "stdout");
		done += (size_t)n;
	}
}

/* Everything is read, holes too: this is about what reads say. */
static int do_read(struct image *img, const struct args *a)
{
	const char *out = a->count > 2 ? a->arg[2] : NULL;
	uint8_t *buf = malloc(PIECE);
	uint64_t at;
	int fd;

	image_open(img, a->writable ? COW_OPEN_WRITE : 0);
	fd = out ? file_make(out, img->size) : STDOUT_FILENO;
	for (at = 0; at < img->size; at += PIECE) {
		size_t n = num_min(PIECE, img->size - at);

		must(cow_pread(img->chain, buf, n, at));
		put(fd, buf, n, at, out);
	}
	free(buf);
	image_close(img);
	return 0;
}

static int do_open(struct image *img, const struct args *a)
{
	image_open(img, a->writable ? COW_OPEN_WRITE : 0);
	image_close(img);
	return 0;
}

static int do_hold(struct image *img, const struct args *a)
{
	image_open(img, a->writable ? COW_OPEN_WRITE : 0);
	puts("open");
	fflush(stdout);
	pause();
	image_close(img);
	return 0;
}

static int do_share(struct image *img, const struct args *a)
{
	struct image other = *img, *writer, *reader;
	uint8_t written[4096], seen[4096];
	uint64_t at;
	int i;

	chance_seed(strtoull(a->arg[2], NULL, 0));
	image_open(img, COW_OPEN_WRITE);
	image_open(&other, COW_OPEN_WRITE);
	for (i = 0; i < 100; i++) {
		writer = chance(2) ? img : &other;
		reader = writer == img ? &other : img;
		at = chance(img->size - sizeof(written) + 1);
		chance_fill(written, sizeof(written));
		must(cow_pwrite(writer->chain, written, sizeof(written), at));
		must(cow_pread(reader->chain, seen, sizeof(seen), at));
		if (memcmp(written, seen, sizeof(seen)))
			die("%s: what one wrote at %llu the other does not see",
			    img->path, (unsigned long long)at);
	}
	image_close(&other);
	image_close(img);
	return 0;
}

static int do_load(struct image *img, const struct args *a)
{
	chance_seed(strtoull(a->arg[3], NULL, 0));
	image_open(img, COW_OPEN_WRITE);
	load(img, a->arg[2], strtoull(a->arg[4], NULL, 0), !a->no_commit);
	image_close(img);
	return 0;
}

/* --- Files ---------------------------------------------------------------- */

/* Data and holes of 512 bytes to 512 KiB, up to 32 MiB of data. */
static int do_make(struct image *img, const struct args *a)
{
	uint64_t size, at = 0, len, data = 0;
	uint8_t *buf = malloc(PIECE);
	int fd;

	if (size_parse(a->arg[1], &size))
		die("%s: is no size", a->arg[1]);
	chance_seed(strtoull(a->arg[2], NULL, 0));
	fd = file_make(a->arg[0], size);
	for (; at < size && data < 32 * PIECE; at += len) {
		len = SECTOR + chance(SECTOR << chance(11));
		if (chance(2))
			len = num_round_up(len, 4096);
		len = num_min(len, size - at);
		if (chance(3) == 0) {
			/* A large disk is mostly holes. */
			len = num_min(len + chance(size / 64 + 1), size - at);
			continue;
		}
		chance_fill(buf, len);
		must_file(file_pwrite_all(fd, buf, len, at), a->arg[0]);
		data += len;
	}
	free(buf);
	close(fd);
	return 0;
}

static int file_to_read(const char *path, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		must_file(-errno, path);
	must_file(file_size(fd, size), path);
	return fd;
}

static void check_sectors(const struct args *a, uint8_t *const buf[3],
			  uint64_t at, uint64_t len)
{
	uint64_t i, n;

	for (i = 0; i < len; i += n) {
		n = num_min(SECTOR, len - i);
		if (memcmp(buf[0] + i, buf[1] + i, n) &&
		    memcmp(buf[0] + i, buf[2] + i, n))
			die("%s: the sector at %llu is neither as in %s nor as in %s",
			    a->arg[0], (unsigned long long)(at + i), a->arg[1],
			    a->arg[2]);
	}
}

/* Only where NEW has data: all else is for others to compare. */
static int do_between(struct image *img, const struct args *a)
{
	uint64_t size[3], at = 0;
	uint8_t *buf[3];
	int fd[3], i;

	for (i = 0; i < 3; i++) {
		fd[i] = file_to_read(a->arg[i], &size[i]);
		buf[i] = malloc(PIECE);
	}
	if (size[0] != size[1] || size[0] != size[2])
		die("%s, %s and %s are not of one size", a->arg[0], a->arg[1],
		    a->arg[2]);
	for (; at < size[0]; at += PIECE) {
		off_t data = lseek(fd[2], (off_t)at, SEEK_DATA);
		uint64_t n;

		if (data < 0)
			break;
		at = num_round_down((uint64_t)data, PIECE);
		n = num_min(PIECE, size[0] - at);
		for (i = 0; i < 3; i++)
			must_file(file_pread_all(fd[i], buf[i], n, at),
				  a->arg[i]);
		check_sectors(a, buf, at, n);
	}
	for (i = 0; i < 3; i++) {
		close(fd[i]);
		free(buf[i]);
	}
	return 0;
}

/* --- Arguments ------------------------------------------------------------ */

static const struct command {
	const char *name;
	int least, most;	/* arguments */
	bool image;		/* the first two are FORMAT PATH */
	int (*run)(struct image *img, const struct args *args);
} commands[] = {
	{ "open", 2, 2, true, do_open },
	{ "read", 2, 3, true, do_read },
	{ "hold", 2, 2, true, do_hold },
	{ "share", 3, 3, true, do_share },
	{ "load", 5, 5, true, do_load },
	{ "make", 3, 3, false, do_make },
	{ "between", 3, 3, false, do_between },
};

static int usage(void)
{
	fputs("usage: image-io open|hold|share|read|load|make|between ARG...; image-io.c tells more\n",
	      stderr);
	return 2;
}

static int run(const struct command *c, struct image *img, struct args *a)
{
	int ret;

	if (a->count < c->least || a->count > c->most)
		return usage();
	if (!c->image)
		return c->run(img, a);
	img->format = a->arg[0];
	img->path = a->arg[1];
	if (cow_plugins_new(NULL, NULL, NULL, &img->plugins))
		die("plugins cannot be loaded");
	ret = c->run(img, a);
	cow_plugins_free(img->plugins);
	return ret;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "no-commit", no_argument, NULL, 'n' },
		{ 0 }
	};
	const char *values[MAX_OPTIONS + 1] = { NULL };
	struct image img = { .options = values };
	struct args a = { 0 };
	size_t i, nr = 0;
	int c;

	while ((c = getopt_long(argc, argv, "a:o:rw", options, NULL)) != -1) {
		if (c == 'o' && nr < MAX_OPTIONS)
			values[nr++] = optarg;
		else if (c == 'a')
			img.allowed[0] = optarg;
		else if (c == 'r')
			a.writable = false;
		else if (c == 'w')
			a.writable = true;
		else if (c == 'n')
			a.no_commit = true;
		else
			return usage();
	}
	if (optind == argc)
		return usage();
	a.arg = argv + optind + 1;
	a.count = argc - optind - 1;
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(commands[i].name, argv[optind]))
			return run(&commands[i], &img, &a);
	}
	return usage();
}
