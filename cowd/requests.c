// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the worker may ask of the privileged process.  The worker has read an
 * image that may come from anybody, so it may be somebody else by now.
 *
 *	request	when		what is checked
 *	OPEN	STARTING	flags, an absolute path, place, kind and users of the
 *				file (files.c)
 *	FILE	STARTING, in	index in order, known flags, a file that was
 *		order		handed out with these rights, or the scratch file
 *	CREATE	STARTING, once	as many files as were made devices; the
 *				kernel checks the geometry
 *	READY	once, attached	-
 *	RESIZED	always		the index; the size is the kernel's
 *	STATS	when asked	shown, never used
 *	LOG	always		level; printed as one line of text, LOG_BURST at
 *				once and LOG_PER_S a second after that
 *
 * What must hold: there is nothing else that it can ask for.  What an honest
 * worker would never say ends it (breach); what it may ask in vain is refused.
 * No request names the device, a loop device or a process: these are ours.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <common/clock.h>
#include <common/text.h>
#include <dmu.h>

#include "log.h"
#include "sandbox.h"
#include "state.h"

#define UDEV_MS		10000
#define LOG_BURST	64
#define LOG_PER_S	1

static struct cowd_msg msg;	/* large, so not on the stack */

/* What no worker of ours ever says.  Who says it is another's, and ends. */
static void breach(const char *what)
{
	if (parent.breached)
		return;
	parent.breached = true;
	cowd_error(-EPROTO, "the worker was ended: it went against the rules (%s)",
		   what);
	if (parent.worker)
		kill(parent.worker, SIGKILL);
}

static void reply(int status, int fd)
{
	static struct cowd_msg answer;

	answer.type = COWD_MSG_REPLY;
	answer.status = status;
	/* It waits for this one, so that there is room, or it reads nothing. */
	if (cowd_msg_send(parent.sock, &answer, fd, 0) == -EAGAIN)
		breach("it does not take its answers");
	if (fd >= 0)
		close(fd);
}

/* Is the chain still being put together? */
static bool is_opening(void)
{
	return parent.state == STARTING && !parent.attached && !parent.created;
}

static void serve_open(void)
{
	int fd = parent.state != STARTING ? -EPERM :
		 cowd_files_open(&parent.files, msg.text, (int)msg.number);

	reply(fd < 0 ? fd : 0, fd);
}

static void serve_file(int fd)
{
	const uint32_t known = COWD_FILE_WRITABLE | COWD_FILE_SCRATCH;

	if (!is_opening() || msg.index != parent.files.nr_devices ||
	    msg.flags & ~known || fd < 0)
		breach("a file out of order");
	else
		reply(cowd_files_add(&parent.files, msg.index, msg.flags, fd),
		      -1);
}

static void serve_create(void)
{
	int fd;

	if (!is_opening() ||
	    msg.geometry.nr_files != parent.files.nr_devices) {
		breach("a device out of order");
		return;
	}
	fd = device_serve(&msg.geometry);
	reply(fd < 0 ? fd : 0, fd);
}

static void serve_resized(void)
{
	if (msg.index >= parent.files.nr_devices)
		breach("a file that there is not");
	else
		reply(cowd_files_resized(&parent.files, msg.index), -1);
}

/* A line more?  Who fills the log of a host hides what others say there. */
static bool may_log(void)
{
	static unsigned int left = LOG_BURST;
	static int64_t since;
	int64_t more = (clock_now_ms() - since) * LOG_PER_S / 1000;

	if (more > 0) {
		left = more < LOG_BURST - left ? left + (unsigned int)more :
						 LOG_BURST;
		since = clock_now_ms();
	}
	if (!left)
		return false;
	left--;
	return true;
}

void requests_tell_dropped(void)
{
	if (parent.dropped)
		cowd_log(COWD_WARNING, "%llu lines that the worker had to say were dropped",
			 (unsigned long long)parent.dropped);
	parent.dropped = 0;
}

/* Its text goes to a terminal, and to a log of lines. */
static void serve_log(void)
{
	enum cowd_level level = msg.index < COWD_DEBUG ? msg.index : COWD_DEBUG;

	if (level == COWD_DEBUG && !parent.options->verbose)
		return;
	if (!may_log()) {
		parent.dropped++;
		return;
	}
	requests_tell_dropped();
	text_one_line(msg.text);
	cowd_log(level, "%s", msg.text);
}

static void device_ready(void)
{
	char node[160];

	snprintf(node, sizeof(node), "/dev/mapper/%s", parent.options->name);
	if (access(node, F_OK)) {
		cowd_error(-errno, "%s did not appear", node);
		parent_finish(COWD_EXIT_FAILED);
		return;
	}
	parent_enter(RUNNING, 0);
	cowd_log(COWD_INFO, "%s serves %s", node, parent.options->image);
	parent.ready();
}

void request_udev(void)
{
	int err = dmu_udev_wait(parent.cookie, 0);

	if (err == -ETIMEDOUT && clock_now_ms() < parent.udev_deadline) {
		parent.udev_step_ms = clock_next_step_ms(parent.udev_step_ms);
		return;
	}
	if (err)
		cowd_log(COWD_WARNING, "udev has not handled %s yet",
			 parent.options->name);
	parent.cookie = 0;
	parent.udev_deadline = 0;
	device_ready();
}

/*
 * The device is live and answered for.  While udev looks at it the worker may need its
 * parent, so that does not wait here.
 */
static void serve_ready(void)
{
	if (parent.state != STARTING || !parent.attached ||
	    parent.udev_deadline) {
		breach("ready out of order");
		return;
	}
	/* From now on our own pages may have to be written to the device. */
	cowd_lock_memory();
	parent.deadline = 0;
	parent.udev_deadline = clock_now_ms() + UDEV_MS;
	request_udev();
}

static void serve_msg(int fd)
{
	if (fd >= 0 && msg.type != COWD_MSG_FILE) {
		breach("a file that nobody asked for");
		return;
	}
	switch (msg.type) {
	case COWD_MSG_OPEN:
		serve_open();
		break;
	case COWD_MSG_FILE:
		serve_file(fd);
		break;
	case COWD_MSG_CREATE:
		serve_create();
		break;
	case COWD_MSG_RESIZED:
		serve_resized();
		break;
	case COWD_MSG_READY:
		serve_ready();
		break;
	case COWD_MSG_STATS:
		if (parent.stats_deadline)	/* else it is too late */
			clients_answer_status(&msg.stats);
		break;
	case COWD_MSG_LOG:
		serve_log();
		break;
	default:
		breach("a message of no known type");
	}
}

int request_serve(void)
{
	int fd, err;

	if (parent.breached)
		return -EPROTO;
	err = cowd_msg_recv(parent.sock, &msg, &fd, 0);
	if (err == -EPROTO)
		breach("what is no message");
	if (err)
		return err;
	serve_msg(fd);
	if (fd >= 0)
		close(fd);
	return 0;
}
