// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "options.h"
#include "upgrade.h"

static char program[PATH_MAX];
static char argv0[] = "cowd";

void cowd_upgrade_prepare(void)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

	program[n > 0 ? n : 0] = '\0';
}

const char *cowd_upgrade_program(void)
{
	return program;
}

int cowd_upgrade_try(const char *name)
{
	static char version[] = "--version";
	char *const argv[] = { argv0, version, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)name;
	if (null >= 0)
		dup2(null, 1);
	execv(program, argv);
	return -errno;
}

int cowd_upgrade_exec(const struct cowd_options *o)
{
	static char recover[] = "--recover", run_dir[] = "--run-dir";
	static char foreground[] = "-f", verbose[] = "-v";
	char *argv[8];
	int n = 0;

	argv[n++] = argv0;
	argv[n++] = recover;
	argv[n++] = run_dir;
	argv[n++] = (char *)o->run_dir;
	if (o->foreground)
		argv[n++] = foreground;
	if (o->verbose)
		argv[n++] = verbose;
	argv[n++] = (char *)o->name;
	argv[n] = NULL;
	execv(program, argv);
	return -errno;
}
