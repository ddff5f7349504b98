// SPDX-License-Identifier: GPL-2.0-or-later
/* cowimg.c - one command for images of all formats. */
#include "convert.h"
#include "cowimg.h"

#include <common/num.h>

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
"Usage: cowimg info [-f FORMAT] [-o NAME=VALUE,...] [--json] IMAGE\n"
"       cowimg create -f FORMAT [-b BACKING -F FORMAT] [OPTION...] IMAGE [SIZE]\n"
"       cowimg check -f FORMAT [-o NAME=VALUE,...] [--json] [-r] IMAGE\n"
"       cowimg map -f FORMAT [-o NAME=VALUE,...] [--json] IMAGE\n"
"       cowimg amend -f FORMAT -o NAME=VALUE,... IMAGE\n"
"       cowimg convert -f FORMAT -O FORMAT [OPTION...] SOURCE IMAGE\n"
"\n"
"Shows, creates, checks, amends and converts disk images of all formats that there are\n"
"plugins for.\n"
"\n"
"  -f, --format=FORMAT      format of IMAGE, with convert of SOURCE; it is not\n"
"                           guessed, but by info, which says so\n"
"  -O, --output-format=FORMAT\n"
"                           convert: format of the new IMAGE\n"
"  -o, --option=NAME=VALUE  an option of the format: create and convert take\n"
"                           those of the new image, amend those to change,\n"
"                           others those of opening it; several are separated\n"
"                           by commas\n"
"      --source-option=NAME=VALUE\n"
"                           convert: an option for opening SOURCE\n"
"  -b, --backing=PATH       create, convert: the new image is based on PATH\n"
"  -F, --backing-format=FORMAT\n"
"                           format of the backing image\n"
"  -s, --block-size=SIZE    create, convert: block (cluster, grain) of the new\n"
"                           image, a power of two\n"
"  -r, --repair             check: repair what is safe to repair\n"
"      --force              create, convert: replace IMAGE, or overwrite a block\n"
"                           device\n"
"      --json               info, create, check, map, convert: for programs\n"
"      --plugin-dir=DIR     look for plugins in DIR first\n"
"  -h, --help               show this help\n"
"  -V, --version            show the version\n";

int job_open(const struct job *job, uint32_t flags, struct cow_chain **chain)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;

	p.plugins = job->plugins;
	p.path = job->args[0];
	p.format = job->format;
	p.flags = flags;
	p.options = job->options.list;
	return cow_chain_open(&p, chain);
}

/* --- create, convert ------------------------------------------------------ */

static int cmd_create(const struct job *job)
{
	struct cow_create_params p = job_target(job, job->args[0],
						 job->format);

	if (job_size(job, &p.size) || cow_create_image(&p))
		return 1;
	return info_made(job, job->args, job->format, NULL) ? 1 : 0;
}

static int cmd_convert(const struct job *job)
{
	uint64_t written = 0;
	struct convert c = {
		.written = &written,
		.source = job->args[0],
		.format = job->format,
		.options = job->source_options.list,
		.target = job_target(job, job->args[1], job->output_format),
	};

	if (!job->output_format)
		return usage_error("convert needs -O and a format");
	if (convert(&c))
		return 1;
	return info_made(job, job->args + 1, job->output_format, &c) ? 1 : 0;
}

/* --- amend ----------------------------------------------------------------- */

static int amend_one(struct cow_chain *chain, const char *option)
{
	const char *value = strchr(option, '=');
	char name[64];

	if (!value || value - option >= (ptrdiff_t)sizeof(name))
		return usage_error("amend wants options of the form NAME=VALUE");
	memcpy(name, option, (size_t)(value - option));
	name[value - option] = 0;
	return cow_chain_amend(chain, name, value + 1);
}

/* What a check of the backing image would refuse may be what is to change. */
static int cmd_amend(const struct job *job)
{
	struct job plain = *job;
	struct cow_chain *chain;
	unsigned int i;
	int ret;

	if (!job->options.count)
		return usage_error("amend needs -o and what is to change");
	plain.options = (struct tool_options){ 0 };
	if (job_open(&plain, COW_OPEN_WRITE | COW_OPEN_ANY_BACKING, &chain))
		return 1;
	for (i = 0, ret = 0; !ret && i < job->options.count; i++)
		ret = amend_one(chain, job->options.list[i]);
	cow_chain_close(chain);
	return ret ? 1 : 0;
}

/* --- The command line ----------------------------------------------------- */

static const struct option long_options[] = {
	{ "backing", required_argument, NULL, 'b' },
	{ "backing-format", required_argument, NULL, 'F' },
	{ "block-size", required_argument, NULL, 's' },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "format", required_argument, NULL, 'f' },
	{ "help", no_argument, NULL, 'h' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "option", required_argument, NULL, 'o' },
	{ "output-format", required_argument, NULL, 'O' },
	{ "plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR },
	{ "repair", no_argument, NULL, 'r' },
	{ "source-option", required_argument, NULL, OPT_SOURCE_OPTION },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 }
};

static const struct command {
	const char *name;
	const char *options;	/* codes of long_options that it takes */
	int least, most;	/* arguments */
	bool format;		/* -f must be given */
	int (*run)(const struct job *job);
} commands[] = {
	{ "info", "fo\2\3", 1, 1, false, cmd_info },
	{ "create", "fobFs\1\2\3", 1, 2, true, cmd_create },
	{ "check", "for\2\3", 1, 1, true, cmd_check },
	{ "map", "fo\2\3", 1, 1, true, cmd_map },
	{ "amend", "fo\3", 1, 1, true, cmd_amend },
	{ "convert", "fOobFs\1\2\3\4", 2, 2, true, cmd_convert },
};

static int check_job(const struct job *job, const struct command *command)
{
	if (command->format && !job->format)
		return usage_error("the format must be given by -f: it is not guessed");
	if (job_check_backing(job))
		return 1;
	if (job->nr_args < command->least || job->nr_args > command->most)
		return usage_error(command->least == 2 ?
				   "a source and a new image must be named" :
				   "an image must be named");
	return 0;
}

static int parse(struct job *job, const struct command *command, int argc,
		 char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "b:F:f:hO:o:rs:V", long_options,
				NULL)) != -1) {
		if (c == '?')
			return option_unknown(long_options, argv);
		if (!strchr(command->options, c))
			return fail(1, "%s takes no option %s; see cowimg --help",
				    command->name,
				    option_name(long_options, argv, c));
		if (job_option(job, c))
			return 1;
	}
	job->args = argv + optind;
	job->nr_args = argc - optind;
	return check_job(job, command);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct job job = { 0 };
	int status;

	if (parse(&job, command, argc, argv))
		return 1;
	if (tool_plugins(job.plugin_dir, &job.plugins))
		return 1;
	status = command->run(&job);
	cow_plugins_free(job.plugins);
	return tool_end(status);
}

/* Wherever they stand. */
static bool asks_for(int argc, char **argv, const char *name,
		     const char *letter)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], name) || !strcmp(argv[i], letter))
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	size_t i;

	tool_name = "cowimg";
	opterr = 0;
	if (asks_for(argc, argv, "--help", "-h")) {
		fputs(usage, stdout);
		return tool_end(0);
	}
	if (asks_for(argc, argv, "--version", "-V")) {
		puts("cowimg " PACKAGE_VERSION);
		return tool_end(0);
	}
	if (argc < 2)
		return usage_error("a command must be given");
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(argv[1], commands[i].name))
			return run(&commands[i], argc - 1, argv + 1);
	}
	return fail(1, "%s: is no command; see cowimg --help", argv[1]);
}
