// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device-mapper device of the privileged process: made, or taken over from
 * a cowd that died; attached to; undone.
 *
 * What must hold: its name is the one that the user gave, its destinations are
 * the files that the parent itself made devices of.  A device that is there
 * already is touched only if it is known to be this one, and keeps what is in
 * force there (policy, no_space, map_memory), unless the user says so now.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <common/clock.h>
#include <dmu.h>

#include "log.h"
#include "state.h"

#define REMOVE_TRY_MS	5000
#define ATTACHED_MS	5000
#define SUSPEND_MS	30000
#define TABLE_MAX	(16 << 10)	/* 255 devices of 24 characters and more */

/* ---- what is there ------------------------------------------------------- */

bool device_is_gone(void)
{
	struct dmu_info info;

	return dmu_device_info(parent.options->name, &info) == -ENXIO;
}

/* Is the record that was left one of the very device that is wanted now? */
static bool is_same_device(void)
{
	struct cowd_options *o = parent.options;
	struct cowd_options left = { .name = o->name };

	if (!parent.record.was_there ||
	    cowd_record_read(&parent.record, &left) ||
	    strcmp(left.image, o->image) || strcmp(left.format, o->format) ||
	    left.read_only != o->read_only)
		return false;
	if (!o->policy_given && left.policy_held) {
		o->policy = left.policy;
		o->timeout_s = left.timeout_s;
		o->policy_held = true;
	}
	return true;
}

/*
 * A device of ours that nobody serves, and no record of it: the run directory
 * was lost.  That it is made of the image is seen when that is opened.
 */
static bool is_orphan(const struct dmu_info *info)
{
	struct dmu_status status;

	return !parent.record.was_there &&
	       !strncmp(info->uuid, DMU_UUID_PREFIX, strlen(DMU_UUID_PREFIX)) &&
	       !dmu_device_status(parent.options->name, &status) &&
	       !status.attached;
}

static int explain_info(int err)
{
	return cowd_error(err, "device-mapper cannot be used: %s",
			  err == -EACCES || err == -EPERM ?
			  "this needs root" : err == -ENODEV ?
			  "the kernel has none (modprobe dm-mod)" :
			  strerror(-err));
}

int device_check(void)
{
	struct cowd_options *o = parent.options;
	struct dmu_info info;
	int err = dmu_device_info(o->name, &info);

	if (err && err != -ENXIO)
		return explain_info(err);
	if (o->recover && err)
		return cowd_error(-ENXIO, "%s: there is no such device to recover",
				  o->name);
	if (o->recover || err)
		return 0;
	parent.adopted = is_orphan(&info);
	if (parent.adopted || is_same_device()) {
		cowd_log(COWD_INFO, "%s was left by a cowd that died: serving it again",
			 o->name);
		o->recover = true;
		return 0;
	}
	if (parent.record.was_there)
		return cowd_error(-EEXIST, "%s: the device was left by a cowd that died; serve it again by cowd --recover %s",
				  o->name, o->name);
	return cowd_error(-EEXIST, "%s: a device of that name exists already",
			  o->name);
}

/* ---- policy and other features ------------------------------------------- */

int device_get_features(struct dmu_table *features)
{
	static char table[TABLE_MAX];
	int err = dmu_device_table(parent.options->name, table, sizeof(table));

	return err ? err : dmu_table_features(table, features);
}

/*
 * What holds for the device that is taken over, to @parent.options; one that
 * died before it had a table has it in its record.  So has one whose policy an
 * upgrade, which did not get to its end, made queue.
 */
static void find_features(void)
{
	struct cowd_options *o = parent.options;
	struct dmu_table now;

	if (device_get_features(&now))
		return;
	if (!o->no_space_given)
		o->no_space_wait = now.no_space_wait;
	if (!o->map_memory_given && now.map_memory_kib)
		o->map_memory_kib = now.map_memory_kib;
	if (o->policy_given ||
	    (o->policy_held && now.policy == DMU_POLICY_QUEUE))
		return;
	o->policy = now.policy;
	o->timeout_s = now.timeout_s;
}

static int tell_policy(const struct cowd_options *o)
{
	static const char *const names[] = {
		[DMU_POLICY_QUEUE] = "queue",
		[DMU_POLICY_FAIL] = "fail",
		[DMU_POLICY_TIMEOUT] = "timeout",
	};
	char text[64];
	int err;

	if (o->policy == DMU_POLICY_TIMEOUT)
		snprintf(text, sizeof(text), "policy timeout %u", o->timeout_s);
	else
		snprintf(text, sizeof(text), "policy %s", names[o->policy]);
	err = dmu_device_message(o->name, text);
	if (err)
		cowd_log(COWD_WARNING, "%s: %s: %s", o->name, text,
			 strerror(-err));
	return err;
}

/* What the table did not say, by messages. */
static void set_features(struct cowd_options *o)
{
	int err;

	if (tell_policy(o))
		return;
	err = o->no_space_wait ? 0 :	/* a table says only the other */
				 dmu_device_message(o->name, "no_space fail");
	if (!err && o->policy_held) {
		o->policy_held = false;
		err = cowd_record_write(&parent.record, o, parent.worker);
	}
	if (err)
		cowd_log(COWD_WARNING, "%s: what its options say is not in force: %s",
			 o->name, strerror(-err));
}

/* ---- make, take over ----------------------------------------------------- */

static void fill_table(struct dmu_table *table, struct dmu_dest *dests,
		       const struct cowd_geometry *geometry)
{
	const struct cowd_options *o = parent.options;
	uint32_t i;

	for (i = 0; i < parent.files.nr_devices; i++)
		dests[i] = (struct dmu_dest){
			.dev = parent.files.devices[i].dev,
			.read_only = parent.files.devices[i].read_only,
			/* What the earlier worker put there went with it. */
			.fresh = o->recover && parent.files.devices[i].scratch,
		};
	*table = (struct dmu_table){
		.key = o->name,
		.nr_sectors = geometry->nr_sectors,
		.block_sectors = geometry->block_sectors,
		.nr_dests = parent.files.nr_devices,
		.dests = dests,
		/* Queue says nothing: what is in force stays until later. */
		.policy = o->recover ? DMU_POLICY_QUEUE : o->policy,
		.timeout_s = o->timeout_s,
		.no_space_wait = o->no_space_wait,
		.map_memory_kib = o->map_memory_kib,
	};
}

/* Why device-mapper said no, as far as that can be found out. */
static int explain_create(int err)
{
	const char *name = parent.options->name;
	struct dmu_info info;

	if (err == -EBUSY && !parent.options->recover &&
	    !dmu_device_info(name, &info))
		return cowd_error(err, "%s: a device of that name exists already",
				  name);
	if (dmu_target_present() == -ENODEV)
		return cowd_error(-ENODEV, "the kernel has no target %s: modprobe dm-userspace",
				  DMU_TARGET_NAME);
	return cowd_error(err, "%s: %s", name, *dmu_device_message_text() ?
			  dmu_device_message_text() : strerror(-err));
}

static int create(const struct dmu_table *table, unsigned int flags)
{
	int err = dmu_device_create(parent.options->name, table, flags,
				    &parent.cookie);

	parent.created = !err;
	return err ? explain_create(err) : 0;
}

/*
 * The worker of a cowd that died may still be on its way out: it must not answer for the
 * table that is about to come.
 */
static int wait_detached(const char *name)
{
	int64_t end = clock_now_ms() + ATTACHED_MS;
	struct dmu_status status;

	while (!dmu_device_status(name, &status) && status.attached) {
		if (clock_now_ms() >= end)
			return cowd_error(-EBUSY, "%s: is still served by a process that has no record; end it and try again",
					  name);
		clock_sleep_ms(20);
	}
	return 0;
}

static int suspend(const char *name)
{
	return dmu_device_suspend(name, DMU_SUSPEND_NOFLUSH |
					DMU_SUSPEND_NOLOCKFS);
}

/* What is under way below it has to end first, which stuck storage does not let happen. */
static int suspend_bounded(const char *name)
{
	int err = helper_run(suspend, SUSPEND_MS);
	struct dmu_info info;

	/* The kernel takes it back when the helper is killed, unless that came too late. */
	if (err == -ETIMEDOUT && !dmu_device_info(name, &info) && info.suspended)
		err = 0;
	if (!err)
		return 0;
	if (err != -ETIMEDOUT)
		return cowd_error(err, "%s: cannot be suspended: %s", name,
				  strerror(-err));
	return cowd_error(err, "%s: waited %d s for its I/O to the files below, which does not end; start again when their storage answers",
			  name, SUSPEND_MS / 1000);
}

/* The device is there and serves what it remembers; give it our own files. */
static int take_over(const struct dmu_table *table, unsigned int flags)
{
	const char *name = parent.options->name;
	int err = dmu_device_load(name, table, flags);

	err = err ? explain_create(err) : suspend_bounded(name);
	if (err)
		return err;
	err = dmu_device_resume(name, &parent.cookie);
	if (!err)
		return 0;
	/* It must not stay suspended for want of memory: a second try. */
	err = explain_create(err);
	dmu_udev_wait(parent.cookie, 0);
	if (dmu_device_resume(name, &parent.cookie))
		cowd_log(COWD_WARNING, "%s stays suspended; dmsetup resume %s lets its I/O go on",
			 name, name);
	return err;
}

/*
 * Hits go to the file itself where the target can do that.  The page cache has what is
 * only read, once for all devices; what is written goes by direct I/O, or by the loop device.
 */
static void tell_file(uint32_t index, struct cowd_file_device *device)
{
	const char *name = parent.options->name;
	char text[64];
	int err;

	if (device->loop.file < 0)
		return;
	if (!parent.options->by_loop &&
	    (device->read_only || device->loop.direct)) {
		snprintf(text, sizeof(text), "file %u %d %s", index, device->loop.file,
			 device->loop.direct ? "direct" : "cached");
		err = dmu_device_message(name, text);
		if (err)
			cowd_log(COWD_DEBUG, "%s: device %u goes by its loop device: %s",
				 name, index, strerror(-err));
	}
	cowd_files_close_source(device);
}

static void tell_files(void)
{
	uint32_t i;

	for (i = 0; i < parent.files.nr_devices; i++)
		tell_file(i, &parent.files.devices[i]);
}

static int attach(const struct cowd_geometry *geometry)
{
	struct dmu_geometry got;
	int fd = dmu_attach(parent.options->name, geometry->features, &got);

	if (fd == -ENOENT)
		return cowd_error(fd, "/dev/%s is not there", DMU_DEVICE_NAME);
	if (fd < 0)
		return cowd_error(fd, "/dev/%s: cannot attach to %s: %s",
				  DMU_DEVICE_NAME, parent.options->name,
				  strerror(-fd));
	parent.attached = true;
	tell_files();
	if (parent.options->recover)
		set_features(parent.options);
	return fd;
}

/* Whoever uses the device counts on its size: it may only grow. */
static int check_size(const struct cowd_geometry *geometry)
{
	const struct cowd_options *o = parent.options;
	struct dmu_info info;

	if (!o->recover || dmu_device_info(o->name, &info) ||
	    geometry->nr_sectors >= info.nr_sectors)
		return 0;
	return cowd_error(-EINVAL, "%s: has %llu sectors, but its device %s has %llu already: make it as large again",
			  o->image, (unsigned long long)geometry->nr_sectors,
			  o->name, (unsigned long long)info.nr_sectors);
}

int device_serve(const struct cowd_geometry *geometry)
{
	const struct cowd_options *o = parent.options;
	unsigned int flags = o->read_only ? DMU_DEV_READ_ONLY : 0;
	struct dmu_dest dests[COWD_MAX_FILES];
	struct dmu_table table;
	int err;

	if (parent.adopted && !parent.files.found_own)
		return cowd_error(-EEXIST, "%s: a device of that name exists already, and is made of another image",
				  o->name);
	err = check_size(geometry);
	if (err)
		return err;
	err = o->recover ? wait_detached(o->name) : 0;
	if (err)
		return err;
	if (o->recover)
		find_features();
	/* First the record: there is no moment with a device and without it. */
	err = cowd_record_write(&parent.record, o, parent.worker);
	if (err)
		return err;
	fill_table(&table, dests, geometry);
	err = o->recover ? take_over(&table, flags) : create(&table, flags);
	return err ? err : attach(geometry);
}

/* ---- undo ---------------------------------------------------------------- */

static void remove_created(void)
{
	const char *name = parent.options->name;
	int err;

	dmu_device_message(name, "policy fail");
	err = dmu_device_remove(name, 0, REMOVE_TRY_MS);
	if (err && err != -ENXIO) {
		cowd_log(COWD_WARNING, "%s could not be removed: %s; serve it again by cowd --recover %s",
			 name, strerror(-err), name);
		/* Somebody uses it already: that policy was ours, for the removal. */
		set_features(parent.options);
	}
}

/* The record stays: what it says of the image may be more than our options do. */
void device_give_policy_back(void)
{
	if (parent.options->policy_held && !device_is_gone())
		tell_policy(parent.options);
}

void device_undo(void)
{
	if (parent.created)
		remove_created();
	else
		device_give_policy_back();
	dmu_udev_wait(parent.cookie, 1000);
}
