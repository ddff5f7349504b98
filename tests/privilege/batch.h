/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many short lives of a hostile cowd, with no program started in between. */
#ifndef PRIVILEGE_BATCH_H
#define PRIVILEGE_BATCH_H

/*
 * Let @run(@which) be a process of its own, for which a cowd that ends its worker for
 * a breach of the rules is expected: it says so, exits with 1, and leaves
 * nothing of device @name.  Prints what came of it; 0, or 1 if it was otherwise.
 */
int batch_breach(const char *name, int (*run)(const char *which),
		 const char *which);

#endif
