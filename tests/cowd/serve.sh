#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A base image becomes a copy-on-write device: served, written, stopped, attached
# again with the changes there, and the base as it was.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

start()
{
	cowd "$@" || die "cowd $*: exit status $?"
}

stop()
{
	cowctl stop "$1" || die "cowctl stop $1: exit status $?"
	[ ! -e "/dev/mapper/$1" ] || fail "$1 is said to be gone and is not"
}

# overlay_over BASE [BLOCK]: all that a user does, and what must be true after.
overlay_over()
{
	local base=$1 block=${2:-64k} before size
	before=$(sum "$base")
	size=$(blockdev --getsize64 "$base" 2>/dev/null || stat -c %s "$base")
	dscow_tool -b "$block" -c a.dscow "$base" >/dev/null || die "dscow_tool"
	start -p dscow --allow-backing "$base" mydev a.dscow
	[ "$(blockdev --getsize64 /dev/mapper/mydev)" = "$size" ] ||
		fail "size of the device"
	[ "$(sum /dev/mapper/mydev)" = "$before" ] || fail "reads not as the base"

	cp "$base" model 2>/dev/null || dd if="$base" of=model bs=1M status=none
	# Whole blocks, parts of blocks, the very end, and one byte.
	file new 3000000
	for seek in 0 5000000 12345 $((size - 3000000)); do
		dd if=new of=/dev/mapper/mydev bs=64k oflag=seek_bytes seek=$seek \
			conv=notrunc status=none || fail "write at $seek"
		dd if=new of=model bs=64k oflag=seek_bytes seek=$seek conv=notrunc status=none
	done
	printf x | dd of=/dev/mapper/mydev bs=1 seek=9999999 conv=notrunc status=none
	printf x | dd of=model bs=1 seek=9999999 conv=notrunc status=none
	sync /dev/mapper/mydev
	echo 3 >/proc/sys/vm/drop_caches
	[ "$(sum /dev/mapper/mydev)" = "$(sum model)" ] || fail "reads not what was written"
	dmsetup status mydev
	stop mydev
	nothing_left "stop over $base"
	[ "$(sum "$base")" = "$before" ] || fail "the base was changed"
	dscow_tool -k a.dscow || fail "the overlay's check says $?"

	start -p dscow --allow-backing "$base" mydev a.dscow
	echo 3 >/proc/sys/vm/drop_caches
	[ "$(sum /dev/mapper/mydev)" = "$(sum model)" ] || fail "changes lost over $base"
	stop mydev
	rm a.dscow model
}

modprobe loop || die "no loop devices"
file base.img 20000256	# no multiple of the block size
overlay_over "$work/base.img"
overlay_over "$work/base.img" 4k
overlay_over "$work/base.img" 16m

modprobe brd rd_nr=1 rd_size=20481 || die "no RAM disk"
dd if=/dev/urandom of=/dev/ram0 bs=1M status=none 2>/dev/null
overlay_over /dev/ram0

# Two overlays on one base at once.
before=$(sum base.img)
for name in one two; do
	dscow_tool -c $name.dscow base.img >/dev/null || die "dscow_tool"
	start -p dscow $name $name.dscow
done
cowctl list
file one.new 2000000
file two.new 2000000
for name in one two; do
	dd if=$name.new of=/dev/mapper/$name bs=1M seek=3 conv=fsync status=none
done
for name in one two; do
	dd if=/dev/mapper/$name bs=1M skip=3 status=none | cmp -n 2000000 - $name.new ||
		fail "$name: one overlay sees another's data"
done
# A signal stops as cowctl does, first writes that nobody flushed included.
file late 1048576
dd if=late of=/dev/mapper/one bs=1M seek=8 oflag=direct status=none || fail "late write"
[[ $(dmsetup status one) != *" uncommitted 0 "* ]] || fail "late write: nothing is uncommitted"
kill "$(jq -r .pid /run/cowd/one.json)"
for _ in $(seq 100); do
	[ -e /run/cowd/one.json ] || break
	sleep 0.1
done
[ ! -e /dev/mapper/one ] || fail "SIGTERM left the device"
stop two
nothing_left "two overlays"
[ "$(sum base.img)" = "$before" ] || fail "the base was changed"

# Nothing that goes to the background keeps what it was started with.
[ "$(timeout 60 cowd -p dscow one one.dscow 2>&1)" = "" ] || fail "standard output is kept, or was written to"
stop one

# In use: it says so, to whom asks and, stopped by a signal, where it logs; and goes on.
cowd -f -p dscow one one.dscow 2>>said &
pid=$!
for _ in $(seq 100); do
	[ -e /dev/mapper/one ] && break
	sleep 0.1
done
one_is_late()
{
	echo 3 >/proc/sys/vm/drop_caches
	dd if=/dev/mapper/one bs=1M skip=8 count=1 status=none | cmp - late
}
one_is_late || fail "what was not flushed before SIGTERM is lost"
# shellcheck disable=SC2217 # it holds the device open
sleep 60 </dev/mapper/one &
holder=$!
sleep 0.2
cowctl stop one 2>err && fail "stopped while in use"
grep -q "in use" err || fail "does not say that it is in use: $(cat err)"
one_is_late || fail "does not go on after cowctl stop"
grep -q "device 0 is /dev/loop" said && fail "tells without -v what is for -v: $(<said)"
: >said
kill $pid
for _ in $(seq 200); do
	[ -s said ] && break
	sleep 0.1
done
grep -q "one is in use" said || fail "SIGTERM: does not say that it is in use: $(cat said)"
file late 1048576
dd if=late of=/dev/mapper/one bs=1M seek=8 conv=fsync status=none || fail "cannot be written after SIGTERM"
one_is_late || fail "does not go on after SIGTERM"
kill $holder
stop one
wait $pid || fail "in use, then stopped: exit status $?"
wait
nothing_left "busy stop"

# Read-only.
start -p raw --read-only ro base.img
[ "$(blockdev --getro /dev/mapper/ro)" = 1 ] || fail "not read-only"
[ "$(sum /dev/mapper/ro)" = "$before" ] || fail "raw reads wrong"
stop ro

# In the foreground, until it is interrupted.
cowd -f -v -p raw fg base.img 2>told &
for _ in $(seq 100); do
	[ -e /dev/mapper/fg ] && break
	sleep 0.1
done
dd if=/dev/mapper/fg bs=1M count=1 status=none | cmp -n 1048576 - base.img || fail "foreground"
kill -INT %1
wait %1 || fail "foreground: exit status $?"
grep -q "base.img: device 0 is /dev/loop" told || fail "-v does not tell more: $(<told)"
nothing_left foreground
