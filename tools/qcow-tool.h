/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What qcow-create, img2qcow and qcow2raw have in common. */
#ifndef QCOW_TOOL_H
#define QCOW_TOOL_H

#include "tool.h"

#define QCOW_DEFAULT "qcow2"

/* Each program defines one. */
extern const struct qcow_tool {
	const char *name;
	const char *usage;
	const char *options;	/* for getopt, of bfFoO */
	bool source;		/* takes --source-option */
	int least, most;	/* arguments */
	const char *arguments;	/* what must be named, in words */
	/* 0 or an error that was reported. */
	int (*run)(struct job *job);
} qcow_tool;

/* Is it one of the two?  The error is reported. */
int qcow_format(const char *format);

#endif /* QCOW_TOOL_H */
