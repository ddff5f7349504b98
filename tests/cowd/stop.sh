#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What cowctl stop waits for has an end: storage that does not answer the last flush, nor
# the flushes while somebody has the device open. It says what it waited for, the device
# is served as before, nothing is lost, and stopping works when the storage answers.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
[ $# = 0 ] || die "unknown argument $1"

write_block() { dd if="$1" of=/dev/mapper/mydev bs=64k seek="$2" oflag=direct conv=notrunc status=none; }

# below TABLE: from now on.
below() { echo "0 65536 $1" | dmsetup load below && dmsetup resume below || die "below: $1"; }

storage_answers() { dmsetup resume below || die "resume below"; }
storage_is_silent() { dmsetup suspend --noflush --nolockfs below || die "suspend below"; }

# stop_says TEXT: within the time that cowctl has, not for ever.
stop_says()
{
	local status=0
	timeout 150 cowctl stop mydev 2>err || status=$?
	[ $status != 0 ] && grep -qF "$1" err && return
	fail "status $status, says '$(<err)' instead of '$1'"
	return 1
}

# opened N: how often mydev is open, in the end: who was given up may still wait in a flush.
opened()
{
	for _ in $(seq 600); do
		[ "$(dmsetup info -c --noheadings -o open mydev)" != "$1" ] || return 0
		sleep 0.1
	done
	die "mydev is not open $1 times, but $(dmsetup info -c --noheadings -o open mydev)"
}

# Served as before: who reads waits for the silent storage only where it stands there.
goes_on()
{
	[ "$(cowctl status --json mydev | of_json state)" = running ] || fail "$1: $(cowctl status mydev)"
	cmp -n 65536 base.img /dev/mapper/mydev || fail "$1: what the base has cannot be read"
}

# The device could not be removed over storage that is silent.
silent_no_more()
{
	local status=$?
	trap - EXIT
	[ ! -e /dev/mapper/below ] || { below "linear $loop 0"; exec 3<&-; }
	(exit $status)
	cleanup
}
trap silent_no_more EXIT

file base.img $((8 * 1024 * 1024))
file one 65536
file two 65536
truncate -s 32M disk
modprobe loop && modprobe dm-delay || die "no loop devices, or no dm-delay"
loop=$(losetup -f --show disk)
echo "0 65536 linear $loop 0" | dmsetup create below
dscow_tool --force -c /dev/mapper/below base.img >/dev/null || die "an overlay on a device"

cowd -p dscow --allow-backing "$work" mydev /dev/mapper/below || die "cowd"
write_block one 5 || fail "write"
storage_is_silent
stop_says "mydev: waited 60 s for its data to become durable, so it goes on"
goes_on "a flush without an end"
storage_answers
opened 0
timeout 150 cowctl stop mydev || fail "stop, when the storage answers"
echo "ok $SECONDS s: the last flush"

# Its flushes take 25 s: there is time to open the device after the stop began, and the
# flush before each further try to remove it takes longer than a removal may.
cowd -p dscow --allow-backing "$work" mydev /dev/mapper/below || die "cowd"
below "delay $loop 0 0 $loop 0 0 $loop 0 25000"
write_block one 5 || fail "write to an own block"
stop_says "mydev: waited 20 s for its removal, so it goes on" &
stopping=$!
for _ in $(seq 200); do	# it is refused at once if the device is open by then
	[ "$(cowctl status --json mydev | of_json state)" = running ] || break
done
exec 3</dev/mapper/mydev
wait $stopping || fail "the stop"
goes_on "a removal without an end"
below "linear $loop 0"
opened 1
timeout 150 cowctl stop mydev 2>err && fail "stopped while somebody has it open"
grep -q "mydev is in use (open 1 times)" err || fail "says '$(<err)' of a device that is open"
exec 3<&-
write_block two 9 || fail "write"
timeout 150 cowctl stop mydev || fail "stop, when nobody has it open"
echo "ok $SECONDS s: the removal"

cowd -p dscow --allow-backing "$work" mydev /dev/mapper/below || die "cowd"
dd if=/dev/mapper/mydev bs=64k skip=5 count=1 status=none | cmp - one || fail "the first block is lost"
dd if=/dev/mapper/mydev bs=64k skip=9 count=1 status=none | cmp - two || fail "the second block is lost"
cowctl stop mydev || fail "stop"
dscow_tool -k /dev/mapper/below || fail "the overlay's check says $?"
dmsetup remove below
losetup -d "$loop"
nothing_left "the end"
