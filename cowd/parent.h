/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_PARENT_H
#define COWD_PARENT_H

struct cowd_options;

/*
 * The privileged process: starts the worker, does what needs root on its
 * behalf, and ends when the device is gone.  @ready is called once, when the
 * device can be used.  Returns the exit status; errors were reported.
 */
int cowd_parent(struct cowd_options *options, void (*ready)(void));

#endif /* COWD_PARENT_H */
