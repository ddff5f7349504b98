// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * See sinks.h.  syslog(3) waits for room in the socket, so its line (RFC 3164, as it
 * is written to the local socket: no host name) is sent from here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "sinks.h"

void cowd_to_stderr(const char *text)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (poll(&err, 1, 0) > 0 && err.revents & POLLOUT)
		fprintf(stderr, "cowd: %s\n", text);
}

static int connect_log(int type)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		int err = errno;

		close(fd);
		errno = err;
		fd = -1;
	}
	return fd;
}

/* Who reads the log may have been started anew: connected afresh for each line. */
void cowd_to_syslog(int priority, const char *name, const char *text)
{
	char line[COWD_LOG_MAX + 256], date[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	int fd, len;

	if (localtime_r(&now, &tm))
		strftime(date, sizeof(date), "%h %e %T ", &tm);
	len = snprintf(line, sizeof(line), "<%d>%scowd[%d]: %s: %s",
		       LOG_DAEMON | priority, date, (int)getpid(), name, text);
	if (len >= (int)sizeof(line))
		len = sizeof(line) - 1;
	fd = connect_log(SOCK_DGRAM);
	if (fd < 0 && errno == EPROTOTYPE) {
		fd = connect_log(SOCK_STREAM);
		len++;		/* there the NUL ends a line */
	}
	if (fd < 0)
		return;
	send(fd, line, (size_t)len, MSG_NOSIGNAL);
	close(fd);
}
