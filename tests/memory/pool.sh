#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# While the target waits for a flush of the device below it, it must not keep a worker
# of the pool that loop devices work in: these have no rescuer, and where there is no memory
# for one more worker, the flush waits for a loop device that waits for the flush.
#
#	tests/vm/run tests/memory/pool.sh
# shellcheck source=tests/memory/lib.sh
. "$(dirname "$0")/lib.sh"

# The names of the kernel's workers that are in the target's round.
in_round()
{
	local stack
	for stack in $(grep -ls dmu_round_work /proc/[0-9]*/stack); do
		cat "${stack%stack}comm" 2>/dev/null || :
	done
}

overlay_on_disks 64m
stamps write -v 2 -l 64k -b 64k -d $dev
dmsetup suspend --noflush image
sync $dev &
pid=$!
for ((i = 0; i < 200; i++)); do
	who=$(in_round)
	[ ! "$who" ] || break
	sleep 0.1
done
dmsetup resume image
wait $pid || die "the flush fails"
say "waits for the flush: ${who:-nobody}"
[ "$who" ] || die "no round was seen to wait"
! grep -q '^kworker/u' <<<"$who" ||
	die "it keeps a worker of the pool of the unbound, which loop devices need"
finish_on_disks
