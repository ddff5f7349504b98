/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2.h - an open qcow2 image.
 *
 *	header.c	the header and its extensions: codec
 *	entry.c		L1 and L2 entries: codec
 *	refcounts.c	entries of refcount blocks: codec
 *	open.c		open: what must hold before anything is believed
 *	upgrade.c	... and what is put right before the first write
 *	tables.c	L1 and L2 tables by libcow's cache; an L2 table of our own
 *	refblock.c	refcount blocks by libcow's cache
 *	alloc.c		where free clusters are
 *	pending.c	places handed out that nothing refers to yet
 *	freed.c		clusters given up, until they may be used again
 *	map.c		->map()
 *	write.c		->copied(), ->discard(), ->write_zeroes()
 *	compress.c	->read(): compressed clusters, and the file's ragged end
 *	unshare.c	whole clusters copied by us, for subclusters' sake, and
 *			what the last one has behind the end of the disk
 *	snapshot.c	the table of internal snapshots
 *	walk.c		all clusters that anything refers to
 *	named.c		... and the tables that lead there, each once
 *	count.c		... and how often
 *	check.c		->check()
 *	rebuild.c	refcounts made anew
 *	create.c	->create()
 *	qcow2.c		the plugin; ->describe(), ->amend()
 *
 * Write order, by phases of a commit (docs/formats/qcow2.md):
 *
 *	0	refcount blocks: counts that grow; those of clusters given up
 *		go down here too, but not before the commit after the one
 *		that made durable that nothing refers to them
 *	1	refcount table: only a new block is hooked up
 *	2	L2 tables
 *	3	L1 table
 *
 * With lazy refcounts the first two go with the third: the header says, from
 * the open to the close, that counts may be wrong, and who finds it so counts
 * anew.
 *
 * Free clusters are handed out by ->map() as places of COW mappings with a
 * refcount of 0, which ->copied() raises; so a crash loses nothing but what
 * was not flushed.  Within one open image no cluster is handed out twice,
 * but for those that were given up and are free on disk.  After a restart
 * of the process the kernel tells first what it had copied: so ->copied()
 * takes metadata clusters only from where none was ever handed out.
 */
#ifndef QCOW2_H
#define QCOW2_H

#include <libcow/cow-plugin.h>

#include "format.h"

enum {
	QCOW2_PHASE_REFBLOCK,
	QCOW2_PHASE_REFTABLE,
	QCOW2_PHASE_L2,
	QCOW2_PHASE_L1,
};

/* Most slices that an L2 table or a refcount block is cut into. */
#define QCOW2_SLICES_MAX 16u

/* A run of host clusters, by number. */
struct qcow2_run {
	uint64_t first, count;
};

/* pending.c: a run of guest clusters, each with a place if its bit is set. */
struct qcow2_pending {
	uint64_t guest;		/* cluster; the run stays within a group */
	uint64_t host;		/* cluster */
	uint64_t mask;		/* bit n: guest + n has host + n */
	uint64_t filled;	/* unshare.c: its contents stand there */
	uint32_t next;		/* in the hash, or QCOW2_NO_PENDING */
	bool tail;		/* unshare.c: what is behind the disk's end is zero */
};

#define QCOW2_NO_PENDING UINT32_MAX
#define QCOW2_GROUP_MAX	64u

struct qcow2_reserved {
	struct qcow2_pending *pool;	/* a ring: the oldest is forgotten */
	uint32_t *hash;
	uint32_t next;			/* of the pool to use */
	uint32_t group;			/* clusters, a power of two */
};

/* freed.c: clusters given up.  [0, cleared) [.., safe) [.., committing) ... */
struct qcow2_freed {
	struct qcow2_run *runs;		/* none crosses a slice of refcounts */
	uint32_t count;
	uint32_t cleared;	/* refcount is down, in memory at least */
	uint32_t safe;		/* nothing durable refers to them */
	uint32_t committing;	/* the commit on its way makes it so */
	bool lost;		/* the list was full once */
	/* Of the cleared ones, those with no reference left. */
	struct qcow2_run *unused;
	uint32_t nr_unused;
	/* May be used again; in order. */
	struct qcow2_run *reusable;
	uint32_t nr_reusable;
	uint64_t nr_clusters;		/* in reusable */
};

/* moved.c: clusters.  [0, committing): the commit on its way writes them. */
struct qcow2_moved {
	uint64_t *clusters;
	uint32_t count;
	uint32_t committing;
	bool full, full_committing;	/* there were more: it may be any */
};

struct qcow2_alloc {
	bool device;		/* a block device: cannot grow */
	bool unverified;	/* what is counted as free may be in use */
	bool gave;		/* a place was handed out since the image was opened */
	/* When it was opened nothing referred to what is from here on ... */
	uint64_t referred_end;
	uint64_t data_end;	/* the same, of data */
	uint8_t *left;		/* ... and to these below, but they are counted; or NULL */
	uint64_t cursor;	/* all free ones below were handed out */
	uint64_t old_end;	/* what others handed out from here on nothing refers to */
	uint64_t fresh;		/* ... by others; we are here */
	unsigned int looked;	/* slices, for the run that is sought */
	uint64_t spare;		/* counted already, waits for its use; or 0 */
};

struct qcow2 {
	struct cow_image *img;
	struct qcow2_header h;
	struct qcow2_geometry g;
	bool writable;
	bool lazy;		/* marked as dirty: refcounts may be late */
	bool changed;		/* metadata that ->map() changed */
	char *backing_path;	/* as libcow wants it, or NULL */
	const char *backing_format;
	uint32_t slice_bytes;	/* of L2 tables and refcount blocks */
	uint64_t file_size;	/* bytes */
	uint64_t in_order;	/* the cluster behind the slice that was asked about last */
	uint32_t data_file;	/* index of the file with the data */
	uint64_t data_size;	/* bytes of it; of file 0 see file_size */
	uint64_t nr_refblocks;	/* entries of the refcount table */
	uint64_t l1_bytes;	/* of the L1 table, see struct qcow2_top */
	struct qcow2_alloc alloc;
	struct qcow2_reserved reserved;
	struct qcow2_freed freed;
	struct qcow2_moved moved;
	/* ->read() and cow_work() only: they run in another thread. */
	uint8_t *packed, *unpacked;
};

/* --- tables.c ------------------------------------------------------------ */

/* A table that is got in slices: the L1 table, or the refcount table. */
struct qcow2_top {
	uint64_t offset;		/* bytes, in file 0 */
	uint64_t bytes;			/* whole sectors, where the file has them */
	unsigned int phase;		/* of a commit that writes it */
};

/* Restarted.  The slice with entry index, which must be one of the table's. */
int qcow2_top_get(struct qcow2 *d, const struct qcow2_top *top, uint64_t index,
		  bool write, struct cow_table **table, be64 **entry);

/* A slice of an L2 table in memory, or of one that is not there. */
struct qcow2_l2 {
	struct cow_table *table;	/* NULL: all is unallocated */
	be64 *entries;			/* of cluster first */
	uint64_t first, count;		/* guest clusters */
	bool copied;			/* the table is ours alone */
};

/* Restarted. */
int qcow2_l2_get(struct qcow2 *d, uint64_t cluster, struct qcow2_l2 *l2);
/* l2 was just got: who asks for one after the other will need the one behind. */
void qcow2_l2_expect_next(struct qcow2 *d, const struct qcow2_l2 *l2);
/*
 * For a change: made, or copied from one that snapshots share, if need be.
 * replay: ->copied() asks, which see above.
 */
int qcow2_l2_get_write(struct qcow2 *d, uint64_t cluster, bool replay,
		       struct qcow2_l2 *l2);
/*
 * On a block device a table is committed before a place is given to a cluster
 * of it: who comes after a kill finds it, and needs no place for one while it
 * does not know yet what the kernel has copied where.
 */
int qcow2_l2_settle(struct qcow2 *d, uint64_t cluster);
int qcow2_l2_entry(struct qcow2 *d, const struct qcow2_l2 *l2,
		   uint64_t cluster, struct qcow2_entry *e);
void qcow2_l2_put(struct qcow2 *d, const struct qcow2_l2 *l2,
		  uint64_t cluster, const struct qcow2_entry *e);
/* Is there nothing wrong with the entry?  Reports nothing. */
bool qcow2_l2_sound(const struct qcow2 *d, const struct qcow2_l2 *l2,
		    uint64_t cluster);
/* Do all clusters from first to last stand where nothing else refers to? */
bool qcow2_l2_all_copied(const struct qcow2 *d, const struct qcow2_l2 *l2,
			 uint64_t first, uint64_t last);

/* --- refblock.c ----------------------------------------------------------- */

/* A slice of a refcount block. */
struct qcow2_refs {
	struct cow_table *reftable;	/* that led to them; NULL: got to write */
	struct cow_table *table;
	uint8_t *data;			/* NULL: all of them are 0 */
	uint64_t first, count;		/* host clusters */
};

/* Restarted. */
int qcow2_refs_get(struct qcow2 *d, uint64_t host, struct qcow2_refs *r);
/* The block is made if need be. */
int qcow2_refs_get_write(struct qcow2 *d, uint64_t host,
			 struct qcow2_refs *r);
uint64_t qcow2_refs_count(const struct qcow2 *d, const struct qcow2_refs *r,
			  uint64_t host);
void qcow2_refs_set(struct qcow2 *d, const struct qcow2_refs *r,
		    uint64_t host, uint64_t ref);
/*
 * How many of these host clusters, from the first on, have a refcount of
 * exactly one.
 */
int qcow2_refs_single(struct qcow2 *d, uint64_t host, uint64_t count,
		      uint64_t *single);
/* Blocking: not for restarted callbacks.  Without a block: 0, -ENOENT. */
/* A slice, into buf of d->slice_bytes. */
int qcow2_refs_read(struct qcow2 *d, uint64_t host, uint8_t *buf,
		    struct qcow2_refs *r);
int qcow2_refcount_read(struct qcow2 *d, uint64_t host, uint64_t *ref);
/* Of count clusters in a row; those before one without a block are written. */
int qcow2_refcounts_write(struct qcow2 *d, uint64_t host, uint64_t count,
			  uint64_t ref);

/* --- alloc.c -------------------------------------------------------------- */

void qcow2_alloc_init(struct qcow2 *d);
/*
 * Restarted.  Up to want free host clusters in a row that nobody was told
 * of; the file is long enough to hold them.  Their refcount stays 0.
 */
int qcow2_alloc_run(struct qcow2 *d, uint64_t want, struct qcow2_run *run);
bool qcow2_alloc_is_left(const struct qcow2 *d, uint64_t host, uint64_t count);
/*
 * Restarted.  One cluster for metadata, counted already; the same one until
 * qcow2_alloc_used() is told.
 */
int qcow2_alloc_meta(struct qcow2 *d, bool replay, uint64_t *host);
void qcow2_alloc_used(struct qcow2 *d);
/* Bytes of the file; reserve: it will be written by a commit. */
int qcow2_extend(struct qcow2 *d, uint64_t host, uint64_t count,
		 bool reserve);

/* --- pending.c ------------------------------------------------------------ */

int qcow2_pending_init(struct qcow2 *d);
void qcow2_pending_free(struct qcow2 *d);
struct qcow2_pending *qcow2_pending_find(struct qcow2 *d, uint64_t cluster);
/* A run with places for the clusters of mask; it may be forgotten later. */
void qcow2_pending_add(struct qcow2 *d, uint64_t guest, uint64_t host,
		       uint64_t mask);
/* The cluster needs no place any more. */
void qcow2_pending_drop(struct qcow2 *d, uint64_t cluster);

/* --- moved.c -------------------------------------------------------------- */

int qcow2_moved_init(struct qcow2 *d);
void qcow2_moved_free(struct qcow2 *d);
/* The cluster stands, whole, at another place than durable metadata says. */
void qcow2_moved_add(struct qcow2 *d, uint64_t cluster);
enum qcow2_moved_when {
	QCOW2_NOT_MOVED = 0,
	QCOW2_MOVED_COMMITTING,	/* the commit on its way makes it durable */
	QCOW2_MOVED,
};
/*
 * Is the block's cluster such a one?  The run [*first, *end) of blocks around
 * it is cut: to that cluster, or to where no such one is.
 */
enum qcow2_moved_when qcow2_moved_trim(const struct qcow2 *d, uint64_t block,
				       uint64_t *first, uint64_t *end);
void qcow2_moved_commit(struct qcow2 *d);
void qcow2_moved_committed(struct qcow2 *d, int status);

/* --- freed.c -------------------------------------------------------------- */

int qcow2_freed_init(struct qcow2 *d);
void qcow2_freed_free(struct qcow2 *d);
/* Nothing in memory refers to them any more: one reference less each. */
void qcow2_give_up(struct qcow2 *d, uint64_t host, uint64_t count);
/* What an entry referred to. */
void qcow2_give_up_entry(struct qcow2 *d, const struct qcow2_entry *e);
/* Take up to want clusters that may be used again; false: none. */
bool qcow2_reuse(struct qcow2 *d, uint64_t want, bool any,
		 struct qcow2_run *run);
int qcow2_commit(void *handle);
void qcow2_committed(void *handle, int status);

/* --- unshare.c ------------------------------------------------------------ */

/* Must the cluster be copied as a whole before a block of it is written? */
bool qcow2_must_fill(const struct qcow2 *d, const struct qcow2_entry *e);
/* Restarted.  Let the data of e stand at place (bytes), durably. */
int qcow2_fill(struct qcow2 *d, const struct qcow2_entry *e, uint64_t place);
/*
 * What the disk's last cluster, if it is one of p, has behind the disk's end:
 * nobody copies there, and a disk that is made larger shows it.
 */
uint64_t qcow2_tail_bytes(const struct qcow2 *d,
			  const struct qcow2_pending *p);
/* Restarted.  Let it be zero at its place, as durable as data is. */
int qcow2_zero_tail(struct qcow2 *d, const struct qcow2_pending *p);

/* --- compress.c ----------------------------------------------------------- */

int qcow2_buffers_init(struct qcow2 *d);
void qcow2_buffers_free(struct qcow2 *d);
int qcow2_read(void *handle, const struct cow_mapping *mapping, void *buf,
	       size_t len);
/* A whole cluster, blocking, into d->unpacked. */
int qcow2_unpack(struct qcow2 *d, uint64_t host, uint32_t sectors);

/* --- snapshot.c ----------------------------------------------------------- */

struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint64_t offset, bytes;		/* of the entry in the table */
};

/* Blocking.  fn is called for each until it is not 0; sentences by report. */
int qcow2_each_snapshot(struct qcow2 *d,
			int (*fn)(void *ctx, const struct qcow2_snapshot *s),
			void *ctx);
/* Where the table ends. */
int qcow2_snapshots_end(struct qcow2 *d, uint64_t *end);

/* --- walk.c --------------------------------------------------------------- */

enum qcow2_use { QCOW2_USE_DATA, QCOW2_USE_L2, QCOW2_USE_OTHER };

/* Host clusters that something refers to. */
struct qcow2_reference {
	enum qcow2_use use;
	struct qcow2_run run;
	uint64_t at;		/* of the first one's entry in the file */
	uint32_t times;		/* as many references, at most QCOW2_REF_COUNT */
	bool copied;		/* its bit 63 */
	bool active;		/* reachable from the active L1 table */
	bool compressed;
};

/* Who is told of them. */
struct qcow2_walk {
	struct qcow2 *d;
	bool refcounts;		/* tell of the refcount structures, too */
	bool in_refcounts;	/* that is what is being told of */
	int (*use)(struct qcow2_walk *w, const struct qcow2_reference *ref);
	/* Something is wrong, and not followed.  Not 0: the walk ends by that. */
	int (*fault)(struct qcow2_walk *w, const char *text);
	struct cow_hole hole;	/* read last */
};

/* Blocking. */
int qcow2_walk(struct qcow2_walk *w);

/* --- check.c, count.c, rebuild.c ------------------------------------------ */

/* How often each cluster of a window of the file is referred to. */
struct qcow2_window {
	uint64_t first, count;		/* host clusters */
	uint32_t *refs;
};

#define QCOW2_WINDOW	(8u << 20)	/* clusters */
#define QCOW2_REF_DATA	(1u << 29)
#define QCOW2_REF_L2	(1u << 30)
#define QCOW2_REF_OTHER	(1u << 31)
#define QCOW2_REF_COUNT	(QCOW2_REF_DATA - 1)

/* What the whole image refers to, without counts. */
struct qcow2_extent {
	uint64_t end;		/* behind the last cluster referred to ... */
	uint64_t data_end;	/* ... as data */
	/* Entries that cannot be followed, of refcounts and others. */
	uint64_t ref_faults, faults;
};

int qcow2_check(void *handle, struct cow_check *check, bool repair);
/*
 * Blocking.  Refuse what is damaged by more than lost space.  A file that is
 * in use up to further than some windows is not looked through: its free
 * clusters are not believed then (alloc.unverified).
 */
int qcow2_verify(struct qcow2 *d);
/* Blocking.  Make refcounts right, and bits that depend on them. */
int qcow2_repair(struct qcow2 *d, struct cow_check *check);
void qcow2_found(struct qcow2 *d, struct cow_check *check,
		 enum cow_severity severity, bool repaired, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/*
 * found: told of each such entry, with refcounts: one of a refcount table; not
 * 0 ends it.
 */
int qcow2_measure(struct qcow2 *d, struct qcow2_extent *extent,
		  int (*found)(void *ctx, bool refcounts, const char *text),
		  void *ctx);
int qcow2_window_alloc(struct qcow2_window *w, uint64_t clusters);
int qcow2_window_count(struct qcow2 *d, struct qcow2_window *w,
		       bool refcounts);
/* New refcount structures behind end. */
int qcow2_rebuild(struct qcow2 *d, uint64_t end);

/* --- Others ---------------------------------------------------------------- */

int qcow2_open(struct cow_image *img, uint32_t flags, void **handle);
void qcow2_close(void *handle);
/* upgrade.c: before the first write.  Blocking, durable. */
int qcow2_prepare_write(struct qcow2 *d);
/* All is durable: counts are right. */
int qcow2_finish(void *handle);
int qcow2_set_features(struct qcow2 *d, uint64_t incompatible,
		       uint64_t compatible, uint64_t autoclear);
int qcow2_set_reftable(struct qcow2 *d, uint64_t offset, uint32_t clusters);
int qcow2_map(void *handle, const struct cow_query *query,
	      struct cow_mapping *mapping);
int qcow2_copied(void *handle, const struct cow_extent *extent);
int qcow2_discard(void *handle, uint64_t first, uint64_t count);
int qcow2_create(struct cow_image *img, const struct cow_create *create);

/* Of a commit that writes refcount blocks, or their table. */
static inline unsigned int qcow2_ref_phase(const struct qcow2 *d,
					   unsigned int phase)
{
	return d->lazy ? QCOW2_PHASE_L2 : phase;
}

static inline uint64_t qcow2_cluster(const struct qcow2 *d, uint64_t bytes)
{
	return bytes >> d->g.cluster_bits;
}

static inline uint64_t qcow2_bytes(const struct qcow2 *d, uint64_t cluster)
{
	return cluster << d->g.cluster_bits;
}

#endif /* QCOW2_H */
