// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * request.c - requests are run until they have to wait, and run again when
 * something has arrived.
 *
 * All requests that are not done stand in the ring chain->active, oldest
 * first.  Only this file and commit_end() take them out.  A done() callback
 * may submit: that appends to the ring and runs later, so no loop over the
 * ring is ever entered twice.
 */
#include "internal.h"

#include <common/num.h>

#include <errno.h>
#include <string.h>

/*
 * A change is passed on in runs of so many blocks: few tables at a time, also
 * where a table is of a few hundred blocks and there are two copies of it.
 */
#define CHANGE_STEP (1ull << 14)

bool cow_request_changes(const struct cow_request *req)
{
	return req->op == COW_OP_COPIED || req->op == COW_OP_DISCARD ||
	       req->op == COW_OP_WRITE_ZEROES;
}

void cow_request_finish(struct cow_chain *chain, struct cow_request *req,
			int status)
{
	req->priv.prev->priv.next = req->priv.next;
	req->priv.next->priv.prev = req->priv.prev;
	cow_cache_unpin(chain, req);
	cow_scratch_release(chain, req);
	cow_work_release(chain, req);
	if (status && req->op == COW_OP_COPIED && status != -ECANCELED &&
	    !(req->flags & COW_REQ_AGAIN))
		chain->commit.lost = status;
	chain->nr_done++;
	req->done(req, status);
}

/* --- MAP ------------------------------------------------------------------ */

void cow_map_goes_on(struct cow_chain *chain, struct cow_request *req,
		     enum cow_map_state state)
{
	cow_cache_unpin(chain, req);
	req->priv.state = state;
}

static int map_top(struct cow_chain *chain, struct cow_request *req)
{
	struct cow_query query = {
		.flags = req->flags & (COW_QUERY_WRITE | COW_QUERY_OVERWRITE),
		.first = req->first,
		.count = num_min(req->count, req->limit_end - req->first),
		.limit_first = req->limit_first,
		.limit_end = req->limit_end,
	};

	return cow_image_map(chain->images[0], &query, &req->priv.top);
}

static int map_bits(struct cow_chain *chain, struct cow_request *req)
{
	struct cow_image *top = chain->images[0];
	struct cow_answer *a = &req->answer;
	int ret;

	if (a->kind != COW_KIND_COW ||
	    !(req->priv.top.flags & COW_MAPPING_BITS))
		return 0;
	memset(chain->bits, 0, num_div_up(a->count, 8));
	ret = top->plugin->copied_bits(top->handle, a->first, a->count,
				       chain->bits);
	if (!ret)
		a->copied = chain->bits;
	return ret;
}

static int run_map(struct cow_chain *chain, struct cow_request *req)
{
	int ret = 0;

	if (req->priv.state == COW_MAP_TOP) {
		ret = map_top(chain, req);
		if (ret)
			return ret;
		cow_map_goes_on(chain, req, COW_MAP_PLACE);
	}
	if (req->priv.state != COW_MAP_BITS) {
		ret = cow_resolve(chain, req);
		if (ret)
			return ret;
		cow_map_goes_on(chain, req, COW_MAP_BITS);
	}
	return map_bits(chain, req);
}

/* --- COPIED, DISCARD, WRITE_ZEROES ---------------------------------------- */

/* An older COMMIT that has not settled what it writes must not see us. */
static bool must_wait(struct cow_chain *chain, const struct cow_request *req)
{
	const struct cow_commit *c = &chain->commit;
	const struct cow_request *r;

	for (r = req->priv.prev; r != &chain->active; r = r->priv.prev) {
		if (r->op == COW_OP_COMMIT &&
		    !(c->frozen && r->priv.id <= c->last_id))
			return true;
	}
	return false;
}

static int image_file_index(const struct cow_image *img,
			    const struct cow_file *file, uint32_t *index)
{
	for (*index = 0; *index < img->nr_files; ++*index) {
		if (img->files[*index] == file)
			return 0;
	}
	return -EINVAL;
}

static int copied_step(struct cow_chain *chain, struct cow_request *req,
		       uint64_t count)
{
	struct cow_image *top = chain->images[0];
	uint64_t done = req->priv.progress;
	struct cow_extent extent = {
		.first = req->first + done,
		.count = count,
		.offset = req->offset + done * chain->block_size,
	};
	int ret;

	ret = image_file_index(top, chain->files[req->file], &extent.file);
	return ret ? ret : top->plugin->copied(top->handle, &extent);
}

static int change_step(struct cow_chain *chain, struct cow_request *req,
		       uint64_t count)
{
	struct cow_image *top = chain->images[0];
	uint64_t first = req->first + req->priv.progress;

	if (req->op == COW_OP_COPIED)
		return copied_step(chain, req, count);
	if (req->op == COW_OP_DISCARD)
		return top->plugin->discard(top->handle, first, count);
	return top->plugin->write_zeroes(top->handle, first, count);
}

/* How many blocks the next step is of: cut as the plugin wants it. */
static uint64_t step_blocks(const struct cow_image *top,
			    const struct cow_request *req)
{
	uint64_t done = req->priv.progress, run = top->run_blocks;
	uint64_t n = num_min(req->count - done, CHANGE_STEP);

	return run ? num_min(n, run - (req->first + done) % run) : n;
}

static int run_change(struct cow_chain *chain, struct cow_request *req)
{
	uint64_t n;
	int ret;

	if (must_wait(chain, req))
		return -EAGAIN;
	while (req->priv.progress < req->count) {
		n = step_blocks(chain->images[0], req);
		ret = change_step(chain, req, n);
		if (ret)
			return ret;
		req->priv.progress += n;
		cow_cache_unpin(chain, req);
	}
	return 0;
}

/* --- Run ------------------------------------------------------------------ */

/* The oldest that waits behind no other one keeps what it has; see table.c. */
static bool is_oldest(const struct cow_chain *chain,
		      const struct cow_request *req)
{
	const struct cow_request *r = chain->active.priv.next;

	if (chain->commit.stage == COW_COMMIT_HOOK)
		return false;
	while ((r->op == COW_OP_COMMIT || r->priv.behind) && r != req)
		r = r->priv.next;
	return r == req;
}

/* Another one still has what it waits for. */
static bool is_behind(const struct cow_chain *chain,
		      const struct cow_request *req)
{
	const struct cow_request *owner = NULL;

	if (req->priv.behind == COW_BEHIND_SCRATCH)
		owner = chain->scratch.owner;
	else if (req->priv.behind == COW_BEHIND_WORK)
		owner = chain->work.owner;
	return owner && owner != req;
}

/* Waits for room in the cache, or has just made some. */
struct run_result {
	bool starved, gave_up;
};

static void run_one(struct cow_chain *chain, struct cow_request *req,
		    struct run_result *res)
{
	bool held = req->priv.nr_pins;
	int ret;

	if (is_behind(chain, req))
		return;
	chain->current = req;
	req->priv.starved = false;
	req->priv.behind = COW_BEHIND_NONE;
	ret = req->op == COW_OP_MAP ? run_map(chain, req) :
				      run_change(chain, req);
	chain->current = NULL;
	if (ret != -EAGAIN) {
		cow_request_finish(chain, req, ret > 0 ? -EIO : ret);
		return;
	}
	res->starved |= req->priv.starved;
	if (!req->priv.behind &&
	    (!req->priv.starved || is_oldest(chain, req)))
		return;
	/* Older ones looked for room before it gave up what it held, be it as it ran. */
	res->gave_up |= held || req->priv.nr_pins;
	cow_cache_unpin(chain, req);
}

/* True: one may find room now that did not when it was its turn. */
static bool run_ring(struct cow_chain *chain)
{
	struct run_result res = { false, false };
	struct cow_request *req, *next;

	for (req = chain->active.priv.next; req != &chain->active;
	     req = next) {
		next = req->priv.next;
		if (req->op != COW_OP_COMMIT)
			run_one(chain, req, &res);
	}
	return res.starved && res.gave_up;
}

/*
 * Until all wait for an I/O.  Where room was made, one more turn is enough: who still
 * finds none waits for those whose tables are being read, or are in a commit.
 */
static void run_all(struct cow_chain *chain)
{
	bool more, room, had_room = false;
	uint64_t done;

	chain->running = true;
	do {
		chain->kicked = false;
		more = false;
		while (cow_commit_run(chain))
			more = true;
		done = chain->nr_done;
		room = run_ring(chain);
		cow_cache_forget_failed(&chain->cache);
		if (done != chain->nr_done || (room && !had_room) ||
		    (chain->commit.wanted &&
		     chain->commit.stage == COW_COMMIT_IDLE))
			more = true;
		had_room = room;
	} while (more || chain->kicked);
	chain->running = false;
}

/* --- Submit --------------------------------------------------------------- */

static int check_range(const struct cow_chain *chain,
		       const struct cow_request *req)
{
	return num_run_in(req->first, req->count, chain->nr_blocks) ? 0 :
								      -ERANGE;
}

static int check_map(struct cow_chain *chain, struct cow_request *req)
{
	int ret = check_range(chain, req);

	if (ret)
		return ret;
	if (req->flags & COW_QUERY_WRITE && !chain->writable)
		return -EROFS;
	if (!req->limit_end || req->limit_end > chain->nr_blocks)
		req->limit_end = chain->nr_blocks;
	if (req->limit_first > req->first || req->limit_end <= req->first)
		return -EINVAL;
	return 0;
}

static int check_copied(struct cow_chain *chain,
			const struct cow_request *req)
{
	if (!chain->images[0]->plugin->copied)
		return -EINVAL;
	if (req->file >= chain->nr_files ||
	    !num_is_aligned(req->offset, COW_SECTOR_SIZE))
		return -EINVAL;
	return check_range(chain, req);
}

static int check_request(struct cow_chain *chain, struct cow_request *req)
{
	const struct cow_image *top = chain->images[0];

	if (req->op == COW_OP_MAP)
		return check_map(chain, req);
	if (!chain->writable)
		return req->op == COW_OP_COMMIT ? 0 : -EROFS;
	switch (req->op) {
	case COW_OP_COPIED:
		return check_copied(chain, req);
	case COW_OP_COMMIT:
		return 0;
	case COW_OP_DISCARD:
		return cow_image_discards(top) ? check_range(chain, req) :
						 -EOPNOTSUPP;
	case COW_OP_WRITE_ZEROES:
		return cow_image_zeroes(top) ? check_range(chain, req) :
					       -EOPNOTSUPP;
	default:
		return -EINVAL;
	}
}

static void append(struct cow_chain *chain, struct cow_request *req)
{
	memset(&req->priv, 0, sizeof(req->priv));
	req->priv.id = chain->next_id++;
	req->priv.prev = chain->active.priv.prev;
	req->priv.next = &chain->active;
	req->priv.prev->priv.next = req;
	chain->active.priv.prev = req;
}

void cow_submit(struct cow_chain *chain, struct cow_request *req)
{
	int ret = check_request(chain, req);
	bool is_map = req->op == COW_OP_MAP;
	struct run_result res = { false, false };

	memset(&req->answer, 0, sizeof(req->answer));
	append(chain, req);
	if (ret || (req->op == COW_OP_COMMIT && !chain->writable)) {
		cow_request_finish(chain, req, ret);
		return;
	}
	if (chain->running) {
		chain->kicked = true;
		return;
	}
	chain->running = true;
	if (req->op != COW_OP_COMMIT)
		run_one(chain, req, &res);
	chain->running = false;
	/* Others may go on after a change or a COMMIT, not after a mere hit. */
	if (!is_map || chain->kicked || chain->commit.wanted)
		run_all(chain);
}

int cow_dispatch(struct cow_chain *chain)
{
	uint64_t done = chain->nr_done;

	if (chain->running)
		return -EBUSY;
	if (cow_engine_reap(&chain->engine) || chain->kicked)
		run_all(chain);
	return (int)(chain->nr_done - done);
}
