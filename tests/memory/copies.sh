#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Writeback sends single pages, each to a block of its own, and the base is slow: what
# the copies of these blocks take of the memory has a limit.
#
#	tests/vm/run tests/memory/copies.sh
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"
blocks=3200 limit_kib=$((48 << 10))	# of 64 KiB: 200 MiB if all were copied at once

free_kib() { awk '/^MemFree/ { print $2 }' /proc/meminfo; }

# waiting N: so many bios wait now
waiting()
{
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$(counter waiting)" != "$1" ] || return 0
		sleep 0.1
	done
	dmsetup resume slow	# else nothing here would end
	die "$(counter waiting) bios wait, not $1"
}

truncate -s 256m base
stamps write -v 1 -t 1m -f base
loop=$(losetup -f --show base)
dmsetup create slow --table "0 $((256 << 11)) linear $loop 0"
dscow_tool -c image /dev/mapper/slow >/dev/null
cowd -p dscow --allow-backing /dev mydev image
stamps verify -v 1 -s 255m -t 1m $dev
dmsetup suspend slow
before=$(free_kib)
# The second page of each: the base has its stamps in the first.
stamps write -v 2 -s 4k -l $((blocks * 64))k -t 64k -f $dev &
waiting $blocks
took=$((before - $(free_kib)))
dmsetup resume slow
wait $!
say "$took KiB less are free while $blocks blocks wait for their copies"
[ $took -lt $limit_kib ] || die "more than $limit_kib KiB"
[ "$(counter copies)" = $blocks ] || die "$(counter copies) copies"
cold
stamps verify -v 2 -s 4k -l $((blocks * 64))k -t 64k -d $dev
stamps verify -v 1 -l $((blocks * 64))k -t 1m -d $dev
stamps verify -z -s 8k -l $((blocks * 64))k -t 64k -d $dev
finish image /dev/mapper/slow
dmsetup remove slow
losetup -d "$loop"
