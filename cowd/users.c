// SPDX-License-Identifier: GPL-2.0-or-later
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "users.h"

#define TABLE_MAX	(16 << 10)	/* 255 devices of 24 characters and more */

struct search {
	bool writable;
	int (*fn)(void *data, const struct cowd_user_device *user);
	void *data;
};

/* The first line of a file in /sys, without its end. */
static int read_line(const char *path, char *buf, size_t size)
{
	FILE *file = fopen(path, "re");
	int err = 0;

	if (!file)
		return -errno;
	if (!fgets(buf, (int)size, file))
		err = -EIO;
	else
		buf[strcspn(buf, "\n")] = '\0';
	fclose(file);
	return err;
}

/* Does a device with this table write to @number, or only read it? */
static bool disturbs(const char *name, const char *number, bool writable)
{
	static char table[TABLE_MAX];
	const char *word, *read_only = "ro:";
	char *next = NULL;

	/* One that is not up yet, or is of an unknown kind: rather refuse. */
	if (writable || dmu_device_table(name, table, sizeof(table)))
		return true;
	for (word = strtok_r(table, " ", &next); word;
	     word = strtok_r(NULL, " ", &next))
		if (!strcmp(word, number))
			return true;
		else if (!strncmp(word, read_only, 3) && !strcmp(word + 3, number))
			return false;
	return true;
}

/* dm-N, found among the holders of block device @number. */
static int look_at_holder(const struct search *s, const char *holders,
			  const char *dm, const char *number)
{
	char path[PATH_MAX], uuid[DMU_NAME_LEN + 32];
	struct cowd_user_device user = { .served = false };
	struct dmu_status status;

	snprintf(path, sizeof(path), "%s/%s/dm/uuid", holders, dm);
	if (read_line(path, uuid, sizeof(uuid)) ||
	    strncmp(uuid, DMU_UUID_PREFIX, strlen(DMU_UUID_PREFIX)))
		return 0;
	snprintf(path, sizeof(path), "%s/%s/dm/name", holders, dm);
	if (read_line(path, user.name, sizeof(user.name)) ||
	    !disturbs(user.name, number, s->writable))
		return 0;
	user.served = !dmu_device_status(user.name, &status) && status.attached;
	return s->fn(s->data, &user);
}

static int search_holders(const struct search *s, dev_t rdev)
{
	char holders[64], number[32];
	struct dirent *entry;
	int ret = 0;
	DIR *dir;

	snprintf(number, sizeof(number), "%u:%u", major(rdev), minor(rdev));
	snprintf(holders, sizeof(holders), "/sys/dev/block/%s/holders", number);
	dir = opendir(holders);
	if (!dir)	/* a partition that vanished, or no sysfs */
		return errno == ENOENT ? 0 : -errno;
	while (!ret && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "dm-", 3))
			ret = look_at_holder(s, holders, entry->d_name, number);
	closedir(dir);
	return ret;
}

/* Is loop device @name made of the file @st?  Its number is put to *rdev. */
static bool is_made_of(const char *name, const struct stat *st, dev_t *rdev)
{
	struct loop_info64 info;
	char path[PATH_MAX];
	struct stat loop;
	bool is;
	int fd;

	/* One that is free needs not be opened. */
	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	if (access(path, F_OK))
		return false;
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	is = !fstat(fd, &loop) && !ioctl(fd, LOOP_GET_STATUS64, &info) &&
	     info.lo_device == (uint64_t)st->st_dev &&
	     info.lo_inode == (uint64_t)st->st_ino;
	close(fd);
	*rdev = loop.st_rdev;
	return is;
}

static int search_loops(const struct search *s, const struct stat *st)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	dev_t rdev;
	int ret = 0;

	if (!dir)
		return -errno;
	while (!ret && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "loop", 4) &&
		    is_made_of(entry->d_name, st, &rdev))
			ret = search_holders(s, rdev);
	closedir(dir);
	return ret;
}

int cowd_each_user(int fd, bool writable,
		   int (*fn)(void *data, const struct cowd_user_device *user),
		   void *data)
{
	struct search search = { writable, fn, data };
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	return S_ISBLK(st.st_mode) ? search_holders(&search, st.st_rdev) :
				     search_loops(&search, &st);
}
