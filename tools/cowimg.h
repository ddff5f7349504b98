/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWIMG_H
#define COWIMG_H

#include "tool.h"

/* Opens args[0] as -f and -o say. */
int job_open(const struct job *job, uint32_t flags, struct cow_chain **chain);

struct convert;

/* With --json: what was made, and from what, or NULL.  The error is reported. */
int info_made(const struct job *job, char **image, const char *format,
	      const struct convert *from);

/* One file each.  They return the exit status. */
int cmd_check(const struct job *job);
int cmd_info(const struct job *job);
int cmd_map(const struct job *job);

#endif /* COWIMG_H */
