#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Suspend and resume, with and without flushing, and the table loaded again, under
# a load that verifies all it reads, cowd serving.  (A device that grows: grow.sh.)
#	suspend.sh [--long | --times N] [--seed S]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
arguments "$@"
: "${times:=${long:+300}}" "${times:=20}"

export LOAD_ZEROES=1 LOAD_FRESH=4
overlay 64 16
cowd -p dscow mydev a.dscow || die "cowd"
load_start
for n in $(seq "$times"); do
	how=$((RANDOM % 4))
	began=${EPOCHREALTIME/./}
	case $how in
	0) timeout 60 dmsetup suspend mydev || fail "round $n: suspend" ;;
	1) timeout 60 dmsetup suspend --noflush mydev || fail "round $n: suspend --noflush" ;;
	2) dmsetup table mydev | timeout 60 dmsetup load mydev || fail "round $n: load"
	   timeout 60 dmsetup suspend --nolockfs mydev || fail "round $n: suspend --nolockfs" ;;
	3) dmsetup message mydev 0 evict || fail "round $n: evict"
	   timeout 60 dmsetup suspend --noflush --nolockfs mydev || fail "round $n: suspend" ;;
	esac
	suspended=$(((${EPOCHREALTIME/./} - began) / 1000))
	before=$(counted total)
	sleep 0.1
	[ "$(counted total)" -le $((before + 16)) ] || fail "round $n: I/O while suspended"
	timeout 60 dmsetup resume mydev || fail "round $n: resume"
	resumed=$(((${EPOCHREALTIME/./} - began) / 1000))
	sleep 0.2
	load_runs "round $n"
	[ "$(counted total)" -gt "$before" ] || fail "round $n: no I/O after resume"
	echo "round $n, kind $how: suspended after $suspended ms, resumed after $resumed ms, slowest I/O $(counted slowest_ms) ms"
	"$load" count state reset >/dev/null
done
load_stop
[ "$(counted zeroes)" -gt 0 ] || fail "no zeroes were written"
dmsetup status mydev
all_is_well
echo "$times times suspended and resumed, seed $seed"
