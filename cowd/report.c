// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmu.h>

#include "files.h"
#include "options.h"
#include "proto.h"
#include "report.h"

static void add_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void add_number(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_flag(struct json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

static char *to_text(struct json_object *o)
{
	char *text;

	if (asprintf(&text, "%s\n", json_object_to_json_string_ext(o,
						JSON_C_TO_STRING_PLAIN |
						JSON_C_TO_STRING_NOSLASHESCAPE)) < 0)
		text = NULL;
	json_object_put(o);
	return text;
}

static struct json_object *device_json(const struct cowd_options *options)
{
	struct json_object *o = json_object_new_object();
	struct dmu_info info;
	char path[160];
	int err = dmu_device_info(options->name, &info);

	snprintf(path, sizeof(path), "/dev/mapper/%s", options->name);
	add_text(o, "path", path);
	add_flag(o, "exists", err != -ENXIO);
	if (err)
		return o;
	add_number(o, "major", info.major);
	add_number(o, "minor", info.minor);
	add_number(o, "size", info.nr_sectors * 512);
	add_number(o, "open_count", (uint64_t)info.open_count);
	add_flag(o, "suspended", info.suspended);
	add_flag(o, "read_only", info.read_only);
	return o;
}

static void add_policy(struct json_object *o, const struct dmu_status *st)
{
	static const char *const names[] = {
		[DMU_POLICY_QUEUE] = "queue",
		[DMU_POLICY_FAIL] = "fail",
		[DMU_POLICY_TIMEOUT] = "timeout",
	};

	add_text(o, "policy", names[st->policy]);
}

static struct json_object *kernel_json(const char *name)
{
	struct json_object *o;
	struct dmu_status st;

	if (dmu_device_status(name, &st))
		return NULL;
	o = json_object_new_object();
	add_flag(o, "attached", st.attached);
	add_policy(o, &st);
	add_number(o, "block_sectors", st.block_sectors);
	add_number(o, "hits_read", st.hits_read);
	add_number(o, "hits_write", st.hits_write);
	add_number(o, "file_ios", st.file_ios);
	add_number(o, "file_misses", st.file_misses);
	add_number(o, "faults", st.faults);
	add_number(o, "events", st.events);
	add_number(o, "copies", st.copies);
	add_number(o, "copy_errors", st.copy_errors);
	add_number(o, "overwrites", st.overwrites);
	add_number(o, "commits", st.commits);
	add_number(o, "commit_errors", st.commit_errors);
	add_number(o, "flushes", st.flushes);
	add_number(o, "discards", st.discards);
	add_number(o, "extents", st.extents);
	add_number(o, "map_bytes", st.map_bytes);
	add_number(o, "map_budget", st.map_budget);
	add_number(o, "evictions", st.evictions);
	add_number(o, "waiting", st.waiting);
	add_number(o, "uncommitted", st.uncommitted);
	add_flag(o, "metadata_dirty", st.metadata_dirty);
	add_flag(o, "failed", st.failed);
	add_number(o, "no_space", st.no_space);
	add_flag(o, "data_lost", st.data_lost);
	return o;
}

static struct json_object *worker_json(const struct cowd_worker_stats *stats)
{
	struct json_object *o = json_object_new_object();

	add_number(o, "map", stats->serve.map);
	add_number(o, "copied", stats->serve.copied);
	add_number(o, "flush", stats->serve.flush);
	add_number(o, "discard", stats->serve.discard);
	add_number(o, "write_zeroes", stats->serve.write_zeroes);
	add_number(o, "covered", stats->serve.covered);
	add_number(o, "refused", stats->serve.refused);
	add_number(o, "failed", stats->serve.failed);
	add_number(o, "in_flight", stats->serve.in_flight);
	add_text(o, "last_commit", stats->serve.commit_error ?
		 strerror(-stats->serve.commit_error) : "ok");
	add_flag(o, "dirty", stats->dirty);
	add_number(o, "cache_bytes", stats->cache_bytes);
	add_number(o, "table_hits", stats->table_hits);
	add_number(o, "table_reads", stats->table_reads);
	add_number(o, "table_writes", stats->table_writes);
	add_number(o, "materialised", stats->materialised);
	add_number(o, "scratch_emptied", stats->serve.emptied);
	return o;
}

static struct json_object *devices_json(const struct cowd_files *files)
{
	struct json_object *array = json_object_new_array();
	uint32_t i;

	for (i = 0; i < files->nr_devices; i++)
		json_object_array_add(array,
			json_object_new_string(files->devices[i].dev));
	return array;
}

char *cowd_report_status(const struct cowd_options *options,
			 const struct cowd_files *files, pid_t worker,
			 const char *state,
			 const struct cowd_worker_stats *stats)
{
	struct json_object *o = json_object_new_object();
	struct json_object *kernel = kernel_json(options->name);

	add_text(o, "name", options->name);
	add_text(o, "state", state);
	add_text(o, "version", PACKAGE_VERSION);
	add_number(o, "pid", (uint64_t)getpid());
	add_number(o, "worker", (uint64_t)worker);
	add_text(o, "format", options->format);
	add_text(o, "image", options->image);
	json_object_object_add(o, "device", device_json(options));
	json_object_object_add(o, "destinations", devices_json(files));
	if (kernel)
		json_object_object_add(o, "kernel", kernel);
	if (stats)
		json_object_object_add(o, "daemon", worker_json(stats));
	return to_text(o);
}

char *cowd_report_done(const char *name, const char *what, const char *error)
{
	struct json_object *o = json_object_new_object();

	add_text(o, "name", name);
	add_flag(o, what, !error);
	if (error)
		add_text(o, "error", error);
	return to_text(o);
}
