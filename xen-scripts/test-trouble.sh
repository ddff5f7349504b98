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
vanishes() { rm -r "store/backend/vbd/$domain"; }
is_another() { printf %s "raw:$work/images/another" >"store/$backend/params"; }
is_read_only() { printf r >"store/$backend/mode"; }
is_refused() { echo "no" >refuse-cowd; vanishes; }

if [ -n "$shim" ]; then
	what="a disk vanishes while it is added"
	disk w "raw:$work/images/golden"
	meanwhile vanishes
	[ ! -e store/backend/vbd/$domain ] || fail "made anew: $(ls "store/$backend")"
	what="a disk vanishes while it is added, and cowd refuses"
	disk w "raw:$work/images/golden"
	meanwhile is_refused
	[ ! -e store/backend/vbd/$domain ] || fail "made anew: $(ls "store/$backend")"
	what="a disk vanished before"
	disk w "raw:$work/images/golden"
	vanishes
	script add && fail "add does not fail"
	[ ! -e store/backend/vbd/$domain ] || fail "made anew: $(ls "store/$backend")"
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

what="paths as systemd does not take them"
disk w "dscow:$work/images/../images//./overlay:$work/images/golden:allow-backing=/../x/..:allow-write=/y/"
mkdir run/systemd/system
adds
grep -qF "|--property=RequiresMountsFor=\"$work/images/overlay\" \"$work/images/golden\" \"/\" \"/y\"|cowd|" calls ||
	fail "called: $(cat calls)"
removes

# ---- others, who are slow --------------------------------------------------

old=xen-4$domain-51712
# An image that is served for a disk which xenstore has no more: its remove is under way.
used_by_old()
{
	disk w "raw:$work/images/golden"
	echo "$old" >used-by
	printf '%s\n' running raw "$work/images/golden" false >"devices/$old"
	: >"run/cowd/$old.json"
}

what="a guest boots anew, and its old disk is slow to go"
for way in '' another; do
	used_by_old
	[ -z "$way" ] || : >used-by-another
	echo "cowctl: $old is in use (open 1 times)" >used
	adds
	calls_are "cowd|-p|raw|$name|$work/images/golden" "cowctl|stop|$old" \
		"cowd|-p|raw|$name|$work/images/golden" "cowctl|stop|$old" \
		"cowd|-p|raw|$name|$work/images/golden"
	removes
done

what="the image is in use for another disk that is there"
for way in '' another; do
	used_by_old
	by=/dev/mapper/$old
	[ -z "$way" ] || { : >used-by-another; by="another program; it can be written by one only"; }
	mkdir -p store/backend/vbd/4$domain/51712
	printf raw:/x >store/backend/vbd/4$domain/51712/params
	add_fails "cowd: $work/images/golden: is in use by $by"
	calls_are "cowd|-p|raw|$name|$work/images/golden"
done

what="the cowd of then is at its end"
disk w "raw:$work/images/golden"
adds
sed -i '1s/.*/ending/' "devices/$name"
(sleep 1; rm "devices/$name" "dev/mapper/$name") &
adds
calls_are "cowd|-p|raw|$name|$work/images/golden"
sed -i '1s/.*/flushing/' "devices/$name"
rm -r "store/$backend/"{hotplug-status,physical-device}
what="the cowd of then does not come to its end"
add_fails "$name is still flushing; try again later"
calls_are
unlocked

no_keeper() { ! pgrep -f "cowctl keep $name\$" >/dev/null; }
what="added twice, and its keeper lives"
disk w "raw:$work/images/golden"
: >keeps
adds
script add || fail "status $?"
sleep 0.5
calls_are
rm keeps
until_true no_keeper
what="added twice, and its keeper does not live"
script add || fail "status $?"
kept
connected
calls_are
removes

# The toolstack ends a script after 40 seconds, and then nobody would say why.
what="cowd is slow to start"
nothing_served() { [ -z "$(ls devices)" ]; }
disk w "raw:$work/images/golden"
: >starting
began=$SECONDS
add_fails "$name is still starting; try again later"
[ $((SECONDS - began)) -lt 45 ] || fail "took $((SECONDS - began)) s"
# Who ends it later has the lock each second for a moment.
nobody_locks() { [ -z "$(ls "$locks")" ]; }
until_true nobody_locks
rm starting
until_true nothing_served
grep -q "^cowctl|stop|$name\$" calls || fail "called: $(cat calls)"
rm -f "$locks"/*

[ "$failed" = 0 ] && echo "PASS ${0##*/}${1:+ with $1}"
exit "$failed"
