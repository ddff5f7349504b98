// SPDX-License-Identifier: GPL-2.0-or-later
/* What is left of a cowd that died, and how to get rid of it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dmu.h>
#include <common/clock.h>

#include "cowctl.h"

#define REMOVE_MS	5000	/* of tries while somebody just looks at it */
#define HELPER_MS	15000	/* until removing counts as stuck */
#define LOOP_MS		5000	/* until a loop device counts as kept */
#define TABLE_MAX	(16 << 10)

int leftover_recover(const char *name)
{
	char program[] = SBINDIR "/cowd", recover[] = "--recover";
	char option[] = "--run-dir";
	char *const argv[] = { program, option, (char *)run_dir, recover,
			       (char *)name, NULL };
	int status;
	pid_t pid;

	if (posix_spawn(&pid, program, NULL, NULL, argv, environ))
		return say(EXIT_FAILED, "%s: %s", program, strerror(errno));
	/* Its start is bounded. */
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return EXIT_FAILED;
	return WEXITSTATUS(status);
}

/* ---- record ------------------------------------------------------------- */

/* The lock that a living cowd holds: a descriptor, -ENOENT, or -EBUSY. */
static int lock_record(const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	close(fd);
	return -EBUSY;
}

static void remove_record(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.sock", run_dir, name);
	unlink(path);
	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	unlink(path);
}

/* ---- device ------------------------------------------------------------- */

/* Removing can get stuck in the kernel; then we do not. */
static int remove_device(const char *name, unsigned int flags)
{
	int64_t end = clock_now_ms() + HELPER_MS;
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(-dmu_device_remove(name, flags, REMOVE_MS) & 0xff);
	while (clock_now_ms() < end) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
		clock_sleep_ms(10);
	}
	kill(pid, SIGKILL);
	return -ETIMEDOUT;
}

static bool is_bound(const char *number)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/dev/block/%s/loop/backing_file",
		 number);
	return !access(path, F_OK);
}

/* The loop devices of @table vanish with the device; within @end. */
static int wait_for_loops(const char *name, char *table, int64_t end)
{
	char *word, *next = NULL;

	for (word = strtok_r(table, " ", &next); word;
	     word = strtok_r(NULL, " ", &next)) {
		word += strncmp(word, "ro:", 3) ? 0 : 3;
		if (strncmp(word, "7:", 2))
			continue;
		while (is_bound(word) && clock_now_ms() < end)
			clock_sleep_ms(20);
		if (is_bound(word))
			return say(EXIT_FAILED, "%s is gone; waited %d s for loop device %s to be let go",
				   name, LOOP_MS / 1000, word);
	}
	return EXIT_OK;
}

static int remove_all(const char *name, bool force)
{
	static char table[TABLE_MAX];
	int err;

	if (dmu_device_table(name, table, sizeof(table)))
		table[0] = '\0';
	if (force)	/* who waits for it gets errors now */
		dmu_device_message(name, "policy fail");
	err = remove_device(name, force ? DMU_REMOVE_FORCE : 0);
	if (err == -ETIMEDOUT)
		return say(EXIT_FAILED, "%s: waited %d s for its removal; the kernel still works on it",
			   name, HELPER_MS / 1000);
	if (err && err != -ENXIO)
		return say(EXIT_FAILED, "%s: cannot be removed: %s", name,
			   err == -EBUSY ? "somebody uses it" : strerror(-err));
	remove_record(name);
	return wait_for_loops(name, table, clock_now_ms() + LOOP_MS);
}

/* Is there something that only a cowd can save? */
static bool is_clean(const struct dmu_status *status)
{
	return !status->uncommitted && !status->metadata_dirty &&
	       !status->waiting;
}

static int check_and_remove(const char *name, bool force, bool *recover)
{
	struct dmu_status status;
	struct dmu_info info;
	int err = dmu_device_info(name, &info);

	if (err == -ENXIO) {
		remove_record(name);
		return EXIT_OK;
	}
	if (err)
		return say(EXIT_FAILED, "%s: %s%s", name, strerror(-err),
			   root_hint(err));
	if (strncmp(info.uuid, DMU_UUID_PREFIX, strlen(DMU_UUID_PREFIX)))
		return say(EXIT_NO_DEVICE, "%s: the device of that name is not of cowd",
			   name);
	if (info.open_count > 0)
		return say(EXIT_FAILED, force ?
			   "%s is in use (open %d times), and its cowd died; dmsetup message %s 0 policy fail ends the wait of its users, who have to close it first" :
			   "%s is in use (open %d times), and its cowd died; cowd --recover %s serves it again",
			   name, info.open_count, name);
	err = dmu_device_status(name, &status);	/* one half made has none */
	if (!err && status.attached)
		return say(EXIT_FAILED, "%s: a daemon without a record in %s serves it",
			   name, run_dir);
	*recover = !err && !force && !is_clean(&status);
	return *recover ? EXIT_OK : remove_all(name, force);
}

int leftover_remove(const char *name, bool force, bool *recover)
{
	struct dmu_info info;
	int fd = lock_record(name);
	int ret;

	*recover = false;
	if (fd == -EBUSY)
		return say(EXIT_FAILED, "%s: its cowd lives, but does not listen; is it starting or ending?",
			   name);
	if (fd == -ENOENT && dmu_device_info(name, &info) == -ENXIO)
		return say(EXIT_NO_DEVICE, "%s: no cowd serves a device of that name",
			   name);
	if (fd < 0 && fd != -ENOENT)
		return say(EXIT_FAILED, "%s: its record in %s: %s%s", name,
			   run_dir, strerror(-fd), root_hint(fd));
	ret = check_and_remove(name, force, recover);
	if (fd >= 0)
		close(fd);
	return ret;
}
