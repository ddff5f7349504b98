// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stop: make the data durable, remove the device.
 *
 * What must hold: both need the worker to answer, which may need its parent.
 * So a helper process does them, each has a deadline, and whatever fails
 * leaves the device served as before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <common/clock.h>
#include <dmu.h>

#include "log.h"
#include "state.h"

#define REMOVE_TRY_MS	5000

/* The device stays, and so do we. */
__attribute__((format(printf, 1, 2)))
static void stop_failed(const char *format, ...)
{
	char text[COWD_LOG_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	cowd_log(COWD_WARNING, "%s", text);
	clients_answer(COWD_CMD_STOP, text);
	parent_enter(RUNNING, 0);
}

static void stop_in_use(const struct dmu_info *info)
{
	stop_failed("%s is in use (open %d times), so it goes on; stop it again when it is free",
		    parent.options->name, info->open_count);
}

/* The kernel flushes, asks the worker to commit, and only then returns. */
static int sync_device(const char *name)
{
	char path[160];
	int fd, err;

	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)	/* a read-only device has nothing to flush */
		return errno == EROFS || errno == EACCES ? 0 : -errno;
	err = fsync(fd) ? -errno : 0;
	close(fd);
	return err;
}

/*
 * Who only looks at it, as udev does, is waited for.  Who wrote to it meanwhile did so
 * after the last flush; what comes of a flush now can still be told.
 */
static int remove_device(const char *name)
{
	int64_t end = clock_now_ms() + REMOVE_TRY_MS;
	int err, step = 0;

	for (;;) {
		err = dmu_device_remove(name, 0, 0);
		if (err == -ENXIO)
			return 0;
		if (err != -EBUSY || clock_now_ms() >= end)
			return err;
		step = clock_next_step_ms(step);
		clock_sleep_ms(step);
		err = sync_device(name);
		if (err && err != -ENOENT)
			return err;
	}
}

static void start_step(int (*work)(const char *name), enum parent_state state,
		       int seconds)
{
	int err = helper_start(work);

	if (err)
		stop_failed("%s: %s, so it goes on", parent.options->name,
			    strerror(-err));
	else
		parent_enter(state, seconds);
}

void stop_begin(void)
{
	struct dmu_info info;
	int err;

	if (parent.state != RUNNING)
		return;		/* answered when the one under way ends */
	err = dmu_device_info(parent.options->name, &info);
	if (err == -ENXIO)
		parent_enter(ENDING, END_S);
	else if (err)
		stop_failed("%s: %s, so it goes on", parent.options->name,
			    strerror(-err));
	else if (info.open_count > 0)
		stop_in_use(&info);
	else
		start_step(sync_device, SYNCING, SYNC_S);
}

static bool may_be_lost(void)
{
	struct dmu_status status;

	return !dmu_device_status(parent.options->name, &status) &&
	       status.data_lost;
}

void stop_synced(int err)
{
	const char *name = parent.options->name;

	if (!err)
		start_step(remove_device, REMOVING, REMOVE_S);
	else if (err != HELPER_TIMEOUT && may_be_lost())
		stop_failed("%s: a flush failed, so data that is not committed may be lost; dmsetup remove %s drops it, dmsetup message %s 0 commit_anyway trusts it; it goes on",
			    name, name, name);
	else if (err == HELPER_TIMEOUT)
		stop_failed("%s: waited %d s for its data to become durable, so it goes on",
			    parent.options->name, SYNC_S);
	else
		stop_failed("%s: its data could not be made durable (%s), so it goes on",
			    parent.options->name, strerror(-err));
}

void stop_removed(int err)
{
	struct dmu_info info;

	if (!err)
		parent_enter(ENDING, END_S);
	else if (err == -EBUSY && !dmu_device_info(parent.options->name, &info))
		stop_in_use(&info);
	else if (err == HELPER_TIMEOUT)
		stop_failed("%s: waited %d s for its removal, so it goes on",
			    parent.options->name, REMOVE_S);
	else
		stop_failed("%s: cannot be removed (%s), so it goes on",
			    parent.options->name, strerror(-err));
}
