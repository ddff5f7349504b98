#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Who writes, closes and removes the device without a flush finds in the image what it
# wrote: the kernel tells cowd of what was copied, and cowd commits it.  Formats that
# delegate all at once, and that give out places.
#	removed.sh [PLUGIN...]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

file new 1048576

# cowd commits by itself every five seconds, which may come between the writes and the
# removal: so blocks are written until one is uncommitted, at most eight.
leave_uncommitted()
{
	local i
	for ((i = at / 16 + 8; i < at / 16 + 16; i++)); do
		dmsetup status mydev | grep -q ' uncommitted [1-9]' && return
		dd if=new of=model bs=64k seek=$i count=1 conv=notrunc status=none
		dd if=new of=/dev/mapper/mydev bs=64k seek=$i count=1 oflag=direct conv=notrunc status=none
	done
	die "$plugin: all was committed too early"
}

# gone_by HOW COMMAND...: parts of blocks and whole ones, old ones and new ones.
gone_by()
{
	local how=$1
	shift
	dd if=new of=model bs=4k seek=$((at + 3)) count=8 conv=notrunc status=none
	dd if=new of=model bs=64k seek=$((at / 16 + 4)) count=3 conv=notrunc status=none
	cowd -p "$plugin" mydev "$image" 2>>log || die "$plugin: cowd"
	dd if=new of=/dev/mapper/mydev bs=4k seek=$((at + 3)) count=8 oflag=direct conv=notrunc status=none
	dd if=new of=/dev/mapper/mydev bs=64k seek=$((at / 16 + 4)) count=3 oflag=direct conv=notrunc status=none
	leave_uncommitted
	"$@" || fail "$plugin: $how: exit status $?"
	all_end "$plugin: $how"
	nothing_left "$plugin: $how"
	check_overlay
	cowimg convert --force -f "$plugin" -O raw "$image" read || fail "$plugin: convert"
	cmp model read || fail "$plugin: $how: what was written is not there"
	at=$((at + 256))
	echo "ok $SECONDS s: $plugin: $how"
}

# An error table, as dmsetup remove --force loads it, takes the place of the only one.
replace()
{
	dmsetup load mydev --table "0 16384 error" && dmsetup suspend --noflush --nolockfs mydev &&
		dmsetup resume mydev && all_end replace && cowctl stop mydev
}

[ $# -gt 0 ] || set -- dscow qcow2 qcow vhd vmdk
for plugin in "$@"; do
	image=a.$plugin at=0
	overlay 8 4
	cp base.img model
	gone_by "dmsetup remove" dmsetup remove mydev
	gone_by "another table" replace
	gone_by "cowctl stop" cowctl stop mydev
	base_is_kept || fail "$plugin: the base was changed"
done
