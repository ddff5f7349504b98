// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Questions and answers.
 *
 * Each event that needs an answer or work occupies a slot until the kernel
 * has taken its answer.  What must hold:
 *
 *  S1  Each question is answered once.  A question that a remembered answer
 *	to another one covers is not answered itself (the kernel did that);
 *	should the kernel refuse that other answer, be it because its own question
 *	is answered by now, all that it covered are looked up again.
 *  S2  Replies of a batch are written before further events are read.
 *  S3  From a discard's INVALIDATE until libcow is done with it no mapping is
 *	given out that overlaps it, and it begins in libcow only when no COPIED
 *	that overlaps it is still on its way there.  The kernel forgets with
 *	INVALIDATE what was copied, so no COPIED of old data comes after it.
 *  S4  Slots that wait for a further event (INVALIDATED, or FLUSH for a discard)
 *	and discards on their way to that are at most MAX_WAITING, so that there
 *	is always room to read it; all others become free by libcow alone.
 *  S5  A discard is answered after a commit of what it did, by a FLUSH that was
 *	read when libcow was done with it: what was answered outlives cowd.
 *  S6  From a COPIED until libcow is done with it no mapping is given out that
 *	overlaps it, as libcow does not know yet where these blocks live; and none at
 *	all while one of the replay's is under way, as libcow does not know either
 *	which places are taken; nor is anything committed then.
 *  S7  The scratch file, when it is full, is emptied as if it were a discard of its
 *	blocks: from the INVALIDATE on no mapping is given out that overlaps them, and
 *	it is emptied after INVALIDATED, when nobody can read from it any more.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <dmu.h>
#include <libcow/cow.h>
#include <common/clock.h>
#include <common/num.h>

#include "log.h"
#include "serve.h"

#define NR_SLOTS	256
#define BATCH		64	/* events read at once */
#define MAX_WAITING	64
#define MANY_DEFERRED	2048	/* with so many, and no room, nothing more is read */
#define FIRST_DEFERRED	4096	/* from the start: memory may be short later */
#define NR_RECENT	32
#define MAX_TRIES	64	/* halving the largest extent takes 25 */
#define TRY_WIDER	64	/* answers taken, until one of twice the width is tried */
#define ROOM_SELDOM	8	/* answers taken from one that waits for room to the next */
#define ROOM_MS		20	/* until one looks again whether there is room */
#define ROOM_MAX_MS	640	/* the same, when there was none again and again */
#define ROOM_LAST_MS	30000	/* without any, until questions fail */
#define REPLAY_AGAIN_MS	1000	/* until a COPIED that failed is tried again */
#define REPLAY_LAST_MS	30000	/* until we give up */
#define COMMIT_MS	5000	/* between commits that nobody asked for */
#define COMMIT_MAX_MS	40000	/* the same when there was nothing to commit */
#define EV_SCRATCH	0	/* no event of the kernel's: S7 */
#define EV_WAITED	(1u << 31)	/* a flag of ours: MAP that was put off for want of room */

enum slot_step {
	SLOT_FREE = 0,
	SLOT_AT_LIBCOW,		/* request submitted */
	SLOT_AGAIN,		/* to be submitted (on) */
	SLOT_SENT,		/* answered or covered; until the batch is taken */
	SLOT_INVALIDATING,	/* waits for INVALIDATED */
	SLOT_BEHIND_COPIED,	/* a discard that waits for S3, a FLUSH for S6 */
	SLOT_COMMITTING,	/* a discard that waits for S5 */
	SLOT_REPLAY_AGAIN,	/* a COPIED that waits for its next try: S6 */
};

struct slot {
	enum slot_step step;
	struct dmu_event event;
	uint64_t next;		/* MAP: first block not answered yet */
	uint64_t span;		/* MAP: widest answer to give, 0 any */
	bool forward;		/* MAP: it does not reach back before next */
	bool covered;		/* MAP: S1 */
	bool learns;		/* MAP: span is news if it is taken */
	bool failed;		/* MAP: answered by an error; COPIED: once at least, S6 */
	bool late;		/* MAP: an answer came when the question was owed no more */
	bool replayed;		/* COPIED: S6 */
	uint64_t stale_first, stale_end;	/* MAP: what changed since it was submitted */
	int refused;		/* error of a refused reply, or 0 */
	unsigned int tries;	/* MAP: answers refused so far */
	uint64_t flush;		/* COMMITTING: id of the FLUSH, 0 none came yet */
	struct cowd_serve *serve;
	struct cow_request req;
};

/* A remembered answer that is queued and not written yet. */
struct recent {
	struct dmu_extent extent;
	bool for_write;
};

struct cowd_serve {
	struct cow_chain *chain;
	struct dmu_channel *channel;
	uint64_t nr_blocks;
	uint32_t block_size;	/* bytes */
	unsigned int nr_free, nr_waiting;
	unsigned int top;	/* all slots from here on are free */
	unsigned int nr_changes;	/* slots of S3, S6 and S7 */
	unsigned int nr_replayed;	/* of them, those of the replay */
	bool replay_ended;
	bool emptying;		/* S7 */
	bool metadata_owed;	/* the kernel did not hear of an answer that changed metadata */
	bool stopped;
	bool replies_queued, refused_any, retry_deferred, again_any;
	bool to_settle;		/* there are slots that settle() has to look at */
	bool any_behind;	/* one may be BEHIND_COPIED */
	int fatal;
	uint64_t widest;	/* answer that the kernel has room for, 0 any */
	unsigned int nr_taken;	/* answers since that is known */
	unsigned int nr_since_room;	/* answers taken since one waited for room */
	int64_t no_room_since;	/* ms, or 0: the last answer was taken */
	int64_t room_at;	/* ms, or 0: when to look again */
	bool unsettled;		/* questions wait for REPLAY_END or INVALIDATED */
	int room_ms;
	unsigned int nr_recent;
	struct recent recent[NR_RECENT];
	struct slot slots[NR_SLOTS];
	/* Events that cannot begin yet: a ring. */
	unsigned int deferred_first, nr_deferred;
	struct dmu_event *deferred;
	unsigned int room_deferred;
	int64_t replay_failed_since, replay_at;	/* ms, or 0: S6 */
	bool lost_known;	/* the kernel knows that data may be lost */
	uint64_t syncs_told;	/* that failed, and the kernel knows */
	int64_t commit_at;	/* ms, or 0: not armed */
	int commit_ms;
	struct cowd_serve_stats stats;
};

/* ---- extents ------------------------------------------------------------ */

static uint64_t extent_end(struct dmu_extent ext)
{
	return ext.block + ext.count;
}

static bool overlaps(struct dmu_extent a, struct dmu_extent b)
{
	return a.block < extent_end(b) && b.block < extent_end(a);
}

static bool contains(struct dmu_extent outer, struct dmu_extent inner)
{
	return outer.block <= inner.block &&
	       extent_end(inner) <= extent_end(outer);
}

static struct dmu_extent event_extent(const struct dmu_event *event)
{
	return (struct dmu_extent){ event->block, event->count };
}

/* S3, S6, S7: it changes where blocks live, and libcow is not done with it. */
static bool is_change(const struct slot *slot)
{
	return slot->step != SLOT_FREE && slot->step != SLOT_COMMITTING &&
	       (slot->event.type == EV_SCRATCH ||
		slot->event.type == DMU_EV_COPIED ||
		slot->event.type == DMU_EV_DISCARD ||
		slot->event.type == DMU_EV_WRITE_ZEROES);
}

/* ---- slots -------------------------------------------------------------- */

static void slot_done(struct cow_request *req, int status);

/* Slot @i, counted: an event is to cost no look at what is free. */
static struct slot *look_at(struct cowd_serve *s, unsigned int i)
{
	s->stats.looked_at++;
	return &s->slots[i];
}

static struct slot *slot_take(struct cowd_serve *s, const struct dmu_event *event)
{
	unsigned int i;

	for (i = 0; i < s->top; i++)
		if (look_at(s, i)->step == SLOT_FREE)
			break;
	if (i == NR_SLOTS)
		return NULL;	/* not reached: see cowd_serve_wants_events() */
	if (i == s->top)
		s->top++;
	s->nr_free--;
	s->slots[i].event = *event;
	s->slots[i].next = event->block;
	s->slots[i].span = s->widest;
	s->slots[i].forward = false;
	s->slots[i].covered = false;
	s->slots[i].learns = false;
	s->slots[i].failed = false;
	s->slots[i].late = false;
	s->slots[i].replayed = false;
	s->slots[i].refused = 0;
	s->slots[i].tries = 0;
	s->slots[i].flush = 0;
	s->slots[i].step = SLOT_AGAIN;
	return &s->slots[i];
}

static void slot_free(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	slot->step = SLOT_FREE;
	s->nr_free++;
	while (s->top && s->slots[s->top - 1].step == SLOT_FREE)
		s->top--;
}

/* What the kernel is told as the id of an INVALIDATE: the slot, never 0. */
static uint64_t slot_name(const struct slot *slot)
{
	return (uint64_t)(slot - slot->serve->slots) + 1;
}

static void check_fatal(struct cowd_serve *s, int err)
{
	if (err && !s->fatal)
		s->fatal = err;
	s->replies_queued = true;
	s->to_settle = true;
}

static void submit(struct slot *slot, enum cow_op op, uint32_t flags)
{
	struct cow_request *req = &slot->req;

	req->op = op;
	req->flags = flags;
	req->done = slot_done;
	req->user = slot;
	slot->step = SLOT_AT_LIBCOW;
	cow_submit(slot->serve->chain, req);
}

static void again(struct slot *slot)
{
	slot->step = SLOT_AGAIN;
	slot->serve->again_any = true;
}

/* ---- deferred events ---------------------------------------------------- */

/* No room to put it off: an answer that is allowed, if not the best. */
static void refuse_event(struct cowd_serve *s, const struct dmu_event *event)
{
	struct dmu_extent ext = event_extent(event);
	int err;

	if (event->type == DMU_EV_MAP)
		err = dmu_reply_fail(s->channel, event->id, ext, -EBUSY);
	else if (event->type == DMU_EV_WRITE_ZEROES)
		err = dmu_reply_done(s->channel, event->id, -EOPNOTSUPP);
	else	/* a discard is a hint */
		err = dmu_reply_done(s->channel, event->id, 0);
	check_fatal(s, err);
}

/* The ring becomes twice as large, and begins at its start. */
static bool grow_deferred(struct cowd_serve *s)
{
	unsigned int i, room = s->room_deferred * 2;
	struct dmu_event *events = calloc(room, sizeof(*events));

	if (!events)
		return false;
	for (i = 0; i < s->nr_deferred; i++)
		events[i] = s->deferred[(s->deferred_first + i) % s->room_deferred];
	free(s->deferred);
	s->deferred = events;
	s->deferred_first = 0;
	s->room_deferred = room;
	return true;
}

/* As many as the kernel has I/O that waits. */
static void defer(struct cowd_serve *s, const struct dmu_event *event)
{
	if (s->nr_deferred == s->room_deferred && !grow_deferred(s)) {
		refuse_event(s, event);
		return;
	}
	s->deferred[(s->deferred_first + s->nr_deferred++) % s->room_deferred] = *event;
}

/* ---- MAP ---------------------------------------------------------------- */

/* Does a change in progress overlap @ext? */
static bool changes_over(const struct cowd_serve *s, struct dmu_extent ext)
{
	unsigned int i;

	for (i = 0; s->nr_changes && i < s->top; i++)
		if (is_change(&s->slots[i]) &&
		    overlaps(event_extent(&s->slots[i].event), ext))
			return true;
	return false;
}

/* A change of @ext begins: what libcow looked up there before is not to be given out. */
static void begin_change(struct cowd_serve *s, struct dmu_extent ext)
{
	struct slot *slot;
	unsigned int i;

	s->nr_changes++;
	for (i = 0; i < s->top; i++) {
		slot = look_at(s, i);
		if (slot->step != SLOT_AT_LIBCOW || slot->event.type != DMU_EV_MAP)
			continue;
		slot->stale_first = num_min(slot->stale_first, ext.block);
		slot->stale_end = num_max(slot->stale_end, extent_end(ext));
	}
}

/* What waited for its end is looked at again. */
static void end_change(struct cowd_serve *s)
{
	s->nr_changes--;
	s->retry_deferred = true;
}

/* Narrow [*first, *end), which holds @block, to what no change touches. */
static void avoid_changes(struct cowd_serve *s, uint64_t block,
			   uint64_t *first, uint64_t *end)
{
	struct dmu_extent ext;
	unsigned int i;

	for (i = 0; s->nr_changes && i < s->top; i++) {
		if (!is_change(&s->slots[i]))
			continue;
		ext = event_extent(&s->slots[i].event);
		if (extent_end(ext) <= block)
			*first = num_max(*first, extent_end(ext));
		else
			*end = num_min(*end, ext.block);
	}
}

static bool is_covered(const struct cowd_serve *s, struct dmu_extent ext,
		       bool write)
{
	unsigned int i;

	for (i = 0; i < s->nr_recent; i++)
		if (contains(s->recent[i].extent, ext) &&
		    (s->recent[i].for_write || !write))
			return true;
	return false;
}

static struct dmu_extent rest_of(const struct slot *slot)
{
	uint64_t end = slot->event.block + slot->event.count;

	return (struct dmu_extent){ slot->next, end - slot->next };
}

static bool is_write(const struct slot *slot)
{
	return slot->event.flags & DMU_EV_WRITE;
}

/* S1: a remembered answer that is queued now, and whom else it serves. */
static void remember_answer(struct cowd_serve *s, struct dmu_extent ext,
			    bool for_write)
{
	struct slot *slot;
	unsigned int i;

	if (s->nr_recent < NR_RECENT)
		s->recent[s->nr_recent++] = (struct recent){ ext, for_write };
	for (i = 0; i < s->top; i++) {
		slot = look_at(s, i);
		if (slot->event.type != DMU_EV_MAP ||
		    (slot->step != SLOT_AT_LIBCOW && slot->step != SLOT_AGAIN))
			continue;
		if (contains(ext, rest_of(slot)) && (for_write || !is_write(slot)))
			slot->covered = true;
	}
}

static void finish_covered(struct slot *slot)
{
	slot->serve->stats.covered++;
	slot->serve->to_settle = true;
	slot->step = SLOT_SENT;
}

static uint32_t query_flags(const struct dmu_event *event)
{
	return (event->flags & DMU_EV_WRITE ? COW_QUERY_WRITE : 0) |
	       (event->flags & DMU_EV_OVERWRITE ? COW_QUERY_OVERWRITE : 0);
}

/* The widest answer that may be given for the block that is next. */
static void set_limits(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;
	uint64_t first = 0, end = s->nr_blocks;

	if (slot->span) {
		first = num_round_down(slot->next, slot->span);
		end = num_min(end, first + slot->span);
	}
	if (slot->forward)
		first = slot->next;
	avoid_changes(s, slot->next, &first, &end);
	slot->req.first = slot->next;
	slot->req.count = num_min(rest_of(slot).count, end - slot->next);
	slot->req.limit_first = first;
	slot->req.limit_end = end;
}

/* The kernel's budget, and what else is in it, change: now and then more is tried. */
static void try_wider(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	if (!slot->span || slot->span != s->widest || s->nr_taken < TRY_WIDER)
		return;
	s->nr_taken = 0;
	slot->span *= 2;
	if (slot->span >= s->nr_blocks)
		slot->span = 0;
	slot->learns = true;
}

static void map_submit(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	if (slot->covered || is_covered(s, rest_of(slot), is_write(slot))) {
		slot->covered = true;
		finish_covered(slot);
		return;
	}
	/* All of it: what was answered, and is taken, is ENOENT then, no harm. */
	if (s->nr_replayed ||
	    changes_over(s, (struct dmu_extent){ slot->next, 1 })) {
		slot_free(slot);
		defer(s, &slot->event);
		return;
	}
	try_wider(slot);
	set_limits(slot);
	slot->stale_first = UINT64_MAX;
	slot->stale_end = 0;
	submit(slot, COW_OP_MAP, query_flags(&slot->event));
}

static unsigned int reply_flags(const struct cow_answer *answer)
{
	return (answer->flags & COW_MAPPING_ONCE ? 0 : DMU_RE_REMEMBER) |
	       (answer->flags & COW_MAPPING_DIRTY ? DMU_RE_METADATA : 0);
}

/* libcow's bits are little-endian, the kernel's words are its own. */
static void copy_bits(uint64_t *dst, const uint8_t *src, uint64_t count)
{
	uint64_t i, words = (count + 63) / 64;

	memcpy(dst, src, (count + 7) / 8);
	if (count % 8)
		((uint8_t *)dst)[count / 8] &= (uint8_t)((1u << count % 8) - 1);
	for (i = 0; i < words; i++)
		dst[i] = le64toh(dst[i]);
}

static int reply_cow(struct slot *slot, const struct cow_answer *answer)
{
	struct dmu_extent ext = { answer->first, answer->count };
	struct dmu_place dest = { answer->file, answer->offset / COW_SECTOR_SIZE };
	struct dmu_place source = { DMU_DEV_NONE, 0 };
	uint64_t *bitmap = NULL;
	int err;

	if (answer->src_file != COW_NO_FILE)
		source = (struct dmu_place){
			answer->src_file, answer->src_offset / COW_SECTOR_SIZE };
	err = dmu_reply_cow(slot->serve->channel, slot->event.id, ext, dest,
			    source, reply_flags(answer),
			    answer->copied ? &bitmap : NULL);
	if (!err && bitmap)
		copy_bits(bitmap, answer->copied, answer->count);
	return err;
}

static int reply_linear(struct slot *slot, const struct cow_answer *answer)
{
	struct dmu_extent ext = { answer->first, answer->count };
	struct dmu_place place = { answer->file, answer->offset / COW_SECTOR_SIZE };
	unsigned int flags = reply_flags(answer);

	if (answer->flags & COW_MAPPING_WRITABLE)
		flags |= DMU_RE_WRITABLE;
	return dmu_reply_linear(slot->serve->channel, slot->event.id, ext, place,
				flags);
}

static int reply_answer(struct slot *slot, const struct cow_answer *answer)
{
	struct dmu_extent ext = { answer->first, answer->count };

	switch (answer->kind) {
	case COW_KIND_LINEAR:
		return reply_linear(slot, answer);
	case COW_KIND_COW:
		return reply_cow(slot, answer);
	default:
		return dmu_reply_zero(slot->serve->channel, slot->event.id, ext,
				      reply_flags(answer));
	}
}

/*
 * Cut the answer to what one reply can say.  With bits libcow has kept to
 * the limit already; without, any part that holds the block asked for will do.
 */
static void clamp(struct slot *slot, struct cow_answer *answer)
{
	uint64_t skip;

	answer->count = num_min(answer->count,
				slot->serve->nr_blocks - answer->first);
	if (answer->kind != COW_KIND_COW || answer->count <= DMU_MAX_COW_BLOCKS ||
	    answer->copied)
		return;
	skip = num_round_down(slot->next - answer->first, DMU_MAX_COW_BLOCKS);
	answer->first += skip;
	answer->count = num_min(answer->count - skip, DMU_MAX_COW_BLOCKS);
	answer->offset += skip * slot->serve->block_size;
	if (answer->src_file != COW_NO_FILE)
		answer->src_offset += skip * slot->serve->block_size;
}

static void map_refused(struct slot *slot);

static void map_fail(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;

	slot->failed = true;
	s->stats.failed++;
	check_fatal(s, dmu_reply_fail(s->channel, slot->event.id, rest_of(slot),
				      status));
	slot->step = SLOT_SENT;
}

/* S3, S6: was the answer looked up before a change of what it is about? */
static bool is_stale(const struct slot *slot)
{
	const struct cow_answer *answer = &slot->req.answer;

	return answer->first < slot->stale_end &&
	       slot->stale_first < answer->first + answer->count;
}

/* The answer is not given: what it changed is to be committed all the same. */
static void drop_answer(struct slot *slot, int status)
{
	if (!status && slot->req.answer.flags & COW_MAPPING_DIRTY)
		slot->serve->metadata_owed = true;
}

static void arm_commit(struct cowd_serve *s)
{
	if (!s->commit_at)
		s->commit_at = clock_now_ms() + s->commit_ms;
}

static void map_done(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;
	struct cow_answer *answer = &slot->req.answer;
	bool for_write;

	if (slot->covered) {
		drop_answer(slot, status);
		finish_covered(slot);
		return;
	}
	if (slot->refused) {
		drop_answer(slot, status);
		map_refused(slot);
		return;
	}
	if (!status && is_stale(slot)) {
		drop_answer(slot, status);
		again(slot);
		return;
	}
	if (status) {
		map_fail(slot, status);
		return;
	}
	clamp(slot, answer);
	check_fatal(s, reply_answer(slot, answer));
	slot->next = answer->first + answer->count;
	if (slot->next >= slot->event.block + slot->event.count)
		slot->step = SLOT_SENT;
	else
		again(slot);
	for_write = answer->kind == COW_KIND_COW ||
		    answer->flags & COW_MAPPING_WRITABLE;
	if (!(answer->flags & COW_MAPPING_ONCE))
		remember_answer(s, (struct dmu_extent){ answer->first, answer->count },
				for_write);
	if (for_write || answer->flags & COW_MAPPING_DIRTY)
		arm_commit(s);
}

/* ---- COPIED, FLUSH ------------------------------------------------------ */

static void copied_submit(struct slot *slot)
{
	const struct dmu_event *event = &slot->event;

	slot->req.first = event->block;
	slot->req.count = event->count;
	slot->req.file = event->dev;
	slot->req.offset = event->sector * COW_SECTOR_SIZE;
	submit(slot, COW_OP_COPIED, slot->replayed ? COW_REQ_AGAIN : 0);
}

/* S3, S6: what waited for a COPIED may begin. */
static void retry_behind_copied(struct cowd_serve *s)
{
	unsigned int i;

	if (!s->any_behind)
		return;
	s->any_behind = false;
	for (i = 0; i < s->top; i++)
		if (look_at(s, i)->step == SLOT_BEHIND_COPIED)
			again(&s->slots[i]);
}

/* COPIED @slot is about blocks of another one, of those that @failed only. */
static bool copied_twice(const struct slot *slot, bool failed)
{
	const struct slot *other;
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++) {
		other = &slot->serve->slots[i];
		if (other != slot && other->step != SLOT_FREE &&
		    other->event.type == DMU_EV_COPIED &&
		    (other->failed || !failed) &&
		    overlaps(event_extent(&other->event),
			     event_extent(&slot->event)))
			return true;
	}
	return false;
}

/*
 * S6: libcow could not take up what was copied before, so it might give the place to
 * others: nothing is answered until it can.  Of two places of a block the one that was
 * told later must stay the later one: then who comes next hears all of it in order.
 */
static void replay_failed(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;
	struct dmu_extent ext = event_extent(&slot->event);
	int64_t now = clock_now_ms();

	if (!s->replay_failed_since) {
		s->replay_failed_since = now;
		cowd_log(COWD_ERROR, "what was copied to blocks %llu+%llu cannot be taken up: %s; tried again for %d s, and no question is answered meanwhile",
			 (unsigned long long)ext.block,
			 (unsigned long long)ext.count, strerror(-status),
			 REPLAY_LAST_MS / 1000);
	}
	if (now - s->replay_failed_since > REPLAY_LAST_MS ||
	    copied_twice(slot, false))
		check_fatal(s, status);
	slot->failed = true;
	slot->step = SLOT_REPLAY_AGAIN;
	s->replay_at = now + REPLAY_AGAIN_MS;
}

static void look_at_replay(struct cowd_serve *s)
{
	unsigned int i;

	if (!s->replay_at || clock_now_ms() < s->replay_at)
		return;
	s->replay_at = 0;
	for (i = 0; i < NR_SLOTS; i++)
		if (s->slots[i].step == SLOT_REPLAY_AGAIN)
			again(&s->slots[i]);
}

static void copied_done(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;

	if (status && slot->replayed) {
		replay_failed(slot, status);
		return;
	}
	if (s->replay_failed_since && copied_twice(slot, true))
		check_fatal(s, -EIO);
	s->nr_replayed -= slot->replayed;
	if (!s->nr_replayed)
		s->replay_failed_since = 0;
	end_change(s);
	slot_free(slot);
	retry_behind_copied(s);
}

static void discard_answer(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;

	s->nr_waiting--;
	s->retry_deferred = true;
	check_fatal(s, dmu_reply_done(s->channel, slot->event.id, status));
	slot_free(slot);
}

/* S5: answer the discards that wait for FLUSH @id. */
static void discards_answer(struct cowd_serve *s, uint64_t id, int status)
{
	unsigned int i;

	for (i = 0; i < s->top; i++)
		if (look_at(s, i)->step == SLOT_COMMITTING && s->slots[i].flush == id)
			discard_answer(&s->slots[i], status);
}

/* S5: what libcow is done with now is in the commit that FLUSH @id asks for. */
static void discards_commit(struct cowd_serve *s, uint64_t id)
{
	unsigned int i;

	for (i = 0; i < s->top; i++)
		if (look_at(s, i)->step == SLOT_COMMITTING && !s->slots[i].flush)
			s->slots[i].flush = id;
}

/* The kernel asks for no commit any more. */
static void lost(struct cowd_serve *s)
{
	s->lost_known = true;
	discards_answer(s, 0, -EIO);
}

/*
 * A sync of libcow's own failed: the kernel hears of it before anything else, and once.
 * That libcow still holds its commits says nothing: the FLUSH by which the kernel trusts
 * the data again may wait there for what was copied before.
 */
static void tell_lost(struct cowd_serve *s)
{
	uint64_t failed = cow_failed_syncs(s->chain);

	if (failed == s->syncs_told)
		return;
	s->syncs_told = failed;
	check_fatal(s, dmu_report_lost(s->channel));
	lost(s);
}

/* S6: what was copied before is part of it. */
static void flush_submit(struct slot *slot)
{
	if (!slot->serve->nr_replayed) {
		submit(slot, COW_OP_COMMIT, COW_REQ_DATA_DURABLE);
		return;
	}
	slot->step = SLOT_BEHIND_COPIED;
	slot->serve->any_behind = true;
}

static void commit_done(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;

	tell_lost(s);

	if (status && status != s->stats.commit_error)
		cowd_log(COWD_ERROR, "commit failed: %s", strerror(-status));
	s->stats.commit_error = status;
	check_fatal(s, dmu_reply_flushed(s->channel, slot->event.id, status));
	discards_answer(s, slot->event.id, status);
	slot->step = SLOT_SENT;
}

/* ---- DISCARD, WRITE_ZEROES ---------------------------------------------- */

static void invalidate(struct slot *slot, struct dmu_extent ext, unsigned int flags)
{
	struct cowd_serve *s = slot->serve;

	slot->step = SLOT_INVALIDATING;
	s->nr_waiting++;
	check_fatal(s, dmu_invalidate(s->channel, slot_name(slot), ext, flags));
}

static bool copied_over(struct cowd_serve *s, struct dmu_extent ext)
{
	unsigned int i;

	for (i = 0; i < s->top; i++)
		if (s->slots[i].step != SLOT_FREE &&
		    s->slots[i].event.type == DMU_EV_COPIED &&
		    overlaps(event_extent(&s->slots[i].event), ext))
			return true;
	return false;
}

static void discard_submit(struct slot *slot)
{
	const struct dmu_event *event = &slot->event;

	if (slot->serve->nr_replayed ||
	    copied_over(slot->serve, event_extent(event))) {
		slot->step = SLOT_BEHIND_COPIED;
		slot->serve->any_behind = true;
		return;
	}
	slot->req.first = event->block;
	slot->req.count = event->count;
	submit(slot, event->type == DMU_EV_DISCARD ? COW_OP_DISCARD :
						     COW_OP_WRITE_ZEROES, 0);
}

static void discard_done(struct slot *slot, int status)
{
	struct cowd_serve *s = slot->serve;

	end_change(s);
	/*
	 * Also for what was done of one that failed, as the kernel forgot the rest;
	 * and after LOST: a person may have said to go on.
	 */
	check_fatal(s, dmu_request_commit(s->channel, DMU_RE_METADATA));
	arm_commit(s);
	if (status || s->lost_known)
		discard_answer(slot, status ? status : -EIO);
	else
		slot->step = SLOT_COMMITTING;
}

/* The kernel refused its INVALIDATE: no memory, or it is owed no more. */
static void discard_refused(struct slot *slot, int status)
{
	end_change(slot->serve);
	discard_answer(slot, status);
}

/* ---- the scratch file --------------------------------------------------- */

static void scratch_done(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	s->emptying = false;
	s->nr_waiting--;
	end_change(s);
	slot_free(slot);
}

/* What fails is said, and tried again as more is made. */
static void scratch_submit(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	if (!cow_scratch_empty(s->chain, slot->event.block, slot->event.count))
		s->stats.emptied++;
	scratch_done(slot);
}

/* An INVALIDATE that is refused, for want of memory, is tried again at the next event. */
static void empty_scratch(struct cowd_serve *s)
{
	struct dmu_event event = { .type = EV_SCRATCH };
	struct dmu_extent ext;

	if (s->emptying || !s->replay_ended || s->nr_waiting >= MAX_WAITING ||
	    !s->nr_free || !cow_scratch_full(s->chain, &ext.block, &ext.count))
		return;
	event.block = ext.block;
	event.count = ext.count;
	s->emptying = true;
	begin_change(s, ext);
	invalidate(slot_take(s, &event), ext, 0);
}

/* ---- one slot ----------------------------------------------------------- */

static void slot_submit(struct slot *slot)
{
	switch (slot->event.type) {
	case EV_SCRATCH:
		scratch_submit(slot);
		break;
	case DMU_EV_MAP:
		map_submit(slot);
		break;
	case DMU_EV_COPIED:
		copied_submit(slot);
		break;
	case DMU_EV_FLUSH:
		flush_submit(slot);
		break;
	default:
		discard_submit(slot);
	}
}

/* libcow is done.  The answer's bits are valid in here only. */
static void slot_done(struct cow_request *req, int status)
{
	struct slot *slot = req->user;

	if (slot->serve->stopped)
		return;
	switch (slot->event.type) {
	case DMU_EV_MAP:
		map_done(slot, status);
		break;
	case DMU_EV_COPIED:
		copied_done(slot, status);
		break;
	case DMU_EV_FLUSH:
		commit_done(slot, status);
		break;
	default:
		discard_done(slot, status);
	}
}

/* ---- events ------------------------------------------------------------- */

static void settled(struct cowd_serve *s)
{
	s->unsettled = false;
	s->retry_deferred = true;
}

/* INVALIDATED: the slot that asked for it goes on. */
static void invalidated(struct cowd_serve *s, const struct dmu_event *event)
{
	struct slot *slot;

	settled(s);
	if (!event->id || event->id > NR_SLOTS)
		return;
	slot = &s->slots[event->id - 1];
	if (slot->step != SLOT_INVALIDATING)
		return;
	if (slot->event.type == DMU_EV_MAP)
		s->nr_waiting--;
	again(slot);
}

static void start_discard(struct cowd_serve *s, const struct dmu_event *event)
{
	struct slot *slot;

	if (s->nr_waiting >= MAX_WAITING) {
		defer(s, event);
		return;
	}
	slot = slot_take(s, event);
	begin_change(s, event_extent(event));
	invalidate(slot, event_extent(event), DMU_RE_FORGET);
}

static void start_copied(struct cowd_serve *s, const struct dmu_event *event)
{
	struct slot *slot = slot_take(s, event);

	slot->replayed = !s->replay_ended;
	s->nr_replayed += slot->replayed;
	begin_change(s, event_extent(event));
	slot_submit(slot);
}

static void start(struct cowd_serve *s, const struct dmu_event *event)
{
	switch (event->type) {
	case DMU_EV_DISCARD:
	case DMU_EV_WRITE_ZEROES:
		start_discard(s, event);
		break;
	case DMU_EV_COPIED:
		start_copied(s, event);
		break;
	case DMU_EV_MAP:
	case DMU_EV_FLUSH:
		slot_submit(slot_take(s, event));
		break;
	case DMU_EV_INVALIDATED:
		invalidated(s, event);
		break;
	case DMU_EV_LOST:
		cow_hold_commits(s->chain);
		lost(s);
		break;
	case DMU_EV_REPLAY_END:
		s->replay_ended = true;
		settled(s);
		break;
	default:
		break;
	}
}

static void count_event(struct cowd_serve *s, const struct dmu_event *event)
{
	s->stats.map += event->type == DMU_EV_MAP;
	s->stats.copied += event->type == DMU_EV_COPIED;
	s->stats.flush += event->type == DMU_EV_FLUSH;
	s->stats.discard += event->type == DMU_EV_DISCARD;
	s->stats.write_zeroes += event->type == DMU_EV_WRITE_ZEROES;
}

/* S6: no question can begin, and what is waited for is no event. */
static bool waits_for_the_replay(const struct cowd_serve *s)
{
	return s->replay_ended && s->nr_replayed;
}

static int read_events(struct cowd_serve *s)
{
	const struct dmu_event *events;
	int i, n;

	if (s->nr_free < BATCH || waits_for_the_replay(s))
		return 0;
	n = dmu_read_events(s->channel, &events);
	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	for (i = 0; i < n; i++) {
		count_event(s, &events[i]);
		if (events[i].type == DMU_EV_FLUSH) {
			s->commit_ms = COMMIT_MS;
			s->lost_known = false;	/* it would not ask */
			discards_commit(s, events[i].id);
		}
		start(s, &events[i]);
	}
	return 0;
}

/* Each event that was put off gets one more try; it may be put off again. */
static void start_deferred(struct cowd_serve *s)
{
	unsigned int n = s->nr_deferred;
	struct dmu_event event;

	s->retry_deferred = false;
	for (; n && s->nr_free >= BATCH && !s->room_at && !s->unsettled; n--) {
		event = s->deferred[s->deferred_first];
		s->deferred_first = (s->deferred_first + 1) % s->room_deferred;
		s->nr_deferred--;
		start(s, &event);
	}
	if (n && !s->room_at && !s->unsettled)	/* else look_for_room(), settled() */
		s->retry_deferred = true;
}

static void submit_again(struct cowd_serve *s)
{
	unsigned int i;

	while (s->again_any && !s->fatal) {
		s->again_any = false;
		for (i = 0; i < s->top; i++)
			if (look_at(s, i)->step == SLOT_AGAIN)
				slot_submit(&s->slots[i]);
	}
}

/* ---- replies ------------------------------------------------------------ */

static struct slot *slot_by_reply(struct cowd_serve *s,
				  const struct dmu_reply *reply)
{
	unsigned int i;

	if (reply->type == DMU_RE_INVALIDATE)
		return reply->id && reply->id <= NR_SLOTS ?
		       &s->slots[reply->id - 1] : NULL;
	for (i = 0; i < s->top; i++)
		if (look_at(s, i)->step != SLOT_FREE &&
		    s->slots[i].event.id == reply->id &&
		    s->slots[i].event.type == DMU_EV_MAP)
			return &s->slots[i];
	return NULL;
}

/* S1: the question is answered, but whom else the answer was to cover is not. */
static void on_late(struct cowd_serve *s, const struct dmu_reply *reply)
{
	struct slot *slot = slot_by_reply(s, reply);

	if (slot)
		slot->late = true;
}

/* Called while replies are written: only take notes. */
static void on_refused(void *data, const struct dmu_reply *reply, int error)
{
	struct cowd_serve *s = data;
	struct slot *slot;

	if (reply->type == DMU_RE_MAP) {
		s->refused_any = true;
		if (reply->flags & DMU_RE_METADATA)
			s->metadata_owed = true;
	}
	if (error == -ENOENT &&
	    (reply->type == DMU_RE_MAP || reply->type == DMU_RE_FAIL)) {
		on_late(s, reply);
		return;
	}
	s->stats.refused++;
	cowd_log(COWD_DEBUG, "the kernel refused reply %u for blocks %llu+%llu: %s",
		 reply->type, (unsigned long long)reply->block,
		 (unsigned long long)reply->count, strerror(-error));
	if (reply->type != DMU_RE_MAP && reply->type != DMU_RE_INVALIDATE)
		return;
	slot = slot_by_reply(s, reply);
	if (!slot)
		return;
	slot->refused = error;
	if (reply->type == DMU_RE_MAP && error != -EEXIST)
		slot->span = slot->span ? num_min(slot->span, reply->count) :
					  reply->count;
	if (error == -EBUSY)
		s->unsettled = true;
}

/* The largest power of two that is less than @n, or 0. */
static uint64_t narrower(uint64_t n)
{
	uint64_t p = 1;

	if (n <= 1)
		return 0;
	while (p * 2 < n)
		p *= 2;
	return p;
}

static void learn_narrower(const struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	s->widest = num_max(narrower(slot->span), 1);
	s->nr_taken = 0;
}

/*
 * The kernel's budget is full of what it cannot forget before a commit, or before I/O
 * under way ends: ask for the commit, and put the question off.  When that comes often,
 * narrower answers leave some room.
 */
static void no_room(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;
	int64_t now = clock_now_ms();

	if (s->no_room_since && now - s->no_room_since > ROOM_LAST_MS) {
		map_fail(slot, -ENOMEM);
		return;
	}
	if (!s->no_room_since) {
		s->no_room_since = now;
		s->room_ms = ROOM_MS;
		if (s->nr_since_room < ROOM_SELDOM)
			learn_narrower(slot);
		s->nr_since_room = 0;
	} else if (!s->room_at) {	/* waiting was in vain */
		learn_narrower(slot);
		s->room_ms = s->room_ms * 2 > ROOM_MAX_MS ? ROOM_MAX_MS :
							    s->room_ms * 2;
	}
	if (!s->room_at) {
		s->room_at = now + s->room_ms;
		check_fatal(s, dmu_request_commit(s->channel, 0));
	}
	slot_free(slot);
	slot->event.flags |= EV_WAITED;
	defer(s, &slot->event);
}

/*
 * The kernel takes no mapping while it has not told all that was copied: a table was
 * replaced, or something is being invalidated, after it had asked.  It tells the end of
 * that by an event, which is still to be read: then the question is looked at again.
 */
static void not_settled(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	slot_free(slot);
	defer(s, &slot->event);
	s->retry_deferred = true;
}

/* Wider answers were never taken, so a narrower one may be. */
static bool may_be_too_wide(const struct slot *slot)
{
	uint64_t widest = slot->serve->widest;

	return slot->span > 1 && (!widest || slot->span > widest);
}

static void map_too_big(struct slot *slot)
{
	if (!may_be_too_wide(slot)) {
		no_room(slot);
		return;
	}
	slot->span = narrower(slot->span);
	slot->learns = true;
	again(slot);
}

/* What to do about MAP @slot, an answer of which was refused. */
static void map_refused(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;
	struct dmu_extent rest;
	int err = slot->refused;

	slot->refused = 0;
	slot->covered = false;	/* if so, then only what was left to be answered */
	slot->next = slot->event.block;	/* what was taken is ENOENT, no harm */
	rest = rest_of(slot);
	if (++slot->tries > MAX_TRIES) {
		map_fail(slot, -EIO);
		return;
	}
	if (err == -EEXIST) {
		slot->learns = false;
		/*
		 * Mostly what lies before was given by an earlier answer (new places
		 * in a row); then narrow; what is in the way even then is taken away.
		 */
		if (!slot->forward) {
			slot->forward = true;
			again(slot);
		} else if (slot->span != 1) {
			slot->span = 1;
			again(slot);
		} else if (s->nr_waiting < MAX_WAITING) {
			invalidate(slot, rest, 0);
		} else {		/* discard_answer() makes room */
			slot_free(slot);
			defer(s, &slot->event);
		}
		return;
	}
	if (err == -E2BIG || err == -ENOMEM) {
		map_too_big(slot);
		return;
	}
	if (err == -EBUSY) {
		not_settled(slot);
		return;
	}
	cowd_log(COWD_ERROR, "the kernel refused a mapping of blocks %llu+%llu: %s",
		 (unsigned long long)rest.block, (unsigned long long)rest.count,
		 strerror(-err));
	map_fail(slot, -EIO);
}

static void slot_refused(struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	if (slot->event.type == DMU_EV_MAP &&
	    (slot->step == SLOT_SENT || slot->step == SLOT_AGAIN)) {
		map_refused(slot);
	} else if (slot->step == SLOT_INVALIDATING) {
		/* No memory, most likely: the kernel is asked again. */
		slot->refused = 0;
		if (slot->event.type == DMU_EV_MAP) {
			s->nr_waiting--;
			s->retry_deferred = true;
			map_fail(slot, -ENOMEM);
		} else if (slot->event.type == EV_SCRATCH) {
			scratch_done(slot);
		} else {
			discard_refused(slot, -ENOMEM);
		}
	}
}

/*
 * The answers to @slot were taken.  How wide they may be is learnt, because each that
 * is refused costs a look at the metadata.
 */
static void map_taken(const struct slot *slot)
{
	struct cowd_serve *s = slot->serve;

	s->no_room_since = 0;
	s->nr_since_room++;
	s->nr_taken++;
	if (!slot->learns)
		return;
	s->widest = slot->span;
	s->nr_taken = 0;
}

/* One that failed, is owed no more, or was covered waits for no room any more, if it did. */
static void map_settled(const struct slot *slot)
{
	if (!slot->failed && !slot->late && !slot->covered)
		map_taken(slot);
	else if (slot->event.flags & EV_WAITED)
		slot->serve->no_room_since = 0;
}

/*
 * What was answered is taken: only the rest is looked at again, should a change come
 * between.  Or a question that is larger than the scratch file would never be answered.
 */
static void keep_progress(struct slot *slot)
{
	struct dmu_extent rest = rest_of(slot);

	if (slot->event.type != DMU_EV_MAP || slot->late)
		return;
	slot->event.block = rest.block;
	slot->event.count = rest.count;
}

/*
 * The batch was written.  Sent slots are free now, but for those with a
 * refused reply and, if there was any, those that it was to cover (S1).
 */
static void settle(struct cowd_serve *s)
{
	bool refused_any = s->refused_any;
	struct slot *slot;
	unsigned int i;

	s->nr_recent = 0;
	s->refused_any = false;
	s->to_settle = false;
	for (i = 0; i < s->top; i++) {
		slot = look_at(s, i);
		if (slot->step == SLOT_FREE)
			continue;
		if (slot->refused) {
			slot_refused(slot);
			continue;
		}
		keep_progress(slot);
		if (refused_any && slot->covered) {
			slot->covered = false;
			if (slot->step == SLOT_SENT)
				again(slot);
		} else if (slot->step == SLOT_SENT) {
			if (slot->event.type == DMU_EV_MAP)
				map_settled(slot);
			slot_free(slot);
		}
	}
	if (s->metadata_owed)
		check_fatal(s, dmu_request_commit(s->channel, DMU_RE_METADATA));
	s->metadata_owed = false;
}

/* Write replies until there is nothing more to say now. */
static int flush_replies(struct cowd_serve *s)
{
	int err;

	do {
		submit_again(s);
		if (s->fatal)
			return s->fatal;
		s->replies_queued = false;
		err = dmu_flush_replies(s->channel);
		if (err)
			return err;
		if (s->to_settle || s->metadata_owed)
			settle(s);
		if (s->retry_deferred)
			start_deferred(s);
	} while (s->again_any || s->replies_queued);
	return 0;
}

/* ---- the commit that nobody asked for ----------------------------------- */

static void ask_for_commit(struct cowd_serve *s)
{
	if (!s->commit_at || clock_now_ms() < s->commit_at)
		return;
	check_fatal(s, dmu_request_commit(s->channel, 0));
	/*
	 * The kernel copies without telling, so it is asked again and again;
	 * more and more seldom unless a FLUSH comes of it.
	 */
	s->commit_at = clock_now_ms() + s->commit_ms;
	s->commit_ms = s->commit_ms * 2 > COMMIT_MAX_MS ? COMMIT_MAX_MS :
							  s->commit_ms * 2;
}

/* ---- waiting ------------------------------------------------------------ */

/* Questions that were put off for want of room are tried again. */
static void look_for_room(struct cowd_serve *s)
{
	if (!s->room_at || clock_now_ms() < s->room_at)
		return;
	s->room_at = 0;
	s->retry_deferred = true;
}

static int64_t next_time(const struct cowd_serve *s)
{
	const int64_t times[] = { s->commit_at, s->room_at, s->replay_at };
	int64_t next = 0;
	unsigned int i;

	for (i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (times[i] && (!next || times[i] < next))
			next = times[i];
	return next;
}

/* ---- public ------------------------------------------------------------- */

int cowd_serve_work(struct cowd_serve *s, bool io_ended)
{
	int err;

	if (s->fatal)
		return s->fatal;
	if (s->stopped)
		return -EPIPE;
	ask_for_commit(s);
	look_for_room(s);
	look_at_replay(s);
	if (io_ended)
		cow_dispatch(s->chain);
	tell_lost(s);
	err = flush_replies(s);
	if (err)
		return err;
	/* Behind what was made, and is taken now. */
	empty_scratch(s);
	err = read_events(s);
	if (err)
		return err;
	return flush_replies(s);
}

bool cowd_serve_may_commit(struct cowd_serve *s)
{
	const struct dmu_event *events;
	int n;

	do
		n = dmu_read_events(s->channel, &events);
	while (n > 0);
	return n != -EIO && !s->replay_failed_since;
}

bool cowd_serve_wants_events(const struct cowd_serve *s)
{
	/* Without room a batch at a time, lest too many are put off. */
	return s->nr_free >= BATCH && !waits_for_the_replay(s) &&
	       (!s->room_at || s->nr_deferred < MANY_DEFERRED);
}

int cowd_serve_fd(const struct cowd_serve *s)
{
	return dmu_channel_fd(s->channel);
}

int cowd_serve_timeout(const struct cowd_serve *s)
{
	int64_t left, next = next_time(s);

	if (s->stopped)
		return 0;
	if (!next)
		return -1;
	left = next - clock_now_ms();
	return left < 0 ? 0 : (int)left;
}

uint64_t cowd_serve_features(const struct cow_chain *chain)
{
	struct cow_chain_info info;

	cow_chain_info(chain, &info);
	return (info.can_discard ? DMU_FEAT_DISCARD : 0) |
	       (info.can_write_zeroes ? DMU_FEAT_WRITE_ZEROES : 0);
}

void cowd_serve_stats(const struct cowd_serve *s, struct cowd_serve_stats *stats)
{
	*stats = s->stats;
	stats->in_flight = NR_SLOTS - s->nr_free + s->nr_deferred;
}

int cowd_serve_new(struct cow_chain *chain, int fd, struct cowd_serve **serve)
{
	struct cowd_serve *s = calloc(1, sizeof(*s));
	struct cow_chain_info info;
	uint64_t bits;
	unsigned int i;
	int err;

	if (!s)
		return -ENOMEM;
	cow_chain_info(chain, &info);
	s->chain = chain;
	s->nr_blocks = info.nr_blocks;
	s->block_size = info.block_size;
	s->nr_free = NR_SLOTS;
	s->commit_ms = COMMIT_MS;
	s->nr_since_room = ROOM_SELDOM;
	for (i = 0; i < NR_SLOTS; i++)
		s->slots[i].serve = s;
	s->room_deferred = FIRST_DEFERRED;
	s->deferred = calloc(s->room_deferred, sizeof(*s->deferred));
	if (!s->deferred) {
		free(s);
		return -ENOMEM;
	}
	bits = info.writable ? num_min(info.nr_blocks, DMU_MAX_COW_BLOCKS) : 0;
	err = dmu_channel_open(fd, BATCH, NR_SLOTS, DMU_BITMAP_LEN(bits),
			       on_refused, s, &s->channel);
	if (err) {
		free(s->deferred);
		free(s);
		return err;
	}
	*serve = s;
	return 0;
}

void cowd_serve_stop(struct cowd_serve *s)
{
	if (s)
		s->stopped = true;
}

void cowd_serve_free(struct cowd_serve *s)
{
	if (!s)
		return;
	dmu_channel_close(s->channel);
	free(s->deferred);
	free(s);
}
