// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The work of the script block-dmu, whose order and sentences these are, too:
 * test-script.sh holds both to the same.
 *
 * What must hold: a device and its nodes in xenstore change only under the lock
 * that the scripts of Xen take for it; whatever was done before, add and remove
 * can be done again.
 */
#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include <xenstore.h>

#include "disk.h"
#include "paths.h"
#include "target.h"
#include "words.h"

/*
 * Whatever is refused may be done a moment later, as when xen-blkback has let go;
 * the toolstack ends who takes 40 seconds.  Who waits for an answer is ended, what
 * cowd does for it goes on.
 */
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
};

enum state { NONE, DEAD, ALIVE };

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
	return strcmp(state, "dead") ? ALIVE : DEAD;
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

/* As systemd reads a list of paths. */
static char *quoted(const char *path)
{
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
	words_add(command, text("--unit=%s", unit));
	words_add(command, "--property=Before=xendomains.service libvirt-guests.service");
	words_add(command, "--property=After=remote-fs.target blk-availability.service iscsid.service multipathd.service");
	paths = quoted(needs->word[0]);
	for (i = 1; i < needs->count; i++)
		paths = text("%s %s", paths, quoted(needs->word[i]));
	words_add(command, text("--property=RequiresMountsFor=%s", paths));
}

static void keep(const struct disk *d)
{
	static const struct words words = {
		{ "setsid", "-f", "cowctl", "keep", NULL }, 4, false };
	struct words command;

	add_unit(d, text("cowd-%s-keep", d->name), &command);
	words_add_all(&command, &words);
	words_add(&command, d->name);
	if (run(&command, RUN_STDERR, NULL))
		syslog(LOG_ERR, "%s: cowctl keep did not start, so nobody restarts its cowd",
		       d->name);
}

static int serve(struct disk *d)
{
	struct json_object *served;
	struct words command, cowd;
	char said[SAID_MAX];
	int err;

	if (look(d, &served) == ALIVE)
		return check_served(d, served);
	err = make_image(d);
	if (!err && !d->made)
		err = check_base(d);
	if (err)
		return err;
	add_unit(d, text("cowd-%s", d->name), &command);
	target_cowd_command(&d->target, d->name, d->read_only, &cowd);
	words_add_all(&command, &cowd);
	if (command.too_many)
		return fatal(d, text("target=%s: has too many options", d->target.text));
	err = run(&command, RUN_STDERR, said);
	if (look(d, &served) != ALIVE) {
		unmake_image(d, said);
		return fatal(d, reason(&command, said, err));
	}
	err = check_served(d, served);
	if (err)
		return err;
	keep(d);
	return 0;
}

/* ---- what is asked for --------------------------------------------------- */

static time_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* Under the lock. */
static void stop(const struct disk *d)
{
	struct words command = { { "cowctl", "stop", d->name, NULL }, 3, false };
	const struct timespec pause = { 0, REMOVE_PAUSE_MS * 1000000L };
	time_t end = seconds() + REMOVE_S;
	char said[SAID_MAX];
	int status;

	for (;;) {
		status = run_for(&command, RUN_STDERR, said, STOP_S);
		/* 3: there is no such device. */
		if (!status || status == 3 || seconds() >= end)
			break;
		nanosleep(&pause, NULL);
	}
	if (status == -ETIMEDOUT)
		syslog(LOG_ERR, "%s: cowctl stop did not end within %d s", d->name, STOP_S);
	else if (status && status != 3)
		syslog(LOG_ERR, "%s: %s", d->name, reason(&command, said, status));
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

int disk_remove(struct xs_handle *xs, const char *path)
{
	struct disk d;
	int err;

	err = disk_init(&d, xs, path);
	if (!err)
		err = lock(&d);
	if (err)
		return err;
	stop(&d);
	unlock(&d);
	return 0;
}
