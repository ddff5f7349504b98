// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image.c - any bytes as an image of one format: open, look, map, write,
 * check, repair.  For libFuzzer; tests/fuzz/run builds and starts it.
 *
 * FUZZ_FORMAT is the format.  The image may refer to files of the folder it
 * lies in, and to nothing else: there are "base", raw, and "other", a copy of the
 * file FUZZ_OTHER (a parent, an extent, a data file), if that is named.  Whatever the bytes
 * are, nothing may crash, hang, or take memory without a bound; and what the
 * plugin answers must be what it may answer, which libcow looks at.
 */
#include <libcow/cow.h>

#include <common/crc32c.h>
#include <common/file.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE_SIZE	(1u << 20)
#define MAX_IO		(64u << 10)
#define PLACES		8

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cow_plugins *plugins;
static const char *format;
static unsigned long inputs, opened;
static char dir[] = "/dev/shm/fuzz-image.XXXXXX";
static uint8_t buf[MAX_IO];

static struct {
	uint8_t *data;		/* NULL: there is none */
	size_t size;
	struct timespec changed;
} other;

static void fail(const char *what)
{
	perror(what);
	abort();
}

static void quiet(void *ctx, enum cow_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	if (!*text || strchr(text, '\n'))
		abort();	/* a message is one sentence */
}

static void put(const char *name, const void *data, size_t size, off_t length)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || (size && file_pwrite_all(fd, data, size, 0)) ||
	    ftruncate(fd, length))
		fail(name);
	close(fd);
}

/* As it was, for each input. */
static void put_other(void)
{
	struct stat st;

	if (!other.data)
		return;
	if (!stat("other", &st) &&
	    !memcmp(&st.st_ctim, &other.changed, sizeof(st.st_ctim)))
		return;
	put("other", other.data, other.size, (off_t)other.size);
	if (stat("other", &st))
		fail("other");
	other.changed = st.st_ctim;
}

static void read_other(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		fail(path);
	other.size = (size_t)st.st_size;
	other.data = malloc(other.size);
	if (!other.data || file_pread_all(fd, other.data, other.size, 0))
		fail(path);
	close(fd);
}

static void clean(void)
{
	unlink("image");
	unlink("base");
	unlink("other");
	if (!chdir("/"))
		rmdir(dir);
	/* The seeds are images: without the plugin nothing was tried. */
	if (!inputs || opened)
		return;
	fprintf(stderr, "%s: none of %lu inputs could be opened\n", format, inputs);
	_exit(1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	format = getenv("FUZZ_FORMAT");
	if (getenv("FUZZ_OTHER"))
		read_other(getenv("FUZZ_OTHER"));
	if (!format || !mkdtemp(dir) || chdir(dir))
		fail("FUZZ_FORMAT, /dev/shm");
	atexit(clean);
	memset(buf, 0xb5, sizeof(buf));
	put("base", buf, sizeof(buf), BASE_SIZE);
	if (cow_plugins_new(NULL, quiet, NULL, &plugins))
		fail("plugins");
	return 0;
}

/* --- Checksums: most of an image's bytes would hide behind a wrong one ------- */

static void put_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void fix_dscow(uint8_t *p, size_t size)
{
	const size_t at = 508;

	if (size >= at + 4)
		put_le32(p + at, crc32c(0, p, at));
}

/* The complement of the sum of all bytes, the checksum's own as zero. */
static void fix_sum(uint8_t *p, size_t size, size_t start, size_t len, size_t at)
{
	uint32_t sum = 0;
	size_t i;

	if (start > size || size - start < len)
		return;
	put_be32(p + start + at, 0);
	for (i = 0; i < len; i++)
		sum += p[start + i];
	put_be32(p + start + at, ~sum);
}

static void fix_vhd(uint8_t *p, size_t size)
{
	fix_sum(p, size, 0, 512, 64);
	fix_sum(p, size, 512, 1024, 36);
	if (size >= 1024)
		fix_sum(p, size, size - 512, 512, 64);
}

/* Every other input as it is: that a wrong checksum is seen is tried as well. */
static void fix(uint8_t *p, size_t size, uint32_t chance)
{
	if (chance & 1)
		return;
	if (!strcmp(format, "dscow"))
		fix_dscow(p, size);
	if (!strcmp(format, "vhd"))
		fix_vhd(p, size);
}

static struct cow_chain *open_image(uint32_t flags)
{
	const char *allowed[] = { dir, NULL };
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_chain *chain;

	p.plugins = plugins;
	p.path = "image";
	p.format = format;
	p.flags = flags;
	p.allowed_dirs = allowed;
	p.cache_bytes = 1 << 20;
	return cow_chain_open(&p, &chain) ? NULL : chain;
}

static void found(void *ctx, const struct cow_finding *finding)
{
	(void)ctx;
	if (!*finding->text)
		abort();
}

static void fact(void *ctx, const struct cow_fact *f)
{
	(void)ctx;
	if (!f->name || !f->label)
		abort();
}

/* Places that a wrong table is likely to hold: both ends, and some by chance. */
static uint64_t place(uint64_t size, unsigned int n, uint32_t chance)
{
	switch (n) {
	case 0:
		return 0;
	case 1:
		return size - (size < 4096 ? size : 4096);
	default:
		return size / PLACES * n + chance % 4096 % (size / PLACES + 1);
	}
}

static void walk(struct cow_chain *chain, bool write, uint32_t chance)
{
	struct cow_chain_info info;
	struct cow_where where;
	unsigned int n;
	uint64_t at;
	size_t len;

	cow_chain_info(chain, &info);
	for (n = 0; n < PLACES && info.size; n++) {
		chance = chance * 1664525 + 1013904223;
		at = place(info.size, n, chance);
		len = chance % 3 ? chance % 8192 + 1 : MAX_IO;
		if (at >= info.size)
			continue;
		if (len > info.size - at)
			len = info.size - at;
		if (!cow_where(chain, at, info.size - at, &where) &&
		    (!where.len || where.len > info.size - at))
			abort();
		cow_pread(chain, buf, len, at);
		if (!write)
			continue;
		switch (chance >> 16 & 7) {
		case 0:
			cow_pdiscard(chain, at, len);
			break;
		case 1:
			cow_pwrite_zeroes(chain, at, len);
			break;
		case 2:
			cow_flush(chain);
			break;
		default:
			cow_pwrite(chain, buf, len, at);
		}
	}
	if (write)
		cow_flush(chain);
}

static void check(uint32_t flags, bool repair)
{
	struct cow_check_result result;
	struct cow_chain *chain = open_image(flags | COW_OPEN_NO_BACKING |
					     COW_OPEN_ANY_BACKING |
					     COW_OPEN_UNFINISHED);

	if (!chain)
		return;
	cow_chain_describe(chain, fact, NULL);
	cow_chain_check(chain, repair, found, NULL, &result);
	cow_chain_close(chain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct cow_plugin *plugin;
	uint32_t chance = 0, i;
	struct cow_chain *chain;
	uint8_t *image = malloc(size + 1);

	if (!image)
		fail("malloc");
	inputs++;
	memcpy(image, data, size);
	for (i = 0; i < size; i++)
		chance = chance * 31 + data[i];
	fix(image, size, chance);
	put("image", image, size, (off_t)size);
	free(image);
	put_other();
	cow_plugins_probe(plugins, "image", &plugin);
	check(0, false);
	/* Of dscow none is over this very base. */
	chain = open_image(0) ?: open_image(COW_OPEN_ANY_BACKING);
	if (chain) {
		walk(chain, false, chance);
		cow_chain_close(chain);
	}
	chain = open_image(COW_OPEN_WRITE | COW_OPEN_ANY_BACKING);
	if (chain) {
		opened++;
		walk(chain, true, chance);
		cow_chain_close(chain);
	}
	check(COW_OPEN_WRITE, true);
	return 0;
}
