/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a worker that was taken over would try. */
#ifndef PRIVILEGE_PROBES_H
#define PRIVILEGE_PROBES_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Try each, towards @other where another process is needed, and print what
 * became of it.  @want_refused: inside the sandbox, where each must be
 * refused; else each must be possible, or it shows nothing.  The number of
 * those that were not as wanted.
 */
int probe_all(pid_t other, bool want_refused);

#endif
