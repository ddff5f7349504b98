// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/text.h>

void text_one_line(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
	}
}
