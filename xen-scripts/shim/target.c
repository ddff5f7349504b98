// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"

static int refuse(struct target *t, char *error)
{
	t->error = error;
	return -EINVAL;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Replaces what %XX stands for, in place: it becomes shorter. */
static int decode(struct target *t, char *field)
{
	const char *from = field;
	char *to = field, *as_it_was = text("%s", field);
	int byte;

	while (*from) {
		if (*from != '%') {
			*to++ = *from++;
			continue;
		}
		byte = digit(from[1]) < 0 || digit(from[2]) < 0 ? 0 :
		       digit(from[1]) * 16 + digit(from[2]);
		if (!byte)
			return refuse(t, text("target=%s: in %s a %% is not followed by a character's number; write %%25 for a percent sign",
					      t->text, as_it_was));
		*to++ = (char)byte;
		from += 3;
	}
	*to = '\0';
	return 0;
}

/* Options of cowd that a disk's line may have. */
static bool is_of_cowd(const char *name)
{
	static const char *const names[] = {
		"allow-backing", "allow-write", "policy", "no-space",
		"map-memory", "cache-size", "scratch-size", NULL,
	};
	unsigned int i;

	for (i = 0; names[i]; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static int option(struct target *t, const char *name, char *value)
{
	if (!strcmp(name, "size")) {
		t->size = value;
	} else if (!strcmp(name, "block-size")) {
		words_add(&t->create, "-s");
		words_add(&t->create, value);
	} else if (!strcmp(name, "base-format")) {
		t->base_format = value;
	} else if (!strncmp(name, "create.", 7) && name[7]) {
		words_add(&t->create, "-o");
		words_add(&t->create, text("%s=%s", name + 7, value));
	} else if (!strncmp(name, "open.", 5) && name[5]) {
		words_add(&t->open, "-o");
		words_add(&t->open, text("%s=%s", name + 5, value));
	} else if (is_of_cowd(name)) {
		words_add(&t->cowd, text("--%s", name));
		words_add(&t->cowd, value);
		/* systemd wants absolute paths. */
		if (!strncmp(name, "allow-", 6) && value[0] == '/')
			words_add(&t->paths, value);
	} else {
		return refuse(t, text("target=%s: %s is no option; there are size, block-size, base-format, create.NAME, open.NAME, allow-backing, allow-write, policy, no-space, map-memory, cache-size and scratch-size",
				      t->text, name));
	}
	return 0;
}

static int third_or_later(struct target *t, unsigned int number, char *field)
{
	char *equals = strchr(field, '=');

	if (number == 3 && field[0] == '/') {
		t->base = field;
		return 0;
	}
	if (!equals || equals == field)
		return refuse(t, text("target=%s: '%s' is neither an absolute path of a base nor OPTION=VALUE; write %%3A for a colon in a path",
				      t->text, field));
	*equals = '\0';
	return option(t, field, equals + 1);
}

static int take_field(struct target *t, unsigned int number, char *field)
{
	int err = decode(t, field);

	if (err)
		return err;
	if (number == 1) {
		t->format = field;
	} else if (number > 2) {
		return third_or_later(t, number, field);
	} else if (field[0] != '/') {
		return refuse(t, text("target=%s: '%s' is no absolute path of an image",
				      t->text, field));
	} else {
		t->image = field;
	}
	return 0;
}

static bool is_format(const char *name)
{
	return name && *name && *name != '-' && *name != '_' &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")];
}

/* An empty target has no field at all; one that ends with a colon has an empty one. */
int target_parse(struct target *t, const char *target)
{
	char *rest = *target ? text("%s", target) : NULL, *field;
	unsigned int number = 0;
	struct words more;
	int err = 0;

	memset(t, 0, sizeof(*t));
	t->text = target;
	t->base_format = "raw";
	while (!err && (field = strsep(&rest, ":")))
		err = take_field(t, ++number, field);
	if (err)
		return err;
	if (!is_format(t->format) || !t->image)
		return refuse(t, text("target=%s: should be FORMAT:/path/of/image[:/path/of/base][:OPTION=VALUE...]",
				      target));
	if (t->base) {
		words_add(&t->cowd, "--allow-backing");
		words_add(&t->cowd, t->base);
	}
	more = t->paths;
	memset(&t->paths, 0, sizeof(t->paths));
	words_add(&t->paths, t->image);
	if (t->base)
		words_add(&t->paths, t->base);
	words_add_all(&t->paths, &more);
	if (t->cowd.too_many || t->create.too_many || t->open.too_many)
		return refuse(t, text("target=%s: has too many options", target));
	return 0;
}

int target_make_command(struct target *t, struct words *command)
{
	memset(command, 0, sizeof(*command));
	words_add(command, "cowimg");
	words_add(command, "create");
	words_add(command, "-f");
	words_add(command, t->format);
	words_add_all(command, &t->create);
	if (t->base) {
		words_add(command, "-b");
		words_add(command, t->base);
		words_add(command, "-F");
		words_add(command, t->base_format);
	}
	words_add(command, t->image);
	if (t->size)
		words_add(command, t->size);
	if (!t->base && !t->size)
		return refuse(t, text("%s does not exist; to have it made, name its base after it, or add :size=SIZE",
				      t->image));
	return command->too_many ?
	       refuse(t, text("target=%s: has too many options", t->text)) : 0;
}

void target_cowd_command(const struct target *t, const char *name,
			 bool read_only, struct words *command)
{
	memset(command, 0, sizeof(*command));
	words_add(command, "cowd");
	words_add(command, "-p");
	words_add(command, t->format);
	words_add_all(command, &t->open);
	words_add_all(command, &t->cowd);
	if (read_only)
		words_add(command, "--read-only");
	words_add(command, name);
	words_add(command, t->image);
}
