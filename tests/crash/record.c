// SPDX-License-Identifier: GPL-2.0-or-later
#include "record.h"
#include "die.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int record_create(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666);

	if (fd < 0)
		die_errno(path);
	return fd;
}

void record_add(int fd, const struct record_entry *e)
{
	if (write(fd, e, sizeof(*e)) != sizeof(*e))
		die_errno("record");
}

void record_load(const char *path, struct record *r)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		die_errno(path);
	r->nr = (uint64_t)st.st_size / sizeof(*r->entries);
	r->entries = xcalloc(r->nr + 1, sizeof(*r->entries));
	n = read(fd, r->entries, r->nr * sizeof(*r->entries));
	if (n < 0 || (uint64_t)n != r->nr * sizeof(*r->entries))
		die_errno(path);
	close(fd);
}
