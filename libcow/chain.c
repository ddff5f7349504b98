// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * chain.c - open an image and all below it, and close them again.
 *
 * Everything that a chain will ever need is allocated here.
 */
#include "internal.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int cow_chain_add_file(struct cow_chain *c, struct cow_file *file)
{
	struct cow_file **more;
	uint32_t i;

	for (i = 0; i < c->nr_files; i++) {
		if (c->files[i]->dev == file->dev &&
		    c->files[i]->ino == file->ino)
			return cow_log_error(&c->log, -ELOOP,
				"%s: is in the chain of images twice",
				file->path);
	}
	more = realloc(c->files, (c->nr_files + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->files = more;
	file->index = c->nr_files;
	c->files[c->nr_files++] = file;
	return 0;
}

static int add_image(struct cow_chain *c, struct cow_image *img)
{
	struct cow_image **more;

	more = realloc(c->images, (c->nr_images + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->images = more;
	c->images[c->nr_images++] = img;
	return 0;
}

static int open_image(struct cow_chain *c, const struct cow_open_params *p,
		      const char *path, const char *format)
{
	bool top = !c->nr_images;
	struct cow_image_params ip = {
		.chain = c,
		.plugins = p->plugins,
		.path = path,
		.format = format,
		.level = c->nr_images,
		.flags = top ? p->flags : p->flags & ~COW_OPEN_WRITE,
		.opener = { p->open_file, p->ctx, p->direct_data },
		.allowed_dirs = p->allowed_dirs,
		.options = top ? p->options : NULL,
		.above = top ? NULL : c->images[c->nr_images - 1]->path,
	};
	struct cow_image *img;
	int ret;

	ret = cow_image_open(&ip, &img);
	if (ret)
		return ret;
	ret = add_image(c, img);
	if (ret)
		cow_image_close(img);
	return ret;
}

/* It was opened as what is guessed: it must not look like anything else. */
static int check_guess(struct cow_chain *c, const struct cow_open_params *p,
		       struct cow_image *above)
{
	struct cow_image *img = c->images[c->nr_images - 1];
	const struct cow_plugin *found = NULL;
	size_t len = num_min(COW_PROBE_BYTES, img->files[0]->size);
	uint8_t *buf = malloc(len);
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = cow_read(img, 0, buf, len, 0);
	if (!ret)
		found = cow_plugins_recognise(p->plugins, buf, len,
					      img->files[0]->size);
	free(buf);
	if (!ret && !found) {
		above->backing_format = strdup(above->backing_guess);
		ret = above->backing_format ? 0 : -ENOMEM;
	}
	if (!found)
		return ret;
	return cow_error(above, -EINVAL,
		"does not say which format its backing image %s has, which looks like one of the format %s; tell it by the option backing_format",
		above->backing_path, found->name);
}

static int open_backing(struct cow_chain *c, const struct cow_open_params *p,
			struct cow_image *above)
{
	const char *guess = above->backing_format ? NULL : above->backing_guess;
	char *path;
	int ret;

	if (c->nr_images == COW_CHAIN_MAX)
		return cow_error(above, -ELOOP,
			"is the %uth image of the chain; no more are followed: make one image of some of them by cowimg convert",
			COW_CHAIN_MAX);
	if (!above->backing_format && !guess)
		return cow_error(above, -EINVAL,
			"does not say which format its backing image %s has",
			above->backing_path);
	ret = cow_path_join(above->path, above->backing_path, &path);
	if (ret)
		return ret;
	if (p->allowed_dirs)
		ret = cow_path_allowed(&c->log, path, p->allowed_dirs);
	if (!ret)
		ret = open_image(c, p, path,
				 guess ? guess : above->backing_format);
	free(path);
	if (!ret && guess)
		ret = check_guess(c, p, above);
	if (ret || !above->plugin->backing)
		return ret;
	return above->plugin->backing(above->handle,
				      c->images[above->level + 1],
				      !(p->flags & COW_OPEN_ANY_BACKING));
}

static int open_images(struct cow_chain *c, const struct cow_open_params *p)
{
	struct cow_image *img;
	int ret;

	ret = open_image(c, p, p->path, p->format);
	if (ret || p->flags & COW_OPEN_NO_BACKING)
		return ret;
	for (;;) {
		img = c->images[c->nr_images - 1];
		if (!img->backing_path)
			return 0;
		ret = open_backing(c, p, img);
		if (ret)
			return ret;
	}
}

static void set_geometry(struct cow_chain *c)
{
	struct cow_image *top = c->images[0];

	c->size = num_round_up(top->size, COW_SECTOR_SIZE);
	c->block_size = top->block_size;
	c->nr_blocks = num_div_up(c->size, c->block_size);
	c->writable = top->flags & COW_OPEN_WRITE;
}

static int init_cache(struct cow_chain *c, uint64_t bytes)
{
	uint32_t size = COW_TABLE_SIZE_MIN, i;
	uint64_t tables = 0;

	for (i = 0; i < c->nr_images; i++) {
		if (!c->images[i]->nr_tables)
			continue;
		size = (uint32_t)num_max(size, c->images[i]->table_size);
		if (num_add_overflow(tables, c->images[i]->nr_tables, &tables))
			tables = UINT64_MAX;
	}
	return cow_cache_init(&c->cache, c, bytes ? bytes : COW_CACHE_DEFAULT,
			      size, tables);
}

static int init_bits(struct cow_chain *c)
{
	uint64_t blocks = num_min(c->nr_blocks, COW_COPIED_BITS_MAX);

	if (!c->images[0]->plugin->copied_bits || !blocks)
		return 0;
	c->bits_bytes = num_div_up(blocks, 8);
	c->bits = mmap(NULL, c->bits_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->bits == MAP_FAILED) {
		c->bits = NULL;
		return -ENOMEM;
	}
	return 0;
}

static bool takes_direct_io(const struct cow_chain *c)
{
	uint32_t i;

	for (i = 0; i < c->nr_files && c->files[i]->dio_fd < 0; i++)
		;
	return i < c->nr_files;
}

static int init_chain(struct cow_chain *c, const struct cow_open_params *p)
{
	int ret;

	set_geometry(c);
	ret = init_cache(c, p->cache_bytes);
	if (!ret)
		ret = init_bits(c);
	if (!ret)
		ret = cow_scratch_init(c, p->scratch_fd, p->scratch_bytes);
	if (!ret) {
		c->commit.syncs = calloc(c->nr_files,
					 sizeof(*c->commit.syncs));
		ret = c->commit.syncs ? 0 : -ENOMEM;
	}
	if (!ret)
		ret = cow_engine_start(&c->engine, takes_direct_io(c), &c->log);
	return ret;
}

int cow_chain_open(const struct cow_open_params *params,
		   struct cow_chain **chain)
{
	struct cow_chain *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->plugins = params->plugins;
	c->log = *cow_plugins_log(params->plugins);
	c->file_resized = params->file_resized;
	c->ctx = params->ctx;
	c->engine.event_fd = -1;
	c->next_id = 1;
	c->active.priv.next = &c->active;
	c->active.priv.prev = &c->active;
	ret = open_images(c, params);
	if (!ret)
		ret = init_chain(c, params);
	if (ret) {
		if (ret == -ENOMEM)
			cow_log_error(&c->log, ret, "%s: not enough memory",
				      params->path);
		cow_chain_close(c);
		return ret;
	}
	*chain = c;
	return 0;
}

/* What is on its way ends first: its buffers are about to go. */
static void cancel_all(struct cow_chain *c)
{
	struct cow_request *req;

	while (c->engine.in_flight) {
		cow_engine_wait(&c->engine);
		cow_engine_reap(&c->engine);
	}
	c->running = true;
	while ((req = c->active.priv.next) != &c->active)
		cow_request_finish(c, req, -ECANCELED);
}

/* Everything that was asked for is done and durable. */
static bool is_settled(const struct cow_chain *c)
{
	return c->writable && c->active.priv.next == &c->active &&
	       !cow_chain_dirty(c) && !c->commit.lost;
}

static void finish(struct cow_chain *c)
{
	struct cow_image *top = c->images[0];

	/* The error was reported; the image stays as after a crash. */
	if (top->opened && top->plugin->finish)
		top->plugin->finish(top->handle);
}

void cow_chain_close(struct cow_chain *c)
{
	uint32_t i;

	if (!c)
		return;
	cow_commit_tidy(c);
	/* Before it waits for reads that nobody needs, see cow_table_expect(). */
	if (is_settled(c))
		finish(c);
	cancel_all(c);
	cow_engine_stop(&c->engine);
	for (i = 0; i < c->nr_images; i++)
		cow_image_close(c->images[i]);
	for (i = 0; i < c->nr_files; i++)
		cow_file_close(c->files[i]);
	cow_scratch_free(c);
	cow_cache_free(&c->cache);
	if (c->bits)
		munmap(c->bits, c->bits_bytes);
	free(c->commit.syncs);
	free(c->images);
	free(c->files);
	free(c);
}

/* --- What others ask ------------------------------------------------------ */

void cow_chain_info(const struct cow_chain *c, struct cow_chain_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = c->size;
	info->block_size = c->block_size;
	info->nr_images = c->nr_images;
	info->nr_blocks = c->nr_blocks;
	info->nr_files = c->nr_files;
	info->writable = c->writable;
	info->can_discard = cow_image_discards(c->images[0]);
	info->can_write_zeroes = cow_image_zeroes(c->images[0]);
}

int cow_chain_file(const struct cow_chain *c, uint32_t file,
		   struct cow_file_info *info)
{
	const struct cow_file *f;

	if (file >= c->nr_files)
		return -EINVAL;
	f = c->files[file];
	memset(info, 0, sizeof(*info));
	info->path = f->path;
	info->fd = f->fd;
	info->size = f->size;
	info->writable = f->writable && !f->scratch;
	info->block_device = f->block_device;
	info->scratch = f->scratch;
	info->level = f->level;
	return 0;
}

struct cow_image *cow_chain_image(const struct cow_chain *c, uint32_t level)
{
	return level < c->nr_images ? c->images[level] : NULL;
}

int cow_event_fd(const struct cow_chain *c)
{
	return c->engine.event_fd;
}

bool cow_chain_dirty(const struct cow_chain *c)
{
	return c->cache.nr_dirty || c->commit.stage != COW_COMMIT_IDLE;
}

void cow_chain_stats(const struct cow_chain *c, struct cow_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->cache_bytes = c->cache.arena_bytes;
	stats->table_hits = c->cache.hits;
	stats->table_reads = c->cache.reads;
	stats->table_writes = c->cache.writes;
	stats->commits = c->commit.done;
	stats->materialised = c->scratch.made;
	stats->cache_tables = c->cache.nr_slots;
	stats->looked_at = c->cache.looked_at;
}
