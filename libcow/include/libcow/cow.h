/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libcow/cow.h - images without a kernel: for cowd and the tools.
 *
 * A chain is an image and all images below it.  libcow loads the plugins,
 * opens and locks the files, keeps the metadata cache and its write order,
 * and answers where each block of the disk lives in terms of the files.
 *
 * Threads and processes: a chain belongs to the thread and the process that
 * opened it (it owns an aio context and a helper thread with all signals
 * blocked, and neither survives fork()).  So fork first, open after.  A
 * seccomp filter must be installed with TSYNC or before the open.
 *
 * Memory: everything is allocated by cow_chain_open().  After it, submitting
 * and dispatching allocate nothing; requests belong to the caller.  The
 * cache, the answer's bitmap and the buffer for materialised blocks are
 * mapped, not yet touched: mlockall(MCL_CURRENT) makes them resident.
 *
 * Errors are negative errno; each was reported by the log callback, as one
 * sentence that names the object, by the layer that detected it.
 */
#ifndef LIBCOW_COW_H
#define LIBCOW_COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <libcow/cow-plugin.h>

/* Images in a chain: a request holds a table or two of each (COW_REQUEST_PINS). */
#define COW_CHAIN_MAX		64u
#define COW_CACHE_DEFAULT	(16u << 20)
#define COW_SCRATCH_DEFAULT	(128u << 20)
#define COW_NO_FILE		UINT32_MAX
/* Most tables that a request holds, of all images together. */
#define COW_REQUEST_PINS	160u

struct cow_chain;
struct cow_request;

/* --- Plugins ----------------------------------------------------------- */

/*
 * Plugins are found as DIR/NAME.so (or .la) or DIR/NAME/NAME.la in dir (a
 * list separated by colons; NULL is none), then $COWD_PLUGIN_DIR (ignored in
 * a program with raised privileges), then the installed directory.
 */
struct cow_plugins;

enum cow_log_level {
	COW_LOG_ERROR,
	COW_LOG_WARNING,
	COW_LOG_DEBUG,
};

typedef void (*cow_log_fn)(void *ctx, enum cow_log_level level,
			   const char *text);

/* log may be NULL: to stderr then, without debug.  It gets all messages. */
int cow_plugins_new(const char *dir, cow_log_fn log, void *ctx,
		    struct cow_plugins **plugins);
/* Unloads.  All chains must be closed before. */
void cow_plugins_free(struct cow_plugins *plugins);
/* The plugin of that name, loaded if need be: -ENOENT, -ELIBBAD (reported). */
int cow_plugins_get(struct cow_plugins *plugins, const char *name,
		    const struct cow_plugin **plugin);
/* Call fn for each plugin found, in the order of names, until it is not 0. */
int cow_plugins_each(struct cow_plugins *plugins,
		     int (*fn)(void *ctx, const struct cow_plugin *plugin),
		     void *ctx);
/*
 * The format of a file by its contents: 1 and *plugin, 0 for none known.
 * Only to warn or to refuse: a guess must never be used for a raw image.
 */
int cow_plugins_probe(struct cow_plugins *plugins, const char *path,
		      const struct cow_plugin **plugin);

/* --- Opening ----------------------------------------------------------- */

/*
 * With the flags of open_file(): others may have the file open in the same
 * way, for writing too.  It is no flag of open(2).
 */
#define COW_OPEN_FILE_SHARED	(1 << 30)

struct cow_open_params {
	struct cow_plugins *plugins;
	const char *path;
	const char *format;		/* name of the plugin; never guessed */
	uint32_t flags;			/* COW_OPEN_*, for the top image */
	/* "name=value" ... NULL, for the top image, or NULL. */
	const char *const *options;
	/*
	 * Folders (absolute) in which a backing path, or that of a further
	 * file, found inside an image must lie, links resolved; ends with
	 * NULL.  NULL: anywhere, for images that the user made himself.
	 */
	const char *const *allowed_dirs;
	uint64_t cache_bytes;		/* 0: COW_CACHE_DEFAULT */
	/*
	 * Opens a file as open(2) does, with O_CLOEXEC in flags, and
	 * COW_OPEN_FILE_SHARED where the plugin is shared; returns a
	 * descriptor that libcow owns, or a negative errno.  Called up to
	 * twice a file, the second time with O_DIRECT for metadata.  NULL:
	 * open(2) itself.
	 */
	int (*open_file)(void *ctx, const char *path, int flags);
	/*
	 * A file was made larger (bytes): a device made of it has to follow
	 * before the request that did it is done.  May be NULL.
	 */
	int (*file_resized)(void *ctx, uint32_t file, uint64_t size);
	void *ctx;			/* of both */
	/*
	 * A file, open for reading and writing and of no use to others, for
	 * blocks that must be materialised; libcow makes a copy of the
	 * descriptor.  -1: a memfd.  Note that 0 is a descriptor.
	 */
	int scratch_fd;
	uint64_t scratch_bytes;		/* see cow_scratch_full(); 0: COW_SCRATCH_DEFAULT */
	/*
	 * Data goes to the files by direct I/O, as the kernel's does, and so
	 * metadata must too, by sectors where need be.  Else what is no whole
	 * page goes through the page cache, as the data beside it.
	 */
	bool direct_data;
};

#define COW_OPEN_PARAMS_INIT	{ .scratch_fd = -1 }

/*
 * Open an image and all below it.  The top image is writable with
 * COW_OPEN_WRITE, all others are read-only.  Locks: a writable image
 * exclusively, others shared; images of a plugin that is shared against all
 * but each other; -EBUSY (reported) when that fails.  Without open_file also
 * when a loop device is made of a file that would be written: whoever made it
 * may have died, with his lock.
 */
int cow_chain_open(const struct cow_open_params *params,
		   struct cow_chain **chain);
/*
 * Close.  What is not committed is dropped.  Requests not done are completed
 * with -ECANCELED before it returns.  NULL is fine.
 */
void cow_chain_close(struct cow_chain *chain);

struct cow_chain_info {
	uint64_t size;		/* bytes, whole sectors */
	uint32_t block_size;	/* bytes, that of the top image */
	uint32_t nr_images;
	uint64_t nr_blocks;	/* the last may be short */
	uint32_t nr_files;
	bool writable;
	bool can_discard;	/* the top plugin wants to know of these; */
	bool can_write_zeroes;	/* if not, act on the places */
};

void cow_chain_info(const struct cow_chain *chain,
		    struct cow_chain_info *info);

/* A file that mappings may refer to, by its index in the chain. */
struct cow_file_info {
	const char *path;	/* valid as long as the chain */
	int fd;			/* the chain's: duplicate to keep; not O_DIRECT */
	uint64_t size;		/* bytes */
	bool writable;		/* mappings may be written */
	bool block_device;
	bool scratch;		/* materialised blocks: read-only for mappings */
	uint32_t level;		/* of the image it belongs to; not of scratch */
};

int cow_chain_file(const struct cow_chain *chain, uint32_t file,
		   struct cow_file_info *info);

/* Image level: 0 is the top.  NULL past the end. */
struct cow_image *cow_chain_image(const struct cow_chain *chain,
				  uint32_t level);
const char *cow_image_format(const struct cow_image *img);
uint32_t cow_image_block_size(const struct cow_image *img);
/* What the image names as its backing, or NULL; level + 1 may not be open. */
const char *cow_image_backing_path(const struct cow_image *img);
const char *cow_image_backing_format(const struct cow_image *img);

/* --- Requests ---------------------------------------------------------- */

enum cow_op {
	COW_OP_MAP,		/* where is block first */
	COW_OP_COPIED,		/* these blocks stand at file, offset */
	COW_OP_COMMIT,		/* make the metadata durable */
	COW_OP_DISCARD,
	COW_OP_WRITE_ZEROES,
};

/*
 * COMMIT: the data of everything reported as copied is durable already, as
 * the kernel promises at FLUSH.  Without it the files are synced first.
 */
#define COW_REQ_DATA_DURABLE	(1u << 8)
/*
 * MAP of a read: only to know where.  A block that would have to be put into
 * the scratch file is answered by its place there, but is not made.
 */
#define COW_REQ_LOOK		(1u << 9)
/*
 * COPIED: if it fails the caller submits it again, and no COMMIT before it has
 * succeeded.  Without it the next COMMIT gets its errno.
 */
#define COW_REQ_AGAIN		(1u << 10)

/* Kernel-ready: what a caller gets for COW_OP_MAP. */
struct cow_answer {
	uint32_t kind;		/* COW_KIND_LINEAR, _COW or _ZERO, no other */
	uint32_t flags;		/* COW_MAPPING_WRITABLE, _ONCE, _DIRTY */
	uint64_t first;		/* blocks of the chain */
	uint64_t count;
	uint32_t file;		/* LINEAR, COW: where block first stands */
	uint32_t src_file;	/* COW: COW_NO_FILE means zeroes */
	uint64_t offset;	/* bytes, whole sectors */
	uint64_t src_offset;	/* bytes, whole sectors */
	/*
	 * COW: blocks copied already, bit n % 8 of byte n / 8 for block
	 * first + n, or NULL for none.  Valid during done() only.
	 */
	const uint8_t *copied;
};

typedef void (*cow_done_fn)(struct cow_request *req, int status);

/*
 * A request, owned by the caller, untouched by it from cow_submit() to
 * done().  Requests are independent of each other and may be done in any
 * order, but for one rule: a COMMIT covers every COPIED, DISCARD and
 * WRITE_ZEROES submitted before it, and no COPIED, DISCARD or
 * WRITE_ZEROES submitted after it.  When a COPIED failed, each later COMMIT
 * fails with its errno: the metadata does not say what it should.
 *
 * What DISCARD and WRITE_ZEROES did is lost with the process until a COMMIT,
 * and the kernel does not replay it as it does COPIED.  So who answers a
 * kernel commits before the answer, or old data could come back under it.
 */
struct cow_request {
	enum cow_op op;
	/* COW_QUERY_WRITE, COW_QUERY_OVERWRITE, COW_REQ_*. */
	uint32_t flags;
	uint64_t first;		/* block */
	uint64_t count;		/* blocks; at least 1 but for COMMIT */
	/*
	 * MAP: the answer stays inside; limit_end 0 means all of the disk.
	 * Answers are never more than COW_COPIED_BITS_MAX blocks if they
	 * bring bits.
	 */
	uint64_t limit_first;
	uint64_t limit_end;
	/* COPIED: where block first stands.  file is the chain's index. */
	uint32_t file;
	uint64_t offset;
	/*
	 * Called once, from cow_dispatch(), cow_chain_close() or within
	 * cow_submit().  May submit, must not dispatch or close.
	 */
	cow_done_fn done;
	void *user;

	struct cow_answer answer;	/* MAP, status 0 */

	struct {
		struct cow_request *next, *prev;	/* in order of id */
		struct cow_mapping top;
		uint64_t id;
		uint64_t progress;	/* blocks; MAP: bytes of the block */
		uint16_t state;
		bool waiting, starved;
		uint8_t behind;		/* enum cow_behind */
		uint16_t nr_pins;
		uint16_t pins[COW_REQUEST_PINS];
	} priv;
};

/*
 * Submit.  Always takes the request: errors too come by done(), at once for
 * a request that is not well-formed (-EINVAL, -ERANGE, -EROFS).
 */
void cow_submit(struct cow_chain *chain, struct cow_request *req);
/* Readable when cow_dispatch() has something to do. */
int cow_event_fd(const struct cow_chain *chain);
/* Do what can be done without waiting.  Number of requests done. */
int cow_dispatch(struct cow_chain *chain);
/* Metadata stands in memory that no commit has written yet. */
bool cow_chain_dirty(const struct cow_chain *chain);

/*
 * Data of blocks that were reported as copied may be lost: every COMMIT fails
 * with -EIO until one comes with COW_REQ_DATA_DURABLE.  A sync of a file that
 * fails does this by itself.
 */
void cow_hold_commits(struct cow_chain *chain);
/* How many syncs failed so far. */
uint64_t cow_failed_syncs(const struct cow_chain *chain);

/*
 * The scratch file is memory.  Do the blocks in it take scratch_bytes or more?  Then
 * all of them lie in [*first, *first + *count), and the caller sees to it that none there
 * is used, nor any answer about them given out that came before, and empties that part.
 */
bool cow_scratch_full(struct cow_chain *chain, uint64_t *first, uint64_t *count);
/* -errno (reported): the blocks are still there. */
int cow_scratch_empty(struct cow_chain *chain, uint64_t first, uint64_t count);

struct cow_stats {
	uint64_t cache_bytes;	/* memory of the cache */
	uint64_t table_hits;
	uint64_t table_reads;
	uint64_t table_writes;
	uint64_t commits;
	uint64_t materialised;	/* blocks put into the scratch file */
	uint64_t cache_tables;	/* that the cache has room for */
	uint64_t looked_at;	/* tables that commits looked at */
};

void cow_chain_stats(const struct cow_chain *chain, struct cow_stats *stats);

/* --- Data, in user space (libcow/io.c) --------------------------------- */

/*
 * What the kernel does, done here: for tools and tests.  They block, driving
 * the chain's events themselves.  Any alignment; ranges must lie inside the
 * disk (-EINVAL).  A write is durable after cow_flush().
 */
int cow_pread(struct cow_chain *chain, void *buf, size_t len, uint64_t offset);
int cow_pwrite(struct cow_chain *chain, const void *buf, size_t len,
	       uint64_t offset);
int cow_flush(struct cow_chain *chain);
/* Whole blocks inside the range only; the rest keeps its contents. */
int cow_pdiscard(struct cow_chain *chain, uint64_t offset, uint64_t len);
int cow_pwrite_zeroes(struct cow_chain *chain, uint64_t offset, uint64_t len);
/* What the disk reads as from an offset on, and where that stands. */
struct cow_where {
	uint64_t len;		/* bytes from the offset that are alike */
	bool held;		/* by the top image; else what is below shows */
	bool zero;		/* reads as zeroes, and stands nowhere */
	uint32_t file;		/* !zero: the chain's file that holds it */
	uint64_t offset;	/* !zero: there, of the first byte */
};

/*
 * Fills *where for the first bytes of the range.  Reads metadata only: what
 * stands nowhere as it is (compressed) is said to be in the scratch file, but
 * it is not put there.
 */
int cow_where(struct cow_chain *chain, uint64_t offset, uint64_t len,
	      struct cow_where *where);
/* Submit one request and wait for it; its status. */
int cow_call(struct cow_chain *chain, struct cow_request *req);

/* --- Whole-image operations -------------------------------------------- */

struct cow_create_params {
	struct cow_plugins *plugins;
	const char *path;
	const char *format;
	uint64_t size;			/* bytes; 0: that of the backing */
	uint32_t block_size;		/* bytes; 0: the format's default */
	const char *backing_path;	/* as given by the user, or NULL */
	const char *backing_format;
	const char *const *options;
	bool force;			/* replace an existing file */
	/*
	 * Give the new image its contents, before it appears under its name:
	 * chain is open for writing and is flushed after.  NULL: it is blank.
	 * A failure is the failure of all.
	 */
	int (*fill)(void *ctx, struct cow_chain *chain);
	/*
	 * Called before, during and after the time in which a block device is
	 * filled with zeroes, which may take hours: done of size bytes are.
	 * What is not 0 (reported) ends it.  May be NULL.
	 */
	int (*zeroing)(void *ctx, uint64_t done, uint64_t size);
	void *ctx;			/* of both */
};

/*
 * Create an image.  It appears under its name only when it is complete and
 * durable; on failure nothing is left behind and an existing file is as it
 * was.  -EEXIST (reported) without force.  A block device is made an image in
 * place, with force only; what it held is lost in any case.
 */
int cow_create_image(const struct cow_create_params *params);

struct cow_finding {
	enum cow_severity severity;
	bool repaired;
	const char *text;
};

struct cow_check_result {
	uint64_t corrupt;	/* findings not repaired */
	uint64_t leaks;
	uint64_t repaired;
};

/*
 * Check the top image.  fn is called for each finding; for the first hundred,
 * and then once to say how many more there are.
 */
int cow_chain_check(struct cow_chain *chain, bool repair,
		    void (*fn)(void *ctx, const struct cow_finding *finding),
		    void *ctx, struct cow_check_result *result);

/* One thing to tell about an image: a number, or a text if not NULL. */
struct cow_fact {
	const char *name;
	const char *label;
	const char *text;
	uint64_t number;
};

int cow_chain_describe(struct cow_chain *chain,
		       void (*fn)(void *ctx, const struct cow_fact *fact),
		       void *ctx);
/* Change a property of the top image; see the plugin's options. */
int cow_chain_amend(struct cow_chain *chain, const char *name,
		    const char *value);

#endif /* LIBCOW_COW_H */
