// SPDX-License-Identifier: GPL-2.0-or-later
/* cowimg-info.c - what an image is. */
#include "convert.h"
#include "cowimg.h"

#include <common/size.h>

#include <errno.h>
#include <sys/stat.h>

/* Only to look at it, so it may be guessed; but never silently. */
static int guess_format(struct job *job)
{
	const struct cow_plugin *found = NULL;
	int ret = cow_plugins_probe(job->plugins, job->args[0], &found);

	if (ret < 0)
		return ret;
	job->format = found ? found->name : "raw";
	fail(0, found ?
	     "warning: %s: looks like the format %s; say -f %s if it is one" :
	     "warning: %s: looks like no known format and is taken for %s; say -f %s if it is one",
	     job->args[0], job->format, job->format);
	return 0;
}

/* Bytes that the image's own files occupy. */
static uint64_t space_used(const struct cow_chain *chain)
{
	struct cow_file_info file;
	uint64_t bytes = 0;
	struct stat st;
	uint32_t i;

	for (i = 0; cow_chain_file(chain, i, &file) == 0; i++) {
		if (!file.scratch && fstat(file.fd, &st) == 0)
			bytes += file.block_device ? file.size :
						(uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

static void print_size(const char *label, uint64_t bytes)
{
	char text[SIZE_TEXT_MAX];

	tool_line(label, "%s (%llu bytes)", size_text(bytes, text),
		  (unsigned long long)bytes);
}

static int info_text(const struct job *job, struct cow_chain *chain)
{
	struct cow_image *img = cow_chain_image(chain, 0);
	const char *backing = cow_image_backing_path(img);
	const char *format = cow_image_backing_format(img);

	tool_line("Image", "%s", job->args[0]);
	tool_line("Format", "%s", job->format);
	print_size("Virtual size", cow_image_size(img));
	print_size("Space used", space_used(chain));
	print_size("Block", cow_image_block_size(img));
	if (backing)
		tool_line("Backing", "%s (%s)", backing,
			  format ? format : "its format is not said");
	return cow_chain_describe(chain, tool_fact_text, NULL);
}

static void add_text(json_object *o, const char *name, const char *text)
{
	if (text)
		json_object_object_add(o, name, json_object_new_string(text));
}

static void add_number(json_object *o, const char *name, uint64_t n)
{
	json_object_object_add(o, name, json_object_new_uint64(n));
}

static int info_json(const struct job *job, struct cow_chain *chain,
		     json_object *o)
{
	struct cow_image *img = cow_chain_image(chain, 0);
	json_object *details = json_object_new_object();
	int ret;

	add_text(o, "filename", job->args[0]);
	add_text(o, "format", job->format);
	add_number(o, "virtual-size", cow_image_size(img));
	add_number(o, "actual-size", space_used(chain));
	add_number(o, "block-size", cow_image_block_size(img));
	add_text(o, "backing-filename", cow_image_backing_path(img));
	add_text(o, "backing-filename-format",
		 cow_image_backing_format(img));
	json_object_object_add(o, "details", details);
	ret = cow_chain_describe(chain, tool_fact_json, details);
	if (ret)
		json_object_put(o);
	else
		tool_json(o);
	return ret;
}

static int info(const struct job *job, json_object *o)
{
	struct cow_chain *chain;
	int ret;

	ret = job_open(job, COW_OPEN_NO_BACKING | COW_OPEN_UNFINISHED, &chain);
	if (ret) {
		json_object_put(o);
		return ret;
	}
	ret = o ? info_json(job, chain, o) : info_text(job, chain);
	cow_chain_close(chain);
	return ret;
}

int info_made(const struct job *job, char **image, const char *format,
	      const struct convert *from)
{
	struct job made = {
		.plugins = job->plugins, .args = image, .format = format,
	};
	json_object *o;

	if (!job->json)
		return 0;
	o = json_object_new_object();
	if (from) {
		add_text(o, "source-filename", from->source);
		add_text(o, "source-format", from->format);
		add_number(o, "written", *from->written);
	}
	return info(&made, o);
}

int cmd_info(const struct job *given)
{
	struct job job = *given;
	int ret = 0;

	if (!job.format)
		ret = guess_format(&job);
	if (!ret)
		ret = info(&job, job.json ? json_object_new_object() : NULL);
	return ret ? 1 : 0;
}
