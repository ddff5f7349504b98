// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * scratch.c - blocks that stand nowhere as they are.
 *
 * Such a block is put together from its pieces in memory and written to the
 * scratch file, at its own position: the file is sparse, as long as the
 * disk, and needs no allocation.  The images that it is made of do not
 * change, so making it again does no harm: what the file holds needs not to
 * be known.  One block is made at a time; the helper thread does the I/O.
 * Now and then all of it is thrown away, so that it takes bounded memory.
 */
#include "internal.h"

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES	4096

/* --- Start and end -------------------------------------------------------- */

/* Can a block of the disk lie in more than one piece of this image? */
static bool image_needs(const struct cow_chain *c, const struct cow_image *img)
{
	if (img->plugin->read)
		return true;
	if (img->level && img->block_size < c->block_size)
		return true;
	return img->size < c->size && img->size % c->block_size;
}

static bool chain_needs(const struct cow_chain *c)
{
	uint32_t i;

	for (i = 0; i < c->nr_images; i++) {
		if (image_needs(c, c->images[i]))
			return true;
	}
	return false;
}

static void *map_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int alloc_buffers(struct cow_chain *c)
{
	struct cow_scratch *s = &c->scratch;
	uint32_t i;

	s->buf_size = c->block_size;
	for (i = 0; i < c->nr_images; i++) {
		if (c->images[i]->plugin->read)
			s->bounce_size = num_max(s->bounce_size,
						 c->images[i]->block_size);
	}
	s->buf = map_memory(s->buf_size);
	if (s->bounce_size)
		s->bounce = map_memory(s->bounce_size);
	return s->buf && (s->bounce || !s->bounce_size) ? 0 : -ENOMEM;
}

static int open_file(struct cow_chain *c, int scratch_fd)
{
	struct cow_scratch *s = &c->scratch;
	int fd, ret;

	if (scratch_fd >= 0)
		fd = fcntl(scratch_fd, F_DUPFD_CLOEXEC, 0);
	else
		fd = memfd_create("cow-scratch", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)c->size) < 0) {
		ret = cow_log_error(&c->log, -errno,
			"a scratch file of %llu bytes cannot be made: %s",
			(unsigned long long)c->size, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	ret = cow_file_adopt(&c->log, "scratch file", fd, &s->file);
	if (ret)
		return ret;
	s->file->scratch = true;
	ret = cow_chain_add_file(c, s->file);
	if (ret)
		cow_file_close(s->file);
	return ret;
}

int cow_scratch_init(struct cow_chain *c, int fd, uint64_t limit)
{
	int ret;

	if (!chain_needs(c))
		return 0;
	c->scratch.limit = limit ? limit : COW_SCRATCH_DEFAULT;
	ret = alloc_buffers(c);
	return ret ? ret : open_file(c, fd);
}

void cow_scratch_free(struct cow_chain *c)
{
	struct cow_scratch *s = &c->scratch;

	if (s->buf)
		munmap(s->buf, s->buf_size);
	if (s->bounce)
		munmap(s->bounce, s->bounce_size);
}

/* --- Make ----------------------------------------------------------------- */

static void io_done(struct cow_io *io)
{
	struct cow_scratch *s = (struct cow_scratch *)
		((char *)io - offsetof(struct cow_scratch, io));

	s->busy = false;
	s->status = io->status;
	s->pos += io->len;
}

static void submit(struct cow_chain *c, int op, struct cow_file *file,
		   uint8_t *buf, uint32_t len, uint64_t offset)
{
	struct cow_scratch *s = &c->scratch;

	s->io.op = op;
	s->io.file = file;
	s->io.buf = buf;
	s->io.len = len;
	s->io.offset = offset;
	s->io.done = io_done;
	s->busy = true;
	cow_engine_submit(&c->engine, &s->io);
}

/* In the helper thread. */
static int read_work(struct cow_io *io)
{
	struct cow_scratch *s = (struct cow_scratch *)
		((char *)io - offsetof(struct cow_scratch, io));
	struct cow_image *img = s->read_img;
	int ret;

	ret = img->plugin->read(img->handle, &s->read_mapping, s->bounce,
				s->read_len);
	if (!ret)
		memcpy(io->buf, s->bounce + s->read_skip, io->len);
	return ret;
}

static void start_piece(struct cow_chain *c, const struct cow_piece *p,
			uint32_t len)
{
	struct cow_scratch *s = &c->scratch;
	uint8_t *to = s->buf + s->pos % c->block_size;

	if (p->kind == COW_PIECE_FILE) {
		submit(c, COW_IO_READ, p->file, to, len,
		       p->offset + (s->pos - p->start));
		return;
	}
	s->read_img = p->img;
	s->read_mapping = p->mapping;
	s->read_skip = s->pos - p->mapping.first * p->img->block_size;
	s->read_len = num_min(p->img->block_size, p->img->size -
			      p->mapping.first * p->img->block_size);
	s->io.work = read_work;
	submit(c, COW_IO_WORK, NULL, to, len, 0);
}

/*
 * Pieces until one needs an I/O: -EAGAIN; 0 when the block is whole.  Each is looked up
 * once, so its tables are given up: all of them are more than one request may pin.
 */
static int gather(struct cow_chain *c, struct cow_request *req)
{
	struct cow_scratch *s = &c->scratch;
	struct cow_piece p;
	uint32_t len;
	int ret;

	while (s->pos < s->end) {
		ret = cow_source_at(c, &req->priv.top, s->pos, &p);
		if (ret)
			return ret;
		cow_cache_unpin(c, req);
		len = (uint32_t)(num_min(p.end, s->end) - s->pos);
		if (p.kind != COW_PIECE_ZERO) {
			start_piece(c, &p, len);
			return -EAGAIN;
		}
		memset(s->buf + s->pos % c->block_size, 0, len);
		s->pos += len;
	}
	return 0;
}

static int report(struct cow_chain *c, struct cow_request *req)
{
	struct cow_scratch *s = &c->scratch;
	int ret = s->status == -ENODATA ? -EIO : s->status;

	/* ->read() has said what is wrong. */
	if (s->io.op == COW_IO_WORK)
		return ret;
	return cow_log_error(&c->log, ret,
		"%s: block %llu cannot be put together: %s: %s",
		c->images[0]->path, (unsigned long long)req->first,
		s->io.file->path, strerror(-ret));
}

static void take(struct cow_chain *c, struct cow_request *req)
{
	struct cow_scratch *s = &c->scratch;

	s->owner = req;
	s->status = 0;
	s->written = false;
	s->pos = req->first * c->block_size;
	s->end = num_min(s->pos + c->block_size, c->size);
}

/* What is smaller than a page takes one. */
static void count_block(struct cow_scratch *s, uint64_t start)
{
	s->used += num_max(s->end - start, PAGE_BYTES);
	s->used_end = num_max(s->used_end, s->end);
}

int cow_scratch_make(struct cow_chain *c, struct cow_request *req)
{
	struct cow_scratch *s = &c->scratch;
	uint64_t start = req->first * c->block_size;
	int ret;

	if (!s->file)
		return cow_error(c->images[0], -EIO,
			"block %llu lies in no single place",
			(unsigned long long)req->first);
	if (!s->owner)
		take(c, req);
	if (s->owner != req)
		req->priv.behind = COW_BEHIND_SCRATCH;
	if (s->owner != req || s->busy)
		return -EAGAIN;
	if (s->status)
		return report(c, req);
	if (s->written) {
		s->made++;
		count_block(s, start);
		return 0;
	}
	ret = gather(c, req);
	if (ret)
		return ret;
	s->written = true;
	submit(c, COW_IO_WRITE, s->file, s->buf, (uint32_t)(s->end - start),
	       start);
	return -EAGAIN;
}

/* The oldest that waits is next, or all would read their tables again for it. */
void cow_scratch_release(struct cow_chain *c, struct cow_request *req)
{
	struct cow_request *r;

	if (c->scratch.owner != req)
		return;
	c->scratch.owner = NULL;
	for (r = c->active.priv.next; r != &c->active; r = r->priv.next) {
		if (r->priv.behind == COW_BEHIND_SCRATCH) {
			take(c, r);
			return;
		}
	}
}

/* --- Empty ---------------------------------------------------------------- */

/* Blocks made twice count once from here on. */
static int count_again(struct cow_scratch *s)
{
	struct stat st;

	if (fstat(s->file->fd, &st) < 0)
		return -errno;
	s->used = (uint64_t)st.st_blocks * COW_SECTOR_SIZE;
	return 0;
}

bool cow_scratch_full(struct cow_chain *c, uint64_t *first, uint64_t *count)
{
	struct cow_scratch *s = &c->scratch;
	off_t start;

	if (!s->file || s->used < s->limit)
		return false;
	if (count_again(s) || s->used < s->limit)
		return false;
	start = lseek(s->file->fd, 0, SEEK_DATA);
	if (start < 0)
		return false;
	*first = (uint64_t)start / c->block_size;
	*count = num_div_up(s->used_end, c->block_size) - *first;
	return true;
}

int cow_scratch_empty(struct cow_chain *c, uint64_t first, uint64_t count)
{
	struct cow_scratch *s = &c->scratch;
	uint64_t start = first * c->block_size;
	uint64_t end = num_min(start + count * c->block_size, c->size);
	int ret = 0;

	if (fallocate(s->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)start, (off_t)(end - start)) < 0)
		ret = -errno;
	if (!ret)
		ret = count_again(s);
	if (ret)
		s->used = 0;	/* to be tried again when as much more was made */
	return ret ? cow_log_error(&c->log, ret,
		"the scratch file cannot be emptied at offset %llu: %s",
		(unsigned long long)start, strerror(-ret)) : 0;
}
