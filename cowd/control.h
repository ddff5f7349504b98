/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: cowctl sends one line, "status", "stop" or "upgrade",
 * and gets one JSON object.  Who may talk is who may open the socket: root.
 */
#ifndef COWD_CONTROL_H
#define COWD_CONTROL_H

#include <poll.h>
#include <stdbool.h>

#define COWD_MAX_CLIENTS	8

enum cowd_command {
	COWD_CMD_NONE = 0,	/* has not said yet */
	COWD_CMD_STATUS,
	COWD_CMD_STOP,
	COWD_CMD_UPGRADE,
};

struct cowd_client {
	int fd;			/* -1: free */
	enum cowd_command command;
};

struct cowd_control {
	int listener;		/* -1: none */
	struct cowd_client clients[COWD_MAX_CLIENTS];
};

void cowd_control_init(struct cowd_control *control);
/* Listen at @path.  Reports errors. */
int cowd_control_listen(struct cowd_control *control, const char *path);
void cowd_control_close(struct cowd_control *control);

/* A listener that is readable. */
void cowd_control_accept(struct cowd_control *control);
/* A client that is readable: sets its command, or closes it. */
void cowd_client_read(struct cowd_client *client);
/* Send @json to all that wait for @command, and close them. */
void cowd_control_answer(struct cowd_control *control,
			 enum cowd_command command, const char *json);
/* The connection of one that waits for @command, now the caller's; or -1. */
int cowd_control_take(struct cowd_control *control, enum cowd_command command);
bool cowd_control_waits(const struct cowd_control *control,
			enum cowd_command command);

#endif /* COWD_CONTROL_H */
