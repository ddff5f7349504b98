#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# --help and the man page of dmu-xl name the same commands and options.
set -u

src=${srcdir:-$(dirname "$0")}
command -v mandoc >/dev/null || exit 77
help=$("$src/dmu-xl" --help | sed -n 's/^  \(-[a-z], --[a-z]*\|[a-z][a-z]*\)  .*/\1/p' | sort)
man=$(sed -n 's/^\.It Cm \([a-z]*\).*/\1/p; s/^\.It Fl h , .*/-h, --help/p' "$src/dmu-xl.8" | sort)
[ -n "$help" ] && [ "$help" = "$man" ] || {
	diff <(echo "$help") <(echo "$man")
	exit 1
}
mandoc -Tlint -Wwarning "$src/dmu-xl.8"
