/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A command that is asked by a line and answers by a line. */
#ifndef CRASH_PEER_H
#define CRASH_PEER_H

#include <stdio.h>
#include <sys/types.h>

struct peer {
	pid_t pid;
	FILE *to, *from;
};

void peer_start(struct peer *p, const char *command);
/* The answer without its newline, in static storage; NULL: it ended. */
const char *peer_ask(struct peer *p, const char *question);
/* The exit status. */
int peer_end(struct peer *p);

#endif
