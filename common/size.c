// SPDX-License-Identifier: GPL-2.0-or-later
#include <common/num.h>
#include <common/size.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char suffixes[] = "kmgt";

static int suffix_shift(const char *text, unsigned int *shift)
{
	const char *s;

	*shift = 0;
	if (!*text)
		return 0;
	s = strchr(suffixes, tolower((unsigned char)*text));
	if (!s || !*s || text[1])
		return -EINVAL;
	*shift = 10 * (unsigned int)(s - suffixes + 1);
	return 0;
}

int size_parse(const char *text, uint64_t *bytes)
{
	uint64_t n = 0;
	unsigned int shift;
	int ret;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++) {
		if (num_mul_overflow(n, 10, &n) ||
		    num_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return -ERANGE;
	}
	ret = suffix_shift(text, &shift);
	if (ret)
		return ret;
	if (num_mul_overflow(n, 1ull << shift, &n))
		return -ERANGE;
	*bytes = n;
	return 0;
}

const char *size_text(uint64_t bytes, char *buf)
{
	static const char *const units[] = {
		"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"
	};
	double n = (double)bytes;
	size_t i = 0;

	while (n >= 1024 && i + 1 < ARRAY_SIZE(units)) {
		n /= 1024;
		i++;
	}
	snprintf(buf, SIZE_TEXT_MAX, i ? "%.1f %s" : "%.0f %s", n, units[i]);
	return buf;
}
