#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowd is killed in either of its two processes: reads, overwrites and delegated copies
# go on, --recover serves the device again, nothing is lost.  (Under a load: kill-100.sh.)
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

modprobe loop || die "no loop devices"
file base.img 32000000
dscow_tool -c a.dscow base.img >/dev/null || die "dscow_tool"
cp base.img model
cowd -p dscow mydev a.dscow || die "cowd"

write_both()
{
	dd if=new of=/dev/mapper/mydev bs=64k seek="$1" conv=notrunc oflag=direct status=none ||
		fail "write at block $1"
	dd if=new of=model bs=64k seek="$1" conv=notrunc status=none
}

file new 1048576
write_both 0
for who in pid worker; do
	kill -9 "$(of_json $who </run/cowd/mydev.json)"
	for _ in $(seq 100); do
		[ -z "$(daemons)" ] && break
		sleep 0.1
	done
	[ -z "$(daemons)" ] || fail "kill of $who: $(daemons) lives on"
	[ "$(cowctl list | awk '{ print $2 }')" = dead ] || fail "cowctl list does not say dead"
	cowctl status mydev | grep -q dead || fail "cowctl status does not say dead"
	# Reads, overwrites and first writes, by the kernel alone.
	file new 1048576
	write_both 0
	write_both 200
	timeout 30 cmp model /dev/mapper/mydev || fail "reads wrong while it is dead"
	cowd -p raw mydev base.img 2>err && fail "another image under the same name"
	grep -q recover err || fail "does not say what helps: $(cat err)"

	# By its record, or by a plain start of the same.
	if [ $who = pid ]; then
		cowd --recover mydev || die "cowd --recover: exit status $?"
	else
		cowd -p dscow mydev a.dscow || die "plain start: exit status $?"
	fi
	echo 3 >/proc/sys/vm/drop_caches
	cmp model /dev/mapper/mydev || fail "reads wrong after recovery"
	file new 1048576
	write_both 100
	write_both 300
done
sync /dev/mapper/mydev
cowd --recover mydev 2>err && fail "recovered what lives"
cowctl stop mydev || fail "cowctl stop: exit status $?"
nothing_left "recovered and stopped"
dscow_tool -k a.dscow || fail "the overlay's check says $?"
cowd --recover mydev 2>err && fail "recovered what is gone"
nothing_left "nothing to recover"
cowd -p dscow mydev a.dscow || die "cowd"
cmp model /dev/mapper/mydev || fail "changes lost"
cowctl stop mydev
