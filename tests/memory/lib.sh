# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of this folder share.  They run in the test machine, as its
# root, and put images on $SCRATCH, where direct I/O works.
set -euo pipefail

me=${0##*/}
dev=/dev/mapper/mydev
work=$(mktemp -d "${SCRATCH:?these scripts run by tests/vm/run}/$me.XXXXXX")
chmod 755 "$work"
programs=$DMU_BUILD_DIR/tests/memory
export PATH=$programs:$PATH
long=
[ "${1:-}" != --long ] || long=1

say() { echo "$me: $SECONDS s: $*"; }

die()
{
	echo "$me: FAIL: $*" >&2
	exit 1
}

cleanup()
{
	local status=$?

	trap - EXIT
	cd /
	swapoff -a
	umount "$work"/mnt 2>/dev/null || :
	[ ! -e "$dev" ] || cowctl stop mydev >/dev/null 2>&1 || {
		dmsetup message mydev 0 policy fail
		dmsetup remove --force mydev
	} || :
	rm -rf "$work"
	[ $status != 0 ] || echo "PASS $me"
	exit $status
}
trap cleanup EXIT
cd "$work"
modprobe loop
echo 4 >/proc/sys/vm/drop_caches	# no line in the log for each drop

# The machine's memory in MiB, so little that it can be filled in a minute.
small_memory()
{
	local mib
	mib=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
	[ "$mib" -lt 1000 ] || die "$mib MiB of memory take too long to fill: want tests/vm/run --memory 400"
	echo "$mib"
}

# counter NAME: of the target's status
counter()
{
	dmsetup status mydev | tr ' ' '\n' | grep -x -A 1 "$1" | tail -n 1
}

# overlay SIZE [ARG...]: a sparse base with a stamp of version 1 in every MiB, and a
# device over it; ARGs are cowd's.
overlay()
{
	local size=$1
	shift
	truncate -s "$size" base
	stamps write -v 1 -t 1m -f base
	dscow_tool -c image base >/dev/null
	cowd -p dscow "$@" mydev image
}

# overlay_on_disks SIZE [ARG...]: the same, with image and base on block devices, which
# come out of the scratch disk.
overlay_on_disks()
{
	local mib=${1%m} room=2048	# sectors for the image's own, more than it wants
	shift
	cd /
	rm -rf "$work"
	work=$(mktemp -d)
	cd "$work"
	umount "$SCRATCH"
	dmsetup create base --table "0 $((mib * 2048)) linear /dev/vda 0"
	dmsetup create image --table "0 $((mib * 2048 + room)) linear /dev/vda $((mib * 2048))"
	blkdiscard -f -z /dev/mapper/base
	stamps write -v 1 -t 1m -f /dev/mapper/base
	dscow_tool -c new /dev/mapper/base >/dev/null
	dd if=new of=/dev/mapper/image bs=512 count=$room conv=fsync status=none
	cowd -p dscow --allow-backing /dev "$@" mydev /dev/mapper/image
}

# No mapping remembered, nothing of the image or of the base in the page cache.
cold()
{
	sync
	dmsetup message mydev 0 evict
	echo 3 >/proc/sys/vm/drop_caches
}

# field PID NAME: of /proc/PID/status
field() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }

# All processes of the daemon keep their memory: none of it can be swapped out.
locked()
{
	local pid pids
	pids=$(pgrep -x cowd) || die "no cowd runs"
	for pid in $pids; do
		[ "$(field "$pid" VmSwap)" = 0 ] ||
			die "cowd $pid has $(field "$pid" VmSwap) kB in swap"
		[ "$(field "$pid" VmLck)" -gt 1000 ] ||
			die "the memory of cowd $pid is not locked"
	done
}

# finish [IMAGE BASE]: stop, check the image and the base.
finish()
{
	dmsetup status mydev
	cowctl stop mydev
	[ ! -e "$dev" ] || die "it is still there"
	dscow_tool -k "${1:-image}"
	stamps verify -v 1 -t 1m "${2:-base}"
}

finish_on_disks() { finish /dev/mapper/image /dev/mapper/base; }
