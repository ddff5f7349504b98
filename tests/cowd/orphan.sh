#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The privileged process of cowd is killed in the very moment when its worker needs it to
# make a file larger: the worker tells nobody that it failed, and the write, which the
# next daemon answers, succeeds.  All formats that give places behind the end.
#	orphan.sh [PLUGIN...]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

shim=$built/.libs/crash-at.so
[ -e "$shim" ] || die "$shim is not built"

killed_in_between()
{
	overlay 8 4
	LD_PRELOAD=$shim CRASH_AT_CALL="ioctl LOOP_SET_CAPACITY" cowd -p "$plugin" mydev "$image" ||
		die "$plugin: cowd"
	file new 65536
	dd if=new of=/dev/mapper/mydev bs=64k seek=70 oflag=direct conv=notrunc,fsync status=none &
	for _ in $(seq 300); do
		[ -n "$(daemons)" ] || break
		sleep 0.1
	done
	[ -z "$(daemons)" ] || die "$plugin: nobody was killed"
	kill -0 $! || fail "$plugin: the write did not wait for a daemon"
	timeout 60 cowd --recover mydev || die "$plugin: --recover"
	wait $! || fail "$plugin: the write failed: exit status $?"
	dd if=/dev/mapper/mydev bs=64k skip=70 count=1 iflag=direct status=none | cmp new - ||
		fail "$plugin: reads wrong"
	cowctl stop mydev || fail "$plugin: cowctl stop: exit status $?"
	nothing_left "$plugin"
	check_overlay
	base_is_kept || fail "$plugin: the base was changed"
	echo "ok $SECONDS s: $plugin"
}

[ $# -gt 0 ] || set -- qcow2 qcow vhd vmdk
for plugin in "$@"; do
	image=a.$plugin
	killed_in_between
done
