/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a disk's target= means; docs/xen.md describes it, dmu-target.sh does the same in shell. */
#ifndef SHIM_TARGET_H
#define SHIM_TARGET_H

#include "words.h"

struct target {
	const char *text;	/* all of it, as the disk's line has it */
	char *format, *image;
	char *base, *size;	/* NULL: none */
	const char *base_format;
	struct words create;	/* options of cowimg create */
	struct words open;	/* of the format, to open the image */
	struct words cowd;	/* options of cowd */
	struct words paths;	/* of files and folders that are needed, image and base first */
	char *error;		/* one sentence, when something is wrong */
};

/* 0, or -EINVAL with t->error; what @t holds lives as long as the process. */
int target_parse(struct target *t, const char *text);
/* How to make the image that does not exist.  The same. */
int target_make_command(struct target *t, struct words *command);
void target_cowd_command(const struct target *t, const char *name,
			 bool read_only, struct words *command);

#endif /* SHIM_TARGET_H */
