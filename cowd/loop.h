/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_LOOP_H
#define COWD_LOOP_H

#include <stdbool.h>

/* See to it that there are any, while that is still allowed. */
void cowd_loop_prepare(void);
/*
 * Make a loop device of open file @fd; with direct I/O if it is @writable and its file
 * system can do that, else through the page cache.  It vanishes when its last user, the
 * returned descriptor among them, is gone.  @number and @direct are set.  Negative errno:
 * -ENXIO when the kernel has no loop devices.
 */
int cowd_loop_create(int fd, bool writable, int *number, bool *direct);
/* The file became larger. */
int cowd_loop_resize(int loop_fd);
/* Is loop device @number still bound to a file? */
bool cowd_loop_bound(int number);

#endif /* COWD_LOOP_H */
