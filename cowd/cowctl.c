// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cowctl: asks running cowds.  Every wait is bounded; a cowd that died is
 * shown by its record.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <dmu.h>

#include "options.h"

#define EXIT_OK		0
#define EXIT_FAILED	1
#define EXIT_USAGE	2
#define EXIT_NO_DEVICE	3

#define STATUS_S	10
#define STOP_S		150	/* cowd gives up before that, and says why */
#define ANSWER_MAX	(1 << 20)

static const char *run_dir = COWD_RUN_DIR_DEFAULT;

static const char help_text[] =
"Usage: cowctl [--run-dir DIR] list\n"
"       cowctl [--run-dir DIR] status [--json] [NAME]\n"
"       cowctl [--run-dir DIR] stop NAME\n"
"\n"
"  list              devices, and whether their cowd lives\n"
"  status            what cowd and the kernel say of one device, or of all\n"
"  stop              commit, remove the device and end its cowd; if somebody\n"
"                    uses the device, say so and change nothing\n"
"\n"
"  -j, --json        status as JSON, an array of objects\n"
"      --run-dir DIR where cowd keeps its records (default " COWD_RUN_DIR_DEFAULT ")\n"
"  -h, --help        print this help\n"
"  -V, --version     print the version\n"
"\n"
"Exit status: 0 done, 1 it failed (one sentence says why), 2 wrong usage,\n"
"3 there is no such device.\n";

__attribute__((format(printf, 2, 3)))
static int say(int status, const char *format, ...)
{
	va_list args;

	fputs("cowctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

/* ---- talking to one cowd ------------------------------------------------ */

static int connect_to(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err;

	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path),
			     "%s/%s.sock", run_dir, name) >=
	    sizeof(address.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* All that comes until the other side closes; -ETIMEDOUT. */
static int receive(int fd, int seconds, char *buf, size_t size)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int64_t left, end = now_ms() + seconds * 1000LL;
	size_t used = 0;
	ssize_t n;

	for (;;) {
		left = end - now_ms();
		if (left <= 0 || poll(&pfd, 1, (int)left) == 0)
			return -ETIMEDOUT;
		n = recv(fd, buf + used, size - used - 1, 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 || used + (size_t)(n > 0 ? n : 0) == size - 1)
			break;
		used += n > 0 ? (size_t)n : 0;
	}
	buf[used] = '\0';
	return used ? 0 : -EPIPE;
}

/* Send @command to @name's cowd; *@answer is the caller's to put. */
static int ask(const char *name, const char *command, int seconds,
	       struct json_object **answer)
{
	char *buf;
	int err, fd = connect_to(name);

	if (fd < 0)
		return fd;
	buf = malloc(ANSWER_MAX);
	err = buf ? 0 : -ENOMEM;
	if (!err && send(fd, command, strlen(command), MSG_NOSIGNAL) < 0)
		err = -errno;
	if (!err)
		err = receive(fd, seconds, buf, ANSWER_MAX);
	if (!err) {
		*answer = json_tokener_parse(buf);
		err = *answer ? 0 : -EPROTO;
	}
	free(buf);
	close(fd);
	return err;
}

static bool nobody_listens(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -EPIPE ||
	       err == -ECONNRESET;
}

/* ---- JSON --------------------------------------------------------------- */

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(o, key, &value);
	return value;
}

static const char *get_text(struct json_object *o, const char *key)
{
	struct json_object *value = get(o, key);

	return value ? json_object_get_string(value) : "-";
}

static uint64_t get_number(struct json_object *o, const char *key)
{
	return json_object_get_uint64(get(o, key));
}

static void set_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

/* ---- records ------------------------------------------------------------ */

static struct json_object *read_record(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	return json_object_from_file(path);
}

/* What can be said of a device whose cowd does not live. */
static struct json_object *dead_status(const char *name)
{
	struct json_object *o = json_object_new_object(), *dev;
	struct json_object *record = read_record(name);
	struct dmu_info info;
	bool exists = !dmu_device_info(name, &info);

	set_text(o, "name", name);
	set_text(o, "state", "dead");
	set_text(o, "format", record ? get_text(record, "format") : "-");
	set_text(o, "image", record ? get_text(record, "image") : "-");
	dev = json_object_new_object();
	json_object_object_add(dev, "exists", json_object_new_boolean(exists));
	if (exists)
		json_object_object_add(dev, "open_count",
				       json_object_new_int(info.open_count));
	json_object_object_add(o, "device", dev);
	json_object_put(record);
	return o;
}

/* The status of @name: 0, or say why not and return an exit status. */
static int get_status(const char *name, struct json_object **status)
{
	char path[PATH_MAX];
	int err = ask(name, "status\n", STATUS_S, status);

	if (!err)
		return EXIT_OK;
	if (!nobody_listens(err))
		return say(EXIT_FAILED, "%s: %s", name, err == -ETIMEDOUT ?
			   "its cowd did not answer within 10 s" : strerror(-err));
	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	if (access(path, F_OK))
		return say(EXIT_NO_DEVICE, "%s: no cowd serves a device of that name",
			   name);
	*status = dead_status(name);
	return EXIT_OK;
}

static int is_record(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > 5 && entry->d_name[0] != '.' &&
	       !strcmp(entry->d_name + len - 5, ".json");
}

/* Call @fn for each device of the run directory; the worst exit status. */
static int each_device(int (*fn)(const char *name, void *data), void *data)
{
	struct dirent **entries;
	int i, ret, worst = EXIT_OK, n = scandir(run_dir, &entries, is_record, alphasort);

	if (n < 0)
		return errno == ENOENT ? EXIT_OK :
		       say(EXIT_FAILED, "%s: %s", run_dir, strerror(errno));
	for (i = 0; i < n; i++) {
		entries[i]->d_name[strlen(entries[i]->d_name) - 5] = '\0';
		ret = fn(entries[i]->d_name, data);
		worst = ret > worst ? ret : worst;
		free(entries[i]);
	}
	free(entries);
	return worst;
}

/* ---- commands ----------------------------------------------------------- */

static int list_one(const char *name, void *data)
{
	struct json_object *status = NULL;
	int ret = get_status(name, &status);

	(void)data;
	if (ret == EXIT_OK)
		printf("%-20s %-9s %-8s %s\n", name, get_text(status, "state"),
		       get_text(status, "format"), get_text(status, "image"));
	json_object_put(status);
	return ret;
}

static void print_numbers(const char *title, struct json_object *o,
			  const char *const *keys)
{
	printf("  %-8s", title);
	for (; *keys; keys++)
		printf(" %s %" PRIu64, *keys, get_number(o, *keys));
	putchar('\n');
}

static void print_status(struct json_object *status)
{
	static const char *const io[] = { "hits_read", "hits_write", "faults",
		"events", "waiting", NULL };
	static const char *const cow[] = { "copies", "copy_errors", "overwrites",
		"uncommitted", "commits", "discards", NULL };
	static const char *const map[] = { "extents", "map_bytes", "map_budget",
		"evictions", NULL };
	static const char *const daemon[] = { "map", "copied", "flush",
		"refused", "failed", "in_flight", "table_reads", "table_writes",
		NULL };
	struct json_object *device = get(status, "device");
	struct json_object *kernel = get(status, "kernel");

	printf("%s: %s\n", get_text(status, "name"), get_text(status, "state"));
	printf("  image    %s (%s)\n", get_text(status, "image"),
	       get_text(status, "format"));
	if (json_object_get_boolean(get(device, "exists")))
		printf("  device   open count %" PRIu64 "\n",
		       get_number(device, "open_count"));
	else
		printf("  device   there is none\n");
	if (kernel) {
		printf("  kernel   daemon %s, policy %s%s\n",
		       json_object_get_boolean(get(kernel, "attached")) ?
		       "attached" : "not attached", get_text(kernel, "policy"),
		       json_object_get_boolean(get(kernel, "failed")) ?
		       ", FAILED" : "");
		print_numbers("io", kernel, io);
		print_numbers("cow", kernel, cow);
		print_numbers("map", kernel, map);
	}
	if (get(status, "daemon")) {
		print_numbers("daemon", get(status, "daemon"), daemon);
		printf("  commit   last one: %s\n",
		       get_text(get(status, "daemon"), "last_commit"));
	}
}

/* @data: an array to add to, or NULL to print. */
static int status_one(const char *name, void *data)
{
	struct json_object *status = NULL;
	int ret = get_status(name, &status);

	if (ret != EXIT_OK)
		return ret;
	if (data) {
		json_object_array_add(data, status);
		return EXIT_OK;
	}
	print_status(status);
	json_object_put(status);
	return EXIT_OK;
}

static int command_status(const char *name, bool json)
{
	struct json_object *array = json ? json_object_new_array() : NULL;
	int ret = name ? status_one(name, array) :
			 each_device(status_one, array);

	if (json && (ret == EXIT_OK || !name))
		puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY |
						    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(array);
	return ret;
}

static int command_stop(const char *name)
{
	struct json_object *answer = NULL, *status = NULL;
	int ret, err = ask(name, "stop\n", STOP_S, &answer);

	if (nobody_listens(err)) {
		ret = get_status(name, &status);
		json_object_put(status);
		return ret ? ret : say(EXIT_FAILED, "%s: its cowd died; cowd --recover %s starts it again",
				       name, name);
	}
	if (err)
		return say(EXIT_FAILED, "%s: %s", name, err == -ETIMEDOUT ?
			   "its cowd did not answer within 150 s" : strerror(-err));
	ret = json_object_get_boolean(get(answer, "stopped")) ? EXIT_OK :
	      say(EXIT_FAILED, "%s", get_text(answer, "error"));
	json_object_put(answer);
	return ret;
}

static int run_command(int argc, char **argv, bool json)
{
	if (argc < 1)
		return say(EXIT_USAGE, "a command is wanted: list, status or stop; see cowctl --help");
	if (argc > 1 && !cowd_name_valid(argv[1]))
		return say(EXIT_USAGE, "%s: not a name of a device", argv[1]);
	if (!strcmp(argv[0], "list") && argc == 1)
		return each_device(list_one, NULL);
	if (!strcmp(argv[0], "status") && argc <= 2)
		return command_status(argc == 2 ? argv[1] : NULL, json);
	if (!strcmp(argv[0], "stop") && argc == 2)
		return command_stop(argv[1]);
	return say(EXIT_USAGE, "%s: not a command, or wrong arguments; see cowctl --help",
		   argv[0]);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "json",	no_argument,		NULL, 'j' },
		{ "run-dir",	required_argument,	NULL, 'd' },
		{ "help",	no_argument,		NULL, 'h' },
		{ "version",	no_argument,		NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "jhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'd':
			run_dir = optarg;
			break;
		case 'h':
			fputs(help_text, stdout);
			return EXIT_OK;
		case 'V':
			printf("cowctl (dm-userspace) %s\n", PACKAGE_VERSION);
			return EXIT_OK;
		default:
			return EXIT_USAGE;
		}
	}
	return run_command(argc - optind, argv + optind, json);
}
