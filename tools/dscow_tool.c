// SPDX-License-Identifier: GPL-2.0-or-later
/* dscow_tool.c - create, show, check and merge dscow overlays. */
#include "dscow_tool.h"

#include <common/num.h>
#include <common/size.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
"Usage: dscow_tool -c [OPTION...] OVERLAY BASE\n"
"       dscow_tool -i|-k|-m|--accept-base [OPTION...] OVERLAY\n"
"\n"
"Creates, shows, checks and merges copy-on-write overlays of the format dscow.\n"
"\n"
"  -c, --create             make OVERLAY over BASE, a file or a block device\n"
"  -i, --info               show what OVERLAY is\n"
"  -k, --check              check OVERLAY; exit status 0: clean, 1: could not\n"
"                           be checked, 2: damaged, 3: harmless findings only\n"
"  -m, --merge              put all blocks of OVERLAY into its base\n"
"      --accept-base        take the base as it is now, though it changed\n"
"\n"
"  -b, --block-size=SIZE    with -c: 4k to 16m, a power of two (64k)\n"
"  -f, --base-format=NAME   with -c: format of BASE (raw)\n"
"      --force              with -c: replace an existing OVERLAY\n"
"      --json               with -i and -k: for programs\n"
"      --repair             with -k: repair what is safe to repair\n"
"      --plugin-dir=DIR     look for plugins in DIR first\n"
"  -h, --help               show this help\n"
"  -V, --version            show the version\n";

int open_overlay(struct cow_plugins *plugins, const char *path,
		 uint32_t flags, struct cow_chain **chain)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;

	p.plugins = plugins;
	p.path = path;
	p.format = FORMAT;
	p.flags = flags;
	return cow_chain_open(&p, chain);
}

struct fact_search {
	const char *name;
	char *buf;
	size_t size;
	bool found;
};

static void find_fact(void *ctx, const struct cow_fact *fact)
{
	struct fact_search *s = ctx;

	if (strcmp(fact->name, s->name) || !fact->text)
		return;
	snprintf(s->buf, s->size, "%s", fact->text);
	s->found = true;
}

int overlay_fact(struct cow_chain *chain, const char *name, char *buf,
		 size_t size)
{
	struct fact_search s = { name, buf, size, false };
	int ret = cow_chain_describe(chain, find_fact, &s);

	return ret || s.found ? ret : -ENOENT;
}

/* --- Info ----------------------------------------------------------------- */

/* What the original printed: the geometry only. */
static void print_geometry(void *ctx, const struct cow_fact *fact)
{
	static const char *const names[] = {
		"size", "first-block", "block-size", "blocks", "bitmap-count"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(names[i], fact->name))
			tool_fact_text(ctx, fact);
	}
}

static int info_json(struct cow_chain *chain, const char *path)
{
	json_object *o = json_object_new_object();
	int ret;

	if (!o)
		return -ENOMEM;
	json_object_object_add(o, "overlay", json_object_new_string(path));
	json_object_object_add(o, "format", json_object_new_string(FORMAT));
	ret = cow_chain_describe(chain, tool_fact_json, o);
	if (ret)
		json_object_put(o);
	else
		tool_json(o);
	return ret;
}

static int info(struct cow_plugins *plugins, const struct settings *s,
		const char *path)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path,
			   COW_OPEN_NO_BACKING | COW_OPEN_UNFINISHED, &chain);
	if (ret)
		return ret;
	ret = s->json ? info_json(chain, path) :
			cow_chain_describe(chain, tool_fact_text, NULL);
	cow_chain_close(chain);
	return ret;
}

/* --- Create --------------------------------------------------------------- */

/* A raw base is never guessed where it looks like something else. */
static int default_base_format(struct cow_plugins *plugins, const char *base,
			       const char **format)
{
	const struct cow_plugin *found = NULL;
	int ret;

	ret = cow_plugins_probe(plugins, base, &found);
	if (ret < 0)
		return ret;
	if (found)
		return fail(-EINVAL,
			"%s: looks like an image of the format %s; say -f %s if it is one, or -f raw if not",
			base, found->name, found->name);
	*format = "raw";
	return 0;
}

static int print_created(struct cow_plugins *plugins, const char *path)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path, COW_OPEN_NO_BACKING, &chain);
	if (ret)
		return ret;
	ret = cow_chain_describe(chain, print_geometry, NULL);
	cow_chain_close(chain);
	return ret;
}

static int create(struct cow_plugins *plugins, const struct settings *s,
		  const char *path, const char *base)
{
	struct cow_create_params p = {
		.plugins = plugins,
		.path = path,
		.format = FORMAT,
		.block_size = (uint32_t)s->block_size,
		.backing_path = base,
		.backing_format = s->base_format,
		.force = s->force,
	};
	int ret = 0;

	if (!p.backing_format)
		ret = default_base_format(plugins, base, &p.backing_format);
	if (!ret)
		ret = cow_create_image(&p);
	return ret ? ret : print_created(plugins, path);
}

/* --- Check ---------------------------------------------------------------- */

/* The base counts as damage of the overlay: without it that is no disk. */
static int check_base(struct cow_plugins *plugins, const char *path,
		      struct cow_check_result *result)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path, COW_OPEN_UNFINISHED, &chain);
	if (!ret) {
		cow_chain_close(chain);
		return 0;
	}
	if (ret == -EBUSY || ret == -ENOMEM || ret == -EACCES ||
	    ret == -EPERM || ret == -EMFILE)
		return ret;
	result->corrupt++;
	return 0;
}

static bool is_merging(struct cow_chain *chain)
{
	char state[64];

	return !overlay_fact(chain, "state", state, sizeof(state)) &&
	       strcmp(state, "in order");
}

static void report_json(const char *path, json_object *findings,
			const struct cow_check_result *result)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "overlay", json_object_new_string(path));
	json_object_object_add(o, "corrupt",
			       json_object_new_uint64(result->corrupt));
	json_object_object_add(o, "harmless",
			       json_object_new_uint64(result->leaks));
	json_object_object_add(o, "repaired",
			       json_object_new_uint64(result->repaired));
	json_object_object_add(o, "findings", findings);
	tool_json(o);
}

static void report_text(const char *path,
			const struct cow_check_result *result)
{
	if (!result->corrupt && !result->leaks)
		printf("%s: clean%s\n", path,
		       result->repaired ? " now" : "");
	else
		printf("%s: %llu damaged, %llu harmless\n", path,
		       (unsigned long long)result->corrupt,
		       (unsigned long long)result->leaks);
}

static int check_image(struct cow_plugins *plugins, const struct settings *s,
		       const char *path, json_object *findings,
		       struct cow_check_result *result, bool *merging)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path, COW_OPEN_NO_BACKING |
			   COW_OPEN_UNFINISHED |
			   (s->repair ? COW_OPEN_WRITE : 0), &chain);
	if (ret)
		return ret;
	ret = cow_chain_check(chain, s->repair, tool_finding, findings,
			      result);
	*merging = !ret && is_merging(chain);
	cow_chain_close(chain);
	return ret;
}

/* What opening says of the contents, not of our chance to look at them. */
static bool is_damage(int ret)
{
	return ret == -EINVAL || ret == -EOPNOTSUPP;
}

static int check(struct cow_plugins *plugins, const struct settings *s,
		 const char *path)
{
	json_object *findings = s->json ? json_object_new_array() : NULL;
	struct cow_check_result result = { 0 };
	bool merging = false;
	int ret;

	ret = check_image(plugins, s, path, findings, &result, &merging);
	/* In the midst of a merge the base is not what it was. */
	if (!ret && !merging)
		ret = check_base(plugins, path, &result);
	if (ret) {
		json_object_put(findings);
		return is_damage(ret) ? CHECK_CORRUPT : CHECK_FAILED;
	}
	if (s->json)
		report_json(path, findings, &result);
	else
		report_text(path, &result);
	return tool_check_status(&result);
}

/* --- Accept base ---------------------------------------------------------- */

static int accept_base(struct cow_plugins *plugins, const char *path)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path,
			   COW_OPEN_WRITE | COW_OPEN_ANY_BACKING, &chain);
	if (ret)
		return ret;
	ret = cow_chain_amend(chain, "base", "accept");
	cow_chain_close(chain);
	if (!ret)
		printf("%s: its base is taken as it is now\n", path);
	return ret;
}

/* --- Options -------------------------------------------------------------- */

enum {
	OPT_ACCEPT_BASE = 256,
	OPT_REPAIR,
};

static const struct option long_options[] = {
	{ "accept-base", no_argument, NULL, OPT_ACCEPT_BASE },
	{ "base-format", required_argument, NULL, 'f' },
	{ "block-size", required_argument, NULL, 'b' },
	{ "check", no_argument, NULL, 'k' },
	{ "create", no_argument, NULL, 'c' },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "help", no_argument, NULL, 'h' },
	{ "info", no_argument, NULL, 'i' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "merge", no_argument, NULL, 'm' },
	{ "plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR },
	{ "repair", no_argument, NULL, OPT_REPAIR },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 }
};

static int set_action(int *action, int c)
{
	if (*action && *action != c)
		return usage_error("only one action can be done at a time");
	*action = c;
	return 0;
}

static int set_block_size(struct settings *s, const char *text)
{
	if (tool_size("block size", text, &s->block_size))
		return -EINVAL;
	if (!s->block_size || s->block_size > UINT32_MAX)
		return fail(-EINVAL, "block size %s: is no power of two of 4k to 16m", text);
	return 0;
}

static int set_option(struct settings *s, int *action, int c)
{
	switch (c) {
	case 'c': case 'i': case 'k': case 'm': case 'h': case 'V':
	case OPT_ACCEPT_BASE:
		return set_action(action, c);
	case 'b':
		return set_block_size(s, optarg);
	case 'f':
		s->base_format = optarg;
		return 0;
	case OPT_FORCE:
		s->force = true;
		return 0;
	case OPT_JSON:
		s->json = true;
		return 0;
	case OPT_REPAIR:
		s->repair = true;
		return 0;
	case OPT_PLUGIN_DIR:
		s->plugin_dir = optarg;
		return 0;
	default:
		return usage_error("the option is not known or lacks its value");
	}
}

/* An option that would have no effect is a mistake. */
static int check_options(const struct settings *s, int action)
{
	if (action != 'c' && (s->force || s->block_size || s->base_format))
		return usage_error("-b, -f and --force go with -c only");
	if (s->json && action != 'i' && action != 'k')
		return usage_error("--json goes with -i and -k only");
	if (s->repair && action != 'k')
		return usage_error("--repair goes with -k only");
	return 0;
}

static int run(struct cow_plugins *plugins, const struct settings *s,
	       int action, char **args)
{
	switch (action) {
	case 'c':
		return create(plugins, s, args[0], args[1]) ? 1 : 0;
	case 'i':
		return info(plugins, s, args[0]) ? 1 : 0;
	case 'k':
		return check(plugins, s, args[0]);
	case 'm':
		return merge(plugins, args[0]) ? 1 : 0;
	default:
		return accept_base(plugins, args[0]) ? 1 : 0;
	}
}

static int start(const struct settings *s, int action, char **args,
		 int nr_args)
{
	struct cow_plugins *plugins;
	int ret;

	if (!action)
		return usage_error("nothing to do");
	if (check_options(s, action))
		return 1;
	if (nr_args != (action == 'c' ? 2 : 1))
		return usage_error(action == 'c' ?
				   "-c takes an overlay and a base" :
				   "exactly one overlay must be named");
	if (tool_plugins(s->plugin_dir, &plugins))
		return 1;
	ret = run(plugins, s, action, args);
	cow_plugins_free(plugins);
	return tool_end(ret);
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };
	int action = 0, c;

	tool_name = "dscow_tool";
	opterr = 0;
	while ((c = getopt_long(argc, argv, "b:cf:hikmV", long_options,
				NULL)) != -1) {
		if (c == '?')
			return option_unknown(long_options, argv);
		if (set_option(&s, &action, c))
			return 1;
	}
	if (action == 'h') {
		fputs(usage, stdout);
		return 0;
	}
	if (action == 'V') {
		puts("dscow_tool " PACKAGE_VERSION);
		return 0;
	}
	return start(&s, action, argv + optind, argc - optind);
}
