// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * merge.c - put all blocks of an overlay into its base.
 *
 * The steps that make it safe to stop anywhere are told in
 * plugins/dscow/amend.c: the overlay says that a merge is on its way before
 * the first byte of the base changes, and is emptied after the last one is
 * durable.  A merge that was stopped is begun again from the start.
 */
#include "dscow_tool.h"

#include <common/num.h>
#include <common/size.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (1u << 20)

/* Both, verified, unless a merge was begun: then the base has changed. */
static int verify(struct cow_plugins *plugins, const char *path)
{
	struct cow_chain *chain;
	char state[64];
	int ret;

	ret = open_overlay(plugins, path,
			   COW_OPEN_NO_BACKING | COW_OPEN_UNFINISHED, &chain);
	if (ret)
		return ret;
	ret = overlay_fact(chain, "state", state, sizeof(state));
	cow_chain_close(chain);
	if (ret || strcmp(state, "in order"))
		return ret;
	ret = open_overlay(plugins, path, 0, &chain);
	if (!ret)
		cow_chain_close(chain);
	return ret;
}

/* The base's path as the overlay's folder makes it. */
static char *base_path(const char *overlay, const char *base)
{
	const char *slash = strrchr(overlay, '/');
	int len = slash && *base != '/' ? (int)(slash - overlay + 1) : 0;
	char *path;

	return asprintf(&path, "%.*s%s", len, overlay, base) < 0 ? NULL : path;
}

static int open_base(struct cow_plugins *plugins, struct cow_chain *overlay,
		     const char *path, struct cow_chain **base)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_image *img = cow_chain_image(overlay, 0);
	int ret;

	p.plugins = plugins;
	p.path = path;
	p.format = cow_image_backing_format(img);
	p.flags = COW_OPEN_WRITE;
	ret = cow_chain_open(&p, base);
	if (ret)
		return ret;
	if (cow_image_size(cow_chain_image(*base, 0)) >= cow_image_size(img))
		return 0;
	cow_chain_close(*base);
	return fail(-EINVAL, "%s: is smaller than the overlay %s", path,
		    cow_image_path(img));
}

static int copy_run(struct cow_chain *from, struct cow_chain *to,
		    uint64_t offset, uint64_t len, uint8_t *buf)
{
	int ret = 0;

	while (!ret && len) {
		size_t n = num_min(len, COPY_BYTES);

		ret = cow_pread(from, buf, n, offset);
		if (!ret)
			ret = cow_pwrite(to, buf, n, offset);
		offset += n;
		len -= n;
	}
	return ret;
}

static int copy_all(struct cow_chain *from, struct cow_chain *to,
		    uint64_t *written)
{
	uint8_t *buf = malloc(COPY_BYTES);
	struct cow_chain_info info;
	struct progress progress;
	struct cow_where w;
	uint64_t at = 0;
	int ret = buf ? 0 : -ENOMEM;

	*written = 0;
	cow_chain_info(from, &info);
	progress_start(&progress, info.size, "");
	while (!ret && at < info.size) {
		ret = cow_where(from, at, info.size - at, &w);
		if (ret)
			break;
		/* In pieces, for the bar. */
		if (w.held) {
			w.len = num_min(w.len, 16 * COPY_BYTES);
			ret = copy_run(from, to, at, w.len, buf);
			*written += w.len;
		}
		at += w.len;
		progress_at(&progress, at, *written);
	}
	/* Durable before the overlay is emptied. */
	if (!ret)
		ret = cow_flush(to);
	progress_end(&progress);
	free(buf);
	return ret;
}

static int copy_into_base(struct cow_plugins *plugins, const char *path,
			  char **base_name, uint64_t *written)
{
	struct cow_chain *overlay, *base;
	int ret;

	ret = open_overlay(plugins, path, COW_OPEN_WRITE |
			   COW_OPEN_NO_BACKING | COW_OPEN_UNFINISHED,
			   &overlay);
	if (ret)
		return ret;
	*base_name = base_path(path, cow_image_backing_path(
					cow_chain_image(overlay, 0)));
	ret = *base_name ? open_base(plugins, overlay, *base_name, &base) :
			   -ENOMEM;
	if (!ret) {
		ret = cow_chain_amend(overlay, "merge", "begin");
		if (!ret)
			ret = copy_all(overlay, base, written);
		cow_chain_close(base);
	}
	cow_chain_close(overlay);
	return ret;
}

static int empty_overlay(struct cow_plugins *plugins, const char *path)
{
	struct cow_chain *chain;
	int ret;

	ret = open_overlay(plugins, path, COW_OPEN_WRITE |
			   COW_OPEN_ANY_BACKING | COW_OPEN_UNFINISHED,
			   &chain);
	if (ret)
		return ret;
	ret = cow_chain_amend(chain, "merge", "end");
	cow_chain_close(chain);
	return ret;
}

int merge(struct cow_plugins *plugins, const char *path)
{
	char size[SIZE_TEXT_MAX], *base = NULL;
	uint64_t written;
	int ret;

	ret = verify(plugins, path);
	if (!ret)
		ret = copy_into_base(plugins, path, &base, &written);
	if (!ret)
		ret = empty_overlay(plugins, path);
	if (!ret)
		printf("%s: %s merged into %s; the overlay is empty now\n",
		       path, size_text(written, size), base);
	free(base);
	return ret;
}
