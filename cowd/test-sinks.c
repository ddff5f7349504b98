// SPDX-License-Identifier: GPL-2.0-or-later
/* The log arrives, and who does not read it stops nobody. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "sinks.h"

#define TOO_LONG_S	10

static struct sockaddr_un reader = { .sun_family = AF_UNIX };

int __real_connect(int fd, const struct sockaddr *to, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t len);

/* /dev/log is the test's. */
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t len)
{
	assert_string_equal(((const struct sockaddr_un *)to)->sun_path, "/dev/log");
	return __real_connect(fd, (struct sockaddr *)&reader, len);
}

static void full_pipe_stops_nobody(void **state)
{
	char zeroes[4096] = "", text[4096 + 64];
	int ends[2], keep = dup(2);
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], 2);
	cowd_to_stderr("one");
	assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
	while (write(ends[1], zeroes, sizeof(zeroes)) > 0)
		;
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	alarm(TOO_LONG_S);
	cowd_to_stderr("two");
	alarm(0);
	n = read(ends[0], text, sizeof(text));
	dup2(keep, 2);
	close(keep);
	close(ends[0]);
	close(ends[1]);
	assert_true(n > 10);
	assert_memory_equal(text, "cowd: one\n", 10);
}

static void full_socket_stops_nobody(void **state)
{
	char path[] = "/tmp/test-sinks.XXXXXX", text[1024] = "";
	int i, fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	(void)state;
	assert_non_null(mkdtemp(path));
	snprintf(reader.sun_path, sizeof(reader.sun_path), "%s/log", path);
	cowd_to_syslog(LOG_ERR, "disk", "nobody is there");
	assert_int_equal(bind(fd, (struct sockaddr *)&reader, sizeof(reader)), 0);
	alarm(TOO_LONG_S);
	for (i = 0; i < 5000; i++)
		cowd_to_syslog(LOG_ERR, "disk", "a sentence");
	alarm(0);
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	close(fd);
	unlink(reader.sun_path);
	rmdir(path);
	assert_memory_equal(text, "<27>", 4);
	assert_non_null(strstr(text, " cowd["));
	assert_non_null(strstr(text, "]: disk: a sentence"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_pipe_stops_nobody),
		cmocka_unit_test(full_socket_stops_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
