// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start: arguments, and the way to the background.  The user's terminal sees
 * one sentence about what went wrong; later the log goes to syslog.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "parent.h"
#include "sinks.h"

static struct cowd_options options;
static bool error_said, is_ready;
static int launcher = -1;	/* a byte for the process that was started */

/* ---- log ---------------------------------------------------------------- */

/*
 * Before the device is there, the first error is the one that matters: who
 * detects an error says so, and what follows from it would only repeat it.
 */
static void log_to_stderr(enum cowd_level level, const char *text)
{
	if (level == COWD_ERROR && !is_ready && error_said)
		level = COWD_DEBUG;
	if (level == COWD_ERROR)
		error_said = true;
	if (level <= COWD_WARNING || options.verbose)
		cowd_to_stderr(text);
}

static void log_to_syslog(enum cowd_level level, const char *text)
{
	static const int priorities[] = {
		LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG,
	};

	if (level < COWD_DEBUG || options.verbose)
		cowd_to_syslog(priorities[level], options.name, text);
}

/* ---- background --------------------------------------------------------- */

/* Not by libsystemd: it and the five libraries that it wants would be locked in memory as well. */
static void notify_systemd(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len;
	char text[64];
	int fd;

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	if (*path == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL,
		   (struct sockaddr *)&address, (socklen_t)len) < 0)
		cowd_log(COWD_DEBUG, "systemd was not told: %s", strerror(errno));
	close(fd);
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	cowd_log_to(log_to_syslog);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		close(null);
	}
}

static void ready(void)
{
	is_ready = true;
	notify_systemd();
	if (launcher < 0)
		return;
	leave_terminal();
	if (write(launcher, "", 1) != 1)
		cowd_log(COWD_DEBUG, "who started us is gone");
	close(launcher);
	launcher = -1;
}

/* The process that the user started: waits, and ends as the start ended. */
static int wait_for_start(pid_t pid, int pipe_end)
{
	int status;
	char byte;
	ssize_t n;

	do
		n = read(pipe_end, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return COWD_EXIT_OK;
	if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	    WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return COWD_EXIT_FAILED;
}

/* Fork; in the child returns -1, in the process to end its exit status. */
static int go_to_background(void)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC)) {
		cowd_error(-errno, "pipe: %s", strerror(errno));
		return COWD_EXIT_FAILED;
	}
	pid = fork();
	if (pid < 0) {
		cowd_error(-errno, "fork: %s", strerror(errno));
		return COWD_EXIT_FAILED;
	}
	if (pid) {
		close(ends[1]);
		return wait_for_start(pid, ends[0]);
	}
	close(ends[0]);
	launcher = ends[1];
	setsid();
	return -1;
}

/* ---- arguments ---------------------------------------------------------- */

/* The daemon's working directory is /, so that it holds no file system. */
static const char *absolute(const char *path)
{
	char here[PATH_MAX];
	char *full;

	if (!path || path[0] == '/' || !getcwd(here, sizeof(here)) ||
	    asprintf(&full, "%s/%s", here, path) < 0)
		return path;
	return full;
}

static void make_list_absolute(const char **list)
{
	for (; *list; list++)
		*list = absolute(*list);
}

static void make_paths_absolute(void)
{

	options.image = absolute(options.image);
	options.plugin_dir = absolute(options.plugin_dir);
	options.run_dir = absolute(options.run_dir);
	make_list_absolute(options.allowed);
	make_list_absolute(options.allowed_write);
}

/* systemd leaves processes so marked alone until the root file system goes. */
static void survive_shutdown(char **argv)
{
	argv[0][0] = '@';
}

int main(int argc, char **argv)
{
	int status;

	cowd_log_to(log_to_stderr);
	switch (cowd_options_parse(argc, argv, &options)) {
	case COWD_DONE:
		return COWD_EXIT_OK;
	case COWD_USAGE:
		return COWD_EXIT_USAGE;
	default:
		break;
	}
	survive_shutdown(argv);
	make_paths_absolute();
	umask(022);
	if (!options.foreground) {
		status = go_to_background();
		if (status >= 0)
			return status;
	}
	if (chdir("/"))
		cowd_log(COWD_DEBUG, "/: %s", strerror(errno));
	return cowd_parent(&options, ready);
}
