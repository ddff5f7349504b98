#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowimg from and to block devices, in the test machine: what is on a device is
# overwritten when that is asked for, and not when it is mounted or too small.
set -u

work=$(mktemp -d "${SCRATCH:-/var/tmp}/devices.XXXXXX")
loops=()
failed=0
cd "$work" || exit 1

cleanup()
{
	trap - EXIT
	umount "$work/mnt" 2>/dev/null
	[ ${#loops[@]} = 0 ] || losetup -d "${loops[@]}"
	cd / && rm -rf "$work"
	[ $failed = 0 ] || exit 1
	echo "PASS devices.sh"
}
trap cleanup EXIT

fail() { echo "FAIL: $*" >&2; failed=1; }

# device NAME SIZE: $dev is a block device of SIZE with old bytes on it.
device()
{
	head -c "$2" /dev/urandom >"$1"
	dev=$(losetup --show -f "$1") || exit 1
	loops+=("$dev")
}

# refused TEXT COMMAND...: one sentence, and the device as it was.
refused()
{
	local text=$1 before
	shift
	before=$(sha256sum <"$dev")
	"$@" >out 2>err && fail "$*: was not refused"
	[ "$(wc -l <err)" = 1 ] || fail "$*: $(cat err)"
	grep -q -- "$text" err || fail "$*: does not say $text: $(cat err)"
	[ "$before" = "$(sha256sum <"$dev")" ] || fail "$*: the device was changed"
	echo "ok: $(cat err)"
}

modprobe loop
truncate -s 8m disk.raw
dd if=/dev/urandom of=disk.raw bs=64k seek=20 count=9 conv=notrunc status=none

device large 12582912
refused "use --force" cowimg convert -f raw -O raw disk.raw "$dev"
refused "use --force" cowimg create -f raw "$dev" 1m
cowimg convert --force -f raw -O raw disk.raw "$dev" || fail "to a device"
cmp -n 8388608 disk.raw "$dev" || fail "the device does not hold the disk"
cmp -n 4194304 "$dev" /dev/zero 8388608 || fail "what is past the disk was not zeroed"
cowimg convert -f raw -O raw "$dev" back.raw || fail "from a device"
cmp back.raw "$dev" || fail "what came back is not the same"
[ "$(stat -c %b back.raw)" -lt 2048 ] || fail "zeroes of a device take space in a file"
cowimg create -f dscow -b "$dev" -F raw over.dscow || fail "over a device"
cowimg convert -f dscow -O raw over.dscow flat.raw && cmp flat.raw "$dev" || fail "of a chain"
echo "ok: to and from a device"

cowimg create --force -f dscow -b disk.raw -F raw "$dev" && cowimg check -f dscow "$dev" &&
	cowimg convert -f dscow -O raw "$dev" plain.raw && cmp plain.raw disk.raw ||
	fail "an overlay on a device"
echo "ok: an overlay on a device"

device small 4194304
"cowimg" convert --force -f raw -O raw disk.raw "$dev" 2>err && fail "a small device was taken"
grep -q "has room for 4194304 bytes\|needs 8388608 bytes" err || fail "too small: $(cat err)"
echo "ok: $(cat err)"

# Read-only: a file system writes on its own.
mkfs.ext4 -q "$dev" && mkdir mnt && mount -o ro "$dev" mnt || fail "mount"
refused "cannot be opened for writing" cowimg create --force -f raw "$dev" 1m
