/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which devices of ours are made of a file or block device.  A cowd that died
 * holds no lock any more, but its device goes on writing; so the kernel is
 * asked, by loop devices, their holders and tables, whatever became of the run
 * directory.
 */
#ifndef COWD_USERS_H
#define COWD_USERS_H

#include <stdbool.h>
#include <stddef.h>

#include <dmu.h>

struct cowd_user_device {
	char name[DMU_NAME_LEN];
	bool served;		/* its cowd lives */
};

/*
 * Call @fn for each device of ours that is made of @fd and would be disturbed,
 * or disturb: if @writable all of them, else those that write to it.  Stops at
 * the first that is not 0, and returns it; else 0 or a negative errno.
 */
int cowd_each_user(int fd, bool writable,
		   int (*fn)(void *data, const struct cowd_user_device *user),
		   void *data);

#endif /* COWD_USERS_H */
