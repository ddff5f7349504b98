/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONVERT_H
#define CONVERT_H

#include <libcow/cow.h>

struct convert {
	const char *source;
	const char *format;		/* of the source */
	const char *const *options;	/* for opening it, or NULL */
	/* The target; its size and contents are those of the source. */
	struct cow_create_params target;
	uint64_t *written;		/* bytes of data that it took, or NULL */
};

/*
 * Make a new image with the contents of another one, all its backing images
 * included.  It appears when it is whole and durable; a signal to end, or
 * any failure, leaves nothing behind.  The error is reported.
 */
int convert(const struct convert *c);

#endif /* CONVERT_H */
