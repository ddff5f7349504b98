# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# For scripts that run a program on a cowd device, in the test machine or as
# root on a host with the module: make a device of a plugin, check its image.
#
#	wl_start "$@"		the options that all of them share
#	wl_device		makes $DEV
#	wl_finish		stops it, checks the image, base and leftovers
#
# Everything lies in $WL_DIR; a trap removes what a failure leaves.

set -euo pipefail

WL_ME=${0##*/}
WL_PLUGIN=dscow
WL_SIZE=256
WL_SECONDS=20
WL_SEED=1
WL_NAME=wl$$
WL_MOUNT=

wl_say() { echo "$WL_ME: $*"; }

wl_die()
{
	echo "$WL_ME: $*" >&2
	exit 1
}

# A program that is not there is a test that did not run: status 77.
wl_need()
{
	command -v "$1" >/dev/null || {
		wl_say "SKIP: $1 is not installed${2:+; $2}"
		exit 77
	}
}

wl_usage()
{
	cat <<USAGE
usage: $WL_ME [--plugin NAME] [--size MIB] [--seconds S] [--seed N] [--fs TYPE]
Makes a device of plugin NAME (default dscow) in a scratch folder, $1, and
checks the image afterwards. Wants root and the dm-userspace module loaded;
tests/vm/run $0 provides both.
USAGE
}

wl_start()
{
	WL_FS=ext4
	local what=$1
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--plugin) WL_PLUGIN=$2; shift ;;
		--size) WL_SIZE=$2; shift ;;
		--seconds) WL_SECONDS=$2; shift ;;
		--seed) WL_SEED=$2; shift ;;
		--fs) WL_FS=$2; shift ;;
		--help) wl_usage "$what"; exit 0 ;;
		*) wl_usage "$what" >&2; exit 2 ;;
		esac
		shift
	done
	[ "$(id -u)" = 0 ] || wl_die "wants root"
	[ -e /dev/dm-userspace ] || wl_die "the module dm-userspace is not loaded"
	WL_DIR=$(mktemp -d "${SCRATCH:-/var/tmp}/$WL_ME.XXXXXX")
	trap wl_cleanup EXIT
}

wl_cleanup()
{
	local status=$?

	trap - EXIT
	[ -z "$WL_MOUNT" ] || umount "$WL_MOUNT" 2>/dev/null || :
	if [ -e "/dev/mapper/$WL_NAME" ]; then
		cowctl stop "$WL_NAME" >/dev/null 2>&1 || :
	fi
	rm -rf "$WL_DIR"
	exit "$status"
}

# The image of the plugin, made new; for an overlay the base as well.
wl_image()
{
	WL_BASE=
	case $WL_PLUGIN in
	raw)
		truncate -s "${WL_SIZE}M" "$WL_DIR/image"
		;;
	dscow)
		WL_BASE=$WL_DIR/base
		truncate -s "${WL_SIZE}M" "$WL_BASE"
		dd if=/dev/urandom of="$WL_BASE" bs=1M count=16 conv=notrunc status=none
		dscow_tool -c "$WL_DIR/image" "$WL_BASE" >/dev/null
		WL_SUM=$(md5sum <"$WL_BASE")
		;;
	*)
		cowimg create -f "$WL_PLUGIN" "$WL_DIR/image" "${WL_SIZE}M" ||
			wl_die "plugin $WL_PLUGIN: an image of it cannot be made"
		;;
	esac
}

wl_device()
{
	wl_image
	wl_attach
	wl_say "plugin $WL_PLUGIN, ${WL_SIZE} MiB, seed $WL_SEED"
}

wl_attach()
{
	cowd -p "$WL_PLUGIN" "$WL_NAME" "$WL_DIR/image"
	DEV=/dev/mapper/$WL_NAME
	[ -b "$DEV" ] || wl_die "cowd ended well, but there is no $DEV"
}

wl_stop()
{
	cowctl stop "$WL_NAME" || wl_die "cowctl stop $WL_NAME failed"
	[ ! -e "/dev/mapper/$WL_NAME" ] || wl_die "stopped, but $DEV is still there"
}

wl_mkfs()
{
	case $WL_FS in
	ext4) mkfs.ext4 -q -F "$DEV" ;;
	xfs) mkfs.xfs -q -f "$DEV" ;;
	*) wl_die "file system $WL_FS: want ext4 or xfs" ;;
	esac
}

wl_fsck()
{
	case $WL_FS in
	ext4) e2fsck -f -n "$DEV" >"$WL_DIR/fsck.log" 2>&1 ;;
	xfs) xfs_repair -n "$DEV" >"$WL_DIR/fsck.log" 2>&1 ;;
	esac || {
		cat "$WL_DIR/fsck.log"
		wl_die "$WL_FS on $DEV is damaged"
	}
}

wl_mount()
{
	WL_MOUNT=$WL_DIR/mnt
	mkdir -p "$WL_MOUNT"
	mount -t "$WL_FS" "$DEV" "$WL_MOUNT"
}

wl_umount()
{
	umount "$WL_MOUNT"
	WL_MOUNT=
}

# What is on the device, to be found again after it was stopped and started.
wl_sum() { md5sum <"$DEV"; }

wl_check_image()
{
	case $WL_PLUGIN in
	raw) ;;
	dscow) dscow_tool -k "$WL_DIR/image" || wl_die "dscow_tool -k found something in $WL_DIR/image" ;;
	*) cowimg check -f "$WL_PLUGIN" "$WL_DIR/image" || wl_die "cowimg check found something in $WL_DIR/image" ;;
	esac
	[ -z "$WL_BASE" ] || [ "$WL_SUM" = "$(md5sum <"$WL_BASE")" ] ||
		wl_die "the base was changed"
}

# Stop, check the image, start again: the same bytes; stop; nothing is left.
wl_finish()
{
	local before after

	dmsetup status "$WL_NAME"
	before=$(wl_sum)
	wl_stop
	wl_check_image
	wl_attach
	after=$(wl_sum)
	[ "$before" = "$after" ] || wl_die "the device reads differently after a restart"
	wl_stop
	! losetup -a | grep -F "$WL_DIR" || wl_die "a loop device is left"
	wl_say "image is clean"
}
