#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The privileged process of cowd is killed in the very moment when its worker needs it to
# make a file larger, for a place or for a commit: the worker tells nobody that it failed,
# and the write, or the flush, which the next daemon answers, succeeds.  All formats that
# give places behind the end.
#	orphan.sh [PLUGIN...]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

shim=$built/.libs/crash-at.so
[ -e "$shim" ] || die "$shim is not built"
file new 65536

call="ioctl LOOP_SET_CAPACITY"

write_block()
{
	dd if=new of=/dev/mapper/mydev bs=64k seek=70 oflag=direct conv="notrunc${1:-}" status=none
}

# waits_and_is_done WHAT: the background job that needs a daemon, and all that it wrote.
waits_and_is_done()
{
	all_end "$1"
	kill -0 $! || fail "$1: it did not wait for a daemon"
	timeout 60 cowd --recover mydev || die "$1: --recover"
	wait $! || fail "$1: it failed: exit status $?"
	dd if=/dev/mapper/mydev bs=64k skip=70 count=1 iflag=direct status=none | cmp new - ||
		fail "$1: reads wrong"
	cowctl stop mydev || fail "$1: cowctl stop: exit status $?"
	nothing_left "$1"
	check_overlay
	base_is_kept || fail "$1: the base was changed"
	echo "ok $SECONDS s: $1"
}

giving_a_place()
{
	overlay 8 4
	LD_PRELOAD=$shim CRASH_AT_CALL=$call cowd -p "$plugin" mydev "$image" || die "$plugin: cowd"
	write_block ,fsync &
	waits_and_is_done "$plugin: a place"
}

# The footer of a VHD that was not closed has to go behind all that was given.
committing()
{
	overlay 8 4
	LD_PRELOAD=$shim CRASH_AT_CALL="io_submit to write" cowd -p "$plugin" mydev "$image" ||
		die "$plugin: cowd"
	write_block
	all_end "$plugin: its first commit"
	write_block ,fsync &
	LD_PRELOAD=$shim CRASH_AT_CALL=$call cowd --recover mydev || die "$plugin: --recover"
	waits_and_is_done "$plugin: a commit"
}

[ $# -gt 0 ] || set -- qcow2 qcow vhd vmdk
for plugin in "$@"; do
	image=a.$plugin
	giving_a_place
	[ "$plugin" != vhd ] || committing
done
