/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of cowctl. */
#ifndef COWCTL_H
#define COWCTL_H

#include <stdbool.h>

/* Exit statuses; cowctl(8) lists them. */
#define EXIT_OK		0
#define EXIT_FAILED	1
#define EXIT_USAGE	2
#define EXIT_NO_DEVICE	3

/* Where cowd keeps its records. */
extern const char *run_dir;

/* "cowctl: ..." to standard error; returns @status. */
int say(int status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Behind the text of error @err: that root is needed, if that helps. */
const char *root_hint(int err);

/*
 * Remove what a cowd that died left: device, loop devices, record.  What is not
 * committed is not dropped unless @force: *@recover is then set, and a cowd is
 * to be started first.  Returns an exit status.
 */
int leftover_remove(const char *name, bool force, bool *recover);
/* Start cowd --recover @name; its exit status. */
int leftover_recover(const char *name);

/* Serve @name again whenever its cowd dies, until it is gone; an exit status. */
int keep(const char *name);

#endif /* COWCTL_H */
