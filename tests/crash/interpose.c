// SPDX-License-Identifier: GPL-2.0-or-later
#include "interpose.h"
#include "die.h"
#include "stamp.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_SYNCS 64

/* A write that was done, and is not in the log yet. */
struct pending {
	uint64_t offset, len;
	void *data;
	struct pending *next;
};

struct list {
	struct pending *head, **tail;
};

/* A sync through aio that is under way. */
struct sync {
	const struct iocb *iocb;
	struct list covers;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct log_writer *log_to;
static dev_t log_dev;
static ino_t log_ino;
static struct list unsynced;
static struct sync syncs[MAX_SYNCS];

/* Of the next library that has it. */
#define REAL(name, type) ({					\
	static __typeof__(type) *real;				\
	if (!real)						\
		*(void **)&real = dlsym(RTLD_NEXT, name);	\
	if (!real)						\
		die("there is no %s", name);			\
	real; })

typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);
typedef int sync_fn(int);
typedef int fallocate_fn(int, int, off_t, off_t);
typedef int io_submit_fn(io_context_t, long, struct iocb **);
typedef int io_getevents_fn(io_context_t, long, long, struct io_event *,
			    struct timespec *);

/* --- Lists ---------------------------------------------------------------- */

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static struct list list_take(struct list *l)
{
	struct list all = *l;

	if (!all.head)
		all.tail = &all.head;
	list_init(l);
	return all;
}

static void list_write(struct pending *p)
{
	while (p) {
		struct pending *next = p->next;

		log_add(log_to, 0, p->offset, p->data, p->len);
		free(p->data);
		free(p);
		p = next;
	}
}

/* Back to the front: the sync failed. */
static void list_give_back(struct pending *head)
{
	struct pending *p = head;

	if (!head)
		return;
	while (p->next)
		p = p->next;
	p->next = unsynced.head;
	if (!unsynced.head)
		unsynced.tail = &p->next;
	unsynced.head = head;
}

/* --- What happens to the file --------------------------------------------- */

static bool is_ours(int fd)
{
	struct stat st;

	return log_to && !fstat(fd, &st) && st.st_dev == log_dev &&
	       st.st_ino == log_ino;
}

/* Whole sectors, as they stand in the file now. */
static void written(int fd, uint64_t offset, uint64_t len)
{
	struct pending *p = xcalloc(1, sizeof(*p));
	uint64_t end = (offset + len + SECTOR - 1) / SECTOR * SECTOR;
	char path[32];
	int in;

	p->offset = offset / SECTOR * SECTOR;
	p->len = end - p->offset;
	p->data = xcalloc(1, p->len);
	/* The descriptor may be for direct I/O. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	in = open(path, O_RDONLY | O_CLOEXEC);
	if (in < 0 || pread(in, p->data, p->len, (off_t)p->offset) < 0)
		die_errno("reading back what was written");
	close(in);
	pthread_mutex_lock(&lock);
	*unsynced.tail = p;
	unsynced.tail = &p->next;
	pthread_mutex_unlock(&lock);
}

static struct pending *sync_begin(void)
{
	struct list l;

	pthread_mutex_lock(&lock);
	l = list_take(&unsynced);
	pthread_mutex_unlock(&lock);
	return l.head;
}

static void sync_end(struct pending *covers, bool good)
{
	pthread_mutex_lock(&lock);
	if (good) {
		list_write(covers);
		log_add(log_to, LOG_FLUSH, 0, NULL, 0);
	} else {
		list_give_back(covers);
	}
	pthread_mutex_unlock(&lock);
}

/* --- In the place of the library's ---------------------------------------- */

static ssize_t do_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	ssize_t n = REAL("pwrite", pwrite_fn)(fd, buf, len, offset);

	if (n > 0 && is_ours(fd))
		written(fd, (uint64_t)offset, (uint64_t)n);
	return n;
}

static int do_sync(int fd, sync_fn *real)
{
	struct pending *covers;
	int ret;

	if (!is_ours(fd))
		return real(fd);
	covers = sync_begin();
	ret = real(fd);
	sync_end(covers, !ret);
	return ret;
}

static int do_fallocate(int fd, int mode, off_t offset, off_t len)
{
	int ret = REAL("fallocate", fallocate_fn)(fd, mode, offset, len);

	if (!ret && is_ours(fd))
		written(fd, (uint64_t)offset, (uint64_t)len);
	return ret;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return do_pwrite(fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	return do_pwrite(fd, buf, len, offset);
}

int fdatasync(int fd)
{
	return do_sync(fd, REAL("fdatasync", sync_fn));
}

int fsync(int fd)
{
	return do_sync(fd, REAL("fsync", sync_fn));
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return do_fallocate(fd, mode, offset, len);
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
	return do_fallocate(fd, mode, offset, len);
}

static bool is_sync(const struct iocb *iocb)
{
	return iocb->aio_lio_opcode == IO_CMD_FSYNC ||
	       iocb->aio_lio_opcode == IO_CMD_FDSYNC;
}

static void aio_sync_begin(const struct iocb *iocb)
{
	unsigned int i;

	for (i = 0; i < MAX_SYNCS && syncs[i].iocb; i++)
		;
	if (i == MAX_SYNCS)
		die("more than %u syncs at a time", MAX_SYNCS);
	syncs[i].covers.head = sync_begin();
	syncs[i].iocb = iocb;
}

/* Not taken by the kernel, or done. */
static void aio_sync_end(const struct iocb *iocb, bool good)
{
	unsigned int i;

	for (i = 0; i < MAX_SYNCS; i++) {
		if (syncs[i].iocb != iocb)
			continue;
		syncs[i].iocb = NULL;
		sync_end(syncs[i].covers.head, good);
	}
}

/* libcow submits one at a time. */
int io_submit(io_context_t ctx, long nr, struct iocb **iocbs)
{
	bool sync = nr == 1 && is_sync(iocbs[0]) &&
		    is_ours(iocbs[0]->aio_fildes);
	int ret;

	if (sync)
		aio_sync_begin(iocbs[0]);
	ret = REAL("io_submit", io_submit_fn)(ctx, nr, iocbs);
	if (sync && ret != 1)
		aio_sync_end(iocbs[0], false);
	return ret;
}

static void aio_done(const struct io_event *event)
{
	const struct iocb *iocb = event->obj;

	if (!is_ours(iocb->aio_fildes))
		return;
	if (is_sync(iocb))
		aio_sync_end(iocb, (long)event->res == 0);
	else if (iocb->aio_lio_opcode == IO_CMD_PWRITE && (long)event->res > 0)
		written(iocb->aio_fildes, (uint64_t)iocb->u.c.offset,
			event->res);
}

int io_getevents(io_context_t ctx, long min, long nr, struct io_event *events,
		 struct timespec *timeout)
{
	int i, n = REAL("io_getevents", io_getevents_fn)(ctx, min, nr, events,
							 timeout);

	for (i = 0; i < n; i++)
		aio_done(&events[i]);
	return n;
}

/* --- Control -------------------------------------------------------------- */

void interpose_start(struct log_writer *log, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		die_errno(path);
	list_init(&unsynced);
	log_dev = st.st_dev;
	log_ino = st.st_ino;
	log_to = log;
}

void interpose_mark(const char *name)
{
	pthread_mutex_lock(&lock);
	log_add_mark(log_to, name);
	pthread_mutex_unlock(&lock);
}

void interpose_stop(void)
{
	pthread_mutex_lock(&lock);
	list_write(list_take(&unsynced).head);
	log_to = NULL;
	pthread_mutex_unlock(&lock);
}
