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
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <dmu.h>
#include <common/clock.h>

#include "cowctl.h"
#include "options.h"

#define STATUS_S	10
#define STOP_S		150	/* cowd gives up before that, and says why */
#define END_S		10	/* from its answer to the end of its process */
#define UPGRADE_S	150	/* 10 s to try it, 120 s to start */
#define DEAD_S		15	/* between two programs there may be none */
#define ANSWER_MAX	(1 << 20)

const char *run_dir = COWD_RUN_DIR_DEFAULT;

static const char help_text[] =
"Usage: cowctl [--run-dir DIR] list\n"
"       cowctl [--run-dir DIR] status [--json] [NAME]\n"
"       cowctl [--run-dir DIR] stop [--force] NAME\n"
"       cowctl [--run-dir DIR] upgrade NAME\n"
"       cowctl [--run-dir DIR] keep NAME\n"
"       cowctl [--run-dir DIR] grow NAME\n"
"\n"
"  list              devices, and whether their cowd lives\n"
"  status            what cowd and the kernel say of one device, or of all\n"
"  stop              commit, remove the device and end its cowd; if somebody\n"
"                    uses the device, say so and change nothing; of a cowd that\n"
"                    died, remove what it left\n"
"  upgrade           have the cowd that is installed now take over, without a pause\n"
"                    of what the kernel remembers\n"
"  keep              stay, and serve the device again whenever its cowd dies, until\n"
"                    it is gone\n"
"  grow              give the device the size that its image has grown to\n"
"\n"
"  -f, --force       stop, when cowd died: do not serve the image again for what is\n"
"                    not committed, but drop it; try stop without it first\n"
"  -j, --json        status as JSON, an array of objects\n"
"      --run-dir DIR where cowd keeps its records (default " COWD_RUN_DIR_DEFAULT ")\n"
"  -h, --help        print this help\n"
"  -V, --version     print the version\n"
"\n"
"Exit status: 0 done, 1 it failed (one sentence says why), 2 wrong usage,\n"
"3 there is no such device.\n";

const char *root_hint(int err)
{
	return err == -EACCES || err == -EPERM ? "; this needs root" : "";
}

int say(int status, const char *format, ...)
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

/* -ETIMEDOUT: too many wait already for one that takes nobody. */
static int connect_to(const char *name, int seconds)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = seconds };
	int fd, err;

	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path),
			     "%s/%s.sock", run_dir, name) >=
	    sizeof(address.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* For connect() as well, which waits while the listener's queue is full. */
	if (!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) &&
	    !connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

/* All that comes until the other side closes; -ETIMEDOUT. */
static int receive(int fd, int seconds, char *buf, size_t size)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int64_t left, end = clock_now_ms() + seconds * 1000LL;
	size_t used = 0;
	ssize_t n;

	for (;;) {
		left = end - clock_now_ms();
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

/* What comes behind the JSON's line are sentences for the user. */
static void pass_on(const char *rest)
{
	if (rest && rest[1])
		fputs(rest + 1, stderr);
}

/* Send @command to the cowd behind @fd; *@answer is the caller's to put. */
static int ask_at(int fd, const char *command, int seconds,
		  struct json_object **answer)
{
	char *buf = malloc(ANSWER_MAX);
	int err = buf ? 0 : -ENOMEM;

	if (!err && send(fd, command, strlen(command), MSG_NOSIGNAL) < 0)
		err = -errno;
	if (!err)
		err = receive(fd, seconds, buf, ANSWER_MAX);
	if (!err) {
		*answer = json_tokener_parse(buf);
		err = *answer ? 0 : -EPROTO;
		pass_on(strchr(buf, '\n'));
	}
	free(buf);
	return err;
}

static int ask(const char *name, const char *command, int seconds,
	       struct json_object **answer)
{
	int err, fd = connect_to(name, seconds);

	if (fd < 0)
		return fd;
	err = ask_at(fd, command, seconds, answer);
	close(fd);
	return err;
}

/* As ask(); *@process is to be polled for the end of who answered. */
static int ask_process(const char *name, const char *command, int seconds,
		       struct json_object **answer, int *process)
{
	int err, fd = connect_to(name, seconds);
	struct ucred peer;
	socklen_t len = sizeof(peer);

	*process = -1;
	if (fd < 0)
		return fd;
	/* Before it is asked: it answers, so no other process has its number. */
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		*process = pidfd_open(peer.pid, 0);
	err = ask_at(fd, command, seconds, answer);
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

/* What can be said of a device whose cowd does not live: 0, or an exit status. */
static int dead_status(const char *name, struct json_object **status)
{
	struct json_object *o, *dev, *record;
	struct dmu_info info;
	int err = dmu_device_info(name, &info);

	/* Only -ENXIO says that there is none. */
	if (err && err != -ENXIO)
		return say(EXIT_FAILED, "%s: its cowd died, and device-mapper cannot be asked for it: %s%s",
			   name, strerror(-err), root_hint(err));
	record = read_record(name);
	o = json_object_new_object();
	set_text(o, "name", name);
	set_text(o, "state", "dead");
	set_text(o, "format", record ? get_text(record, "format") : "-");
	set_text(o, "image", record ? get_text(record, "image") : "-");
	dev = json_object_new_object();
	json_object_object_add(dev, "exists", json_object_new_boolean(!err));
	if (!err)
		json_object_object_add(dev, "open_count",
				       json_object_new_int(info.open_count));
	json_object_object_add(o, "device", dev);
	json_object_put(record);
	*status = o;
	return EXIT_OK;
}

/* The status of @name: 0, or say why not and return an exit status. */
static int get_status(const char *name, struct json_object **status)
{
	char path[PATH_MAX];
	int err = ask(name, "status\n", STATUS_S, status);

	if (!err)
		return EXIT_OK;
	if (!nobody_listens(err))
		return say(EXIT_FAILED, "%s: %s%s", name, err == -ETIMEDOUT ?
			   "its cowd did not answer within 10 s" : strerror(-err),
			   root_hint(err));
	snprintf(path, sizeof(path), "%s/%s.json", run_dir, name);
	if (access(path, F_OK))
		return say(EXIT_NO_DEVICE, "%s: no cowd serves a device of that name",
			   name);
	return dead_status(name, status);
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
	static const char *const io[] = { "hits_read", "hits_write", "file_ios",
		"file_misses", "faults", "events", "waiting", NULL };
	static const char *const cow[] = { "copies", "copy_errors", "overwrites",
		"uncommitted", "commits", "commit_errors", "discards",
		NULL };
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
		if (get_number(kernel, "no_space"))
			printf("  space    %" PRIu64 " writes wait for space under the image\n",
			       get_number(kernel, "no_space"));
		if (json_object_get_boolean(get(kernel, "data_lost")))
			printf("  flush    one failed, data may be lost: uncommitted blocks are not committed\n");
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

/* Nobody listens; what is left is removed, but nothing that was written. */
static int stop_dead(const char *name, bool force)
{
	bool recover;
	int ret = leftover_remove(name, force, &recover);

	if (!recover)
		return ret;
	ret = leftover_recover(name);
	if (ret)
		return say(EXIT_FAILED, "%s: its cowd died and there are blocks that are not committed; cowctl stop --force %s would drop them",
			   name, name);
	return EXIT_OK;
}

/* It has said that the device is gone: so is its process when this returns. */
static int wait_for_end(const char *name, int process)
{
	struct pollfd pfd = { .fd = process, .events = POLLIN };

	if (process < 0 || poll(&pfd, 1, END_S * 1000) > 0)
		return EXIT_OK;
	return say(EXIT_FAILED, "%s is gone; waited %d s for its cowd to end",
		   name, END_S);
}

static int stop_living(const char *name, bool *dead)
{
	struct json_object *answer = NULL;
	int ret, process;
	int err = ask_process(name, "stop\n", STOP_S, &answer, &process);

	*dead = nobody_listens(err);
	if (*dead)
		ret = EXIT_FAILED;
	else if (err)
		ret = say(EXIT_FAILED, "%s: %s%s", name, err == -ETIMEDOUT ?
			  "its cowd did not answer within 150 s" : strerror(-err),
			  root_hint(err));
	else if (json_object_get_boolean(get(answer, "stopped")))
		ret = wait_for_end(name, process);
	else
		ret = say(EXIT_FAILED, "%s", get_text(answer, "error"));
	if (process >= 0)
		close(process);
	json_object_put(answer);
	return ret;
}

static int command_stop(const char *name, bool force)
{
	bool dead;
	int ret = stop_living(name, &dead);

	if (!dead)
		return ret;
	ret = stop_dead(name, force);
	if (ret || force)
		return ret;
	ret = stop_living(name, &dead);	/* if it had to be served again */
	return dead ? EXIT_OK : ret;
}

/* ---- upgrade, grow ------------------------------------------------------ */

/* What was done, by the status before and the one now. */
typedef int say_done(const char *name, struct json_object *before,
		     struct json_object *now);

/* The status of @name now; NULL when nobody answers. */
static struct json_object *state_now(const char *name)
{
	struct json_object *status = NULL;

	return ask(name, "status\n", STATUS_S, &status) ? NULL : status;
}

static bool is_another(struct json_object *now, uint64_t worker)
{
	return now && get_number(now, "worker") != worker &&
	       !strcmp(get_text(now, "state"), "running");
}

/* Until another worker than @before's serves; NULL when none comes. */
static struct json_object *wait_for_another(const char *name,
					    struct json_object *before)
{
	uint64_t worker = get_number(before, "worker");
	int64_t end = clock_now_ms() + UPGRADE_S * 1000LL;
	int64_t seen = clock_now_ms();
	struct json_object *now;

	while (clock_now_ms() < end && clock_now_ms() < seen + DEAD_S * 1000LL) {
		now = state_now(name);
		if (now)
			seen = clock_now_ms();
		if (is_another(now, worker))
			return now;
		json_object_put(now);
		clock_sleep_ms(50);
	}
	return NULL;
}

static int say_upgraded(const char *name, struct json_object *before,
			struct json_object *now)
{
	printf("%s: cowd %s (process %" PRIu64 ", worker %" PRIu64 ") made way for %s (%" PRIu64 ", %" PRIu64 ")\n",
	       name, get_text(before, "version"), get_number(before, "pid"),
	       get_number(before, "worker"), get_text(now, "version"),
	       get_number(now, "pid"), get_number(now, "worker"));
	return EXIT_OK;
}

static uint64_t size_of(struct json_object *status)
{
	return get_number(get(status, "device"), "size");
}

static int say_grown(const char *name, struct json_object *before,
		     struct json_object *now)
{
	printf("%s: %" PRIu64 " bytes, before %" PRIu64 "\n", name,
	       size_of(now), size_of(before));
	return EXIT_OK;
}

/* What the new program had to say comes behind the JSON, and then the end. */
static int upgrade(const char *name, struct json_object *before,
		   say_done *done)
{
	struct json_object *answer = NULL, *now;
	int ret, err = ask(name, "upgrade\n", UPGRADE_S, &answer);

	if (err)
		return say(EXIT_FAILED, "%s: %s", name, err == -ETIMEDOUT ?
			   "not upgraded within 150 s" : strerror(-err));
	ret = json_object_get_boolean(get(answer, "upgrading")) ? EXIT_OK :
	      say(EXIT_FAILED, "%s: %s", name, get_text(answer, "error"));
	json_object_put(answer);
	if (ret)
		return ret;
	now = wait_for_another(name, before);
	if (!now)
		return say(EXIT_FAILED, "%s: the new cowd does not serve it, its log says why; it goes on with what the kernel remembers, and cowd --recover %s serves it again",
			   name, name);
	ret = done(name, before, now);
	json_object_put(now);
	return ret;
}

static int command_upgrade(const char *name, say_done *done)
{
	struct json_object *before = NULL;
	int ret = get_status(name, &before);

	if (ret == EXIT_OK && !strcmp(get_text(before, "state"), "dead"))
		ret = say(EXIT_FAILED, "%s: its cowd died; cowd --recover %s starts the one that is installed",
			  name, name);
	if (ret == EXIT_OK)
		ret = upgrade(name, before, done);
	json_object_put(before);
	return ret;
}

static bool wants_name(const char *command)
{
	return !strcmp(command, "stop") || !strcmp(command, "upgrade") ||
	       !strcmp(command, "keep") || !strcmp(command, "grow");
}

static int run_command(int argc, char **argv, bool json, bool force)
{
	if (argc < 1)
		return say(EXIT_USAGE, "a command is wanted: list, status, stop, upgrade, keep or grow; see cowctl --help");
	if (argc == 1 && wants_name(argv[0]))
		return say(EXIT_USAGE, "%s: the NAME of a device is wanted; cowctl list shows them",
			   argv[0]);
	if (argc > 1 && !cowd_name_valid(argv[1]))
		return say(EXIT_USAGE, "%s: not a name of a device", argv[1]);
	if (!strcmp(argv[0], "list") && argc == 1)
		return each_device(list_one, NULL);
	if (!strcmp(argv[0], "status") && argc <= 2)
		return command_status(argc == 2 ? argv[1] : NULL, json);
	if (!strcmp(argv[0], "stop") && argc == 2)
		return command_stop(argv[1], force);
	if (!strcmp(argv[0], "upgrade") && argc == 2)
		return command_upgrade(argv[1], say_upgraded);
	if (!strcmp(argv[0], "keep") && argc == 2)
		return keep(argv[1]);
	/* Who takes over opens the image anew, and makes the device as large. */
	if (!strcmp(argv[0], "grow") && argc == 2)
		return command_upgrade(argv[1], say_grown);
	return say(EXIT_USAGE, "%s: not a command, or wrong arguments; see cowctl --help",
		   argv[0]);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "json",	no_argument,		NULL, 'j' },
		{ "run-dir",	required_argument,	NULL, 'd' },
		{ "force",	no_argument,		NULL, 'f' },
		{ "help",	no_argument,		NULL, 'h' },
		{ "version",	no_argument,		NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false, force = false;
	int c;

	/* A sentence goes out as a whole, whoever else speaks. */
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
	while ((c = getopt_long(argc, argv, "jfhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'f':
			force = true;
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
	return run_command(argc - optind, argv + optind, json, force);
}
