#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Discard and write-zeroes: they never make data of the base appear, the file
# system over them stays whole, and a device that somebody else removes ends
# its cowd.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

modprobe loop || die "no loop devices"
file base.img 67108864
before=$(sum base.img)
dscow_tool -c a.dscow base.img >/dev/null || die "dscow_tool"
cowd -p dscow mydev a.dscow || die "cowd"
dev=/dev/mapper/mydev

# zero_or NAME FILE: DEV from byte 1 MiB, 4 MiB long, is all zeroes, or FILE.
zero_or()
{
	dd if=$dev bs=1M skip=1 count=4 iflag=direct status=none >got
	cmp -s -n 4194304 got /dev/zero || cmp -s got "$2" || fail "$1: neither zeroes nor what was written"
}

file new 4194304
dd if=new of=$dev bs=1M seek=1 oflag=direct conv=fsync status=none
full=$(stat -c %b a.dscow)
blkdiscard -o 1048576 -l 4194304 $dev || fail "blkdiscard"
# The space is given back below: half of it at least, in sectors.
[ "$(stat -c %b a.dscow)" -le $((full - 4096)) ] || fail "a discard gives no space back: $full sectors, then $(stat -c %b a.dscow)"
zero_or "discard of written blocks" new
blkdiscard --zeroout -o 1048576 -l 4194304 $dev || fail "blkdiscard --zeroout"
dd if=$dev bs=1M skip=1 count=4 iflag=direct status=none | cmp -n 4194304 - /dev/zero ||
	fail "zeroed blocks are not zero"
# Blocks that were never written, whole and in part.
blkdiscard --zeroout -o 16777216 -l 4198400 $dev || fail "blkdiscard --zeroout"
dd if=$dev bs=4096 skip=4096 count=1025 iflag=direct status=none | cmp -n 4198400 - /dev/zero ||
	fail "zeroed base blocks are not zero"
dd if=$dev bs=4096 skip=5121 count=10 iflag=direct status=none |
	cmp - <(dd if=base.img bs=4096 skip=5121 count=10 status=none) || fail "zeroed too much"

mkfs.ext4 -q -F $dev || fail "mkfs"
mkdir mnt
mount -o discard $dev mnt || die "mount"
for i in 1 2 3; do
	file mnt/file$i 3000000
	sum mnt/file$i >sum$i
done
rm mnt/file2
sync mnt
fstrim mnt || fail "fstrim"
sum mnt/file3 | cmp - sum3 || fail "file damaged by a discard"
umount mnt
cowctl status mydev
cowctl stop mydev || fail "stop"
cowd -p dscow mydev a.dscow || die "cowd"
fsck.ext4 -fn $dev >fsck.log 2>&1 || fail "fsck: $(cat fsck.log)"
mount $dev mnt
sum mnt/file3 | cmp - sum3 || fail "file lost"
sum mnt/file1 | cmp - sum1 || fail "file lost"
umount mnt

sync
dmsetup remove mydev || fail "dmsetup remove"
for _ in $(seq 100); do
	[ -z "$(daemons)" ] && break
	sleep 0.1
done
nothing_left "removed by somebody else"
dscow_tool -k a.dscow || fail "check says $?"
[ "$(sum base.img)" = "$before" ] || fail "the base was changed"
