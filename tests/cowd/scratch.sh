#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Blocks that were put together in a scratch file, because they are compressed, are read
# again and again while cowd is killed and started anew: its scratch file is empty, and no
# read finds that.
#	scratch.sh [--times N] [--seed S]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
arguments "$@"
: "${times:=5}"

mib=4

reads() { awk '{ print $1 }' "/sys/block/$dm/stat"; }

# All of it is in the new scratch file when it was read twenty times over.
warm_again()
{
	local from
	from=$(reads)
	for _ in $(seq 300); do
		[ "$(reads)" -lt $((from + 20 * mib * 64)) ] || return
		kill -0 $watch 2>/dev/null || return
		sleep 0.1
	done
	die "kill $n: too few reads after it"
}

"$load" fill plain $mib
qemu-img convert -c -O qcow2 plain image || die "qemu-img"
cowd -p qcow2 mydev image || die "cowd"
"$load" verify /dev/mapper/mydev - $mib || die "it does not read as it should"
dm=dm-$((0x$(stat -L -c %T /dev/mapper/mydev)))
"$load" watch /dev/mapper/mydev $mib &
watch=$!
for n in $(seq "$times"); do
	kill_cowd both
	before=$(reads)
	pause $((300 + RANDOM % 500))
	[ "$(reads)" -gt "$before" ] || fail "kill $n: nothing was read while it was dead"
	timeout 60 cowd --recover mydev || die "kill $n: --recover"
	warm_again
	kill -0 $watch 2>/dev/null || die "other data was read after kill $n"
done
echo "$times kills, $(reads) reads"
kill $watch
wait $watch || fail "other data was read"
cowctl stop mydev || fail "stop"
nothing_left "after all"

# What it holds is bounded, and what is thrown away is made again: under reads
# and writes of all of the disk, a kill in the middle included.
mib=16
scratch_kib() { awk '/^Shmem:/ { print $2 }' /proc/meminfo; }
emptied() { cowctl status --json mydev | jq '.. | .scratch_emptied? // empty'; }

"$load" fill plain $mib
qemu-img convert -c -O qcow2 plain image || die "qemu-img"
before=$(scratch_kib)
cowd -p qcow2 --scratch-size 1m mydev image || die "cowd --scratch-size"
"$load" verify /dev/mapper/mydev - $mib || fail "a full scratch file: it does not read as it should"
taken=$(($(scratch_kib) - before))
echo "$mib MiB read, emptied $(emptied) times, $taken KiB of shared memory"
[ "$(emptied)" -ge 4 ] || fail "emptied $(emptied) times for $mib MiB"
[ $taken -lt 4096 ] || fail "$taken KiB of shared memory"
"$load" run /dev/mapper/mydev state $mib $seed &
running=$!
by_reads=$(emptied)
sleep 4
again=$(($(emptied) - by_reads))
kill_cowd both
sleep 1
timeout 60 cowd --recover mydev || die "--recover"
sleep 4
kill $running
wait $running || fail "the load saw wrong data or an error"
"$load" verify /dev/mapper/mydev state || fail "written with a full scratch file: wrong data"
cowctl stop mydev || fail "stop"
# Killed while it gave space back, it may have lost some.
qemu-img check image || [ $? = 3 ] || fail "qemu-img check"
echo "emptied $again times in 4 s of load"
[ "$again" -ge 1 ] || fail "the load did not fill the scratch file"
nothing_left "bounded"
