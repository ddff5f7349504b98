# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of this folder share.  They run as root in a test machine:
#	tests/vm/run tests/cowd/serve.sh
# and use cowd, cowctl and dscow_tool from PATH.
set -u

work=$(mktemp -d /tmp/cowd-test.XXXXXX)
chmod 755 "$work"
failed=0

cleanup()
{
	local status=$?
	trap - EXIT
	cd /
	umount "$work"/mnt* 2>/dev/null
	for name in $(dmsetup ls --target userspace 2>/dev/null | awk '/\t/ { print $1 }'); do
		cowctl stop "$name" >/dev/null 2>&1 || {
			dmsetup message "$name" 0 policy fail
			dmsetup remove --force "$name"
		}
	done
	rm -rf "$work"
	[ $failed = 0 ] || status=1
	[ $status = 0 ] && echo "PASS ${0##*/}"
	exit $status
}
trap cleanup EXIT
cd "$work" || exit 1

fail()
{
	echo "FAIL: $*" >&2
	failed=1
}

die()
{
	fail "$*"
	exit 1
}

# What a cowd that ended, or never began, must not leave.
nothing_left()
{
	local left
	left=$(dmsetup ls | grep -v '^No devices')
	[ -z "$left" ] || fail "$1: left the device $left"
	left=$(losetup -a)
	[ -z "$left" ] || fail "$1: left the loop device $left"
	left=$(ls -A /run/cowd 2>/dev/null)
	[ -z "$left" ] || fail "$1: left in /run/cowd: $left"
	left=$(daemons)
	[ -z "$left" ] || fail "$1: left processes $left"
}

# Process numbers of all cowds.
daemons()
{
	ps -C cowd -o pid=
}

# refused WHAT WORD ARG...: cowd ARG... fails with one sentence on stderr that
# holds WORD, and nothing is left.
refused()
{
	local what=$1 word=$2 status lines
	shift 2
	timeout 60 cowd "$@" >out 2>err </dev/null
	status=$?
	[ $status = 1 ] || fail "$what: exit status $status"
	[ ! -s out ] || fail "$what: said on stdout: $(cat out)"
	lines=$(wc -l <err)
	[ "$lines" = 1 ] || fail "$what: $lines sentences: $(cat err)"
	grep -q -- "$word" err || fail "$what: does not say '$word': $(cat err)"
	nothing_left "$what"
	echo "ok $SECONDS s: $what: $(cat err)"
}

# A file of random bytes: file PATH SIZE
file()
{
	head -c "$2" /dev/urandom >"$1"
}

sum()
{
	sha256sum <"$1"
}
