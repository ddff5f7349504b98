/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_WORKER_H
#define COWD_WORKER_H

struct cowd_options;
struct cowd_user;

/*
 * The process that parses the image and answers the kernel.  @sock leads to
 * the parent, @scratch is a file for blocks that have to be made.  Returns the
 * exit status; errors were sent to the parent's log.
 */
int cowd_worker(const struct cowd_options *options,
		const struct cowd_user *user, int sock, int scratch);

#endif /* COWD_WORKER_H */
