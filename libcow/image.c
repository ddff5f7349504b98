// SPDX-License-Identifier: GPL-2.0-or-later
/* image.c - one image: its files, its plugin, the handle of both. */
#include "internal.h"

#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Paths --------------------------------------------------------------- */

int cow_path_join(const char *base, const char *path, char **result)
{
	const char *slash = strrchr(base, '/');
	int len = slash ? (int)(slash - base + 1) : 0;

	if (*path == '/')
		len = 0;
	if (asprintf(result, "%.*s%s", len, base, path) < 0)
		return -ENOMEM;
	return 0;
}

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	while (len && dir[len - 1] == '/')
		len--;
	return !strncmp(path, dir, len) && path[len] == '/';
}

/* 0, -EACCES outside of all folders, or the errno of looking for it. */
static int path_inside(const char *path, const char *const *dirs)
{
	char *real = realpath(path, NULL), *real_dir;
	bool inside = false;

	if (!real)
		return -errno;
	for (; *dirs && !inside; dirs++) {
		real_dir = realpath(*dirs, NULL);
		inside = real_dir && is_inside(real, real_dir);
		free(real_dir);
	}
	free(real);
	return inside ? 0 : -EACCES;
}

int cow_path_allowed(const struct cow_log *log, const char *path,
		     const char *const *dirs)
{
	int ret = path_inside(path, dirs);

	if (!ret)
		return 0;
	if (ret != -EACCES)
		return cow_log_error(log, ret, "%s: cannot be found: %s",
				     path, strerror(-ret));
	return cow_log_error(log, ret,
		"%s: is named by an image, but lies in no folder that was allowed",
		path);
}

/* --- Options -------------------------------------------------------------- */

const char *cow_options_get(const char *const *options, const char *name)
{
	size_t len = strlen(name);

	for (; options && *options; options++) {
		if (!strncmp(*options, name, len) && (*options)[len] == '=')
			return *options + len + 1;
	}
	return NULL;
}

static bool option_known(const struct cow_plugin *plugin, const char *text,
			 size_t len, uint32_t where)
{
	const struct cow_option *o;

	for (o = plugin->options; o && o->name; o++) {
		if (strlen(o->name) == len && !strncmp(o->name, text, len))
			return o->flags & where;
	}
	return false;
}

int cow_options_check(const struct cow_log *log,
		      const struct cow_plugin *plugin,
		      const char *const *options, uint32_t where)
{
	for (; options && *options; options++) {
		const char *eq = strchr(*options, '=');

		if (!eq)
			return cow_log_error(log, -EINVAL,
				"option %s: is not of the form NAME=VALUE",
				*options);
		if (!option_known(plugin, *options, (size_t)(eq - *options),
				  where))
			return cow_log_error(log, -EINVAL,
				"option %s: the format %s has no such option here",
				*options, plugin->name);
	}
	return 0;
}

/* --- Open ----------------------------------------------------------------- */

int cow_image_add_file(struct cow_image *img, struct cow_file *file)
{
	struct cow_file **more;
	int ret;

	more = realloc(img->files, (img->nr_files + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	img->files = more;
	file->level = img->level;
	if (img->chain) {
		ret = cow_chain_add_file(img->chain, file);
		if (ret)
			return ret;
	}
	img->files[img->nr_files++] = file;
	return 0;
}

static int open_file(struct cow_image *img, const char *path)
{
	struct cow_file *f;
	int ret;

	ret = cow_file_open(&img->opener, &img->log, path,
			    img->flags & COW_OPEN_WRITE, img->plugin->shared,
			    &f);
	if (ret)
		return ret;
	ret = cow_image_add_file(img, f);
	if (ret)
		cow_file_close(f);
	return ret;
}

int cow_file_add(struct cow_image *img, const char *path, uint32_t *file)
{
	char *full;
	int ret;

	if (!img->opening)
		return -EINVAL;
	ret = cow_path_join(img->path, path, &full);
	if (ret)
		return ret;
	if (img->allowed_dirs)
		ret = cow_path_allowed(&img->log, full, img->allowed_dirs);
	if (!ret)
		ret = open_file(img, full);
	if (!ret)
		*file = img->nr_files - 1;
	free(full);
	return ret;
}

bool cow_file_exists(struct cow_image *img, const char *path)
{
	char *full;
	int fd = -ENOENT;

	if (!img->opening || cow_path_join(img->path, path, &full))
		return false;
	if (!img->allowed_dirs || !path_inside(full, img->allowed_dirs))
		fd = cow_opener_open(&img->opener, full,
				     O_RDONLY | O_NONBLOCK);
	free(full);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

int cow_image_tables(struct cow_image *img, uint32_t size, uint64_t count)
{
	if (!img->opening || !num_is_pow2(size) ||
	    size < COW_TABLE_SIZE_MIN || size > COW_TABLE_SIZE_MAX)
		return -EINVAL;
	img->table_size = size;
	img->nr_tables = count;
	return 0;
}

int cow_image_fixed_places(struct cow_image *img)
{
	if (!img->opening)
		return -EINVAL;
	img->fixed_places = true;
	return 0;
}

bool cow_image_discards(const struct cow_image *img)
{
	return img->plugin->discard && !img->fixed_places;
}

bool cow_image_zeroes(const struct cow_image *img)
{
	return img->plugin->write_zeroes && !img->fixed_places;
}

static int copy_text(char **to, const char *from)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : -ENOMEM;
}

static int get_info(struct cow_image *img)
{
	struct cow_image_info info = { 0 };
	int ret;

	ret = img->plugin->info(img->handle, &info);
	if (ret)
		return ret;
	if (!num_is_pow2(info.block_size) ||
	    info.block_size < COW_BLOCK_SIZE_MIN ||
	    info.block_size > COW_BLOCK_SIZE_MAX)
		return cow_error(img, -EINVAL,
			"the block size %u is no power of two of 512 bytes to 16 MiB",
			info.block_size);
	if (info.size > INT64_MAX - COW_BLOCK_SIZE_MAX)
		return cow_error(img, -EINVAL,
			"the disk's size of %llu bytes is out of range",
			(unsigned long long)info.size);
	img->size = info.size;
	img->block_size = info.block_size;
	img->nr_blocks = num_div_up(info.size, info.block_size);
	img->run_blocks = info.run_blocks;
	img->backing_guess = info.backing_guess;
	ret = copy_text(&img->backing_path, info.backing_path);
	if (!ret)
		ret = copy_text(&img->backing_format, info.backing_format);
	return ret;
}

static int image_start(struct cow_image *img)
{
	int ret;

	img->opening = true;
	ret = img->plugin->open(img, img->flags, &img->handle);
	img->opening = false;
	if (ret)
		return ret < 0 ? ret : -EIO;
	img->opened = true;
	return get_info(img);
}

void cow_image_close(struct cow_image *img)
{
	uint32_t i;

	if (!img)
		return;
	if (img->opened)
		img->plugin->close(img->handle);
	for (i = 0; i < img->nr_files; i++) {
		if (!img->chain)
			cow_file_close(img->files[i]);
	}
	free(img->files);
	free(img->backing_path);
	free(img->backing_format);
	free(img->path);
	free(img);
}

int cow_image_open(const struct cow_image_params *params,
		   struct cow_image **result)
{
	struct cow_image *img = calloc(1, sizeof(*img));
	int ret;

	if (!img)
		return -ENOMEM;
	img->chain = params->chain;
	img->log = *cow_plugins_log(params->plugins);
	img->log.above = params->above;
	img->flags = params->flags;
	img->level = params->level;
	img->opener = params->opener;
	img->allowed_dirs = params->allowed_dirs;
	img->options = params->options;
	img->table_size = COW_TABLE_SIZE_DEFAULT;
	img->path = strdup(params->path);
	ret = img->path ? 0 : -ENOMEM;
	if (!ret)
		ret = cow_plugins_get(params->plugins, params->format,
				      &img->plugin);
	if (!ret)
		ret = cow_options_check(&img->log, img->plugin, img->options,
					COW_OPTION_OPEN);
	if (!ret)
		ret = open_file(img, img->path);
	if (!ret)
		ret = image_start(img);
	if (ret) {
		cow_image_close(img);
		return ret;
	}
	*result = img;
	return 0;
}

/* --- What others ask ------------------------------------------------------ */

const char *cow_image_path(const struct cow_image *img)
{
	return img->path;
}

const char *cow_image_option(const struct cow_image *img, const char *name)
{
	return cow_options_get(img->options, name);
}

uint64_t cow_image_size(const struct cow_image *img)
{
	return img->size;
}

uint32_t cow_image_block_size(const struct cow_image *img)
{
	return img->block_size;
}

const char *cow_image_format(const struct cow_image *img)
{
	return img->plugin->name;
}

const char *cow_image_backing_path(const struct cow_image *img)
{
	return img->backing_path;
}

const char *cow_image_backing_format(const struct cow_image *img)
{
	return img->backing_format;
}
