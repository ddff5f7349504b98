/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What qcow-create, img2qcow and qcow2raw have in common. */
#ifndef QCOW_TOOL_H
#define QCOW_TOOL_H

#include "tool.h"

#define QCOW_DEFAULT "qcow2"

/* What the command line says. */
struct qcow_job {
	struct cow_plugins *plugins;
	const char *plugin_dir;
	const char *format;		/* -f */
	const char *output_format;	/* -O */
	const char *backing;		/* -b */
	const char *backing_format;	/* -F */
	struct tool_options options;	/* -o */
	bool force;
	char **args;
	int nr_args;
};

/* Each program defines one. */
extern const struct qcow_tool {
	const char *name;
	const char *usage;
	const char *options;	/* for getopt, of bfFoO */
	int least, most;	/* arguments */
	const char *arguments;	/* what must be named, in words */
	/* 0 or an error that was reported. */
	int (*run)(struct qcow_job *job);
} qcow_tool;

/* Is it one of the two?  The error is reported. */
int qcow_format(const char *format);
/* The new image as the options say; its path and format are given. */
struct cow_create_params qcow_target(const struct qcow_job *job,
				     const char *path, const char *format);

#endif /* QCOW_TOOL_H */
