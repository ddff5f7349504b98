#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Images on block devices, as root, in the test machine or on a host that has loop devices: what
# is on a device is overwritten when that is asked for, and not when it is mounted or too small;
# and an image that is on one is written.
# shellcheck source=tests/until.sh
. "$(dirname "$0")/../until.sh"
set -u
[ "$(id -u)" = 0 ] || { echo "devices.sh: SKIP: needs root"; exit 77; }
[ -e /dev/loop-control ] || modprobe loop || { echo "devices.sh: SKIP: there are no loop devices"; exit 77; }
build=${DMU_BUILD_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/build}
# In the test machine all is installed.
command -v cowimg >/dev/null || { PATH=$build/tools:$PATH; export COWD_PLUGIN_DIR=$build/plugins; }
image_io=$build/tests/formats/image-io

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

has_open() { find "/proc/$1/fd" -lname "$2" | grep -q .; }
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
	before=$(md5sum <"$dev")
	"$@" >out 2>err
	[ $? = 1 ] || fail "$*: was not refused, or not by status 1"
	[ "$(wc -l <err)" = 1 ] || fail "$*: $(cat err)"
	grep -q -- "$text" err || fail "$*: does not say $text: $(cat err)"
	[ "$before" = "$(md5sum <"$dev")" ] || fail "$*: the device was changed"
	echo "ok: $(cat err)"
}

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

# Large, so that it is not all zeroes yet when the signal comes.
truncate -s 4t huge
huge=$(losetup --show -f huge) || exit 1
loops+=("$huge")
cowimg convert --force -f raw -O raw disk.raw "$huge" 2>err &
until_true 60 has_open $! "$huge" || fail "does not open the device: $(cat err)"
sleep 0.3
kill -TERM $! || fail "the device was zeroes before the signal came"
wait $! && fail "went on after a signal: $(cat err)"
[ "$(cat err)" = "cowimg: $huge: was not made: stopped by signal 15" ] || fail "stopped, it says: $(cat err)"
echo "ok: stopped while a device gets its zeroes"
if command -v script >/dev/null; then
	script -qefc "exec cowimg convert --force -f raw -O raw disk.raw $huge" terminal >/dev/null &
	until_true 60 grep -qE '\] +[0-9]+%  [0-9.]+ [KMGT]?i?B/s of zeroes' terminal ||
		fail "no bar for the zeroes: $(cat terminal)"
	pkill -TERM -P $! || fail "the device was zeroes before the signal came"
	wait $!
	tr '\r' '\n' <terminal >out
	grep -q "^cowimg: $huge: was not made" out || fail "the sentence is not on a line of its own: $(cat out)"
	echo "ok: a bar meanwhile"
fi
losetup -d "$huge"
unset "loops[-1]"
rm huge

# A bit says which blocks are the image's own: their places need no zeroes, which would
# take hours on a large volume.
head -c 12582912 /dev/urandom >old && dd if=old of="$dev" bs=1M oflag=direct status=none || exit 1
cowimg create --force -f dscow -b disk.raw -F raw "$dev" && cowimg check -f dscow "$dev" &&
	cowimg convert -f dscow -O raw "$dev" plain.raw && cmp plain.raw disk.raw ||
	fail "an overlay on a device"
cmp -i 1048576 -n $((12582912 - 2 * 1048576)) old "$dev" ||
	fail "the places of blocks were overwritten when an overlay was made"
# What something else is known by.
cmp -n 983040 -i 65536:0 "$dev" /dev/zero && cmp -n 1048576 -i 11534336:0 "$dev" /dev/zero ||
	fail "an old signature could be found when an overlay was made"
rm old
echo "ok: an overlay on a device"

# on_device FORMAT QEMU [OPTION...]: an image there, written by us, is as qemu-img reads it.
on_device()
{
	local format=$1 qemu=$2
	shift 2
	rm -f mirror.raw plain.raw && truncate -s 5m mirror.raw
	cowimg create --force -f "$format" "$@" "$dev" 5m && "$image_io" load "$format" "$dev" mirror.raw 7 150 &&
		cowimg check -f "$format" "$dev" && qemu-img compare -f "$qemu" -F raw "$dev" mirror.raw &&
		cowimg convert -f "$format" -O raw "$dev" plain.raw && cmp plain.raw mirror.raw || {
		fail "$format on a device"
		return
	}
	echo "ok: $format on a device"
}
device medium 16777216
on_device qcow2 qcow2
qemu-img check -f qcow2 "$dev" || fail "qemu-img check of a device"
on_device qcow2 qcow2 -o lazy_refcounts=on,cluster_size=4k
on_device vmdk vmdk
# The file's footer, wherever it stands, is not at the device's end.
cowimg create --force -f vhd "$dev" 5m && cowimg check -f vhd "$dev" && cowimg check -f vhd -r "$dev" &&
	cowimg convert -f vhd -O raw "$dev" none.raw && [ "$(stat -c %s none.raw)" = 5242880 ] || fail "vhd on a device"
echo "ok: vhd on a device, not written"

device small 4194304
refused "is too small: .* needs 8388608 bytes" cowimg convert --force -f raw -O raw disk.raw "$dev"
refused "is too small" cowimg convert --force -f raw -O vhd -o subformat=fixed disk.raw "$dev"
refused "is too small" cowimg create --force -f raw "$dev" 5m
refused "is too small" cowimg create --force -f dscow -b disk.raw -F raw "$dev"
refused "is too small" cowimg create --force -f vhd -o subformat=fixed "$dev" 4m
refused "is too small" cowimg create --force -f vmdk -s 4k "$dev" 4g
refused "is too small" cowimg create --force -f qcow2 -o cluster_size=2m "$dev" 1g

# Read-only: a file system writes on its own.
mkfs.ext4 -q "$dev" && mkdir mnt && mount -o ro "$dev" mnt || fail "mount"
refused "cannot be opened for writing" cowimg create --force -f raw "$dev" 1m
