// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create.c - a new image: monolithicSparse, all tables there and empty, as
 * other programs make it (some cannot add a table to an image).
 */
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_GRAIN (64u << 10)
#define CHUNK (64u << 10)

struct creation {
	struct cow_image *img;
	const struct cow_create *p;
	struct vmdk_header h;
	struct vmdk_new_descriptor d;
};

/* --- Options -------------------------------------------------------------- */

static int one_of(struct creation *c, const char *name, const char *value,
		  const char *const *values)
{
	for (; *values; values++) {
		if (!strcmp(value, *values))
			return 0;
	}
	return cow_error(c->img, -EINVAL, "%s=%s is not supported", name,
			 value);
}

static int get_option(struct creation *c, const char *name,
		      const char *const *values, const char **value)
{
	const char *given = cow_image_option(c->img, name);

	if (!given)
		return 0;
	*value = given;
	return one_of(c, name, given, values);
}

static int get_hw_version(struct creation *c)
{
	const char *given = cow_image_option(c->img, "hwversion");

	if (!given)
		return 0;
	if (!*given || strlen(given) > 4 ||
	    given[strspn(given, "0123456789")])
		return cow_error(c->img, -EINVAL,
			"hwversion=%s is no number", given);
	c->d.hw_version = given;
	return 0;
}

static int get_options(struct creation *c)
{
	static const char *const subformats[] = { "monolithicSparse", NULL };
	static const char *const adapters[] = {
		"ide", "buslogic", "lsilogic", "legacyESX", NULL
	};
	static const char *const switches[] = { "on", "off", NULL };
	const char *zeroed = c->p->backing ? "on" : "off";
	int ret;

	c->d.create_type = "monolithicSparse";
	c->d.adapter_type = "ide";
	c->d.hw_version = "4";
	ret = get_option(c, "subformat", subformats, &c->d.create_type);
	if (!ret)
		ret = get_option(c, "adapter-type", adapters,
				 &c->d.adapter_type);
	if (!ret)
		ret = get_option(c, "zeroed-grain", switches, &zeroed);
	if (!ret)
		ret = get_hw_version(c);
	c->h.flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_RGD;
	c->h.version = 1;
	if (!strcmp(zeroed, "on")) {
		c->h.flags |= VMDK_FLAG_ZERO_GRAIN;
		c->h.version = 2;
	}
	return ret;
}

/* --- What it will be ------------------------------------------------------ */

static int set_sizes(struct creation *c)
{
	uint64_t size = c->p->size ? c->p->size : c->p->backing_size;
	uint32_t grain = c->p->block_size ? c->p->block_size : DEFAULT_GRAIN;

	if (!num_is_pow2(grain) || grain < VMDK_GRAIN_MIN ||
	    grain > VMDK_GRAIN_MAX)
		return cow_error(c->img, -EINVAL,
			"a grain size of %u is no power of two of 4k to 16m",
			grain);
	if (!size)
		return cow_error(c->img, -EINVAL,
			"a disk of 0 bytes cannot be had");
	c->h.grain_size = grain;
	c->h.capacity = size < INT64_MAX ? num_round_up(size, VMDK_SECTOR) :
					   UINT64_MAX;
	c->d.sectors = c->h.capacity / VMDK_SECTOR;
	if (vmdk_header_layout(&c->h))
		return cow_error(c->img, -EFBIG,
			"a disk of %llu bytes cannot be had with grains of %u bytes",
			(unsigned long long)size, grain);
	return 0;
}

/* What would end the string, or the line, that it stands in. */
static bool can_quote(const char *name)
{
	return *name && !name[strcspn(name, "\"\n\r")];
}

static int set_names(struct creation *c)
{
	const char *path = cow_image_path(c->img), *slash;

	slash = strrchr(path, '/');
	c->d.name = slash ? slash + 1 : path;
	c->d.parent = c->p->backing_path;
	if (can_quote(c->d.name) && (!c->d.parent || can_quote(c->d.parent)))
		return 0;
	return cow_error(c->img, -EINVAL,
		"a VMDK image cannot hold a name with a quotation mark or a line end");
}

static int set_ids(struct creation *c)
{
	c->d.parent_cid = VMDK_NO_PARENT;
	if (getrandom(&c->d.cid, sizeof(c->d.cid), 0) < 0)
		return cow_error(c->img, -errno,
			"no content ID can be made: %s", strerror(errno));
	/* All ones means none, and the one below was never changed. */
	c->d.cid &= 0x7fffffff;
	if (!c->p->backing)
		return 0;
	if (strcmp(c->p->backing_format, "vmdk"))
		return cow_error(c->img, -EINVAL,
			"the parent of a VMDK image must be a VMDK image, not of the format %s",
			c->p->backing_format);
	return vmdk_content_id(c->p->backing, &c->d.parent_cid);
}

/* --- Write ---------------------------------------------------------------- */

/* Entries of a directory whose tables stand behind it, one by one. */
static int write_directory(struct creation *c, uint64_t offset)
{
	uint64_t table = offset + vmdk_gd_bytes(&c->h), done = 0, n, i;
	le32 *buf = malloc(CHUNK);
	int ret = buf ? 0 : -ENOMEM;

	for (; !ret && done < c->h.nr_gdes; done += n) {
		n = num_min(CHUNK / sizeof(le32), c->h.nr_gdes - done);
		for (i = 0; i < n; i++, table += VMDK_GT_BYTES)
			buf[i] = le32_put((uint32_t)(table / VMDK_SECTOR));
		ret = cow_write(c->img, 0, buf, n * sizeof(le32),
				offset + done * sizeof(le32));
	}
	free(buf);
	return ret;
}

static int write_descriptor(struct creation *c)
{
	char *text = calloc(1, c->h.descriptor_size);
	int len, ret;

	if (!text)
		return -ENOMEM;
	len = vmdk_descriptor_format(&c->d, text, c->h.descriptor_size);
	if (len < 0)
		ret = cow_error(c->img, -ENAMETOOLONG,
			"its descriptor has no room for the name of its parent");
	else
		ret = cow_write(c->img, 0, text, (size_t)len,
				c->h.descriptor_offset);
	free(text);
	return ret;
}

static int write_all(struct creation *c)
{
	struct vmdk_header_disk disk;
	int ret;

	/* The file is empty: all of it that is not written reads as zero. */
	ret = cow_file_extend(c->img, 0, c->h.overhead);
	if (!ret)
		ret = write_descriptor(c);
	if (!ret)
		ret = write_directory(c, c->h.rgd_offset);
	if (!ret)
		ret = write_directory(c, c->h.gd_offset);
	if (ret)
		return ret;
	vmdk_header_encode(&c->h, &disk);
	return cow_write(c->img, 0, &disk, sizeof(disk), 0);
}

int vmdk_create(struct cow_image *img, const struct cow_create *create)
{
	struct creation c = { .img = img, .p = create };
	int ret;

	ret = get_options(&c);
	if (!ret)
		ret = set_sizes(&c);
	if (!ret)
		ret = set_names(&c);
	if (!ret)
		ret = set_ids(&c);
	return ret ? ret : write_all(&c);
}
