/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DSCOW_TOOL_H
#define DSCOW_TOOL_H

#include "progress.h"
#include "tool.h"

#define FORMAT "dscow"

struct settings {
	const char *base_format;
	const char *plugin_dir;
	uint64_t block_size;
	bool force, json, repair;
};

/* Opens an overlay. */
int open_overlay(struct cow_plugins *plugins, const char *path,
		 uint32_t flags, struct cow_chain **chain);
/* The text of the fact of that name into buf. */
int overlay_fact(struct cow_chain *chain, const char *name, char *buf,
		 size_t size);

int merge(struct cow_plugins *plugins, const char *path);

#endif /* DSCOW_TOOL_H */
