/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the log goes.  Nothing here waits: who reads the log may wait for a device of
 * ours, and be waited for by nobody.  What finds no room is not written.
 */
#ifndef COWD_SINKS_H
#define COWD_SINKS_H

/* "cowd: TEXT" to stderr. */
void cowd_to_stderr(const char *text);
/* To /dev/log, with a priority of <syslog.h>, of the facility daemon. */
void cowd_to_syslog(int priority, const char *name, const char *text);

#endif
