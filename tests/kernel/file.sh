#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Hits that go to a file below a loop device, on ext4 and on xfs.
# Arguments: names of tests (a '*' at the end matches all that begin so), --list.
. "$(dirname "$0")/common.sh"

modprobe brd rd_nr=1 rd_size=400000 || exit 2
work=$(mktemp -d)
status=0
# There a loop device itself writes to a file system that is frozen, which ext4 warns of.
if [ $# = 0 ] && [[ $(uname -r) == 6.1.* ]]; then
	mapfile -t tests < <(program file --list | grep -v ^frozen)
	set -- "${tests[@]}"
fi
for fs in ext4 xfs; do
	dmsetup create --noudevsync below --table "0 $(blockdev --getsz /dev/ram0) linear /dev/ram0 0" || exit 2
	"mkfs.$fs" -q /dev/mapper/below && mount -t "$fs" /dev/mapper/below "$work" || exit 2
	echo "# $fs"
	FILE_FS=$work program file "$@" || status=1
	umount "$work" || status=1
	dmsetup remove --noudevsync below || status=1
	wipefs -qa /dev/ram0
done
rmdir "$work"
leave $status
