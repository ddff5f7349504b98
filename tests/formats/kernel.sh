#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# kernel.sh FORMAT [--by qemu|us] [--size MIB] [--seconds S] [--seed N]
#	[--option NAME=VALUE] [--split]: a device of an image of FORMAT, in the test
#	machine. --split: of a VMDK whose disk is in two files, a descriptor names them
#
# The image is made by qemu-img (or by us); a file system on it is put under load,
# trimmed and unmounted. Then qemu-img check finds nothing, and qemu-img reads what
# the device read. After that the image is the base of an overlay in each format
# that can be one, with its own format named: the file system is found there and
# written, and the base does not change.
. "$(dirname "$(readlink -f "$0")")/../workload/lib.sh"

by=qemu
split=
options=()
format=${1:?"usage: kernel.sh FORMAT [OPTION...]"}
shift
rest=()
while [ $# -gt 0 ]; do
	case $1 in
	--by) by=$2; shift ;;
	--split) split=1 ;;
	--option) options+=(-o "$2"); shift ;;
	*) rest+=("$1") ;;
	esac
	shift
done
wl_start "runs a file system on it" --plugin "$format" --size 200 --seconds 4 ${rest[@]+"${rest[@]}"}
wl_need qemu-img
wl_need stress-ng
cd "$WL_DIR" || exit 1

# The name of qemu's driver; none for what qemu does not know.
qemu_format()
{
	case $1 in
	dscow) ;;
	vhd) echo vpc ;;
	*) echo "$1" ;;
	esac
}

# Two sparse files, as of a disk that is larger than 2 GiB.
make_split()
{
	local half
	for half in 1 2; do
		qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse "half$half.vmdk" "$((WL_SIZE / 2))M"
	done
	{
		sed '/^RW /d' half1.vmdk
		grep -h '^RW ' half1.vmdk half2.vmdk
	} >image
	grep -c '^RW .*SPARSE' image | grep -qx 2 || wl_die "the descriptor names no two files"
}

make_image()
{
	if [ -n "$split" ]; then
		make_split
		return
	fi
	if [ "$by" = qemu ] && [ -n "$(qemu_format "$format")" ]; then
		qemu-img create -q -f "$(qemu_format "$format")" ${options[@]+"${options[@]}"} \
			image "${WL_SIZE}M"
	elif [ "$format" = dscow ]; then
		truncate -s "${WL_SIZE}M" base
		cowimg create -f dscow ${options[@]+"${options[@]}"} -b base -F raw image
	else
		cowimg create -f "$format" ${options[@]+"${options[@]}"} image "${WL_SIZE}M"
	fi
}

# attach NAME FORMAT IMAGE
attach()
{
	WL_NAME=$1 DEV=/dev/mapper/$1
	# Nothing that an image names is written unless that is allowed.
	[ -z "$split" ] || [ "$3" != image ] || ! cowd -p "$2" "$1" "$3" || wl_die "cowd writes files that it was not allowed to"
	cowd -p "$2" ${split:+--allow-write "$WL_DIR"} "$1" "$3"
	[ -b "$DEV" ] || wl_die "cowd ended well, but there is no $DEV"
}

# check_image FORMAT IMAGE CONTENTS: no damage, no leak; and it reads as CONTENTS.
check_image()
{
	local driver status=0
	driver=$(qemu_format "$1")
	if [ -z "$driver" ]; then
		cowimg check -f "$1" "$2" || wl_die "cowimg check finds something in $2"
		cowimg convert --force -f "$1" -O raw "$2" plain
		qemu-img compare -f raw -F raw plain "$3" || wl_die "$2 does not read as the device"
		rm plain
		return
	fi
	qemu-img check -f "$driver" "$2" >check.log 2>&1 || status=$?
	# 63: the format has nothing to check.
	[ "$status" = 0 ] || [ "$status" = 63 ] || {
		cat check.log
		wl_die "qemu-img check $2 ends with $status"
	}
	qemu-img compare -f "$driver" -F raw "$2" "$3" || wl_die "$2 does not read as the device"
}

# What the device reads, into a sparse file, before it is stopped.
dump() { dd if="$DEV" of="$1" bs=1M conv=sparse status=none && truncate -s "$(blockdev --getsize64 "$DEV")" "$1"; }

load()
{
	wl_mount
	stress-ng --temp-path "$WL_MOUNT" --seed "$WL_SEED" --timeout "${WL_SECONDS}s" --verify \
		--hdd 1 --hdd-bytes 8m --dir 1 --rename 1 --fallocate 1 --fallocate-bytes 8m --quiet
	cp -r /etc/apt "$WL_MOUNT/kept-$1"
	dd if=/dev/urandom of="$WL_MOUNT/gone" bs=1M count=20 status=none
	sync
	rm "$WL_MOUNT/gone"
	fstrim "$WL_MOUNT" || wl_die "fstrim failed"
	wl_umount
	wl_fsck
}

# overlay FORMAT: over the image, which is of another format or not.
overlay()
{
	local sum
	sum=$(md5sum <image)
	cowimg create -f "$1" -b image -F "$format" "over.$1"
	attach over "$1" "over.$1"
	wl_mount
	diff -r /etc/apt "$WL_MOUNT/kept-base" || wl_die "the files of the base are not seen through $1"
	wl_umount
	load "$1"
	dump device.raw
	wl_stop
	[ "$sum" = "$(md5sum <image)" ] || wl_die "the base was changed under $1"
	check_overlay "$1"
	rm device.raw
	wl_say "$1 over $format is clean"
}

# qemu-img can read the chain when it knows the base by the name recorded.
check_overlay()
{
	if [ "$(qemu_format "$format")" = "$format" ]; then
		check_image "$1" "over.$1" device.raw
	else
		cowimg check -f "$1" "over.$1" || wl_die "over.$1 is damaged"
		cowimg convert -f "$1" -O raw "over.$1" plain
		qemu-img compare -f raw -F raw plain device.raw || wl_die "over.$1 does not read as the device"
		rm plain
	fi
}

overlays=0
can_overlay() { [ -e "$(pkg-config --variable=plugindir cow-plugin)/$1.la" ]; }

wl_say "$format by $by, $WL_SIZE MiB, seed $WL_SEED ${options[*]-}"
make_image
attach disk "$format" image
wl_mkfs
load base
dump device.raw
wl_stop
check_image "$format" image device.raw
rm device.raw
wl_say "$format is clean"
attach disk "$format" image
wl_fsck
wl_stop
for over in dscow qcow2; do
	can_overlay "$over" || continue
	overlay "$over"
	overlays=$((overlays + 1))
done
[ "$overlays" -gt 0 ] || wl_die "no format is there that can be an overlay"
! losetup -a | grep -F "$WL_DIR" || wl_die "a loop device is left"
wl_say "PASS $format"
