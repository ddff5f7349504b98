// SPDX-License-Identifier: GPL-2.0-or-later
#include "tool.h"

#include <common/num.h>
#include <common/size.h>
#include <common/text.h>

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_WIDTH 14

const char *tool_name;

int fail(int code, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", tool_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return code;
}

int usage_error(const char *what)
{
	return fail(1, "%s; see %s --help", what, tool_name);
}

static void log_message(void *ctx, enum cow_log_level level, const char *text)
{
	if (level != COW_LOG_DEBUG)
		fail(0, "%s%s", level == COW_LOG_WARNING ? "warning: " : "",
		     text);
}

int tool_plugins(const char *dir, struct cow_plugins **plugins)
{
	int ret = cow_plugins_new(dir, log_message, NULL, plugins);

	return ret ? fail(ret, "plugins cannot be loaded: %s",
			  strerror(-ret)) : 0;
}

int tool_size(const char *what, const char *text, uint64_t *size)
{
	if (size_parse(text, size))
		return fail(-EINVAL,
			"%s %s: is no size; give a number and k, m, g or t",
			what, text);
	return 0;
}

/* 0 is what a target has that takes its size from the image below. */
int job_size(const struct job *job, uint64_t *size)
{
	if (job->nr_args < 2)
		return job->backing ? 0 :
		       usage_error("a size is needed where there is no backing image");
	if (tool_size("size", job->args[1], size))
		return -EINVAL;
	if (!*size && job->backing)
		return fail(-EINVAL,
			"%s: cannot have 0 bytes over a backing image; without a size it has that one's",
			job->args[0]);
	return 0;
}

int tool_end(int status)
{
	if (fflush(stdout) || ferror(stdout))
		return fail(1, "the output cannot be written: %s",
			    strerror(errno));
	return status;
}

int tool_options_add(struct tool_options *options, char *text)
{
	char *one;

	while ((one = strsep(&text, ","))) {
		if (options->count == TOOL_OPTIONS_MAX)
			return usage_error("too many options of the format are given");
		options->list[options->count++] = one;
	}
	return 0;
}

/* --- The command line ----------------------------------------------------- */

const char *option_name(const struct option *longs, char **argv, int c)
{
	static char text[64];

	snprintf(text, sizeof(text), "-%c", c);
	if (c > ' ' && c <= '~')
		return text;
	for (; longs->name; longs++) {
		if (longs->val != c)
			continue;
		snprintf(text, sizeof(text), "--%s", longs->name);
		return text;
	}
	return argv[optind - 1];
}

int option_unknown(const struct option *longs, char **argv)
{
	return fail(1, "option %s: is not known or lacks its value; see %s --help",
		    option_name(longs, argv, optopt), tool_name);
}

static int set_block_size(struct job *job)
{
	if (tool_size("block size", optarg, &job->block_size))
		return 1;
	if (job->block_size > COW_BLOCK_SIZE_MAX ||
	    !num_is_pow2(job->block_size))
		return fail(1,
			"block size %s: is no power of two of up to 16m",
			optarg);
	return 0;
}

static int set_text(struct job *job, int c)
{
	switch (c) {
	case 'b':
		job->backing = optarg;
		return 0;
	case 'F':
		job->backing_format = optarg;
		return 0;
	case 'f':
		job->format = optarg;
		return 0;
	case 'O':
		job->output_format = optarg;
		return 0;
	case OPT_PLUGIN_DIR:
		job->plugin_dir = optarg;
		return 0;
	default:
		return usage_error("the option is not known or lacks its value");
	}
}

int job_option(struct job *job, int c)
{
	switch (c) {
	case 'o':
		return tool_options_add(&job->options, optarg);
	case 'r':
		job->repair = true;
		return 0;
	case 's':
		return set_block_size(job);
	case OPT_SOURCE_OPTION:
		return tool_options_add(&job->source_options, optarg);
	case OPT_FORCE:
		job->force = true;
		return 0;
	case OPT_JSON:
		job->json = true;
		return 0;
	default:
		return set_text(job, c);
	}
}

int job_check_backing(const struct job *job)
{
	if (!job->backing != !job->backing_format)
		return usage_error("-b and -F go together: the format of a backing image is not guessed");
	return 0;
}

struct cow_create_params job_target(const struct job *job, const char *path,
				    const char *format)
{
	return (struct cow_create_params){
		.plugins = job->plugins,
		.path = path,
		.format = format,
		.block_size = (uint32_t)job->block_size,
		.backing_path = job->backing,
		.backing_format = job->backing_format,
		.options = job->options.list,
		.force = job->force,
	};
}

/* --- What is printed ------------------------------------------------------ */

void tool_line(const char *label, const char *fmt, ...)
{
	int pad = LABEL_WIDTH - 1 - (int)strlen(label);
	va_list ap;
	char *text;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	text_one_line(text);
	printf("%s:%*s%s\n", label, pad > 0 ? pad : 1, "", text);
	free(text);
}

void tool_fact_text(void *ctx, const struct cow_fact *fact)
{
	if (fact->text)
		tool_line(fact->label, "%s", fact->text);
	else
		tool_line(fact->label, "%llu",
			  (unsigned long long)fact->number);
}

/* A name that is told several times, as of extents, has a list. */
void tool_fact_json(void *ctx, const struct cow_fact *fact)
{
	json_object *value = fact->text ? json_object_new_string(fact->text) :
					  json_object_new_uint64(fact->number);
	json_object *before, *list;

	if (!json_object_object_get_ex(ctx, fact->name, &before)) {
		json_object_object_add(ctx, fact->name, value);
		return;
	}
	if (json_object_is_type(before, json_type_array)) {
		json_object_array_add(before, value);
		return;
	}
	list = json_object_new_array();
	json_object_array_add(list, json_object_get(before));
	json_object_array_add(list, value);
	json_object_object_add(ctx, fact->name, list);
}

void tool_json(json_object *o)
{
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

/* --- Checks --------------------------------------------------------------- */

void tool_finding(void *ctx, const struct cow_finding *f)
{
	if (!ctx) {
		printf("%s%s: %s\n", f->severity == COW_FOUND_CORRUPT ?
		       "DAMAGE" : "harmless",
		       f->repaired ? ", repaired" : "", f->text);
		return;
	}
	json_object_array_add(ctx, json_object_new_string(f->text));
}

int tool_check_status(const struct cow_check_result *result)
{
	if (result->corrupt)
		return CHECK_CORRUPT;
	return result->leaks ? CHECK_LEAKS : CHECK_CLEAN;
}
