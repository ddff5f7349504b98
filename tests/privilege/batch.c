// SPDX-License-Identifier: GPL-2.0-or-later
#include "batch.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dmu.h>
#include <common/clock.h>

#include "options.h"

#define LIFE_MS		60000	/* of one cowd, on a busy machine */

/* What a life said, on standard output and standard error. */
struct life {
	char said[4096];
	size_t len;
	int status;		/* of wait(2) */
	bool too_long;
};

/* Until all of its processes have closed their output, so are gone. */
static void listen_to(struct life *life, int from)
{
	int64_t end = clock_now_ms() + LIFE_MS;
	struct pollfd fd = { from, POLLIN, 0 };
	int64_t left;
	ssize_t n = 1;

	while (n > 0 && life->len < sizeof(life->said) - 1) {
		left = end - clock_now_ms();
		if (left <= 0 || poll(&fd, 1, (int)left) <= 0)
			break;
		n = read(from, life->said + life->len,
			 sizeof(life->said) - 1 - life->len);
		life->len += n > 0 ? (size_t)n : 0;
	}
	life->too_long = n != 0;
}

static int live(struct life *life, int (*run)(const char *which),
		const char *which)
{
	int ends[2];
	pid_t pid;

	if (pipe(ends))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		_exit(run(which));
	}
	close(ends[1]);
	listen_to(life, ends[0]);
	close(ends[0]);
	if (life->too_long)
		kill(pid, SIGKILL);
	return waitpid(pid, &life->status, 0) == pid ? 0 : -errno;
}

static bool loop_left(void)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	char path[512];
	bool left = false;

	while (dir && !left && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file",
			 entry->d_name);
		left = !access(path, F_OK);
	}
	if (dir)
		closedir(dir);
	return left;
}

static bool record_left(const char *name, const char *suffix)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s%s", COWD_RUN_DIR_DEFAULT, name,
		 suffix);
	return !access(path, F_OK);
}

static const char *what_is_wrong(const char *name, const struct life *life)
{
	const char *newline = strchr(life->said, '\n');
	struct dmu_info info;

	if (life->too_long)
		return "does not end";
	if (!WIFEXITED(life->status) ||
	    WEXITSTATUS(life->status) != COWD_EXIT_FAILED)
		return "its exit status is not 1";
	if (strstr(life->said, "LET THROUGH"))
		return "was let through";
	if (!strstr(life->said, "against the rules"))
		return "does not say why";
	if (newline && strchr(newline + 1, '\n') != strrchr(life->said, '\n') &&
	    newline + 1 != life->said + life->len)
		return "says more than two sentences";
	if (dmu_device_info(name, &info) != -ENXIO)
		return "left the device";
	if (loop_left())
		return "left a loop device";
	if (record_left(name, ".json") || record_left(name, ".sock"))
		return "left its record";
	if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
		return "left a process";
	return NULL;
}

int batch_breach(const char *name, int (*run)(const char *which),
		 const char *which)
{
	struct life life = { .len = 0 };
	int64_t began = clock_now_ms();
	const char *wrong;
	int err;

	/* What it leaves behind becomes ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	err = live(&life, run, which);
	wrong = err ? strerror(-err) : what_is_wrong(name, &life);
	printf("%s %s, %d ms%s%s: %s\n", wrong ? "FAIL" : "ended", which,
	       (int)(clock_now_ms() - began), wrong ? ": " : "",
	       wrong ? wrong : "", life.said);
	fflush(stdout);
	return wrong ? 1 : 0;
}
