// SPDX-License-Identifier: GPL-2.0-or-later
#include <string.h>

#include "options.h"

bool cowd_name_valid(const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyz"
				   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789#+-.:=@_";
	size_t len = strlen(name);

	return len && len < 100 && name[0] != '.' && name[0] != '-' &&
	       strspn(name, good) == len && strcmp(name, "control");
}
