// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"
#include "log.h"

void cowd_control_init(struct cowd_control *control)
{
	unsigned int i;

	control->listener = -1;
	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		control->clients[i].fd = -1;
}

int cowd_control_listen(struct cowd_control *control, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t mask;
	int err;

	if (strlen(path) >= sizeof(address.sun_path))
		return cowd_error(-ENAMETOOLONG, "%s: too long for a socket", path);
	strcpy(address.sun_path, path);
	control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC |
					    SOCK_NONBLOCK, 0);
	if (control->listener < 0)
		return cowd_error(-errno, "%s: %s", path, strerror(errno));
	/* We hold the record's lock, so a socket there is a dead one's. */
	unlink(path);
	mask = umask(0177);
	err = bind(control->listener, (struct sockaddr *)&address,
		   sizeof(address)) ? -errno : 0;
	umask(mask);
	if (!err && listen(control->listener, COWD_MAX_CLIENTS))
		err = -errno;
	if (err)
		return cowd_error(err, "%s: cannot listen: %s", path,
				  strerror(-err));
	return 0;
}

static void client_close(struct cowd_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
}

void cowd_control_close(struct cowd_control *control)
{
	unsigned int i;

	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		client_close(&control->clients[i]);
	if (control->listener >= 0)
		close(control->listener);
	control->listener = -1;
}

void cowd_control_accept(struct cowd_control *control)
{
	unsigned int i;
	int fd = accept4(control->listener, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (i = 0; i < COWD_MAX_CLIENTS; i++) {
		if (control->clients[i].fd >= 0)
			continue;
		control->clients[i].fd = fd;
		control->clients[i].command = COWD_CMD_NONE;
		return;
	}
	close(fd);
}

/* A command is a few bytes and comes in one piece. */
void cowd_client_read(struct cowd_client *client)
{
	char line[32];
	ssize_t n = recv(client->fd, line, sizeof(line) - 1, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	line[n > 0 ? n : 0] = '\0';
	if (!strcmp(line, "status\n"))
		client->command = COWD_CMD_STATUS;
	else if (!strcmp(line, "stop\n"))
		client->command = COWD_CMD_STOP;
	else if (!strcmp(line, "upgrade\n"))
		client->command = COWD_CMD_UPGRADE;
	else
		client_close(client);
}

void cowd_control_answer(struct cowd_control *control,
			 enum cowd_command command, const char *json)
{
	struct cowd_client *client;
	unsigned int i;

	for (i = 0; i < COWD_MAX_CLIENTS; i++) {
		client = &control->clients[i];
		if (client->fd < 0 || client->command != command)
			continue;
		/* It fits into the socket's buffer; who is gone is gone. */
		if (send(client->fd, json, strlen(json), MSG_NOSIGNAL) < 0)
			cowd_log(COWD_DEBUG, "cowctl is gone: %s", strerror(errno));
		client_close(client);
	}
}

int cowd_control_take(struct cowd_control *control, enum cowd_command command)
{
	struct cowd_client *client;
	unsigned int i;
	int fd;

	for (i = 0; i < COWD_MAX_CLIENTS; i++) {
		client = &control->clients[i];
		if (client->fd < 0 || client->command != command)
			continue;
		fd = client->fd;
		client->fd = -1;
		return fd;
	}
	return -1;
}

bool cowd_control_waits(const struct cowd_control *control,
			enum cowd_command command)
{
	unsigned int i;

	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		if (control->clients[i].fd >= 0 &&
		    control->clients[i].command == command)
			return true;
	return false;
}
