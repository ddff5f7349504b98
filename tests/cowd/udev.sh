#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Where udev runs it reads from a device whose table is new, and cowd waits for it: at a
# first start and at a take-over it is answered meanwhile, also where what nobody answers
# fails at once.  This script stands in for udev.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

looks=0
# Without this script nobody counts cookies.
trap 'status=$?; rm -f /run/udev/control; export DM_DISABLE_UDEV=1; (exit $status); cleanup' EXIT
mkdir -p /run/udev
[ ! -e /run/udev/control ] || die "there is a udev"

# As rules do: a node, a look at the device for what is in it, and the count of the cookie.
udev()
{
	local cookie name
	while [ -e /run/udev/control ]; do
		while [ -e sleeps ]; do sleep 0.05; done
		for cookie in $(dmsetup udevcookies | awk '/^0x/ { print $1 }'); do
			dmsetup mknodes
			for name in $(dmsetup ls --target userspace | awk '/\t/ { print $1 }'); do
				looks=$((looks + 1))
				dd if="/dev/mapper/$name" of=/dev/null bs=4k count=1 skip=$looks \
					iflag=direct status=none || echo "$name" >>failed-looks
				echo "$name" >>looks
			done
			dmsetup udevcomplete "$cookie" >/dev/null
		done
		sleep 0.05
	done
}

# starts WHAT ARG...: cowd ARG..., in less time than it would wait for udev in vain.
starts()
{
	local what=$1 since=$SECONDS
	shift
	: >looks
	traced timeout 60 cowd "$@" 2>err || die "$what: cowd: exit status $?: $(<err)"
	[ ! -s err ] || fail "$what: said: $(<err)"
	[ -s looks ] || fail "$what: udev did not look"
	[ ! -e failed-looks ] || fail "$what: udev read an error"
	[ -z "$(dmsetup udevcookies | awk '/^0x/')" ] || fail "$what: left a cookie"
	[ -e /dev/mapper/mydev ] || fail "$what: there is no node"
	# Mostly udev is done at once: who looks again after 50 ms only has waited for nothing.
	# 7 is poll(), its third argument the time.
	grep -qE '^[0-9]+ 7 [0-9a-f]+, [0-9a-f]+, [12],' calls || fail "$what: waits for udev in long steps only"
	echo "ok $SECONDS s: $what, $((SECONDS - since)) s"
}

touch /run/udev/control
unset DM_DISABLE_UDEV
udev &
overlay 8 4
starts "a start" -p "$plugin" --policy fail mydev "$image"
kill_cowd both
dmsetup message mydev 0 evict
starts "a take-over" --recover mydev
in_force fail "a take-over"
: >looks
cowctl upgrade mydev || fail "cowctl upgrade: exit status $?"
in_force fail "an upgrade"
[ -s looks ] || fail "an upgrade: udev did not look"
[ ! -e failed-looks ] || fail "an upgrade: udev read an error"
cowctl stop mydev || fail "cowctl stop: exit status $?"
nothing_left "stopped"

# What is asked for while udev is waited for is done, with no more than the wait.
touch sleeps
cowd -p "$plugin" mydev "$image" 2>err &
until dmsetup udevcookies | grep -q ^0x && cowctl list | grep -q mydev; do sleep 0.05; done
(sleep 1; rm sleeps) &
timeout 60 cowctl stop mydev || fail "cowctl stop during a start: exit status $?"
wait %2 || fail "the start that was stopped: exit status $?: $(<err)"
nothing_left "stopped during a start"
rm -f /run/udev/control
wait
