// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A xenstore of files for test-script.sh, below the folder $STORE; watches are told
 * by lines of the FIFO $WORK/events.  Writing a node is refused while there is
 * $WORK/refuse-KEY, and reading it while there is $WORK/refuse-to-read-KEY.  Each call adds a byte to $WORK/xenstore-calls if that is there,
 * an o the first of each process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xenstore.h>

#include "words.h"

struct xs_handle {
	int events;
	char *first;		/* xenstore tells each watch once at the beginning */
};

#define LIST_MAX	1024

static void count_call(const char *byte)
{
	int fd = open(text("%s/xenstore-calls", getenv("WORK")), O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, byte, 1) != 1)
		abort();
	close(fd);
}

static const char *file_of(const char *path)
{
	count_call(".");
	return text("%s/%s", getenv("STORE"), path);
}

struct xs_handle *xs_open(unsigned long flags)
{
	count_call("o");
	return calloc(1, sizeof(struct xs_handle));
}

void xs_close(struct xs_handle *xs)
{
	free(xs);
}

void *xs_read(struct xs_handle *xs, xs_transaction_t t, const char *path,
	      unsigned int *len)
{
	const char *refuse = text("%s/refuse-to-read-%s", getenv("WORK"),
				  strrchr(path, '/') + 1);
	int fd = open(file_of(access(refuse, F_OK) ? path : "."),
		      O_RDONLY | O_CLOEXEC);
	char *value = calloc(1, 4096);
	ssize_t n = fd < 0 ? -1 : read(fd, value, 4095);
	int err = errno;

	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(value);
		errno = err;
		return NULL;
	}
	*len = (unsigned int)n;
	return value;
}

static void make_folders(char *path)
{
	char *p;

	for (p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
}

bool xs_write(struct xs_handle *xs, xs_transaction_t t, const char *path,
	      const void *data, unsigned int len)
{
	char *file = text("%s", file_of(path));
	int fd;
	bool ok;

	errno = EACCES;
	if (!access(text("%s/refuse-%s", getenv("WORK"), strrchr(path, '/') + 1), F_OK))
		return false;
	make_folders(file);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	ok = write(fd, data, len) == (ssize_t)len;
	close(fd);
	return ok;
}

/* What is written in between is there at once: nobody else writes what we do. */
xs_transaction_t xs_transaction_start(struct xs_handle *xs)
{
	count_call(".");
	return 1;
}

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t t, bool abort)
{
	const char *again = text("%s/again", getenv("WORK"));

	count_call(".");
	/* As when another wrote: once, where the file is. */
	errno = EAGAIN;
	return abort || unlink(again);
}

/* One block of memory, as the real one. */
char **xs_directory(struct xs_handle *xs, xs_transaction_t t, const char *path,
		    unsigned int *num)
{
	char *block = calloc(LIST_MAX, sizeof(char *) + 64);
	char **list = (char **)block;
	DIR *dir = opendir(file_of(path));
	struct dirent *entry;

	*num = 0;
	while (dir && *num < LIST_MAX && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		list[*num] = block + LIST_MAX * sizeof(char *) + 64 * *num;
		snprintf(list[*num], 64, "%.63s", entry->d_name);
		++*num;
	}
	if (dir)
		closedir(dir);
	return list;
}

bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
	xs->events = open(text("%s/events", getenv("WORK")), O_RDONLY | O_CLOEXEC);
	if (xs->events >= 0)
		fcntl(xs->events, F_SETFL, O_NONBLOCK);
	xs->first = text("%s", path);
	return xs->events >= 0;
}

int xs_fileno(struct xs_handle *xs)
{
	return xs->events;
}

/* A line of the FIFO, byte by byte, so that poll() tells of the next one. */
static bool read_line(int fd, char *line, size_t size)
{
	size_t used = 0;
	ssize_t n;

	while (used < size - 1) {
		n = read(fd, line + used, 1);
		if (n < 0 && errno == EAGAIN && used) {
			usleep(1000);	/* the rest comes */
			continue;
		}
		if (n < 0)
			return false;
		if (!n) {
			errno = EINVAL;
			return false;
		}
		if (line[used] == '\n')
			break;
		used++;
	}
	line[used] = '\0';
	return true;
}

char **xs_check_watch(struct xs_handle *xs)
{
	char **list = calloc(1, 2 * sizeof(char *) + 256);
	char *line = (char *)(list + 2);
	int err;

	list[XS_WATCH_PATH] = line;
	list[XS_WATCH_TOKEN] = line + 255;
	if (xs->first) {
		snprintf(line, 256, "%s", xs->first);
		xs->first = NULL;
		return list;
	}
	if (read_line(xs->events, line, 255))
		return list;
	err = errno;
	free(list);
	errno = err;
	return NULL;
}
