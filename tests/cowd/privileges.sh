#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The process that parses the image has its own user, no capability, no way to
# new ones, a filter of system calls, and locked memory.  Its parent has the few
# capabilities that its work needs.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

# field PID NAME: of /proc/PID/status
field()
{
	awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"
}

is()
{
	[ "$2" = "$3" ] || fail "$1 is $2, not $3"
}

modprobe loop || die "no loop devices"
file base.img 4194304
cowd -p raw mydev base.img || die "cowd"
worker=$(of_json worker </run/cowd/mydev.json)
is "user" "$(field "$worker" Uid)" "$(id -u nobody)"
is "effective capabilities" "$(field "$worker" CapEff)" 0000000000000000
is "permitted capabilities" "$(field "$worker" CapPrm)" 0000000000000000
is "bounding set" "$(field "$worker" CapBnd)" 0000000000000000
is "no_new_privs" "$(field "$worker" NoNewPrivs)" 1
is "seccomp" "$(field "$worker" Seccomp)" 2
[ "$(field "$worker" VmLck)" -gt 1000 ] || fail "memory is not locked"
is "groups" "$(awk '/^Groups:/ { print NF }' "/proc/$worker/status")" 1
is "oom_score_adj" "$(cat "/proc/$worker/oom_score_adj")" -1000
is "argv[0]" "$(head -c 1 "/proc/$worker/cmdline")" @
# Every thread, too.
for thread in /proc/"$worker"/task/*/status; do
	is "seccomp of $thread" "$(awk '/^Seccomp:/ { print $2 }' "$thread")" 2
done
parent=$(of_json pid </run/cowd/mydev.json)
# Their memory comes without I/O, which might be to the device: PF_MEMALLOC_NOIO, as
# PR_SET_IO_FLUSHER says.
for thread in /proc/"$worker"/task/*/stat /proc/"$parent"/task/*/stat; do
	[ $(($(sed 's/.*) //' "$thread" | cut -d ' ' -f 7) & 0x80000)) != 0 ] || fail "$thread: is no I/O flusher"
done
# CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP, SYS_ADMIN, SYS_RESOURCE, MKNOD
few=$(printf '%016x' $((1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 21 | 1 << 24 | 1 << 27)))
for set in CapBnd CapPrm CapEff; do
	is "the parent's $set" "$(field "$parent" $set)" "$few"
done
is "the parent's CapInh" "$(field "$parent" CapInh)" 0000000000000000
is "the parent's no_new_privs" "$(field "$parent" NoNewPrivs)" 1
cowctl stop mydev || fail "cowctl stop"
nothing_left "the end"
