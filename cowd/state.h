/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of the privileged process, for the files that it is made of and
 * for no other:
 *
 *	parent.c	the life of a device, and the one place that waits
 *	requests.c	what the worker may ask for
 *	device.c	the device: made, taken over, attached to, undone
 *	children.c	the worker and the helper processes
 *	stop.c		flush, remove
 *	upgrade.c	make way for the program that is installed now
 *	clients.c	what cowctl asks for
 */
#ifndef COWD_STATE_H
#define COWD_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control.h"
#include "files.h"
#include "options.h"
#include "proto.h"
#include "record.h"

struct cowd_user;
struct pollfd;

enum parent_state {
	STARTING, RUNNING, CHECKING, SYNCING, REMOVING, ENDING,
};

/* The longest that each may take, in seconds. */
#define START_S		120	/* opening a chain of large images */
#define CHECK_S		10	/* does the new program run at all? */
#define SYNC_S		60	/* a flush of all that is dirty */
#define REMOVE_S	20	/* 5 s of which for whoever just looks at it */
#define END_S		60	/* the worker's last commit */

struct parent {
	struct cowd_options *options;
	void (*ready)(void);
	enum parent_state state;
	int64_t deadline;	/* ms, of this state; 0: none */
	int64_t stats_deadline;
	struct cowd_record record;
	struct cowd_control control;
	struct cowd_files files;
	int signals;
	int sock;		/* to the worker; -1: closed */
	pid_t worker;		/* 0: none */
	pid_t helper;		/* 0: none */
	bool adopted;		/* there is a device, without a record */
	bool created;		/* there is a device that we made */
	bool attached;		/* and the worker has its channel */
	uint64_t dropped;	/* lines of the worker's, since that was said */
	bool breached;		/* the worker is at its end for that */
	uint32_t cookie;	/* udev's, of the device; 0: none */
	int64_t udev_deadline;	/* ms, the worker is ready; 0: not yet, or long since */
	int udev_step_ms;	/* until udev's cookie is looked at again */
	bool done;
	int exit_status;
};

extern struct parent parent;

/* ---- parent.c ------------------------------------------------------------ */

/* From now on in @state, for @seconds at most; 0: for as long as it takes. */
void parent_enter(enum parent_state state, int seconds);
void parent_finish(int exit_status);

/* ---- requests.c ---------------------------------------------------------- */

/*
 * Serve one message of the worker.  0, -EAGAIN there is none now, or another
 * negative errno: there will be no more.
 */
int request_serve(void);
/* Has udev handled the device, or had its time?  Then it is there for everybody. */
void request_udev(void);
/* Say how many lines of the worker's were too many, if any. */
void requests_tell_dropped(void);

/* ---- device.c ------------------------------------------------------------ */

/* Does what there is fit what is wanted?  May turn the start into a recovery. */
int device_check(void);
/* What is in force, see dmu_table_features(). */
int device_get_features(struct dmu_table *features);
/* Make the device, or take it over, and attach: a descriptor, or reported. */
int device_serve(const struct cowd_geometry *geometry);
/* A start failed: who waits for the device that it made gets errors now. */
void device_undo(void);
/* An upgrade that has held it is given up. */
void device_give_policy_back(void);
bool device_is_gone(void);

/* ---- children.c ---------------------------------------------------------- */

int worker_start(const struct cowd_user *user);
/* Returns when it is gone, or after a bounded time. */
void worker_stop(void);
/* Do @work in a process of its own; its end is told by helper_ended(). */
int helper_start(int (*work)(const char *name));
/* ... and wait for it, @ms at most: -ETIMEDOUT. */
int helper_run(int (*work)(const char *name), int ms);
void helper_kill(void);
/* Returns when there is none, or after a bounded time. */
void helper_stop(void);
/* Take the statuses of children that ended to the next two, of parent.c. */
void children_reap(void);
void worker_ended(int status);
void helper_ended(int err);

/* ---- stop.c, upgrade.c --------------------------------------------------- */

/* What a helper's end says when its time was over. */
#define HELPER_TIMEOUT	(-ETIME)

void stop_begin(void);
void stop_synced(int err);
void stop_removed(int err);
/* Note where this program is, while that can be told. */
void upgrade_prepare(void);
void upgrade_begin(void);
void upgrade_checked(int err);

/* ---- clients.c ----------------------------------------------------------- */

/* @fds: of the clients, in order. */
void clients_read(const struct pollfd *fds);
/* @stats: NULL, the worker has not answered in time. */
void clients_answer_status(const struct cowd_worker_stats *stats);
/* @error: NULL, it is done; or one sentence. */
void clients_answer(enum cowd_command command, const char *error);

#endif /* COWD_STATE_H */
