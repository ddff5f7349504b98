/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words of a command, and running it. */
#ifndef SHIM_WORDS_H
#define SHIM_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#define WORDS_MAX	64
#define SAID_MAX	32768	/* bytes of what a command says, with the NUL: several paths */

/* Ends with NULL.  A disk's line with more words than that is refused by who adds. */
struct words {
	const char *word[WORDS_MAX + 1];
	unsigned int count;
	bool too_many;
};

void words_add(struct words *words, const char *word);
void words_add_all(struct words *words, const struct words *more);

/* A text made like by printf, which lives as long as the process. */
char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum run_output {
	RUN_STDERR,	/* what is said of errors; the rest is dropped */
	RUN_STDOUT,
};

/*
 * Run @command to its end; its exit status, or a negative errno.  What it says
 * is in @said, which may be cut short; NULL: to the log of Xen's scripts.
 */
int run(const struct words *command, enum run_output output, char *said);
/* The same for at most @seconds: -ETIMEDOUT, and the process, not its children, is ended. */
int run_for(const struct words *command, enum run_output output, char *said,
	    int seconds);

#endif /* SHIM_WORDS_H */
