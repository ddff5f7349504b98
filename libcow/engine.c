// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * engine.c - I/O that does not hold up the thread of the chain.
 *
 * Aligned I/O to files that take O_DIRECT goes through aio.  All else (files
 * of a file system without direct I/O, unaligned tables, a sync where aio
 * has none, work that takes long) is done by one helper thread.  Both tell
 * the end by the same eventfd.  done() is called by cow_engine_reap() only.
 *
 * The helper thread touches nothing but the I/O that it was given.
 */
#include "internal.h"

#include <common/file.h>
#include <common/num.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define AIO_DEPTH 128

/*
 * cowd locks its memory, and with it the whole stack, used or not: the 8 MiB of the
 * default would be what a device costs.  A sanitizer's frames are larger.
 */
#ifndef __has_feature
#define __has_feature(name) 0	/* clang's way of telling */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HELPER_STACK	(8u << 20)
#else
#define HELPER_STACK	(512u << 10)
#endif

static void list_init(struct cow_io_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_add(struct cow_io_list *list, struct cow_io *io)
{
	io->next = NULL;
	*list->tail = io;
	list->tail = &io->next;
}

static struct cow_io *list_pop(struct cow_io_list *list)
{
	struct cow_io *io = list->head;

	if (io) {
		list->head = io->next;
		if (!list->head)
			list->tail = &list->head;
	}
	return io;
}

/* --- The helper thread ---------------------------------------------------- */

static int helper_do(struct cow_io *io)
{
	switch (io->op) {
	case COW_IO_READ:
		return file_pread_all(io->file->fd, io->buf, io->len,
				      io->offset);
	case COW_IO_WRITE:
		return file_pwrite_all(io->file->fd, io->buf, io->len,
				       io->offset);
	case COW_IO_SYNC:
		return fdatasync(io->file->fd) < 0 ? -errno : 0;
	case COW_IO_WORK:
		return io->work(io);
	}
	return -EINVAL;
}

static void signal_event(struct cow_engine *e)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: then it is readable as well. */
	while (write(e->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void *helper_main(void *arg)
{
	struct cow_engine *e = arg;
	struct cow_io *io;

	pthread_mutex_lock(&e->lock);
	while (!e->stop) {
		io = list_pop(&e->todo);
		if (!io) {
			pthread_cond_wait(&e->wake, &e->lock);
			continue;
		}
		pthread_mutex_unlock(&e->lock);
		io->status = helper_do(io);
		pthread_mutex_lock(&e->lock);
		list_add(&e->finished, io);
		signal_event(e);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static void helper_submit(struct cow_engine *e, struct cow_io *io)
{
	pthread_mutex_lock(&e->lock);
	list_add(&e->todo, io);
	pthread_cond_signal(&e->wake);
	pthread_mutex_unlock(&e->lock);
}

/* What a thread has at least is the C library's to say, and may depend on the processor. */
static int helper_create(struct cow_engine *e)
{
	size_t least = (size_t)PTHREAD_STACK_MIN;
	pthread_attr_t attr;
	int ret = pthread_attr_init(&attr);

	if (ret)
		return ret;
	ret = pthread_attr_setstacksize(&attr, num_max(HELPER_STACK, least));
	if (!ret)
		ret = pthread_create(&e->thread, &attr, helper_main, e);
	pthread_attr_destroy(&attr);
	return ret;
}

static int helper_start(struct cow_engine *e)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = helper_create(e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	e->has_thread = !ret;
	return -ret;
}

/* --- Start and stop ------------------------------------------------------- */

int cow_engine_start(struct cow_engine *e, bool direct,
		     const struct cow_log *log)
{
	int ret;

	list_init(&e->backlog);
	list_init(&e->todo);
	list_init(&e->finished);
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->wake, NULL);
	e->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->event_fd < 0)
		return cow_log_error(log, -errno,
				     "an eventfd cannot be made: %s",
				     strerror(errno));
	/* To end a context takes the kernel tens of milliseconds. */
	ret = direct ? io_setup(AIO_DEPTH, &e->aio) : 0;
	if (ret)
		return cow_log_error(log, ret,
			"asynchronous I/O cannot be set up: %s (see the sysctl fs.aio-max-nr)",
			strerror(-ret));
	ret = helper_start(e);
	if (ret)
		return cow_log_error(log, ret, "a thread cannot be made: %s",
				     strerror(-ret));
	return 0;
}

void cow_engine_stop(struct cow_engine *e)
{
	if (e->has_thread) {
		pthread_mutex_lock(&e->lock);
		e->stop = true;
		pthread_cond_signal(&e->wake);
		pthread_mutex_unlock(&e->lock);
		pthread_join(e->thread, NULL);
	}
	if (e->aio)
		io_destroy(e->aio);
	if (e->event_fd >= 0)
		close(e->event_fd);
}

/* --- Aio ------------------------------------------------------------------ */

static bool fits_aio(const struct cow_engine *e, const struct cow_io *io)
{
	uint32_t align;

	if (!e->aio || io->op == COW_IO_WORK || io->file->dio_fd < 0)
		return false;
	if (io->op == COW_IO_SYNC)
		return !e->no_aio_sync;
	align = io->file->dio_align;
	return num_is_aligned(io->offset, align) &&
	       num_is_aligned(io->len, align) &&
	       num_is_aligned((uintptr_t)io->buf, align);
}

static void prepare(struct cow_engine *e, struct cow_io *io)
{
	int fd = io->file->dio_fd;

	if (io->op == COW_IO_READ)
		io_prep_pread(&io->iocb, fd, io->buf, io->len,
			      (long long)io->offset);
	else if (io->op == COW_IO_WRITE)
		io_prep_pwrite(&io->iocb, fd, io->buf, io->len,
			       (long long)io->offset);
	else
		io_prep_fdsync(&io->iocb, fd);
	io_set_eventfd(&io->iocb, e->event_fd);
	io->iocb.data = io;
}

/* False: the kernel has no room now. */
static bool aio_submit(struct cow_engine *e, struct cow_io *io)
{
	struct iocb *iocb = &io->iocb;
	int ret;

	if (e->in_aio == AIO_DEPTH)
		return false;
	prepare(e, io);
	ret = io_submit(e->aio, 1, &iocb);
	if (ret == 1) {
		e->in_aio++;
		return true;
	}
	if (ret == -EAGAIN && e->in_aio)
		return false;
	if (io->op == COW_IO_SYNC && ret == -EINVAL)
		e->no_aio_sync = true;
	/* What aio does not take, the helper does, or gets a real error. */
	helper_submit(e, io);
	return true;
}

void cow_engine_submit(struct cow_engine *e, struct cow_io *io)
{
	e->in_flight++;
	if (!fits_aio(e, io))
		helper_submit(e, io);
	else if (e->backlog.head || !aio_submit(e, io))
		list_add(&e->backlog, io);
}

static void submit_backlog(struct cow_engine *e)
{
	struct cow_io *io;

	while ((io = e->backlog.head)) {
		struct cow_io *next = io->next;

		if (!aio_submit(e, io))
			return;
		/* The helper's list may have taken io->next over. */
		e->backlog.head = next;
		if (!next)
			e->backlog.tail = &e->backlog.head;
	}
}

static void finish(struct cow_engine *e, struct cow_io *io)
{
	e->in_flight--;
	io->done(io);
}

static int aio_status(const struct cow_io *io, const struct io_event *event)
{
	long res = (long)event->res;

	if (res < 0)
		return (int)res;
	if (io->op != COW_IO_SYNC && (unsigned long)res < io->len)
		return io->op == COW_IO_READ ? -ENODATA : -ENOSPC;
	return 0;
}

static unsigned int reap_aio(struct cow_engine *e)
{
	struct io_event events[32];
	struct timespec none = { 0 };
	unsigned int n = 0;
	int got, i;

	while (e->in_aio) {
		got = io_getevents(e->aio, 0, 32, events, &none);
		if (got <= 0)
			break;
		e->in_aio -= (unsigned int)got;
		n += (unsigned int)got;
		for (i = 0; i < got; i++) {
			struct cow_io *io = events[i].data;

			io->status = aio_status(io, &events[i]);
			/* A full sync is right where the small one is not. */
			if (io->op == COW_IO_SYNC && io->status == -EINVAL) {
				e->no_aio_sync = true;
				helper_submit(e, io);
				continue;
			}
			finish(e, io);
		}
	}
	return n;
}

static unsigned int reap_helper(struct cow_engine *e)
{
	struct cow_io *io, *next;
	unsigned int n = 0;

	pthread_mutex_lock(&e->lock);
	io = e->finished.head;
	list_init(&e->finished);
	pthread_mutex_unlock(&e->lock);
	for (; io; io = next, n++) {
		next = io->next;
		finish(e, io);
	}
	return n;
}

unsigned int cow_engine_reap(struct cow_engine *e)
{
	uint64_t count;
	unsigned int n;

	/* Read it before looking, so that what ends after wakes us again. */
	while (read(e->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
	n = reap_aio(e) + reap_helper(e);
	submit_backlog(e);
	return n;
}

void cow_engine_wait(struct cow_engine *e)
{
	struct pollfd pfd = { .fd = e->event_fd, .events = POLLIN };

	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
}
