#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Both processes killed at random moments of a start, of a stop and between: the
# next plain start serves the device, and a stop leaves nothing behind.
#	kill-start.sh [TIMES [SEED]]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

times=${1:-12}
RANDOM=${2:-1}
modprobe loop || die "no loop devices"
file base.img 8388608
dscow_tool -c a.dscow base.img >/dev/null || die "dscow_tool"
cp base.img model

kill_all()
{
	local left
	for _ in $(seq 100); do
		left=$(daemons)
		[ -n "$left" ] || return 0
		# Again, for one that was started meanwhile.
		# shellcheck disable=SC2086 # numbers
		kill -9 $left 2>/dev/null
		sleep 0.05
	done
	fail "$(daemons) cannot be killed"
}

serve()
{
	cowd -p dscow mydev a.dscow || die "$1: cannot be served: $(dmsetup ls; cat /run/cowd/mydev.json)"
	timeout 60 cmp model /dev/mapper/mydev || die "$1: reads wrong"
	file new 65536
	block=$((RANDOM % 100))
	dd if=new of=/dev/mapper/mydev bs=64k seek=$block conv=notrunc,fsync oflag=direct status=none ||
		fail "$1: write"
	dd if=new of=model bs=64k seek=$block conv=notrunc status=none
}

for n in $(seq "$times"); do
	cowd -p dscow mydev a.dscow 2>/dev/null &
	sleep "0.$(printf %03d $((RANDOM % 900)))"
	kill_all
	wait
	serve "killed in start $n"
	cowctl stop mydev 2>/dev/null &
	sleep "0.$(printf %03d $((RANDOM % 300)))"
	kill_all
	wait
	serve "killed in stop $n"
	cowctl stop mydev || fail "$n: cowctl stop: exit status $?"
	nothing_left "round $n"
done
dscow_tool -k a.dscow || fail "the overlay's check says $?"
echo "$((times * 2)) kills survived"
