// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow-create.c - a blank qcow image, or one over a backing image. */
#include "qcow-tool.h"

static const char usage[] =
"Usage: qcow-create [-f qcow|qcow2] [-b BACKING -F FORMAT] [OPTION...] IMAGE [SIZE]\n"
"\n"
"Creates a blank qcow image of SIZE, or one over a backing image.\n"
"\n"
"  -f FORMAT                qcow or qcow2 (qcow2)\n"
"  -b BACKING               the image is based on BACKING, a file or a block\n"
"                           device, and has its size unless SIZE is given\n"
"  -F FORMAT                format of BACKING\n"
"  -o NAME=VALUE            options of the format, separated by commas\n"
"      --force              replace an existing IMAGE\n"
"      --plugin-dir=DIR     look for plugins in DIR first\n"
"  -h, --help               show this help\n"
"  -V, --version            show the version\n";

static int create(struct job *job)
{
	const char *format = job->format ? job->format : QCOW_DEFAULT;
	struct cow_create_params p = job_target(job, job->args[0], format);
	int ret = qcow_format(format);

	if (!ret)
		ret = job_size(job, &p.size);
	return ret ? ret : cow_create_image(&p);
}

const struct qcow_tool qcow_tool = {
	.name = "qcow-create",
	.usage = usage,
	.options = "b:f:F:ho:V",
	.least = 1,
	.most = 2,
	.arguments = "an image must be named, and its size",
	.run = create,
};
