/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SHIM_WATCH_H
#define SHIM_WATCH_H

/* Serve the disks of all domains as they come and go; returns when xenstore is lost. */
int watch(void);

#endif /* SHIM_WATCH_H */
