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

# Says in $killed if there was one.
kill_all()
{
	local left i
	killed=0
	for ((i = 0; i < 100; i++)); do
		left=$(daemons)
		[ -n "$left" ] || return 0
		killed=1
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

# ms_of COMMAND...: how long it takes here, in $ms.
ms_of()
{
	local began=${EPOCHREALTIME/./}
	"$@" || die "$*: exit status $?"
	ms=$(((${EPOCHREALTIME/./} - began) / 1000 + 1))
}

ms_of cowd -p dscow mydev a.dscow
start_ms=$ms
ms_of cowctl stop mydev
stop_ms=$ms
in_start=0 in_stop=0
# As often as was asked for, and until each has been met.  Who came too late comes earlier next time.
for ((n = 1; n <= times || in_start == 0 || in_stop == 0; n++)); do
	[ $n -le $((10 * times)) ] || die "$in_start were killed in a start, $in_stop in a stop"
	cowd -p dscow mydev a.dscow 2>/dev/null &
	pause $((RANDOM % start_ms))
	kill_all
	if wait $!; then
		start_ms=$((start_ms * 3 / 4 + 1))
	else
		in_start=$((in_start + 1))
	fi
	serve "killed in start $n"
	cowctl stop mydev 2>/dev/null &
	pause $((RANDOM % stop_ms))
	kill_all
	if [ $killed = 0 ]; then
		stop_ms=$((stop_ms * 3 / 4 + 1))
	else
		in_stop=$((in_stop + 1))
	fi
	wait
	serve "killed in stop $n"
	cowctl stop mydev || fail "$n: cowctl stop: exit status $?"
	nothing_left "round $n"
done
dscow_tool -k a.dscow || fail "the overlay's check says $?"
echo "survived: $in_start kills before it served, $in_stop before it had ended, of $((n - 1)) each"
