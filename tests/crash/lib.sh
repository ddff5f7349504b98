# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of tests/crash and tests/errors share.  They run as root in
# a test machine (tests/vm/run SCRIPT), with cowd and its tools in PATH.
# shellcheck source=tests/until.sh
. "$(dirname "${BASH_SOURCE[0]}")/../until.sh"
set -euo pipefail

me=${0##*/}
me=${me%.sh}
work='' store=''

say() { echo "$me: $*"; }

die()
{
	echo "$me: FAIL: $*" >&2
	exit 1
}

# A module or program that is not there: a test that did not run.
skip()
{
	say "SKIP: $*"
	exit 77
}

need_module() { modprobe -q "$1" || skip "the module $1 is not in this kernel"; }
need() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

# Our programs, past libtool's wrappers: these have to run from anywhere.
built()
{
	local dir=${DMU_BUILD_DIR:?runs in the test machine: tests/vm/run $0}/tests/crash

	[ -x "$dir/.libs/$1" ] && echo "$dir/.libs/$1" && return
	[ -x "$dir/$1" ] || die "$dir/$1 is not built"
	echo "$dir/$1"
}

WRITER=$(built writer)
CHECKER=$(built checker)
REPLAY=$(built replay)
export WRITER CHECKER REPLAY

# Folders: $work has files in memory, $store is on a disk with direct I/O.
begin()
{
	work=$(mktemp -d "/tmp/$me.XXXXXX")
	store=$(mktemp -d "${SCRATCH:?}/$me.XXXXXX")
	chmod 755 "$work" "$store"
	trap finish EXIT
}

stop_cowds()
{
	local name

	for name in $(dmsetup ls --target userspace 2>/dev/null | awk '/\t/ { print $1 }'); do
		cowctl stop "$name" >/dev/null 2>&1 || {
			dmsetup message "$name" 0 policy fail
			dmsetup remove --force "$name"
		}
	done
}

finish()
{
	local status=$? name

	trap - EXIT
	cd /
	umount "$work"/inner "$work"/mnt "$store"/mnt 2>/dev/null || :
	stop_cowds
	umount "$work"/mnt "$store"/mnt 2>/dev/null || :
	for name in "${DM_DEVICES[@]}"; do	# some are gone, or made twice
		dmsetup remove --retry "$name" 2>/dev/null || :
	done
	rm -rf "$work" "$store"
	[ $status != 0 ] || echo "PASS $me"
	exit $status
}
DM_DEVICES=()

# table NAME TARGET...: a device-mapper device as long as the one it is made of.
dm_create()
{
	local name=$1
	shift
	dmsetup create "$name" --table "$*"
	DM_DEVICES=("$name" "${DM_DEVICES[@]}")
}

sectors() { blockdev --getsz "$1"; }

# The live device must hold what the record says: live RECORD DEVICE WHAT
live()
{
	local answer

	answer=$("$CHECKER" --record "$1" --live "$2") || die "$3: $answer"
	say "$3: ${answer#ok } sectors are right"
}

# check_image PATH [FORMAT]: no damage, but space may be lost.
check_image()
{
	local status=0

	cowimg check -f "${2:-dscow}" "$1" || status=$?
	[ "$status" = 0 ] || [ "$status" = 3 ] || die "cowimg check $1: status $status"
}

# A figure of the status of device x.
counter() { dmsetup status x | grep -o " $1 [0-9]*" | cut -d ' ' -f 3; }
