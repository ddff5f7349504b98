#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A question whose table has to be read from slow storage holds up no other: the table of
# one half of a qcow2 image answers after twenty seconds, that of the other half at once.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

modprobe loop && modprobe dm-delay || die "no loop devices, or no dm-delay"
half=$((64 * 1024 * 1024)) sectors=$((32 * 1024 * 1024 / 512))

# number OFFSET: 8 bytes of the image, the first one the highest
number() { od -An -t u8 --endian=big -j "$1" -N 8 image | tr -d ' '; }

# table_at OFFSET-OF-DISK: sector of the L2 table, which holds 2 MiB of clusters of 4 KiB
table_at() { echo $((($(number $(($(number 40) + $1 / 2097152 * 8))) & 0xfffffffffffe00) / 512)); }

file data $((2 * 1024 * 1024))
qemu-img create -q -f qcow2 -o cluster_size=4k image $((2 * half))
# Apart by two megabytes: no table is read ahead with the other.
for at in 0 $half; do
	qemu-io -f qcow2 -c "write -q -s data $at 2M" image || die "qemu-io"
done
slow=$(table_at $half) quick=$(table_at 0)
[ "$slow" -gt "$quick" ] && [ "$quick" -gt 0 ] || die "the tables are at sectors $quick and $slow"
truncate -s $((sectors * 512)) image
loop=$(losetup -f --show image)
dmsetup create store --table "0 $slow linear $loop 0
$slow 8 delay $loop $slow 20000
$((slow + 8)) $((sectors - slow - 8)) linear $loop $((slow + 8))"

cowd -p qcow2 mydev /dev/mapper/store || die "cowd"
dd if=/dev/mapper/mydev of=late bs=1M skip=64 count=2 iflag=direct status=none &
late=$!
sleep 1
kill -0 $late 2>/dev/null || fail "the slow table was read at once: nothing is tried"
dd if=/dev/mapper/mydev bs=1M count=2 iflag=direct status=none | cmp - data || fail "reads wrong"
kill -0 $late 2>/dev/null || fail "a question of the other half waited for the slow table"
wait $late || fail "the slow half cannot be read"
cmp late data || fail "the slow half reads wrong"
cowctl stop mydev || fail "cowctl stop"
dmsetup remove store
losetup -d "$loop"
nothing_left "the end"
