#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowctl grow: the image was made larger below its device, a file and a block
# device, its last block short or whole.  The device becomes as large under a load
# that verifies; what was there stays, what is new reads as it stands in the image
# and can be written.  A device never shrinks.
#	grow.sh [--long | --times N] [--seed S]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
export LOAD_PACE=10	# leaves the processor to the commands that are tried
arguments "$@"
: "${times:=${long:+40}}" "${times:=3}"

size_now() { blockdev --getsize64 /dev/mapper/mydev; }

# The load's own part ends at $first; what comes after is in the file "added".
first=$((16 << 20 | 20 << 10)) size=$first

# put OFFSET BYTES: random bytes, into the device and what was added.
put()
{
	file new "$2"
	dd if=new of=/dev/mapper/mydev bs=4k seek=$(($1 / 4096)) oflag=direct conv=notrunc status=none ||
		fail "write at $1"
	dd if=new of=added bs=4k seek=$((($1 - first) / 4096)) conv=notrunc status=none
}

added_is_right()
{
	dd if="$1" bs=4k skip=$((first / 4096)) iflag=direct status=none | cmp - added ||
		fail "$2: what has come reads wrong"
}

# fill IMAGE OLD: what is new in it is random, and added.
fill()
{
	file new $((size - $2))
	dd if=new of="$1" bs=4k seek=$(($2 / 4096)) oflag=direct conv=notrunc status=none || fail "$1 is not larger"
	cat new >>added
}

# larger OLD: to $size; one way for a file, another for a device.
file_larger() { fill raw.img "$1"; }
device_larger()
{
	fill /dev/ram0 "$1"
	dmsetup load disk --table "0 $((size / 512)) linear /dev/ram0 0"
	dmsetup suspend --noflush disk
	dmsetup resume disk
}

grow_once()
{
	local old=$size out
	# In the middle of a block, at its end, by a few blocks.
	size=$((size + 4096 * (1 + RANDOM % 40)))
	# Stale: the device's short last block is known to the kernel as it was.
	timeout 60 dd if=/dev/mapper/mydev of=/dev/null bs=4k skip=$((old / 4096 - 1)) iflag=direct status=none
	"$larger" "$old"
	[ "$(size_now)" = "$old" ] || fail "grow $1: $(size_now) bytes before it was told"
	out=$(timeout 200 cowctl grow mydev) || die "grow $1: cowctl grow"
	[ "$out" = "mydev: $size bytes, before $old" ] || fail "grow $1: says: $out"
	[ "$(size_now)" = "$size" ] || fail "grow $1: $(size_now) bytes, not $size"
	load_runs "grow $1"
	added_is_right /dev/mapper/mydev "grow $1"
	put "$old" 4096
	put $((size - 4096)) 4096
	[ "$old" = $first ] || put $((old - 4096)) 8192
	added_is_right /dev/mapper/mydev "grow $1, written to"
}

# all_of IMAGE LARGER: grown under the load again and again, then looked at in every way.
all_of()
{
	local n
	size=$first larger=$2
	rm -f state added
	: >added
	cowd -p raw mydev "$1" || die "cowd"
	load_start
	for n in $(seq "$times"); do
		grow_once "$n"
	done
	cowctl grow mydev | grep -q "mydev: $size bytes, before $size" || fail "nothing to grow: does not say so"
	load_stop
	LOAD_GROWN=1 "$load" verify /dev/mapper/mydev state 2>err || fail "reads wrong: $(cat err)"
	cowctl stop mydev || fail "cowctl stop"
	added_is_right "$1" "in the image"
	echo "ok $SECONDS s: $1 grown $times times, to $size bytes"
}

modprobe loop || die "no loop devices"
"$load" fill raw.img 8 || die "load fill"
truncate -s $first raw.img
filled=8
cp raw.img start.img
all_of raw.img file_larger

# What shrank is not taken, and the device goes on.
cowd -p raw mydev raw.img || die "cowd"
truncate -s $((size - 4096)) raw.img
cowctl grow mydev >out 2>err && fail "made smaller"
grep -q "make it as large again" err || fail "smaller: does not say what to do: $(cat err)"
[ "$(size_now)" = $size ] || fail "the device shrank to $(size_now) bytes"
truncate -s $size raw.img
cowd --recover mydev || die "--recover"
[ "$(size_now)" = $size ] || fail "served again: $(size_now) bytes"
cowctl stop mydev || fail "cowctl stop"
nothing_left "smaller"
echo "ok $SECONDS s: never smaller"

modprobe brd rd_nr=1 rd_size=65536 || die "no RAM disks"
dd if=start.img of=/dev/ram0 bs=1M conv=fsync status=none
dmsetup create disk --table "0 $((first / 512)) linear /dev/ram0 0"
all_of /dev/mapper/disk device_larger
dmsetup remove --retry disk
nothing_left "the end"
