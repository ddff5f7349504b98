// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <libcow/cow.h>
#include <common/clock.h>

#include "files.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "proto.h"
#include "users.h"

void cowd_files_init(struct cowd_files *files,
		     const struct cowd_options *options)
{
	memset(files, 0, sizeof(*files));
	files->options = options;
	files->scratch = -1;
}

/* ---- policy ------------------------------------------------------------- */

/* Where @fd really is, links and renames followed by the kernel. */
static int real_path(int fd, char *buf)
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

/* Is @path the real path @top, or below it? */
static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	if (!strcmp(top, "/"))
		return true;
	return !strncmp(path, top, len) && (path[len] == '\0' || path[len] == '/');
}

static bool is_below_link(const char *path, const char *top)
{
	char real[PATH_MAX];

	return realpath(top, real) && is_below(path, real);
}

static bool is_listed(const char *const *list, const char *path)
{
	for (; *list; list++)
		if (is_below_link(path, *list))
			return true;
	return false;
}

/*
 * In the folder of the name that was given, or in that of the file itself?  A
 * block device has no folder of its own: all other devices lie there too.
 */
static bool is_beside_image(const struct cowd_options *o, const char *path)
{
	char image[PATH_MAX], real[PATH_MAX];
	struct stat st;

	if (!realpath(o->image, real) || stat(real, &st) ||
	    S_ISBLK(st.st_mode))
		return false;
	snprintf(image, sizeof(image), "%s", o->image);
	return is_below(path, dirname(real)) ||
	       is_below_link(path, dirname(image));
}

/* Is @path the value of an image's option?  In the image's folder if relative. */
static bool is_option(const struct cowd_options *o, const char *path)
{
	const char *slash = strrchr(o->image, '/');
	size_t folder = slash ? (size_t)(slash + 1 - o->image) : 0;
	const char *const *option, *value;

	for (option = o->image_options; *option; option++) {
		value = strchr(*option, '=');
		if (!value++)
			continue;
		if (!strcmp(path, value) ||
		    (!strncmp(path, o->image, folder) &&
		     !strcmp(path + folder, value)))
			return true;
	}
	return false;
}

/*
 * @path, links resolved, is no file that the user named but was found inside
 * of an image.  Nobody here knows whether it is a part of the image, or a base
 * that others rely on; so the user says what may be written.
 */
static int check_place(const struct cowd_options *o, const char *path,
		       bool writable)
{
	if (is_listed(o->allowed_write, path))
		return 0;
	if (writable)
		return cowd_error(-EACCES, "%s: named inside an image, so it is not written; --allow-write %s would allow it",
				  path, path);
	if (is_listed(o->allowed, path) || is_beside_image(o, path))
		return 0;
	return cowd_error(-EACCES, "%s: named inside an image, but outside its folder; --allow-backing %s would allow it",
			  path, path);
}

/* @path_fd is an O_PATH descriptor, so that looking has no effect. */
static int check_policy(const struct cowd_files *files, const char *path,
			int path_fd, bool writable)
{
	char real[PATH_MAX];
	struct stat st;
	int err;

	if (fstat(path_fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return cowd_error(-EINVAL, "%s: neither a file nor a block device",
				  path);
	if (!strcmp(path, files->options->image) ||
	    is_option(files->options, path))
		return 0;
	err = real_path(path_fd, real);
	return err ? err : check_place(files->options, real, writable);
}

/* A device of ours that is made of the file as well: only the one we recover may. */
static int check_user(void *data, const struct cowd_user_device *user)
{
	struct cowd_files *files = data;
	const struct cowd_options *o = files->options;

	if (o->recover && !strcmp(user->name, o->name)) {
		files->found_own = true;
		return 0;
	}
	/*
	 * The lock of a cowd that lives tells whether it shares the file.  One
	 * that died does, if we recover a device that does: nobody else could
	 * come between.
	 */
	if (files->shared && (user->served || o->recover))
		return 0;
	if (user->served)
		return cowd_error(-EBUSY, "%s: is in use by /dev/mapper/%s",
				  files->path, user->name);
	return cowd_error(-EBUSY, "%s: is in use by /dev/mapper/%s, whose cowd died; serve that again by cowd --recover %s, or end it by cowctl stop %s",
			  files->path, user->name, user->name, user->name);
}

/* The descriptor for metadata is of a file that was looked at before. */
static int check_users(struct cowd_files *files, const char *path, int fd,
		       int flags)
{
	if (flags & O_DIRECT)
		return 0;
	files->path = path;
	files->shared = flags & COW_OPEN_FILE_SHARED;
	return cowd_each_user(fd, (flags & O_ACCMODE) != O_RDONLY, check_user,
			      files);
}

/* A new description of what @path_fd shows. */
static int open_checked(struct cowd_files *files, const char *path,
			int path_fd, int flags)
{
	char link[32];
	struct stat st;
	int fd, test, err;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
	fd = open(link, (flags & ~COW_OPEN_FILE_SHARED) | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	err = check_users(files, path, fd, flags);
	if (err) {
		close(fd);
		return err;
	}
	if (fstat(fd, &st) || !S_ISBLK(st.st_mode) ||
	    (flags & O_ACCMODE) == O_RDONLY || files->options->recover)
		return fd;
	/*
	 * The device-mapper device will hold it exclusively, and is allowed
	 * to only if nobody does now.  So this descriptor must not.  (When
	 * recovering, the device holds it already.)
	 */
	test = open(link, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (test < 0 && errno == EBUSY && !(flags & O_DIRECT)) {
		close(fd);
		return cowd_error(-EBUSY, "%s: is in use (mounted, or part of another device)",
				  path);
	}
	if (test >= 0)
		close(test);
	return fd;
}

static void note_opened(struct cowd_files *files, int fd, bool writable)
{
	struct cowd_opened *opened = &files->opened[files->nr_opened];
	struct stat st;

	if (fstat(fd, &st))
		return;
	*opened = (struct cowd_opened){ st.st_dev, st.st_ino, writable };
	files->nr_opened++;
}

int cowd_files_open(struct cowd_files *files, const char *path, int flags)
{
	const int known = O_ACCMODE | O_DIRECT | O_NONBLOCK | O_CLOEXEC | O_EXCL |
			  O_LARGEFILE | O_NOATIME | O_NOFOLLOW | O_NOCTTY |
			  COW_OPEN_FILE_SHARED;
	int mode = flags & O_ACCMODE;
	int path_fd, fd, err;

	/* A worker of ours asks for no path that depends on where we are. */
	if (flags & ~known || files->nr_opened == COWD_MAX_OPENED ||
	    (mode != O_RDONLY && mode != O_RDWR) || path[0] != '/')
		return -EINVAL;
	if (mode == O_RDWR && files->options->read_only)
		return -EROFS;
	path_fd = open(path, O_PATH | O_CLOEXEC);
	if (path_fd < 0)
		return -errno;
	err = check_policy(files, path, path_fd, mode == O_RDWR);
	fd = err ? err : open_checked(files, path, path_fd,
					  mode | (flags & (O_DIRECT | COW_OPEN_FILE_SHARED)));
	close(path_fd);
	if (fd >= 0)
		note_opened(files, fd, mode == O_RDWR);
	return fd;
}

/* ---- devices ------------------------------------------------------------ */

static bool was_opened(const struct cowd_files *files, const struct stat *st,
		       bool writable)
{
	unsigned int i;

	for (i = 0; i < files->nr_opened; i++)
		if (files->opened[i].dev == st->st_dev &&
		    files->opened[i].ino == st->st_ino &&
		    (files->opened[i].writable || !writable))
			return true;
	return false;
}

static int add_loop(struct cowd_files *files, struct cowd_file_device *device,
		    int fd, const char *path)
{
	struct stat st;
	int err;

	err = cowd_loop_create(fd, !device->read_only, &device->loop);
	if (err)
		return cowd_error(err, "%s: cannot become a loop device: %s",
				  path, err == -ENXIO ?
				  "the kernel has none (modprobe loop)" :
				  strerror(-err));
	if (fstat(device->loop.fd, &st))
		return -errno;
	snprintf(device->dev, sizeof(device->dev), "%u:%u", major(st.st_rdev),
		 minor(st.st_rdev));
	cowd_log(COWD_DEBUG, "%s: device %u is /dev/loop%d%s%s", path,
		 files->nr_devices, device->loop.number,
		 device->loop.direct ? ", direct I/O" : ", without direct I/O",
		 device->read_only ? ", read-only" : "");
	return 0;
}

static int add_device(struct cowd_files *files, struct cowd_file_device *device,
		      int fd)
{
	char path[PATH_MAX] = "scratch file";
	struct stat st;

	real_path(fd, path);
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return add_loop(files, device, fd, path);
	snprintf(device->dev, sizeof(device->dev), "%u:%u", major(st.st_rdev),
		 minor(st.st_rdev));
	cowd_log(COWD_DEBUG, "%s: device %u is %s%s", path, files->nr_devices,
		 device->dev, device->read_only ? ", read-only" : "");
	return 0;
}

int cowd_files_add(struct cowd_files *files, uint32_t index, uint32_t flags,
		   int fd)
{
	struct cowd_file_device *device = &files->devices[files->nr_devices];
	bool scratch = flags & COWD_FILE_SCRATCH;
	bool writable = flags & COWD_FILE_WRITABLE && !scratch;
	struct stat st;
	int err;

	if (index != files->nr_devices || index >= COWD_MAX_FILES)
		return cowd_error(-EINVAL, "file %u of the image cannot be used: too many, or out of order",
				  index);
	if (scratch)
		fd = files->scratch;
	if (fstat(fd, &st))
		return -errno;
	if (!scratch && !was_opened(files, &st, writable))
		return cowd_error(-EPERM, "file %u of the image was not opened by us",
				  index);
	*device = (struct cowd_file_device){
		.read_only = !writable,	.loop = { .fd = -1, .file = -1 },
		.scratch = scratch,
	};
	err = add_device(files, device, fd);
	if (device->loop.fd >= 0 || !err)
		files->nr_devices++;
	return err;
}

int cowd_files_resized(struct cowd_files *files, uint32_t index)
{
	if (index >= files->nr_devices)
		return -EINVAL;
	if (files->devices[index].loop.fd < 0)
		return 0;
	return cowd_loop_resize(files->devices[index].loop.fd);
}

void cowd_files_close_source(struct cowd_file_device *device)
{
	if (device->loop.file >= 0)
		close(device->loop.file);
	device->loop.file = -1;
}

static void wait_unbound(int number)
{
	int i;

	for (i = 0; i < 100; i++) {
		if (!cowd_loop_bound(number))
			return;
		clock_sleep_ms(20);
	}
	cowd_log(COWD_WARNING, "/dev/loop%d is still held by somebody after 2 s",
		 number);
}

void cowd_files_close(struct cowd_files *files, bool wait)
{
	struct cowd_file_device *device;

	while (files->nr_devices) {
		device = &files->devices[--files->nr_devices];
		cowd_files_close_source(device);
		if (device->loop.fd < 0)
			continue;
		close(device->loop.fd);
		if (wait)
			wait_unbound(device->loop.number);
	}
}
