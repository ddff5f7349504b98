#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# test-script.sh [DIR | PROGRAM]: block-dmu as Xen's toolstack runs it, with a xenstore of
# files and programs that note what they were called with. Xen's helpers are those of
# this file, or the real ones in DIR (/etc/xen/scripts of a Xen host): both must do. So
# must PROGRAM, which is block-dmu-shim with paths below the current folder.
# shellcheck source=xen-scripts/script-lib.sh
. "${srcdir:-$(dirname "$0")}/script-lib.sh"

what="a disk over a base"
disk w "dscow:$work/images/overlay:$work/images/golden"
adds
calls_are "cowimg|create|-f|dscow|-b|$work/images/golden|-F|raw|$work/images/overlay" \
	"cowd|-p|dscow|--allow-backing|$work/images/golden|$name|$work/images/overlay"

what="added twice"
script add || fail "status $?"
kept
connected
calls_are

what="removed, and once more"
removes
calls_are "cowctl|stop|$name"
removes
calls_are "cowctl|stop|$name"

what="an overlay that exists"
disk w "dscow:$work/images/overlay:$work/images/golden"
: >images/overlay
echo "$work/images/golden" >backing
adds
calls_are "cowd|-p|dscow|--allow-backing|$work/images/golden|$name|$work/images/overlay"
removes

what="an overlay that does not say its base's format, and one that does"
for format in '' qcow; do
	disk w "qcow:$work/images/overlay:$work/images/golden"
	: >images/overlay
	: >images/other
	[ -z "$format" ] || echo "$format" >backing-format
	echo "$work/images/golden" >backing
	adds
	removes
	rm "store/$backend/physical-device"
	echo "$work/images/other" >backing
	refused "$work/images/overlay is an overlay over $work/images/other and not over $work/images/golden; correct the disk's line"
done

what="an image without a base, where the line has one"
disk w "qcow2:$work/images/overlay:$work/images/golden"
: >images/overlay
refused "$work/images/overlay has no base, but the disk's line names $work/images/golden; correct the disk's line"
calls_are "cowctl|stop|$name"

what="an image that cowimg cannot read"
disk w "qcow2:$work/images/overlay:$work/images/golden"
: >images/overlay
echo "$work/images/overlay: is no image of the format qcow2" >refuse-info
refused "cowimg: $work/images/overlay: is no image of the format qcow2"

what="an overlay that names its base by a relative path"
disk w "dscow:$work/images/overlay:$work/images/golden"
: >images/overlay
echo golden >backing
adds
removes

what="an overlay over another base"
disk w "dscow:$work/images/overlay:$work/images/golden"
: >images/overlay
: >images/other
echo "$work/images/other" >backing
refused "$work/images/overlay is an overlay over $work/images/other and not over $work/images/golden; correct the disk's line"

what="a disk to read"
for mode in r ro; do
	disk "$mode" "raw:$work/images/golden"
	adds
	calls_are "cowd|-p|raw|--read-only|$name|$work/images/golden"
	removes
done

what="a disk to write"
for mode in w rw 'w!'; do
	disk "$mode" "raw:$work/images/golden"
	adds
	calls_are "cowd|-p|raw|$name|$work/images/golden"
	removes
done

what="blanks, colons, percent and dollar signs, quotes"
disk w "dscow:$work/images/an%20over%3Alay%25:$work/images/gold%2C\$HOME%22'\`id\`*"
: >"images/gold,\$HOME\"'\`id\`*"
adds
calls_are "cowimg|create|-f|dscow|-b|$work/images/gold,\$HOME\"'\`id\`*|-F|raw|$work/images/an over:lay%" \
	"cowd|-p|dscow|--allow-backing|$work/images/gold,\$HOME\"'\`id\`*|$name|$work/images/an over:lay%"
removes

what="all options"
disk w "qcow2:$work/images/overlay:$work/images/golden:base-format=qcow:block-size=64k:create.a=b:open.c=d=e:policy=fail:no-space=wait:map-memory=1m:cache-size=2m:scratch-size=4m:allow-backing=/x:allow-write=/y:size=1g"
adds
calls_are "cowimg|create|-f|qcow2|-s|64k|-o|a=b|-b|$work/images/golden|-F|qcow|$work/images/overlay|1g" \
	"cowd|-p|qcow2|-o|c=d=e|--policy|fail|--no-space|wait|--map-memory|1m|--cache-size|2m|--scratch-size|4m|--allow-backing|/x|--allow-write|/y|--allow-backing|$work/images/golden|$name|$work/images/overlay"
removes

what="a host with systemd"
disk w "raw:$work/images/a%22%5C%20b"
: >'images/a"\ b'
mkdir run/systemd/system
adds
unit="--property=TimeoutStopSec=180|--property=Before=xendomains.service libvirt-guests.service|--property=After=remote-fs.target blk-availability.service iscsid.service multipathd.service|--property=RequiresMountsFor=\"$work/images/a\\\"\\\\ b\""
calls_are "systemd-run|--quiet|--scope|--collect|--unit=cowd-$name-1-PID|$unit|cowd|-p|raw|$name|$work/images/a\"\\ b" \
	"cowd|-p|raw|$name|$work/images/a\"\\ b" \
	"systemd-run|--quiet|--scope|--collect|--unit=cowd-$name-keep-PID|$unit|setsid|-f|cowctl|keep|$name"
removes

what="a host with systemd, and all that the disk stands on"
disk w "dscow:$work/images/overlay:$work/images/golden:allow-backing=/nfs:allow-write=/x y:allow-write=here"
mkdir run/systemd/system
adds
grep -qF "|--property=RequiresMountsFor=\"$work/images/overlay\" \"$work/images/golden\" \"/nfs\" \"/x y\"|cowd|" calls ||
	fail "called: $(cat calls)"
removes

what="a device whose cowd is dead"
disk w "raw:$work/images/golden"
adds
echo dead >devices/$name
adds
calls_are "cowd|-p|raw|$name|$work/images/golden"
removes

# As Xen's scripts take it: the lock counts while its file is there.
what="another holds the lock"
disk w "dscow:$work/images/overlay:$work/images/golden"
lock=$locks/block-dmu-$name
exec 8>"$lock"
flock 8
: >calls
toolstack add 8>&- &
sleep 3
calls_are
[ -z "$(node hotplug-status)" ] || fail "did not wait"
rm "$lock"
exec 8>&-
wait $! || fail "status $?"
kept
connected
removes

what="two at once"
disk w "dscow:$work/images/overlay:$work/images/golden"
: >calls
toolstack add &
toolstack add || fail "status $?"
wait $! || fail "the other's status $?"
# The second one's keeper is wanted only if the first one's is not seen yet.
kept
sleep 1
sed -i '/^cowctl|keep|/d' calls
connected
[ "$(grep -c '^cowimg|' calls) $(grep -c '^cowd|' calls)" = "1 1" ] || fail "called: $(cat calls)"
removes

what="another disk's device is none of ours"
disk w "raw:$work/images/golden"
echo running >devices/xen-$domain-5171
echo running >devices/xen-1$domain-51712
adds
rm devices/xen-$domain-5171 devices/xen-1$domain-51712
removes

for sentence in "$name is in use (open 1 times)" \
	"$name: its cowd lives, but does not listen; is it starting or ending?" \
	"$name: cannot be removed: somebody uses it" \
	"$name: waited 60 s for its data to become durable, so it goes on"; do
	what="once, when it is removed: $sentence"
	disk w "raw:$work/images/golden"
	adds
	echo "cowctl: $sentence" >used
	removes
	calls_are "cowctl|stop|$name" "cowctl|stop|$name"
done

what="cowctl stop does not end"
disk w "raw:$work/images/golden"
adds
: >slow
script remove || fail "remove: status $?"
[ -n "$shim" ] || grep -q 'did not end' syslog || fail "does not say why it stays: $(cat syslog)"
unlocked
rm slow
removes

# The toolstack ends a script after 40 seconds, and then nobody would say why it stays.
what="in use all the time, and slow to say so"
disk w "raw:$work/images/golden"
adds
: >busy
script remove || fail "remove: status $?"
[ -e "devices/$name" ] || fail "the device is gone"
[ -n "$shim" ] || grep -q 'is in use' syslog || fail "does not say why it stays: $(cat syslog)"
unlocked

# again MODE TARGET: the toolstack has forgotten the disk, and gives its name to another.
again()
{
	rm -r store
	mkdir -p "store/$backend"
	printf %s "$1" >"store/$backend/mode"
	printf %s "$2" >"store/$backend/params"
}

still="$name still serves raw:$work/images/golden (w) and not"
once="; once nobody uses it, cowctl stop $name ends that"
what="another image while that goes on"
: >images/another
again w "raw:$work/images/another"
add_fails "$still raw:$work/images/another (w)$once"
calls_are
unlocked
what="another format while that goes on"
again w "dscow:$work/images/golden"
add_fails "$still dscow:$work/images/golden (w)$once"
what="another mode while that goes on"
again r "raw:$work/images/golden"
add_fails "$still raw:$work/images/golden (r)$once"
what="the same while that goes on"
ln -s golden images/link
again w "raw:$work/images/link"
script add || fail "status $?"
kept
connected
rm busy
removes

what="cowd refuses"
disk w "raw:$work/images/golden"
printf '%s\n' "$work/images/golden: is no image" "or so" >refuse-cowd
refused "cowd: $work/images/golden: is no image or so"

what="cowd refuses an image that was made for it"
disk w "dscow:$work/images/overlay:$work/images/golden:policy=wrong"
echo "wrong is no policy" >refuse-cowd
refused "cowd: wrong is no policy"
[ ! -e images/overlay ] || fail "the image is left"

what="cowd refuses an image that was there"
: >images/overlay
echo "$work/images/golden" >backing
refused "cowd: wrong is no policy"
[ -e images/overlay ] || fail "the image is gone"

what="another disk took the image that was made"
rm images/overlay
echo "$work/images/overlay is in use" >refuse-cowd
refused "cowd: $work/images/overlay is in use"
[ -e images/overlay ] || fail "the other's image is gone"

what="what was made may be more than the image"
disk w "vmdk:$work/images/overlay:size=1g:create.type=flat"
echo "no" >refuse-cowd
refused "cowd: no"
[ -e images/overlay ] || fail "a part is gone"

what="cowimg refuses"
disk w "dscow:$work/images/overlay:$work/images/golden"
echo "no space for it" >refuse-cowimg
refused "cowimg: no space for it"
[ ! -e images/overlay ] || fail "an image is left"

what="no image, and nothing to make it of"
disk w "dscow:$work/images/overlay"
refused "$work/images/overlay does not exist; to have it made, name its base after it, or add :size=SIZE"

# makes_no_sense TARGET SENTENCE: nothing is begun for it.
makes_no_sense()
{
	what="the target $1"
	disk w "$1"
	refused "target=$1: $2"
	calls_are "cowctl|stop|$name"
}

wanted="should be FORMAT:/path/of/image[:/path/of/base][:OPTION=VALUE...]"
no_percent="a % is not followed by a character's number; write %25 for a percent sign"
no_base="is neither an absolute path of a base nor OPTION=VALUE; write %3A for a colon in a path"
makes_no_sense dscow "$wanted"
makes_no_sense :/a "$wanted"
makes_no_sense -x:/a:size=1 "$wanted"
makes_no_sense _x:/a:size=1 "$wanted"
makes_no_sense ../x:/a:size=1 "$wanted"
makes_no_sense dscow: "'' is no absolute path of an image"
makes_no_sense dscow:overlay "'overlay' is no absolute path of an image"
makes_no_sense dscow:/a: "'' $no_base"
makes_no_sense dscow:/a:b "'b' $no_base"
makes_no_sense dscow:/a:/b:/c "'/c' $no_base"
makes_no_sense dscow:/a:=x "'=x' $no_base"
makes_no_sense dscow:/a%: "in /a% $no_percent"
makes_no_sense dscow:/a%4 "in /a%4 $no_percent"
makes_no_sense dscow:/a%zz: "in /a%zz $no_percent"
makes_no_sense dscow:/a%00b "in /a%00b $no_percent"
for option in colour create. open. sizes; do
	makes_no_sense "dscow:/a:$option=red" "$option is no option; there are size, block-size, base-format, create.NAME, \
open.NAME, allow-backing, allow-write, policy, no-space, map-memory, cache-size and scratch-size"
done

what="a disk without a target"
disk w ""
refused "target=: should be FORMAT:/path/of/image[:/path/of/base][:OPTION=VALUE...]"

# The script ends with the lock held: who comes after it must not wait for cowd's end.
what="xenstore refuses when cowd runs"
disk w "raw:$work/images/golden"
: >refuse-physical-device
script add && fail "add does not fail"
kept
[ "$(node hotplug-status)" = error ] || fail "hotplug-status is $(node hotplug-status)"
rm refuse-physical-device
removes

# ---- watching --------------------------------------------------------------

# tells PATH: xenstore tells the watcher.
tells() { echo "$1" >&7; }

# printf_disk MODE TARGET SCRIPT: the script last: it makes it ours.
printf_disk()
{
	mkdir -p "store/$backend"
	printf %s "$1" >"store/$backend/mode"
	printf %s "$2" >"store/$backend/params"
	printf %s "$3" >"store/$backend/script"
}

is_connected() { [ "$(node hotplug-status)" = connected ]; }
nothing_served() { [ -z "$(ls devices)" ]; }

# watched SCRIPT: the disk is another's or ours, as its script says.
watched()
{
	disk w "raw:$work/images/golden"
	: >calls
	printf %s "$1" >"store/$backend/script"
}

watches()
{
	local script
	what="watching from before a disk is there"
	mkfifo events
	watched /etc/xen/scripts/block-dmu
	"$shim" watch &
	watcher=$!
	exec 7>events
	until_true is_connected
	kept
	connected
	calls_are "cowd|-p|raw|$name|$work/images/golden"
	for script in block-dmu-shim /etc/xen/scripts/block-dmu; do
		what="a disk vanishes, $script"
		: >calls
		rm -r "store/$backend"
		tells "$backend"
		until_true nothing_served
		calls_are "cowctl|stop|$name"
		what="a disk appears, $script"
		watched "$script"
		tells "$backend/params"
		tells "$backend/mode"
		tells "$backend/state"
		until_true is_connected
		kept
		connected
		calls_are "cowd|-p|raw|$name|$work/images/golden"
	done
	what="a disk is deleted and made again before anybody looks"
	: >calls
	: >images/second
	rm -r "store/$backend"
	printf_disk w "raw:$work/images/second" /etc/xen/scripts/block-dmu
	tells "$backend"
	until_true is_connected
	kept
	connected
	calls_are "cowctl|stop|$name" "cowd|-p|raw|$name|$work/images/second"
	what="xenstore does not say whether a disk is there"
	: >calls
	: >refuse-to-read-script
	tells "$backend"
	sleep 2
	rm refuse-to-read-script
	calls_are
	# Whoever adds it again says so in xenstore.
	what="more events of a disk that is served"
	printf marked >"store/$backend/hotplug-status"
	tells "$backend/state"
	tells backend/vbd
	what="all disks of a domain vanish"
	rm -r "store/${backend%/*}"
	tells "${backend%/*}"
	until_true nothing_served
	[ ! -e "store/$backend" ] || fail "added again"

	# One of ours after each, by which is seen that it was passed over.
	what="disks of others, one that was refused, and nonsense"
	watched /etc/xen/scripts/block
	mkdir -p store/backend/vbd/6$domain/51712 store/backend/vbd/7$domain/51712
	printf block-dmu >store/backend/vbd/6$domain/51712/script
	printf error >store/backend/vbd/6$domain/51712/hotplug-status
	printf "raw:%s" "$work/images/golden" >store/backend/vbd/6$domain/51712/params
	tells "$backend"
	tells backend/vbd/6$domain/51712
	tells backend/vbd/x/y
	tells backend/vbd//
	name=xen-7$domain-51712 backend=backend/vbd/7$domain/51712
	# The script last: it makes it ours, and events before may still be looked at.
	printf "raw:%s" "$work/images/golden" >"store/$backend/params"
	printf r >"store/$backend/mode"
	printf block-dmu >"store/$backend/script"
	tells "$backend/mode"
	until_true is_connected
	kept
	calls_are "cowd|-p|raw|--read-only|$name|$work/images/golden"

	# Guests whose disk is slow to be served hold nobody up, nor does its end.
	what="a disk vanishes while it is added"
	name=xen-8$domain-51712 backend=backend/vbd/8$domain/51712
	: >calls
	: >slow-cowd
	printf_disk w "raw:$work/images/golden" block-dmu
	tells "$backend"
	until_true grep -q "^cowd|.*|$name|" calls
	rm -r "store/$backend"
	tells "$backend"
	name=xen-9$domain-51712 backend=backend/vbd/9$domain/51712
	printf_disk w "raw:$work/images/golden" block-dmu
	tells "$backend"
	until_true grep -q "^cowd|.*|$name|" calls
	[ -e slow-cowd ] || fail "the other came to its end before"
	grep -q "^cowctl|stop|xen-8$domain-" calls && fail "removed while it is added"
	rm slow-cowd
	until_true is_connected
	until_true grep -q "^cowctl|stop|xen-8$domain-51712$" calls
	until_true test ! -e devices/xen-8$domain-51712
	[ ! -e "store/backend/vbd/8$domain/51712" ] || fail "made anew: $(ls "store/backend/vbd/8$domain/51712")"

	exec 7>&-
	what="xenstore ends"
	wait "$watcher" && fail "goes on without xenstore"
	watcher=

	what="disks vanished while nobody watched"
	: >calls
	rm -r "store/$backend"
	printf %s running >devices/xen-3$domain-51712
	ln -s /dev/null dev/mapper/xen-3$domain-51712
	: >run/cowd/xen-3$domain-51712.json
	: >run/cowd/mine.json
	"$shim" watch &
	watcher=$!
	exec 7>events
	until_true grep -q "^cowctl|stop|xen-9$domain-51712$" calls
	until_true grep -q "^cowctl|stop|xen-3$domain-51712$" calls
	# What the one before began may ask once more for the disk that it has stopped.
	[ "$(grep -vc "^cowctl|stop|xen-8$domain-51712$" calls)" = 2 ] || fail "called $(cat calls)"
	exec 7>&-
	wait "$watcher"
	watcher=
}
[ -z "$shim" ] || watches

[ "$failed" = 0 ] && echo "PASS ${0##*/}${1:+ with $1}"
exit "$failed"
