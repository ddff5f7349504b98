/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * descriptor.h - the text that says what an image is made of.
 */
#ifndef VMDK_DESCRIPTOR_H
#define VMDK_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMDK_EXTENTS_MAX	1024u
#define VMDK_NO_PARENT		0xffffffffu
#define VMDK_CID_DIGITS		8u

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };

enum vmdk_extent_type {
	VMDK_SPARSE,
	VMDK_FLAT,		/* also VMFS: the disk as it is */
	VMDK_ZERO,
};

struct vmdk_extent_line {
	enum vmdk_access access;
	enum vmdk_extent_type type;
	uint64_t sectors;
	const char *path;	/* NULL for VMDK_ZERO */
	uint64_t offset;	/* sectors of the file */
};

/* Digits in the text that are changed in place. */
struct vmdk_digits {
	uint32_t at;		/* bytes from the start of the text */
	uint32_t count;		/* 0: there are none */
};

/* Strings lie in the text that was parsed. */
struct vmdk_descriptor {
	uint32_t cid, parent_cid;
	struct vmdk_digits cid_digits;
	struct vmdk_digits long_digits;	/* of ddb.longContentID: the same */
	const char *create_type;
	const char *parent;		/* NULL: none */
	const char *adapter_type;	/* or NULL */
	const char *hw_version;		/* or NULL */
	const char *change_track;	/* or NULL */
	const char *unsupported;	/* a key that we must not ignore */
	struct vmdk_extent_line *extents;
	uint32_t nr_extents;
};

/* Do these bytes begin a descriptor? */
bool vmdk_is_descriptor(const char *text, size_t len);
/*
 * Parse text of len bytes, and one more that may be written; text is changed:
 * strings are ended in it.  0, or a negative errno and in *why the rest of a
 * sentence about the image.  Release what it holds in either case.
 */
int vmdk_descriptor_parse(char *text, size_t len, struct vmdk_descriptor *d,
			  const char **why);
void vmdk_descriptor_release(struct vmdk_descriptor *d);

struct vmdk_new_descriptor {
	uint32_t cid, parent_cid;
	const char *create_type;
	const char *parent;		/* or NULL */
	uint64_t sectors;
	const char *name;		/* of the one extent's file */
	const char *adapter_type, *hw_version;
};

/* Length of the text written to buf, or -ENOSPC. */
int vmdk_descriptor_format(const struct vmdk_new_descriptor *n, char *buf,
			   size_t size);

/*
 * New digits for old ones, every one of them another: so that whatever part
 * of them a crash leaves, it is no more the old number.
 */
void vmdk_change_digits(char *digits, uint32_t count, uint32_t random);

#endif /* VMDK_DESCRIPTOR_H */
