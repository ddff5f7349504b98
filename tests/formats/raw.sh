#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# raw: reads, writes and refusals, against qemu-img.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img

for size in 512 64k 1049088 9m; do
	next_seed
	make_random "r$size" "$size" "$SEED"
	check "reads $size bytes" oracle_read raw "r$size"
	check "writes $size bytes" oracle_write raw "r$size" "$SEED" 100
	check "stopped, $size bytes" oracle_stop raw "r$size" "$SEED" 100
done
for block in 512 4k 16m; do
	next_seed
	check "writes in blocks of $block" \
		oracle_write raw r9m "$SEED" 60 raw -o "block-size=$block"
done

next_seed
make_random large 2t "$SEED"
check "writes 2 TiB" oracle_write raw large "$SEED" 100
check "stopped, 2 TiB" oracle_stop raw large "$SEED" 100
rm large

make_random odd 1000 "$SEED"
check "reads 1000 bytes" oracle_read raw odd
check "does not write 1000 bytes" expect_refused raw odd "whole sectors" -w
: >empty
check "reads an empty file" oracle_read raw empty
check "refuses a wrong block size" \
	expect_refused raw r64k "block-size=1000 is no power of two" -o block-size=1000
finish
