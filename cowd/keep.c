// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cowctl keep: a device is served again whenever its cowd dies, until it is gone.
 *
 * What must hold: the record's lock is never taken, so that nobody who wants to
 * serve the device or to stop it is in the way of this; who comes second fails,
 * and sees by the record that another serves it.
 */
#include <errno.h>
#include <json.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <dmu.h>
#include <common/clock.h>

#include "cowctl.h"

#define FIRST_MS	1000	/* after a try that failed, twice as long each time */
#define LONGEST_MS	60000

/* Who serves @name as its record says: 0 it does not say yet, or -ENOENT. */
static pid_t server_of(const char *name)
{
	struct json_object *record, *value;
	char path[PATH_MAX];
	pid_t pid = 0;

	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	if (access(path, F_OK))
		return -ENOENT;
	record = json_object_from_file(path);
	if (record && json_object_object_get_ex(record, "pid", &value))
		pid = json_object_get_int(value);
	json_object_put(record);
	return pid > 0 ? pid : 0;
}

/* Returns when process @pid has ended. */
static int wait_for_end(pid_t pid)
{
	struct pollfd pfd = { .events = POLLIN };

	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pfd.fd < 0)
		return errno == ESRCH ? 0 : -errno;
	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	close(pfd.fd);
	return 0;
}

static bool is_gone(const char *name)
{
	struct dmu_info info;

	return dmu_device_info(name, &info) == -ENXIO;
}

/* Process @pid, which served @name, has ended: not by being told to, if the record is as it was. */
static int serve_again(const char *name, pid_t pid, long *delay)
{
	if (server_of(name) != pid)
		return EXIT_OK;
	say(EXIT_OK, "%s: its cowd (process %d) died, and is started again",
	    name, (int)pid);
	if (leftover_recover(name) == EXIT_OK) {
		*delay = FIRST_MS;
		return EXIT_OK;
	}
	if (is_gone(name))
		return EXIT_NO_DEVICE;
	clock_sleep_ms(*delay);
	*delay = *delay < LONGEST_MS / 2 ? *delay * 2 : LONGEST_MS;
	return EXIT_OK;
}

int keep(const char *name)
{
	long delay = FIRST_MS;
	pid_t pid = server_of(name);
	int err;

	if (pid < 0)
		return say(EXIT_NO_DEVICE, "%s: no cowd serves a device of that name",
			   name);
	for (; pid >= 0; pid = server_of(name)) {
		if (!pid) {
			clock_sleep_ms(FIRST_MS);
			continue;
		}
		err = wait_for_end(pid);
		if (err)
			return say(EXIT_FAILED, "%s: its cowd (process %d) cannot be waited for: %s",
				   name, (int)pid, strerror(-err));
		if (serve_again(name, pid, &delay))
			break;
	}
	return EXIT_OK;
}
