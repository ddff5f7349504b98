#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# no-zeroes.sh: the image lies on FAT, which cannot punch holes, but its loop device says
# that it writes zeroes by itself.  A first write to a part of a block of an image without
# a base has zeroes around it all the same, also in space that held something else.
# shellcheck source=tests/crash/lib.sh
. "$(dirname "$0")/../crash/lib.sh"

setup()
{
	need_module loop
	need_module vfat
	need mkfs.vfat
	begin
	mkdir "$store/mnt"
	cd "$work"
	truncate -s 64M "$store/fat"
	mkfs.vfat "$store/fat" >/dev/null
	mount -t vfat -o loop "$store/fat" "$store/mnt" || skip "FAT cannot be mounted"
}

# The device that the image of x is served through promises what the file system refuses.
check_promise()
{
	local dev zeroes

	for dev in $(dmsetup deps -o blkdevname x | grep -o 'loop[0-9]*'); do
		zeroes=$(cat "/sys/block/$dev/queue/write_zeroes_max_bytes")
		[ "$zeroes" = 0 ] || return 0
	done
	skip "no loop device of x says that it writes zeroes"
}

one()
{
	local format=$1 image=$store/mnt/$1 size

	cowimg create -f "$format" new 16m	# on FAT it wants a link
	cp new "$image"
	rm new
	cowd -p "$format" x "$image"
	check_promise
	# FAT zeroes what it adds to a file: all that is used below was used before.
	dd if=/dev/urandom of=/dev/mapper/x bs=1M count=16 iflag=fullblock oflag=direct conv=fsync status=none
	blkdiscard -z /dev/mapper/x
	sync /dev/mapper/x
	size=$(stat -c %s "$image")
	head -c 16777216 /dev/zero >want
	cmp want /dev/mapper/x || die "$format: what was zeroed reads differently"
	for block in 3 100 101; do
		dd if=/dev/urandom of=data bs=4k count=1 status=none
		dd if=data of=want bs=4k seek=$((block * 16 + 5)) conv=notrunc status=none
		dd if=data of=/dev/mapper/x bs=4k seek=$((block * 16 + 5)) oflag=direct status=none ||
			die "$format: a first write of 4 KiB fails"
	done
	sync /dev/mapper/x || die "$format: the flush fails"
	[ "$(stat -c %s "$image")" = "$size" ] || die "$format: takes new space, where nothing was"
	[ "$(counter copies) $(counter copy_errors)" = "3 0" ] || die "$format: not copied: $(dmsetup status x)"
	cmp want /dev/mapper/x || die "$format: it reads differently"
	cowctl stop x
	cowd -p "$format" x "$image"
	cmp want /dev/mapper/x || die "$format: it reads differently when served again"
	cowctl stop x
	check_image "$image" "$format"
	say "$format: 3 first writes of a part of a block"
}

setup
one qcow2
one vmdk
