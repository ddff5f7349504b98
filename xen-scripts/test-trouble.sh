#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# test-trouble.sh [DIR | PROGRAM]: as test-script.sh, block-dmu where paths are strange, where
# others come between, and where cowd is slow.
# shellcheck source=xen-scripts/script-lib.sh
. "${srcdir:-$(dirname "$0")}/script-lib.sh"

what="a path that is no plain ASCII"
image="$work/images/gäst\\x"
disk w "raw:$image"
: >"$image"
adds
calls_are "cowd|-p|raw|$name|$image"
removes

what="a sentence with such a path"
disk w "raw:$work/images/gäst\\x41"
refused "$work/images/gäst\\x41 does not exist; to have it made, name its base after it, or add :size=SIZE"
what="a target with such a path"
disk w "raw:$work/images/gäst\\x41:wrong"
refused "target=raw:$work/images/gäst\\x41:wrong: 'wrong' is neither an absolute path of a base nor OPTION=VALUE; write %3A for a colon in a path"

# holds FILE read|write: as a cowd of another disk; the lock is there when it returns.
holds()
{
	rm -f locked
	perl -e 'use Fcntl; open F, "+<", $ARGV[0]; my $type = $ARGV[1] eq "read" ? F_RDLCK : F_WRLCK;
		fcntl(F, F_SETLK, pack("s s x![q] q q i x![q]", $type, 0, 0, 0, 0)) or die; open L, ">", "locked"; sleep 600' "$@" &
	holder=$!
	until [ -e locked ]; do sleep 0.1; done
}

# The other comes when the image was made: cowd does it here, before it refuses.
for other in write read; do
	what="another, who comes to $other, has the image that was made"
	disk r "dscow:$work/images/overlay:$work/images/golden"
	echo "$work/images/overlay: is being written by another program; close it there first" >refuse-cowd
	[ "$other" = write ] || echo "wrong is no policy" >refuse-cowd
	mkfifo taken
	script add &
	adding=$!
	until [ -e images/overlay ]; do sleep 0.1; done
	holds "$work/images/overlay" "$other"
	: >taken
	wait "$adding" && fail "add does not fail"
	[ -e images/overlay ] || fail "the other's image is gone"
	kill "$holder"
	wait "$holder" 2>/dev/null
	rm taken
done

what="nobody has the image that was made"
disk w "dscow:$work/images/overlay:$work/images/golden"
echo "wrong is no policy" >refuse-cowd
refused "cowd: wrong is no policy"
[ ! -e images/overlay ] || fail "the image is left"

# meanwhile COMMAND...: a disk is added, and that happens when cowd is started for it.
meanwhile()
{
	mkfifo taken
	: >calls
	toolstack add &
	adding=$!
	until grep -q "^cowd|" calls; do sleep 0.1; done
	"$@"
	: >taken
	wait "$adding" && fail "add does not fail"
	rm taken
	[ -z "$(ls -A devices)" ] || fail "served: $(ls devices)"
	unlocked
}
vanishes() { rm -r store/backend/vbd/5; }
is_another() { printf %s "raw:$work/images/another" >"store/$backend/params"; }
is_read_only() { printf r >"store/$backend/mode"; }
is_refused() { echo "no" >refuse-cowd; vanishes; }

if [ -n "$shim" ]; then
	what="a disk vanishes while it is added"
	disk w "raw:$work/images/golden"
	meanwhile vanishes
	[ ! -e store/backend/vbd/5 ] || fail "made anew: $(ls "store/$backend")"
	what="a disk vanishes while it is added, and cowd refuses"
	disk w "raw:$work/images/golden"
	meanwhile is_refused
	[ ! -e store/backend/vbd/5 ] || fail "made anew: $(ls "store/$backend")"
	what="a disk vanished before"
	disk w "raw:$work/images/golden"
	vanishes
	script add && fail "add does not fail"
	[ ! -e store/backend/vbd/5 ] || fail "made anew: $(ls "store/$backend")"
	for other in is_another is_read_only; do
		what="a disk $other while it is added"
		disk w "raw:$work/images/golden"
		meanwhile "$other"
		[ -z "$(node hotplug-status)$(node node)" ] || fail "says $(node hotplug-status)"
	done
	what="another writes to xenstore, so that ours is to be repeated"
	disk w "raw:$work/images/golden"
	: >again
	adds
	[ ! -e again ] || fail "writes in no transaction"
	removes
fi

[ "$failed" = 0 ] && echo "PASS ${0##*/}${1:+ with $1}"
exit "$failed"
