/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One disk of one domain: what Xen's toolstack wants of a script for it. */
#ifndef SHIM_DISK_H
#define SHIM_DISK_H

struct xs_handle;

/*
 * @path: of its backend in xenstore, .../vbd/DOMAIN/DEVICE.  Both return 0 or a
 * negative errno; what went wrong is in xenstore, where xl finds it, and in the
 * log of the system.
 */
int disk_add(struct xs_handle *xs, const char *path);
/* Also after an add that failed; does not fail for that. */
int disk_remove(struct xs_handle *xs, const char *path);

#endif /* SHIM_DISK_H */
