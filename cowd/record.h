/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The run directory: for each device NAME.json, which says who serves it and
 * how to do so again, and NAME.sock, where its cowd listens.
 *
 * A living cowd holds a lock on its record, so that a record of a dead one
 * can be told, and two cannot serve one name.
 */
#ifndef COWD_RECORD_H
#define COWD_RECORD_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct cowd_options;

struct cowd_record {
	int fd;			/* -1: none */
	bool was_there;		/* left by a cowd that died */
	char path[PATH_MAX];
	char socket[PATH_MAX];
};

/* Make the directory if need be, and lock @name's record.  Reports errors. */
int cowd_record_lock(struct cowd_record *record,
		     const struct cowd_options *options);
/* Write what --recover and cowctl need.  Reports errors. */
int cowd_record_write(struct cowd_record *record,
		      const struct cowd_options *options, pid_t worker);
/* Replace @options by those of the record.  Reports errors. */
int cowd_record_read(struct cowd_record *record, struct cowd_options *options);
/* The device is gone: so are its files. */
void cowd_record_remove(struct cowd_record *record);
/* Leave the record where it is, for --recover. */
void cowd_record_keep(struct cowd_record *record);

#endif /* COWD_RECORD_H */
