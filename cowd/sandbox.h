/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What parent and worker give up, and what they make sure of before. */
#ifndef COWD_SANDBOX_H
#define COWD_SANDBOX_H

#include <sys/types.h>

struct cowd_user {
	uid_t uid;
	gid_t gid;
};

/* @name, or with NULL cowd, or nobody.  -ENOENT (reported). */
int cowd_user_find(const char *name, struct cowd_user *user);

/*
 * While privileged: this process may serve the device that dirty pages go to,
 * so that it may lock all its memory, be spared by the out-of-memory killer,
 * and its own allocations never wait for that device.  What is not allowed is
 * told under -v only.
 */
void cowd_prepare_for_io(void);

/*
 * The parent stays root, with no capability but those that its work needs, and
 * no way to get others.  No filter of system calls: it would bind the programs
 * of later versions that an upgrade executes.  Errors are reported.
 */
int cowd_limit_privileges(void);

/*
 * Become @user with no groups, no capability, and no way to get any.  Errors
 * are reported.  Without root only the last of it.
 */
int cowd_drop_privileges(const struct cowd_user *user);

/* From here on only system calls that serving an image needs. */
int cowd_filter_syscalls(void);

/* Make all memory resident, now and to come. */
int cowd_lock_memory(void);

#endif /* COWD_SANDBOX_H */
