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
	sleep "0.$((3 + RANDOM % 5))"
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
