// SPDX-License-Identifier: GPL-2.0-or-later
#include "name.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* --- UTF-16 --------------------------------------------------------------- */

static uint32_t get_unit(const uint8_t *p, bool big_endian)
{
	return big_endian ? (uint32_t)p[0] << 8 | p[1] :
			    (uint32_t)p[1] << 8 | p[0];
}

static void put_unit(uint8_t *p, uint32_t unit, bool big_endian)
{
	p[big_endian ? 0 : 1] = (uint8_t)(unit >> 8);
	p[big_endian ? 1 : 0] = (uint8_t)unit;
}

static size_t put_utf8(uint32_t c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* One character of n units from *i on; 0 for half a pair. */
static uint32_t get_char(const uint8_t *in, size_t n, size_t *i,
			 bool big_endian)
{
	uint32_t c = get_unit(in + 2 * (*i)++, big_endian), low;

	if (c < 0xd800 || c > 0xdfff)
		return c;
	if (c > 0xdbff || *i == n)
		return 0;
	low = get_unit(in + 2 * (*i)++, big_endian);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
}

int vhd_name_from_utf16(const uint8_t *in, size_t bytes, bool big_endian,
			char *out)
{
	size_t n = bytes / 2, i = 0, len = 0;
	uint32_t c;

	while (i < n && get_unit(in + 2 * i, big_endian)) {
		c = get_char(in, n, &i, big_endian);
		if (!c || len + 4 > VHD_PATH_MAX)
			return -EINVAL;
		len += put_utf8(c, out + len);
	}
	out[len] = 0;
	return len ? 0 : -EINVAL;
}

/* One character; 0 at the end, UINT32_MAX for what is no UTF-8. */
static uint32_t get_utf8(const uint8_t **in)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	const uint8_t *p = *in;
	uint32_t c = *p++;
	int more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 :
		   c >> 3 == 30 ? 3 : -1, i;

	if (more < 0)
		return UINT32_MAX;
	if (more)
		c &= 0x3fu >> more;
	for (i = 0; i < more; i++, p++) {
		if (*p >> 6 != 2)
			return UINT32_MAX;
		c = c << 6 | (*p & 0x3f);
	}
	*in = p;
	if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return UINT32_MAX;
	return c;
}

int vhd_name_to_utf16(const char *in, bool big_endian, uint8_t *out,
		      size_t room)
{
	const uint8_t *p = (const uint8_t *)in;
	size_t n = 0;
	uint32_t c;

	while ((c = get_utf8(&p))) {
		if (c == UINT32_MAX || n + 4 > room)
			return -EINVAL;
		if (c >= 0x10000) {
			put_unit(out + n, 0xd7c0 + (c >> 10), big_endian);
			put_unit(out + n + 2, 0xdc00 + (c & 0x3ff),
				 big_endian);
			n += 4;
			continue;
		}
		put_unit(out + n, c, big_endian);
		n += 2;
	}
	return (int)n;
}

/* --- Paths ---------------------------------------------------------------- */

static void replace_all(char *s, char from, char to)
{
	for (; (s = strchr(s, from)); s++)
		*s = to;
}

static void keep_last_name(char *path)
{
	const char *slash = strrchr(path, '/');

	if (slash)
		memmove(path, slash + 1, strlen(slash));
}

void vhd_name_from_windows(char *path)
{
	bool elsewhere = isalpha((unsigned char)path[0]) && path[1] == ':';

	elsewhere |= path[0] == '\\' && path[1] == '\\';
	replace_all(path, '\\', '/');
	if (elsewhere) {
		keep_last_name(path);
		return;
	}
	while (path[0] == '.' && path[1] == '/')
		memmove(path, path + 2, strlen(path + 2) + 1);
}

void vhd_name_to_windows(char *path)
{
	replace_all(path, '/', '\\');
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode_percents(char *s)
{
	char *to = s;

	for (; *s; s++) {
		int high, low;

		if (*s != '%') {
			*to++ = *s;
			continue;
		}
		high = hex_digit(s[1]);
		low = high < 0 ? -1 : hex_digit(s[2]);
		if (low < 0 || !(high | low))
			return false;
		*to++ = (char)(high << 4 | low);
		s += 2;
	}
	*to = 0;
	return true;
}

bool vhd_name_from_url(char *url)
{
	static const char *const starts[] = {
		"file://localhost/", "file:///", "file://./",
	};
	size_t i, skip;

	for (i = 0; i < 3; i++) {
		skip = strlen(starts[i]);
		if (strncmp(url, starts[i], skip))
			continue;
		/* The slash belongs to an absolute path. */
		skip -= i < 2;
		memmove(url, url + skip, strlen(url + skip) + 1);
		return decode_percents(url) && *url;
	}
	return false;
}
