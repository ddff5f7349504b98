// SPDX-License-Identifier: GPL-2.0-or-later
/* block-dmu without a shell; see block-dmu-shim(8). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>
#include <xenstore.h>

#include "disk.h"
#include "watch.h"
#include "words.h"

static const char help_text[] =
"Usage: block-dmu-shim add|remove\n"
"       block-dmu-shim watch\n"
"\n"
"Does what the script block-dmu does for a disk of a Xen guest, without a shell.\n"
"\n"
"  add, remove      the disk whose backend in xenstore is $XENBUS_PATH: as Xen's\n"
"                   toolstack calls it for script=block-dmu-shim\n"
"  watch            stay, and do that for all disks with script=block-dmu or\n"
"                   script=block-dmu-shim: for toolstacks that run no script\n"
"  -h, --help       show this help\n"
"\n"
"Exit status: 0 done, 1 it failed, 2 wrong usage.\n";

static int work(int (*what)(struct xs_handle *, const char *))
{
	const char *path = getenv("XENBUS_PATH");
	struct xs_handle *xs;
	int err;

	if (!path || !*path) {
		fputs("block-dmu-shim: XENBUS_PATH names no disk; Xen's toolstack does, see --help\n",
		      stderr);
		return 2;
	}
	xs = xs_open(0);
	if (!xs) {
		fprintf(stderr, "block-dmu-shim: xenstore does not answer: %s\n",
			strerror(errno));
		return 1;
	}
	err = what(xs, path);
	xs_close(xs);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *command = argc == 2 ? argv[1] : "";
	const char *path = getenv("PATH");

	openlog("block-dmu-shim", LOG_PID, LOG_DAEMON);
	umask(022);
	setenv("PATH", text(SBINDIR ":" BINDIR ":%s", path ? path :
			    "/usr/sbin:/usr/bin:/sbin:/bin"), 1);
	if (!strcmp(command, "add"))
		return work(disk_add);
	if (!strcmp(command, "remove"))
		return work(disk_remove);
	if (!strcmp(command, "watch"))
		return watch();
	if (!strcmp(command, "-h") || !strcmp(command, "--help")) {
		fputs(help_text, stdout);
		return 0;
	}
	fputs("block-dmu-shim: add, remove or watch is wanted; see --help\n", stderr);
	return 2;
}
