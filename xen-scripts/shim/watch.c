// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For toolstacks that run no script: disks are added when they appear in xenstore
 * and removed when they vanish from it, each by a process of its own, so that a
 * slow one keeps no other waiting.
 *
 * What must hold: of one disk, one such process runs at a time; nobody waits for it.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>
#include <xenstore.h>

#include "paths.h"
#include "watch.h"
#include "words.h"

#define BASE	"backend/vbd"	/* of the domain that we are in */
#define GONE_MS	10000	/* until the loss of xenstore is noticed, at most */

struct slot {
	struct slot *next;
	unsigned int domain, device;
	bool present;
	bool to_remove, to_add;	/* when nothing runs; removed first */
	pid_t pid;		/* adds or removes it; 0: none */
};

static struct slot *slots;
static struct xs_handle *xs;

/* ---- processes ----------------------------------------------------------- */

/* The same program, as Xen's toolstack would call it. */
static void start(struct slot *slot, const char *what)
{
	char program[] = "block-dmu-shim";
	char *const argv[] = { program, (char *)what, NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	char path[64];
	int err;

	snprintf(path, sizeof(path), BASE "/%u/%u", slot->domain, slot->device);
	setenv("XENBUS_PATH", path, 1);
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	err = posix_spawn(&slot->pid, "/proc/self/exe", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	if (!err)
		return;
	slot->pid = 0;
	syslog(LOG_ERR, "%s: cannot be %s: %s", path, what, strerror(err));
}

/* Waits for nobody: what runs may take minutes. */
static void start_next(struct slot *slot)
{
	if (slot->pid)
		return;
	if (slot->to_remove) {
		slot->to_remove = false;
		start(slot, "remove");
	} else if (slot->to_add) {
		slot->to_add = false;
		start(slot, "add");
	}
}

static void free_idle_slots(void)
{
	struct slot **at = &slots, *slot;

	while ((slot = *at)) {
		if (slot->present || slot->pid || slot->to_remove) {
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		free(slot);
	}
}

/* ---- disks --------------------------------------------------------------- */

/*
 * 0; *@value is NULL where there is no such node.  A negative errno: xenstore did not
 * say, and from that nothing follows.
 */
static int read_node(unsigned int domain, unsigned int device, const char *key,
		     char **value)
{
	char path[128];
	unsigned int len;

	snprintf(path, sizeof(path), BASE "/%u/%u/%s", domain, device, key);
	errno = 0;
	*value = xs_read(xs, XBT_NULL, path, &len);
	if (*value || errno == ENOENT)
		return 0;
	syslog(LOG_ERR, "%s: cannot be read from xenstore: %s", path, strerror(errno));
	return errno ? -errno : -EIO;
}

static bool is_ours(const char *script)
{
	const char *name = strrchr(script, '/');

	name = name ? name + 1 : script;
	return !strcmp(name, "block-dmu") || !strcmp(name, "block-dmu-shim");
}

static struct slot *find(unsigned int domain, unsigned int device)
{
	struct slot *slot;

	for (slot = slots; slot; slot = slot->next)
		if (slot->domain == domain && slot->device == device)
			return slot;
	return NULL;
}

static struct slot *make_slot(unsigned int domain, unsigned int device)
{
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		abort();
	slot->domain = domain;
	slot->device = device;
	slot->next = slots;
	slots = slot;
	return slot;
}

/* Who adds or refuses a disk leaves this in its backend; so does another than we. */
static bool has_status(unsigned int domain, unsigned int device)
{
	char *status;
	bool has = read_node(domain, device, "hotplug-status", &status) || status;

	free(status);
	return has;
}

static void is_there(struct slot *slot)
{
	bool idle = !slot->pid && !slot->to_add && !slot->to_remove;

	if (slot->present && !idle)
		return;
	if (has_status(slot->domain, slot->device)) {
		slot->present = true;
		return;
	}
	/* Deleted and made again before we looked: what is served is another's. */
	slot->to_remove |= slot->present;
	slot->to_add = true;
	slot->present = true;
}

static void is_gone(struct slot *slot)
{
	if (slot->present)
		slot->to_remove = true;
	slot->present = false;
	slot->to_add = false;
}

/* What xenstore says of a disk now. */
static void consider(unsigned int domain, unsigned int device)
{
	struct slot *slot = find(domain, device);
	char *script;

	if (read_node(domain, device, "script", &script))
		return;
	if (script && is_ours(script))
		is_there(slot ? slot : (slot = make_slot(domain, device)));
	else if (!script && slot)
		is_gone(slot);
	if (slot)
		start_next(slot);
	free(script);
}

/* What was said of a disk while its process ran is looked at now. */
static void reap(void)
{
	struct slot *slot;

	for (slot = slots; slot; slot = slot->next) {
		if (!slot->pid || waitpid(slot->pid, NULL, WNOHANG) != slot->pid)
			continue;
		slot->pid = 0;
		start_next(slot);
		if (!slot->pid)
			consider(slot->domain, slot->device);
	}
}

/* Devices of disks that vanished while nobody watched. */
static void remove_stale(void)
{
	DIR *dir = opendir(RECORDS);
	unsigned int domain, device;
	struct dirent *entry;
	struct slot *slot;
	char rest[6];

	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "xen-%u-%u%5s", &domain, &device, rest) != 3 ||
		    strcmp(rest, ".json") || find(domain, device))
			continue;
		slot = make_slot(domain, device);
		slot->present = true;	/* until it is looked at */
		consider(domain, device);
	}
	if (dir)
		closedir(dir);
}

/* The disks of one domain, those that we serve and those that xenstore has. */
static void consider_domain(unsigned int domain)
{
	unsigned int count = 0, i;
	char **device, path[64];
	struct slot *slot;

	for (slot = slots; slot; slot = slot->next)
		if (slot->domain == domain)
			consider(domain, slot->device);
	snprintf(path, sizeof(path), BASE "/%u", domain);
	device = xs_directory(xs, XBT_NULL, path, &count);
	for (i = 0; device && i < count; i++)
		consider(domain, (unsigned int)atoi(device[i]));
	free(device);
}

static void consider_all(void)
{
	unsigned int count = 0, i;
	struct slot *slot;
	char **domain;

	for (slot = slots; slot; slot = slot->next)
		consider(slot->domain, slot->device);
	domain = xs_directory(xs, XBT_NULL, BASE, &count);
	for (i = 0; domain && i < count; i++)
		consider_domain((unsigned int)atoi(domain[i]));
	free(domain);
}

/* What is looked at does not grow with what else there is: hosts have hundreds of guests. */
static void event(const char *path)
{
	unsigned int domain, device;

	switch (sscanf(path, BASE "/%u/%u", &domain, &device)) {
	case 2:
		consider(domain, device);
		break;
	case 1:
		consider_domain(domain);
		break;
	default:
		consider_all();
	}
}

/* All that xenstore has to say now: 0, or a negative errno when it is lost. */
static int events(void)
{
	char **said;

	while ((said = xs_check_watch(xs))) {
		event(said[XS_WATCH_PATH]);
		free(said);
	}
	return errno == EAGAIN ? 0 : -errno;
}

static int children_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int watch(void)
{
	struct signalfd_siginfo info;
	struct pollfd pfd[2];
	int err = 0;

	/* Before libxenstore has a thread that would take the signal. */
	pfd[1] = (struct pollfd){ .fd = children_fd(), .events = POLLIN };
	xs = xs_open(0);
	if (pfd[1].fd < 0 || !xs || !xs_watch(xs, BASE, "disks")) {
		fprintf(stderr, "block-dmu-shim: xenstore cannot be watched: %s\n",
			strerror(errno));
		return 1;
	}
	pfd[0] = (struct pollfd){ .fd = xs_fileno(xs), .events = POLLIN };
	consider_all();
	remove_stale();
	for (;;) {
		err = events();
		if (err)
			break;
		while (read(pfd[1].fd, &info, sizeof(info)) > 0)
			;
		reap();
		free_idle_slots();
		/* libxenstore's descriptor does not tell that xenstored is gone. */
		poll(pfd, 2, GONE_MS);
	}
	fprintf(stderr, "block-dmu-shim: xenstore is gone: %s\n", strerror(-err));
	return 1;
}
