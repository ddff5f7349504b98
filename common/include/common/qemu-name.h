/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that images hold which QEMU may have written. */
#ifndef COMMON_QEMU_NAME_H
#define COMMON_QEMU_NAME_H

/* Our name of a format that has another one there; else name itself. */
const char *qemu_name_format(const char *name);
/*
 * The path that a backing file's name means, within it; NULL for what is no
 * file: "nbd://...", "json:{...}".
 */
const char *qemu_name_path(const char *name);

#endif /* COMMON_QEMU_NAME_H */
