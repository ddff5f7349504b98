#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# dscow: qemu-img does not know it, so the base it reads is what we compare with.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
DSCOW_TOOL=$(built tools/dscow_tool)
COWIMG=$(built tools/cowimg)

# Whatever was written to the overlay, the base is as it was.
overlay()
{
	local size=$1 block=$2 seed=$3
	make_random base "$size" "$seed" && cp base kept && cp base mirror &&
		truncate -s $((($(stat -c %s base) + 511) / 512 * 512)) mirror &&
		"$DSCOW_TOOL" --force -b "$block" -c ov base &&
		"$IMAGE_IO" load dscow ov mirror "$seed" 150 &&
		"$DSCOW_TOOL" -k ov && same_contents base kept &&
		"$IMAGE_IO" read dscow ov ours && same_contents ours mirror &&
		"$IMAGE_IO" load --no-commit dscow ov mirror "$seed" 100 &&
		"$DSCOW_TOOL" -k ov &&
		"$IMAGE_IO" read dscow ov ours && "$IMAGE_IO" between ours mirror mirror.now
}

# A block that lies in more tables of the base than one request may hold, with one
# cluster of WRITE in each.
over_many_tables()
{
	local i
	qemu-img create -q -f qcow2 -o cluster_size=512 many 16M &&
		for ((i = 0; i < 512; i++)); do
			echo "write $1 $((i * 32768 + i % 64 * 512)) 512"
		done | qemu-io -f qcow2 many >/dev/null &&
		[ "$(stat -c %s many)" -gt $((512 * 512)) ] &&
		qemu-img convert -f qcow2 -O raw many mirror &&
		"$COWIMG" create --force -f dscow -s 16M -b many -F qcow2 ov2 &&
		"$IMAGE_IO" read dscow ov2 ours && same_contents ours mirror
}

for size in 512 1000 5000k 33m; do
	for block in 4k 64k; do
		next_seed
		check "overlay of $size, blocks of $block" overlay "$size" "$block" "$SEED"
	done
done
check "a block over 512 tables with data" over_many_tables "-P 7"
check "a block over 512 tables of zeroes" over_many_tables -z
poke ov 0 'XXXX'
check "refuses a wrong magic" expect_refused dscow ov "no dscow image"
finish
