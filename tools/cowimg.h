/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWIMG_H
#define COWIMG_H

#include "tool.h"

/* What the command line says. */
struct job {
	struct cow_plugins *plugins;
	const char *plugin_dir;
	const char *format;		/* -f */
	const char *output_format;	/* -O */
	const char *backing;		/* -b */
	const char *backing_format;	/* -F */
	struct tool_options options;	/* -o */
	uint64_t block_size;
	bool force, json, repair;
	char **args;
	int nr_args;
};

/* Opens args[0] as -f and -o say. */
int job_open(const struct job *job, uint32_t flags, struct cow_chain **chain);

/* One file each.  They return the exit status. */
int cmd_check(const struct job *job);
int cmd_info(const struct job *job);
int cmd_map(const struct job *job);

#endif /* COWIMG_H */
