/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which block devices are made of a file or block device, as the kernel says:
 * whoever made them may be gone, with the locks that it held.
 */
#ifndef COMMON_HOLDERS_H
#define COMMON_HOLDERS_H

#include <stdbool.h>
#include <sys/stat.h>

struct holder {
	char loop[32];		/* "loop3"; empty for a block device itself */
	char number[32];	/* "7:3", of that loop or block device */
	char dm[128];		/* name of a device-mapper device made of it, or empty */
	char uuid[192];		/* of that one */
};

/*
 * Call @fn for each device-mapper device that is made of the file or block
 * device @st, directly or by a loop device, and for each loop device which
 * none is made of.  With @writers only for those that may write to it: hundreds of
 * loop devices that only read may share a base, and each would be looked at at each
 * start.  Stops at the first that is not 0, and returns it; else 0 or
 * a negative errno.  Needs no privileges.
 */
int holders_each(const struct stat *st, bool writers,
		 int (*fn)(void *data, const struct holder *holder),
		 void *data);

#endif /* COMMON_HOLDERS_H */
