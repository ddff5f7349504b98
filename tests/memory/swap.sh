#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Swap on a device of cowd: to free memory, the kernel needs the daemon. Image and base are on
# block devices: with a file below, loop and the file system need memory to write, and
# the kernel hangs, as it does with swap on a loop device alone.
#
#	tests/vm/run --memory 400 tests/memory/swap.sh
#	tests/vm/run --memory 400 --timeout 1200 tests/memory/swap.sh --long
#
# A program uses a quarter (long: half) as much again as there is and verifies it; nothing
# hangs, nothing is killed for want of memory, and no page of cowd is swapped.
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"

total=$(small_memory)
use=$((total * (long ? 6 : 5) / 4))

swapped()
{
	awk '/^SwapTotal/ { t = $2 } /^SwapFree/ { print int((t - $2) / 1024) }' /proc/meminfo
}

# cowd's stay, while everything else has to go.
watch()
{
	local most=0 now
	while [ -e eating ]; do
		(locked) || { touch failed; return; }
		now=$(swapped)
		[ "$now" -le "$most" ] || { most=$now; echo "$most" >most; }
		sleep 2
	done
}

overlay_on_disks 768m
mkswap $dev >/dev/null
echo 100 >/proc/sys/vm/swappiness
cold
swapon $dev
touch eating
watch &
eat $use $((long ? 6 : 1))
rm eating
wait
[ ! -e failed ] || die "cowd can be swapped"
say "$use MiB used of $total, at most $(cat most) MiB in swap"
[ "$(cat most)" -ge $((use - total)) ] || die "so little was swapped that nothing was tried"

# The same with the map forgotten again and again, so that swapping asks.
touch eating
watch &
while [ -e eating ]; do
	dmsetup message mydev 0 evict
	sleep 0.2
done &
asked=$(counter events)
eat $use $((long ? 3 : 1))
rm eating
wait
[ ! -e failed ] || die "cowd can be swapped"
asked=$(($(counter events) - asked))
say "and with the map forgotten five times a second: $asked questions"
[ "$asked" -ge 5 ] || die "cowd was hardly asked"
if dmesg | grep -i "out of memory\|invoked oom-killer"; then
	die "something was killed"
fi
swapoff $dev
finish_on_disks
