/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replacing the running program by the one that is installed now: the same
 * process executes it, with --recover.  Meanwhile the kernel serves what it
 * remembers.
 */
#ifndef COWD_UPGRADE_H
#define COWD_UPGRADE_H

struct cowd_options;

/* Where this program is, while that can be told. */
void cowd_upgrade_prepare(void);
const char *cowd_upgrade_program(void);
/* Executes the installed program for its version only: a helper's work. */
int cowd_upgrade_try(const char *name);
/* Returns only if it failed, a negative errno; all is to be let go before. */
int cowd_upgrade_exec(const struct cowd_options *options);

#endif /* COWD_UPGRADE_H */
