/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which files the worker may have, and the devices that are made of them. */
#ifndef COWD_FILES_H
#define COWD_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <dmu.h>

#include "loop.h"

#define COWD_MAX_FILES	DMU_MAX_DEVS
#define COWD_MAX_OPENED	512	/* files handed out */

struct cowd_options;

struct cowd_opened {
	dev_t dev;
	ino_t ino;
	bool writable;
};

/* File n of the chain as a block device; device n of the table. */
struct cowd_file_device {
	char dev[24];		/* major:minor */
	bool read_only;
	bool scratch;
	struct cowd_loop loop;
};

struct cowd_files {
	const struct cowd_options *options;
	int scratch;		/* descriptor, or -1 */
	const char *path;	/* that is looked at now */
	bool shared;		/* ... and may be by others at the same time */
	bool found_own;		/* the device to recover is made of the image */
	unsigned int nr_opened;
	struct cowd_opened opened[COWD_MAX_OPENED];
	uint32_t nr_devices;
	struct cowd_file_device devices[COWD_MAX_FILES];
};

void cowd_files_init(struct cowd_files *files,
		     const struct cowd_options *options);

/*
 * Open @path for the worker: for reading, the image or what lies within the
 * folders that are allowed; for writing, the image, what the user named in an
 * option of the image, or what lies where the user allowed that.  Regular files and block devices only, never created.  Returns
 * a descriptor or a negative errno; refusals by policy are reported.
 */
int cowd_files_open(struct cowd_files *files, const char *path, int flags);

/*
 * Make file number @index of the chain, which the worker shows as @fd, a block
 * device.  It must be one that was handed out, or the scratch file.  Errors
 * are reported.
 */
int cowd_files_add(struct cowd_files *files, uint32_t index, uint32_t flags,
		   int fd);

/* File @index became larger: so does its device. */
int cowd_files_resized(struct cowd_files *files, uint32_t index);

/* Nobody needs the file of @device's loop device any more. */
void cowd_files_close_source(struct cowd_file_device *device);

/*
 * Let go of the loop devices.  Those that nobody else holds vanish; waits a
 * bounded time for that if @wait and reports those that did not.
 */
void cowd_files_close(struct cowd_files *files, bool wait);

#endif /* COWD_FILES_H */
