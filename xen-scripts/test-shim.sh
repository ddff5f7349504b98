#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# block-dmu-shim does what block-dmu does, and watches; its wrong usage and its man page.
set -u

src=$(cd "${srcdir:-$(dirname "$0")}" && pwd)
shim=$PWD/shim-in-files
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

for test in script trouble; do
	srcdir=$src "$src/test-$test.sh" "$shim" || failed=1
done

# says STATUS WORDS ARGUMENT...
says()
{
	local want=$1 words=$2 got said
	shift 2
	said=$(XENBUS_PATH='' "$shim" "$@" 2>&1 </dev/null)
	got=$?
	[ "$got" = "$want" ] && [[ $said == *"$words"* ]] || fail "$*: status $got, says $said"
}

says 2 'add, remove or watch is wanted'
says 2 'add, remove or watch is wanted' plug
says 2 'add, remove or watch is wanted' add now
says 2 'XENBUS_PATH names no disk' add
says 2 'XENBUS_PATH names no disk' remove
says 0 'Usage: block-dmu-shim' --help

if command -v mandoc >/dev/null; then
	mandoc -Tlint -Wwarning "$src/block-dmu-shim.8" || failed=1
fi
for word in add remove watch; do
	"$shim" --help | grep -qw "$word" && grep -q "^.[A-Z].*$word" "$src/block-dmu-shim.8" ||
		fail "$word is not in --help and block-dmu-shim.8"
done

[ "$failed" = 0 ] && echo "PASS test-shim.sh"
exit "$failed"
