// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The work of the script block-dmu, whose order and sentences these are, too:
 * test-script.sh holds both to the same.
 *
 * What must hold: a device and its nodes in xenstore change only under the lock
 * that the scripts of Xen take for it; whatever was done before, add and remove
 * can be done again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>
#include <xenstore.h>

#include <common/clock.h>

#include "disk.h"
#include "paths.h"
#include "target.h"
#include "words.h"

/*
 * Whatever is refused may be done a moment later, as when xen-blkback has let go;
 * the toolstack ends who takes 40 seconds.  Who waits for an answer is ended, what
 * cowd does for it goes on.
 */
#define ADD_S		25	/* cowctl status may take ten seconds more */
#define ADD_TRIES_S	20	/* of it; after that only what was begun goes on */
#define ADD_LEAST_S	3
#define LATER_S		180
#define END_OTHER_S	5
#define TRY_PAUSE_MS	500
#define REMOVE_S	20
#define STOP_S		10
#define REMOVE_PAUSE_MS	200
#define SENTENCE_MAX	2000	/* xenstore takes 4096 bytes with the path */

struct disk {
	struct xs_handle *xs;
	const char *path;	/* in xenstore */
	char *name;		/* of the device */
	const char *params, *mode;	/* as they were read; NULL: there are none */
	struct target target;
	bool read_only;
	bool made;		/* the image, by us */
	char *lock_path;
	int lock;
	int64_t began;		/* ms */
	unsigned int tries;	/* to start cowd */
};

enum state { NONE, DEAD, ALIVE, CHANGING };

/* Whole seconds since we began. */
static int age(const struct disk *d)
{
	return (int)((clock_now_ms() - d->began) / 1000);
}

/* ---- xenstore ------------------------------------------------------------ */

/* NULL: there is none. */
static char *node(const struct disk *d, const char *key)
{
	unsigned int len;

	return xs_read(d->xs, XBT_NULL, text("%s/%s", d->path, key), &len);
}

struct pair {
	const char *key, *value;
};

static bool is_as_read(const struct disk *d, xs_transaction_t t, const char *key,
		       const char *was)
{
	unsigned int len;
	char *now = xs_read(d->xs, t, text("%s/%s", d->path, key), &len);
	bool same = now && was ? !strcmp(now, was) : !now && !was;

	free(now);
	return same;
}

/*
 * A disk may vanish while we work for it, and even come again as another one: to
 * write then would make the folders of its backend anew, or be taken for the
 * other's.  So -ENOENT if it is not as it was read.
 */
static int try_to_write(const struct disk *d, xs_transaction_t t,
			const struct pair *pairs)
{
	errno = 0;
	if (!d->params || !is_as_read(d, t, "params", d->params) ||
	    !is_as_read(d, t, "mode", d->mode))
		return -ENOENT;
	for (; pairs->key; pairs++) {
		errno = 0;
		if (!xs_write(d->xs, t, text("%s/%s", d->path, pairs->key),
			      pairs->value, (unsigned int)strlen(pairs->value)))
			return errno ? -errno : -EIO;
	}
	return 0;
}

/* All of @pairs or none; the last has no key. */
static int set_nodes(const struct disk *d, const struct pair *pairs)
{
	xs_transaction_t t;
	int err;

	for (;;) {
		t = xs_transaction_start(d->xs);
		if (t == XBT_NULL)
			return errno ? -errno : -EIO;
		err = try_to_write(d, t, pairs);
		if (xs_transaction_end(d->xs, t, err) || err)
			return err;
		/* Somebody else wrote there meanwhile. */
		if (errno != EAGAIN)
			return errno ? -errno : -EIO;
	}
}

static int fatal(const struct disk *d, const char *sentence)
{
	const struct pair pairs[] = {
		{ "hotplug-error", text("%.*s", SENTENCE_MAX, sentence) },
		{ "hotplug-status", "error" },
		{ NULL, NULL },
	};

	set_nodes(d, pairs);
	syslog(LOG_ERR, "%s: %s", d->name, sentence);
	return -EIO;
}

/* ---- lock ---------------------------------------------------------------- */

static bool is_at_path(int fd, const char *path)
{
	struct stat here, there;

	return !fstat(fd, &here) && !stat(path, &there) &&
	       here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

/* Who has the lock may remove the file: so it counts only while it is at its path. */
static int lock(struct disk *d)
{
	int err;

	mkdir(LOCKS, 0755);
	d->lock_path = text("%s/block-dmu-%s", LOCKS, d->name);
	for (;;) {
		d->lock = open(d->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (d->lock < 0)
			return -errno;
		err = flock(d->lock, LOCK_EX) ? -errno : 0;
		if (!err && is_at_path(d->lock, d->lock_path))
			return 0;
		close(d->lock);
		d->lock = -1;
		if (err && err != -EINTR)
			return err;
	}
}

static void unlock(struct disk *d)
{
	if (d->lock < 0)
		return;
	unlink(d->lock_path);
	close(d->lock);
	d->lock = -1;
}

/* ---- the device ---------------------------------------------------------- */

/* "": there is none.  As all of this process' texts it lives as long. */
static const char *json_text(struct json_object *o, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, key, &value))
		return "";
	return json_object_get_string(value);
}

/* Who serves @d; *@served is what is said of it. */
static enum state look(const struct disk *d, struct json_object **served)
{
	struct words status = { { "cowctl", "status", "--json", d->name, NULL },
				4, false };
	struct json_object *array;
	char said[SAID_MAX];
	const char *state;

	*served = NULL;
	if (run(&status, RUN_STDOUT, said))
		return NONE;
	array = json_tokener_parse(said);
	if (!json_object_is_type(array, json_type_array))
		return NONE;
	*served = json_object_array_get_idx(array, 0);
	state = json_text(*served, "state");
	if (!*state)
		return NONE;
	if (!strcmp(state, "dead"))
		return DEAD;
	return !strcmp(state, "running") || !strcmp(state, "upgrading") ?
	       ALIVE : CHANGING;
}

/*
 * One that ends has the name for a moment longer: to take its device would be to
 * lose it.  CHANGING: it goes on and on.
 */
static enum state look_until_settled(const struct disk *d, struct json_object **served)
{
	enum state state;

	while ((state = look(d, served)) == CHANGING && age(d) < ADD_TRIES_S)
		clock_sleep_ms(REMOVE_PAUSE_MS);
	return state;
}

static bool same_file(const char *a, const char *b)
{
	struct stat of_a, of_b;

	if (!strcmp(a, b))
		return true;
	return !stat(a, &of_a) && !stat(b, &of_b) &&
	       of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/*
 * A device that could not be removed, because somebody used it, goes on with the
 * image of then; a disk of the same name must not get that.
 */
static int check_served(const struct disk *d, struct json_object *served)
{
	const char *image = json_text(served, "image");
	const char *format = json_text(served, "format");
	struct json_object *device, *value;
	bool read_only = json_object_object_get_ex(served, "device", &device) &&
			 json_object_object_get_ex(device, "read_only", &value) &&
			 json_object_get_boolean(value);

	if (same_file(image, d->target.image) &&
	    !strcmp(format, d->target.format) && read_only == d->read_only)
		return 0;
	return fatal(d, text("%s still serves %s:%s (%s) and not %s:%s (%s); once nobody uses it, cowctl stop %s ends that",
			     d->name, format, image, read_only ? "r" : "w",
			     d->target.format, d->target.image,
			     d->read_only ? "r" : "w", d->name));
}

/* What @command said, or what became of it if it said nothing. */
static const char *reason(const struct words *command, const char *said, int ret)
{
	if (said[0])
		return said;
	if (ret < 0)
		return text("%s cannot be run: %s", command->word[0], strerror(-ret));
	return text("%s ended with status %d", command->word[0], ret);
}

/* Another may make it at the same time: it appears when it is whole. */
static int make_image(struct disk *d)
{
	struct words command;
	char said[SAID_MAX];
	int ret;

	if (!access(d->target.image, F_OK))
		return 0;
	if (target_make_command(&d->target, &command))
		return fatal(d, d->target.error);
	ret = run(&command, RUN_STDERR, said);
	d->made = !ret;
	if (!access(d->target.image, F_OK))
		return 0;
	return fatal(d, reason(&command, said, ret));
}

/* Removes a file unless somebody has it: who serves it or reads it has locked it. */
static void unlink_unlocked(const char *path)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	if (!fcntl(fd, F_OFD_SETLK, &all))
		unlink(path);
	close(fd);
}

/*
 * An image that was made for nothing.  Another disk may have it meanwhile, and its
 * cowd may have died, which is what cowd says then; and with options of the format it
 * may consist of more files.
 */
static void unmake_image(const struct disk *d, const char *said)
{
	unsigned int i;

	if (!d->made || strstr(said, "in use"))
		return;
	for (i = 0; i < d->target.create.count; i += 2)
		if (!strcmp(d->target.create.word[i], "-o"))
			return;
	unlink_unlocked(d->target.image);
}

/* What @image says that it is an overlay over, as @said by cowimg; NULL: over nothing. */
static const char *backing_of(const char *image, const char *said)
{
	struct json_object *info = json_tokener_parse(said);
	const char *below = json_text(info, "backing-filename");
	char *folder;

	if (!*below)
		return NULL;
	if (below[0] == '/')
		return below;
	folder = dirname(text("%s", image));
	return text("%s/%s", folder, below);
}

/* What the image says of its base must be what the disk's line says. */
static int check_base(struct disk *d)
{
	struct words info = { { "cowimg", "info", "--json", "-f",
				d->target.format, NULL }, 5, false };
	const char *below;
	char said[SAID_MAX];
	int ret;

	if (!d->target.base)
		return 0;
	words_add_all(&info, &d->target.open);
	words_add(&info, d->target.image);
	if (info.too_many)
		return fatal(d, text("target=%s: has too many options", d->target.text));
	if (run(&info, RUN_STDOUT, said)) {
		ret = run(&info, RUN_STDERR, said);
		return fatal(d, reason(&info, said, ret));
	}
	below = backing_of(d->target.image, said);
	if (!below)
		return fatal(d, text("%s has no base, but the disk's line names %s; correct the disk's line",
				     d->target.image, d->target.base));
	if (same_file(below, d->target.base))
		return 0;
	return fatal(d, text("%s is an overlay over %s and not over %s; correct the disk's line",
			     d->target.image, below, d->target.base));
}

/* The same path without ".." and what else systemd refuses, as realpath -sm has it. */
static char *plain_path(const char *path)
{
	char *rest = text("%s", path), *out = text("%s/", path), *part, *slash;

	*out = '\0';
	while ((part = strsep(&rest, "/"))) {
		if (!*part || !strcmp(part, "."))
			continue;
		if (strcmp(part, "..")) {
			out = text("%s/%s", out, part);
			continue;
		}
		slash = strrchr(out, '/');
		if (slash)
			*slash = '\0';
	}
	return *out ? out : text("/");
}

/* As systemd reads a list of paths. */
static char *quoted(const char *given)
{
	const char *path = plain_path(given);
	char *out = calloc(1, 2 * strlen(path) + 3), *p = out;

	if (!out)
		abort();
	*p++ = '"';
	for (; *path; path++) {
		if (*path == '"' || *path == '\\')
			*p++ = '\\';
		*p++ = *path;
	}
	*p = '"';
	return out;
}

/*
 * Under systemd what outlives us gets a unit of its own: it ends after the
 * guests, and before the file systems of the images are unmounted and what their
 * volumes stand on is ended.
 */
static void add_unit(const struct disk *d, const char *unit, struct words *command)
{
	const struct words *needs = &d->target.paths;
	unsigned int i;
	char *paths;

	memset(command, 0, sizeof(*command));
	if (access(SYSTEMD, F_OK))
		return;
	words_add(command, "systemd-run");
	words_add(command, "--quiet");
	words_add(command, "--scope");
	words_add(command, "--collect");
	/* One of that name may be there still, though all of its processes ended. */
	words_add(command, text("--unit=%s-%d", unit, (int)getpid()));
	/* What cowd takes at most to write all and end. */
	words_add(command, "--property=TimeoutStopSec=180");
	words_add(command, "--property=Before=xendomains.service libvirt-guests.service");
	words_add(command, "--property=After=remote-fs.target blk-availability.service iscsid.service multipathd.service");
	paths = quoted(needs->word[0]);
	for (i = 1; i < needs->count; i++)
		paths = text("%s %s", paths, quoted(needs->word[i]));
	words_add(command, text("--property=RequiresMountsFor=%s", paths));
}

/* Is that the process of a cowctl keep NAME, by whatever path? */
static bool is_keeper(const char *pid, const char *name)
{
	char words[PATH_MAX], want[160];
	int fd = open(text("/proc/%s/cmdline", pid), O_RDONLY | O_CLOEXEC);
	int len = snprintf(want, sizeof(want), "cowctl%ckeep%c%s", 0, 0, name) + 1;
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, words, sizeof(words));
	close(fd);
	if (n < len || memcmp(words + n - len, want, (size_t)len))
		return false;
	return n == len || words[n - len - 1] == '/' || !words[n - len - 1];
}

static bool is_kept(const struct disk *d)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	bool kept = false;

	while (dir && !kept && (entry = readdir(dir)))
		kept = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
		       is_keeper(entry->d_name, d->name);
	if (dir)
		closedir(dir);
	return kept;
}

static void keep(const struct disk *d)
{
	static const struct words words = {
		{ "setsid", "-f", "cowctl", "keep", NULL }, 4, false };
	struct words command;

	if (is_kept(d))
		return;
	add_unit(d, text("cowd-%s-keep", d->name), &command);
	words_add_all(&command, &words);
	words_add(&command, d->name);
	if (run(&command, RUN_STDERR, NULL))
		syslog(LOG_ERR, "%s: cowctl keep did not start, so nobody restarts its cowd",
		       d->name);
}

/* Ends @name if it is the device of a disk that is gone. */
static bool end_other(const struct disk *d, const char *name)
{
	struct words stop = { { "cowctl", "stop", name, NULL }, 3, false };
	unsigned int domain, device, len;
	char said[SAID_MAX], rest[2];
	char *params;

	if (sscanf(name, "xen-%u-%u%1s", &domain, &device, rest) != 2 ||
	    !strcmp(name, d->name))
		return false;
	params = xs_read(d->xs, XBT_NULL,
			 text("%.*svbd/%u/%u/params", (int)(strstr(d->path, "vbd/") - d->path),
			      d->path, domain, device), &len);
	if (params || errno != ENOENT)
		return false;
	if (run_for(&stop, RUN_STDERR, said, END_OTHER_S) && said[0])
		syslog(LOG_INFO, "%s: %s", d->name, said);
	return true;
}

static bool end_all_others(const struct disk *d)
{
	DIR *dir = opendir(RECORDS);
	struct dirent *entry;
	bool ended = false;
	char *dot;

	while (dir && (entry = readdir(dir))) {
		dot = strrchr(entry->d_name, '.');
		if (dot && !strcmp(dot, ".json"))
			ended |= end_other(d, text("%.*s", (int)(dot - entry->d_name),
						   entry->d_name));
	}
	if (dir)
		closedir(dir);
	return ended;
}

/*
 * When a guest boots anew, the image of its disk is in use by the device of the
 * disk that is gone, or by its cowd, which is at its end; to remove that is the work
 * of another, who may have come too early for it.  False: there is none such.
 */
static bool end_others(const struct disk *d, const char *said)
{
	static const char in_use[] = "is in use by /dev/mapper/";
	const char *name = strstr(said, in_use);

	if (!name)
		return strstr(said, "by another program") && end_all_others(d);
	name += strlen(in_use);
	return end_other(d, text("%.*s", (int)strspn(name, "xen-0123456789"), name));
}

/* Of what add does not wait for: ended by another process when it has started. */
static void leave_to_later(const struct disk *d)
{
	char program[PATH_MAX] = "";
	struct words command;

	if (readlink("/proc/self/exe", program, sizeof(program) - 1) < 0)
		return;
	add_unit(d, text("cowd-%s-later", d->name), &command);
	words_add(&command, "setsid");
	words_add(&command, "-f");
	words_add(&command, program);
	words_add(&command, "remove");
	setenv("DMU_LATER", "yes", 1);
	run(&command, RUN_STDERR, NULL);
}

/* One try: 0 it serves, else what run_for() returns. */
static int try_cowd(struct disk *d, const struct words *cowd, char *said,
		    struct json_object **served)
{
	int left = ADD_S - age(d), err;
	struct words command;

	add_unit(d, text("cowd-%s-%u", d->name, ++d->tries), &command);
	words_add_all(&command, cowd);
	if (command.too_many) {
		snprintf(said, SAID_MAX, "target=%s: has too many options", d->target.text);
		return -E2BIG;
	}
	err = run_for(&command, RUN_STDERR, said, left < ADD_LEAST_S ? ADD_LEAST_S : left);
	if (look(d, served) == ALIVE)
		return 0;
	if (!said[0])
		snprintf(said, SAID_MAX, "%s", reason(&command, said, err));
	return err ? err : -EIO;
}

static int start(struct disk *d, struct json_object **served)
{
	char said[SAID_MAX];
	struct words cowd;
	int err;

	target_cowd_command(&d->target, d->name, d->read_only, &cowd);
	for (;;) {
		err = try_cowd(d, &cowd, said, served);
		if (!err)
			return 0;
		if (age(d) >= ADD_TRIES_S || !end_others(d, said))
			break;
		clock_sleep_ms(TRY_PAUSE_MS);
	}
	if (err == -ETIMEDOUT) {
		leave_to_later(d);
		return fatal(d, text("%s is still starting; try again later", d->name));
	}
	unmake_image(d, said);
	return fatal(d, said);
}

static int serve(struct disk *d)
{
	struct json_object *served;
	enum state state = look_until_settled(d, &served);
	int err = 0;

	if (state == CHANGING)
		return fatal(d, text("%s is still %s; try again later", d->name,
				     json_text(served, "state")));
	if (state != ALIVE) {
		err = make_image(d);
		if (!err && !d->made)
			err = check_base(d);
		if (!err)
			err = start(d, &served);
	}
	if (!err)
		err = check_served(d, served);
	if (!err)
		keep(d);
	return err;
}

/* ---- what is asked for --------------------------------------------------- */

/* One try, under the lock.  0, also when there is no such device. */
static int try_stop(const struct disk *d, const char **why)
{
	struct words command = { { "cowctl", "stop", d->name, NULL }, 3, false };
	char said[SAID_MAX];
	int status = run_for(&command, RUN_STDERR, said, STOP_S);

	if (!status || status == 3)
		return 0;
	if (status == -ETIMEDOUT)
		*why = text("cowctl stop did not end within %d s", STOP_S);
	else
		*why = text("%s", reason(&command, said, status));
	return status;
}

/* Under the lock. */
static void stop(const struct disk *d)
{
	int64_t end = clock_now_ms() + REMOVE_S * 1000;
	const char *why;

	while (try_stop(d, &why)) {
		if (clock_now_ms() >= end) {
			syslog(LOG_ERR, "%s: %s", d->name, why);
			return;
		}
		clock_sleep_ms(REMOVE_PAUSE_MS);
	}
}

static int set_device(const struct disk *d, const char *device, dev_t number)
{
	const struct pair pairs[] = {
		{ "node", device },
		{ "physical-device", text("%x:%x", major(number), minor(number)) },
		{ "physical-device-path", device },
		{ "hotplug-status", "connected" },
		{ NULL, NULL },
	};

	return set_nodes(d, pairs);
}

static int connect_nodes(struct disk *d)
{
	char *device = text("%s%s", DEVICES, d->name);
	struct stat st;
	int err;

	if (stat(device, &st))
		return fatal(d, text("%s: %s", device, strerror(errno)));
	err = set_device(d, device, st.st_rdev);
	if (err == -ENOENT) {
		syslog(LOG_INFO, "%s: its disk is gone or another one by now, so it is not served",
		       d->name);
		stop(d);
	} else if (err) {
		return fatal(d, text("%s: cannot be written to xenstore: %s",
				     d->path, strerror(-err)));
	}
	return err;
}

/* One name for one disk of one domain, so that remove needs to know nothing else. */
static int disk_init(struct disk *d, struct xs_handle *xs, const char *path)
{
	const char *from = strstr(path, "vbd/");
	char *p;

	memset(d, 0, sizeof(*d));
	d->xs = xs;
	d->path = path;
	d->lock = -1;
	d->began = clock_now_ms();
	d->name = text("xen-%s", from ? from + 4 : "");
	for (p = d->name; *p; p++)
		if (*p == '/')
			*p = '-';
	return from ? 0 : -EINVAL;
}

int disk_add(struct xs_handle *xs, const char *path)
{
	struct disk d;
	int err;

	err = disk_init(&d, xs, path);
	d.params = node(&d, "params");
	d.mode = node(&d, "mode");
	if (err)
		return fatal(&d, text("%s: is no path of a disk", path));
	d.read_only = !d.mode || !strchr(d.mode, 'w');
	if (target_parse(&d.target, d.params ? d.params : ""))
		return fatal(&d, d.target.error);
	err = lock(&d);
	if (err)
		return fatal(&d, text("%s: %s", d.lock_path, strerror(-err)));
	err = serve(&d);
	if (!err)
		err = connect_nodes(&d);
	unlock(&d);
	return err;
}

static bool is_connected(const struct disk *d)
{
	char *status = node(d, "hotplug-status");

	return status && !strcmp(status, "connected");
}

/*
 * Of what add could not wait for: when cowd has started it ends, unless the same disk
 * was added again, which comes between two tries.
 */
static int remove_later(struct disk *d)
{
	const char *why = NULL;
	int err = -EAGAIN;

	while (err && age(d) < LATER_S) {
		sleep(1);
		err = lock(d);
		if (err)
			return err;
		if (!is_connected(d))
			err = try_stop(d, &why);
		unlock(d);
	}
	if (err)
		syslog(LOG_ERR, "%s: %s", d->name, why);
	return 0;
}

int disk_remove(struct xs_handle *xs, const char *path)
{
	struct disk d;
	int err;

	err = disk_init(&d, xs, path);
	if (!err && getenv("DMU_LATER"))
		return remove_later(&d);
	if (!err)
		err = lock(&d);
	if (err)
		return err;
	stop(&d);
	unlock(&d);
	return 0;
}
