/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * internal.h - what the parts of libcow know of each other.
 *
 *	chain.c		open and close a chain; its files
 *	image.c		one image: its plugin, its handle
 *	file.c		one file: open, lock, blocking I/O
 *	plugins.c	find and load plugins
 *	engine.c	asynchronous I/O: aio, and one helper thread
 *	table.c		the cache of metadata tables
 *	commit.c	write order: what is dirty becomes durable
 *	request.c	requests: run, restart, done
 *	resolve.c	a mapping through all images of the chain
 *	scratch.c	blocks that stand nowhere as they are
 *	work.c		what plugins do that may block
 *	io.c		data, for tools and tests
 *
 * Only engine.c knows of the helper thread; all else runs in one thread.
 */
#ifndef LIBCOW_INTERNAL_H
#define LIBCOW_INTERNAL_H

#include <libaio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>

#include <libcow/cow.h>

/* Direct I/O is aligned to this in memory, and in regular files if it can be. */
#define COW_DIO_ALIGN	4096u

/* --- Messages (log.c) -------------------------------------------------- */

struct cow_log {
	cow_log_fn fn;
	void *ctx;
	const char *above;	/* the image whose backing image speaks, or NULL */
};

void cow_log_set(struct cow_log *log, cow_log_fn fn, void *ctx);
/* Reports and returns code. */
int cow_log_error(const struct cow_log *log, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void cow_log_warn(const struct cow_log *log, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void cow_log_v(const struct cow_log *log, enum cow_log_level level,
	       const char *object, const char *fmt, va_list ap);

/* --- Plugins (plugins.c) ----------------------------------------------- */

const struct cow_log *cow_plugins_log(const struct cow_plugins *plugins);
/* Bytes of a file's start by which its format may be known. */
#define COW_PROBE_BYTES (64u << 10)
const struct cow_plugin *cow_plugins_recognise(struct cow_plugins *plugins,
					       const void *buf, size_t len,
					       uint64_t file_size);
/* Is this a name that may be looked for in a folder of plugins? */
bool cow_plugin_name_ok(const char *name);

/* --- Files (file.c) ---------------------------------------------------- */

struct cow_file {
	char *path;
	int fd;			/* buffered; holds the lock */
	int dio_fd;		/* O_DIRECT, or -1 where that does not work */
	uint32_t dio_align;	/* bytes */
	uint64_t size;		/* bytes */
	uint64_t dev, ino;
	uint32_t index;		/* in the chain */
	uint32_t level;		/* of its image */
	bool writable;
	bool shared;		/* with those who open it in the same way */
	bool direct_data;	/* somebody else writes data by direct I/O */
	bool block_device;
	bool scratch;
	bool needs_sync;	/* a commit wrote to it */
};

/* How to open: the caller's function, or open(2). */
struct cow_opener {
	int (*open_file)(void *ctx, const char *path, int flags);
	void *ctx;
	bool direct_data;
};

/* As open(2), with O_CLOEXEC: a descriptor or a negative errno. */
int cow_opener_open(const struct cow_opener *opener, const char *path,
		    int flags);
/* Opens, checks and locks.  The error is reported. */
int cow_file_open(const struct cow_opener *opener, const struct cow_log *log,
		  const char *path, bool writable, bool shared,
		  struct cow_file **file);
/* Takes over fd, for a file that is no image yet. */
int cow_file_adopt(const struct cow_log *log, const char *path, int fd,
		   struct cow_file **file);
void cow_file_close(struct cow_file *file);
/* No device may be made of what is locked already.  The error is reported. */
int cow_file_check_holders(const struct cow_log *log, const char *path, int fd);
/* As a reader, or exclusively. */
int cow_file_lock(int fd, bool exclusive);
/* Zeroes with the space given back where that is possible. */
int cow_file_zero(struct cow_file *file, uint64_t offset, uint64_t len);

/* --- Asynchronous I/O (engine.c) --------------------------------------- */

struct cow_io;
typedef void (*cow_io_done_fn)(struct cow_io *io);

/* One I/O, embedded in who waits for it.  status is set before done(). */
struct cow_io {
	struct iocb iocb;
	struct cow_io *next;
	enum { COW_IO_READ, COW_IO_WRITE, COW_IO_SYNC, COW_IO_WORK } op;
	struct cow_file *file;
	void *buf;
	uint32_t len;
	uint64_t offset;
	int (*work)(struct cow_io *io);	/* COW_IO_WORK, in the helper thread */
	cow_io_done_fn done;
	int status;		/* 0 or negative errno; short is -ENODATA */
};

struct cow_io_list {
	struct cow_io *head, **tail;
};

struct cow_engine {
	io_context_t aio;		/* NULL: the helper does it all */
	int event_fd;
	unsigned int in_flight;		/* started, not done */
	unsigned int in_aio;
	bool no_aio_sync;
	struct cow_io_list backlog;	/* for aio, when that is full */
	/* The helper thread's: all of it under lock. */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct cow_io_list todo, finished;
	bool stop;
};

/* direct: a file of the chain takes direct I/O. */
int cow_engine_start(struct cow_engine *e, bool direct,
		     const struct cow_log *log);
void cow_engine_stop(struct cow_engine *e);
void cow_engine_submit(struct cow_engine *e, struct cow_io *io);
/* Calls done() of what is finished; their number. */
unsigned int cow_engine_reap(struct cow_engine *e);
/* Waits until something may be reaped. */
void cow_engine_wait(struct cow_engine *e);

/* --- Images (image.c) -------------------------------------------------- */

struct cow_image {
	struct cow_chain *chain;	/* NULL while it is created */
	struct cow_log log;
	const struct cow_plugin *plugin;
	void *handle;
	bool opened;
	bool opening;			/* ->open() runs */
	bool fixed_places;		/* no ->discard(), no ->write_zeroes() */
	uint32_t level;
	uint32_t flags;			/* COW_OPEN_* */
	char *path;
	struct cow_opener opener;
	const char *const *allowed_dirs;
	const char *const *options;
	struct cow_file **files;
	uint32_t nr_files;
	uint32_t table_size;
	uint64_t nr_tables;
	uint64_t size;			/* bytes of the disk */
	uint32_t block_size;
	uint64_t nr_blocks;
	uint64_t run_blocks;		/* see struct cow_image_info */
	uint64_t zeroes_end;		/* see cow_zeroes_end(); 0: no end */
	char *backing_path, *backing_format;
	const char *backing_guess;	/* see struct cow_image_info */
};

struct cow_image_params {
	struct cow_chain *chain;
	struct cow_plugins *plugins;
	const char *path, *format;
	uint32_t flags, level;
	struct cow_opener opener;
	const char *const *allowed_dirs;
	const char *const *options;
	const char *above;		/* path of the image above, or NULL */
};

int cow_image_open(const struct cow_image_params *params,
		   struct cow_image **img);
void cow_image_close(struct cow_image *img);
int cow_image_add_file(struct cow_image *img, struct cow_file *file);
/* Does the image itself want to know of discards, or of zeroes? */
bool cow_image_discards(const struct cow_image *img);
bool cow_image_zeroes(const struct cow_image *img);
/* path relative to the folder of base; *result is to be freed. */
int cow_path_join(const char *base, const char *path, char **result);
/* Is path, its links resolved, inside one of the folders? */
int cow_path_allowed(const struct cow_log *log, const char *path,
		     const char *const *dirs);
int cow_options_check(const struct cow_log *log,
		      const struct cow_plugin *plugin,
		      const char *const *options, uint32_t where);
const char *cow_options_get(const char *const *options, const char *name);

/* --- Tables (table.c) -------------------------------------------------- */

enum cow_table_state {
	COW_TABLE_FREE,
	COW_TABLE_READING,
	COW_TABLE_VALID,
	COW_TABLE_FAILED,	/* until those who wait have been told */
};

struct cow_table {
	struct cow_chain *chain;
	struct cow_image *img;
	struct cow_file *file;
	uint64_t offset;
	uint32_t length;
	uint8_t state;			/* enum cow_table_state */
	uint8_t phase;
	bool in_commit;			/* the frozen range is being written */
	bool expected;			/* nobody got it yet */
	uint32_t pins;
	int error;			/* COW_TABLE_FAILED */
	uint8_t *data;
	uint32_t dirty_lo, dirty_hi;	/* bytes; empty when equal */
	/* What a commit writes: of data, or of frozen once data went on. */
	uint8_t *frozen;
	uint32_t frozen_lo, frozen_hi;
	uint8_t frozen_phase;
	struct cow_table *hash_next;
	struct cow_table *lru_prev, *lru_next;
	struct cow_io io;
};

struct cow_cache {
	uint8_t *arena;
	uint64_t arena_bytes;
	uint32_t slot_size;
	uint32_t nr_slots;
	uint32_t reserve;		/* slots kept for ->commit() */
	struct cow_table *tables;	/* nr_slots */
	uint8_t **free_bufs;		/* a stack */
	uint32_t nr_free_bufs;
	struct cow_table **hash;
	uint32_t hash_mask;
	struct cow_table lru;		/* a ring; next is the oldest */
	uint32_t nr_failed;
	uint32_t nr_dirty;		/* tables with a dirty range */
	uint64_t hits, reads, writes;
	uint64_t looked_at;		/* tables, in search of what a commit is about */
};

int cow_cache_init(struct cow_cache *cache, struct cow_chain *chain,
		   uint64_t bytes, uint32_t slot_size, uint64_t tables);
void cow_cache_free(struct cow_cache *cache);
void cow_cache_unpin(struct cow_chain *chain, struct cow_request *req);
/* All who waited have seen the errors: the next one reads again. */
void cow_cache_forget_failed(struct cow_cache *cache);
/* For commit.c. */
void cow_table_freeze(struct cow_table *t);
void cow_table_thaw(struct cow_table *t, bool written);

/* --- Commit (commit.c) ------------------------------------------------- */

enum cow_commit_stage {
	COW_COMMIT_IDLE,
	COW_COMMIT_HOOK,
	COW_COMMIT_DATA,	/* data is being made durable */
	COW_COMMIT_TABLES,	/* tables of one phase are being written */
	COW_COMMIT_SYNC,	/* ... and made durable */
};

struct cow_commit {
	enum cow_commit_stage stage;
	unsigned int phase;
	unsigned int pending;		/* I/O of this stage */
	int status;
	bool wanted;			/* by the cache, for room */
	bool tidy;			/* by the plugin, to follow another */
	bool data_durable;
	bool frozen;			/* what it writes is settled */
	uint32_t nr_frozen[COW_PHASES];	/* tables in it, not durable yet */
	uint64_t last_id;		/* requests up to it are covered */
	int lost;			/* errno of a change that failed */
	bool held;			/* data may be lost: invariant 5 */
	atomic_bool sync_failed;	/* news of that, the helper thread's too */
	uint64_t failed_syncs;
	uint64_t done;			/* number of commits */
	struct cow_request req;		/* holds the pins of ->commit() */
	struct cow_io *syncs;		/* one a file */
};

/* Go on as far as possible.  True when something went on. */
bool cow_commit_run(struct cow_chain *chain);
/* Before the chain is closed: what cow_commit_more() asked for. */
void cow_commit_tidy(struct cow_chain *chain);

/* --- Scratch (scratch.c) ----------------------------------------------- */

/* What a request waits for that another one has: it holds no pins meanwhile. */
enum cow_behind {
	COW_BEHIND_NONE,
	COW_BEHIND_SCRATCH,
	COW_BEHIND_WORK,
};

struct cow_scratch {
	struct cow_file *file;		/* NULL when the chain needs none */
	struct cow_request *owner;	/* whose block is being made */
	uint8_t *buf;			/* one block */
	uint8_t *bounce;		/* one block of any image, for ->read() */
	size_t buf_size, bounce_size;
	uint64_t pos, end;		/* bytes of the disk */
	bool busy;			/* an I/O is on its way */
	bool written;
	int status;
	struct cow_io io;
	struct cow_image *read_img;	/* for COW_IO_WORK */
	struct cow_mapping read_mapping;
	uint64_t read_skip;		/* bytes of the image's block to skip */
	size_t read_len;		/* bytes of the image's block */
	uint64_t limit;			/* bytes, of cow_scratch_full() */
	uint64_t used;			/* bytes at most, made twice counts twice */
	uint64_t used_end;		/* bytes of the disk: nothing is behind it */
	uint64_t made;			/* statistics */
};

int cow_scratch_init(struct cow_chain *chain, int fd, uint64_t limit);
void cow_scratch_free(struct cow_chain *chain);
/* Make block first of req stand in the scratch file: 0, -EAGAIN, error. */
int cow_scratch_make(struct cow_chain *chain, struct cow_request *req);
/* req is gone: the next one has the buffer. */
void cow_scratch_release(struct cow_chain *chain, struct cow_request *req);

/* --- Work of plugins (work.c) ------------------------------------------ */

struct cow_work {
	struct cow_request *owner;	/* who waits for it, or NULL */
	bool busy;
	int (*work)(const void *arg);
	uint64_t arg[COW_WORK_ARG_MAX / 8];
	struct cow_io io;
};

/* req is gone: what it waited for is of no interest. */
void cow_work_release(struct cow_chain *chain, struct cow_request *req);

/* --- The chain --------------------------------------------------------- */

struct cow_chain {
	struct cow_plugins *plugins;
	struct cow_log log;
	int (*file_resized)(void *ctx, uint32_t file, uint64_t size);
	void *ctx;
	struct cow_image **images;	/* 0 is the top */
	uint32_t nr_images;
	struct cow_file **files;
	uint32_t nr_files;
	uint64_t size;			/* bytes, whole sectors */
	uint32_t block_size;
	uint64_t nr_blocks;
	bool writable;
	uint8_t *bits;			/* for cow_answer.copied */
	size_t bits_bytes;
	struct cow_engine engine;
	struct cow_cache cache;
	struct cow_commit commit;
	struct cow_scratch scratch;
	struct cow_work work;
	struct cow_request active;	/* a ring of all not done, by id */
	struct cow_request *current;	/* whose callback runs */
	uint64_t next_id;
	uint64_t nr_done;
	bool running;			/* requests are being run: no nesting */
	bool kicked;			/* something may go on without an event */
};

int cow_chain_add_file(struct cow_chain *chain, struct cow_file *file);

/* request.c */
void cow_request_finish(struct cow_chain *chain, struct cow_request *req,
			int status);
bool cow_request_changes(const struct cow_request *req);

/* What of a MAP is done: priv.state. */
enum cow_map_state {
	COW_MAP_TOP,		/* nothing */
	COW_MAP_PLACE,		/* priv.top is known; is it in one place? */
	COW_MAP_ZEROES,		/* it is not; priv.progress bytes of it are zeroes */
	COW_MAP_SCRATCH,	/* not all are zeroes: it is put together */
	COW_MAP_BITS,		/* the answer is known, but for its bits */
};

/* It is not to come back: the tables that were looked at are given up. */
void cow_map_goes_on(struct cow_chain *chain, struct cow_request *req,
		     enum cow_map_state state);

/* --- Resolving (resolve.c) --------------------------------------------- */

/* What a byte of the disk and those around it read as. */
struct cow_piece {
	enum { COW_PIECE_ZERO, COW_PIECE_FILE, COW_PIECE_READ } kind;
	uint64_t start, end;		/* bytes of the disk */
	struct cow_file *file;		/* FILE: where start stands */
	uint64_t offset;
	struct cow_image *img;		/* READ: who makes it, from what */
	struct cow_mapping mapping;	/* exactly one block of img */
};

/* Restarted.  The answer is checked against img and clipped to the limits. */
int cow_image_map(struct cow_image *img, const struct cow_query *query,
		  struct cow_mapping *mapping);
/* Restarted.  What holds byte pos of the disk before req's block is copied? */
int cow_source_at(struct cow_chain *chain, const struct cow_mapping *top,
		  uint64_t pos, struct cow_piece *piece);
/* Restarted.  From req->priv.top to req->answer, but for its bits. */
int cow_resolve(struct cow_chain *chain, struct cow_request *req);

#endif /* LIBCOW_INTERNAL_H */
