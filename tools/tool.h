/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What all tools have in common. */
#ifndef TOOL_H
#define TOOL_H

#include <libcow/cow.h>

#include <getopt.h>
#include <json-c/json.h>

/* Exit status of a check, like qemu-img's. */
enum {
	CHECK_CLEAN,
	CHECK_FAILED,
	CHECK_CORRUPT,
	CHECK_LEAKS,
	CHECK_UNSUPPORTED = 63,
};

/* Set by each main(): it begins each sentence on stderr. */
extern const char *tool_name;

/* A mistake or a failure, as one sentence on stderr; returns code. */
int fail(int code, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* fail() with a hint at --help; returns 1. */
int usage_error(const char *what);

/* Loads plugins with our own log.  The error is reported. */
int tool_plugins(const char *dir, struct cow_plugins **plugins);
/* A size that an option gives: "64k". */
int tool_size(const char *what, const char *text, uint64_t *size);
/* The exit status of a program that printed: 1 when that went wrong. */
int tool_end(int status);

/* "NAME=VALUE,..." may be given several times. */
#define TOOL_OPTIONS_MAX 32

struct tool_options {
	const char *list[TOOL_OPTIONS_MAX + 1];	/* ends with NULL */
	unsigned int count;
};

/* Cuts text, in place. */
int tool_options_add(struct tool_options *options, char *text);

/* What a command line says. */
struct job {
	struct cow_plugins *plugins;
	const char *plugin_dir;
	const char *format;		/* -f */
	const char *output_format;	/* -O */
	const char *backing;		/* -b */
	const char *backing_format;	/* -F */
	struct tool_options options;	/* -o */
	struct tool_options source_options;	/* --source-option */
	uint64_t block_size;		/* -s; 0: the format's default */
	bool force, json, repair;
	char **args;
	int nr_args;
};

/* Codes of long options that have no letter. */
enum {
	OPT_FORCE = 1,
	OPT_JSON,
	OPT_PLUGIN_DIR,
	OPT_SOURCE_OPTION,
};

/* Of the disk, from the second argument.  The error is reported. */
int job_size(const struct job *job, uint64_t *size);

/*
 * What getopt_long() did not take (optopt), or a command does not (its code), as
 * it is written; at once after that call.
 */
const char *option_name(const struct option *longs, char **argv, int c);
/* After '?' of getopt_long(); returns 1. */
int option_unknown(const struct option *longs, char **argv);
/* Takes an option that getopt_long() returned; what fails is reported. */
int job_option(struct job *job, int c);
/* -b and -F go together.  What fails is reported. */
int job_check_backing(const struct job *job);
/* The new image as the options say; its path and format are given. */
struct cow_create_params job_target(const struct job *job, const char *path,
				    const char *format);

/* For cow_chain_describe(): ctx is a json_object, or nothing. */
void tool_fact_json(void *ctx, const struct cow_fact *fact);
void tool_fact_text(void *ctx, const struct cow_fact *fact);
void tool_line(const char *label, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Prints, and frees. */
void tool_json(json_object *o);
/* For cow_chain_check(): ctx is a json array for the findings, or NULL. */
void tool_finding(void *ctx, const struct cow_finding *finding);
int tool_check_status(const struct cow_check_result *result);

#endif /* TOOL_H */
