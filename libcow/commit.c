// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * commit.c - write order: what is dirty becomes durable.
 *
 *	IDLE -> HOOK -> DATA -> TABLES -> SYNC -+-> (end) IDLE
 *	                          ^------------´  next phase
 *
 * HOOK	  ->commit() of the plugin runs.  At its end the set of dirty tables
 *	  is frozen; what changes from now on belongs to the next commit.
 * DATA   The files are synced, so that no metadata is durable before the
 *	  data that it refers to.  Left out when the data is durable already.
 * TABLES The frozen tables of one phase are written,
 * SYNC   and made durable.
 *
 * Invariants:
 *  1. A table of phase n is written only after all of the phases before n
 *     are durable.
 *  2. A table is clean only after the sync that followed its write.
 *  3. After any error the rest is not written, all that is not durable is
 *     dirty again, and every request that waited gets the errno.
 *  4. A commit covers the changes submitted before it and none submitted
 *     after: request.c runs no change while an older COMMIT is not frozen.
 *  5. After a sync that failed, a plugin's own ones too, or when the caller
 *     says so, what was reported as copied may be lost, and a later sync does
 *     not tell: nothing is committed but by a caller who knows that all data
 *     is durable.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

static bool joins(struct cow_chain *chain, const struct cow_request *req)
{
	return req->op == COW_OP_COMMIT &&
	       req->priv.id <= chain->commit.last_id;
}

/* All COMMITs that no running change stands before.  False: nothing to do. */
static bool gather(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;
	struct cow_request *req;
	bool found = false;

	c->last_id = 0;
	c->data_durable = true;
	for (req = chain->active.priv.next; req != &chain->active;
	     req = req->priv.next) {
		if (cow_request_changes(req))
			break;
		if (req->op != COW_OP_COMMIT)
			continue;
		found = true;
		c->last_id = req->priv.id;
		c->data_durable &= !!(req->flags & COW_REQ_DATA_DURABLE);
	}
	if (c->wanted || !found)
		c->data_durable = false;
	return found || c->wanted;
}

static struct cow_table *look_at(struct cow_cache *cache, uint32_t i)
{
	cache->looked_at++;
	return &cache->tables[i];
}

/* Frozen tables of @phase, from number @i on; NULL: there is none. */
static struct cow_table *next_frozen(struct cow_cache *cache, uint32_t *i,
				     unsigned int phase)
{
	while (*i < cache->nr_slots) {
		struct cow_table *t = look_at(cache, (*i)++);

		if (t->in_commit && t->frozen_phase == phase)
			return t;
	}
	return NULL;
}

/* The cache may be large: nobody goes through it for a phase of which there is nothing. */
static void thaw(struct cow_chain *chain, unsigned int phase, bool written)
{
	uint32_t i = 0, *left = &chain->commit.nr_frozen[phase];
	struct cow_table *t;

	for (; *left && (t = next_frozen(&chain->cache, &i, phase)); --*left)
		cow_table_thaw(t, written);
	*left = 0;
}

static void freeze_all(struct cow_chain *chain)
{
	struct cow_cache *cache = &chain->cache;
	uint32_t i;

	for (i = 0; i < cache->nr_slots && cache->nr_dirty; i++) {
		struct cow_table *t = look_at(cache, i);

		cow_table_freeze(t);
		chain->commit.nr_frozen[t->frozen_phase] += t->in_commit;
	}
	chain->commit.frozen = true;
}

/* --- I/O ------------------------------------------------------------------ */

static struct cow_chain *chain_of_sync(struct cow_io *io)
{
	return io->buf;
}

static void sync_done(struct cow_io *io)
{
	struct cow_chain *chain = chain_of_sync(io);
	struct cow_commit *c = &chain->commit;

	c->pending--;
	if (!io->status)
		return;
	c->status = io->status;
	atomic_store(&c->sync_failed, true);
	cow_log_error(&chain->log, io->status, "%s: cannot be synced: %s",
		      io->file->path, strerror(-io->status));
}

/* True: one failed since the last time, here or in a plugin's work (cow_sync()). */
static bool a_sync_failed(struct cow_commit *c)
{
	if (!atomic_exchange(&c->sync_failed, false))
		return false;
	c->held = true;
	c->failed_syncs++;
	return true;
}

static void start_syncs(struct cow_chain *chain, bool all)
{
	uint32_t i;

	for (i = 0; i < chain->images[0]->nr_files; i++) {
		struct cow_file *f = chain->images[0]->files[i];
		struct cow_io *io = &chain->commit.syncs[f->index];

		if (!f->writable || !(all || f->needs_sync))
			continue;
		f->needs_sync = false;
		*io = (struct cow_io){
			.op = COW_IO_SYNC,
			.file = f,
			.buf = chain,
			.done = sync_done,
		};
		chain->commit.pending++;
		cow_engine_submit(&chain->engine, io);
	}
}

static void write_done(struct cow_io *io)
{
	struct cow_table *t = (struct cow_table *)
		((char *)io - offsetof(struct cow_table, io));
	struct cow_commit *c = &t->chain->commit;

	c->pending--;
	t->file->needs_sync = true;
	if (!io->status)
		return;
	c->status = io->status;
	cow_error(t->img, io->status,
		  "a table at offset %llu of %s cannot be written: %s",
		  (unsigned long long)t->offset, t->file->path,
		  strerror(-io->status));
}

static void start_write(struct cow_chain *chain, struct cow_table *t)
{
	uint8_t *data = t->frozen ? t->frozen : t->data;

	t->io = (struct cow_io){
		.op = COW_IO_WRITE,
		.file = t->file,
		.buf = data + t->frozen_lo,
		.len = t->frozen_hi - t->frozen_lo,
		.offset = t->offset + t->frozen_lo,
		.done = write_done,
	};
	chain->commit.pending++;
	chain->cache.writes++;
	cow_engine_submit(&chain->engine, &t->io);
}

/* Who waits here is told when the commit fails, as are those without room. */
int cow_commit_first(struct cow_image *img)
{
	struct cow_chain *chain = img->chain;

	if (!chain || !chain->current)
		return cow_error(img, -EINVAL,
			"the plugin %s waits for a commit outside of a restarted callback",
			img->plugin->name);
	chain->current->priv.starved = true;
	chain->commit.wanted = true;
	return -EAGAIN;
}

int cow_commit_end_first(struct cow_image *img)
{
	struct cow_chain *chain = img->chain;

	if (!chain || !chain->current || !chain->commit.frozen)
		return cow_commit_first(img);
	chain->current->priv.starved = true;
	return -EAGAIN;
}

static bool overlap(uint32_t lo, uint32_t hi, uint32_t offset, uint32_t end)
{
	return lo < end && offset < hi;
}

/* A commit that is on its way and writes them is waited for: no other is wanted. */
int cow_commit_table_first(struct cow_table *t, uint32_t offset,
			   uint32_t length)
{
	uint32_t end = offset + length;

	if (overlap(t->dirty_lo, t->dirty_hi, offset, end))
		return cow_commit_first(t->img);
	if (!t->in_commit || !overlap(t->frozen_lo, t->frozen_hi, offset, end))
		return 0;
	t->chain->current->priv.starved = true;
	return -EAGAIN;
}

/* --- Stages --------------------------------------------------------------- */

static void fail_starved(struct cow_chain *chain, int status)
{
	struct cow_request *req, *next;

	for (req = chain->active.priv.next; req != &chain->active;
	     req = next) {
		next = req->priv.next;
		if (req->priv.starved)
			cow_request_finish(chain, req, status);
	}
}

static void commit_end(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;
	const struct cow_plugin *plugin = chain->images[0]->plugin;
	struct cow_request *req, *next;
	int status, lost = c->lost;
	unsigned int phase;

	if (a_sync_failed(c) && !c->status)
		c->status = -EIO;
	status = c->status;
	for (phase = 0; phase < COW_PHASES; phase++)
		thaw(chain, phase, false);
	c->stage = COW_COMMIT_IDLE;
	c->frozen = false;
	c->done++;
	c->tidy = false;
	if (plugin->committed)
		plugin->committed(chain->images[0]->handle, status);
	if (status)
		fail_starved(chain, status);
	if (!status)
		status = lost;
	for (req = chain->active.priv.next; req != &chain->active;
	     req = next) {
		next = req->priv.next;
		if (!joins(chain, req))
			continue;
		/* Who hears of it tells of all that was copied again before the next one. */
		if (c->lost == lost)
			c->lost = 0;
		cow_request_finish(chain, req, status);
	}
}

static void write_phase(struct cow_chain *chain)
{
	unsigned int phase = chain->commit.phase;
	uint32_t i = 0, left = chain->commit.nr_frozen[phase];
	struct cow_table *t;

	for (; left && (t = next_frozen(&chain->cache, &i, phase)); left--)
		start_write(chain, t);
}

/* The next phase that has something to write; the end after the last. */
static void next_phase(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;

	for (; c->phase < COW_PHASES && !c->pending; c->phase++) {
		c->stage = COW_COMMIT_TABLES;
		write_phase(chain);
		if (c->pending)
			return;
	}
	commit_end(chain);
}

/* 0 when the hook is through, -EAGAIN when it waits for tables. */
static int run_hook(struct cow_chain *chain)
{
	const struct cow_plugin *plugin = chain->images[0]->plugin;
	struct cow_request *req = &chain->commit.req;
	int ret = 0;

	if (!plugin->commit)
		return 0;
	chain->current = req;
	req->priv.starved = false;
	ret = plugin->commit(chain->images[0]->handle);
	chain->current = NULL;
	if (ret != -EAGAIN)
		cow_cache_unpin(chain, req);
	return ret;
}

static bool stage_hook(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;
	int ret;

	c->held &= !c->data_durable;
	a_sync_failed(c);
	ret = c->held ? -EIO : run_hook(chain);
	if (ret == -EAGAIN)
		return false;
	c->status = ret;
	if (ret) {
		commit_end(chain);
		return true;
	}
	freeze_all(chain);
	c->stage = COW_COMMIT_DATA;
	if (!c->data_durable)
		start_syncs(chain, true);
	return true;
}

static bool stage_idle(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;

	if (!chain->writable || !gather(chain))
		return false;
	c->wanted = false;
	c->stage = COW_COMMIT_HOOK;
	c->phase = 0;
	c->status = 0;
	return true;
}

void cow_hold_commits(struct cow_chain *chain)
{
	chain->commit.held = true;
}

uint64_t cow_failed_syncs(const struct cow_chain *chain)
{
	return chain->commit.failed_syncs;
}

void cow_commit_more(struct cow_image *img)
{
	struct cow_commit *c = &img->chain->commit;

	c->tidy = true;
	c->wanted = true;
}

void cow_commit_tidy(struct cow_chain *chain)
{
	while (chain->commit.tidy && chain->engine.in_flight) {
		cow_engine_wait(&chain->engine);
		cow_dispatch(chain);
	}
}

bool cow_commit_run(struct cow_chain *chain)
{
	struct cow_commit *c = &chain->commit;

	if (c->pending)
		return false;
	switch (c->stage) {
	case COW_COMMIT_IDLE:
		return stage_idle(chain);
	case COW_COMMIT_HOOK:
		return stage_hook(chain);
	case COW_COMMIT_DATA:
		break;
	case COW_COMMIT_TABLES:
		if (c->status)
			break;
		c->stage = COW_COMMIT_SYNC;
		start_syncs(chain, false);
		return true;
	case COW_COMMIT_SYNC:
		if (c->status)
			break;
		thaw(chain, c->phase, true);
		c->phase++;
		break;
	}
	if (c->status)
		commit_end(chain);
	else
		next_phase(chain);
	return true;
}
