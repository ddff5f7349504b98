// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <common/clock.h>

#include "paths.h"
#include "words.h"

/* From linux/close_range.h, which older systems lack. */
#define CLOEXEC_FLAG	(1U << 2)

char *text(const char *format, ...)
{
	va_list args;
	char *made;
	int len;

	va_start(args, format);
	len = vasprintf(&made, format, args);
	va_end(args);
	if (len < 0)
		abort();	/* without memory for a line nothing can be done */
	return made;
}

void words_add(struct words *words, const char *word)
{
	if (words->count == WORDS_MAX)
		words->too_many = true;
	else
		words->word[words->count++] = word;
	words->word[words->count] = NULL;
}

void words_add_all(struct words *words, const struct words *more)
{
	unsigned int i;

	for (i = 0; i < more->count; i++)
		words_add(words, more->word[i]);
	words->too_many |= more->too_many;
}

/* ---- run ----------------------------------------------------------------- */

static int spawn(const struct words *command, enum run_output output,
		 int to, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int err;

	/* A daemon must hold neither our lock nor xenstore. */
	syscall(SYS_close_range, 3U, ~0U, CLOEXEC_FLAG);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, to,
					 output == RUN_STDOUT ? 1 : 2);
	posix_spawn_file_actions_addopen(&actions, output == RUN_STDOUT ? 2 : 1,
					 "/dev/null", O_WRONLY, 0);
	err = posix_spawnp(pid, command->word[0], &actions, NULL,
			   (char *const *)command->word, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

/* How long @end is away, as poll() takes it; it has no end if that is 0. */
static int until(int64_t end)
{
	int64_t left = end ? end - clock_now_ms() : -1;

	return end && left < 0 ? 0 : (int)left;
}

/* To the end, whatever fits; in one line when it is an error. */
static int collect(int from, char *said, int64_t end)
{
	struct pollfd pfd = { .fd = from, .events = POLLIN };
	char rest[512];
	size_t used = 0;
	ssize_t n;
	int ready;

	said[0] = '\0';
	do {
		ready = poll(&pfd, 1, until(end));
		if (!ready)
			return -ETIMEDOUT;
		n = -1;
		if (ready < 0)
			continue;
		if (used < SAID_MAX - 1)
			n = read(from, said + used, SAID_MAX - 1 - used);
		else
			n = read(from, rest, sizeof(rest));
		if (n > 0 && used < SAID_MAX - 1)
			used += (size_t)n;
		said[used] = '\0';
	} while (n > 0 || (n < 0 && errno == EINTR));
	return 0;
}

static void one_line(char *said)
{
	size_t len = strlen(said);
	char *p;

	while (len && (said[len - 1] == '\n' || said[len - 1] == ' '))
		said[--len] = '\0';
	for (p = said; *p; p++)
		if (*p == '\n')
			*p = ' ';
}

static int open_log(void)
{
	int fd = open(LOG, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	return fd < 0 ? open("/dev/null", O_WRONLY | O_CLOEXEC) : fd;
}

int run(const struct words *command, enum run_output output, char *said)
{
	return run_for(command, output, said, 0);
}

int run_for(const struct words *command, enum run_output output, char *said,
	    int seconds)
{
	int64_t end = seconds ? clock_now_ms() + seconds * 1000LL : 0;
	int ends[2] = { -1, -1 }, status = 0, err = 0;
	pid_t pid;

	if (said)
		said[0] = '\0';
	if (!said)
		ends[1] = open_log();
	else if (pipe2(ends, O_CLOEXEC))
		return -errno;
	err = spawn(command, output, ends[1], &pid);
	close(ends[1]);
	if (said && !err && collect(ends[0], said, end)) {
		kill(pid, SIGTERM);
		err = -ETIMEDOUT;
	}
	if (said)
		close(ends[0]);
	if (err && err != -ETIMEDOUT)
		return err;
	if (said && output == RUN_STDERR)
		one_line(said);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (err)
		return err;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}
