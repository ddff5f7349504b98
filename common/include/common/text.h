/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

/*
 * What a file names may hold anything: a new line in it would begin one in a
 * log, an escape would speak to the terminal.  Each such byte becomes '?'.
 */
void text_one_line(char *text);

#endif /* COMMON_TEXT_H */
