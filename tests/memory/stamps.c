// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Writes stamps to a file or device, and finds them again.  Every 4096 bytes
 * name their own offset and a version, so that a page that stands at a wrong
 * place, is torn, or is older than it may be is seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE		4096u
#define RETRIES		2000u

static struct {
	bool write, direct, sync, tolerant, injected, zero;
	uint64_t version, start, length, stride;
	size_t io;
	const char *path;
} opt = { .io = PAGE };

static uint64_t nr_done, nr_errors;

static void die(const char *what)
{
	fprintf(stderr, "stamps: %s: %s: %s\n", opt.path, what, strerror(errno));
	exit(1);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void make_page(uint64_t *page, uint64_t offset)
{
	uint64_t word = mix(offset + mix(opt.version + 1));
	size_t i;

	page[0] = offset;
	page[1] = opt.version;
	for (i = 2; i < PAGE / 8; i++)
		page[i] = word += 0x9e3779b97f4a7c15ull;
	if (opt.zero)
		memset(page, 0, PAGE);
}

static void make(char *buf, uint64_t offset)
{
	size_t at;

	for (at = 0; at < opt.io; at += PAGE)
		make_page((uint64_t *)(buf + at), offset + at);
}

static void compare(const char *got, const char *want, uint64_t offset)
{
	const uint64_t *page;
	size_t at;

	if (!memcmp(got, want, opt.io))
		return;
	for (at = 0; !memcmp(got + at, want + at, PAGE); at += PAGE)
		;
	page = (const uint64_t *)(got + at);
	fprintf(stderr, "stamps: %s: at %" PRIu64 ": want version %" PRIu64 ", found the words %" PRIx64 " %" PRIx64 "\n",
		opt.path, offset + at, opt.version, page[0], page[1]);
	exit(1);
}

static void transfer(int fd, char *buf, uint64_t offset)
{
	unsigned int tries;
	ssize_t n = -1;

	for (tries = 0; tries < RETRIES; tries++) {
		n = opt.write ? pwrite(fd, buf, opt.io, (off_t)offset) :
				pread(fd, buf, opt.io, (off_t)offset);
		if (n >= 0 || !opt.tolerant)
			break;
		nr_errors++;
	}
	if (n < 0)
		die(opt.write ? "write" : "read");
	if ((size_t)n != opt.io) {
		errno = ENODATA;
		die("short");
	}
	nr_done++;
}

/* Opened while allocations still work. */
static int inject_fd = -1;

static void open_injection(void)
{
	inject_fd = open("/proc/self/make-it-fail", O_WRONLY | O_CLOEXEC);
	if (inject_fd < 0)
		die("/proc/self/make-it-fail");
}

/* From here on allocations of this task may be made to fail, or not. */
static void inject(const char *yes)
{
	unsigned int tries = RETRIES;

	while (write(inject_fd, yes, 1) != 1)
		if (!--tries)
			die("/proc/self/make-it-fail");
}

static void *buffer(void)
{
	void *buf;

	if (posix_memalign(&buf, PAGE, opt.io)) {
		errno = ENOMEM;
		die("memory");
	}
	memset(buf, 0, opt.io);
	return buf;
}

static void run(int fd)
{
	char *want = buffer(), *got = buffer();
	uint64_t end = opt.start + opt.length, offset;

	for (offset = opt.start; offset + opt.io <= end; offset += opt.stride) {
		make(want, offset);
		transfer(fd, opt.write ? want : got, offset);
		if (!opt.write)
			compare(got, want, offset);
	}
	if (!nr_done) {
		errno = ENODATA;
		die("nothing was done");
	}
	free(want);
	free(got);
}

static void finish(int fd)
{
	unsigned int tries = 0;

	while (opt.write && opt.sync && fsync(fd)) {
		nr_errors++;
		if (!opt.tolerant || ++tries == RETRIES)
			die("fsync");
	}
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);
	const char *units = "kmgt";
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (unit)
		n <<= 10 * (unit - units + 1);
	return n;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: stamps write|verify [-v VERSION | -z] [-s START] [-l LENGTH] [-t STRIDE]\n"
		"\t[-b BYTES_EACH] [-d] [-f] [-e] [-i] FILE\n"
		"-z zeroes; -d O_DIRECT; -f fsync; -e try again after errors; -i fault injection\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	int c;

	if (argc < 3 || (strcmp(argv[1], "write") && strcmp(argv[1], "verify")))
		usage();
	opt.write = argv[1][0] == 'w';
	optind = 2;
	while ((c = getopt(argc, argv, "v:zs:l:t:b:dfei")) != -1) {
		switch (c) {
		case 'v': opt.version = number(optarg); break;
		case 'z': opt.zero = true; break;
		case 's': opt.start = number(optarg); break;
		case 'l': opt.length = number(optarg); break;
		case 't': opt.stride = number(optarg); break;
		case 'b': opt.io = number(optarg); break;
		case 'd': opt.direct = true; break;
		case 'f': opt.sync = true; break;
		case 'e': opt.tolerant = true; break;
		case 'i': opt.injected = true; break;
		default: usage();
		}
	}
	if (optind != argc - 1 || !opt.io || opt.io % PAGE)
		usage();
	opt.path = argv[optind];
	if (!opt.stride)
		opt.stride = opt.io;
}

int main(int argc, char **argv)
{
	off_t size;
	int fd;

	parse(argc, argv);
	fd = open(opt.path, (opt.write ? O_RDWR : O_RDONLY) |
			    (opt.direct ? O_DIRECT : 0) | O_CLOEXEC);
	if (fd < 0)
		die("open");
	size = lseek(fd, 0, SEEK_END);
	if (size < 0)
		die("size");
	if (!opt.length)
		opt.length = (uint64_t)size - opt.start;
	if (opt.injected) {
		open_injection();
		inject("1");
	}
	run(fd);
	finish(fd);
	if (opt.injected)
		inject("0");
	printf("stamps: %s %" PRIu64 " x %zu bytes, version %" PRIu64 ", %" PRIu64 " errors\n",
	       opt.write ? "wrote" : "verified", nr_done, opt.io, opt.version,
	       nr_errors);
	return close(fd) ? 1 : 0;
}
