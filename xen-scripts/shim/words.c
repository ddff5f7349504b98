// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* To the end, whatever fits; in one line when it is an error. */
static void collect(int from, char *said)
{
	char rest[512];
	size_t used = 0;
	ssize_t n;

	do {
		if (used < SAID_MAX - 1)
			n = read(from, said + used, SAID_MAX - 1 - used);
		else
			n = read(from, rest, sizeof(rest));
		if (n > 0 && used < SAID_MAX - 1)
			used += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	said[used] = '\0';
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
	if (said && !err)
		collect(ends[0], said);
	if (said)
		close(ends[0]);
	if (err)
		return err;
	if (said && output == RUN_STDERR)
		one_line(said);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}
