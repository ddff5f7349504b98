// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * descriptor.c - the text that says what an image is made of.
 *
 * Lines, of which those that begin with # are comments:
 *	name = value		value may be in quotation marks
 *	access sectors type "path" [offset]
 * Words are compared without regard to case, as the specification has it.
 */
#include "descriptor.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FIRST_LINE "# Disk DescriptorFile"
#define LONG_DIGITS 32u

struct parser {
	const char *text;		/* all of it */
	struct vmdk_descriptor *d;
	const char *why;
	int code;
	bool has_cid, has_parent_cid;
};

static int fail(struct parser *p, int code, const char *why)
{
	p->why = why;
	p->code = code;
	return code;
}

/* --- Words ---------------------------------------------------------------- */

static char *skip_space(char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	return s;
}

static void trim(char *s)
{
	size_t len = strlen(s);

	while (len && isspace((unsigned char)s[len - 1]))
		s[--len] = 0;
}

/* The word at *s; it is ended, and *s is behind it. */
static char *next_word(char **s)
{
	char *word = skip_space(*s), *end = word;

	while (*end && *end != ' ' && *end != '\t')
		end++;
	*s = *end ? end + 1 : end;
	*end = 0;
	return word;
}

/* Without its quotation marks; NULL when there is but one of them. */
static char *unquote(char *s)
{
	size_t len = strlen(s);

	if (*s != '"')
		return s;
	if (len < 2 || s[len - 1] != '"')
		return NULL;
	s[len - 1] = 0;
	return s + 1;
}

static int parse_number(const char *s, uint64_t *n)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	*n = strtoull(s, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static uint32_t count_digits(const char *s)
{
	uint32_t n = 0;

	while (isxdigit((unsigned char)s[n]))
		n++;
	return n;
}

static int parse_cid(const char *s, uint32_t *cid)
{
	uint32_t digits = count_digits(s);

	if (!digits || digits > VMDK_CID_DIGITS || s[digits])
		return -EINVAL;
	*cid = (uint32_t)strtoul(s, NULL, 16);
	return 0;
}

/* --- Extents -------------------------------------------------------------- */

static int parse_access(const char *word, enum vmdk_access *access)
{
	static const char *const words[] = { "RW", "RDONLY", "NOACCESS" };
	unsigned int i;

	for (i = 0; i < 3; i++) {
		if (!strcasecmp(word, words[i])) {
			*access = (enum vmdk_access)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_type(struct parser *p, const char *word,
		      struct vmdk_extent_line *e)
{
	if (!strcasecmp(word, "SPARSE"))
		e->type = VMDK_SPARSE;
	else if (!strcasecmp(word, "FLAT") || !strcasecmp(word, "VMFS"))
		e->type = VMDK_FLAT;
	else if (!strcasecmp(word, "ZERO"))
		e->type = VMDK_ZERO;
	else if (!strcasecmp(word, "VMFSSPARSE"))
		return fail(p, -EOPNOTSUPP,
			    "has an extent of the type VMFSSPARSE (COWD), which is not supported");
	else if (!strcasecmp(word, "SESPARSE"))
		return fail(p, -EOPNOTSUPP,
			    "has an extent of the type SESPARSE, which is not supported");
	else
		return fail(p, -EOPNOTSUPP,
			    "has an extent of a type other than SPARSE, FLAT, VMFS and ZERO");
	return 0;
}

static struct vmdk_extent_line *add_extent(struct parser *p)
{
	struct vmdk_descriptor *d = p->d;
	struct vmdk_extent_line *more;

	if (d->nr_extents == VMDK_EXTENTS_MAX) {
		fail(p, -E2BIG, "has more than 1024 extents");
		return NULL;
	}
	more = realloc(d->extents, (d->nr_extents + 1) * sizeof(*more));
	if (!more) {
		fail(p, -ENOMEM, "needs more memory than there is");
		return NULL;
	}
	d->extents = more;
	memset(&more[d->nr_extents], 0, sizeof(*more));
	return &more[d->nr_extents++];
}

/* What follows the type: the path in quotation marks, and the offset. */
static int parse_place(struct parser *p, char *s, struct vmdk_extent_line *e)
{
	char *path = skip_space(s), *end;

	if (e->type == VMDK_ZERO)
		return 0;
	end = *path == '"' ? strchr(path + 1, '"') : NULL;
	if (!end || end == path + 1)
		return fail(p, -EINVAL,
			    "has an extent without the name of its file");
	*end = 0;
	e->path = path + 1;
	s = skip_space(end + 1);
	if (!*s)
		return 0;
	if (e->type == VMDK_SPARSE || parse_number(next_word(&s), &e->offset))
		return fail(p, -EINVAL, "has an extent with a bad offset");
	return 0;
}

/* 1: this is an extent's line, and it was taken. */
static int parse_extent(struct parser *p, char *line)
{
	enum vmdk_access access = VMDK_RW;
	struct vmdk_extent_line *e;
	char first[16] = "";
	int ret;

	if (sscanf(line, "%15[A-Za-z]", first) != 1 ||
	    parse_access(first, &access))
		return 0;
	if (line[strlen(first)] != ' ' && line[strlen(first)] != '\t')
		return 0;
	e = add_extent(p);
	if (!e)
		return p->code;
	e->access = access;
	next_word(&line);
	if (parse_number(next_word(&line), &e->sectors) || !e->sectors ||
	    e->sectors > INT64_MAX / 512)
		return fail(p, -EINVAL, "has an extent of a bad size");
	ret = parse_type(p, next_word(&line), e);
	if (!ret)
		ret = parse_place(p, line, e);
	return ret ? ret : 1;
}

/* --- Keys ----------------------------------------------------------------- */

static struct vmdk_digits digits_at(const struct parser *p, const char *value)
{
	struct vmdk_digits d = { .at = (uint32_t)(value - p->text),
				 .count = count_digits(value) };

	return d;
}

static int set_cid(struct parser *p, const char *value)
{
	if (p->has_cid || parse_cid(value, &p->d->cid))
		return fail(p, -EINVAL, "has no line, a bad one or two of CID");
	p->has_cid = true;
	p->d->cid_digits = digits_at(p, value);
	return 0;
}

static int set_parent_cid(struct parser *p, const char *value)
{
	if (p->has_parent_cid || parse_cid(value, &p->d->parent_cid))
		return fail(p, -EINVAL,
			    "has no line, a bad one or two of parentCID");
	p->has_parent_cid = true;
	return 0;
}

/* Its last eight digits are the CID, and change with it. */
static void set_long_id(struct parser *p, const char *value)
{
	struct vmdk_digits digits = digits_at(p, value);

	if (digits.count != LONG_DIGITS || value[LONG_DIGITS])
		return;
	digits.at += LONG_DIGITS - VMDK_CID_DIGITS;
	digits.count = VMDK_CID_DIGITS;
	p->d->long_digits = digits;
}

static int set_text(struct parser *p, const char **to, const char *value)
{
	if (*to)
		return fail(p, -EINVAL,
			    "has one of createType and parentFileNameHint twice");
	*to = value;
	return 0;
}

static int set_version(struct parser *p, const char *value)
{
	uint64_t n;

	if (parse_number(value, &n) || n < 1 || n > 3)
		return fail(p, -EOPNOTSUPP,
			    "has a descriptor of a version other than 1, 2 and 3");
	return 0;
}

static int set_key(struct parser *p, const char *name, const char *value)
{
	struct vmdk_descriptor *d = p->d;

	if (!strcasecmp(name, "version"))
		return set_version(p, value);
	if (!strcasecmp(name, "CID"))
		return set_cid(p, value);
	if (!strcasecmp(name, "parentCID"))
		return set_parent_cid(p, value);
	if (!strcasecmp(name, "createType"))
		return set_text(p, &d->create_type, value);
	if (!strcasecmp(name, "parentFileNameHint"))
		return set_text(p, &d->parent, value);
	if (!strcasecmp(name, "changeTrackPath"))
		d->change_track = value;
	else if (!strcasecmp(name, "ddb.adapterType"))
		d->adapter_type = value;
	else if (!strcasecmp(name, "ddb.virtualHWVersion"))
		d->hw_version = value;
	else if (!strcasecmp(name, "ddb.longContentID"))
		set_long_id(p, value);
	else if (!strncasecmp(name, "encryption.", 11))
		d->unsupported = "is encrypted, which is not supported";
	else if (!strcasecmp(name, "isNativeSnapshot") &&
		 !strcasecmp(value, "yes"))
		d->unsupported = "is a snapshot that its storage array holds, which is not supported";
	return 0;
}

static int parse_line(struct parser *p, char *line)
{
	char *eq, *value;
	int ret;

	line = skip_space(line);
	trim(line);
	if (!*line || *line == '#')
		return 0;
	ret = parse_extent(p, line);
	if (ret)
		return ret < 0 ? ret : 0;
	eq = strchr(line, '=');
	if (!eq)
		return fail(p, -EINVAL,
			    "has a line in its descriptor that is neither an extent nor NAME=VALUE");
	*eq = 0;
	trim(line);
	value = unquote(skip_space(eq + 1));
	if (!value)
		return fail(p, -EINVAL,
			    "has a value in its descriptor whose quotation mark is missing");
	return set_key(p, line, value);
}

/* --- All of it ------------------------------------------------------------ */

bool vmdk_is_descriptor(const char *text, size_t len)
{
	size_t n = sizeof(FIRST_LINE) - 1;

	return len >= n && !strncasecmp(text, FIRST_LINE, n);
}

static int check_whole(struct parser *p)
{
	struct vmdk_descriptor *d = p->d;

	if (d->unsupported)
		return fail(p, -EOPNOTSUPP, d->unsupported);
	if (!p->has_cid)
		return fail(p, -EINVAL, "has no line, a bad one or two of CID");
	if (!p->has_parent_cid)
		d->parent_cid = VMDK_NO_PARENT;
	if (!d->create_type)
		return fail(p, -EINVAL, "has no createType in its descriptor");
	if (d->parent_cid != VMDK_NO_PARENT && (!d->parent || !*d->parent))
		return fail(p, -EINVAL,
			    "has a parent, but no parentFileNameHint that names it");
	if (d->parent_cid == VMDK_NO_PARENT)
		d->parent = NULL;
	if (!d->nr_extents)
		return fail(p, -EINVAL, "has no extent in its descriptor");
	return 0;
}

int vmdk_descriptor_parse(char *text, size_t len, struct vmdk_descriptor *d,
			  const char **why)
{
	struct parser p = { .text = text, .d = d };
	char *line = text, *end;
	int ret = 0;

	memset(d, 0, sizeof(*d));
	text[len] = 0;
	if (!vmdk_is_descriptor(text, len))
		ret = fail(&p, -EINVAL, "has no VMDK descriptor");
	while (!ret && line) {
		end = strchr(line, '\n');
		if (end)
			*end++ = 0;
		ret = parse_line(&p, line);
		line = end;
	}
	if (!ret)
		ret = check_whole(&p);
	*why = p.why;
	return ret;
}

void vmdk_descriptor_release(struct vmdk_descriptor *d)
{
	free(d->extents);
	d->extents = NULL;
	d->nr_extents = 0;
}

/* --- To write ------------------------------------------------------------- */

/* The geometry is for old guests; these are the limits of what it can say. */
static uint64_t cylinders(uint64_t sectors, unsigned int heads)
{
	uint64_t n = sectors / (heads * 63ull), max = heads == 16 ? 16383 : 65535;

	return n > max ? max : n;
}

int vmdk_descriptor_format(const struct vmdk_new_descriptor *n, char *buf,
			   size_t size)
{
	unsigned int heads = strcmp(n->adapter_type, "ide") ? 255 : 16;
	int len;

	len = snprintf(buf, size,
		FIRST_LINE "\n"
		"version=1\n"
		"CID=%08x\n"
		"parentCID=%08x\n"
		"createType=\"%s\"\n"
		"%s%s%s"
		"\n"
		"# Extent description\n"
		"RW %llu SPARSE \"%s\"\n"
		"\n"
		"# The Disk Data Base\n"
		"#DDB\n"
		"\n"
		"ddb.virtualHWVersion = \"%s\"\n"
		"ddb.geometry.cylinders = \"%llu\"\n"
		"ddb.geometry.heads = \"%u\"\n"
		"ddb.geometry.sectors = \"63\"\n"
		"ddb.adapterType = \"%s\"\n",
		n->cid, n->parent_cid, n->create_type,
		n->parent ? "parentFileNameHint=\"" : "",
		n->parent ? n->parent : "", n->parent ? "\"\n" : "",
		(unsigned long long)n->sectors, n->name, n->hw_version,
		(unsigned long long)cylinders(n->sectors, heads), heads,
		n->adapter_type);
	return len < 0 || (size_t)len >= size ? -ENOSPC : len;
}

static unsigned int digit_value(char c)
{
	return (unsigned int)(isdigit((unsigned char)c) ? c - '0' :
			      tolower((unsigned char)c) - 'a' + 10);
}

void vmdk_change_digits(char *digits, uint32_t count, uint32_t random)
{
	static const char hex[] = "0123456789abcdef";
	uint32_t i;

	for (i = 0; i < count; i++) {
		unsigned int was = digit_value(digits[i]);
		unsigned int step = 1 + (random >> 4 * (i % 8) & 15) % 15;

		/* No digit is f: all of them would mean that there is none. */
		if ((was + step) % 16 == 15)
			step = step % 15 + 1;
		digits[i] = hex[(was + step) % 16];
	}
}
