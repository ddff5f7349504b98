// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <common/size.h>

#include "log.h"
#include "options.h"

static const char help_text[] =
"Usage: cowd -p FORMAT [OPTION...] NAME IMAGE\n"
"       cowd --recover [OPTION...] NAME\n"
"\n"
"Make the disk inside IMAGE the block device /dev/mapper/NAME, and go to the\n"
"background when it can be used.\n"
"\n"
"  -p, --plugin FORMAT        format of IMAGE: the name of a plugin\n"
"  -r, --read-only            open IMAGE for reading, make a read-only device\n"
"  -o, --option NAME=VALUE    an option of the format (may be repeated)\n"
"      --allow-backing PATH   follow backing paths found inside an image to this\n"
"                             file, or into this folder (may be repeated); IMAGE's\n"
"                             own folder is allowed, unless it is a device\n"
"      --allow-write PATH     write further files of IMAGE that are this file, or in\n"
"                             this folder (may be repeated); else only IMAGE is\n"
"                             written\n"
"      --policy POLICY        what I/O that needs an answer does while no cowd is\n"
"                             there: queue (default), fail, timeout=SECONDS\n"
"      --no-space WHAT        what a write does that finds no space under IMAGE: fail\n"
"                             (default), or wait: it is tried again every second\n"
"      --map-memory SIZE      most kernel memory for remembered mappings (default\n"
"                             64m)\n"
"      --cache-size SIZE      memory for image metadata (default 16m)\n"
"      --scratch-size SIZE    memory for blocks that stand nowhere as they are, such\n"
"                             as compressed ones (default 128m)\n"
"      --by-loop              all I/O to files by way of their loop devices, none to\n"
"                             the file itself\n"
"      --recover              serve a device again whose cowd died, as its record\n"
"                             says; -p, -r, -o, --allow-backing, --allow-write,\n"
"                             --cache-size, --scratch-size, --by-loop are not taken\n"
"  -f, --foreground           stay in the foreground, log to stderr\n"
"  -v, --verbose              say more\n"
"      --plugin-dir DIR       look for plugins there first\n"
"      --run-dir DIR          records and sockets (default " COWD_RUN_DIR_DEFAULT ")\n"
"      --user USER            who parses the image (default cowd, else nobody)\n"
"  -h, --help                 print this help\n"
"  -V, --version              print the version\n"
"\n"
"SIZE is a number of bytes, or one with k, m, g, t.  Exit status: 0 the device is\n"
"there, 1 it is not (one sentence says why), 2 wrong usage.\n";

enum {
	OPT_ALLOW = 256, OPT_ALLOW_WRITE, OPT_POLICY, OPT_MAP_MEMORY, OPT_CACHE, OPT_SCRATCH, OPT_RECOVER,
	OPT_PLUGIN_DIR, OPT_RUN_DIR, OPT_USER,
	OPT_NO_SPACE, OPT_BY_LOOP,
};

static const struct option long_options[] = {
	{ "plugin",		required_argument,	NULL, 'p' },
	{ "read-only",		no_argument,		NULL, 'r' },
	{ "option",		required_argument,	NULL, 'o' },
	{ "allow-backing",	required_argument,	NULL, OPT_ALLOW },
	{ "allow-write",	required_argument,	NULL, OPT_ALLOW_WRITE },
	{ "policy",		required_argument,	NULL, OPT_POLICY },
	{ "no-space",		required_argument,	NULL, OPT_NO_SPACE },
	{ "map-memory",		required_argument,	NULL, OPT_MAP_MEMORY },
	{ "cache-size",		required_argument,	NULL, OPT_CACHE },
	{ "scratch-size",	required_argument,	NULL, OPT_SCRATCH },
	{ "by-loop",		no_argument,		NULL, OPT_BY_LOOP },
	{ "recover",		no_argument,		NULL, OPT_RECOVER },
	{ "foreground",		no_argument,		NULL, 'f' },
	{ "verbose",		no_argument,		NULL, 'v' },
	{ "plugin-dir",		required_argument,	NULL, OPT_PLUGIN_DIR },
	{ "run-dir",		required_argument,	NULL, OPT_RUN_DIR },
	{ "user",		required_argument,	NULL, OPT_USER },
	{ "help",		no_argument,		NULL, 'h' },
	{ "version",		no_argument,		NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static int add_value(const char **list, const char *what, const char *value)
{
	unsigned int n = 0;

	while (list[n])
		n++;
	if (n == COWD_MAX_LIST)
		return cowd_error(-E2BIG, "%s can be given %d times at most",
				  what, COWD_MAX_LIST);
	list[n] = value;
	return 0;
}

static int parse_policy(struct cowd_options *o, const char *text)
{
	unsigned long seconds;
	char *end;

	o->policy_given = true;
	o->policy = DMU_POLICY_QUEUE;
	if (!strcmp(text, "queue"))
		return 0;
	o->policy = DMU_POLICY_FAIL;
	if (!strcmp(text, "fail"))
		return 0;
	o->policy = DMU_POLICY_TIMEOUT;
	if (!strncmp(text, "timeout=", 8) && text[8] >= '0' && text[8] <= '9') {
		seconds = strtoul(text + 8, &end, 10);
		o->timeout_s = (uint32_t)seconds;
		if (!*end && seconds && seconds <= 86400)
			return 0;
	}
	return cowd_error(-EINVAL, "--policy %s: not queue, fail or timeout=SECONDS (1 to 86400)",
			  text);
}

static int parse_no_space(struct cowd_options *o, const char *text)
{
	o->no_space_given = true;
	o->no_space_wait = !strcmp(text, "wait");
	if (o->no_space_wait || !strcmp(text, "fail"))
		return 0;
	return cowd_error(-EINVAL, "--no-space %s: not wait or fail", text);
}

static int parse_size(const char *what, const char *text, uint64_t least,
		      uint64_t *bytes)
{
	char limit[SIZE_TEXT_MAX];

	if (size_parse(text, bytes))
		return cowd_error(-EINVAL, "%s %s: is no size; give a number and k, m, g or t",
				  what, text);
	if (*bytes < least)
		return cowd_error(-EINVAL, "%s %s: is less than %s", what, text,
				  size_text(least, limit));
	return 0;
}

static int parse_map_memory(struct cowd_options *o, const char *text)
{
	uint64_t bytes;
	int err = parse_size("--map-memory", text, 1024, &bytes);

	if (!err && bytes / 1024 > UINT32_MAX)
		err = cowd_error(-EINVAL, "--map-memory %s: more than %u KiB", text,
				 UINT32_MAX);
	o->map_memory_given = true;
	o->map_memory_kib = bytes / 1024;
	return err;
}

/* One option; a positive number ends the run without an error. */
static int parse_option(struct cowd_options *o, int c)
{
	switch (c) {
	case 'p':
		o->format = optarg;
		return 0;
	case 'r':
		o->read_only = true;
		return 0;
	case 'o':
		return add_value(o->image_options, "--option", optarg);
	case 'f':
		o->foreground = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case OPT_ALLOW:
		return add_value(o->allowed, "--allow-backing", optarg);
	case OPT_ALLOW_WRITE:
		return add_value(o->allowed_write, "--allow-write", optarg);
	case OPT_POLICY:
		return parse_policy(o, optarg);
	case OPT_NO_SPACE:
		return parse_no_space(o, optarg);
	case OPT_MAP_MEMORY:
		return parse_map_memory(o, optarg);
	case OPT_CACHE:
		return parse_size("--cache-size", optarg, 1 << 20, &o->cache_bytes);
	case OPT_SCRATCH:
		return parse_size("--scratch-size", optarg, 1 << 20, &o->scratch_bytes);
	case OPT_BY_LOOP:
		o->by_loop = true;
		return 0;
	case OPT_RECOVER:
		o->recover = true;
		return 0;
	case OPT_PLUGIN_DIR:
		o->plugin_dir = optarg;
		return 0;
	case OPT_RUN_DIR:
		o->run_dir = optarg;
		return 0;
	case OPT_USER:
		o->user = optarg;
		return 0;
	case 'h':
		fputs(help_text, stdout);
		return 1;
	case 'V':
		printf("cowd (dm-userspace) %s\n", PACKAGE_VERSION);
		return 1;
	default:	/* getopt has said it */
		return -EINVAL;
	}
}

/* The first option that a record says itself; NULL without one. */
static const char *option_of_record(const struct cowd_options *o)
{
	if (o->format)
		return "--plugin";
	if (o->read_only)
		return "--read-only";
	if (o->image_options[0])
		return "--option";
	if (o->allowed[0])
		return "--allow-backing";
	if (o->allowed_write[0])
		return "--allow-write";
	if (o->cache_bytes)
		return "--cache-size";
	if (o->scratch_bytes)
		return "--scratch-size";
	return o->by_loop ? "--by-loop" : NULL;
}

/* What would have no effect is a mistake. */
static int check_recover(const struct cowd_options *o)
{
	const char *option = option_of_record(o);

	if (!option)
		return 0;
	return cowd_error(-EINVAL, "%s: --recover takes %s from the record, so leave it out; see cowd(8)",
			  o->name, option);
}

static int check_arguments(struct cowd_options *o, int argc, char **argv)
{
	int wanted = o->recover ? 1 : 2;

	if (argc != wanted)
		return cowd_error(-EINVAL, o->recover ?
				  "--recover wants NAME only; see cowd --help" :
				  "NAME and IMAGE are wanted; see cowd --help");
	o->name = argv[0];
	if (!cowd_name_valid(o->name))
		return cowd_error(-EINVAL, "%s: not a name for a device (letters, digits and #+-.:=@_, no leading dot or dash, less than 100)",
				  o->name);
	if (o->recover)
		return check_recover(o);
	o->image = argv[1];
	if (!o->format)
		return cowd_error(-EINVAL, "the format of %s must be named by -p, it is never guessed",
				  o->image);
	return 0;
}

enum cowd_parsed cowd_options_parse(int argc, char **argv,
				    struct cowd_options *o)
{
	int c, ret;

	memset(o, 0, sizeof(*o));
	o->run_dir = COWD_RUN_DIR_DEFAULT;
	while ((c = getopt_long(argc, argv, "p:ro:fvhV", long_options, NULL)) != -1) {
		ret = parse_option(o, c);
		if (ret)
			return ret > 0 ? COWD_DONE : COWD_USAGE;
	}
	if (check_arguments(o, argc - optind, argv + optind))
		return COWD_USAGE;
	return COWD_RUN;
}
