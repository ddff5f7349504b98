#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# --help and the man page of a program name the same commands and options.
set -u

src=${srcdir:-$(dirname "$0")}
command -v mandoc >/dev/null || exit 77
help=$("$src/dmu-xl" --help | sed -n 's/^  \(-[a-z], --[a-z]*\|[a-z][a-z]*\)  .*/\1/p' | sort)
man=$(sed -n 's/^\.It Cm \([a-z]*\).*/\1/p; s/^\.It Fl h , .*/-h, --help/p' "$src/dmu-xl.8" | sort)
[ -n "$help" ] && [ "$help" = "$man" ] || {
	diff <(echo "$help") <(echo "$man")
	exit 1
}
mandoc -Tlint -Wwarning "$src/dmu-xl.8" || exit 1

# It is not built everywhere; what it says is in its source.
help=$(sed -n 's/^"  \(add, remove\|watch\|-h, --help\)  .*/\1/p' "$src/shim/main.c" | sort)
man=$(sed -n 's/^\.It Cm add , Cm remove$/add, remove/p; s/^\.It Cm \([a-z]*\)$/\1/p; s/^\.It Fl h , .*/-h, --help/p' "$src/block-dmu-shim.8" | sort)
[ -n "$help" ] && [ "$help" = "$man" ] || {
	diff <(echo "$help") <(echo "$man")
	exit 1
}
mandoc -Tlint -Wwarning "$src/block-dmu-shim.8"
