/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_SIZE_H
#define COMMON_SIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Parse a decimal number of bytes with an optional suffix k, m, g or t (of
 * either case; powers of 1024).  -EINVAL, or -ERANGE when it does not fit.
 */
int size_parse(const char *text, uint64_t *bytes);

#define SIZE_TEXT_MAX 16
/* "4.0 MiB" and the like, into buf of SIZE_TEXT_MAX bytes; returns buf. */
const char *size_text(uint64_t bytes, char *buf);

#endif /* COMMON_SIZE_H */
