/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWIMG_H
#define COWIMG_H

#include "tool.h"

/* Opens args[0] as -f and -o say. */
int job_open(const struct job *job, uint32_t flags, struct cow_chain **chain);

/* One file each.  They return the exit status. */
int cmd_check(const struct job *job);
int cmd_info(const struct job *job);
int cmd_map(const struct job *job);

#endif /* COWIMG_H */
