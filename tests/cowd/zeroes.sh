#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# zeroes.sh [FORMAT...]: what write-zeroes did, and was acknowledged, stays when cowd dies at
# once, whether the blocks had been committed before or not; flushes succeed after it, and after a
# discard, and nothing of the old places is told to the daemon again.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

modprobe loop || die "no loop devices"
dev=/dev/mapper/mydev
file new 1048576

# is_zero WHAT: the MiB that is written in the tests.
is_zero()
{
	dd if=$dev bs=1M skip=1 count=1 iflag=direct status=none | cmp -s -n 1048576 - /dev/zero ||
		fail "$1: old data is there again"
}

# qcow has no counts of references, so what a discard gave up is lost space.
checked()
{
	local status=0
	cowimg check -f "$1" image >check.log || status=$?
	[ $status = 0 ] || [ "$1 $status" = "qcow 3" ] || fail "$1: check says $status: $(cat check.log)"
}

# after FORMAT SYNC: written, with SYNC between or not, zeroed, and cowd killed.
after()
{
	local format=$1 between=$2
	cowimg create --force -f "$format" image 64M >/dev/null || die "cowimg create $format"
	cowd -p "$format" mydev image || die "cowd"
	dd if=new of=$dev bs=1M seek=1 oflag=direct status=none || fail "write"
	[ -z "$between" ] || sync $dev
	blkdiscard --zeroout -o 1048576 -l 1048576 $dev || fail "blkdiscard --zeroout"
	kill_cowd both
	cowd --recover mydev || die "cowd --recover"
	is_zero "$format, written${between:+ and synced}, zeroed, cowd killed"
	dd if=new of=$dev bs=1M seek=3 oflag=direct status=none || fail "write"
	blkdiscard -o 3145728 -l 524288 $dev || fail "blkdiscard"
	sync $dev || fail "$format: a flush failed after a discard"
	cowctl stop mydev || fail "stop"
	cowd -p "$format" mydev image || die "cowd"
	dd if=$dev bs=512k skip=7 count=1 iflag=direct status=none | cmp -s - <(tail -c 524288 new) ||
		fail "$format: data beside a discard is gone"
	is_zero "$format, opened again"
	cowctl stop mydev || fail "stop"
	checked "$format"
}

[ $# -gt 0 ] || set -- qcow2 qcow vmdk
for format; do
	after "$format" ''
	after "$format" sync
done
nothing_left "zeroes"
