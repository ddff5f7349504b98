// SPDX-License-Identifier: GPL-2.0-or-later
/* plugins.c - find plugins in folders, load and check them. */
#include "internal.h"

#include <common/file.h>
#include <common/num.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ltdl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct loaded {
	struct loaded *next;
	lt_dlhandle dl;
	struct cow_plugin plugin;	/* the part we know, the rest zero */
};

struct cow_plugins {
	struct cow_log log;
	char *dirs;			/* separated by colons */
	struct loaded *list;
};

const struct cow_log *cow_plugins_log(const struct cow_plugins *plugins)
{
	return &plugins->log;
}

bool cow_plugin_name_ok(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

	return len > 0 && len <= 32 && !name[len];
}

static char *search_path(const char *dir)
{
	const char *env = secure_getenv("COWD_PLUGIN_DIR");
	char *dirs;

	if (asprintf(&dirs, "%s%s%s%s%s", dir ? dir : "", dir ? ":" : "",
		     env ? env : "", env ? ":" : "", COW_PLUGIN_DIR) < 0)
		return NULL;
	return dirs;
}

int cow_plugins_new(const char *dir, cow_log_fn log, void *ctx,
		    struct cow_plugins **plugins)
{
	struct cow_plugins *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	cow_log_set(&p->log, log, ctx);
	p->dirs = search_path(dir);
	if (!p->dirs || lt_dlinit()) {
		free(p->dirs);
		free(p);
		return -ENOMEM;
	}
	*plugins = p;
	return 0;
}

void cow_plugins_free(struct cow_plugins *plugins)
{
	struct loaded *l, *next;

	if (!plugins)
		return;
	for (l = plugins->list; l; l = next) {
		next = l->next;
		lt_dlclose(l->dl);
		free(l);
	}
	lt_dlexit();
	free(plugins->dirs);
	free(plugins);
}

/*
 * Calls fn for each folder of the search path, in order, until it does not
 * return 0; that is returned.
 */
static int each_dir(const struct cow_plugins *plugins,
		    int (*fn)(void *ctx, const char *dir), void *ctx)
{
	char *dirs = strdup(plugins->dirs);
	char *dir, *rest = dirs;
	int ret = 0;

	if (!dirs)
		return -ENOMEM;
	while (!ret && (dir = strsep(&rest, ":"))) {
		if (*dir)
			ret = fn(ctx, dir);
	}
	free(dirs);
	return ret;
}

struct lookup {
	const char *name;
	lt_dlhandle dl;
	char *why;		/* what the linker says of one that is there */
};

static bool file_exists(const char *base, const char *suffix)
{
	char *path;
	bool there;

	if (asprintf(&path, "%s%s", base, suffix) < 0)
		return false;
	there = access(path, R_OK) == 0;
	free(path);
	return there;
}

/* 1: found, or there but not loadable, which ends the search too. */
static int try_load(struct lookup *l, const char *base)
{
	if (!file_exists(base, ".la") && !file_exists(base, ".so"))
		return 0;
	l->dl = lt_dlopenext(base);
	if (!l->dl)
		l->why = strdup(lt_dlerror());
	return 1;
}

static int lookup_in(void *ctx, const char *dir)
{
	struct lookup *l = ctx;
	char *base;
	int found;

	if (asprintf(&base, "%s/%s", dir, l->name) < 0)
		return -ENOMEM;
	found = try_load(l, base);
	free(base);
	if (found)
		return found;
	if (asprintf(&base, "%s/%s/%s", dir, l->name, l->name) < 0)
		return -ENOMEM;
	found = try_load(l, base);
	free(base);
	return found;
}

static const char *plugin_fault(const struct cow_plugin *p, const char *name)
{
	if (p->api_version != COW_PLUGIN_API_VERSION)
		return "is for another version of the plugin API";
	if (!p->name || strcmp(p->name, name))
		return "calls itself by another name than its file";
	if (!p->description || !p->open || !p->close || !p->info || !p->map)
		return "lacks one of description, open, close, info, map";
	if (p->struct_size < offsetof(struct cow_plugin, copied_bits))
		return "has too small a structure";
	return NULL;
}

static int plugin_check(struct cow_plugins *plugins, struct lookup *l,
			struct loaded *loaded)
{
	cow_plugin_entry_fn entry;
	const struct cow_plugin *p;
	const char *fault;

	*(void **)&entry = lt_dlsym(l->dl, "cow_plugin_entry");
	p = entry ? entry() : NULL;
	if (!p)
		return cow_log_error(&plugins->log, -ELIBBAD,
			"plugin %s: has no cow_plugin_entry()", l->name);
	/* The first two members have the same place in all versions. */
	memcpy(&loaded->plugin, p, num_min(p->struct_size,
					   sizeof(loaded->plugin)));
	fault = plugin_fault(&loaded->plugin, l->name);
	if (fault)
		return cow_log_error(&plugins->log, -ELIBBAD, "plugin %s: %s",
				     l->name, fault);
	return 0;
}

static int plugin_load(struct cow_plugins *plugins, const char *name,
		       struct loaded **result)
{
	struct lookup l = { .name = name };
	struct loaded *loaded;
	int ret;

	ret = each_dir(plugins, lookup_in, &l);
	if (ret < 0)
		return ret;
	if (!ret)
		return cow_log_error(&plugins->log, -ENOENT,
			"there is no plugin for the format %s in %s; name its folder with --plugin-dir",
			name, plugins->dirs);
	if (!l.dl) {
		ret = cow_log_error(&plugins->log, -ELIBBAD,
				    "plugin %s: cannot be loaded: %s", name,
				    l.why ? l.why : "no memory");
		free(l.why);
		return ret;
	}
	loaded = calloc(1, sizeof(*loaded));
	ret = loaded ? plugin_check(plugins, &l, loaded) : -ENOMEM;
	if (ret) {
		lt_dlclose(l.dl);
		free(loaded);
		return ret;
	}
	loaded->dl = l.dl;
	*result = loaded;
	return 0;
}

int cow_plugins_get(struct cow_plugins *plugins, const char *name,
		    const struct cow_plugin **plugin)
{
	struct loaded *l;
	int ret;

	if (!cow_plugin_name_ok(name))
		return cow_log_error(&plugins->log, -ENOENT,
			"\"%.32s\" is no name of a format", name);
	for (l = plugins->list; l; l = l->next) {
		if (!strcmp(l->plugin.name, name))
			break;
	}
	if (!l) {
		ret = plugin_load(plugins, name, &l);
		if (ret)
			return ret;
		l->next = plugins->list;
		plugins->list = l;
	}
	*plugin = &l->plugin;
	return 0;
}

/* --- All that there are -------------------------------------------------- */

struct names {
	char **name;
	size_t count;
};

static int names_add(struct names *names, const char *name)
{
	char **more;
	size_t i;

	for (i = 0; i < names->count; i++) {
		if (!strcmp(names->name[i], name))
			return 0;
	}
	more = realloc(names->name, (names->count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	names->name = more;
	more[names->count] = strdup(name);
	return more[names->count++] ? 0 : -ENOMEM;
}

/* The name of the plugin that an entry of a folder may be, or NULL. */
static char *entry_name(const char *dir, const char *entry)
{
	char *name = strdup(entry), *path, *dot;

	if (!name)
		return NULL;
	dot = strrchr(name, '.');
	if (dot && (!strcmp(dot, ".so") || !strcmp(dot, ".la"))) {
		*dot = 0;
		if (cow_plugin_name_ok(name))
			return name;
	} else if (!dot && cow_plugin_name_ok(name) &&
		   asprintf(&path, "%s/%s/%s", dir, name, name) >= 0) {
		bool there = file_exists(path, ".la") ||
			     file_exists(path, ".so");

		free(path);
		if (there)
			return name;
	}
	free(name);
	return NULL;
}

static int names_in(void *ctx, const char *dir)
{
	struct names *names = ctx;
	struct dirent *de;
	DIR *d = opendir(dir);
	int ret = 0;

	if (!d)
		return 0;
	while (!ret && (de = readdir(d))) {
		char *name = entry_name(dir, de->d_name);

		if (name)
			ret = names_add(names, name);
		free(name);
	}
	closedir(d);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int cow_plugins_each(struct cow_plugins *plugins,
		     int (*fn)(void *ctx, const struct cow_plugin *plugin),
		     void *ctx)
{
	struct names names = { 0 };
	const struct cow_plugin *plugin;
	size_t i;
	int ret;

	ret = each_dir(plugins, names_in, &names);
	if (names.count)
		qsort(names.name, names.count, sizeof(*names.name), by_name);
	for (i = 0; i < names.count; i++) {
		/* A broken one was reported and does not hide the others. */
		if (!ret && !cow_plugins_get(plugins, names.name[i], &plugin))
			ret = fn(ctx, plugin);
		free(names.name[i]);
	}
	free(names.name);
	return ret;
}

static int load_all(void *ctx, const struct cow_plugin *plugin)
{
	return 0;
}

/* Where folders cannot be read any more, those that were loaded do it. */
const struct cow_plugin *cow_plugins_recognise(struct cow_plugins *plugins,
					       const void *buf, size_t len,
					       uint64_t file_size)
{
	struct loaded *l;

	cow_plugins_each(plugins, load_all, NULL);
	for (l = plugins->list; l; l = l->next) {
		if (l->plugin.probe &&
		    l->plugin.probe(buf, len, file_size) > 0)
			return &l->plugin;
	}
	return NULL;
}

int cow_plugins_probe(struct cow_plugins *plugins, const char *path,
		      const struct cow_plugin **plugin)
{
	uint8_t *buf;
	uint64_t size = 0;
	size_t len = 0;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return cow_log_error(&plugins->log, -errno,
				     "%s: cannot be opened: %s", path,
				     strerror(errno));
	buf = malloc(COW_PROBE_BYTES);
	ret = buf ? file_size(fd, &size) : -ENOMEM;
	if (!ret) {
		len = num_min(COW_PROBE_BYTES, size);
		ret = file_pread_all(fd, buf, len, 0);
	}
	close(fd);
	if (ret) {
		cow_log_error(&plugins->log, ret, "%s: cannot be read: %s",
			      path, strerror(-ret));
	} else {
		*plugin = cow_plugins_recognise(plugins, buf, len, size);
		ret = *plugin != NULL;
	}
	free(buf);
	return ret;
}
