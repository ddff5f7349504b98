// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * table.c - the cache of metadata tables.
 *
 * States of a table and who moves it on:
 *
 *	FREE --get, expect--> READING --read done--> VALID --evict--> FREE
 *	 |                      | `----read failed--> FAILED --forget--> FREE
 *	 |                      `--the same, and nobody got it yet-----> FREE
 *	 `--new--> VALID <--new--------------------------'
 *
 * Invariants:
 *  1. A table of any state but FREE owns data, one slot of the arena.  The
 *     number of slots is fixed when the chain is opened.
 *  2. A table is evicted only when it is VALID, has no pin, no dirty range
 *     and is in no commit.
 *  3. What a commit writes does not change while the commit is on its way:
 *     who gets such a table to write gets a copy, and the commit keeps the
 *     slot with the frozen contents.
 *  4. A request's pins last from the get until its callback returns other
 *     than -EAGAIN: what was read for it is there when it is called again.
 *
 * No room: the oldest request keeps its pins, all others give theirs up and
 * wait.  Who waits behind another one (for the buffer of scratch.c, or the thread of
 * work.c) gives them up, too, be it the oldest: the other one may need the room.
 * So the oldest finds room in the end (nr_slots is at least what one
 * call may get), and each request is the oldest one day.  If it is dirty
 * tables that fill the cache, a commit is begun for the room.  Its ->commit()
 * may need tables itself, which no other commit could make room for: so some
 * slots are kept for it.
 */
#include "internal.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* --- The ring of tables by age ------------------------------------------- */

static void lru_remove(struct cow_table *t)
{
	t->lru_prev->lru_next = t->lru_next;
	t->lru_next->lru_prev = t->lru_prev;
}

/* before the first: oldest; before the ring's head: youngest. */
static void lru_insert(struct cow_table *before, struct cow_table *t)
{
	t->lru_next = before;
	t->lru_prev = before->lru_prev;
	before->lru_prev->lru_next = t;
	before->lru_prev = t;
}

static void make_youngest(struct cow_table *t)
{
	lru_remove(t);
	lru_insert(&t->chain->cache.lru, t);
}

/* --- The hash ------------------------------------------------------------- */

static struct cow_table **hash_chain(struct cow_cache *c,
				     const struct cow_file *file,
				     uint64_t offset)
{
	uint64_t h = (offset >> 9) + ((uint64_t)file->index << 40);

	h *= 0x9e3779b97f4a7c15ull;
	return &c->hash[h >> 32 & c->hash_mask];
}

static struct cow_table *hash_find(struct cow_cache *c,
				   const struct cow_file *file,
				   uint64_t offset)
{
	struct cow_table *t = *hash_chain(c, file, offset);

	while (t && (t->file != file || t->offset != offset))
		t = t->hash_next;
	return t;
}

static void hash_remove(struct cow_cache *c, struct cow_table *t)
{
	struct cow_table **p = hash_chain(c, t->file, t->offset);

	while (*p != t)
		p = &(*p)->hash_next;
	*p = t->hash_next;
}

/* --- Start and end -------------------------------------------------------- */

/*
 * Twice the number of tables gives each one its copy: more is of no use.
 * Less than what one call may get would let no request go on.
 */
static void set_slots(struct cow_cache *c, uint64_t bytes, uint64_t tables)
{
	uint64_t n = num_max(bytes / c->slot_size,
			     COW_REQUEST_PINS + 16 + COW_TABLES_PER_CALL);

	c->reserve = COW_TABLES_PER_CALL;
	if (tables < n / 2) {
		n = num_max(2 * tables, 2);
		c->reserve = 0;
	}
	c->nr_slots = (uint32_t)num_min(n, 1u << 20);
}

static int alloc_arrays(struct cow_cache *c)
{
	uint32_t buckets = 16;

	while (buckets < c->nr_slots)
		buckets *= 2;
	c->hash_mask = buckets - 1;
	c->hash = calloc(buckets, sizeof(struct cow_table *));
	c->tables = calloc(c->nr_slots, sizeof(*c->tables));
	c->free_bufs = calloc(c->nr_slots, sizeof(*c->free_bufs));
	c->arena = mmap(NULL, c->arena_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->arena == MAP_FAILED)
		c->arena = NULL;
	return c->hash && c->tables && c->free_bufs && c->arena ? 0 : -ENOMEM;
}

int cow_cache_init(struct cow_cache *c, struct cow_chain *chain,
		   uint64_t bytes, uint32_t slot_size, uint64_t tables)
{
	uint32_t i;
	int ret;

	c->slot_size = slot_size;
	set_slots(c, bytes, tables);
	c->arena_bytes = (uint64_t)c->nr_slots * slot_size;
	ret = alloc_arrays(c);
	if (ret)
		return ret;
	c->lru.lru_next = &c->lru;
	c->lru.lru_prev = &c->lru;
	for (i = 0; i < c->nr_slots; i++) {
		c->tables[i].chain = chain;
		lru_insert(&c->lru, &c->tables[i]);
		c->free_bufs[i] = c->arena + (uint64_t)i * slot_size;
	}
	c->nr_free_bufs = c->nr_slots;
	return 0;
}

void cow_cache_free(struct cow_cache *c)
{
	if (c->arena)
		munmap(c->arena, c->arena_bytes);
	free(c->free_bufs);
	free(c->tables);
	free(c->hash);
}

/* --- Room ----------------------------------------------------------------- */

static void put_buf(struct cow_cache *c, uint8_t *buf)
{
	c->free_bufs[c->nr_free_bufs++] = buf;
}

static bool has_dirty(const struct cow_table *t)
{
	return t->dirty_lo < t->dirty_hi;
}

static void table_drop(struct cow_cache *c, struct cow_table *t)
{
	hash_remove(c, t);
	put_buf(c, t->data);
	t->data = NULL;
	t->state = COW_TABLE_FREE;
	lru_remove(t);
	lru_insert(c->lru.lru_next, t);
}

/* Gives up the oldest clean table (invariant 2). */
static bool evict_one(struct cow_cache *c)
{
	struct cow_table *t;

	for (t = c->lru.lru_next; t != &c->lru; t = t->lru_next) {
		if (t->state == COW_TABLE_VALID && !t->pins &&
		    !has_dirty(t) && !t->in_commit) {
			table_drop(c, t);
			return true;
		}
	}
	return false;
}

static bool has_room(struct cow_chain *chain)
{
	struct cow_cache *c = &chain->cache;
	bool hook = chain->current == &chain->commit.req;
	uint32_t keep = hook ? 0 : c->reserve;

	while (c->nr_free_bufs <= keep && evict_one(c))
		;
	if (c->nr_free_bufs > keep)
		return true;
	chain->current->priv.starved = true;
	if (c->nr_dirty)
		chain->commit.wanted = true;
	return false;
}

/* A buffer is free: then a table is free too, or the cache is all pinned. */
static struct cow_table *free_table(struct cow_cache *c)
{
	struct cow_table *t = c->lru.lru_next;

	return t != &c->lru && t->state == COW_TABLE_FREE ? t : NULL;
}

/* --- Pins ----------------------------------------------------------------- */

static int pin(struct cow_chain *chain, struct cow_table *t)
{
	struct cow_request *req = chain->current;
	uint32_t slot = (uint32_t)(t - chain->cache.tables);
	uint32_t i;

	for (i = 0; i < req->priv.nr_pins; i++) {
		if (req->priv.pins[i] == slot)
			return 0;
	}
	if (req->priv.nr_pins == COW_REQUEST_PINS)
		return cow_error(t->img, -E2BIG,
			"one request needs more than %u tables",
			COW_REQUEST_PINS);
	req->priv.pins[req->priv.nr_pins++] = slot;
	t->pins++;
	return 0;
}

void cow_cache_unpin(struct cow_chain *chain, struct cow_request *req)
{
	while (req->priv.nr_pins) {
		uint32_t slot = req->priv.pins[--req->priv.nr_pins];

		chain->cache.tables[slot].pins--;
	}
}

void cow_table_leave(struct cow_table *t)
{
	struct cow_request *req = t->chain->current;
	uint32_t slot = (uint32_t)(t - t->chain->cache.tables), i;

	for (i = 0; i < req->priv.nr_pins; i++) {
		if (req->priv.pins[i] != slot)
			continue;
		req->priv.pins[i] = req->priv.pins[--req->priv.nr_pins];
		t->pins--;
		return;
	}
}

/* --- Reading -------------------------------------------------------------- */

static void read_done(struct cow_io *io)
{
	struct cow_table *t = (struct cow_table *)
		((char *)io - offsetof(struct cow_table, io));

	if (!io->status) {
		t->state = COW_TABLE_VALID;
		return;
	}
	if (t->expected) {
		table_drop(&t->chain->cache, t);
		return;
	}
	t->state = COW_TABLE_FAILED;
	t->chain->cache.nr_failed++;
	t->error = io->status == -ENODATA ? -EIO : io->status;
	cow_error(t->img, t->error,
		  "a table of %u bytes at offset %llu of %s cannot be read: %s",
		  t->length, (unsigned long long)t->offset, t->file->path,
		  io->status == -ENODATA ? "the file ends before" :
		  strerror(-io->status));
}

void cow_cache_forget_failed(struct cow_cache *c)
{
	uint32_t i;

	for (i = 0; i < c->nr_slots && c->nr_failed; i++) {
		if (c->tables[i].state == COW_TABLE_FAILED &&
		    !c->tables[i].pins) {
			table_drop(c, &c->tables[i]);
			c->nr_failed--;
		}
	}
}

static void start_read(struct cow_table *t)
{
	t->io = (struct cow_io){
		.op = COW_IO_READ,
		.file = t->file,
		.buf = t->data,
		.len = t->length,
		.offset = t->offset,
		.done = read_done,
	};
	t->state = COW_TABLE_READING;
	t->chain->cache.reads++;
	cow_engine_submit(&t->chain->engine, &t->io);
}

/* --- Get ------------------------------------------------------------------ */

static int check_args(struct cow_image *img, uint32_t file, uint32_t length)
{
	if (!img->chain || !img->chain->current)
		return cow_error(img, -EINVAL,
			"the plugin %s gets a table outside of a restarted callback",
			img->plugin->name);
	if (file >= img->nr_files || !length || length > img->table_size)
		return cow_error(img, -EINVAL,
			"the plugin %s gets a table of %u bytes in its file %u",
			img->plugin->name, length, file);
	return 0;
}

/* A free table is made one of img; NULL if there is none.  A buffer is free. */
static struct cow_table *table_take(struct cow_image *img,
				    struct cow_file *file, uint64_t offset,
				    uint32_t length)
{
	struct cow_cache *c = &img->chain->cache;
	struct cow_table **hash = hash_chain(c, file, offset);
	struct cow_table *t = free_table(c);

	if (!t)
		return NULL;
	t->data = c->free_bufs[--c->nr_free_bufs];
	t->img = img;
	t->file = file;
	t->offset = offset;
	t->length = length;
	t->error = 0;
	t->expected = false;
	t->hash_next = *hash;
	*hash = t;
	return t;
}

/* NULL and starved when there is no room. */
static struct cow_table *table_claim(struct cow_image *img,
				     struct cow_file *file, uint64_t offset,
				     uint32_t length)
{
	struct cow_table *t;

	if (!has_room(img->chain))
		return NULL;
	t = table_take(img, file, offset, length);
	if (!t)
		img->chain->current->priv.starved = true;
	return t;
}

/* What stood there does not matter to who gets a new one. */
static void forgive(struct cow_table *t)
{
	if (t->state != COW_TABLE_FAILED)
		return;
	memset(t->data, 0, t->length);
	t->state = COW_TABLE_VALID;
	t->chain->cache.nr_failed--;
}

static int check_found(struct cow_table *t, uint32_t length)
{
	if (t->length == length)
		return 0;
	return cow_error(t->img, -EINVAL,
		"the plugin %s gets the table at offset %llu with two lengths, %u and %u",
		t->img->plugin->name, (unsigned long long)t->offset,
		t->length, length);
}

static int table_get(struct cow_image *img, uint32_t file, uint64_t offset,
		     uint32_t length, bool is_new, struct cow_table **table)
{
	struct cow_chain *chain = img->chain;
	struct cow_table *t;
	int ret;

	ret = check_args(img, file, length);
	if (ret)
		return ret;
	t = hash_find(&chain->cache, img->files[file], offset);
	if (t) {
		ret = check_found(t, length);
		chain->cache.hits += t->state == COW_TABLE_VALID;
	} else {
		t = table_claim(img, img->files[file], offset, length);
		if (!t)
			return -EAGAIN;
		if (is_new) {
			memset(t->data, 0, length);
			t->state = COW_TABLE_VALID;
		} else {
			start_read(t);
		}
	}
	if (!ret)
		ret = pin(chain, t);
	if (ret)
		return ret;
	make_youngest(t);
	t->expected = false;
	if (is_new)
		forgive(t);
	if (t->state == COW_TABLE_FAILED)
		return t->error;
	*table = t;
	return t->state == COW_TABLE_VALID ? 0 : -EAGAIN;
}

int cow_table_get(struct cow_image *img, uint32_t file, uint64_t offset,
		  uint32_t length, struct cow_table **table)
{
	return table_get(img, file, offset, length, false, table);
}

/* One table makes room for it, if that is enough; nothing waits behind it. */
static bool may_expect(struct cow_cache *c, struct cow_file *file,
		       uint64_t offset, uint32_t length)
{
	if (hash_find(c, file, offset) || file->dio_fd < 0 ||
	    !num_is_aligned(offset | length, file->dio_align))
		return false;
	return c->nr_free_bufs > c->reserve ||
	       (c->nr_free_bufs == c->reserve && evict_one(c));
}

void cow_table_expect(struct cow_image *img, uint32_t file, uint64_t offset,
		      uint32_t length)
{
	struct cow_table *t;

	if (check_args(img, file, length) ||
	    !may_expect(&img->chain->cache, img->files[file], offset, length))
		return;
	t = table_take(img, img->files[file], offset, length);
	if (!t)
		return;
	make_youngest(t);
	t->expected = true;
	start_read(t);
}

/* Leaves the frozen contents to the commit (invariant 3). */
static int separate(struct cow_table *t)
{
	struct cow_cache *c = &t->chain->cache;

	if (!t->in_commit || t->frozen)
		return 0;
	if (!has_room(t->chain))
		return -EAGAIN;
	t->frozen = t->data;
	t->data = c->free_bufs[--c->nr_free_bufs];
	memcpy(t->data, t->frozen, t->length);
	return 0;
}

static int make_writable(struct cow_table *t, unsigned int phase)
{
	struct cow_image *img = t->img;

	if (!t->file->writable)
		return cow_error(img, -EROFS, "is open for reading only");
	if (phase >= COW_PHASES || (has_dirty(t) && t->phase != phase))
		return cow_error(img, -EINVAL,
			"the plugin %s writes the table at offset %llu in two phases",
			img->plugin->name, (unsigned long long)t->offset);
	return separate(t);
}

int cow_table_get_write(struct cow_image *img, uint32_t file, uint64_t offset,
			uint32_t length, unsigned int phase,
			struct cow_table **table)
{
	int ret;

	ret = table_get(img, file, offset, length, false, table);
	if (!ret)
		ret = make_writable(*table, phase);
	if (!ret && !has_dirty(*table))
		(*table)->phase = (uint8_t)phase;
	return ret;
}

int cow_table_new(struct cow_image *img, uint32_t file, uint64_t offset,
		  uint32_t length, unsigned int phase,
		  struct cow_table **table)
{
	int ret;

	ret = table_get(img, file, offset, length, true, table);
	if (!ret)
		ret = make_writable(*table, phase);
	if (ret)
		return ret;
	if (!has_dirty(*table))
		(*table)->phase = (uint8_t)phase;
	memset((*table)->data, 0, length);
	cow_table_dirty(*table, 0, length);
	return 0;
}

void *cow_table_data(struct cow_table *t)
{
	return t->data;
}

void cow_table_dirty(struct cow_table *t, uint32_t offset, uint32_t length)
{
	uint32_t end = (uint32_t)num_min((uint64_t)offset + length, t->length);

	if (offset >= end)
		return;
	if (!has_dirty(t)) {
		t->chain->cache.nr_dirty++;
		t->dirty_lo = offset;
		t->dirty_hi = end;
		return;
	}
	t->dirty_lo = (uint32_t)num_min(t->dirty_lo, offset);
	t->dirty_hi = (uint32_t)num_max(t->dirty_hi, end);
}

/* --- For the commit ------------------------------------------------------- */

/*
 * The range is written in units of direct I/O, inside of the table; in whole
 * pages of a file if it can be, as less makes the file system wait for others.
 */
static void round_range(struct cow_table *t)
{
	uint32_t align = t->file->dio_fd < 0 ? 1 : t->file->dio_align;

	if (align > 1 && !t->file->block_device &&
	    num_is_aligned(t->offset, COW_DIO_ALIGN))
		align = COW_DIO_ALIGN;
	if (!num_is_aligned(t->offset, align))
		return;
	t->frozen_lo = (uint32_t)num_round_down(t->frozen_lo, align);
	t->frozen_hi = (uint32_t)num_min(num_round_up(t->frozen_hi, align),
					 t->length);
}

void cow_table_freeze(struct cow_table *t)
{
	if (!has_dirty(t))
		return;
	t->in_commit = true;
	t->frozen_lo = t->dirty_lo;
	t->frozen_hi = t->dirty_hi;
	t->frozen_phase = t->phase;
	round_range(t);
	t->dirty_lo = 0;
	t->dirty_hi = 0;
	t->chain->cache.nr_dirty--;
}

void cow_table_thaw(struct cow_table *t, bool written)
{
	if (!t->in_commit)
		return;
	t->in_commit = false;
	if (t->frozen)
		put_buf(&t->chain->cache, t->frozen);
	t->frozen = NULL;
	if (written)
		return;
	if (!has_dirty(t))
		t->phase = t->frozen_phase;
	cow_table_dirty(t, t->frozen_lo, t->frozen_hi - t->frozen_lo);
}
