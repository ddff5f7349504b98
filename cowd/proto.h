/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the two processes of a cowd talk: the privileged parent, and the worker
 * that parses the image.  A socketpair of sequenced packets, one struct
 * cowd_msg each, at most one descriptor with it.
 *
 * The worker is not trusted: whoever reads a message from it checks every
 * field.  These are all messages; there is no way to ask for anything else.
 */
#ifndef COWD_PROTO_H
#define COWD_PROTO_H

#include <limits.h>
#include <stdint.h>

#include "serve.h"

enum cowd_msg_type {
	/* Worker to parent.  Each but the last three is answered by REPLY. */
	COWD_MSG_OPEN = 1,	/* text, number: path and open(2) flags */
	COWD_MSG_FILE,		/* make a device of file @index; fd with it */
	COWD_MSG_CREATE,	/* geometry: make the block device, attach */
	COWD_MSG_RESIZED,	/* file @index has @number bytes now */
	COWD_MSG_READY,		/* the worker serves */
	COWD_MSG_STATS,		/* the answer to GET_STATS */
	COWD_MSG_LOG,		/* index, text: level and sentence */
	/* Parent to worker. */
	COWD_MSG_REPLY,		/* status, maybe with a descriptor */
	COWD_MSG_GET_STATS,
};

#define COWD_FILE_WRITABLE	(1u << 0)
#define COWD_FILE_SCRATCH	(1u << 1)	/* the worker's own memory */

/* COWD_MSG_CREATE; the answer brings the attached descriptor. */
struct cowd_geometry {
	uint64_t nr_sectors;
	uint32_t block_sectors;
	uint32_t nr_files;
	uint64_t features;
};

/* COWD_MSG_STATS */
struct cowd_worker_stats {
	struct cowd_serve_stats serve;
	uint64_t cache_bytes, table_hits, table_reads, table_writes;
	uint64_t materialised;
	uint32_t dirty;
	uint32_t pad;
};

struct cowd_msg {
	uint32_t type;
	int32_t status;
	uint32_t index;
	uint32_t flags;
	uint64_t number;
	union {
		struct cowd_geometry geometry;
		struct cowd_worker_stats stats;
		char text[PATH_MAX];	/* ends with a NUL */
	};
};

/*
 * Send @msg, and @fd if it is not -1.  0 or a negative errno; with @wait false
 * -EAGAIN when the other side does not read.
 */
int cowd_msg_send(int sock, const struct cowd_msg *msg, int fd, int wait);
/*
 * Receive into @msg and *@fd (-1 for none; the caller's).  0, -EPIPE at the
 * end of the connection, -EPROTO for what is no message, -EAGAIN without @wait.
 */
int cowd_msg_recv(int sock, struct cowd_msg *msg, int *fd, int wait);

#endif /* COWD_PROTO_H */
