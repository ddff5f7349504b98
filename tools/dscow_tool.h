/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DSCOW_TOOL_H
#define DSCOW_TOOL_H

#include <libcow/cow.h>

#define FORMAT "dscow"

struct settings {
	const char *base_format;
	const char *plugin_dir;
	uint64_t block_size;
	bool force, json, repair;
};

/* A mistake or a failure, as one sentence on stderr; returns code. */
int fail(int code, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Opens an overlay. */
int open_overlay(struct cow_plugins *plugins, const char *path,
		 uint32_t flags, struct cow_chain **chain);
/* The text of the fact of that name into buf. */
int overlay_fact(struct cow_chain *chain, const char *name, char *buf,
		 size_t size);

int merge(struct cow_plugins *plugins, const char *path);

/* A bar on stderr, if that is a terminal. */
struct progress {
	uint64_t total;
	double start, shown;	/* seconds */
	bool on;
};

void progress_start(struct progress *p, uint64_t total);
void progress_at(struct progress *p, uint64_t done, uint64_t written);
void progress_end(struct progress *p);

#endif /* DSCOW_TOOL_H */
