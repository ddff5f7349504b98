// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * load.c - random operations on an image, and on a mirror of its contents.
 *
 * A disk may be of terabytes: the operations meet in a few windows, at its
 * start, its end and at random places between, so that they meet each other.
 * The mirror is as large as the disk; or it holds only the windows, one after
 * the other, of a disk that is larger than a file can be.
 */
#include "image-io.h"

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NR_WINDOWS 8
#define WINDOW (4ull << 20)
#define SECTOR 512u

struct range {
	uint64_t offset, len;
};

struct mirror {
	char *path;
	int fd;
	bool windows;	/* it holds only them */
};

static struct range windows[NR_WINDOWS];
static unsigned int nr_windows;
static uint8_t buf[WINDOW], expected[WINDOW];

static void set_windows(uint64_t size, uint64_t align)
{
	unsigned int i;

	if (size <= NR_WINDOWS * WINDOW) {
		nr_windows = 1;
		windows[0] = (struct range){ 0, size };
		return;
	}
	nr_windows = NR_WINDOWS;
	for (i = 0; i < nr_windows; i++) {
		uint64_t at = chance(size - WINDOW);

		windows[i].offset = num_round_down(at, align);
		windows[i].len = WINDOW;
	}
	windows[0].offset = 0;
	windows[1].offset = size - WINDOW;
}

/* Bytes: a few, a few blocks, or up to a window. */
static uint64_t any_length(const struct image *img, uint64_t max)
{
	switch (chance(4)) {
	case 0:
		max = num_min(max, 3 * SECTOR);
		break;
	case 1:
	case 2:
		max = num_min(max, 3ull * img->block_size);
		break;
	default:
		max = num_min(max, WINDOW);
	}
	return 1 + chance(max);
}

/* Aligned to blocks, to sectors, or not at all. */
static struct range any_range(const struct image *img)
{
	static const uint64_t align[] = { 0, 0, SECTOR, 4096 };
	struct range w = windows[chance(nr_windows)], r;
	uint64_t to = align[chance(4)];

	if (to == 0)
		to = chance(2) ? img->block_size : 1;
	r.len = any_length(img, w.len);
	r.offset = w.offset + chance(w.len - r.len + 1);
	r.offset = num_round_down(r.offset, to);
	r.len = num_min(num_round_up(r.len, to), img->size - r.offset);
	r.len = num_min(r.len, WINDOW);
	return r;
}

/* --- The mirror ----------------------------------------------------------- */

/* Windows are aligned then, and no range is in two of them. */
static uint64_t mirror_at(const struct mirror *m, struct range r)
{
	unsigned int i = 0;

	if (!m->windows)
		return r.offset;
	while (r.offset - windows[i].offset >= WINDOW)
		i++;
	return i * WINDOW + r.offset - windows[i].offset;
}

static void mirror_write(const struct mirror *m, const void *data,
			 struct range r)
{
	must_file(file_pwrite_all(m->fd, data, r.len, mirror_at(m, r)),
		  m->path);
}

static void mirror_read(const struct mirror *m, void *data, struct range r)
{
	must_file(file_pread_all(m->fd, data, r.len, mirror_at(m, r)),
		  m->path);
}

static void mirror_open(struct mirror *m, const char *path, uint64_t size)
{
	uint64_t is;

	m->path = strdup(path);
	m->fd = open(path, O_RDWR | O_CLOEXEC);
	if (m->fd < 0)
		must_file(-errno, path);
	must_file(file_size(m->fd, &is), path);
	m->windows = is == NR_WINDOWS * WINDOW && size > is && !(size % WINDOW);
	if (is != size && !m->windows)
		die("%s: has %llu bytes, but the disk has %llu", path,
		    (unsigned long long)is, (unsigned long long)size);
}

/* From now on writes go to a copy of the windows; all else is a hole. */
static void mirror_fork(struct mirror *m, uint64_t size)
{
	struct mirror copy = { .windows = m->windows };
	unsigned int i;

	if (asprintf(&copy.path, "%s.now", m->path) < 0)
		must_file(-ENOMEM, m->path);
	copy.fd = file_make(copy.path, m->windows ? NR_WINDOWS * WINDOW : size);
	for (i = 0; i < nr_windows; i++) {
		uint64_t at, end = windows[i].offset + windows[i].len;

		for (at = windows[i].offset; at < end; at += WINDOW) {
			struct range r = { at, num_min(WINDOW, end - at) };

			mirror_read(m, buf, r);
			mirror_write(&copy, buf, r);
		}
	}
	close(m->fd);
	free(m->path);
	*m = copy;
}

/* --- Operations ----------------------------------------------------------- */

static void differs(struct range r, const char *when)
{
	uint64_t i;

	for (i = 0; buf[i] == expected[i]; i++)
		;
	die("%s: byte %llu reads %02x instead of %02x", when,
	    (unsigned long long)(r.offset + i), buf[i], expected[i]);
}

static void op_read(struct image *img, const struct mirror *m,
		    const char *when)
{
	struct range r = any_range(img);

	must(cow_pread(img->chain, buf, r.len, r.offset));
	mirror_read(m, expected, r);
	if (memcmp(buf, expected, r.len))
		differs(r, when);
}

static void op_write(struct image *img, const struct mirror *m)
{
	struct range r = any_range(img);

	chance_fill(buf, r.len);
	must(cow_pwrite(img->chain, buf, r.len, r.offset));
	mirror_write(m, buf, r);
}

static void op_zeroes(struct image *img, const struct mirror *m)
{
	struct range r = any_range(img);

	must(cow_pwrite_zeroes(img->chain, r.offset, r.len));
	memset(buf, 0, r.len);
	mirror_write(m, buf, r);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* The image chooses: a sector is as it was, or zero; and then it stays so. */
static void op_discard(struct image *img, const struct mirror *m)
{
	struct range r = any_range(img);
	uint64_t i, n;

	must(cow_pdiscard(img->chain, r.offset, r.len));
	must(cow_pread(img->chain, buf, r.len, r.offset));
	mirror_read(m, expected, r);
	for (i = 0; i < r.len; i += n) {
		n = num_min(SECTOR - (r.offset + i) % SECTOR, r.len - i);
		if (memcmp(buf + i, expected + i, n) && !is_zero(buf + i, n))
			differs(r, "after a discard");
	}
	mirror_write(m, buf, r);
}

static void op_reopen(struct image *img)
{
	must(cow_flush(img->chain));
	image_close(img);
	image_open(img, COW_OPEN_WRITE);
}

static void any_op(struct image *img, const struct mirror *m)
{
	uint64_t n = chance(100);

	if (n < 50)
		op_write(img, m);
	else if (n < 65)
		op_read(img, m, "read");
	else if (n < 77)
		op_zeroes(img, m);
	else if (n < 89)
		op_discard(img, m);
	else if (n < 97)
		must(cow_flush(img->chain));
	else
		op_reopen(img);
}

static void compare_windows(struct image *img, const struct mirror *m)
{
	unsigned int i;

	for (i = 0; i < nr_windows; i++) {
		uint64_t at, end = windows[i].offset + windows[i].len;

		for (at = windows[i].offset; at < end; at += WINDOW) {
			struct range r = { at, num_min(WINDOW, end - at) };

			must(cow_pread(img->chain, buf, r.len, r.offset));
			mirror_read(m, expected, r);
			if (memcmp(buf, expected, r.len))
				differs(r, "at last");
		}
	}
}

void load(struct image *img, const char *path, uint64_t ops, bool commit)
{
	uint64_t tail = commit ? 0 : ops / 4, i;
	struct mirror m;

	mirror_open(&m, path, img->size);
	set_windows(img->size, m.windows ? WINDOW : SECTOR);
	for (i = tail; i < ops; i++)
		any_op(img, &m);
	must(cow_flush(img->chain));
	if (commit) {
		op_reopen(img);
		compare_windows(img, &m);
	} else {
		mirror_fork(&m, img->size);
		for (i = 0; i < tail; i++)
			op_write(img, &m);
	}
	close(m.fd);
	free(m.path);
}
