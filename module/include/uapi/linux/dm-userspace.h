/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * dm-userspace: the protocol between the device-mapper target "userspace"
 * and the daemon that decides where each block lives.
 *
 * A daemon opens /dev/dm-userspace, attaches the open file to one key with
 * DMU_IOC_ATTACH and then
 *
 *	read()s   whole struct dmu_event's  (kernel to daemon), in batches,
 *	write()s  whole struct dmu_reply's  (daemon to kernel), in batches,
 *	poll()s   EPOLLIN when an event waits, EPOLLHUP when read() says that the
 *		  target is gone, EPOLLERR before the attach.
 *
 * Units: a "block" is the unit of decision given in the table line (a power
 * of two of sectors); a "sector" is 512 bytes.  Blocks count from the start
 * of the target.  All fields are in the host's byte order.
 *
 * Every field that a message does not use must be zero, in both directions;
 * a reply that breaks this is refused.  New messages and flags appear only
 * together with a feature bit agreed at attach.
 *
 * Round trips: a fault costs one (MAP event, MAP reply); a first write inside
 * a COW extent none; a flush none, or one when there is something to commit;
 * INVALIDATE one.
 */
#ifndef _UAPI_LINUX_DM_USERSPACE_H
#define _UAPI_LINUX_DM_USERSPACE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DMU_DEVICE_NAME		"dm-userspace"	/* below /dev */
#define DMU_TARGET_NAME		"userspace"	/* in a table line */

#define DMU_VERSION		1

#define DMU_KEY_LEN		128	/* with the terminating NUL */
#define DMU_MAX_DEVS		255
#define DMU_DEV_NONE		0xffffffffU	/* no device: a zero source */
#define DMU_MIN_BLOCK_SECTORS	1
#define DMU_MAX_BLOCK_SECTORS	32768	/* 16 MiB */
#define DMU_MAX_COW_BLOCKS	(1U << 25)	/* blocks in one COW extent */

/*
 * Features.  The daemon asks for those it wants at attach; a bit that the
 * kernel does not know makes the attach fail with EOPNOTSUPP, and the kernel
 * then says in ->features which ones it does.
 */

/*
 * The daemon wants to be asked about discards of whole blocks.  Without it
 * the kernel passes them to the destination of blocks that are written to
 * their own place already and ignores them elsewhere.
 */
#define DMU_FEAT_DISCARD	(1ULL << 0)

/* The same for write-zeroes; without it they are handled like a write. */
#define DMU_FEAT_WRITE_ZEROES	(1ULL << 1)

#define DMU_FEATURES_ALL	(DMU_FEAT_DISCARD | DMU_FEAT_WRITE_ZEROES)

/**
 * struct dmu_attach - argument of DMU_IOC_ATTACH
 * @version:	 in: DMU_VERSION.  Another one fails with EPROTO, and the
 *		 kernel's is then found here.
 * @pad:	 must be zero
 * @features:	 in: wanted; out: agreed, or on EOPNOTSUPP those known
 * @key:	 in: the key of the table line, padded with NULs
 * @block_sectors: out: sectors in a block
 * @nr_devs:	 out: destination devices declared in the table
 * @nr_sectors:	 out: length of the target in sectors
 * @reserved:	 must be zero
 *
 * Errors: EINVAL a padding or the key is malformed; ENODEV no target with
 * that key; EBUSY another daemon is attached to it; EALREADY this file is
 * attached; EPROTO, EOPNOTSUPP above.
 *
 * What an earlier daemon left is handed over before anything new, in this
 * order: a COPIED event for every extent that is copied and not committed,
 * REPLAY_END, then every question still owed (with a new id).  Delegations
 * (COW) that an earlier daemon gave are revoked first: no block is copied
 * under them any more, while blocks that were copied go on being served.
 */
struct dmu_attach {
	__u32 version;
	__u32 pad;
	__aligned_u64 features;
	char key[DMU_KEY_LEN];
	__u32 block_sectors;
	__u32 nr_devs;
	__aligned_u64 nr_sectors;
	__aligned_u64 reserved[4];
};

#define DMU_IOC_MAGIC		0xdb
#define DMU_IOC_ATTACH		_IOWR(DMU_IOC_MAGIC, 1, struct dmu_attach)

/* Events: what the kernel asks or tells. */
enum dmu_event_type {
	/*
	 * I/O to [block, block + count) waits for a mapping.  Flags:
	 * DMU_EV_WRITE, DMU_EV_OVERWRITE.  Owed: replies with this id, MAP or
	 * FAIL, until every block of the run is answered.  A remembered
	 * mapping answers all questions, read or unread, that it suffices
	 * for; those must not be answered again.
	 */
	DMU_EV_MAP		= 1,
	/*
	 * [block, block + count) now stands whole at (dev, sector), durable but
	 * for what LOST says, and the metadata does not say so yet.  May be
	 * repeated; where a block is told with several places, the last one
	 * holds.  Nothing is owed.
	 */
	DMU_EV_COPIED		= 2,
	/*
	 * Commit wanted.  The data of every extent reported by COPIED before
	 * this event is durable at its destination.  Owed: FLUSHED with this
	 * id, after the metadata that refers to it is durable.
	 */
	DMU_EV_FLUSH		= 3,
	/*
	 * [block, block + count) is discarded.  Only with DMU_FEAT_DISCARD.
	 * Owed: DONE with this id.  What COPIED told of blocks there, now or
	 * later, holds until an INVALIDATE with DMU_RE_FORGET.
	 */
	DMU_EV_DISCARD		= 4,
	/* The same, to read as zeroes.  Only with DMU_FEAT_WRITE_ZEROES. */
	DMU_EV_WRITE_ZEROES	= 5,
	/*
	 * No I/O is in flight under what INVALIDATE of [block, block + count)
	 * with this id took away, and COPIED was reported for all that had
	 * been copied there, or, with DMU_RE_FORGET, is not told any more.
	 * Nothing is owed.
	 */
	DMU_EV_INVALIDATED	= 6,
	/*
	 * Every extent that is copied and not committed has been told, after
	 * an attach or after a table was taken over.  Nothing is owed.
	 */
	DMU_EV_REPLAY_END	= 7,
	/*
	 * A flush of a device failed: data of blocks that COPIED told of, or
	 * will tell of, may be lost, and it must not be committed before the
	 * next FLUSH.  Told again after an attach.  Nothing is owed.
	 */
	DMU_EV_LOST		= 8,
};

#define DMU_EV_WRITE		(1U << 0)	/* else a read */
#define DMU_EV_OVERWRITE	(1U << 1)	/* each block by one whole write */

/**
 * struct dmu_event - what read() returns, one or more
 * @type:	enum dmu_event_type
 * @flags:	DMU_EV_*
 * @id:		names the question (MAP, FLUSH, DISCARD, WRITE_ZEROES), or the
 *		INVALIDATE it answers; else 0
 * @block:	first block
 * @count:	blocks
 * @dev:	COPIED: index of the destination device; else 0
 * @pad:	0
 * @sector:	COPIED: where @block starts on @dev; else 0
 * @reserved:	0
 *
 * Events of types that a daemon does not know are to be passed over.  read()
 * fails with ENODEV when the target is gone, with EIO if it went after LOST.
 * Of a target that goes while something is uncommitted COPIED and a last FLUSH
 * are told before, and ENODEV comes when that is answered.
 */
struct dmu_event {
	__u32 type;
	__u32 flags;
	__aligned_u64 id;
	__aligned_u64 block;
	__aligned_u64 count;
	__u32 dev;
	__u32 pad;
	__aligned_u64 sector;
	__aligned_u64 reserved[2];
};

/* Replies: what the daemon answers or tells. */
enum dmu_reply_type {
	/*
	 * An answer to MAP event @id: [block, block + count) is mapped as
	 * @kind says.  The extent must hold a block of the question that is
	 * still owed; it may be smaller or larger than the question.
	 */
	DMU_RE_MAP		= 1,
	/* I/O of question @id in [block, block + count) fails with @error. */
	DMU_RE_FAIL		= 2,
	/* FLUSH @id is done, @error 0, or could not be. */
	DMU_RE_FLUSHED		= 3,
	/* DISCARD or WRITE_ZEROES @id is done, @error 0, or could not be. */
	DMU_RE_DONE		= 4,
	/* As MAP with DMU_RE_REMEMBER, unasked; @id is 0. */
	DMU_RE_PRELOAD		= 5,
	/*
	 * Forget every mapping of [block, block + count).  New I/O there asks
	 * again; INVALIDATED with the same @id (any value but 0, the daemon's
	 * choice) tells when the last old I/O is through.  Until then no
	 * question about these blocks comes.  Nor does INVALIDATED come while
	 * a FLUSHED is owed.
	 */
	DMU_RE_INVALIDATE	= 6,
	/*
	 * Please start a commit (a FLUSH event follows if there is need, so
	 * with DMU_RE_METADATA, but not after LOST), or, with DMU_RE_LOST: a
	 * flush that the daemon made of a file failed.
	 */
	DMU_RE_COMMIT		= 7,
};

/* Mapping kinds. */
enum dmu_kind {
	/* (dev, sector), read-only unless DMU_RE_WRITABLE. */
	DMU_KIND_LINEAR		= 1,
	/*
	 * Reads go to (src_dev, src_sector), or are zero with src_dev
	 * DMU_DEV_NONE; the first write to a block makes the kernel copy the
	 * block to (dev, sector), unless the write covers it, and from then
	 * on the block lives there.  Blocks whose bit is set in the bitmap
	 * live there already, and the metadata says so.
	 */
	DMU_KIND_COW		= 2,
	/* Reads are zero; a write asks. */
	DMU_KIND_ZERO		= 3,
	/* Reads and writes fail with EIO. */
	DMU_KIND_ERROR		= 4,
};

#define DMU_RE_REMEMBER		(1U << 0)	/* MAP: keep the mapping */
#define DMU_RE_WRITABLE		(1U << 1)	/* MAP, PRELOAD: LINEAR only */
/*
 * MAP, PRELOAD, COMMIT: the daemon now holds uncommitted metadata, the next
 * flush asks.
 */
#define DMU_RE_METADATA		(1U << 2)
/* COMMIT: what is copied and not committed may be lost. */
#define DMU_RE_LOST		(1U << 3)
/*
 * INVALIDATE: forget also what was copied there and is not committed, as a
 * DISCARD or WRITE_ZEROES that is owed takes its place (ENOENT: none covers
 * these blocks).  COPIED does not tell of it any more, to no daemon.
 */
#define DMU_RE_FORGET		(1U << 4)

/**
 * struct dmu_reply - what write() takes, one or more
 * @type:	enum dmu_reply_type
 * @flags:	DMU_RE_*
 * @id:		the question, or the daemon's name for an INVALIDATE
 * @block:	first block
 * @count:	blocks, at least 1
 * @kind:	MAP, PRELOAD: enum dmu_kind
 * @error:	FAIL: a positive errno; FLUSHED, DONE: 0 or a positive errno
 * @dev:	LINEAR, COW: destination device, an index into the table's list
 * @src_dev:	COW: source device, or DMU_DEV_NONE for zeroes
 * @sector:	LINEAR, COW: where @block starts on @dev
 * @src_sector:	COW: where @block starts on @src_dev; 0 for zeroes
 * @bitmap_len:	COW: length in bytes of the bitmap that follows this struct
 *		directly, either 0 (nothing copied yet) or exactly
 *		DMU_BITMAP_LEN(count)
 * @reserved:	0
 *
 * The bitmap is an array of __u64; the bit of block (block + n) is bit n % 64
 * of element n / 64.  Bits past @count must be zero.
 *
 * A COW mapping is always remembered at least until its copied blocks are
 * committed; without DMU_RE_REMEMBER it is forgotten then.
 *
 * write() takes replies in order.  It stops at the first that it refuses: if
 * earlier ones were taken it returns their bytes, and the next write()
 * starting with the refused one returns its error.  A refused reply changes
 * nothing.  Errors:
 *
 *	EINVAL	  unknown type, kind or flag, non-zero padding, a field that
 *		  the type does not use, a length that is no whole message
 *	ERANGE	  the extent leaves the target, its place leaves the device,
 *		  or the place is too far from the block (2^52 sectors)
 *	ENXIO	  no such device index; PRELOAD while no table is live
 *	EPERM	  the mapping does not suffice for the question (a write)
 *	EROFS	  writable, and the device was opened read-only
 *	ENOENT	  no such question is owed
 *	EBUSY	  MAP, PRELOAD before REPLAY_END, or of blocks between INVALIDATE
 *		  and INVALIDATED: what was copied there is not told yet
 *	EEXIST	  a mapping that can be written through is there: INVALIDATE it
 *	E2BIG	  the bitmap does not fit into the map's budget, or more than
 *		  DMU_MAX_COW_BLOCKS: answer with a smaller extent
 *	ENOMEM	  no memory now: try again
 *	EFAULT	  bad address
 *	ENOTCONN  not attached
 *	ENODEV	  the target is gone, and read() says so too
 */
struct dmu_reply {
	__u32 type;
	__u32 flags;
	__aligned_u64 id;
	__aligned_u64 block;
	__aligned_u64 count;
	__u32 kind;
	__u32 error;
	__u32 dev;
	__u32 src_dev;
	__aligned_u64 sector;
	__aligned_u64 src_sector;
	__u32 bitmap_len;
	__u32 pad;
	__aligned_u64 reserved[3];
};

#define DMU_BITMAP_LEN(count)	((((count) + 63) / 64) * 8)

/* The layout is fixed; both the module and libdmu compile these checks. */
#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(struct dmu_attach) == 192, "struct dmu_attach");
_Static_assert(sizeof(struct dmu_event) == 64, "struct dmu_event");
_Static_assert(sizeof(struct dmu_reply) == 96, "struct dmu_reply");
_Static_assert(__builtin_offsetof(struct dmu_attach, key) == 16, "key");
_Static_assert(__builtin_offsetof(struct dmu_attach, nr_sectors) == 152, "nr_sectors");
_Static_assert(__builtin_offsetof(struct dmu_event, dev) == 32, "event dev");
_Static_assert(__builtin_offsetof(struct dmu_event, sector) == 40, "event sector");
_Static_assert(__builtin_offsetof(struct dmu_reply, kind) == 32, "reply kind");
_Static_assert(__builtin_offsetof(struct dmu_reply, sector) == 48, "reply sector");
_Static_assert(__builtin_offsetof(struct dmu_reply, bitmap_len) == 64, "reply bitmap_len");
_Static_assert(__builtin_offsetof(struct dmu_reply, reserved) == 72, "reply reserved");
#endif

#endif /* _UAPI_LINUX_DM_USERSPACE_H */
