#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The remembered map of an image of 4 TiB stays within a budget far below what all
# of it would take, shrinks when the kernel wants memory, and is never wrong.
#
#	tests/vm/run tests/memory/budget.sh [--long]
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"

places=$((long ? 4096 : 256))
stride=$((4 * 1024 * 1024 / places))m	# 4 TiB / places
budget=$((2 << 20))	# all of it would take 16 MiB in bits alone

asked() { cowctl status --json mydev | tr -d ' \n' | grep -o "\"$1\":[0-9]*" | cut -d : -f 2; }

within()
{
	local bytes max
	bytes=$(counter map_bytes) max=$(counter map_budget)
	[ "$max" = $budget ] || die "$1: the budget is $max bytes, not $budget"
	[ "$bytes" -le "$max" ] || die "$1: $bytes bytes of map, the budget is $max"
	say "$1: $bytes bytes of $max, $(counter extents) extents, $(counter evictions) evictions," \
		"$(asked map) questions, $(asked refused) answers refused"
}

# The shrinker is called as under pressure: nothing but what is uncommitted stays.
shrink()
{
	local before i
	sync
	before=$(counter map_bytes)
	for i in $(seq 20); do
		echo 2 >/proc/sys/vm/drop_caches
	done
	[ "$(counter map_bytes)" -lt $((before / 2)) ] ||
		die "$before bytes of map shrank to $(counter map_bytes) only"
	say "shrank from $before to $(counter map_bytes) bytes"
}

truncate -s 4t base
stamps write -v 1 -t $stride -f base
dscow_tool -c image base >/dev/null
cowd -p dscow --map-memory $((budget >> 20))m mydev image

stamps verify -v 1 -t $stride -d $dev
within "all places read"
# The first write to a block copies it: the second page is written, the first is copied.
stamps write -v 2 -s 4k -t $stride -d -f $dev
within "all places written"
[ "$(counter evictions)" -gt 0 ] || die "nothing had to be forgotten: the image is too small"
stamps verify -v 1 -t $stride -d $dev
stamps verify -v 2 -s 4k -t $stride -d $dev
within "verified"
shrink
stamps verify -v 1 -t $stride -d $dev
stamps verify -v 2 -s 4k -t $stride -d $dev
within "verified after shrinking"

# Shrinking while it is in use.
touch shrinking
while [ -e shrinking ]; do
	echo 2 >/proc/sys/vm/drop_caches
	sleep 0.2
done &
stamps write -v 3 -s 8k -t $stride -d -f $dev
stamps verify -v 3 -s 8k -t $stride -d $dev
stamps verify -v 2 -s 4k -t $stride -d $dev
stamps verify -v 1 -t $stride -d $dev
rm shrinking
wait
within "verified while shrinking"

# A smaller budget at run time is kept as well.
budget=$((256 << 10))
dmsetup message mydev 0 map_memory $((budget >> 10))
stamps verify -v 3 -s 8k -t $stride -d $dev
within "256 KiB"
# How much fits is learnt, not found out by each question again.
[ $(($(asked refused) * 4)) -lt "$(asked map)" ] || die "too many answers were refused"
dmsetup status mydev
cowctl stop mydev
dscow_tool -k image
stamps verify -v 1 -t $stride base
