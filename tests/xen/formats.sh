#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A disk of each format in domain 0, by lines of ours and of blktap: written through
# xen-blkback, read back, let go; then qemu-img reads from the image what was written.
# Blanks, colons and percent signs in its path are no trouble.
#
# formats.sh [FORMAT...]: only these
# shellcheck source=tests/xen/lib.sh
. "$(dirname "$0")/lib.sh"

mib=8
modprobe xen-blkfront || die "no xen-blkfront"
command -v qemu-img >/dev/null || die "no qemu-img"

# made FORMAT: its disk's line in $line, the image in $image, what it holds at first in model.
# A line of blktap names an image that is there; ours makes it over a base.
made()
{
	local place="$work/a disk: 100%" ours="$work/a%20disk%3A%20100%25"
	image=$place/disk.$1
	line=tap:$1:$image
	mkdir -p "$place"
	: >model
	truncate -s ${mib}M model
	case $1 in
	raw)
		line=tap:aio:$image
		cp model "$image"
		;;
	ram)
		image="/dev/shm/xen test"
		line=tap:ram:$image
		cp model "$image"
		;;
	qcow) qemu-img create -q -f qcow "$image" ${mib}M || die "qemu-img" ;;
	vhd) qemu-img create -q -f vpc "$image" ${mib}M || die "qemu-img" ;;
	vmdk)
		head -c ${mib}M /dev/urandom >model
		qemu-img convert -f raw -O vmdk model "$image" || die "qemu-img"
		;;
	dscow | qcow2)
		head -c ${mib}M /dev/urandom >"$place/base.img"
		cp "$place/base.img" model
		line=dmu:$1:$ours/disk.$1:$ours/base.img
		;;
	*) die "$1: is none of the formats" ;;
	esac
}

# Blocks of several sizes and places, into the disk and into the model.
written()
{
	local place
	for place in 0 1 37 300 511 1200 $((mib * 256 - 20)); do
		head -c $((4096 * (place % 20 + 1))) /dev/urandom >new
		dd if=new of=/dev/xvdd bs=4k seek="$place" oflag=direct conv=notrunc status=none ||
			die "$1: write at block $place"
		dd if=new of=model bs=4k seek="$place" conv=notrunc status=none
	done
}

# The image without us; dscow is a format that qemu does not know.
read_by_others()
{
	case $1 in
	dscow)
		dscow_tool -k "$image" || fail "dscow: the overlay's check says $?"
		cowimg convert -f dscow -O raw "$image" out || die "cowimg convert"
		;;
	raw | ram) cp "$image" out ;;
	vhd) qemu-img convert -f vpc -O raw "$image" out || die "vhd: qemu-img says $?" ;;
	qcow) qemu-img convert -f qcow -O raw "$image" out || die "qcow: qemu-img says $?" ;;
	*)
		qemu-img check -q -f "$1" "$image" || fail "$1: qemu-img's check says $?"
		qemu-img convert -f "$1" -O raw "$image" out || die "$1: qemu-img says $?"
		;;
	esac
	cmp -n "$(stat -c %s model)" model out || fail "$1: others read something else"
}

attached()
{
	local size
	made "$1"
	dmu-xl block-attach 0 "$line,xvdd,w" || die "block-attach $line"
	until_true 60 test -b /dev/xvdd || die "$1: no /dev/xvdd"
	size=$(blockdev --getsize64 /dev/xvdd)
	[ "$size" -ge $((mib << 20)) ] || fail "$1: $size bytes"
	cmp -n $((mib << 20)) model /dev/xvdd || fail "$1: reads other data at first"
	written "$1"
	echo 3 >/proc/sys/vm/drop_caches
	cmp -n $((mib << 20)) model /dev/xvdd || fail "$1: reads other data than were written"
	xl block-detach 0 xvdd || fail "$1: block-detach"
	until_true 60 test ! -b /dev/xvdd || fail "$1: detached, and /dev/xvdd is there"
	nothing_left "$1"
	rm -f out
	read_by_others "$1"
	rm -rf "$image" "${work:?}/a disk: 100%"
	ok "$1 in domain 0: $line"
}

[ $# -gt 0 ] || set -- raw ram dscow qcow qcow2 vmdk vhd
for format; do
	attached "$format"
done
