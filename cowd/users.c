// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <common/holders.h>

#include "users.h"

#define TABLE_MAX	(16 << 10)	/* 255 devices of 24 characters and more */

struct search {
	bool writable;
	int (*fn)(void *data, const struct cowd_user_device *user);
	void *data;
};

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

static int look_at_holder(void *data, const struct holder *h)
{
	const struct search *s = data;
	struct cowd_user_device user = { .served = false };
	struct dmu_status status;

	if (strncmp(h->uuid, DMU_UUID_PREFIX, strlen(DMU_UUID_PREFIX)) ||
	    !disturbs(h->dm, h->number, s->writable))
		return 0;
	snprintf(user.name, sizeof(user.name), "%s", h->dm);
	user.served = !dmu_device_status(user.name, &status) && status.attached;
	return s->fn(s->data, &user);
}

/*
 * The kernel gives a lease on a file only where nobody else has it open in a way
 * that breaks it; loop devices have theirs open.  It is given back at once.  Who opens the
 * file meanwhile waits so long, and makes the kernel send a signal: one that does nothing.
 */
static int try_lease(int fd, int type)
{
	int err;

	if (fcntl(fd, F_SETSIG, SIGURG))
		return -errno;
	err = fcntl(fd, F_SETLEASE, type) ? -errno : 0;
	if (!err)
		fcntl(fd, F_SETLEASE, F_UNLCK);
	/* The worker gets this descriptor, and is to have no way to signal us. */
	fcntl(fd, F_SETOWN, 0);
	fcntl(fd, F_SETSIG, 0);
	return err;
}

/*
 * Readers are counted only by kernels with CONFIG_IMA: believed where the count is seen
 * to work, by a reader of our own.
 */
static bool nobody_has_it_open(int fd)
{
	char link[32];
	bool counted;
	int reader;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	reader = open(link, O_RDONLY | O_CLOEXEC);
	if (reader < 0)
		return false;
	counted = try_lease(fd, F_WRLCK) == -EAGAIN;
	close(reader);
	return counted && !try_lease(fd, F_WRLCK);
}

/*
 * Only a shortcut: else each start would look at all loop devices there are, of which
 * hundreds of devices have two each.
 */
static bool surely_unused(int fd, bool writable)
{
	return writable ? nobody_has_it_open(fd) : !try_lease(fd, F_RDLCK);
}

int cowd_each_user(int fd, bool writable,
		   int (*fn)(void *data, const struct cowd_user_device *user),
		   void *data)
{
	struct search search = { writable, fn, data };
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && surely_unused(fd, writable))
		return 0;
	return holders_each(&st, !writable, look_at_holder, &search);
}
