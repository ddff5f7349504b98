// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mark.c - what is written before the first change, and after the last.
 *
 * The content ID in the descriptor changes when the disk is first written
 * after an open: by it an image above sees that this one is no more what it
 * was.  A sparse extent's header says that it is being written, so that after
 * a crash somebody looks at it.  Both are durable before the first write is
 * let through, and so before any change that they are about.
 *
 *	UNMARKED --change in memory--> MARKING --commit--> COMMITTING
 *	                                  ^-----failed--------'  `--> MARKED
 *
 * Until then no block may be written: mappings are read-only, and the first
 * write asks.
 */
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define UNCLEAN_AT offsetof(struct vmdk_header_disk, unclean_shutdown)

/* --- The content ID ------------------------------------------------------- */

/* Restarted.  Digits may lie in two windows: each gets its part. */
static int put_digits(struct vmdk *v, const struct vmdk_digits *digits,
		      const char *text, bool change)
{
	struct vmdk_extent *e = v->extents[0].file == 0 ? v->extents : NULL;
	uint64_t at = v->text_offset + digits->at;
	uint32_t done = 0, skip, room, n;
	struct cow_table *t;
	int ret, result = 0;

	while (done < digits->count) {
		ret = vmdk_window(v, e, 0, at + done, true, &t, &skip, &room);
		if (ret && ret != -EAGAIN)
			return ret;
		if (ret)
			result = ret;
		n = (uint32_t)num_min(room, digits->count - done);
		if (!ret && change) {
			memcpy((char *)cow_table_data(t) + skip, text + done,
			       n);
			cow_table_dirty(t, skip, n);
		}
		done += n;
	}
	return result;
}

static int put_cid(struct vmdk *v, const char *text, bool change)
{
	uint32_t spare = VMDK_CID_DIGITS - v->d.cid_digits.count;
	int ret, second;

	ret = put_digits(v, &v->d.cid_digits, text + spare, change);
	second = put_digits(v, &v->d.long_digits, text, change);
	return ret ? ret : second;
}

static void new_cid(const struct vmdk *v, char *text)
{
	uint32_t random = 0, spare = VMDK_CID_DIGITS - v->d.cid_digits.count;

	/* It need not be a secret: what matters is that it is another. */
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = v->d.cid * 2654435761u;
	memcpy(text, v->cid_text, VMDK_CID_DIGITS);
	vmdk_change_digits(text + spare, v->d.cid_digits.count, random);
}

static int start_cid(struct vmdk *v)
{
	char text[VMDK_CID_DIGITS];
	int ret;

	ret = put_cid(v, v->cid_text, false);
	if (ret)
		return ret;
	new_cid(v, text);
	memcpy(v->cid_text, text, sizeof(text));
	return put_cid(v, text, true);
}

/* --- The header ----------------------------------------------------------- */

static int start_extent(struct vmdk *v, struct vmdk_extent *e)
{
	struct cow_table *t;
	uint32_t skip, room;
	int ret;

	ret = vmdk_window(v, e, e->file, UNCLEAN_AT, true, &t, &skip, &room);
	if (ret)
		return ret;
	((uint8_t *)cow_table_data(t))[skip] = 1;
	cow_table_dirty(t, skip, 1);
	return 0;
}

int vmdk_set_unclean(struct vmdk *v, struct vmdk_extent *e, bool unclean)
{
	uint8_t byte = unclean;
	int ret;

	ret = cow_write(v->img, e->file, &byte, 1, UNCLEAN_AT);
	if (!ret)
		ret = cow_sync(v->img, e->file);
	if (!ret)
		e->h.unclean = unclean;
	return ret;
}

/* --- Before the first change ---------------------------------------------- */

bool vmdk_is_marked(const struct vmdk *v, const struct vmdk_extent *e)
{
	return v->mark == VMDK_MARKED &&
	       (e->type != VMDK_SPARSE || e->mark == VMDK_MARKED);
}

/*
 * Restarted.  0 when the marks are durable.  Both are changed before a commit
 * is waited for: the second time there is nothing left to do but to wait.
 */
int vmdk_mark(struct vmdk *v, struct vmdk_extent *e)
{
	int ret;

	if (vmdk_is_marked(v, e))
		return 0;
	if (v->mark == VMDK_UNMARKED) {
		ret = start_cid(v);
		if (ret)
			return ret;
		v->mark = VMDK_MARKING;
	}
	if (e->type == VMDK_SPARSE && e->mark == VMDK_UNMARKED) {
		ret = start_extent(v, e);
		if (ret)
			return ret;
		e->mark = VMDK_MARKING;
	}
	return cow_commit_first(v->img);
}

/* --- Commit --------------------------------------------------------------- */

static void commit_mark(enum vmdk_mark *mark)
{
	if (*mark == VMDK_MARKING)
		*mark = VMDK_MARK_COMMITTING;
}

static void committed_mark(enum vmdk_mark *mark, bool ok)
{
	if (*mark == VMDK_MARK_COMMITTING)
		*mark = ok ? VMDK_MARKED : VMDK_MARKING;
}

int vmdk_commit(void *handle)
{
	struct vmdk *v = handle;
	uint32_t i;

	commit_mark(&v->mark);
	for (i = 0; i < v->nr_extents; i++) {
		commit_mark(&v->extents[i].mark);
		space_commit(&v->extents[i].space);
	}
	return 0;
}

void vmdk_committed(void *handle, int status)
{
	struct vmdk *v = handle;
	uint32_t i;

	committed_mark(&v->mark, !status);
	for (i = 0; i < v->nr_extents; i++) {
		committed_mark(&v->extents[i].mark, !status);
		space_committed(&v->extents[i].space, !status);
	}
}

/* All is durable, and nothing more comes: nobody needs to look. */
int vmdk_finish(void *handle)
{
	struct vmdk *v = handle;
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < v->nr_extents; i++) {
		if (v->extents[i].mark == VMDK_MARKED)
			ret = vmdk_set_unclean(v, &v->extents[i], false);
	}
	return ret;
}
