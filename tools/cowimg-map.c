// SPDX-License-Identifier: GPL-2.0-or-later
/* cowimg-map.c - where the disk's contents stand, extent by extent. */
#include "cowimg.h"
#include "extent.h"

#include <stdio.h>
#include <string.h>

/* Does b go on where a ends? */
static bool goes_on(const struct extent *a, const struct extent *b)
{
	if (a->kind != b->kind)
		return false;
	return a->kind != EXTENT_DATA ||
	       (a->file.fd == b->file.fd && a->offset + a->len == b->offset);
}

static void print_text(const struct extent *e)
{
	if (e->kind == EXTENT_ZERO)
		return;
	printf("%#-18llx %#-14llx ", (unsigned long long)e->start,
	       (unsigned long long)e->len);
	if (e->kind == EXTENT_DATA)
		printf("%#-18llx %s\n", (unsigned long long)e->offset,
		       e->file.path);
	else
		puts("compressed");
}

static json_object *extent_json(const struct extent *e)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "start", json_object_new_uint64(e->start));
	json_object_object_add(o, "length", json_object_new_uint64(e->len));
	json_object_object_add(o, "zero",
		json_object_new_boolean(e->kind == EXTENT_ZERO));
	json_object_object_add(o, "data",
		json_object_new_boolean(e->kind != EXTENT_ZERO));
	json_object_object_add(o, "compressed",
		json_object_new_boolean(e->kind == EXTENT_MADE));
	if (e->kind != EXTENT_DATA)
		return o;
	json_object_object_add(o, "depth",
		json_object_new_uint64(e->file.level));
	json_object_object_add(o, "filename",
		json_object_new_string(e->file.path));
	json_object_object_add(o, "offset",
		json_object_new_uint64(e->offset));
	return o;
}

/* One at a time: there may be millions. */
static void print_json(const struct extent *e)
{
	json_object *o = extent_json(e);

	printf("%s%s", e->start ? ",\n" : "",
	       json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED |
					      JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static int each_extent(struct cow_chain *chain,
		       void (*print)(const struct extent *e))
{
	struct cow_chain_info info;
	struct extent e, next;
	uint64_t end;
	int ret;

	cow_chain_info(chain, &info);
	if (!info.size)
		return 0;
	ret = extent_at(chain, 0, &e);
	while (!ret && (end = e.start + e.len) < info.size) {
		ret = extent_at(chain, end, &next);
		if (!ret && goes_on(&e, &next)) {
			e.len += next.len;
		} else if (!ret) {
			print(&e);
			e = next;
		}
	}
	if (!ret)
		print(&e);
	return ret;
}

int cmd_map(const struct job *job)
{
	struct cow_chain *chain;
	int ret;

	if (job_open(job, 0, &chain))
		return 1;
	if (job->json)
		putchar('[');
	else
		printf("%-18s %-14s %-18s %s\n", "Offset", "Length",
		       "Mapped to", "File");
	ret = each_extent(chain, job->json ? print_json : print_text);
	if (!ret && job->json)
		puts("]");
	cow_chain_close(chain);
	return ret ? 1 : 0;
}
