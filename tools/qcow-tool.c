// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow-tool.c - the command line of qcow-create, img2qcow and qcow2raw. */
#include "qcow-tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct option long_options[] = {
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "help", no_argument, NULL, 'h' },
	{ "plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR },
	{ "source-option", required_argument, NULL, OPT_SOURCE_OPTION },
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

static int run(struct job *job)
{
	int ret;

	if (job_check_backing(job))
		return 1;
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
	struct job job = { 0 };
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
		if (c == OPT_SOURCE_OPTION && !qcow_tool.source) {
			optopt = c;
			c = '?';
		}
		if (c == '?')
			return option_unknown(long_options, argv);
		if (job_option(&job, c))
			return 1;
	}
	job.args = argv + optind;
	job.nr_args = argc - optind;
	return tool_end(run(&job));
}
