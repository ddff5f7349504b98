/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name.h - the names by which a VHD calls its parent. */
#ifndef VHD_NAME_H
#define VHD_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Platform codes of parent locators. */
#define VHD_W2RU	0x57327275u	/* Windows, relative, UTF-16LE */
#define VHD_W2KU	0x57326b75u	/* Windows, absolute, UTF-16LE */
#define VHD_MACX	0x4d616358u	/* file URL, UTF-8 */

#define VHD_PATH_MAX	4095u		/* bytes, without the end */
#define VHD_UTF16_MAX	(2 * (VHD_PATH_MAX + 1))

/*
 * Text up to its first zero or its end.  out has room for VHD_PATH_MAX + 1
 * bytes.  0, or -EINVAL when it is empty, no UTF-16 or too long.
 */
int vhd_name_from_utf16(const uint8_t *in, size_t bytes, bool big_endian,
			char *out);
/* Bytes written (no zero at the end), or -EINVAL: no UTF-8, or no room. */
int vhd_name_to_utf16(const char *in, bool big_endian, uint8_t *out,
		      size_t room);
/*
 * A path as Windows writes it becomes one of ours, in place.  Of one on a
 * drive or another machine ("C:\a\b", "\\server\a\b") only the last name
 * means something here: it is looked for in the image's own folder.
 */
void vhd_name_from_windows(char *path);
/* A relative or absolute path of ours as Windows writes it, in place. */
void vhd_name_to_windows(char *path);
/* "file:///a%20b" becomes "/a b", in place.  False: no URL of a file. */
bool vhd_name_from_url(char *url);

#endif /* VHD_NAME_H */
