#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# --help and the man page of dscow_tool name the same options, and the
# program takes each of them.
set -u

src=${srcdir:-$(dirname "$0")}
tool=${DSCOW_TOOL:-$PWD/../../tools/dscow_tool}
page=$src/../../tools/dscow_tool.8
command -v mandoc >/dev/null || exit 77

options() { grep -oE -- '(^|[[:space:],])--?[A-Za-z][a-z-]*' | tr -d ' ,\t' | sort -u; }

help=$("$tool" --help | sed -n '/^  -c/,$p' | grep -E '^  ' |
	cut -c1-26 | tr '=' ' ' | options)
man=$(sed -n '/^\.It Fl/p' "$page" | sed 's/\.It//; s/ Fl \\-/ --/g; s/ Fl / -/g; s/ Ns.*//' |
	tr '|' ' ' | options)
if [ "$help" != "$man" ]; then
	echo "--help and $page differ:"
	diff <(echo "$help") <(echo "$man")
	exit 1
fi
for option in $help; do
	case $option in
	-b | --block-size) "$tool" "$option" 4k 2>&1 ;;
	-f | --base-format | --plugin-dir) "$tool" "$option" x 2>&1 ;;
	*) "$tool" "$option" 2>&1 ;;
	esac | grep -q "is not known" && { echo "$option is not taken"; exit 1; }
done
mandoc -Tlint -Wwarning "$page"
