// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cells: ranges of blocks that something is busy with, and the bios that wait
 * there.  A cell lies in the per-bio data of the bio that leads it, so none is
 * ever allocated; they never overlap (I3), but for requests, which are in no
 * tree.
 */
#include "dmu.h"

void dmu_cell_insert(struct dmu_disk *d, struct dmu_cell *cell)
{
	struct rb_node **p = &d->cells.rb_node, *parent = NULL;

	lockdep_assert_held(&d->lock);
	while (*p) {
		struct dmu_cell *c = rb_entry(*p, struct dmu_cell, node);

		parent = *p;
		WARN_ON_ONCE(cell->first <= c->last && c->first <= cell->last);
		p = cell->first < c->first ? &parent->rb_left :
					     &parent->rb_right;
	}
	rb_link_node(&cell->node, parent, p);
	rb_insert_color(&cell->node, &d->cells);
}

void dmu_cell_remove(struct dmu_disk *d, struct dmu_cell *cell)
{
	lockdep_assert_held(&d->lock);
	if (cell->kind != DMU_CELL_REQUEST)
		rb_erase(&cell->node, &d->cells);
	if (cell->kind == DMU_CELL_ASK || cell->kind == DMU_CELL_REQUEST)
		list_del(&cell->list);
}

/* The first cell that meets [first, last]. */
struct dmu_cell *dmu_cell_first(struct dmu_disk *d, u64 first, u64 last)
{
	struct rb_node *n = d->cells.rb_node;
	struct dmu_cell *found = NULL;

	lockdep_assert_held(&d->lock);
	while (n) {
		struct dmu_cell *c = rb_entry(n, struct dmu_cell, node);

		if (c->last < first) {
			n = n->rb_right;
		} else {
			if (c->first <= last)
				found = c;
			n = n->rb_left;
		}
	}
	return found;
}

struct dmu_cell *dmu_cell_next(struct dmu_cell *cell)
{
	struct rb_node *n = rb_next(&cell->node);

	return n ? rb_entry(n, struct dmu_cell, node) : NULL;
}

/* Is a first write under way, whose block is ours when it is through? */
bool dmu_cell_writes_first(struct dmu_disk *d)
{
	struct rb_node *n;

	lockdep_assert_held(&d->lock);
	for (n = rb_first(&d->cells); n; n = rb_next(n)) {
		struct dmu_cell *c = rb_entry(n, struct dmu_cell, node);

		if (c->kind == DMU_CELL_COPY || c->kind == DMU_CELL_CLAIM)
			return true;
	}
	return false;
}

/* @bio waits in @cell. */
void dmu_hold(struct dmu_disk *d, struct dmu_cell *cell, struct bio *bio)
{
	lockdep_assert_held(&d->lock);
	bio_list_add(&cell->waiters, bio);
	d->nr_waiting++;
}

/* Take @cell away and its waiters, in order, to the end of @bios. */
void dmu_cell_release(struct dmu_disk *d, struct dmu_cell *cell,
		     struct bio_list *bios)
{
	dmu_cell_remove(d, cell);
	d->nr_waiting -= bio_list_size(&cell->waiters);
	bio_list_merge(bios, &cell->waiters);
	bio_list_init(&cell->waiters);
}

static void dmu_take_asks(struct dmu_disk *d, struct list_head *asks,
			  struct bio_list *bios)
{
	struct dmu_cell *cell, *next;

	list_for_each_entry_safe(cell, next, asks, list)
		dmu_cell_release(d, cell, bios);
}

/* Everything that waits for the daemon: questions, requests, commits. */
void dmu_take_held(struct dmu_disk *d, struct bio_list *bios)
{
	dmu_take_asks(d, &d->asked, bios);
	dmu_take_asks(d, &d->asks, bios);
	dmu_take_asks(d, &d->stalled, bios);
	bio_list_merge(bios, &d->round.flushes);
	bio_list_init(&d->round.flushes);
	bio_list_merge(bios, &d->flushes);
	bio_list_init(&d->flushes);
}

/* Where @cell waits to be read: at an INVALIDATE under way, until that is through. */
struct list_head *dmu_ask_list(struct dmu_disk *d, const struct dmu_cell *cell)
{
	return cell->kind == DMU_CELL_ASK &&
	       dmu_inval_pending(d, cell->first, cell->last) ? &d->stalled :
							       &d->asks;
}

/* Questions read with id @from_id or a later one are unread again, in front. */
void dmu_unread(struct dmu_disk *d, u64 from_id)
{
	struct dmu_cell *cell, *next;
	LIST_HEAD(again);

	lockdep_assert_held(&d->lock);
	list_for_each_entry_safe(cell, next, &d->asked, list) {
		if (cell->id < from_id)
			continue;
		cell->id = 0;
		list_move_tail(&cell->list, dmu_ask_list(d, cell) == &d->asks ?
					    &again : &d->stalled);
	}
	list_splice(&again, &d->asks);
}

/* A question that was read is to be asked anew. */
void dmu_cell_unread(struct dmu_disk *d, struct dmu_cell *cell)
{
	lockdep_assert_held(&d->lock);
	if (!cell->id)
		return;
	cell->id = 0;
	list_move_tail(&cell->list, dmu_ask_list(d, cell));
	dmu_wake(d);
}
