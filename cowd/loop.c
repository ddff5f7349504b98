// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop.h"
#include "options.h"

#define CONTROL	"/dev/loop-control"
#define TRIES	64	/* others may take the free device first */

/*
 * A description of its own for the loop device: the lock on the image belongs
 * to the worker's one, and has to end with the worker.
 */
static int reopen(int fd, bool writable)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

/* Opening the control node loads the module, where a device manager made it. */
void cowd_loop_prepare(void)
{
	static char name[] = "modprobe", quiet[] = "-q", module[] = "loop";
	char *const argv[] = { name, quiet, module, NULL };
	pid_t pid;
	int status;

	if (access(CONTROL, F_OK) &&
	    !posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
		waitpid(pid, &status, 0);
}

static int free_number(void)
{
	int control = open(CONTROL, O_RDWR | O_CLOEXEC);
	int number;

	if (control < 0)
		return errno == ENOENT || errno == ENODEV ? -ENXIO : -errno;
	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		number = -errno;
	close(control);
	return number;
}

static int configure(int loop, int file, bool writable, uint32_t flags)
{
	struct loop_config config = {
		.fd = (uint32_t)file,
		.block_size = 512,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | flags |
				 (writable ? 0 : LO_FLAGS_READ_ONLY),
	};
	char link[32];

	/* What losetup(8) shows. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
	if (readlink(link, (char *)config.info.lo_file_name,
		     LO_NAME_SIZE - 1) < 0)
		config.info.lo_file_name[0] = '\0';
	return ioctl(loop, LOOP_CONFIGURE, &config) ? -errno : 0;
}

/*
 * What is only read is read through the page cache of the file: a block of a base stands
 * there once, however many devices are made over it.  Nothing gets dirty by that, and who
 * writes to the file by direct I/O takes it out of there.  What is written is not to be
 * in memory twice, nor to wait for memory.  Some kernels refuse direct I/O where others
 * fall back by themselves.
 */
static int configure_best(int loop, int file, bool writable)
{
	int err = configure(loop, file, writable, writable ? LO_FLAGS_DIRECT_IO : 0);

	return err == -EINVAL ? configure(loop, file, writable, 0) : err;
}

static bool is_direct(int loop)
{
	struct loop_info64 info;

	return !ioctl(loop, LOOP_GET_STATUS64, &info) &&
	       info.lo_flags & LO_FLAGS_DIRECT_IO;
}

/* The free device that the kernel names now.  -EBUSY: somebody was quicker. */
static int try_one(int file, bool writable, int *number)
{
	char path[32];
	int loop, err;

	*number = free_number();
	if (*number < 0)
		return *number;
	snprintf(path, sizeof(path), "/dev/loop%d", *number);
	loop = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (loop < 0)
		return -errno;
	err = configure_best(loop, file, writable);
	if (err) {
		close(loop);
		return err;
	}
	return loop;
}

int cowd_loop_create(int fd, bool writable, struct cowd_loop *loop)
{
	int i, err = -EBUSY;

	*loop = (struct cowd_loop){ .fd = -1, .file = reopen(fd, writable) };
	if (loop->file < 0)
		return loop->file;
	for (i = 0; i < TRIES && err == -EBUSY; i++) {
		loop->fd = try_one(loop->file, writable, &loop->number);
		err = loop->fd < 0 ? loop->fd : 0;
	}
	if (err) {
		close(loop->file);
		*loop = (struct cowd_loop){ .fd = -1, .file = -1 };
		return err;
	}
	loop->direct = is_direct(loop->fd);
	return 0;
}

int cowd_loop_resize(int loop_fd)
{
	return ioctl(loop_fd, LOOP_SET_CAPACITY) ? -errno : 0;
}

bool cowd_loop_bound(int number)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/loop%d/loop/backing_file",
		 number);
	return access(path, F_OK) == 0;
}
