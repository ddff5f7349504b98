// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The device-mapper device: each function is one or a few libdevmapper tasks.
 *
 * udev.  Where it runs, it makes and removes the nodes and libdevmapper gives
 * each change a cookie (a semaphore) that udev's rules count down; we wait for
 * it a bounded time.  Where it does not, or with DM_DISABLE_UDEV set,
 * libdevmapper makes the nodes itself and the cookie is 0.
 */
#include <errno.h>
#include <libdevmapper.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dmu.h"

#define STEP_MAX_MS	50	/* between two tries of a bounded wait */
#define UDEV_MS		10000
#define PARAMS_SIZE	(256 + DMU_KEY_LEN + DMU_MAX_DEVS * 64)

static char last_message[256];

/* libdevmapper's own words; without this they would go to stderr. */
__attribute__((format(printf, 5, 6)))
static void keep_message(int level, const char *file, int line, int error,
			 const char *format, ...)
{
	va_list args;

	(void)file;
	(void)line;
	(void)error;
	if ((level & 7) > 3)	/* less than an error */
		return;
	va_start(args, format);
	vsnprintf(last_message, sizeof(last_message), format, args);
	va_end(args);
}

const char *dmu_device_message_text(void)
{
	return last_message;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* What is waited for mostly comes at once: each step is twice as long as @ms, the last one. */
static void step(int *ms)
{
	struct timespec ts = { .tv_sec = 0 };

	*ms = !*ms ? 1 : *ms * 2 < STEP_MAX_MS ? *ms * 2 : STEP_MAX_MS;
	ts.tv_nsec = *ms * 1000000L;
	nanosleep(&ts, NULL);
}

/* A task of @type on device @name. */
static int task_new(int type, const char *name, struct dm_task **task)
{
	if (!dm_log_is_non_default())	/* leave the caller's own alone */
		dm_log_with_errno_init(keep_message);
	last_message[0] = '\0';
	*task = dm_task_create(type);
	if (!*task)	/* it asks the driver for its version */
		return geteuid() ? -EPERM : -ENODEV;
	if (name && (strlen(name) >= DMU_NAME_LEN ||
		     !dm_task_set_name(*task, name))) {
		dm_task_destroy(*task);
		return -EINVAL;
	}
	return 0;
}

/* Run @task; it stays the caller's. */
static int task_run(struct dm_task *task)
{
	int err;

	if (dm_task_run(task))
		return 0;
	err = dm_task_get_errno(task);
	return err > 0 ? -err : -EIO;
}

/*
 * Run @task, which changes nodes, and wait or hand out the cookie.  Without one (the system
 * has no semaphore left) udev is not waited for: a device must not stay suspended for that.
 */
static int task_run_udev(struct dm_task *task, uint32_t *cookie)
{
	uint32_t own = 0;
	int err;

	if (!dm_task_set_cookie(task, &own, 0))
		own = 0;
	err = task_run(task);
	if (cookie)
		*cookie = own;
	else
		dmu_udev_wait(own, UDEV_MS);
	dm_task_update_nodes();
	return err;
}

int dmu_udev_wait(uint32_t cookie, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	int ready = 0, ms = 0;

	if (!cookie)
		return 0;
	for (;;) {
		if (!dm_udev_wait_immediate(cookie, &ready))
			return -EIO;
		if (ready)
			break;
		if (now_ms() >= end)
			return -ETIMEDOUT;
		step(&ms);
	}
	dm_task_update_nodes();
	return 0;
}

/* A task without answer or udev: suspend, message. */
static int run_and_destroy(struct dm_task *task)
{
	int err = task_run(task);

	dm_task_destroy(task);
	return err;
}

static int udev_task(int type, const char *name, uint32_t *cookie)
{
	struct dm_task *task;
	int err = task_new(type, name, &task);

	if (err)
		return err;
	err = task_run_udev(task, cookie);
	dm_task_destroy(task);
	return err;
}

/* An empty device, to be loaded and resumed. */
static int create_empty(const char *name, unsigned int flags)
{
	char uuid[DMU_NAME_LEN + sizeof(DMU_UUID_PREFIX)];
	struct dm_task *task;
	int err = task_new(DM_DEVICE_CREATE, name, &task);

	if (err)
		return err;
	snprintf(uuid, sizeof(uuid), DMU_UUID_PREFIX "%s", name);
	if (!dm_task_set_uuid(task, uuid) ||
	    !dm_task_set_add_node(task, DM_ADD_NODE_ON_RESUME) ||
	    ((flags & DMU_DEV_READ_ONLY) && !dm_task_set_ro(task))) {
		dm_task_destroy(task);
		return -ENOMEM;
	}
	return run_and_destroy(task);
}

static int load_line(const char *name, uint64_t nr_sectors, const char *target,
		     const char *params, unsigned int flags)
{
	struct dm_task *task;
	int err = task_new(DM_DEVICE_RELOAD, name, &task);

	if (err)
		return err;
	if (!dm_task_add_target(task, 0, nr_sectors, target, params) ||
	    ((flags & DMU_DEV_READ_ONLY) && !dm_task_set_ro(task))) {
		dm_task_destroy(task);
		return -ENOMEM;
	}
	return run_and_destroy(task);
}

int dmu_device_load(const char *name, const struct dmu_table *table,
		    unsigned int flags)
{
	char *params = malloc(PARAMS_SIZE);
	int err;

	if (!params)
		return -ENOMEM;
	err = dmu_table_format(table, params, PARAMS_SIZE);
	if (!err)
		err = load_line(name, table->nr_sectors, DMU_TARGET_NAME,
				params, flags);
	free(params);
	return err;
}

int dmu_device_create(const char *name, const struct dmu_table *table,
		      unsigned int flags, uint32_t *cookie)
{
	char message[sizeof(last_message)];
	int err = create_empty(name, flags);

	if (err)
		return err;
	err = dmu_device_load(name, table, flags);
	if (!err)
		err = udev_task(DM_DEVICE_RESUME, name, cookie);
	if (!err)
		return 0;
	/* The message that matters is the first. */
	memcpy(message, last_message, sizeof(message));
	dmu_device_remove(name, 0, 1000);
	memcpy(last_message, message, sizeof(message));
	return err;
}

int dmu_device_suspend(const char *name, unsigned int flags)
{
	struct dm_task *task;
	int err = task_new(DM_DEVICE_SUSPEND, name, &task);

	if (err)
		return err;
	if (((flags & DMU_SUSPEND_NOFLUSH) && !dm_task_no_flush(task)) ||
	    ((flags & DMU_SUSPEND_NOLOCKFS) && !dm_task_skip_lockfs(task))) {
		dm_task_destroy(task);
		return -ENOMEM;
	}
	return run_and_destroy(task);
}

int dmu_device_resume(const char *name, uint32_t *cookie)
{
	return udev_task(DM_DEVICE_RESUME, name, cookie);
}

int dmu_device_message(const char *name, const char *text)
{
	struct dm_task *task;
	int err = task_new(DM_DEVICE_TARGET_MSG, name, &task);

	if (err)
		return err;
	if (!dm_task_set_sector(task, 0) || !dm_task_set_message(task, text)) {
		dm_task_destroy(task);
		return -ENOMEM;
	}
	return run_and_destroy(task);
}

static int read_info(struct dm_task *task, struct dmu_info *info)
{
	struct dm_info dm;
	const char *uuid;

	if (!dm_task_get_info(task, &dm))
		return -EIO;
	if (!dm.exists)
		return -ENXIO;
	uuid = dm_task_get_uuid(task);
	info->major = dm.major;
	info->minor = dm.minor;
	info->open_count = dm.open_count;
	info->suspended = dm.suspended;
	info->read_only = dm.read_only;
	info->live_table = dm.live_table;
	info->deferred_remove = dm.deferred_remove;
	snprintf(info->uuid, sizeof(info->uuid), "%s", uuid ? uuid : "");
	return 0;
}

/* Not by device-mapper's ioctls, of which each tells something else. */
static uint64_t read_sectors(const struct dmu_info *info)
{
	unsigned long long n = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size", info->major,
		 info->minor);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

int dmu_device_info(const char *name, struct dmu_info *info)
{
	struct dm_task *task;
	int err = task_new(DM_DEVICE_INFO, name, &task);

	if (err)
		return err;
	err = task_run(task);
	if (!err)
		err = read_info(task, info);
	dm_task_destroy(task);
	if (!err)
		info->nr_sectors = read_sectors(info);
	return err;
}

/* Replace the table by one that fails all I/O, without waiting for any. */
static int make_it_fail(const char *name)
{
	struct dm_task *task;
	uint64_t length = 0;
	uint64_t start;
	char *type, *params;
	int err = task_new(DM_DEVICE_TABLE, name, &task);

	if (err)
		return err;
	err = task_run(task);
	if (!err)
		dm_get_next_target(task, NULL, &start, &length, &type, &params);
	dm_task_destroy(task);
	if (err || !length)
		return err;
	err = load_line(name, length, "error", "", 0);
	if (!err)
		err = dmu_device_suspend(name, DMU_SUSPEND_NOFLUSH |
						DMU_SUSPEND_NOLOCKFS);
	return err ? err : dmu_device_resume(name, NULL);
}

static int remove_once(const char *name, unsigned int flags)
{
	struct dm_task *task;
	int err = task_new(DM_DEVICE_REMOVE, name, &task);

	if (err)
		return err;
	if ((flags & DMU_REMOVE_DEFERRED) && !dm_task_deferred_remove(task))
		err = -ENOMEM;
	else
		err = task_run_udev(task, NULL);
	dm_task_destroy(task);
	return err;
}

/* 0 when it is gone, not when somebody said that it will be. */
static int is_gone(const char *name)
{
	struct dmu_info info;
	int err = dmu_device_info(name, &info);

	return err == -ENXIO ? 0 : err ? err : -EINPROGRESS;
}

int dmu_device_remove(const char *name, unsigned int flags, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	struct dmu_info info;
	int err = dmu_device_info(name, &info), ms = 0;

	if (!err && (flags & DMU_REMOVE_FORCE))
		err = make_it_fail(name);
	if (err)
		return err;
	for (;;) {
		err = remove_once(name, flags);
		if (err != -EBUSY || now_ms() >= end)
			break;
		step(&ms);
	}
	if (err && err != -ENXIO)
		return err;
	return is_gone(name);
}

int dmu_device_status(const char *name, struct dmu_status *status)
{
	struct dm_task *task;
	uint64_t start, length;
	char *type = NULL, *params = NULL;
	int err = task_new(DM_DEVICE_STATUS, name, &task);

	if (err)
		return err;
	/* Reading the status must not wait for I/O. */
	dm_task_no_flush(task);
	err = task_run(task);
	if (!err) {
		dm_get_next_target(task, NULL, &start, &length, &type, &params);
		if (!type || strcmp(type, DMU_TARGET_NAME))
			err = -EMEDIUMTYPE;
		else
			err = dmu_status_parse(params ? params : "", status);
	}
	dm_task_destroy(task);
	return err;
}

int dmu_device_table(const char *name, char *buf, size_t size)
{
	struct dm_task *task;
	uint64_t start, length;
	char *type = NULL, *params = NULL;
	int err = task_new(DM_DEVICE_TABLE, name, &task);

	if (err)
		return err;
	dm_task_no_flush(task);
	err = task_run(task);
	if (!err) {
		dm_get_next_target(task, NULL, &start, &length, &type, &params);
		if (!type || strcmp(type, DMU_TARGET_NAME))
			err = -EMEDIUMTYPE;
		else if (snprintf(buf, size, "%s", params ? params : "") >= (int)size)
			err = -E2BIG;
	}
	dm_task_destroy(task);
	return err;
}

/* The answer of LIST_VERSIONS is a chain of offsets; 0 ends it. */
static bool has_target(struct dm_versions *version, const char *name)
{
	for (;;) {
		if (!strcmp(version->name, name))
			return true;
		if (!version->next)
			return false;
		version = (void *)((char *)version + version->next);
	}
}

int dmu_target_present(void)
{
	struct dm_versions *versions;
	struct dm_task *task;
	int err = task_new(DM_DEVICE_LIST_VERSIONS, NULL, &task);

	if (err)
		return err;
	err = task_run(task);
	if (!err) {
		versions = dm_task_get_versions(task);
		if (!versions || !has_target(versions, DMU_TARGET_NAME))
			err = -ENODEV;
	}
	dm_task_destroy(task);
	return err;
}
