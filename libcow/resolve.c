// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * resolve.c - where a block lives, through all images of the chain.
 *
 * A piece is a run of bytes of the disk that one place (or nothing but
 * zeroes) holds.  The images below may have other block sizes, and may end
 * anywhere; a block of the chain that lies within one piece is answered by
 * its place, and with it all others that do.  A block that does not (or
 * whose place is no whole sector, or that stands nowhere as it is) is put
 * into the scratch file once, and answered from there.
 */
#include "internal.h"

#include <common/num.h>

#include <errno.h>

/* --- One image ------------------------------------------------------------ */

static const char *mapping_fault(const struct cow_image *img,
				 const struct cow_query *q,
				 const struct cow_mapping *m)
{
	bool place = m->kind == COW_KIND_LINEAR || m->kind == COW_KIND_COW;
	uint64_t end, bytes, last;

	if (m->kind < COW_KIND_LINEAR || m->kind > COW_KIND_READ)
		return "of no known kind";
	if (m->first > q->first || num_add_overflow(m->first, m->count, &end)
	    || end <= q->first)
		return "that does not hold the block asked for";
	if (num_mul_overflow(m->count, img->block_size, &bytes) ||
	    num_add_overflow(m->offset, bytes, &last) || last > INT64_MAX)
		return "that overflows";
	if (place && m->file >= img->nr_files)
		return "into a file that it does not have";
	if (place && !num_is_aligned(m->offset, COW_SECTOR_SIZE) &&
	    (q->flags & COW_QUERY_WRITE || m->kind == COW_KIND_COW))
		return "to a place that is no whole sector";
	if (m->kind == COW_KIND_COW && (!img->plugin->copied ||
					m->source > COW_SOURCE_READ))
		return "to copy that it cannot be told of";
	if (m->kind == COW_KIND_COW && m->source == COW_SOURCE_PLACE &&
	    (m->src_file >= img->nr_files ||
	     num_add_overflow(m->src_offset, bytes, &last) ||
	     last > INT64_MAX))
		return "whose source is out of range";
	/* The kernel refuses it, too. */
	if (m->kind == COW_KIND_COW && m->source == COW_SOURCE_PLACE &&
	    m->src_file == m->file && m->src_offset < m->offset + bytes &&
	    m->offset < m->src_offset + bytes)
		return "to copy onto itself";
	if ((m->kind == COW_KIND_READ || (m->kind == COW_KIND_COW &&
	     m->source == COW_SOURCE_READ)) && !img->plugin->read)
		return "to read without read()";
	if (m->flags & COW_MAPPING_BITS && !img->plugin->copied_bits)
		return "with bits that it cannot tell";
	if (q->flags & COW_QUERY_WRITE && m->kind != COW_KIND_COW &&
	    !(m->kind == COW_KIND_LINEAR && m->flags & COW_MAPPING_WRITABLE))
		return "that cannot be written";
	return NULL;
}

/* Cut to [first, end); the place goes along. */
static void mapping_clip(const struct cow_image *img, struct cow_mapping *m,
			 uint64_t first, uint64_t end)
{
	if (m->first < first) {
		uint64_t skip = first - m->first;

		m->first += skip;
		m->count -= skip;
		m->offset += skip * img->block_size;
		m->src_offset += skip * img->block_size;
	}
	m->count = num_min(m->count, end - m->first);
}

int cow_image_map(struct cow_image *img, const struct cow_query *q,
		  struct cow_mapping *m)
{
	const char *fault;
	int ret;

	*m = (struct cow_mapping){ 0 };
	ret = img->plugin->map(img->handle, q, m);
	if (ret)
		return ret;
	fault = mapping_fault(img, q, m);
	if (fault)
		return cow_error(img, -EIO,
			"the plugin %s answers block %llu by a mapping %s",
			img->plugin->name, (unsigned long long)q->first,
			fault);
	/* What ->read() makes is one block; src_offset is the plugin's. */
	if (m->kind == COW_KIND_READ || m->source == COW_SOURCE_READ) {
		if (m->first != q->first || m->count != 1)
			return cow_error(img, -EIO,
				"the plugin %s answers block %llu by more than it",
				img->plugin->name,
				(unsigned long long)q->first);
		return 0;
	}
	mapping_clip(img, m, q->limit_first, q->limit_end);
	if (m->flags & COW_MAPPING_BITS && m->count > COW_COPIED_BITS_MAX)
		mapping_clip(img, m, q->first,
			     q->first + COW_COPIED_BITS_MAX);
	return 0;
}

/* --- Pieces --------------------------------------------------------------- */

static int map_below(struct cow_image *img, uint64_t pos,
		     struct cow_mapping *m)
{
	struct cow_query q = {
		.first = pos / img->block_size,
		.count = 1,
		.limit_end = img->nr_blocks,
	};
	int ret;

	ret = cow_image_map(img, &q, m);
	if (!ret && m->kind == COW_KIND_COW)
		return cow_error(img, -EIO,
			"the plugin %s wants to copy in a read-only image",
			img->plugin->name);
	return ret;
}

static void piece_clip(struct cow_piece *p, uint64_t start, uint64_t end)
{
	if (p->start < start) {
		p->offset += start - p->start;
		p->start = start;
	}
	p->end = num_min(p->end, end);
}

/* A mapping of img as a piece; img may end within the last block. */
static void piece_set(struct cow_piece *p, struct cow_image *img, int kind,
		      const struct cow_mapping *m, uint64_t offset)
{
	p->kind = kind;
	p->img = img;
	p->offset = offset;
	p->mapping = *m;
	p->start = m->first * img->block_size;
	p->end = num_min(p->start + m->count * img->block_size, img->size);
}

/*
 * What holds byte pos from image level downwards.  The piece may reach
 * beyond the disk, but not beyond the limits that upper images set.
 */
static int piece_below(struct cow_chain *chain, uint32_t level, uint64_t pos,
		       uint64_t start, uint64_t end, struct cow_piece *p)
{
	struct cow_mapping m;
	struct cow_image *img;
	int ret;

	*p = (struct cow_piece){ .kind = COW_PIECE_ZERO };
	for (; level < chain->nr_images; level++) {
		img = chain->images[level];
		if (pos >= img->size) {
			p->start = num_max(start, img->size);
			p->end = end;
			return 0;
		}
		ret = map_below(img, pos, &m);
		if (ret)
			return ret;
		piece_set(p, img, COW_PIECE_ZERO, &m, m.offset);
		if (m.kind == COW_KIND_LINEAR) {
			p->kind = COW_PIECE_FILE;
			p->file = img->files[m.file];
		} else if (m.kind == COW_KIND_READ) {
			p->kind = COW_PIECE_READ;
		}
		piece_clip(p, start, end);
		if (m.kind != COW_KIND_BACKING)
			return 0;
		start = p->start;
		end = p->end;
	}
	p->kind = COW_PIECE_ZERO;
	p->start = start;
	p->end = end;
	return 0;
}

int cow_source_at(struct cow_chain *chain, const struct cow_mapping *top,
		  uint64_t pos, struct cow_piece *p)
{
	struct cow_image *img = chain->images[0];
	bool cow = top->kind == COW_KIND_COW;
	int ret = 0;

	*p = (struct cow_piece){ .kind = COW_PIECE_ZERO };
	if (pos >= img->size) {
		p->start = img->size;
		p->end = UINT64_MAX;
		return 0;
	}
	if (top->kind == COW_KIND_LINEAR) {
		piece_set(p, img, COW_PIECE_FILE, top, top->offset);
		p->file = img->files[top->file];
	} else if (cow && top->source == COW_SOURCE_PLACE) {
		piece_set(p, img, COW_PIECE_FILE, top, top->src_offset);
		p->file = img->files[top->src_file];
	} else if (cow ? top->source == COW_SOURCE_READ :
			 top->kind == COW_KIND_READ) {
		piece_set(p, img, COW_PIECE_READ, top, 0);
	} else {
		piece_set(p, img, COW_PIECE_ZERO, top, 0);
		if (cow ? top->source == COW_SOURCE_BACKING :
			  top->kind == COW_KIND_BACKING)
			ret = piece_below(chain, 1, pos, p->start, p->end, p);
	}
	return ret;
}

/* --- Blocks --------------------------------------------------------------- */

/* Where the disk's last block ends, if rest is in it. */
static uint64_t block_end(const struct cow_chain *chain, uint64_t block)
{
	return num_min((block + 1) * chain->block_size, chain->size);
}

/*
 * Does one piece of zeroes follow the other up to the end of the block?  There may be
 * more of them, and more tables that say so, than one request may pin: it begins anew
 * at the piece that it waited for.
 */
static int all_zero(struct cow_chain *chain, struct cow_request *req,
		    bool *zero)
{
	uint64_t start = req->first * chain->block_size;
	uint64_t len = block_end(chain, req->first) - start;
	struct cow_piece p;
	int ret;

	*zero = false;
	while (req->priv.progress < len) {
		ret = cow_source_at(chain, &req->priv.top,
				    start + req->priv.progress, &p);
		if (ret)
			return ret;
		if (p.kind != COW_PIECE_ZERO)
			return 0;
		req->priv.progress = p.end - start;
		cow_cache_unpin(chain, req);
	}
	*zero = true;
	return 0;
}

struct source {
	uint64_t first, count;		/* blocks */
	struct cow_file *file;		/* NULL: zeroes */
	uint64_t offset;		/* of block first */
};

/* The blocks that lie in the piece as a whole.  False: not this one. */
static bool source_of_piece(const struct cow_chain *chain, uint64_t block,
			    const struct cow_piece *p, struct source *s)
{
	uint64_t end;

	if (p->kind == COW_PIECE_READ)
		return false;
	s->first = num_div_up(p->start, chain->block_size);
	end = p->end >= chain->size ? chain->nr_blocks :
				      p->end / chain->block_size;
	if (block < s->first || block >= end)
		return false;
	s->count = end - s->first;
	s->file = p->kind == COW_PIECE_FILE ? p->file : NULL;
	s->offset = p->offset + (s->first * chain->block_size - p->start);
	return !s->file || num_is_aligned(s->offset, COW_SECTOR_SIZE);
}

/*
 * What a state found out holds in those after it: what the top said is kept, and below
 * it nothing changes.
 */
static int find_source(struct cow_chain *chain, struct cow_request *req,
		       struct source *s)
{
	uint64_t block = req->first;
	struct cow_piece p;
	bool zero;
	int ret;

	if (req->priv.state == COW_MAP_PLACE) {
		ret = cow_source_at(chain, &req->priv.top,
				    block * chain->block_size, &p);
		if (ret)
			return ret;
		if (source_of_piece(chain, block, &p, s))
			return 0;
		cow_map_goes_on(chain, req, p.kind == COW_PIECE_ZERO ?
				COW_MAP_ZEROES : COW_MAP_SCRATCH);
	}
	*s = (struct source){ .first = block, .count = 1 };
	if (req->priv.state == COW_MAP_ZEROES) {
		ret = all_zero(chain, req, &zero);
		if (ret || zero)
			return ret;
		cow_map_goes_on(chain, req, COW_MAP_SCRATCH);
	}
	s->file = chain->scratch.file;
	s->offset = block * chain->block_size;
	return req->flags & COW_REQ_LOOK && s->file ?
		0 : cow_scratch_make(chain, req);
}

/* The answer gets no larger than the source, nor than the top mapping. */
static void answer_cut(struct cow_chain *chain, struct cow_answer *a,
		       struct source *s)
{
	uint64_t first = num_max(a->first, s->first);
	uint64_t end = num_min(a->first + a->count, s->first + s->count);

	a->offset += (first - a->first) * chain->block_size;
	s->offset += (first - s->first) * chain->block_size;
	a->first = first;
	a->count = end - first;
}

static bool is_plain(const struct cow_chain *chain,
		     const struct cow_request *req)
{
	const struct cow_mapping *m = &req->priv.top;

	if (m->kind == COW_KIND_ZERO)
		return true;
	/* Where the image ends within a sector the rest must read zero. */
	if (m->kind == COW_KIND_LINEAR)
		return m->flags & COW_MAPPING_WRITABLE ||
		       chain->images[0]->size == chain->size;
	return m->kind == COW_KIND_COW && m->source == COW_SOURCE_ZERO;
}

int cow_resolve(struct cow_chain *chain, struct cow_request *req)
{
	const struct cow_mapping *m = &req->priv.top;
	struct cow_answer *a = &req->answer;
	struct source s;
	int ret;

	a->kind = m->kind;
	a->flags = m->flags & ~COW_MAPPING_BITS;
	a->first = m->first;
	a->count = m->count;
	a->offset = m->offset;
	a->src_file = COW_NO_FILE;
	a->file = COW_NO_FILE;
	if (m->kind == COW_KIND_LINEAR || m->kind == COW_KIND_COW)
		a->file = chain->images[0]->files[m->file]->index;
	if (is_plain(chain, req))
		return 0;
	ret = find_source(chain, req, &s);
	if (ret)
		return ret;
	answer_cut(chain, a, &s);
	if (m->kind == COW_KIND_COW) {
		a->src_file = s.file ? s.file->index : COW_NO_FILE;
		a->src_offset = s.file ? s.offset : 0;
	} else {
		a->kind = s.file ? COW_KIND_LINEAR : COW_KIND_ZERO;
		a->file = s.file ? s.file->index : COW_NO_FILE;
		a->offset = s.file ? s.offset : 0;
	}
	return 0;
}
