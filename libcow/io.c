// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io.c - data, in user space: does what the kernel does with the answers,
 * one run of blocks after the other, remembering nothing.
 */
#include "internal.h"

#include <common/bits.h>
#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Waiting -------------------------------------------------------------- */

struct call {
	cow_done_fn done;
	void *user;
	int status;
	bool is_done;
};

static void call_done(struct cow_request *req, int status)
{
	struct call *call = req->user;

	call->status = status;
	call->is_done = true;
	if (call->done) {
		req->user = call->user;
		call->done(req, status);
	}
}

int cow_call(struct cow_chain *chain, struct cow_request *req)
{
	struct call call = { .done = req->done, .user = req->user };

	req->done = call_done;
	req->user = &call;
	cow_submit(chain, req);
	while (!call.is_done) {
		cow_engine_wait(&chain->engine);
		cow_dispatch(chain);
	}
	req->done = call.done;
	req->user = call.user;
	return call.status;
}

/* --- One run of blocks in one state --------------------------------------- */

struct run {
	uint32_t kind;		/* LINEAR or ZERO; COW: not yet copied */
	bool held;		/* by the top image */
	bool writable;
	uint64_t first, count;	/* blocks */
	struct cow_file *file;
	uint64_t offset;	/* of block first */
	struct cow_file *src;	/* COW; NULL: zeroes */
	uint64_t src_offset;
};

/* The run from req->first on, all copied or all not. */
static void cut_at_bits(const struct cow_request *req, struct run *r)
{
	const struct cow_answer *a = &req->answer;
	uint64_t at = req->first - a->first;

	if (!a->copied)
		return;
	if (bits_test(a->copied, at)) {
		r->kind = COW_KIND_LINEAR;
		r->writable = true;
		r->held = true;
		r->count = bits_next_clear(a->copied, at, a->count) - at;
	} else {
		r->count = bits_next_set(a->copied, at, a->count) - at;
	}
}

struct map_call {
	struct cow_chain *chain;
	struct run *run;
};

static void map_done(struct cow_request *req, int status)
{
	struct map_call *mc = req->user;
	const struct cow_answer *a = &req->answer;
	struct run *r = mc->run;
	uint64_t skip;

	if (status)
		return;
	skip = (req->first - a->first) * mc->chain->block_size;
	*r = (struct run){
		.kind = a->kind,
		.writable = a->flags & COW_MAPPING_WRITABLE,
		.first = req->first,
		.count = a->first + a->count - req->first,
		.offset = a->offset + skip,
		.src_offset = a->src_offset + skip,
	};
	if (a->file != COW_NO_FILE)
		r->file = mc->chain->files[a->file];
	if (a->src_file != COW_NO_FILE)
		r->src = mc->chain->files[a->src_file];
	r->held = req->priv.top.kind != COW_KIND_BACKING &&
		  req->priv.top.kind != COW_KIND_COW;
	if (r->kind == COW_KIND_COW)
		cut_at_bits(req, r);
}

/* Between two runs no answer is in use. */
static int tidy_scratch(struct cow_chain *chain)
{
	uint64_t first, count;

	return cow_scratch_full(chain, &first, &count) ?
		cow_scratch_empty(chain, first, count) : 0;
}

static int map_run(struct cow_chain *chain, uint64_t first, uint64_t count,
		   uint32_t flags, struct run *run)
{
	struct map_call mc = { chain, run };
	struct cow_request req = {
		.op = COW_OP_MAP,
		.flags = flags,
		.first = first,
		.count = count,
		.limit_first = first,
		.limit_end = first + count,
		.done = map_done,
		.user = &mc,
	};
	int ret = tidy_scratch(chain);

	return ret ? ret : cow_call(chain, &req);
}

static int copied(struct cow_chain *chain, const struct run *r,
		  uint64_t first, uint64_t count)
{
	struct cow_request req = {
		.op = COW_OP_COPIED,
		.first = first,
		.count = count,
		.file = r->file->index,
		.offset = r->offset + (first - r->first) * chain->block_size,
	};

	return cow_call(chain, &req);
}

/* --- Ranges --------------------------------------------------------------- */

/* A piece of a range: in one run, and whole blocks only or within a block. */
struct span {
	uint64_t offset;	/* bytes of the disk */
	size_t len;
	bool whole;
};

static struct span next_span(const struct cow_chain *c, uint64_t offset,
			     uint64_t len)
{
	uint32_t bs = c->block_size;
	uint64_t end = offset + len, whole;
	struct span s = { .offset = offset };

	whole = end == c->size ? end : num_round_down(end, bs);
	s.whole = num_is_aligned(offset, bs) && whole > offset;
	if (!s.whole)
		whole = num_min(num_round_up(offset + 1, bs), end);
	s.len = whole - offset;
	return s;
}

static uint64_t span_blocks(const struct cow_chain *c, const struct span *s)
{
	return num_div_up(s->offset + s->len, c->block_size) -
	       s->offset / c->block_size;
}

static int map_span(struct cow_chain *c, struct span *s, uint32_t flags,
		    struct run *r)
{
	uint64_t first = s->offset / c->block_size, end;
	int ret;

	if (s->whole && flags & COW_QUERY_WRITE)
		flags |= COW_QUERY_OVERWRITE;
	ret = map_run(c, first, span_blocks(c, s), flags, r);
	if (ret)
		return ret;
	end = num_min((r->first + r->count) * c->block_size, c->size);
	s->len = num_min(s->len, end - s->offset);
	return 0;
}

static int check_range(const struct cow_chain *c, uint64_t offset,
		       uint64_t len)
{
	return len && !num_run_in(offset, len, c->size) ? -EINVAL : 0;
}

static uint64_t in_run(const struct cow_chain *c, const struct run *r,
		       uint64_t offset)
{
	return offset - r->first * c->block_size;
}

static int data_error(struct cow_chain *c, int ret, const char *what,
		      const struct cow_file *f, uint64_t offset)
{
	return cow_log_error(&c->log, ret == -ENODATA ? -EIO : ret,
		"%s: data cannot be %s at offset %llu: %s", f->path, what,
		(unsigned long long)offset, ret == -ENODATA ?
		"the file ends before" : strerror(-ret));
}

static int data_read(struct cow_chain *c, struct cow_file *f, void *buf,
		     size_t len, uint64_t offset)
{
	int ret = file_pread_all(f->fd, buf, len, offset);

	return ret ? data_error(c, ret, "read", f, offset) : 0;
}

static int data_write(struct cow_chain *c, struct cow_file *f,
		      const void *buf, size_t len, uint64_t offset)
{
	int ret = file_pwrite_all(f->fd, buf, len, offset);

	return ret ? data_error(c, ret, "written", f, offset) : 0;
}

/* --- Read ----------------------------------------------------------------- */

static int read_run(struct cow_chain *c, const struct run *r, void *buf,
		    const struct span *s)
{
	uint64_t at = in_run(c, r, s->offset);

	if (r->kind == COW_KIND_LINEAR)
		return data_read(c, r->file, buf, s->len, r->offset + at);
	if (r->kind == COW_KIND_COW && r->src)
		return data_read(c, r->src, buf, s->len, r->src_offset + at);
	memset(buf, 0, s->len);
	return 0;
}

int cow_pread(struct cow_chain *c, void *buf, size_t len, uint64_t offset)
{
	uint8_t *p = buf;
	struct run r;
	int ret;

	ret = check_range(c, offset, len);
	while (!ret && len) {
		struct span s = { .offset = offset, .len = len };

		ret = map_span(c, &s, 0, &r);
		if (!ret)
			ret = read_run(c, &r, p, &s);
		p += s.len;
		offset += s.len;
		len -= s.len;
	}
	return ret;
}

/* --- Write ---------------------------------------------------------------- */

/* Part of a block that was not copied yet: all of it goes to the place. */
static int copy_and_write(struct cow_chain *c, const struct run *r,
			  const void *buf, const struct span *s)
{
	uint64_t start = r->first * c->block_size;
	struct span block = {
		.offset = start,
		.len = num_min(c->block_size, c->size - start),
	};
	uint8_t *copy = malloc(block.len);
	int ret;

	if (!copy)
		return -ENOMEM;
	ret = read_run(c, r, copy, &block);
	if (!ret) {
		memcpy(copy + (s->offset - start), buf, s->len);
		ret = data_write(c, r->file, copy, block.len, r->offset);
	}
	free(copy);
	return ret;
}

static int write_run(struct cow_chain *c, const struct run *r,
		     const void *buf, const struct span *s)
{
	int ret;

	if (r->kind == COW_KIND_LINEAR || s->whole)
		ret = data_write(c, r->file, buf, s->len,
				 r->offset + in_run(c, r, s->offset));
	else
		ret = copy_and_write(c, r, buf, s);
	if (!ret && r->kind == COW_KIND_COW)
		ret = copied(c, r, r->first, span_blocks(c, s));
	return ret;
}

int cow_pwrite(struct cow_chain *c, const void *buf, size_t len,
	       uint64_t offset)
{
	const uint8_t *p = buf;
	struct run r;
	int ret;

	ret = check_range(c, offset, len);
	while (!ret && len) {
		struct span s = next_span(c, offset, len);

		ret = map_span(c, &s, COW_QUERY_WRITE, &r);
		if (!ret)
			ret = write_run(c, &r, p, &s);
		p += s.len;
		offset += s.len;
		len -= s.len;
	}
	return ret;
}

/* Where the bytes of a run stand that is read, if anywhere. */
static const struct cow_file *run_place(const struct run *r, uint64_t *offset)
{
	*offset = r->kind == COW_KIND_COW ? r->src_offset : r->offset;
	if (r->kind == COW_KIND_ZERO)
		return NULL;
	return r->kind == COW_KIND_COW ? r->src : r->file;
}

int cow_where(struct cow_chain *c, uint64_t offset, uint64_t len,
	      struct cow_where *where)
{
	struct span s = { .offset = offset, .len = len };
	const struct cow_file *file;
	uint64_t place;
	struct run r;
	int ret;

	if (!num_run_in(offset, len, c->size))
		return -EINVAL;
	ret = map_span(c, &s, COW_REQ_LOOK, &r);
	if (ret)
		return ret;
	file = run_place(&r, &place);
	*where = (struct cow_where){
		.len = s.len,
		.held = r.held,
		.zero = !file,
		.file = file ? file->index : COW_NO_FILE,
		.offset = file ? place + in_run(c, &r, offset) : 0,
	};
	return 0;
}

int cow_flush(struct cow_chain *c)
{
	struct cow_request req = { .op = COW_OP_COMMIT };

	return cow_call(c, &req);
}

/* --- Discard and zeroes --------------------------------------------------- */

static int whole_op(struct cow_chain *c, enum cow_op op, const struct span *s)
{
	struct cow_request req = {
		.op = op,
		.first = s->offset / c->block_size,
		.count = span_blocks(c, s),
	};

	return cow_call(c, &req);
}

/* Only what is ours: what is below stays visible where it was. */
static int discard_run(struct cow_chain *c, const struct run *r,
		       const struct span *s)
{
	if (r->kind != COW_KIND_LINEAR || !r->writable)
		return 0;
	return cow_file_zero(r->file, r->offset + in_run(c, r, s->offset),
			     s->len);
}

int cow_pdiscard(struct cow_chain *c, uint64_t offset, uint64_t len)
{
	bool native = cow_image_discards(c->images[0]);
	struct run r;
	int ret;

	ret = check_range(c, offset, len);
	if (!ret && !c->writable)
		return -EROFS;
	while (!ret && len) {
		struct span s = next_span(c, offset, len);

		if (s.whole && native) {
			ret = whole_op(c, COW_OP_DISCARD, &s);
		} else if (s.whole) {
			ret = map_span(c, &s, 0, &r);
			if (!ret)
				ret = discard_run(c, &r, &s);
		}
		offset += s.len;
		len -= s.len;
	}
	return ret;
}

static int zero_run(struct cow_chain *c, const struct run *r,
		    const struct span *s)
{
	int ret;

	ret = cow_file_zero(r->file, r->offset + in_run(c, r, s->offset),
			    s->len);
	if (!ret && r->kind == COW_KIND_COW)
		ret = copied(c, r, r->first, span_blocks(c, s));
	return ret;
}

static int zero_part(struct cow_chain *c, const struct span *s)
{
	void *zeroes = calloc(1, s->len);
	int ret;

	if (!zeroes)
		return -ENOMEM;
	ret = cow_pwrite(c, zeroes, s->len, s->offset);
	free(zeroes);
	return ret;
}

int cow_pwrite_zeroes(struct cow_chain *c, uint64_t offset, uint64_t len)
{
	bool native = cow_image_zeroes(c->images[0]);
	struct run r;
	int ret;

	ret = check_range(c, offset, len);
	while (!ret && len) {
		struct span s = next_span(c, offset, len);

		if (!s.whole) {
			ret = zero_part(c, &s);
		} else if (native) {
			ret = whole_op(c, COW_OP_WRITE_ZEROES, &s);
		} else {
			ret = map_span(c, &s, COW_QUERY_WRITE, &r);
			if (!ret)
				ret = zero_run(c, &r, &s);
		}
		offset += s.len;
		len -= s.len;
	}
	return ret;
}
