#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The process that parses the image has its own user, no capability, no way to
# new ones, a filter of system calls, and locked memory.
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
worker=$(jq -r .worker /run/cowd/mydev.json)
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
cowctl stop mydev || fail "cowctl stop"
nothing_left "the end"
