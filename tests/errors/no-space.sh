#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# no-space.sh [--long] [--seed N] [--fs TYPE] [--format NAME]: the file system under the
# overlay, of format NAME (dscow), is full.  First writes that need space fail, all else
# goes on, and when room is made the device goes on without a restart.
# shellcheck source=tests/crash/lib.sh
. "$(dirname "$0")/../crash/lib.sh"

seed=1 ops=100 rounds=1 fs=ext4 format=dscow
while [ $# -gt 0 ]; do
	case $1 in
	--long) ops=800 rounds=10 ;;
	--seed) seed=$2; shift ;;
	--fs) fs=$2; shift ;;
	--format) format=$2; shift ;;
	*) sed -n '4,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

# The disk's first disk_mib, which the store cannot hold, and far behind them, where other
# tables are, the 16 MiB from far_mib on.
store_mib=64 disk_mib=128 far_mib=1024
[ "$format" = dscow ] || store_mib=32 disk_mib=64
[ "$fs" = ext4 ] || store_mib=384 disk_mib=512

# An overlay of blocks of 64 KiB; the parent of a VMDK is a VMDK.
make_image()
{
	local base=$store/base base_format=raw

	if [ "$format" = vmdk ]; then
		base=$store/parent base_format=vmdk
		cowimg convert -f raw -O vmdk "$store/base" "$base"
	fi
	cowimg create -f "$format" -s 65536 -b "$base" -F "$base_format" "$store/mnt/image" >/dev/null
}

setup()
{
	need_module "$fs"
	modprobe brd rd_nr=1 rd_size=$((store_mib * 1024)) || skip "no brd"
	begin
	mkdir "$store/mnt"
	cd "$work"
	"mkfs.$fs" -q /dev/ram0
	mount /dev/ram0 "$store/mnt"
	"$WRITER" --prefill --size $((disk_mib << 20)) "$store/base"
	dd if="$store/base" of="$store/base" bs=1M count=16 seek=$far_mib conv=notrunc status=none
	make_image
	# What will be given back later.
	fallocate -l 16M "$store/mnt/filler"
	cowd -p "$format" --allow-backing "$store" x "$store/mnt/image"
	dev=/dev/mapper/x
}

# The error of one write: NOSPC, EIO, another as dd says it, or nothing.
error_of()
{
	local said

	! said=$(dd if=/dev/zero of="$dev" oflag=direct status=none "$@" 2>&1) || return 0
	grep -om 1 'No space left on device\|Input/output error' <<<"$said" || echo "other: $said"
}

# Nothing was committed yet: the place of the metadata has to be there even so.
test_first_commit()
{
	local error

	# All but one block, and then that as well: the block is root's, the bitmap is not.
	dd if=/dev/zero of="$store/mnt/all" bs=64k status=none oflag=direct 2>/dev/null || :
	dd if=/dev/zero of="$store/mnt/rest" bs=4k status=none oflag=direct 2>/dev/null || :
	# As little as one write takes.
	error='No space left on device'
	while [ "$error" = 'No space left on device' ] && [ -s "$store/mnt/all" ]; do
		truncate -s -64k "$store/mnt/all"
		say "$(df --output=avail -k "$store/mnt" | tail -1) KiB are left before the first commit"
		error=$(error_of bs=64k count=1 seek=$((disk_mib * 16 - 2)))
	done
	[ -z "$error" ] || die "the first write fails: $error"
	sync "$dev" || die "the first flush fails when the file system is full"
	rm -f "$store/mnt/all" "$store/mnt/rest"
	sync -f "$store/mnt"
	# As it was.
	dd if="$store/base" of="$dev" bs=64k count=1 skip=$((disk_mib * 16 - 2)) \
		seek=$((disk_mib * 16 - 2)) oflag=direct conv=fsync status=none
}

# Whole blocks until there is no room.
fill()
{
	local block=0

	full=
	while [ -z "$full" ]; do
		# What stands there already, so that the base's stamps stay true.
		dd if="$store/base" bs=1M skip=$block count=1 status=none |
			dd of="$dev" bs=1M seek=$block count=1 iflag=fullblock oflag=direct \
				status=none 2>err || full=$(grep -o 'No space.*\|Input/output.*' err)
		block=$((block + 1))
		[ $block -lt $disk_mib ] || die "$disk_mib MiB went into a file system of $store_mib"
	done
	filled=$((block - 1))
}

test_full()
{
	local partial

	fill
	say "full after $filled MiB: a whole block fails with: $full"
	partial=$(error_of bs=4k count=1 seek=$((disk_mib * 256 - 16)))
	say "a part of a block fails with: ${partial:-nothing}"
	[ "$full" = "No space left on device" ] || die "not by ENOSPC"
	[ "$partial" = "No space left on device" ] || die "not by ENOSPC"
	# Reads of all, writes to what is there, and flushes.
	cmp -n $((disk_mib << 20)) "$dev" "$store/base" || die "it reads differently when full"
	sync "$dev" || die "a flush fails when the file system is full"
	"$WRITER" --record record --seed "$seed" --size $(((filled - 1) << 20)) --threads 2 \
		--ops "$ops" "$dev" || die "writes to blocks that have their space fail"
	live record "$dev" "overwritten when full"
}

# given_up WHAT OPTION...: blkdiscard MiB by MiB, where no table has its space yet.  It may
# want some; then it fails, by ENOSPC.  What was written before is flushed all the same.
given_up()
{
	local what=$1 at failed=0
	shift

	for ((at = given_at; at < given_at + 4; at++)); do
		if blkdiscard -o ${at}M -l 1M "$@" "$dev" 2>err; then
			[ "${1:-}" != -z ] || cmp -i $((at << 20)):0 -n 1048576 "$dev" /dev/zero ||
				die "$what succeeded, and MiB $at is not zero"
		else
			grep -q 'No space' err || die "$what on a full store: $(cat err)"
			failed=$((failed + 1))
		fi
		dd if="$store/base" of="$dev" bs=4k count=1 skip=256 seek=256 oflag=direct conv=fsync \
			status=none || die "a flush fails after $what on a full store"
		same_or_zeroes $((at << 20)) 1048576 || die "MiB $at reads as neither the base nor zeroes after $what"
	done
	say "$what on a full store: $failed of 4 failed"
	given_at=$((given_at + 4))
}

# same_as_base MIB COUNT
same_as_base() { cmp -i $(($1 << 20)) -n $(($2 << 20)) "$dev" "$store/base"; }

# same_or_zeroes OFFSET BYTES: halves are looked at where it is not all the one or the other.
same_or_zeroes()
{
	local half=$(($2 / 2))

	cmp -s -i "$1" -n "$2" "$dev" "$store/base" || cmp -s -i "$1:0" -n "$2" "$dev" /dev/zero ||
		{ [ "$2" -gt 65536 ] && same_or_zeroes "$1" $half && same_or_zeroes $(($1 + half)) $half; }
}

test_given_up()
{
	take_all
	given_at=$far_mib
	given_up "a discard"
	given_up "write-zeroes" -z
}

# Now all of the disk is written to but the last MiB, and much of it fails.
test_beyond()
{
	# The base's stamps, where the first record's are.
	dd if="$store/base" of="$dev" bs=1M count=$((filled - 1)) oflag=direct conv=fsync status=none
	"$WRITER" --record record2 --seed "$seed" --size $(((disk_mib - 1) << 20)) --errors --flush 5 \
		--threads 3 --ops "$ops" "$dev" >out || die "$(cat out)"
	cat out
	grep -q '([1-9][0-9]* failed), [0-9]* flushes' out || die "no write failed"
	grep -q 'flushes (0 failed)' out || die "a flush failed"
	live record2 "$dev" "written where there was space"
}

test_room()
{
	local at

	rm "$store/mnt/filler"
	sync -f "$store/mnt"
	[ -z "$(error_of bs=64k count=1 seek=$((disk_mib * 16 - 1)))" ] ||
		die "a first write fails though there is room"
	sync "$dev" || die "a flush fails after room was made"
	# The last MiB, which is given up for the first time, and one that could not be.
	for at in $((far_mib + 15)) $((far_mib + 7)); do
		blkdiscard -z -o ${at}M -l 1M "$dev" || die "write-zeroes fail though there is room"
		sync "$dev" || die "a flush fails after write-zeroes"
		cmp -i $((at << 20)):0 -n 1048576 "$dev" /dev/zero || die "write-zeroes leave something"
	done
	same_as_base $((far_mib + 8)) 7 || die "what nobody wrote reads differently"
	cowctl status x
}

# All that is left, into the filler.
take_all()
{
	local size

	for size in 64k 4k; do
		dd if=/dev/zero bs=$size status=none oflag=append,direct conv=notrunc \
			of="$store/mnt/filler" 2>/dev/null || :
	done
}

# Once a second they are tried again: for that moment none of them is counted.
waiting() { [ "$(counter no_space)" = "$1" ]; }
some_wait() { ! waiting 0; }
cowctl_tells() { grep -q "$1 writes wait for space" < <(cowctl status x); }
asked_anew() { [ "$(counter faults)" != "$1" ]; }
found_dead() { grep -q dead < <(cowctl list); }

# Told to wait, writes come to an end when there is room, and not before.
test_wait()
{
	local at=$((disk_mib * 16 - 40)) pids='' i size

	dmsetup message x 0 no_space wait
	dd if="$store/base" of=want bs=64k count=4 skip=$at status=none
	for i in 0 1 2 3; do
		# Two of a whole block, one of a part, and one that asks for durability.
		size=$((i == 2 ? 4096 : 65536))
		head -c $size /dev/urandom >"new.$i"
		dd if="new.$i" of=want bs=64k seek=$i conv=notrunc status=none
		dd if="new.$i" of="$dev" bs=$size count=1 seek=$(((at + i) * 65536 / size)) status=none \
			oflag=direct"$([ $i != 3 ] || echo ,dsync)" 2>"wait.$i" &
		pids+=" $!"
	done
	until_true 20 waiting 4 || die "writes do not wait for space: $(cat wait.*) $(dmsetup status x)"
	until_true 20 cowctl_tells 4 || die "cowctl does not say so: $(cowctl status x)"
	# Reads and flushes go on beside them, and so does a suspend that does not flush.
	dd if="$dev" of=/dev/null bs=1M count=4 iflag=direct status=none || die "reads fail while writes wait"
	sync "$dev" || die "a flush fails while writes wait"
	dmsetup suspend --noflush --nolockfs x
	[ "$(counter no_space)" = 0 ] || die "a suspend leaves writes waiting in the target"
	dmsetup resume x
	# shellcheck disable=SC2086 # numbers
	[ "$(jobs -r | wc -l)" = 4 ] || die "a write ended without space: $(cat wait.*)"
	rm "$store/mnt/filler"
	sync -f "$store/mnt"
	# shellcheck disable=SC2086 # numbers
	for i in $pids; do
		wait "$i" || die "a write that waited failed: $(cat wait.*)"
	done
	[ "$(counter no_space)" = 0 ] || die "something waits still: $(dmsetup status x)"
	cmp -i $((at << 16)):0 -n $((4 << 16)) "$dev" want || die "what waited is not what was written"
	dd if="$store/base" of="$dev" bs=64k count=4 skip=$at seek=$at oflag=direct,dsync status=none
	say "4 writes waited for space, and were done when there was"
	# And told to fail, what waits fails.
	take_all
	at=$((at - 40))
	dd if="$store/base" of="$dev" bs=64k count=1 skip=$at seek=$at oflag=direct status=none 2>wait.4 &
	until_true 20 some_wait || die "a write does not wait for space: $(cat wait.4)"
	dmsetup message x 0 no_space fail
	! wait $! || die "a write was done without space"
	grep -q 'No space' wait.4 || die "it failed by another error: $(cat wait.4)"
}

# A write of many blocks waits while the daemon dies and is replaced: what it claimed is
# asked for anew, block by block.
test_wait_daemon()
{
	local at=$((disk_mib - 10)) faults

	dmsetup message x 0 no_space wait
	head -c 1048576 /dev/urandom >new.5
	dd if=new.5 of="$dev" bs=1M count=1 seek=$at oflag=direct,dsync status=none 2>wait.5 &
	until_true 20 some_wait || die "a write of 1 MiB does not wait for space: $(cat wait.5)"
	faults=$(counter faults)
	# shellcheck disable=SC2046 # numbers
	kill -9 $(jq .pid,.worker /run/cowd/x.json)
	until_true 20 found_dead || die "cowctl list does not say that cowd is dead"
	cowd --recover x || die "--recover on a full file system"
	until_true 20 asked_anew "$faults" || die "nothing is asked for anew"
	[ "$(jobs -r | wc -l)" = 1 ] || die "it ended without space: $(cat wait.5)"
	rm "$store/mnt/filler"
	sync -f "$store/mnt"
	wait $! || die "it failed: $(cat wait.5)"
	[ "$(counter no_space) $(counter waiting)" = "0 0" ] || die "something waits: $(dmsetup status x)"
	cmp -i $((at << 20)):0 -n $((1 << 20)) "$dev" new.5 || die "what waited is not what was written"
	dd if="$store/base" of="$dev" bs=1M count=1 skip=$at seek=$at oflag=direct,dsync status=none
	say "1 MiB waited for space, and for another daemon"
	dmsetup message x 0 no_space fail
	take_all
}

one()
{
	test_first_commit
	test_full
	test_given_up
	# Of the target, not of the format; the counts are of blocks of 64 KiB.
	if [ "$format" = dscow ]; then
		test_wait
		test_wait_daemon
	fi
	test_beyond
	test_room
	cowctl stop x
	check_image "$store/mnt/image" "$format"
	cowd -r -p "$format" --allow-backing "$store" x "$store/mnt/image"
	live record2 "$dev" "the same after a restart"
	cowctl stop x
}

for ((round = 0; round < rounds; round++, seed++)); do
	setup
	one
	umount "$store/mnt"
	rmmod brd
	cd /
	rm -rf "$work" "$store"
done
