// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For toolstacks that run no script: disks are added when they appear in xenstore
 * and removed when they vanish from it, each by a process of its own, so that a
 * slow one keeps no other waiting.
 *
 * What must hold: of one disk, one such process runs at a time.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>
#include <xenstore.h>

#include "watch.h"
#include "words.h"

#define BASE	"backend/vbd"	/* of the domain that we are in */

struct slot {
	struct slot *next;
	unsigned int domain, device;
	bool present;
	pid_t pid;		/* adds or removes it; 0: none */
};

static struct slot *slots;
static struct xs_handle *xs;

/* ---- processes ----------------------------------------------------------- */

static void finish(struct slot *slot)
{
	while (slot->pid && waitpid(slot->pid, NULL, 0) < 0 && errno == EINTR)
		;
	slot->pid = 0;
}

/* The same program, as Xen's toolstack would call it. */
static void start(struct slot *slot, const char *what)
{
	char program[] = "block-dmu-shim";
	char *const argv[] = { program, (char *)what, NULL };
	char path[64];
	int err;

	finish(slot);
	snprintf(path, sizeof(path), BASE "/%u/%u", slot->domain, slot->device);
	setenv("XENBUS_PATH", path, 1);
	err = posix_spawn(&slot->pid, "/proc/self/exe", NULL, NULL, argv, environ);
	if (!err)
		return;
	slot->pid = 0;
	syslog(LOG_ERR, "%s: cannot be %s: %s", path, what, strerror(err));
}

static void reap(void)
{
	struct slot **at = &slots, *slot;

	while ((slot = *at)) {
		if (slot->pid && waitpid(slot->pid, NULL, WNOHANG) == slot->pid)
			slot->pid = 0;
		if (slot->present || slot->pid) {
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		free(slot);
	}
}

/* ---- disks --------------------------------------------------------------- */

static char *read_node(unsigned int domain, unsigned int device, const char *key)
{
	char path[128];
	unsigned int len;

	snprintf(path, sizeof(path), BASE "/%u/%u/%s", domain, device, key);
	return xs_read(xs, XBT_NULL, path, &len);
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

static void appeared(struct slot *slot, unsigned int domain, unsigned int device)
{
	char *status = read_node(domain, device, "hotplug-status");

	if (!slot) {
		slot = calloc(1, sizeof(*slot));
		if (!slot)
			abort();
		slot->domain = domain;
		slot->device = device;
		slot->next = slots;
		slots = slot;
	}
	slot->present = true;
	/* Another may have served it before, or refused. */
	if (!status)
		start(slot, "add");
	free(status);
}

/* What xenstore says of a disk now. */
static void consider(unsigned int domain, unsigned int device)
{
	char *script = read_node(domain, device, "script");
	struct slot *slot = find(domain, device);

	if (script && is_ours(script) && !(slot && slot->present))
		appeared(slot, domain, device);
	if (!script && slot && slot->present) {
		slot->present = false;
		start(slot, "remove");
	}
	free(script);
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
	reap();
}

int watch(void)
{
	char **said;
	unsigned int count;

	xs = xs_open(0);
	if (!xs || !xs_watch(xs, BASE, "disks")) {
		fprintf(stderr, "block-dmu-shim: xenstore cannot be watched: %s\n",
			strerror(errno));
		return 1;
	}
	while ((said = xs_read_watch(xs, &count))) {
		event(said[XS_WATCH_PATH]);
		free(said);
	}
	fprintf(stderr, "block-dmu-shim: xenstore is gone: %s\n", strerror(errno));
	return 1;
}
