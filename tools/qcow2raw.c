// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow2raw.c - the disk in a qcow image, as it is. */
#include "convert.h"
#include "qcow-tool.h"

#include <errno.h>

static const char usage[] =
"Usage: qcow2raw [-f qcow|qcow2] [OPTION...] SOURCE TARGET\n"
"\n"
"Writes the contents of SOURCE, an image of the format qcow or qcow2, and of\n"
"its backing images to TARGET, a sparse file or a block device.\n"
"\n"
"  -f FORMAT                qcow or qcow2 (what SOURCE looks like)\n"
"      --source-option=NAME=VALUE\n"
"                           an option for opening SOURCE\n"
"      --force              replace an existing TARGET, overwrite a block device\n"
"      --plugin-dir=DIR     look for plugins in DIR first\n"
"  -h, --help               show this help\n"
"  -V, --version            show the version\n";

/* Between these two there is no doubt, and neither is a disk's contents. */
static int source_format(struct job *job)
{
	const struct cow_plugin *found = NULL;
	int ret = cow_plugins_probe(job->plugins, job->args[0], &found);

	if (ret < 0)
		return ret;
	if (!found)
		return fail(-EINVAL, "%s: is neither a qcow nor a qcow2 image",
			    job->args[0]);
	job->format = found->name;
	return 0;
}

static int qcow2raw(struct job *job)
{
	struct convert c = { .source = job->args[0] };
	int ret = 0;

	if (!job->format)
		ret = source_format(job);
	if (!ret)
		ret = qcow_format(job->format);
	if (ret)
		return ret;
	c.format = job->format;
	c.options = job->source_options.list;
	c.target = job_target(job, job->args[1], "raw");
	return convert(&c);
}

const struct qcow_tool qcow_tool = {
	.name = "qcow2raw",
	.usage = usage,
	.options = "f:hV",
	.source = true,
	.least = 2,
	.most = 2,
	.arguments = "a source and a target must be named",
	.run = qcow2raw,
};
