// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow-tool.c - the command line of qcow-create, img2qcow and qcow2raw. */
#include "qcow-tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum {
	OPT_FORCE = 1,
	OPT_PLUGIN_DIR,
};

static const struct option long_options[] = {
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "help", no_argument, NULL, 'h' },
	{ "plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 }
};

int qcow_format(const char *format)
{
	if (!strcmp(format, "qcow") || !strcmp(format, "qcow2"))
		return 0;
	return fail(-EINVAL, "format %s: is neither qcow nor qcow2; cowimg does all formats",
		    format);
}

struct cow_create_params qcow_target(const struct qcow_job *job,
				     const char *path, const char *format)
{
	return (struct cow_create_params){
		.plugins = job->plugins,
		.path = path,
		.format = format,
		.backing_path = job->backing,
		.backing_format = job->backing_format,
		.options = job->options.list,
		.force = job->force,
	};
}

static int set_option(struct qcow_job *job, int c)
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
	case 'o':
		return tool_options_add(&job->options, optarg);
	case OPT_FORCE:
		job->force = true;
		return 0;
	case OPT_PLUGIN_DIR:
		job->plugin_dir = optarg;
		return 0;
	default:
		return usage_error("the option is not known or lacks its value");
	}
}

static int run(struct qcow_job *job)
{
	int ret;

	if (!job->backing != !job->backing_format)
		return usage_error("-b and -F go together: the format of a backing image is not guessed");
	if (job->nr_args < qcow_tool.least || job->nr_args > qcow_tool.most)
		return usage_error(qcow_tool.arguments);
	if (tool_plugins(job->plugin_dir, &job->plugins))
		return 1;
	ret = qcow_tool.run(job);
	cow_plugins_free(job->plugins);
	return ret ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct qcow_job job = { 0 };
	int c;

	tool_name = qcow_tool.name;
	opterr = 0;
	while ((c = getopt_long(argc, argv, qcow_tool.options, long_options,
				NULL)) != -1) {
		if (c == 'h') {
			fputs(qcow_tool.usage, stdout);
			return tool_end(0);
		}
		if (c == 'V') {
			printf("%s %s\n", tool_name, PACKAGE_VERSION);
			return tool_end(0);
		}
		if (set_option(&job, c))
			return 1;
	}
	job.args = argv + optind;
	job.nr_args = argc - optind;
	return tool_end(run(&job));
}
