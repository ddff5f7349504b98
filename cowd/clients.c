// SPDX-License-Identifier: GPL-2.0-or-later
/* What cowctl asks for, over the control socket, which only root may open. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <common/clock.h>

#include "report.h"
#include "state.h"

#define STATS_S		2

static const char *const state_names[] = {
	[STARTING] = "starting",
	[RUNNING] = "running",
	[CHECKING] = "upgrading",
	[SYNCING] = "flushing",
	[REMOVING] = "removing",
	[ENDING] = "ending",
};

static void answer(enum cowd_command command, char *json)
{
	cowd_control_answer(&parent.control, command, json ? json : "{}\n");
	free(json);
}

void clients_answer_status(const struct cowd_worker_stats *stats)
{
	parent.stats_deadline = 0;
	answer(COWD_CMD_STATUS,
	       cowd_report_status(parent.options, &parent.files, parent.worker,
				  state_names[parent.state], stats));
}

void clients_answer(enum cowd_command command, const char *error)
{
	answer(command,
	       cowd_report_done(parent.options->name,
				command == COWD_CMD_STOP ? "stopped" :
							   "upgrading",
				error));
}

static void ask_for_stats(void)
{
	static const struct cowd_msg msg = { .type = COWD_MSG_GET_STATS };

	if (parent.stats_deadline)
		return;
	if (cowd_msg_send(parent.sock, &msg, -1, 0))
		clients_answer_status(NULL);
	else
		parent.stats_deadline = clock_now_ms() + STATS_S * 1000;
}

void clients_read(const struct pollfd *fds)
{
	unsigned int i;

	for (i = 0; i < COWD_MAX_CLIENTS; i++)
		if (fds[i].revents && parent.control.clients[i].fd >= 0)
			cowd_client_read(&parent.control.clients[i]);
	if (cowd_control_waits(&parent.control, COWD_CMD_STATUS))
		ask_for_stats();
	if (cowd_control_waits(&parent.control, COWD_CMD_STOP))
		stop_begin();
	if (cowd_control_waits(&parent.control, COWD_CMD_UPGRADE))
		upgrade_begin();
}
