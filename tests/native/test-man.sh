#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# --help and the man page of each tool name the same options, and the program
# takes each of them.
set -u

src=${srcdir:-$(dirname "$0")}/../../tools
BUILD=$PWD/../..
# shellcheck source=tests/built.sh disable=SC1091
. "$(dirname "$(readlink -f "$0")")/../built.sh"
command -v mandoc >/dev/null || exit 77

options() { grep -oE -- '(^|[[:space:],])--?[A-Za-z][a-z-]*' | tr -d ' ,\t' | sort -u; }

# same_options TOOL PAGE [COMMAND]: the command that most options go with.
same_options()
{
	local tool page=$src/$2 help man option value
	tool=$(built "tools/$1")
	shift 2
	help=$("$tool" --help | grep -E '^ +-' | cut -c1-26 | tr '=' ' ' | options)
	man=$(sed -n '/^\.It Fl/p' "$page" |
		sed 's/\.It//; s/ Fl \\-/ --/g; s/ Fl / -/g; s/ Ns.*//' | tr '|' ' ' | options)
	[ -n "$help" ] || { echo "$tool --help shows no options"; return 1; }
	if [ "$help" != "$man" ]; then
		echo "--help and $page differ:"
		diff <(echo "$help") <(echo "$man")
		return 1
	fi
	for option in $help; do
		value=
		! "$tool" --help | grep -E "^ .*$option( [A-Z]|=|,.*=)" >/dev/null || value=4k
		"$tool" "$@" "$option" $value 2>&1 | grep -q "is not known" &&
			{ echo "$tool: $option is not taken"; return 1; }
	done
	mandoc -Tlint -Wwarning "$page"
}

status=0
same_options cowimg cowimg.1 convert || status=1
same_options dscow_tool dscow_tool.8 || status=1
for tool in img2qcow qcow-create qcow2raw; do
	same_options $tool $tool.1 || status=1
done

# An option that there is not is named.
for tool in cowimg\ info dscow_tool img2qcow qcow-create qcow2raw; do
	for option in --no-such-option -9; do
		# shellcheck disable=SC2086 # a tool and its command
		said=$($(built "tools/$tool") "$option" x 2>&1) && status=1
		case $said in
		*"option $option: is not known"*) ;;
		*) echo "$tool $option: says $said"; status=1 ;;
		esac
	done
done
said=$("$(built tools/cowimg)" map -r x 2>&1)
[ "$said" = "cowimg: map takes no option -r; see cowimg --help" ] || { echo "cowimg map -r: says $said"; status=1; }

# The page of dscow_tool knows each key of its JSON.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
truncate -s 1M "$dir/base"
"$(built tools/dscow_tool)" -c "$dir/overlay" "$dir/base" >"$dir/log" || status=1
for action in -i -k; do
	"$(built tools/dscow_tool)" $action --json "$dir/overlay" >"$dir/json" || status=1
	keys=$(sed -n 's/^ *"\([a-z-]*\)":.*/\1/p' "$dir/json")
	[ -n "$keys" ] || { echo "dscow_tool $action --json: no keys"; status=1; }
	for key in $keys; do
		sed -n '/^\.Sh JSON/,/^\.Sh ENV/p' "$src/dscow_tool.8" | grep -qE -- "(^| )$key( |\$)" ||
			{ echo "dscow_tool.8, JSON: does not tell of $key"; status=1; }
	done
done

# The page of a plugin, DIR/NAME.c, names the options that the plugin has, and no others.
plugin_options()
{
	local dir=${1%/*} name page have listed
	name=$(basename "$1" .c)
	page=$(echo "$dir/cowd-$name".[57])
	[ -e "$page" ] || { echo "$name has no page"; return 1; }
	have=$(sed -n 's/^\t{ "\([a-z0-9_-]*\)", ".*/\1/p' "$1" | sort)
	listed=$(sed -n 's/^\.It Cm \([a-z0-9_-]*\) Ns = .*/\1/p' "$page" | sort -u)
	[ -n "$have" ] || ! grep -q '\.options = ' "$1" || { echo "the options of $name are not found"; return 1; }
	if [ "$have" != "$listed" ]; then
		echo "the options of $name and its page differ:"
		diff <(echo "$have") <(echo "$listed")
		return 1
	fi
	mandoc -Tlint -Wwarning "$page"
}

plugins=0
for plugin in "$src"/../plugins/*/; do
	plugin=$plugin$(basename "$plugin").c
	[ -e "$plugin" ] || continue
	plugins=$((plugins + 1))
	plugin_options "$plugin" || status=1
done
[ "$plugins" -gt 0 ] || { echo "there are no plugins"; status=1; }
exit $status
