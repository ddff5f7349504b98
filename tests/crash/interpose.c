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
#define MAX_FILES 4

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

/* A file of the image.  A sync makes its own writes durable, and no other's. */
struct file {
	dev_t dev;
	ino_t ino;
	uint64_t base;		/* where it stands in the log */
	struct list unsynced;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct log_writer *log_to;
static struct file files[MAX_FILES];
static unsigned int nr_files;
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
static void list_give_back(struct list *to, struct pending *head)
{
	struct pending *p = head;

	if (!head)
		return;
	while (p->next)
		p = p->next;
	p->next = to->head;
	if (!to->head)
		to->tail = &p->next;
	to->head = head;
}

/* --- What happens to the file --------------------------------------------- */

/* NULL: none of the image's. */
static struct file *file_of(int fd)
{
	struct stat st;
	unsigned int i;

	if (!log_to || fstat(fd, &st))
		return NULL;
	for (i = 0; i < nr_files; i++) {
		if (st.st_dev == files[i].dev && st.st_ino == files[i].ino)
			return &files[i];
	}
	return NULL;
}

/* Whole sectors, as they stand in the file now. */
static void written(struct file *f, int fd, uint64_t offset, uint64_t len)
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
	if (nr_files > 1 && end > LOG_PART)
		die("a file of several has no room in the log");
	p->offset += f->base;
	pthread_mutex_lock(&lock);
	*f->unsynced.tail = p;
	f->unsynced.tail = &p->next;
	pthread_mutex_unlock(&lock);
}

static struct pending *sync_begin(struct file *f)
{
	struct list l;

	pthread_mutex_lock(&lock);
	l = list_take(&f->unsynced);
	pthread_mutex_unlock(&lock);
	return l.head;
}

static void sync_end(struct file *f, struct pending *covers, bool good)
{
	pthread_mutex_lock(&lock);
	if (good) {
		list_write(covers);
		log_add(log_to, LOG_FLUSH, 0, NULL, 0);
	} else {
		list_give_back(&f->unsynced, covers);
	}
	pthread_mutex_unlock(&lock);
}

/* --- In the place of the library's ---------------------------------------- */

static ssize_t do_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	ssize_t n = REAL("pwrite", pwrite_fn)(fd, buf, len, offset);
	struct file *f = n > 0 ? file_of(fd) : NULL;

	if (f)
		written(f, fd, (uint64_t)offset, (uint64_t)n);
	return n;
}

static int do_sync(int fd, sync_fn *real)
{
	struct file *f = file_of(fd);
	struct pending *covers;
	int ret;

	if (!f)
		return real(fd);
	covers = sync_begin(f);
	ret = real(fd);
	sync_end(f, covers, !ret);
	return ret;
}

static int do_fallocate(int fd, int mode, off_t offset, off_t len)
{
	int ret = REAL("fallocate", fallocate_fn)(fd, mode, offset, len);
	struct file *f = ret ? NULL : file_of(fd);

	if (f)
		written(f, fd, (uint64_t)offset, (uint64_t)len);
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

static void aio_sync_begin(struct file *f, const struct iocb *iocb)
{
	unsigned int i;

	for (i = 0; i < MAX_SYNCS && syncs[i].iocb; i++)
		;
	if (i == MAX_SYNCS)
		die("more than %u syncs at a time", MAX_SYNCS);
	syncs[i].covers.head = sync_begin(f);
	syncs[i].iocb = iocb;
}

/* Not taken by the kernel, or done. */
static void aio_sync_end(struct file *f, const struct iocb *iocb, bool good)
{
	unsigned int i;

	for (i = 0; i < MAX_SYNCS; i++) {
		if (syncs[i].iocb != iocb)
			continue;
		syncs[i].iocb = NULL;
		sync_end(f, syncs[i].covers.head, good);
	}
}

/* libcow submits one at a time. */
int io_submit(io_context_t ctx, long nr, struct iocb **iocbs)
{
	struct file *sync = nr == 1 && is_sync(iocbs[0]) ?
			    file_of(iocbs[0]->aio_fildes) : NULL;
	int ret;

	if (sync)
		aio_sync_begin(sync, iocbs[0]);
	ret = REAL("io_submit", io_submit_fn)(ctx, nr, iocbs);
	if (sync && ret != 1)
		aio_sync_end(sync, iocbs[0], false);
	return ret;
}

static void aio_done(const struct io_event *event)
{
	const struct iocb *iocb = event->obj;
	struct file *f = file_of(iocb->aio_fildes);

	if (!f)
		return;
	if (is_sync(iocb))
		aio_sync_end(f, iocb, (long)event->res == 0);
	else if (iocb->aio_lio_opcode == IO_CMD_PWRITE && (long)event->res > 0)
		written(f, iocb->aio_fildes, (uint64_t)iocb->u.c.offset,
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

void interpose_file(const char *path)
{
	struct file *f = &files[nr_files];
	struct stat st;

	if (nr_files == MAX_FILES)
		die("more than %u files", MAX_FILES);
	if (stat(path, &st))
		die_errno(path);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->base = (uint64_t)nr_files++ * LOG_PART;
	list_init(&f->unsynced);
}

void interpose_start(struct log_writer *log)
{
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
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < nr_files; i++)
		list_write(list_take(&files[i].unsynced).head);
	log_to = NULL;
	pthread_mutex_unlock(&lock);
}
