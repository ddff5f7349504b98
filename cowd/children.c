// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The processes that the privileged one starts: one worker, and one helper at a
 * time for what may have to wait for I/O to the device.
 *
 * What must hold: a child holds nothing of the parent's that it does not need,
 * for it may get stuck with it; waiting for one is bounded; none outlives the
 * parent: the worker ends when their socket is closed, a helper is killed.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <common/clock.h>

#include "log.h"
#include "state.h"
#include "worker.h"

#define WORKER_MS	1000	/* without its parent it ends by itself */
#define HELPER_MS	5000	/* what comes behind the removal of a device */
#define KILLED_MS	10000	/* it may be in the middle of an I/O to slow storage */

static bool ended_with(pid_t pid, int ms, int *status)
{
	int64_t end = clock_now_ms() + ms;
	int step = 1;	/* a suspended device waits for us, too */

	while (waitpid(pid, status, WNOHANG) != pid) {
		if (clock_now_ms() >= end)
			return false;
		clock_sleep_ms(step);
		step = step < 10 ? step + 1 : 10;
	}
	return true;
}

static bool ended_within(pid_t pid, int ms)
{
	return ended_with(pid, ms, NULL);
}

/* ---- worker -------------------------------------------------------------- */

static int fork_worker(const struct cowd_user *user, const int *socks)
{
	parent.worker = fork();
	if (parent.worker < 0) {
		parent.worker = 0;
		return -errno;
	}
	if (parent.worker)
		return 0;
	close(socks[0]);
	close(parent.signals);
	close(parent.record.fd);
	cowd_control_close(&parent.control);
	_exit(cowd_worker(parent.options, user, socks[1],
			  parent.files.scratch));
}

int worker_start(const struct cowd_user *user)
{
	int socks[2] = { -1, -1 };
	int err = 0;

	parent.files.scratch = memfd_create("cowd-scratch", MFD_CLOEXEC);
	if (parent.files.scratch < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		err = -errno;
	if (!err)
		err = fork_worker(user, socks);
	parent.sock = socks[0];
	if (socks[1] >= 0)
		close(socks[1]);
	if (err)
		return cowd_error(err, "the worker cannot be started: %s",
				  strerror(-err));
	return 0;
}

void worker_stop(void)
{
	if (parent.sock >= 0)
		close(parent.sock);
	parent.sock = -1;
	if (!parent.worker)
		return;
	/* It holds nothing that must be saved. */
	if (!ended_within(parent.worker, WORKER_MS)) {
		kill(parent.worker, SIGKILL);
		ended_within(parent.worker, KILLED_MS);
	}
	parent.worker = 0;
}

/* ---- helper -------------------------------------------------------------- */

/* Killed with its parent: a suspended device that nobody resumes must not be left. */
static void end_with(pid_t parent_pid)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent_pid)
		_exit(EINTR);
}

int helper_start(int (*work)(const char *name))
{
	pid_t self = getpid();
	sigset_t none;

	parent.helper = fork();
	if (parent.helper < 0) {
		parent.helper = 0;
		return -errno;
	}
	if (parent.helper)
		return 0;
	end_with(self);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close(parent.sock);
	close(parent.record.fd);
	cowd_control_close(&parent.control);
	_exit(-work(parent.options->name) & 0xff);
}

int helper_run(int (*work)(const char *name), int ms)
{
	int status, err = helper_start(work);
	pid_t pid = parent.helper;

	if (err)
		return err;
	parent.helper = 0;
	if (ended_with(pid, ms, &status))
		return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
	kill(pid, SIGKILL);
	ended_within(pid, KILLED_MS);
	return -ETIMEDOUT;
}

void helper_kill(void)
{
	kill(parent.helper, SIGKILL);
	parent.helper = 0;	/* when it ends, it is none of ours */
}

void helper_stop(void)
{
	pid_t pid = parent.helper;

	if (!pid)
		return;
	/* One that has removed the device is about to end; others may be stuck. */
	if (!device_is_gone() || !ended_within(pid, HELPER_MS)) {
		kill(pid, SIGKILL);
		ended_within(pid, KILLED_MS);
	}
	parent.helper = 0;
}

/* ---- both ---------------------------------------------------------------- */

void children_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == parent.helper) {
			parent.helper = 0;
			helper_ended(WIFEXITED(status) ? -WEXITSTATUS(status) :
							 -EINTR);
		} else if (pid == parent.worker) {
			worker_ended(status);
		}
	}
}
