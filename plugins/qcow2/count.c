// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * count.c - how often each cluster is referred to, window by window: memory
 * does not grow with the image.
 */
#include "qcow2.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- How far it reaches ----------------------------------------------------- */

struct measure {
	struct qcow2_walk walk;
	struct qcow2_extent *extent;
	int (*found)(void *ctx, bool refcounts, const char *text);
	void *ctx;
};

static int measure_use(struct qcow2_walk *walk,
		       const struct qcow2_reference *r)
{
	struct measure *m = (struct measure *)walk;
	uint64_t end = r->run.first + r->run.count;

	m->extent->end = num_max(m->extent->end, end);
	if (r->use == QCOW2_USE_DATA)
		m->extent->data_end = num_max(m->extent->data_end, end);
	return 0;
}

static int measure_fault(struct qcow2_walk *walk, const char *text)
{
	struct measure *m = (struct measure *)walk;

	if (walk->in_refcounts)
		m->extent->ref_faults++;
	else
		m->extent->faults++;
	return m->found ? m->found(m->ctx, walk->in_refcounts, text) : 0;
}

int qcow2_measure(struct qcow2 *d, struct qcow2_extent *extent,
		  int (*found)(void *ctx, bool refcounts, const char *text),
		  void *ctx)
{
	struct measure m = {
		.walk = {
			.d = d,
			.refcounts = true,
			.use = measure_use,
			.fault = measure_fault,
		},
		.extent = extent,
		.found = found,
		.ctx = ctx,
	};

	*extent = (struct qcow2_extent){ 0 };
	return qcow2_walk(&m.walk);
}

/* --- One window ------------------------------------------------------------- */

struct count {
	struct qcow2_walk walk;
	struct qcow2_window *window;
};

static int count_use(struct qcow2_walk *walk, const struct qcow2_reference *r)
{
	static const uint32_t kinds[] = {
		[QCOW2_USE_DATA] = QCOW2_REF_DATA,
		[QCOW2_USE_L2] = QCOW2_REF_L2,
		[QCOW2_USE_OTHER] = QCOW2_REF_OTHER,
	};
	struct qcow2_window *w = ((struct count *)walk)->window;
	uint64_t i = num_max(r->run.first, w->first);
	uint64_t end = num_min(r->run.first + r->run.count,
			       w->first + w->count);

	for (; i < end; i++) {
		uint32_t *ref = &w->refs[i - w->first];

		*ref = (*ref & ~QCOW2_REF_COUNT) | kinds[r->use] |
		       num_min((*ref & QCOW2_REF_COUNT) + r->times,
			       QCOW2_REF_COUNT);
	}
	return 0;
}

static int count_fault(struct qcow2_walk *walk, const char *text)
{
	return 0;
}

int qcow2_window_alloc(struct qcow2_window *w, uint64_t clusters)
{
	w->count = num_min(num_max(clusters, 1), QCOW2_WINDOW);
	w->refs = malloc(w->count * sizeof(*w->refs));
	return w->refs ? 0 : -ENOMEM;
}

int qcow2_window_count(struct qcow2 *d, struct qcow2_window *w,
		       bool refcounts)
{
	struct count c = {
		.walk = {
			.d = d,
			.refcounts = refcounts,
			.use = count_use,
			.fault = count_fault,
		},
		.window = w,
	};

	memset(w->refs, 0, w->count * sizeof(*w->refs));
	return qcow2_walk(&c.walk);
}
