// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-direct.c - metadata of single sectors goes past the page cache.
 *
 * The bitmap of a VHD's block is a sector with data or other metadata in the
 * same page.  The kernel writes data by direct I/O; if the bitmap went
 * through the page cache, the whole page could be written back with what
 * stood beside it before.  So after a commit the page is not in the cache.
 * The same for the L1 table of a qcow2 image with clusters smaller than a page,
 * which fills no sector, and for the mark in the header of a VMDK, a single byte.
 */
#include <libcow/cow.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define BLOCK (1u << 20)

static const char *const path = "direct.img";

static void must(int ret, const char *what)
{
	if (!ret)
		return;
	fprintf(stderr, "test-direct: %s: %s\n", what, strerror(-ret));
	exit(1);
}

/* Does the file system take direct I/O of a sector? */
static bool can_be_direct(void)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	void *buf = aligned_alloc(PAGE, PAGE);
	bool can = fd >= 0 && buf && pread(fd, buf, 512, 512) == 512;

	free(buf);
	if (fd >= 0)
		close(fd);
	return can;
}

/* Of the header of a qcow2 image. */
static uint64_t big_endian(const uint8_t *p, unsigned int bytes)
{
	uint64_t n = 0;

	while (bytes--)
		n = n << 8 | *p++;
	return n;
}

#define L1_SIZE_AT	36
#define L1_OFFSET_AT	40

/* qemu-img lets the file of an image end with the last entry of its L1 table. */
static void cut_behind_l1(void)
{
	uint8_t head[48];
	uint64_t end;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	must(pread(fd, head, sizeof(head), 0) == sizeof(head) ? 0 : -EIO,
	     "read");
	end = big_endian(head + L1_OFFSET_AT, 8) +
	      big_endian(head + L1_SIZE_AT, 4) * 8;
	must(ftruncate(fd, (off_t)end) < 0 ? -errno : 0, "truncate");
	close(fd);
}

static struct cow_chain *make(struct cow_plugins *plugins, const char *format,
			      uint32_t block_size)
{
	struct cow_create_params create = {
		.plugins = plugins, .path = path, .format = format,
		.size = 7 * BLOCK, .block_size = block_size, .force = true,
	};
	struct cow_open_params open = COW_OPEN_PARAMS_INIT;
	struct cow_chain *chain;

	must(cow_create_image(&create), "create");
	if (!strcmp(format, "qcow2"))
		cut_behind_l1();
	open.plugins = plugins;
	open.path = path;
	open.format = format;
	open.flags = COW_OPEN_WRITE;
	open.direct_data = true;
	must(cow_chain_open(&open, &chain), "open");
	return chain;
}

/* The last block ends before the last sector, its bitmap stands before it. */
static uint64_t page_of_bitmap(int fd)
{
	struct stat st;

	must(fstat(fd, &st) < 0 ? -errno : 0, "stat");
	return (uint64_t)st.st_size - 512 - BLOCK - PAGE;
}

static bool in_page_cache(int fd, uint64_t offset)
{
	unsigned char resident;
	void *p;

	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	must(p == MAP_FAILED ? -errno : 0, "mmap");
	must(mincore(p, PAGE, &resident) < 0 ? -errno : 0, "mincore");
	munmap(p, PAGE);
	return resident & 1;
}

/*
 * Each write needs a new L2 table, and so an entry of the L1 table, whose place is in
 * the header: read past the page cache, as it may be in the same page.
 */
static uint64_t page_of_l1(int unused)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	uint8_t *page = aligned_alloc(PAGE, PAGE);
	uint64_t offset;

	(void)unused;
	must(page && pread(fd, page, PAGE, 0) == PAGE ? 0 : -EIO, "read");
	offset = big_endian(page + L1_OFFSET_AT, 8);
	free(page);
	close(fd);
	return offset / PAGE * PAGE;
}

static int check(struct cow_plugins *plugins, const char *format,
		 uint32_t block_size, uint64_t (*page_of)(int fd))
{
	struct cow_chain *chain = make(plugins, format, block_size);
	int fd = open(path, O_RDONLY | O_CLOEXEC), bad = 0;
	uint64_t block;

	for (block = 0; block < 4; block++) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		must(cow_pwrite(chain, "data", 4, block * BLOCK), "write");
		must(cow_flush(chain), "flush");
		if (!in_page_cache(fd, page_of(fd)))
			continue;
		fprintf(stderr, "test-direct: %s: metadata of block %llu went through the page cache\n",
			format, (unsigned long long)block);
		bad = 1;
	}
	close(fd);
	cow_chain_close(chain);
	return bad;
}

/* The mark in the header is taken away at the end. */
static int check_close(struct cow_plugins *plugins, const char *format)
{
	struct cow_chain *chain = make(plugins, format, 65536);
	int fd = open(path, O_RDONLY | O_CLOEXEC), bad;

	must(cow_pwrite(chain, "data", 4, 0), "write");
	must(cow_flush(chain), "flush");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	must(in_page_cache(fd, 0) ? -EBUSY : 0, "the page cache");
	cow_chain_close(chain);
	bad = in_page_cache(fd, 0);
	if (bad)
		fprintf(stderr, "test-direct: %s: the header went through the page cache\n",
			format);
	close(fd);
	return bad;
}

int main(void)
{
	struct cow_plugins *plugins;
	int bad;

	must(cow_plugins_new(NULL, NULL, NULL, &plugins), "plugins");
	cow_chain_close(make(plugins, "vhd", BLOCK));
	if (!can_be_direct()) {
		printf("SKIP: no direct I/O of single sectors here\n");
		return 77;
	}
	bad = check(plugins, "vhd", BLOCK, page_of_bitmap);
	bad |= check(plugins, "qcow2", 1024, page_of_l1);
	bad |= check(plugins, "qcow2", 512, page_of_l1);
	bad |= check_close(plugins, "vmdk");
	cow_plugins_free(plugins);
	unlink(path);
	return bad;
}
