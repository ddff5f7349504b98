// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * aio.c - libaio for the fuzzer: what is submitted is done at once.
 *
 * The kernel takes tens of milliseconds to end an aio context, and an image
 * is opened for each input.  These take the place of the library's functions
 * of the same name in the program that is linked with them.
 */
#include <errno.h>
#include <libaio.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define DEPTH 1024

struct io_context {
	struct io_event events[DEPTH];
	unsigned int first, count;
};

int io_setup(int maxevents, io_context_t *ctx)
{
	if (maxevents > DEPTH)
		return -EINVAL;
	*ctx = calloc(1, sizeof(**ctx));
	return *ctx ? 0 : -ENOMEM;
}

int io_destroy(io_context_t ctx)
{
	free(ctx);
	return 0;
}

static long run(const struct iocb *cb)
{
	ssize_t ret;

	switch (cb->aio_lio_opcode) {
	case IO_CMD_PREAD:
		ret = pread(cb->aio_fildes, cb->u.c.buf, cb->u.c.nbytes,
			    cb->u.c.offset);
		break;
	case IO_CMD_PWRITE:
		ret = pwrite(cb->aio_fildes, cb->u.c.buf, cb->u.c.nbytes,
			     cb->u.c.offset);
		break;
	default:		/* sync: nothing is to survive */
		return 0;
	}
	return ret < 0 ? -errno : ret;
}

int io_submit(io_context_t ctx, long nr, struct iocb *iocbs[])
{
	const uint64_t one = 1;
	long i;

	for (i = 0; i < nr && ctx->count < DEPTH; i++) {
		struct iocb *cb = iocbs[i];
		struct io_event *e = &ctx->events[(ctx->first + ctx->count++) % DEPTH];

		e->data = cb->data;
		e->obj = cb;
		e->res = (unsigned long)run(cb);
		if (write((int)cb->u.c.resfd, &one, sizeof(one)) < 0)
			abort();
	}
	return i ? (int)i : -EAGAIN;
}

int io_getevents(io_context_t ctx, long min, long nr, struct io_event *events,
		 struct timespec *timeout)
{
	long i;

	(void)min;
	(void)timeout;
	for (i = 0; i < nr && ctx->count; i++, ctx->count--)
		events[i] = ctx->events[ctx->first++ % DEPTH];
	return (int)i;
}
