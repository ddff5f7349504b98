// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/qemu-name.h>

#include <common/num.h>

#include <string.h>

const char *qemu_name_format(const char *name)
{
	static const char *const names[][2] = {
		{ "vpc", "vhd" },
		{ "file", "raw" },
		{ "host_device", "raw" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(name, names[i][0]))
			return names[i][1];
	}
	return name;
}

/* A colon before any slash ends the name of a protocol. */
const char *qemu_name_path(const char *name)
{
	size_t n;

	if (!strncmp(name, "file:", 5))
		name += 5;
	n = strcspn(name, ":/");
	return n && name[n] == ':' ? NULL : name;
}
