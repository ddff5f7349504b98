// SPDX-License-Identifier: GPL-2.0-or-later
#include "peer.h"
#include "die.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void peer_start(struct peer *p, const char *command)
{
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		die_errno("pipe");
	p->pid = fork();
	if (p->pid < 0)
		die_errno("fork");
	if (!p->pid) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		execl("/bin/bash", "bash", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	p->to = fdopen(to[1], "w");
	p->from = fdopen(from[0], "r");
	if (!p->to || !p->from)
		die_errno("fdopen");
}

const char *peer_ask(struct peer *p, const char *question)
{
	static char line[512];

	fprintf(p->to, "%s\n", question);
	fflush(p->to);
	if (!fgets(line, sizeof(line), p->from))
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	return line;
}

int peer_end(struct peer *p)
{
	int status = 0;

	fclose(p->to);
	fclose(p->from);
	waitpid(p->pid, &status, 0);
	return status;
}
