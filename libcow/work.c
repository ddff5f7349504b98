// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * work.c - what a plugin does that may block, for a callback that must not.
 *
 * One work at a time.  Its owner is the request whose callback asked for it,
 * which is run again when it is through, and gets the result.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

static struct cow_work *work_of(struct cow_io *io)
{
	return (struct cow_work *)((char *)io - offsetof(struct cow_work, io));
}

/* In the helper thread. */
static int run(struct cow_io *io)
{
	struct cow_work *w = work_of(io);

	return w->work(w->arg);
}

static void run_done(struct cow_io *io)
{
	work_of(io)->busy = false;
}

int cow_work(struct cow_image *img, int (*work)(const void *arg),
	     const void *arg, size_t len)
{
	struct cow_chain *chain = img->chain;
	struct cow_work *w = &chain->work;

	if (!chain->current || len > sizeof(w->arg))
		return -EINVAL;
	if (w->owner && w->owner != chain->current)
		chain->current->priv.behind = COW_BEHIND_WORK;
	if (w->busy || (w->owner && w->owner != chain->current))
		return -EAGAIN;
	if (w->owner) {
		w->owner = NULL;
		/* What was wanted before may not be any more. */
		if (w->work == work && !memcmp(w->arg, arg, len))
			return w->io.status;
	}
	w->owner = chain->current;
	w->busy = true;
	w->work = work;
	memcpy(w->arg, arg, len);
	w->io = (struct cow_io){
		.op = COW_IO_WORK,
		.work = run,
		.done = run_done,
	};
	cow_engine_submit(&chain->engine, &w->io);
	return -EAGAIN;
}

void cow_work_release(struct cow_chain *chain, struct cow_request *req)
{
	if (chain->work.owner == req)
		chain->work.owner = NULL;
}
