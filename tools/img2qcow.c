// SPDX-License-Identifier: GPL-2.0-or-later
/* img2qcow.c - a disk as a qcow image. */
#include "convert.h"
#include "qcow-tool.h"

#include <errno.h>

static const char usage[] =
"Usage: img2qcow [-f FORMAT] [-O qcow|qcow2] [OPTION...] SOURCE IMAGE\n"
"\n"
"Makes IMAGE, in the format qcow or qcow2, with the contents of SOURCE, a file\n"
"or a block device.  Holes and zeroes take no space.\n"
"\n"
"  -f FORMAT                format of SOURCE (raw)\n"
"  -O FORMAT                qcow or qcow2 (qcow2)\n"
"  -b BACKING               IMAGE is based on BACKING, and holds what differs\n"
"  -F FORMAT                format of BACKING\n"
"  -o NAME=VALUE            options of the format, separated by commas\n"
"      --source-option=NAME=VALUE\n"
"                           an option for opening SOURCE\n"
"      --force              replace an existing IMAGE, overwrite a block device\n"
"      --plugin-dir=DIR     look for plugins in DIR first\n"
"  -h, --help               show this help\n"
"  -V, --version            show the version\n";

/* Raw is never assumed of what looks like something else. */
static int source_format(struct job *job)
{
	const struct cow_plugin *found = NULL;
	int ret = cow_plugins_probe(job->plugins, job->args[0], &found);

	if (ret < 0)
		return ret;
	if (found)
		return fail(-EINVAL,
			"%s: looks like an image of the format %s; say -f %s if it is one, or -f raw if not",
			job->args[0], found->name, found->name);
	job->format = "raw";
	return 0;
}

static int img2qcow(struct job *job)
{
	const char *format = job->output_format ? job->output_format :
						  QCOW_DEFAULT;
	struct convert c = { .source = job->args[0] };
	int ret = qcow_format(format);

	if (!ret && !job->format)
		ret = source_format(job);
	if (ret)
		return ret;
	c.format = job->format;
	c.options = job->source_options.list;
	c.target = job_target(job, job->args[1], format);
	return convert(&c);
}

const struct qcow_tool qcow_tool = {
	.name = "img2qcow",
	.usage = usage,
	.options = "b:f:F:ho:O:V",
	.source = true,
	.least = 2,
	.most = 2,
	.arguments = "a source and a new image must be named",
	.run = img2qcow,
};
