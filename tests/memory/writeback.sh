#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Dirty pages of two and a half (long: ten) times the memory are written back to a device whose
# daemon has to be asked, and must itself get by with what memory is left. Then as much as the
# memory (long: four times) to a qcow2 whose tables do not fit into its cache, while what the
# kernel remembers is forgotten again and again: each run of blocks is a question, and each
# question a table to read.
#
#	tests/vm/run --memory 400 tests/memory/writeback.sh
#	tests/vm/run --memory 400 --timeout 1200 tests/memory/writeback.sh --long
#
# Nothing may hang (the machine's watchdog reports 60 seconds), and all data is right.
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"

total=$(small_memory)
mib=$((total * (long ? 20 : 5) / 2 / 64 * 64))

overlay $((2 * mib))m
# As many dirty pages as there is room for.
echo 60 >/proc/sys/vm/dirty_ratio
echo 50 >/proc/sys/vm/dirty_background_ratio

say "whole blocks"
cold
stamps write -v 2 -s 0 -l ${mib}m -b 256k -f $dev
locked
say "$mib MiB written, $(counter overwrites) blocks whole, $(counter copies) copied"

# One page of every block, and not the first, where the base has its stamps: each block is
# asked for, copied and written.
say "one page of each block"
cold
stamps write -v 3 -s $((mib * 1024 + 4))k -l $((mib / 4))m -t 64k -f $dev
locked
say "$(counter copies) blocks copied, $(counter copy_errors) errors"
[ "$(counter copies)" -ge $((mib * 4)) ] || die "too few copies"

cold
stamps verify -v 2 -s 0 -l ${mib}m -b 256k $dev
stamps verify -v 3 -s $((mib * 1024 + 4))k -l $((mib / 4))m -t 64k -d $dev
# What the copies brought along, and what nobody wrote to.
stamps verify -v 1 -s ${mib}m -l $((mib / 4))m -t 1m -d $dev
stamps verify -z -s $((mib * 1024 + 8))k -l $((mib / 4))m -t 64k -d $dev
stamps verify -v 1 -s $((mib + mib / 4))m -t 1m -d $dev
! stamps verify -v 2 -s ${mib}m -l 1m $dev 2>/dev/null || die "verify sees nothing"
say "verified"

if [ "$long" ]; then
	mkfs.ext4 -q -F $dev
	mkdir mnt
	mount $dev mnt
	for i in 1 2 3 4; do
		truncate -s 512m mnt/f$i
		stamps write -v 1$i -b 64k mnt/f$i &
	done
	wait
	cold
	for i in 1 2 3 4; do
		stamps verify -v 1$i -b 64k mnt/f$i
	done
	umount mnt
	say "2 GiB in four files"
fi
finish

say "questions"
mib=$((total * (long ? 4 : 1) / 64 * 64))
truncate -s ${mib}m base
cowimg create -f qcow2 -b base -F raw -s 4k image2 >/dev/null
cowd -p qcow2 --cache-size 1m mydev image2
# Tables for all of it, so that there is something to read.
stamps write -v 4 -t 2m -d -f $dev
cold
asked=$(counter events)
touch writing
while [ -e writing ]; do
	dmsetup message mydev 0 evict
	sleep 0.1
done &
stamps write -v 5 -b 256k -f $dev
rm writing
wait
locked
asked=$(($(counter events) - asked))
say "$mib MiB written, cowd was asked $asked times"
# Most of what is written is asked for while nearly all memory is dirty.
[ "$asked" -ge 4 ] || die "cowd was hardly asked"
cold
stamps verify -v 5 -b 256k $dev
dmsetup status mydev
cowctl stop mydev
qemu-img check -q image2 || die "qemu-img finds fault with the image"
