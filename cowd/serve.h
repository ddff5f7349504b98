/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core of cowd: the kernel's questions to libcow, libcow's answers to the
 * kernel.  It knows neither formats nor processes, waits for nothing and
 * allocates nothing after cowd_serve_new().
 */
#ifndef COWD_SERVE_H
#define COWD_SERVE_H

#include <stdbool.h>
#include <stdint.h>

struct cow_chain;
struct cowd_serve;

/* Counters since the start. */
struct cowd_serve_stats {
	uint64_t map, copied, flush, discard, write_zeroes;	/* events */
	uint64_t covered;	/* questions that another one's answer covered */
	uint64_t refused;	/* replies that the kernel did not take */
	uint64_t failed;	/* questions answered by an error */
	uint64_t emptied;	/* times that the scratch file was */
	uint64_t looked_at;	/* slots of questions, in search of those to do something about */
	uint64_t in_flight;	/* now */
	int commit_error;	/* negative errno of the last commit, or 0 */
};

/* Features to ask for when attaching for @chain. */
uint64_t cowd_serve_features(const struct cow_chain *chain);

/*
 * Serve @chain on the attached descriptor @fd, which is owned from then on.
 * Device n of the table is file n of the chain.  -ENOMEM; @fd is the
 * caller's then.
 */
int cowd_serve_new(struct cow_chain *chain, int fd, struct cowd_serve **serve);
/*
 * Answer nothing any more: what the chain's requests end with from now on says
 * nothing about the image.  NULL is allowed.
 */
void cowd_serve_stop(struct cowd_serve *serve);
/* Frees; the chain stays, and no request may be in flight in it. */
void cowd_serve_free(struct cowd_serve *serve);

/* Wait for input there only while this says so: else there is no room. */
bool cowd_serve_wants_events(const struct cowd_serve *serve);
int cowd_serve_fd(const struct cowd_serve *serve);
/* Milliseconds until cowd_serve_work() has to be called, or -1. */
int cowd_serve_timeout(const struct cowd_serve *serve);

/*
 * Do what can be done without waiting.  @io_ended: cow_event_fd() is readable, or nobody
 * looked; else what ended since then is found the next time.  0; -ENODEV when the target is gone;
 * -EPIPE after cowd_serve_stop(); another error that ends the service.
 */
int cowd_serve_work(struct cowd_serve *serve, bool io_ended);
/* The target is gone: may what it left uncommitted go to the image? */
bool cowd_serve_may_commit(struct cowd_serve *serve);

void cowd_serve_stats(const struct cowd_serve *serve,
		      struct cowd_serve_stats *stats);

#endif /* COWD_SERVE_H */
