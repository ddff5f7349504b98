/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libdmu: placement daemons for the device-mapper target "userspace".
 *
 * The library has two sides that need not live in one process:
 *
 *   device	makes, changes, asks and removes the device-mapper device.
 *		Needs root.  Every wait is bounded.
 *   channel	attaches to the target by its key, reads its events and sends
 *		replies in batches.  After dmu_channel_open() nothing is
 *		allocated, so a daemon may serve the device that the system
 *		writes its dirty pages to.
 *
 * Errors are negative errno values.  Sectors are 512 bytes; blocks are the
 * unit of decision of one device and count from its start.  Nothing here is
 * safe to call for one object from two threads at once.
 *
 * The meaning of events, replies, kinds and flags (DMU_EV_*, DMU_RE_*,
 * DMU_KIND_*) is told in <linux/dm-userspace.h>, which this header includes.
 */
#ifndef DMU_H
#define DMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/dm-userspace.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- device ------------------------------------------------------------ */

#define DMU_UUID_PREFIX		"DMU-"	/* of every device made here */
#define DMU_NAME_LEN		128	/* of a device, with the NUL */

/* What happens to I/O that needs an answer while no daemon is attached. */
enum dmu_policy {
	DMU_POLICY_QUEUE,	/* it waits for a daemon, for ever */
	DMU_POLICY_FAIL,	/* it fails at once */
	DMU_POLICY_TIMEOUT,	/* it waits for a number of seconds, then fails */
};

/* One destination: where mapped I/O may go. */
struct dmu_dest {
	const char *dev;	/* path, or "major:minor"; no white space */
	bool read_only;		/* the target opens it for reading only */
	bool fresh;		/* reload: what was mapped to its index is forgotten */
};

/* A table of one target that covers the whole device. */
struct dmu_table {
	const char *key;	/* what a daemon attaches to; no white space */
	uint64_t nr_sectors;	/* length of the device */
	uint32_t block_sectors;	/* a power of two, 1 to 32768 */
	uint32_t nr_dests;	/* 1 to DMU_MAX_DEVS */
	const struct dmu_dest *dests;
	enum dmu_policy policy;
	uint32_t timeout_s;	/* with DMU_POLICY_TIMEOUT: at least 1 */
	bool no_space_wait;	/* hold writes that find no space */
	uint64_t map_memory_kib; /* budget of the remembered map; 0: default */
};

/* dmu_device_info() */
struct dmu_info {
	uint32_t major, minor;
	uint64_t nr_sectors;	/* 0: no table yet */
	int32_t open_count;
	bool suspended;
	bool read_only;
	bool live_table;
	bool deferred_remove;
	char uuid[129];
};

/* dmu_device_status(): what the target says of itself. */
struct dmu_status {
	bool attached;		/* a daemon is there */
	enum dmu_policy policy;
	uint32_t block_sectors;
	uint64_t hits_read, hits_write;	/* I/O served without asking */
	uint64_t file_ios;	/* of these, by the file of a loop device itself */
	uint64_t file_misses;	/* tried so, and left to the loop device */
	uint64_t faults;	/* blocks that had to wait for an answer */
	uint64_t events;	/* questions that carried them */
	uint64_t copies;	/* blocks copied by the kernel */
	uint64_t copy_errors;
	uint64_t overwrites;	/* copies saved, a write covered the block */
	uint64_t commits;
	uint64_t commit_errors;	/* by a device's flush or by the daemon */
	uint64_t flushes;	/* that needed no commit */
	uint64_t discards;	/* and write-zeroes */
	uint64_t extents;	/* remembered */
	uint64_t map_bytes, map_budget;
	uint64_t evictions;
	uint64_t waiting;	/* I/O held now */
	uint64_t uncommitted;	/* blocks copied since the last commit */
	uint64_t metadata_dirty; /* the daemon said it has something to commit */
	uint64_t failed;	/* 1: the policy's time is over */
	uint64_t no_space;	/* writes that wait for space, held too */
	uint64_t data_lost;	/* 1: a flush failed, nothing is committed */
};

#define DMU_DEV_READ_ONLY	(1U << 0)	/* create: a read-only device */
#define DMU_SUSPEND_NOFLUSH	(1U << 0)	/* do not wait for held I/O */
#define DMU_SUSPEND_NOLOCKFS	(1U << 1)	/* do not freeze the file system */
#define DMU_REMOVE_DEFERRED	(1U << 0)	/* when its last user closes it */
#define DMU_REMOVE_FORCE	(1U << 1)	/* make its I/O fail first */

/*
 * Write the parameters of @table's line (all after the target's name) to
 * @buf.  0, -EINVAL for a table that the target would refuse, or -E2BIG.
 */
int dmu_table_format(const struct dmu_table *table, char *buf, size_t size);

/* Parse a status line of the target.  0, or -EINVAL. */
int dmu_status_parse(const char *line, struct dmu_status *status);

/*
 * All dmu_device functions return -ENODEV or -EPERM where device-mapper
 * itself cannot be used.
 *
 * The last sentence that libdevmapper had to say about an error in this
 * process, never NULL.  Valid until the next call of a dmu_device function.
 */
const char *dmu_device_message_text(void);

/*
 * Make device @name and start it.  Nothing is left behind on failure.
 *
 * udev opens new devices.  With @cookie NULL the call waits for it, which
 * needs a daemon that is attached already or is attached by another thread;
 * otherwise *@cookie is for dmu_udev_wait(), to be called in any case.
 */
int dmu_device_create(const char *name, const struct dmu_table *table,
		      unsigned int flags, uint32_t *cookie);

/* Wait at most @timeout_ms for udev.  0, or -ETIMEDOUT. */
int dmu_udev_wait(uint32_t cookie, int timeout_ms);

/* Load a new table; it becomes live with the next suspend and resume. */
int dmu_device_load(const char *name, const struct dmu_table *table,
		    unsigned int flags);

/*
 * Hold all new I/O and wait until what is in flight is done.  Held faults are
 * in flight: without DMU_SUSPEND_NOFLUSH the daemon has to go on answering,
 * so do not call this from the thread that answers.
 */
int dmu_device_suspend(const char *name, unsigned int flags);

/*
 * Make the loaded table, if there is one, live, and let I/O go on.  udev may read from
 * the device then: @cookie is as in dmu_device_create().
 */
int dmu_device_resume(const char *name, uint32_t *cookie);

/*
 * Remove device @name, trying for at most @timeout_ms while it is busy.
 * 0 only when it is gone; -ENXIO there is none; -EBUSY it is held;
 * -EINPROGRESS it goes when its last user closes it (DMU_REMOVE_DEFERRED).
 * Opening and closing make I/O, so do not call this from the thread that
 * answers.
 */
int dmu_device_remove(const char *name, unsigned int flags, int timeout_ms);

/* 0, or -ENXIO when there is no such device. */
int dmu_device_info(const char *name, struct dmu_info *info);

/* Does the running kernel know the target?  0, -ENODEV no; else an error. */
int dmu_target_present(void);

/* -ENXIO: no such device; -EMEDIUMTYPE: it is of another target. */
int dmu_device_status(const char *name, struct dmu_status *status);

/*
 * The parameters of the table that is live, as dmu_table_format() writes them;
 * destinations as major:minor.  Errors as of dmu_device_status(), and -E2BIG.
 */
int dmu_device_table(const char *name, char *buf, size_t size);

/*
 * policy, timeout_s, no_space_wait and map_memory_kib of such parameters: those
 * in force, if they are of a live table.  0 or -EINVAL.
 */
int dmu_table_features(const char *params, struct dmu_table *table);

/* Send a message (dmsetup message NAME 0 @text) to the target. */
int dmu_device_message(const char *name, const char *text);

/* ---- channel ----------------------------------------------------------- */

/* What attaching tells about the device. */
struct dmu_geometry {
	uint32_t block_sectors;
	uint32_t nr_devs;
	uint64_t nr_sectors;
	uint64_t features;	/* agreed, DMU_FEAT_* */
};

struct dmu_channel;

/* Blocks [block, block + count). */
struct dmu_extent {
	uint64_t block;
	uint64_t count;
};

/* Sector @sector of the table's device number @dev. */
struct dmu_place {
	uint32_t dev;
	uint64_t sector;
};

/*
 * Told for every reply that the kernel refused with @error (negative).
 * @reply and the bitmap behind it are valid during the call only, which must
 * not queue replies.  Questions whose answer was refused are still owed.
 *
 * -ENOENT for an answer to a MAP question: another answer that is remembered
 * had covered the question since it was read, so that it is owed no more.  But
 * this answer was not taken either: what else it was to cover is still owed.
 */
typedef void dmu_refused_fn(void *data, const struct dmu_reply *reply,
			    int error);

/*
 * Open the control node and attach to @key with exactly @features.  Returns
 * a file descriptor, non-blocking and close-on-exec, which the caller owns
 * and may pass to another process; fills @geometry.  -ENOENT: no control
 * node (no module); others see struct dmu_attach.
 */
int dmu_attach(const char *key, uint64_t features,
	       struct dmu_geometry *geometry);

/*
 * A channel on attached descriptor @fd, which it owns from then on and closes.
 * At most @max_events are read at once; at least @max_replies without bitmap
 * plus @bitmap_bytes of bitmaps are collected before they are written.
 * @refused may be NULL.  On error @fd still belongs to the caller.
 */
int dmu_channel_open(int fd, unsigned int max_events, unsigned int max_replies,
		     size_t bitmap_bytes, dmu_refused_fn *refused, void *data,
		     struct dmu_channel **channel);
/* Replies that are queued are dropped; what was owed is asked again. */
void dmu_channel_close(struct dmu_channel *channel);

/* For poll(): POLLIN when there are events, POLLHUP when reading says that the target is gone. */
int dmu_channel_fd(const struct dmu_channel *channel);

/*
 * Read the events that wait, at most the channel's batch.  Returns their
 * number and points *@events at them, valid until the next call; -EAGAIN none
 * waits; -ENODEV the target is gone; -EIO it is gone after DMU_EV_LOST, and what
 * was not committed is not to be.
 */
int dmu_read_events(struct dmu_channel *channel,
		    const struct dmu_event **events);

/*
 * Replies are queued by these, in order, and written when the queue is full
 * and by dmu_flush_replies().  Each returns 0, -EINVAL for a bad argument,
 * -E2BIG for a bitmap that the channel has no room for, or the fatal error of
 * a write (see dmu_flush_replies()).
 *
 * @id is the question's; 0 makes it an unasked mapping (PRELOAD).
 * @flags: DMU_RE_REMEMBER, DMU_RE_WRITABLE, DMU_RE_METADATA.
 */
int dmu_reply_linear(struct dmu_channel *channel, uint64_t id,
		     struct dmu_extent extent, struct dmu_place place,
		     unsigned int flags);
/*
 * @bitmap: NULL, nothing is copied yet; else *@bitmap is DMU_BITMAP_LEN(count)
 * bytes of zeroes in the queue for the caller to fill before it calls
 * anything else for this channel.  @source.dev may be DMU_DEV_NONE.
 */
int dmu_reply_cow(struct dmu_channel *channel, uint64_t id,
		  struct dmu_extent extent, struct dmu_place dest,
		  struct dmu_place source, unsigned int flags,
		  uint64_t **bitmap);
int dmu_reply_zero(struct dmu_channel *channel, uint64_t id,
		   struct dmu_extent extent, unsigned int flags);
int dmu_reply_error(struct dmu_channel *channel, uint64_t id,
		    struct dmu_extent extent, unsigned int flags);
/* @error: negative errno for the I/O that waits. */
int dmu_reply_fail(struct dmu_channel *channel, uint64_t id,
		   struct dmu_extent extent, int error);
/* @error: 0, or a negative errno. */
int dmu_reply_flushed(struct dmu_channel *channel, uint64_t id, int error);
int dmu_reply_done(struct dmu_channel *channel, uint64_t id, int error);
/* @id: any number but 0; INVALIDATED will carry it.  @flags: DMU_RE_FORGET. */
int dmu_invalidate(struct dmu_channel *channel, uint64_t id,
		   struct dmu_extent extent, unsigned int flags);
/* @flags: DMU_RE_METADATA, there is something that only the daemon knows of. */
int dmu_request_commit(struct dmu_channel *channel, unsigned int flags);
/*
 * A flush that the daemon itself made failed, so that what is copied and not
 * committed may be lost.  The kernel asks for no commit of it any more.
 */
int dmu_report_lost(struct dmu_channel *channel);

/*
 * Write all queued replies.  Those that the kernel refuses are told to the
 * channel's refused function and skipped.  0, or -ENODEV (the target is gone),
 * -ENOTCONN and other errors that end the channel; the queue is then empty.
 */
int dmu_flush_replies(struct dmu_channel *channel);

#ifdef __cplusplus
}
#endif

#endif /* DMU_H */
