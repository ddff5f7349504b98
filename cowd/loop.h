/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_LOOP_H
#define COWD_LOOP_H

#include <stdbool.h>

/* See to it that there are any, while that is still allowed. */
void cowd_loop_prepare(void);

struct cowd_loop {
	int fd;			/* keeps the loop device; -1: none */
	int number;
	bool direct;		/* direct I/O; else through the page cache */
	int file;		/* what it is made of, or -1 */
};

/*
 * Make a loop device of open file @fd; with direct I/O if it is @writable and its file
 * system can do that, else through the page cache.  It vanishes when its last user, @loop->fd
 * among them, is gone.  The caller closes @loop->fd and @loop->file.  0, or a negative errno:
 * -ENXIO when the kernel has no loop devices; no descriptor is open then.
 */
int cowd_loop_create(int fd, bool writable, struct cowd_loop *loop);
/* The file became larger. */
int cowd_loop_resize(int loop_fd);
/* Is loop device @number still bound to a file? */
bool cowd_loop_bound(int number);

#endif /* COWD_LOOP_H */
