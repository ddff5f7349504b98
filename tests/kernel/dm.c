// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * device-mapper by its ioctls: thread-safe, and with the errno of each step.
 */
#include "lib.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/dm-ioctl.h>

#define DM_BUF 65536

static struct dm_ioctl *dm_alloc(const char *name)
{
	struct dm_ioctl *io = calloc(1, DM_BUF);

	check(io, "no memory");
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = DM_BUF;
	io->data_start = sizeof(*io);
	snprintf(io->name, sizeof(io->name), "%s", name);
	return io;
}

static int dm_call(unsigned long cmd, struct dm_ioctl *io)
{
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	int err;

	if (fd < 0)
		return errno;
	err = ioctl(fd, cmd, io) ? errno : 0;
	close(fd);
	return err;
}

static void *dm_data(struct dm_ioctl *io)
{
	return (char *)io + sizeof(*io);
}

static int dm_simple(unsigned long cmd, const char *name, uint32_t flags)
{
	struct dm_ioctl *io = dm_alloc(name);
	int err;

	io->flags = flags;
	err = dm_call(cmd, io);
	free(io);
	return err;
}

int dm_create(const char *name, int *minor)
{
	struct dm_ioctl *io = dm_alloc(name);
	int err = dm_call(DM_DEV_CREATE, io);

	if (!err && minor)
		*minor = minor(io->dev);
	free(io);
	return err;
}

int dm_load(const char *name, uint64_t sectors, const char *target,
	    const char *params, bool readonly)
{
	struct dm_ioctl *io = dm_alloc(name);
	struct dm_target_spec *spec = dm_data(io);
	size_t room = DM_BUF - sizeof(*io) - sizeof(*spec);
	int err;

	io->target_count = 1;
	io->flags = readonly ? DM_READONLY_FLAG : 0;
	spec->length = sectors;
	snprintf(spec->target_type, sizeof(spec->target_type), "%s", target);
	check(strlen(params) < room - 8, "table line too long for the test");
	strcpy((char *)(spec + 1), params);
	spec->next = (sizeof(*spec) + strlen(params) + 1 + 7) & ~7U;
	err = dm_call(DM_TABLE_LOAD, io);
	free(io);
	return err;
}

int dm_suspend(const char *name, int flags)
{
	return dm_simple(DM_DEV_SUSPEND, name, DM_SUSPEND_FLAG |
			 (flags & DM_NOFLUSH ? DM_NOFLUSH_FLAG : 0) |
			 (flags & DM_NOLOCKFS ? DM_SKIP_LOCKFS_FLAG : 0));
}

int dm_resume(const char *name)
{
	return dm_simple(DM_DEV_SUSPEND, name, 0);
}

int dm_remove(const char *name)
{
	return dm_simple(DM_DEV_REMOVE, name, 0);
}

/* The part of status or table after the target's name. */
int dm_text(const char *name, bool table, char *buf, size_t len)
{
	struct dm_ioctl *io = dm_alloc(name);
	struct dm_target_spec *spec;
	int err;

	io->flags = (table ? DM_STATUS_TABLE_FLAG : 0) | DM_NOFLUSH_FLAG;
	err = dm_call(DM_TABLE_STATUS, io);
	if (!err && io->target_count) {
		spec = (void *)((char *)io + io->data_start);
		snprintf(buf, len, "%s", (char *)(spec + 1));
	} else if (!err) {
		err = ENOENT;
	}
	free(io);
	return err;
}

int dm_message(const char *name, const char *fmt, ...)
{
	struct dm_ioctl *io = dm_alloc(name);
	struct dm_target_msg *msg = dm_data(io);
	va_list ap;
	int err;

	va_start(ap, fmt);
	vsnprintf(msg->message, 1024, fmt, ap);
	va_end(ap);
	err = dm_call(DM_TARGET_MSG, io);
	free(io);
	return err;
}

const char *dm_path(const char *name, char *buf, size_t len)
{
	struct dm_ioctl *io = dm_alloc(name);
	int err = dm_call(DM_DEV_STATUS, io);

	check(!err, "no device %s: %s", name, strerror(err));
	snprintf(buf, len, "/dev/dm-%u", (unsigned int)minor(io->dev));
	free(io);
	return buf;
}

/* A dm device over @dev whose table the test will change; its path. */
int dm_linear_over(const char *name, struct dev *dev, char *path, size_t len)
{
	char params[128];
	int err = dm_create(name, NULL);

	if (err)
		return err;
	snprintf(params, sizeof(params), "%s 0", dev->path);
	err = dm_load(name, dev->sectors, "linear", params, false);
	if (!err)
		err = dm_resume(name);
	if (!err)
		dm_path(name, path, len);
	return err;
}
