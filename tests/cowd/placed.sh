#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The example daemon: one device and two in turn, with a file system on each.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

placed=${DMU_BUILD_DIR:-$(dirname "$0")/../../build}/examples/placed
[ -x "$placed" ] || exit 77
modprobe brd rd_nr=2 rd_size=32768 || die "no RAM disks"
mkdir mnt

# serve NAME ARG...: make the device, use it, end it.
serve()
{
	local name=$1
	"$placed" "$@" &
	for _ in $(seq 100); do
		[ -e "/dev/mapper/$name" ] && break
		sleep 0.1
	done
	mkfs.ext4 -q "/dev/mapper/$name" || fail "$name: mkfs"
	mount "/dev/mapper/$name" mnt || fail "$name: mount"
	file mnt/file 5000000
	sum mnt/file >expected
	umount mnt
	fsck.ext4 -fn "/dev/mapper/$name" >fsck.log 2>&1 || fail "$name: $(cat fsck.log)"
	mount -r "/dev/mapper/$name" mnt
	sum mnt/file | cmp - expected || fail "$name: reads not what was written"
	umount mnt
	dmsetup status "$name"
	kill $!
	wait $! || fail "$name: exit status $?"
	nothing_left "$name"
}

serve linear /dev/ram0
# It was one device from the start: the same file system lies on it.
fsck.ext4 -fn /dev/ram0 >fsck.log 2>&1 || fail "linear is not linear"
for disk in /dev/ram0 /dev/ram1; do
	blkdiscard -f -z $disk || die "$disk is not empty"
done
serve striped /dev/ram0 /dev/ram1
for disk in /dev/ram0 /dev/ram1; do
	[ "$(tr -d '\0' <$disk | wc -c)" -gt 2000000 ] || fail "striped: $disk does not hold its half"
done
"$placed" wrong 2>err && fail "took a wrong command line"
[ "$(wc -l <err)" = 1 ] || fail "wrong command line: $(cat err)"
"$placed" wrong /dev/no-such 2>err && fail "took a missing device"
grep -q no-such err || fail "does not name the device: $(cat err)"
nothing_left "the end"
