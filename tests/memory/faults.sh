#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Allocations and block requests that fail, in the kernel that can make them fail:
#
#	tests/vm/run --kernel debug tests/memory/faults.sh [--long]
#
# No crash and no complaint; an error only where one is allowed; then all works.
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"

inject=/sys/kernel/debug
mountpoint -q $inject || mount -t debugfs none $inject
[ -d $inject/failslab ] || {
	echo "SKIP: no fault injection in this kernel: want --kernel debug"
	exit 77
}

# set_up FAULT PROBABILITY TIMES TASK_FILTER
set_up()
{
	echo "$2" >$inject/"$1"/probability
	echo 1 >$inject/"$1"/interval
	echo "$3" >$inject/"$1"/times
	echo "$4" >$inject/"$1"/task-filter
	echo 0 >$inject/"$1"/verbose
	[ ! -e $inject/"$1"/ignore-gfp-wait ] || echo N >$inject/"$1"/ignore-gfp-wait
}

# All workers of the kernel: those of device-mapper, loop and the target are among them.
kworkers()
{
	local pid
	for pid in $(pgrep 'kworker|loop|kcopyd'); do
		echo "$1" >/proc/"$pid"/make-it-fail 2>/dev/null || :
	done
}

# Cleaning up needs memory as well.
no_faults()
{
	local status=$?
	kworkers 0
	set_up failslab 0 0 Y
	set_up fail_make_request 0 0 N
	return $status
}
trap 'no_faults; cleanup' EXIT

modprobe brd rd_nr=1 rd_size=16384
dd if=/dev/zero of=/dev/ram0 bs=1M count=16 status=none	# all its pages are there

say "each allocation in turn (short: each 61st)"
set_up failslab 0 0 Y
nth /dev/ram0 $((long ? 1 : 61))

# Hits allocate from pools only: no error at all.
say "failslab under hits"
cowd -p raw mydev /dev/ram0
stamps write -v 1 -d -f $dev
set_up failslab 20 $((long ? 100000 : 5000)) Y
kworkers 1
stamps write -v 2 -b 16k -d -i $dev
stamps verify -v 2 -b 16k -d -i $dev
kworkers 0
left=$(cat $inject/failslab/times)
set_up failslab 0 0 Y
say "$(((long ? 100000 : 5000) - left)) allocations failed, and no bio"
[ "$left" -lt $((long ? 100000 : 5000)) ] || die "none failed"
stamps verify -v 2 -d $dev
cowctl stop mydev

# First writes, copies and commits; below them loop and ext4 may fail.
say "failslab under first writes"
size=$((long ? 32 : 8))m
overlay $size --by-loop	# else the loop devices, which are to fail, have little to do
truncate -s $size full
set_up failslab 10 $((long ? 50000 : 1000)) Y
kworkers 1
stamps write -v 2 -s 4k -t 64k -d -f -e -i $dev
kworkers 0
left=$(cat $inject/failslab/times)
set_up failslab 0 0 Y
[ "$left" -lt $((long ? 50000 : 1000)) ] || die "no allocation failed"
cold
stamps verify -v 2 -s 4k -t 64k -d $dev
stamps verify -v 1 -t 1m -d $dev
say "$(counter copies) copied, $(counter copy_errors) errors"

say "fail_make_request below"
for loop in /sys/block/loop*; do
	[ -e "$loop"/loop/backing_file ] || continue
	echo 1 >"$loop"/make-it-fail
done
set_up fail_make_request 10 $((long ? 2000 : 100)) N
stamps write -v 3 -s 8k -t 64k -d -f -e $dev
stamps verify -v 3 -s 8k -t 64k -d -e $dev
left=$(cat $inject/fail_make_request/times)
set_up fail_make_request 0 0 N
say "$(((long ? 2000 : 100) - left)) requests failed"
[ "$left" -lt $((long ? 2000 : 100)) ] || die "none failed"
cold
stamps verify -v 3 -s 8k -t 64k -d $dev
stamps verify -v 2 -s 4k -t 64k -d $dev
stamps verify -v 1 -t 1m -d $dev
finish
