// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create.c - make a new image.
 *
 * It is made in a file without a name, which appears under its name when it
 * is complete and durable.  So nothing is left behind by a failure, nor by a
 * crash.  Where the file system has no such files, a temporary name is used.
 * A block device has its name already, and is written in place.
 */
#include "internal.h"

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a device, between two questions whether to go on. */
#define ZERO_STEP (64u << 20)
/*
 * At both ends of a device, where file systems, RAIDs and volume managers have what they are
 * known by: what was there before must not be found again.
 */
#define SIGNATURES (1u << 20)

struct creation {
	const struct cow_create_params *p;
	const struct cow_log *log;
	char *dir;		/* of the image */
	char *temp;		/* a name that exists until it is renamed */
	bool in_place;		/* a block device */
	uint64_t needs;		/* bytes that it must have then, at least */
	struct cow_image img;
	struct cow_chain *backing;
	char *backing_path;	/* as recorded */
};

static int report(const struct creation *c, int ret, const char *what)
{
	return cow_log_error(c->log, ret, "%s: %s: %s", c->p->path, what,
			     strerror(-ret));
}

/* --- What is there already ------------------------------------------------ */

static int check_unused(const struct creation *c)
{
	int fd, ret;

	fd = open(c->p->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return report(c, -errno, "cannot be opened to replace it");
	ret = cow_file_lock(fd, true);
	if (ret == -EBUSY)
		cow_log_error(c->log, ret,
			"%s: is in use by another program and cannot be replaced",
			c->p->path);
	else if (ret)
		report(c, ret, "cannot be locked");
	else
		ret = cow_file_check_holders(c->log, c->p->path, fd);
	close(fd);
	return ret;
}

/* Not by a link: it is the name that gets the new file. */
static bool is_file(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int check_target(struct creation *c)
{
	struct stat st;

	if (lstat(c->p->path, &st) < 0)
		return errno == ENOENT ? 0 :
			report(c, -errno, "cannot be created");
	if (S_ISLNK(st.st_mode) && stat(c->p->path, &st) < 0)
		return report(c, -errno, "cannot be created");
	c->in_place = S_ISBLK(st.st_mode);
	if (!c->in_place && !is_file(c->p->path))
		return cow_log_error(c->log, -EEXIST,
			"%s: exists and is no regular file; it is not replaced",
			c->p->path);
	if (!c->p->force)
		return cow_log_error(c->log, -EEXIST, c->in_place ?
			"%s: is a block device, and what it holds will be lost; use --force to overwrite it" :
			"%s: exists already; use --force to replace it",
			c->p->path);
	return c->in_place ? 0 : check_unused(c);
}

/* The image must not replace a file that it is made from. */
static int check_not_backing(const struct creation *c)
{
	struct stat st;
	uint32_t i;

	if (!c->backing || stat(c->p->path, &st) < 0)
		return 0;
	for (i = 0; i < c->backing->nr_files; i++) {
		const struct cow_file *f = c->backing->files[i];

		if (f->dev == st.st_dev && f->ino == st.st_ino)
			return cow_log_error(c->log, -EINVAL,
				"%s: is the base itself, or one of its bases",
				c->p->path);
	}
	return 0;
}

/* --- The backing image ---------------------------------------------------- */

static bool same_dir(const char *a, const char *b)
{
	struct stat sa, sb;

	return stat(a, &sa) == 0 && stat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/*
 * An absolute path is recorded as it is: it may be a link that is meant to
 * be one (/dev/vg/lv).  A relative one becomes the bare name if both are in
 * one folder, so that the pair can be moved, else it is made absolute.
 */
static int record_path(struct creation *c)
{
	const char *path = c->p->backing_path, *name;
	char *copy, *cwd;
	int ret = 0;

	if (*path == '/') {
		c->backing_path = strdup(path);
		return c->backing_path ? 0 : -ENOMEM;
	}
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	if (same_dir(dirname(copy), c->dir)) {
		c->backing_path = strdup(name);
	} else {
		cwd = getcwd(NULL, 0);
		if (!cwd || asprintf(&c->backing_path, "%s/%s", cwd, path) < 0)
			c->backing_path = NULL;
		free(cwd);
	}
	if (!c->backing_path)
		ret = -ENOMEM;
	free(copy);
	return ret;
}

static int open_backing(struct creation *c)
{
	struct cow_open_params op = COW_OPEN_PARAMS_INIT;
	int ret;

	if (!c->p->backing_path)
		return 0;
	op.plugins = c->p->plugins;
	op.path = c->p->backing_path;
	op.format = c->p->backing_format;
	if (!op.format)
		return cow_log_error(c->log, -EINVAL,
			"%s: the format of the base must be given", op.path);
	ret = cow_chain_open(&op, &c->backing);
	if (!ret && c->backing->nr_images == COW_CHAIN_MAX)
		return cow_log_error(c->log, -ELOOP,
			"%s: has %u images in its chain, the most that can be opened; make one image of some of them by cowimg convert",
			op.path, COW_CHAIN_MAX);
	return ret;
}

/* --- The file ------------------------------------------------------------- */

static int split_dir(struct creation *c)
{
	char *copy = strdup(c->p->path);

	if (!copy)
		return -ENOMEM;
	c->dir = strdup(dirname(copy));
	free(copy);
	return c->dir ? 0 : -ENOMEM;
}

/* A new one each time: what a crash left behind under another is in nobody's way. */
static int temp_name(const struct creation *c, char **name)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -errno;
	return asprintf(name, "%s.new-%08x", c->p->path, random) < 0 ?
		-ENOMEM : 0;
}

static int open_temp(struct creation *c, int *fd)
{
	int ret;

	*fd = open(c->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (*fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return report(c, -errno, "cannot be created");
	ret = temp_name(c, &c->temp);
	if (ret)
		return ret;
	*fd = open(c->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
	if (*fd >= 0)
		return 0;
	free(c->temp);
	c->temp = NULL;
	return report(c, -errno, "cannot be created");
}

static int zeroing(const struct creation *c, uint64_t done, uint64_t size)
{
	return c->p->zeroing ? c->p->zeroing(c->p->ctx, done, size) : 0;
}

void cow_zeroes_end(struct cow_image *img, uint64_t end)
{
	img->zeroes_end = end;
}

static int zero_range(const struct creation *c, struct cow_file *f,
		      uint64_t at, uint64_t end)
{
	int ret = zeroing(c, at, end);
	uint64_t n;

	for (; !ret && at < end; at += n) {
		n = num_min(end - at, ZERO_STEP);
		ret = cow_file_zero(f, at, n);
		if (ret)
			return report(c, ret,
				      "cannot be overwritten with zeroes");
		ret = zeroing(c, at + n, end);
	}
	return ret;
}

static int zero_device(const struct creation *c, struct cow_file *f)
{
	uint64_t end = f->size, last = f->size;
	int ret;

	if (f->size < c->needs)
		return cow_log_error(c->log, -ENOSPC,
			"%s: is too small: the new image needs %llu bytes, and the device has %llu",
			c->p->path, (unsigned long long)c->needs,
			(unsigned long long)f->size);
	if (c->img.zeroes_end) {
		end = num_min(end, num_max(c->img.zeroes_end, SIGNATURES));
		last -= num_min(last, SIGNATURES);
	}
	ret = zero_range(c, f, 0, end);
	return ret ? ret : zero_range(c, f, num_max(end, last), f->size);
}

/* Plugins count on a file of zeroes. */
static int open_device(struct creation *c, struct cow_file **f)
{
	int ret = cow_file_open(NULL, c->log, c->p->path, true, false, f);

	if (ret)
		return ret;
	ret = zero_device(c, *f);
	if (ret)
		cow_file_close(*f);
	return ret;
}

static int open_new(struct creation *c, struct cow_file **f)
{
	int fd, ret;

	if (c->in_place)
		return open_device(c, f);
	ret = open_temp(c, &fd);
	return ret ? ret : cow_file_adopt(c->log, c->p->path, fd, f);
}

static int add_file(struct creation *c, struct cow_file *f)
{
	int ret = cow_image_add_file(&c->img, f);

	if (ret)
		cow_file_close(f);
	return ret;
}

static int open_image(struct creation *c)
{
	struct cow_file *f;
	int ret = open_new(c, &f);

	return ret ? ret : add_file(c, f);
}

static int link_to(const struct creation *c, const char *name)
{
	char proc[64];
	int fd = c->img.files[0]->fd;

	if (c->temp)
		return link(c->temp, name) < 0 ? -errno : 0;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0 ?
		-errno : 0;
}

/* The old file keeps its name until the new one takes it in one step. */
static int replace(struct creation *c)
{
	int ret;

	if (!c->temp) {
		char *temp;

		ret = temp_name(c, &temp);
		if (ret)
			return ret;
		ret = link_to(c, temp);
		if (ret) {
			free(temp);
			return ret;
		}
		c->temp = temp;
	}
	if (rename(c->temp, c->p->path) < 0)
		return -errno;
	free(c->temp);
	c->temp = NULL;
	return 0;
}

static int sync_dir(const struct creation *c)
{
	int fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return ret;
}

static int publish(struct creation *c)
{
	int ret;

	if (c->in_place)
		return 0;
	ret = c->p->force ? replace(c) : link_to(c, c->p->path);
	if (ret == -EEXIST)
		return cow_log_error(c->log, ret,
			"%s: exists already; use --force to replace it",
			c->p->path);
	if (!ret)
		ret = sync_dir(c);
	return ret ? report(c, ret, "cannot be created") : 0;
}

/* --- Contents ------------------------------------------------------------- */

/* The image has no name yet: its path leads to the descriptor. */
static int open_unnamed(void *ctx, const char *path, int flags)
{
	const struct creation *c = ctx;
	char proc[64];
	int fd;

	if (!c->in_place && !strcmp(path, c->p->path)) {
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d",
			 c->img.files[0]->fd);
		path = proc;
	}
	fd = open(path, (flags & ~COW_OPEN_FILE_SHARED) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_to_fill(struct creation *c, struct cow_chain **chain)
{
	struct cow_open_params op = COW_OPEN_PARAMS_INIT;

	op.plugins = c->p->plugins;
	op.path = c->p->path;
	op.format = c->p->format;
	op.flags = COW_OPEN_WRITE;
	op.open_file = open_unnamed;
	op.ctx = c;
	return cow_chain_open(&op, chain);
}

static void close_image(struct creation *c)
{
	cow_file_close(c->img.files[0]);
	c->img.nr_files = 0;
}

static int fill(struct creation *c)
{
	struct cow_chain *chain;
	int ret;

	if (!c->p->fill)
		return 0;
	/* A device that is open is open for us alone. */
	if (c->in_place)
		close_image(c);
	ret = open_to_fill(c, &chain);
	if (ret)
		return ret;
	ret = c->p->fill(c->p->ctx, chain);
	if (!ret)
		ret = cow_flush(chain);
	cow_chain_close(chain);
	/* Sizes and times too, as the plugin's sync did before. */
	return ret || c->in_place ? ret : cow_sync(&c->img, 0);
}

/* --- All of it ------------------------------------------------------------ */

static int call_plugin(struct creation *c)
{
	struct cow_create create = {
		.size = c->p->size,
		.block_size = c->p->block_size,
		.backing_path = c->backing_path,
		.backing_format = c->p->backing_format,
	};

	if (c->backing) {
		create.backing = c->backing->images[0];
		create.backing_size = c->backing->images[0]->size;
	}
	return c->img.plugin->create(&c->img, &create);
}

/*
 * What a device held is lost when its first byte is written: so the image is
 * made in memory before, which tells how much of the device it takes.
 */
static int rehearse(struct creation *c)
{
	int fd = memfd_create("image", MFD_CLOEXEC), ret;
	struct cow_file *f;

	if (fd < 0)
		return report(c, -errno, "cannot be made in memory first");
	ret = cow_file_adopt(c->log, c->p->path, fd, &f);
	if (!ret)
		ret = add_file(c, f);
	if (ret)
		return ret;
	ret = call_plugin(c);
	if (!ret)
		ret = file_size(fd, &c->needs);
	close_image(c);
	return ret;
}

static int prepare(struct creation *c)
{
	int ret;

	ret = cow_plugins_get(c->p->plugins, c->p->format, &c->img.plugin);
	if (ret)
		return ret;
	if (!c->img.plugin->create)
		return cow_log_error(c->log, -EOPNOTSUPP,
			"%s: images of the format %s cannot be created",
			c->p->path, c->p->format);
	ret = cow_options_check(c->log, c->img.plugin, c->p->options,
				COW_OPTION_CREATE);
	if (!ret)
		ret = split_dir(c);
	if (!ret)
		ret = check_target(c);
	if (!ret)
		ret = open_backing(c);
	if (!ret)
		ret = check_not_backing(c);
	if (!ret && c->backing)
		ret = record_path(c);
	if (!ret && c->in_place)
		ret = rehearse(c);
	return ret;
}

static void clean_up(struct creation *c)
{
	uint32_t i;

	if (c->temp)
		unlink(c->temp);
	for (i = 0; i < c->img.nr_files; i++)
		cow_file_close(c->img.files[i]);
	free(c->img.files);
	cow_chain_close(c->backing);
	free(c->backing_path);
	free(c->temp);
	free(c->dir);
}

int cow_create_image(const struct cow_create_params *params)
{
	struct creation c = {
		.p = params,
		.log = cow_plugins_log(params->plugins),
	};
	int ret;

	c.img.log = *c.log;
	c.img.options = params->options;
	c.img.path = (char *)params->path;
	c.img.flags = COW_OPEN_WRITE;
	ret = prepare(&c);
	if (!ret)
		ret = open_image(&c);
	if (!ret)
		ret = call_plugin(&c);
	if (!ret)
		ret = cow_sync(&c.img, 0);
	if (!ret)
		ret = fill(&c);
	if (!ret)
		ret = publish(&c);
	clean_up(&c);
	return ret;
}
