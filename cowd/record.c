// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "record.h"

#define RECORD_MAX	65536	/* bytes of a record that is read */

static const char *root_hint(int err)
{
	return err == -EACCES || err == -EPERM ? "; this needs root" : "";
}

static int make_run_dir(const char *dir)
{
	struct stat st;

	if (mkdir(dir, 0755) && errno != EEXIST)
		return cowd_error(-errno, "%s: cannot be made: %s%s", dir,
				  strerror(errno), root_hint(-errno));
	if (stat(dir, &st))
		return cowd_error(-errno, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return cowd_error(-ENOTDIR, "%s: not a folder", dir);
	return 0;
}

/* Whoever removes a record holds its lock, so the path may be another file. */
static bool is_at_path(int fd, const char *path)
{
	struct stat here, there;

	return !fstat(fd, &here) && !stat(path, &there) &&
	       here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

static int open_locked(const char *path, int *fd)
{
	int err;

	for (;;) {
		*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (*fd < 0)
			return -errno;
		if (flock(*fd, LOCK_EX | LOCK_NB)) {
			err = errno == EWOULDBLOCK ? -EBUSY : -errno;
			close(*fd);
			*fd = -1;
			return err;
		}
		if (is_at_path(*fd, path))
			return 0;
		close(*fd);
	}
}

int cowd_record_lock(struct cowd_record *record,
		     const struct cowd_options *o)
{
	struct stat st;
	int err = make_run_dir(o->run_dir);

	record->fd = -1;
	if (err)
		return err;
	snprintf(record->path, sizeof(record->path), "%s/%s.json", o->run_dir,
		 o->name);
	snprintf(record->socket, sizeof(record->socket), "%s/%s.sock",
		 o->run_dir, o->name);
	err = open_locked(record->path, &record->fd);
	if (err == -EBUSY)
		return cowd_error(err, "%s: is served by another cowd already; see cowctl status %s",
				  o->name, o->name);
	if (err)
		return cowd_error(err, "%s: cannot be written: %s%s",
				  record->path, strerror(-err), root_hint(err));
	record->was_there = !fstat(record->fd, &st) && st.st_size > 0;
	return 0;
}

/* ---- write -------------------------------------------------------------- */

static struct json_object *json_list(const char *const *list)
{
	struct json_object *array = json_object_new_array();

	for (; *list; list++)
		json_object_array_add(array, json_object_new_string(*list));
	return array;
}

static void add_text(struct json_object *object, const char *key,
		     const char *value)
{
	if (value)
		json_object_object_add(object, key, json_object_new_string(value));
}

static void add_number(struct json_object *object, const char *key,
		       uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *to_json(const struct cowd_options *o, pid_t worker)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "name", o->name);
	add_number(object, "pid", (uint64_t)getpid());
	add_number(object, "worker", (uint64_t)worker);
	add_text(object, "format", o->format);
	add_text(object, "image", o->image);
	add_text(object, "plugin_dir", o->plugin_dir);
	add_text(object, "user", o->user);
	json_object_object_add(object, "options", json_list(o->image_options));
	json_object_object_add(object, "allowed", json_list(o->allowed));
	json_object_object_add(object, "allowed_write",
			       json_list(o->allowed_write));
	add_number(object, "policy", o->policy);
	add_number(object, "timeout_s", o->timeout_s);
	json_object_object_add(object, "policy_held",
			       json_object_new_boolean(o->policy_held));
	add_number(object, "map_memory_kib", o->map_memory_kib);
	add_number(object, "cache_bytes", o->cache_bytes);
	add_number(object, "scratch_bytes", o->scratch_bytes);
	json_object_object_add(object, "no_space_wait",
			       json_object_new_boolean(o->no_space_wait));
	json_object_object_add(object, "by_loop",
			       json_object_new_boolean(o->by_loop));
	json_object_object_add(object, "read_only",
			       json_object_new_boolean(o->read_only));
	return object;
}

/*
 * In place, as the lock is on this file.  What a longer record leaves behind
 * the new one until it is cut off is not read: JSON tells its own end.
 */
static int write_text(int fd, const char *text)
{
	size_t len = strlen(text);

	if (pwrite(fd, text, len, 0) != (ssize_t)len)
		return errno ? -errno : -ENOSPC;
	return ftruncate(fd, (off_t)len) ? -errno : 0;
}

int cowd_record_write(struct cowd_record *record,
		      const struct cowd_options *o, pid_t worker)
{
	struct json_object *object = to_json(o, worker);
	int err;

	err = write_text(record->fd,
			 json_object_to_json_string_ext(object,
							JSON_C_TO_STRING_PRETTY |
							JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
	if (err)
		return cowd_error(err, "%s: cannot be written: %s", record->path,
				  strerror(-err));
	return 0;
}

/* ---- read --------------------------------------------------------------- */

/* Strings are kept for the life of the process, as arguments are. */
static const char *get_text(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return NULL;
	return strdup(json_object_get_string(value));
}

static uint64_t get_number(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	return json_object_get_uint64(value);
}

static void get_list(struct json_object *object, const char *key,
		     const char **list)
{
	struct json_object *array;
	size_t i;

	if (!json_object_object_get_ex(object, key, &array) ||
	    !json_object_is_type(array, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(array) && i < COWD_MAX_LIST; i++)
		list[i] = strdup(json_object_get_string(
				 json_object_array_get_idx(array, i)));
	list[i] = NULL;
}

/* What the user says now goes before what he said then. */
static void get_policy(struct json_object *object, struct cowd_options *o)
{
	if (o->policy_given)
		return;
	o->policy = (enum dmu_policy)get_number(object, "policy");
	o->timeout_s = (uint32_t)get_number(object, "timeout_s");
	o->policy_held = get_number(object, "policy_held");
}

static int from_json(struct json_object *object, struct cowd_options *o)
{
	o->image = get_text(object, "image");
	o->format = get_text(object, "format");
	if (!o->image || !o->format)
		return -EINVAL;
	if (!o->plugin_dir)
		o->plugin_dir = get_text(object, "plugin_dir");
	if (!o->user)
		o->user = get_text(object, "user");
	get_list(object, "options", o->image_options);
	get_list(object, "allowed", o->allowed);
	get_list(object, "allowed_write", o->allowed_write);
	get_policy(object, o);
	if (!o->map_memory_given)
		o->map_memory_kib = get_number(object, "map_memory_kib");
	o->cache_bytes = get_number(object, "cache_bytes");
	o->scratch_bytes = get_number(object, "scratch_bytes");
	if (!o->no_space_given)
		o->no_space_wait = get_number(object, "no_space_wait");
	o->by_loop = get_number(object, "by_loop");
	o->read_only = get_number(object, "read_only");
	return 0;
}

int cowd_record_read(struct cowd_record *record, struct cowd_options *o)
{
	struct json_object *object;
	char *text;
	int err = -EINVAL;

	if (!record->was_there)
		return cowd_error(-ENOENT, "%s: there is no record of it in %s; start it as at first, by cowd -p FORMAT %s IMAGE",
				  o->name, o->run_dir, o->name);
	text = calloc(1, RECORD_MAX);
	if (!text)
		return -ENOMEM;
	if (pread(record->fd, text, RECORD_MAX - 1, 0) > 0) {
		object = json_tokener_parse(text);
		if (object)
			err = from_json(object, o);
		json_object_put(object);
	}
	free(text);
	if (err)
		return cowd_error(err, "%s: says nothing about how to serve %s",
				  record->path, o->name);
	return 0;
}

/* ---- end ---------------------------------------------------------------- */

void cowd_record_remove(struct cowd_record *record)
{
	if (record->fd < 0)
		return;
	unlink(record->socket);
	unlink(record->path);
	cowd_record_keep(record);
}

void cowd_record_keep(struct cowd_record *record)
{
	struct stat st;

	/* One that says nothing is of no use to anybody. */
	if (record->fd >= 0 && !fstat(record->fd, &st) && !st.st_size) {
		unlink(record->socket);
		unlink(record->path);
	}
	if (record->fd >= 0)
		close(record->fd);
	record->fd = -1;
}
