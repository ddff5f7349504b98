/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_OPTIONS_H
#define COWD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <dmu.h>

#define COWD_RUN_DIR_DEFAULT	"/run/cowd"
#define COWD_USER_DEFAULT	"cowd"
#define COWD_MAX_LIST		16	/* values of an option that repeats */

/* Exit statuses; cowd(8) lists them. */
#define COWD_EXIT_OK		0
#define COWD_EXIT_FAILED	1
#define COWD_EXIT_USAGE		2

/* What the user wants.  Strings live as long as the arguments. */
struct cowd_options {
	const char *name;	/* of the device */
	const char *image;	/* as given; absolute after cowd_options_parse() */
	const char *format;
	const char *plugin_dir;
	const char *run_dir;
	const char *user;	/* NULL: cowd, or nobody */
	const char *image_options[COWD_MAX_LIST + 1];	/* ends with NULL */
	const char *allowed[COWD_MAX_LIST + 1];		/* to be read, */
	const char *allowed_write[COWD_MAX_LIST + 1];	/* and written */
	enum dmu_policy policy;
	uint32_t timeout_s;
	bool policy_given;		/* these three: else what a device has stays */
	bool policy_held;		/* the device queues only until an upgrade is over */
	bool no_space_wait, no_space_given;
	uint64_t map_memory_kib;	/* 0: the target's default */
	bool map_memory_given;
	uint64_t cache_bytes;		/* 0: libcow's default, as the next */
	uint64_t scratch_bytes;
	bool by_loop;			/* no I/O to a file itself */
	bool foreground, read_only, recover;
	bool verbose;
};

enum cowd_parsed {
	COWD_RUN,
	COWD_DONE,		/* --help, --version: said */
	COWD_USAGE,		/* said why */
};

enum cowd_parsed cowd_options_parse(int argc, char **argv,
				    struct cowd_options *options);

/* May @name be one of a device and of files in the run directory? */
bool cowd_name_valid(const char *name);

#endif /* COWD_OPTIONS_H */
