// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Replacing the running program by the one that is installed now: the same
 * process executes it, with --recover.  Meanwhile the kernel serves what it
 * remembers, and what the worker held in memory the kernel tells the next one.
 *
 * What must hold: until the new program is known to run, nothing is let go.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <dmu.h>

#include "log.h"
#include "report.h"
#include "state.h"

static char program[PATH_MAX];
static char argv0[] = "cowd";

void upgrade_prepare(void)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

	program[n > 0 ? n : 0] = '\0';
}

/* Executes the installed program for its version only: a helper's work. */
static int try_program(const char *name)
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

void upgrade_begin(void)
{
	if (parent.state == CHECKING)
		return;
	if (parent.state != RUNNING || helper_start(try_program))
		clients_answer(COWD_CMD_UPGRADE, "it cannot be upgraded now");
	else
		parent_enter(CHECKING, CHECK_S);
}

/* The one that runs goes on. */
__attribute__((format(printf, 1, 2)))
static void failed(const char *format, ...)
{
	char text[COWD_LOG_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	cowd_log(COWD_WARNING, "%s", text);
	clients_answer(COWD_CMD_UPGRADE, text);
	parent_enter(RUNNING, 0);
}

/*
 * cowctl learns that we begin.  In the background, what the new program has to
 * say on standard error goes to it as well.
 */
static void hand_over_client(void)
{
	char *json = cowd_report_done(parent.options->name, "upgrading", NULL);
	int fd = cowd_control_take(&parent.control, COWD_CMD_UPGRADE);

	if (fd >= 0 && json && send(fd, json, strlen(json), MSG_NOSIGNAL) < 0)
		cowd_log(COWD_DEBUG, "cowctl is gone: %s", strerror(errno));
	if (fd >= 0 && !parent.options->foreground)
		dup2(fd, 2);
	if (fd >= 0)
		close(fd);
	free(json);
}

static void execute(const struct cowd_options *o)
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
}

/*
 * Until the next one has taken over, or is given up, nothing fails.  Either
 * brings the policy back, the next one from the record.
 */
static int hold_policy(struct cowd_options *o)
{
	struct dmu_table now;
	int err = device_get_features(&now);

	if (err)
		return err;
	o->policy = now.policy;
	o->timeout_s = now.timeout_s;
	if (o->policy == DMU_POLICY_QUEUE)
		return 0;
	o->policy_held = true;
	err = cowd_record_write(&parent.record, o, parent.worker);
	return err ? err : dmu_device_message(o->name, "policy queue");
}

static void upgrade(void)
{
	struct cowd_options *o = parent.options;
	int err = hold_policy(o);

	if (err) {
		failed("%s: cannot be upgraded: %s", o->name, strerror(-err));
		return;
	}
	cowd_log(COWD_INFO, "version %s makes way for %s", PACKAGE_VERSION,
		 program);
	hand_over_client();
	worker_stop();
	cowd_files_close(&parent.files, false);
	cowd_control_close(&parent.control);
	cowd_record_keep(&parent.record);
	execute(o);
	cowd_error(-errno, "%s: cannot be executed: %s", program,
		   strerror(errno));
	device_give_policy_back();
	parent_finish(COWD_EXIT_FAILED);
}

/* @err: of execv(); or of the loader, which ends a program that it cannot load by 127. */
static const char *why_not(int err)
{
	return err == -127 ? "it cannot be loaded; is a library missing?" :
			     strerror(-err);
}

void upgrade_checked(int err)
{
	if (err)
		failed("%s: does not run: %s; so the one that runs goes on",
		       program, why_not(err));
	else
		upgrade();
}
