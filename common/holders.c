// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/holders.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct search {
	bool writers;		/* only these */
	int (*fn)(void *data, const struct holder *holder);
	void *data;
};

/* The first line of a file in /sys, without its end.  Such a file is read at once. */
static int read_line(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n <= 0)
		return -EIO;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

/* @entry, dm-N, is made of what @h says.  One that vanishes is none. */
static int look_at_dm(const struct search *s, struct holder *h,
		      const char *holders, const char *entry, bool *found)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/dm/name", holders, entry);
	if (read_line(path, h->dm, sizeof(h->dm)))
		return 0;
	*found = true;
	snprintf(path, sizeof(path), "%s/%s/dm/uuid", holders, entry);
	if (read_line(path, h->uuid, sizeof(h->uuid)))
		h->uuid[0] = '\0';
	return s->fn(s->data, h);
}

/* What is made of block device @h->number. */
static int search_dms(const struct search *s, struct holder *h)
{
	struct dirent *entry;
	bool found = false;
	char holders[64];
	int ret = 0;
	DIR *dir;

	snprintf(holders, sizeof(holders), "/sys/dev/block/%s/holders",
		 h->number);
	dir = opendir(holders);
	if (!dir && errno != ENOENT)	/* a partition that vanished, or no sysfs */
		return -errno;
	while (dir && !ret && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "dm-", 3))
			ret = look_at_dm(s, h, holders, entry->d_name, &found);
	if (dir)
		closedir(dir);
	if (found || !h->loop[0])
		return ret;
	h->dm[0] = '\0';
	h->uuid[0] = '\0';
	return s->fn(s->data, h);
}

/* The kernel knows the file itself, whatever became of its name. */
static bool asks_loop(const char *name, const struct stat *st, bool *is)
{
	struct loop_info64 info;
	char path[PATH_MAX];
	int fd, err;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	err = ioctl(fd, LOOP_GET_STATUS64, &info) < 0 ? errno : 0;
	close(fd);
	*is = !err && info.lo_device == (uint64_t)st->st_dev &&
	      info.lo_inode == (uint64_t)st->st_ino;
	return !err || err == ENXIO;
}

/* The kernel lets nobody write through it. */
static bool only_reads(const char *name)
{
	char path[PATH_MAX], read_only[4];

	snprintf(path, sizeof(path), "/sys/block/%s/ro", name);
	return !read_line(path, read_only, sizeof(read_only)) &&
	       !strcmp(read_only, "1");
}

/* Is loop device @name made of the file @st?  Only root may open all of them. */
static bool is_made_of(const char *name, const struct stat *st)
{
	char path[PATH_MAX], file[PATH_MAX];
	struct stat other;
	bool is;

	/* One that is free needs not be opened. */
	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	if (access(path, F_OK))
		return false;
	if (asks_loop(name, st, &is))
		return is;
	return !read_line(path, file, sizeof(file)) && !stat(file, &other) &&
	       other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static int look_at_loop(const struct search *s, const char *name,
			const struct stat *st)
{
	struct holder h = { .dm = "" };
	char path[PATH_MAX];

	if (strlen(name) >= sizeof(h.loop) || (s->writers && only_reads(name)) ||
	    !is_made_of(name, st))
		return 0;
	strcpy(h.loop, name);
	snprintf(path, sizeof(path), "/sys/block/%s/dev", name);
	if (read_line(path, h.number, sizeof(h.number)))
		return 0;
	return search_dms(s, &h);
}

static int search_loops(const struct search *s, const struct stat *st)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return -errno;
	while (!ret && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "loop", 4))
			ret = look_at_loop(s, entry->d_name, st);
	closedir(dir);
	return ret;
}

int holders_each(const struct stat *st, bool writers,
		 int (*fn)(void *data, const struct holder *holder),
		 void *data)
{
	struct search search = { writers, fn, data };
	struct holder h = { .dm = "" };

	if (!S_ISBLK(st->st_mode))
		return search_loops(&search, st);
	snprintf(h.number, sizeof(h.number), "%u:%u", major(st->st_rdev),
		 minor(st->st_rdev));
	return search_dms(&search, &h);
}
