// SPDX-License-Identifier: GPL-2.0-or-later
/* report.c - check, describe, amend: a whole image, blocking. */
#include "internal.h"

#include <common/text.h>

#include <errno.h>
#include <stdio.h>

/* A table of a hostile image can have millions of them. */
#define FINDINGS_MAX 100u

struct cow_check {
	void (*fn)(void *ctx, const struct cow_finding *finding);
	void *ctx;
	struct cow_check_result *result;
	uint64_t findings;
};

void cow_check_found(struct cow_check *check, enum cow_severity severity,
		     bool repaired, const char *fmt, ...)
{
	struct cow_finding finding = { severity, repaired, NULL };
	char text[512];
	va_list ap;

	if (repaired)
		check->result->repaired++;
	else if (severity == COW_FOUND_CORRUPT)
		check->result->corrupt++;
	else
		check->result->leaks++;
	if (++check->findings > FINDINGS_MAX || !check->fn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_one_line(text);
	finding.text = text;
	check->fn(check->ctx, &finding);
}

/* What it says is in the counts already. */
static void tell_rest(const struct cow_check *check)
{
	const struct cow_check_result *r = check->result;
	struct cow_finding finding = {
		.severity = r->leaks && !r->corrupt ? COW_FOUND_LEAK :
						      COW_FOUND_CORRUPT,
		.repaired = !r->leaks && !r->corrupt,
	};
	char text[64];

	if (check->findings <= FINDINGS_MAX || !check->fn)
		return;
	snprintf(text, sizeof(text), "and %llu more",
		 (unsigned long long)(check->findings - FINDINGS_MAX));
	finding.text = text;
	check->fn(check->ctx, &finding);
}

int cow_chain_check(struct cow_chain *chain, bool repair,
		    void (*fn)(void *ctx, const struct cow_finding *finding),
		    void *ctx, struct cow_check_result *result)
{
	struct cow_image *top = chain->images[0];
	struct cow_check check = { .fn = fn, .ctx = ctx, .result = result };
	int ret;

	*result = (struct cow_check_result){ 0 };
	if (repair && !chain->writable)
		return -EROFS;
	if (!top->plugin->check)
		return cow_error(top, -EOPNOTSUPP,
			"images of the format %s cannot be checked",
			top->plugin->name);
	ret = top->plugin->check(top->handle, &check, repair);
	tell_rest(&check);
	return ret;
}

struct cow_describe {
	void (*fn)(void *ctx, const struct cow_fact *fact);
	void *ctx;
};

void cow_describe_u64(struct cow_describe *d, const char *name,
		      const char *label, uint64_t value)
{
	struct cow_fact fact = { name, label, NULL, value };

	d->fn(d->ctx, &fact);
}

void cow_describe_str(struct cow_describe *d, const char *name,
		      const char *label, const char *value)
{
	struct cow_fact fact = { name, label, value, 0 };

	d->fn(d->ctx, &fact);
}

int cow_chain_describe(struct cow_chain *chain,
		       void (*fn)(void *ctx, const struct cow_fact *fact),
		       void *ctx)
{
	struct cow_image *top = chain->images[0];
	struct cow_describe describe = { fn, ctx };

	if (!top->plugin->describe)
		return 0;
	return top->plugin->describe(top->handle, &describe);
}

int cow_chain_amend(struct cow_chain *chain, const char *name,
		    const char *value)
{
	struct cow_image *top = chain->images[0];

	if (!chain->writable)
		return cow_error(top, -EROFS, "is open for reading only");
	if (!top->plugin->amend)
		return cow_error(top, -EOPNOTSUPP,
			"images of the format %s cannot be amended",
			top->plugin->name);
	return top->plugin->amend(top->handle, name, value);
}
