/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libcow/cow-plugin.h - what an image format must answer.
 *
 * A plugin is one shared object that holds one image format.  It says what
 * an image is, how large its disk is and where each block lives; libcow and
 * its callers move the data.  docs/plugins.md is the guide; the plugin raw
 * is the smallest example, and tests/native/plugin/toy.c one that needs
 * nothing but this header.
 *
 * Words and units
 *   block    unit of decision of one image, a power of two of bytes, 512
 *            bytes to 16 MiB, fixed while the image is open.  Block numbers
 *            and counts are of the image's own blocks.  The last block of a
 *            disk may be short.
 *   offset   bytes from the start of a file.  Sizes are bytes too.
 *   file     index of a file of this image: 0 is the file that was opened,
 *            further ones come from cow_file_add().
 *   backing  the image below; what an image does not hold is read there.
 *   table    a piece of metadata of one file, as it stands in the file.
 *
 * Errors are negative errno everywhere.  Who detects an error says so by
 * cow_error(), once, naming object and offset; all others pass the code on.
 *
 * Threads: all callbacks but ->read() are called from one thread.
 *
 * Restart: map, copied_bits, copied, discard, write_zeroes and commit must
 * not block.  They work on tables.  A table that is not in memory makes
 * cow_table_get() return -EAGAIN after its read was started; the callback
 * then returns -EAGAIN (it may first get further tables, to have them read
 * at the same time) and is called again, with the same arguments, when they
 * have arrived.  So a callback first gets all tables that it needs and
 * changes tables and handle only after the last one that can fail.
 * Tables stay pinned until the callback has returned something else.
 * probe, open, info, backing, create, check, amend, describe and finish may
 * block and use cow_read() and cow_write().
 */
#ifndef LIBCOW_COW_PLUGIN_H
#define LIBCOW_COW_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COW_PLUGIN_API_VERSION	1

#define COW_SECTOR_SIZE		512u
#define COW_BLOCK_SIZE_MIN	512u
#define COW_BLOCK_SIZE_MAX	(16u << 20)
#define COW_TABLE_SIZE_MIN	4096u
#define COW_TABLE_SIZE_MAX	(256u << 10)
#define COW_TABLE_SIZE_DEFAULT	(64u << 10)
/* Most tables that one call of one callback may get. */
#define COW_TABLES_PER_CALL	80u
/* Most blocks that one copied_bits() is asked for: 4 MiB of bits. */
#define COW_COPIED_BITS_MAX	(1ull << 25)
/* Phases of the write order: 0 is made durable first. */
#define COW_PHASES		8u

struct cow_image;		/* one open image, libcow's side */
struct cow_table;		/* one pinned table */
struct cow_check;		/* a check that is running */
struct cow_describe;		/* a description that is being made */

/* What an image is.  Filled by ->info(), from zero. */
struct cow_image_info {
	uint64_t size;		/* bytes of the disk; libcow rounds up to sectors */
	uint32_t block_size;	/* bytes */
	/*
	 * The backing image as the image names it, or NULL: valid until
	 * ->close().  A relative path is relative to the image's folder.
	 * No format means that the image does not tell, which is an error
	 * unless the user tells it.
	 */
	const char *backing_path;
	const char *backing_format;
	/*
	 * ->copied(), ->discard() and ->write_zeroes() are called for runs
	 * that cross no multiple of so many blocks, so that they need few
	 * tables; 0: there is no such limit.
	 */
	uint64_t run_blocks;
	/*
	 * With a backing path and no format: the format of the image has no
	 * way to tell.  What is below is taken for this one then (raw), if it
	 * looks like none that is known; else the user must tell, by the
	 * plugin's option backing_format: what a raw disk holds must lead
	 * nowhere.  Constant; NULL: the image must tell.
	 */
	const char *backing_guess;
};

enum cow_kind {
	COW_KIND_INVALID = 0,
	/* The bytes stand in a file of this image as they are. */
	COW_KIND_LINEAR,
	/*
	 * Reads of blocks not yet copied go to the source, those of copied
	 * ones to the place; the first write of a block makes the kernel
	 * copy it from source to place, and ->copied() is called after.
	 * A place that no metadata refers to must be given in this way
	 * only: it is referred to after ->copied(), never before.
	 */
	COW_KIND_COW,
	COW_KIND_ZERO,		/* reads as zeroes */
	COW_KIND_BACKING,	/* this image does not hold it: look below */
	/*
	 * The bytes do not stand anywhere as they are (a compressed
	 * cluster): ->read() makes them.  Only for queries that read.
	 */
	COW_KIND_READ,
};

/* Source of COW_KIND_COW: what the block reads as before it is copied. */
enum cow_source {
	COW_SOURCE_BACKING = 0,	/* what is below */
	COW_SOURCE_ZERO,
	COW_SOURCE_PLACE,	/* src_file, src_offset of this image */
	COW_SOURCE_READ,	/* what ->read() makes */
};

#define COW_QUERY_WRITE		(1u << 0)	/* else: a read */
/* With WRITE: every block of the run will be overwritten as a whole. */
#define COW_QUERY_OVERWRITE	(1u << 1)

/* Where are these blocks?  first < limit_end, limit_first <= first. */
struct cow_query {
	uint32_t flags;		/* COW_QUERY_* */
	uint32_t reserved;
	uint64_t first;		/* the answer must hold this block */
	uint64_t count;		/* blocks wanted, at least 1: a wish */
	uint64_t limit_first;	/* the answer may reach from here ... */
	uint64_t limit_end;	/* ... to before this block */
};

#define COW_MAPPING_WRITABLE	(1u << 0)	/* LINEAR: may be written */
#define COW_MAPPING_ONCE	(1u << 1)	/* must not be remembered */
/* COW: some blocks may be copied already; ->copied_bits() tells which. */
#define COW_MAPPING_BITS	(1u << 2)
/*
 * The answer left something uncommitted in the metadata: the next flush has
 * to be told to the plugin even if no block was copied.
 */
#define COW_MAPPING_DIRTY	(1u << 3)

/* The answer.  Filled from zero; block first lies at offset, and so on. */
struct cow_mapping {
	uint32_t kind;		/* enum cow_kind */
	uint32_t flags;		/* COW_MAPPING_* */
	uint64_t first;		/* block */
	uint64_t count;		/* blocks, at least 1; may pass the end of disk */
	uint32_t file;		/* LINEAR and COW: the place */
	uint32_t source;	/* COW: enum cow_source */
	uint64_t offset;	/* of the place of block first; whole sectors */
	uint32_t src_file;	/* SOURCE_PLACE, and free for ->read() */
	uint32_t reserved;
	uint64_t src_offset;
	uint64_t cookie;	/* for ->read(), libcow does not look at it */
};

/* A run of blocks whose data stands whole at its place. */
struct cow_extent {
	uint64_t first;		/* block */
	uint64_t count;		/* blocks */
	uint32_t file;
	uint32_t reserved;
	uint64_t offset;	/* of block first */
};

#define COW_OPEN_WRITE		(1u << 0)
/* For checks and repairs: open what a user of the disk must not see. */
#define COW_OPEN_NO_BACKING	(1u << 1)	/* do not open backing images */
#define COW_OPEN_ANY_BACKING	(1u << 2)	/* do not verify them */
#define COW_OPEN_UNFINISHED	(1u << 3)	/* even in the midst of an amend */

/* One option as an image's user may give it: "name=value". */
struct cow_option {
	const char *name;
	const char *help;	/* one line */
	uint32_t flags;		/* COW_OPTION_* where it is accepted */
};

#define COW_OPTION_OPEN		(1u << 0)
#define COW_OPTION_CREATE	(1u << 1)
#define COW_OPTION_AMEND	(1u << 2)

/*
 * What to create.  The file is open, locked, and empty, or a block device
 * that reads as zeroes.
 */
struct cow_create {
	uint64_t size;		/* bytes of the disk; 0: that of the backing */
	uint32_t block_size;	/* bytes; 0: the format's default */
	uint32_t reserved;
	const char *backing_path;	/* as to be recorded, or NULL */
	const char *backing_format;
	struct cow_image *backing;	/* the same, open */
	uint64_t backing_size;		/* bytes of its disk */
};

/*
 * The plugin.  Members marked (required) must be set.  New members come at
 * the end only; libcow copies what the plugin's size covers and zeroes the
 * rest, so that an older plugin goes on working.
 */
struct cow_plugin {
	uint32_t api_version;	/* set by COW_PLUGIN_REGISTER */
	uint32_t struct_size;	/* bytes, set by COW_PLUGIN_REGISTER */

	const char *name;	/* (required) equals the file's name, [a-z0-9_-] */
	const char *description;	/* (required) one line */
	const char *version;	/* the plugin's own */
	const char *help;	/* lines for --help, or NULL */
	const struct cow_option *options; /* ends with a NULL name, or NULL */

	/*
	 * Is this the format?  buf holds the first len bytes (up to 64 KiB)
	 * of a file of file_size bytes.  1 yes, 0 no.  Without it the format
	 * is never recognised by contents.
	 */
	int (*probe)(const void *buf, size_t len, uint64_t file_size);
	/*
	 * (required) Open.  flags are COW_OPEN_*; file 0 is open already.
	 * Everything read from the image is validated here or where it is
	 * used; it is not to be trusted.  *handle is passed to the others.
	 */
	int (*open)(struct cow_image *img, uint32_t flags, void **handle);
	/* (required) Forget the handle.  Must not write to the image. */
	void (*close)(void *handle);
	/* (required) */
	int (*info)(void *handle, struct cow_image_info *info);
	/* (required) Restarted.  Where are these blocks? */
	int (*map)(void *handle, const struct cow_query *query,
		   struct cow_mapping *mapping);
	/*
	 * Restarted.  For COW_MAPPING_BITS: set bit n (bit n % 8 of byte
	 * n / 8) of bits when block first + n is copied.  bits is zero before
	 * each call.  The extent lies within a mapping given by ->map().
	 */
	int (*copied_bits)(void *handle, uint64_t first, uint64_t count,
			   uint8_t *bits);
	/*
	 * Restarted.  These blocks stand at their place: let the metadata
	 * refer to it, in memory.  May be told twice, and after a restart of
	 * the process for places that ->map() of this handle never gave: so
	 * validate the place and refuse (-EINVAL) one that is out of range
	 * or in use otherwise.  Required where ->map() answers COW.
	 */
	int (*copied)(void *handle, const struct cow_extent *extent);
	/*
	 * Restarted.  A commit begins: change tables here that were put off.
	 * libcow then writes all tables that are dirty at its return, phase
	 * after phase.  ->committed() tells the end, with 0 or an errno: what
	 * was freed before ->commit() may be used again after status 0.
	 */
	int (*commit)(void *handle);
	/* May call cow_commit_more(), no other function that changes. */
	void (*committed)(void *handle, int status);
	/*
	 * Restarted.  The blocks' contents are no longer needed / must read
	 * as zeroes.  No I/O is in flight to them.  Old data or that of the
	 * backing image must not appear.  A mapping given before is void
	 * after.  Without it libcow answers -EOPNOTSUPP: right for a format
	 * where places never change, as its places are discarded in place.
	 */
	int (*discard)(void *handle, uint64_t first, uint64_t count);
	int (*write_zeroes)(void *handle, uint64_t first, uint64_t count);
	/*
	 * Make the bytes of block mapping->first for COW_KIND_READ and
	 * COW_SOURCE_READ; len bytes, one block of this image or the rest of
	 * the disk.  Called from another thread, may block, may use
	 * cow_read(); must use no table and nothing of the handle that
	 * changes after ->open().
	 */
	int (*read)(void *handle, const struct cow_mapping *mapping, void *buf,
		    size_t len);
	/*
	 * The backing image is open (and will be until ->close()).  With
	 * verify: is it the one that was meant?  0, or -ESTALE (reported)
	 * when it changed.  Without, as with COW_OPEN_ANY_BACKING, any is.
	 */
	int (*backing)(void *handle, struct cow_image *backing, bool verify);
	/* Make an image in file 0 of img.  What it wrote is synced by libcow. */
	int (*create)(struct cow_image *img, const struct cow_create *create);
	/*
	 * Look for damage, tell each finding by cow_check_found().  With
	 * repair (image open for writing), repair what is safe to repair.
	 * Returns an error only when the check itself could not be done.
	 */
	int (*check)(void *handle, struct cow_check *check, bool repair);
	/*
	 * Change a property of the image, durably, by one of the options
	 * marked COW_OPTION_AMEND.
	 */
	int (*amend)(void *handle, const char *name, const char *value);
	/* Tell what a person may want to know, in order. */
	int (*describe)(void *handle, struct cow_describe *describe);
	/*
	 * Several may have an image of this format open at once, for writing
	 * too, and see what the others write: it has no metadata that two
	 * could spoil.  Those who open the file as another format are kept
	 * out all the same.
	 */
	bool shared;
	/*
	 * The image was open for writing, all is durable, and nothing comes
	 * any more but ->close(): mark it as closed.  Not called when
	 * something was not committed.  May block.
	 */
	int (*finish)(void *handle);
};

typedef const struct cow_plugin *(*cow_plugin_entry_fn)(void);

/*
 * The only symbol that a plugin shows.  Use once, at file level:
 *	static const struct cow_plugin plugin = { COW_PLUGIN_HEADER, ... };
 *	COW_PLUGIN_REGISTER(plugin)
 */
#define COW_PLUGIN_HEADER \
	.api_version = COW_PLUGIN_API_VERSION, \
	.struct_size = sizeof(struct cow_plugin)

#define COW_PLUGIN_REGISTER(plugin) \
	__attribute__((visibility("default"))) \
	const struct cow_plugin *cow_plugin_entry(void); \
	const struct cow_plugin *cow_plugin_entry(void) \
	{ \
		return &(plugin); \
	}

/* --- Messages ---------------------------------------------------------- */

/*
 * Report an error about img and return code, so that one line can do both.
 * The image's path is put before the text.  One sentence, no newline.
 */
int cow_error(struct cow_image *img, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for what a person should know but what is no error. */
void cow_warn(struct cow_image *img, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* --- The image --------------------------------------------------------- */

const char *cow_image_path(const struct cow_image *img);
/* Bytes of its disk, as ->info() told: of use in ->backing() and ->create(). */
uint64_t cow_image_size(const struct cow_image *img);
/* Value of an option given by the user, or NULL. */
const char *cow_image_option(const struct cow_image *img, const char *name);
/*
 * Number of tables and size of the largest, for the cache; called in
 * ->open().  size: COW_TABLE_SIZE_MIN..MAX, a power of two; count: tables
 * that the image has, for which more memory would be of no use.
 */
int cow_image_tables(struct cow_image *img, uint32_t size, uint64_t count);
/*
 * This image cannot say that a block reads as zeroes: do not call ->discard()
 * and ->write_zeroes(), but act on the places.  Called in ->open().
 */
int cow_image_fixed_places(struct cow_image *img);

/* --- Files ------------------------------------------------------------- */

/* What a file is.  mtime is that of a regular file, else zero. */
struct cow_file_stat {
	uint64_t size;		/* bytes */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	bool block_device;
	bool writable;
};

int cow_file_stat(struct cow_image *img, uint32_t file,
		  struct cow_file_stat *st);
/* Is it a file of a file system in memory, whose contents are nowhere else? */
bool cow_file_in_memory(struct cow_image *img, uint32_t file);
/*
 * Open a further file of this image, named by path (relative to the image's
 * folder), with the image's rights.  Sets *file.  Only in ->open().
 */
int cow_file_add(struct cow_image *img, const char *path, uint32_t *file);
/*
 * The first byte from offset on that may be other than zero: offset itself
 * where that is not known, the file's end when there is none.  Blocking.
 */
int cow_file_next_data(struct cow_image *img, uint32_t file, uint64_t offset,
		       uint64_t *data);

/* A part of a file that is known to have no data, as kept for one who reads on and on. */
struct cow_hole {
	uint64_t from, to;
};

/* Do these bytes, which then read as zeroes, lie in a hole?  last: zeroed at first. */
int cow_file_is_hole(struct cow_image *img, uint32_t file,
		     struct cow_hole *last, uint64_t offset, uint64_t len,
		     bool *hole);
/*
 * Could a file of that name be opened, and may it be?  path is as for
 * cow_file_add().  For images that name one file in several ways; says
 * nothing.  Only in ->open().
 */
bool cow_file_exists(struct cow_image *img, const char *path);
/*
 * What an image on a block device holds from byte end on is never read before it was
 * written: it need not become zeroes first.  Only in ->create().
 */
void cow_zeroes_end(struct cow_image *img, uint64_t end);
/* Make a file larger (never smaller); new bytes read as zeroes. */
int cow_file_extend(struct cow_image *img, uint32_t file, uint64_t size);
/*
 * Make a regular file shorter, to give lost space at its end back.  Only in
 * ->check(): nobody else may have the image open.
 */
int cow_file_shrink(struct cow_image *img, uint32_t file, uint64_t size);
/*
 * Read or write exactly len bytes, blocking; any alignment.  Short files are
 * an error (-EIO).  Not in callbacks that are restarted.
 */
int cow_read(struct cow_image *img, uint32_t file, void *buf, size_t len,
	     uint64_t offset);
int cow_write(struct cow_image *img, uint32_t file, const void *buf,
	      size_t len, uint64_t offset);
/* Make what was written durable, blocking. */
int cow_sync(struct cow_image *img, uint32_t file);
/* Give the space of a range back; it reads as zeroes after.  Blocking. */
int cow_punch(struct cow_image *img, uint32_t file, uint64_t offset,
	      uint64_t len);
/*
 * Have space for a range inside of the file, so that writing there does not
 * fail for want of it; contents stay.  Where the file system cannot do that
 * nothing is done.  -ENOSPC is not reported: the caller knows what it means.
 */
int cow_reserve(struct cow_image *img, uint32_t file, uint64_t offset,
		uint64_t len);

/* --- Tables ------------------------------------------------------------ */

/*
 * Get a table to read it.  A table is known by its file and offset; it is
 * always asked for with the same length, and tables do not overlap.
 * 0, -EAGAIN (see Restart), or the error of its read (reported).
 */
int cow_table_get(struct cow_image *img, uint32_t file, uint64_t offset,
		  uint32_t length, struct cow_table **table);
/*
 * A table is expected to be got soon: its read is begun, if the file is read
 * with direct I/O and there is room, for which another table may go.  Nothing
 * waits for it, and no error comes of it.
 */
void cow_table_expect(struct cow_image *img, uint32_t file, uint64_t offset,
		      uint32_t length);
/*
 * Get a table to change it.  phase tells when a commit writes it: tables of
 * phase 0 are durable before one of phase 1 is written, and so on.  While a
 * commit is on its way this may give a copy, so that what a commit writes
 * is what stood there when it began.
 */
int cow_table_get_write(struct cow_image *img, uint32_t file, uint64_t offset,
			uint32_t length, unsigned int phase,
			struct cow_table **table);
/* Get a new table, all zero, without reading the file.  Then as above. */
int cow_table_new(struct cow_image *img, uint32_t file, uint64_t offset,
		  uint32_t length, unsigned int phase,
		  struct cow_table **table);
/* Its bytes; valid until the callback returns. */
void *cow_table_data(struct cow_table *table);
/*
 * The callback needs it no more: for one that looks through more tables than
 * may be held at a time.  Its bytes are not to be looked at any more.
 */
void cow_table_leave(struct cow_table *table);
/*
 * In ->committed(): let another commit follow at once, which does not hold
 * up those who waited for this one; the image is closed after it.  For what
 * may be given up only when this commit is durable.
 */
void cow_commit_more(struct cow_image *img);
/* These bytes were changed.  Cannot fail.  Only for a table got to write. */
void cow_table_dirty(struct cow_table *table, uint32_t offset,
		     uint32_t length);

/*
 * Before this callback goes on, have all that is dirty made durable: to be
 * returned from one that is restarted, which is called again after
 * ->committed().  Returns -EAGAIN.
 */
int cow_commit_first(struct cow_image *img);
/* The same, of what stands in the commit that is on its way: another is not wanted. */
int cow_commit_end_first(struct cow_image *img);
/*
 * The same, unless these bytes of a table are in the file by now: then 0.  For
 * a place that may be handed out only when the process that comes after a kill
 * finds what leads to it.  Bytes beside them may count as well.
 */
int cow_commit_table_first(struct cow_table *table, uint32_t offset,
			   uint32_t length);

/* --- Work ------------------------------------------------------------------- */

/* Most bytes of the argument of cow_work(). */
#define COW_WORK_ARG_MAX	128u
/*
 * In a callback that is restarted: let work(arg) run in the thread that
 * ->read() runs in, by the same rules, on a stack of 512 KiB; it may use cow_write() and cow_sync(),
 * too.  -EAGAIN until it is through, then its result, once: so note that it
 * was done.  len bytes of arg are copied, and compared when it is asked for
 * again: none may be undefined.  Other work is begun anew.  One runs at a time.
 */
int cow_work(struct cow_image *img, int (*work)(const void *arg),
	     const void *arg, size_t len);

/* --- Reports ----------------------------------------------------------- */

enum cow_severity {
	COW_FOUND_LEAK,		/* harmless: space is lost, or bits unused */
	COW_FOUND_CORRUPT,	/* data or metadata is damaged */
};

/* Report a finding.  repaired: it is gone now. */
void cow_check_found(struct cow_check *check, enum cow_severity severity,
		     bool repaired, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * name is for programs ("first-block"), label for people ("First block").  A name may
 * come several times: programs get a list.
 */
void cow_describe_u64(struct cow_describe *describe, const char *name,
		      const char *label, uint64_t value);
void cow_describe_str(struct cow_describe *describe, const char *name,
		      const char *label, const char *value);

#ifdef __cplusplus
}
#endif

#endif /* LIBCOW_COW_PLUGIN_H */
