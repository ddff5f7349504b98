# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# The devices that are compared, and the groups of them.

sectors_of() { echo $(($1 * 2048)); }

# RAM disks: 0 origin, 1 dscow, 2 snapshot, 3 thin data, 4 thin metadata, 5 linear, 6 files.
ram=/dev/ram
ram()
{
	[ $ram = /dev/ram ] || { cached_disks; return; }
	[ -e /dev/ram6 ] && return
	modprobe brd rd_nr=7 rd_size=$(((size * 8 + 512) * 1024)) || die "no RAM disks"
	later modprobe -r brd
}

# forget N: what was there; all pages are there again, for each alike.
forget() { dd if=/dev/zero of="$ram$1" bs=1M count=$((size + 8)) oflag=direct status=none; }

# dm NAME TABLE
dm()
{
	dmsetup create "$1" --noudevsync --table "$2" || return
	later dmsetup remove --retry --noudevsync "$1"
}

up_origin()
{
	[ ! -e /dev/mapper/b-origin ] || return 0
	ram
	dm b-origin "0 $(sectors_of "$size") linear ${ram}0 0"
	dd if=/dev/urandom of=/dev/mapper/b-origin bs=1M count="$size" oflag=direct status=none
}

up_linear()
{
	ram
	forget 5
	dm b-linear "0 $(sectors_of "$size") linear ${ram}5 0" && dev_of[linear]=/dev/mapper/b-linear
}

up_dscow()
{
	up_origin
	forget 1
	cowimg create --force -f dscow -b /dev/mapper/b-origin -F raw ${ram}1 &&
		cowd -p dscow --allow-backing /dev/mapper/b-origin b-dscow ${ram}1 || return
	later cowctl stop b-dscow
	dev_of[dscow]=/dev/mapper/b-dscow
}

up_snapshot()
{
	up_origin
	modprobe dm-snapshot && forget 2
	dm b-snapshot "0 $(sectors_of "$size") snapshot /dev/mapper/b-origin ${ram}2 P 128" &&
		dev_of[snapshot]=/dev/mapper/b-snapshot
}

up_thin()
{
	up_origin
	modprobe dm-thin-pool && forget 3 && forget 4
	dm b-pool "0 $(sectors_of $((size * 2))) thin-pool ${ram}4 ${ram}3 128 0 1 skip_block_zeroing" &&
		dmsetup message b-pool 0 "create_thin 0" &&
		dm b-thin "0 $(sectors_of "$size") thin /dev/mapper/b-pool 0 /dev/mapper/b-origin" &&
		dev_of[thin]=/dev/mapper/b-thin
}

group_block()
{
	all_up linear -- dscow snapshot thin
	for s in $subjects; do fill "${dev_of[$s]}"; done
	in_turn block "$subjects" \
		"randread-4k randwrite-4k uring-4k read-128k write-128k read-1M write-1M" "1 32"
	for s in $subjects; do profile_of block "$s" randread-4k 32; done
}

# ---- first writes -------------------------------------------------------------

# fresh SUBJECT FUNCTION ARGUMENT...: with a new device, which goes again.
fresh()
{
	local s=$1 mark=${#undo[@]} i
	shift
	"up_$s" || die "$s cannot be set up"
	"$@"
	for ((i = ${#undo[@]} - 1; i >= mark; i--)); do
		eval "${undo[i]}" >/dev/null 2>&1 || note "failed: ${undo[i]}"
		unset "undo[i]"
	done
}

# A quarter of the device for each: 4K by chance, as many as a quarter of the blocks (one in
# nine meets a block again), whole blocks in order.
first_writes()
{
	local part=$((size / 4)) depth at=0
	for depth in 1 32; do
		job "$1" randwrite-4k $depth rw=randwrite bs=4k ba=64k offset=${at}M size=${part}M \
			number_ios=$((part * 4)) norandommap=1
		job "$1" write-1M $depth rw=write bs=1M offset=$((at + part))M size=${part}M
		at=$((at + 2 * part))
	done | measure first "$2" || exit 1
}

# fresh_turns FUNCTION SUBJECT...: each subject new in each round.
fresh_turns()
{
	local function=$1 round s
	shift
	up_origin
	for ((round = 1; round <= rounds; round++)); do
		for s; do fresh "$s" "$function" "$s" "$round"; done
		set -- "${@:2}" "$1"
		note "$function: round $round of $rounds"
	done
}

group_first()
{
	local s some=(linear)
	for s in dscow snapshot thin; do
		! wanted "$s" || some+=("$s")
	done
	fresh_turns first_writes "${some[@]}"
}

# ---- flushes ------------------------------------------------------------------

# 4K by chance, each flushed, as many as a quarter of the blocks.
first_flushes()
{
	job "$1" first-fsync-4k 1 rw=randwrite bs=4k ba=64k fsync=1 size=$((size / 2))M \
		number_ios=$((size * 2)) norandommap=1 | measure flush "$2" || exit 1
}

# Disks in memory that have a write cache: where there is none device-mapper ends
# dm-linear's flushes at once.
cached_disks()
{
	local n dir
	[ ! -e /dev/nullb6 ] || return 0
	modprobe null_blk nr_devices=0 || die "no null_blk"
	later modprobe -r null_blk
	mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
	for n in 0 1 2 3 4 5 6; do
		dir=/sys/kernel/config/nullb/nullb$n
		mkdir "$dir" || die "null_blk cannot be configured"
		later "echo 0 >$dir/power; rmdir $dir"
		echo $((size * 8 + 512)) >"$dir/size"
		echo 512 >"$dir/blocksize"
		echo 1 >"$dir/memory_backed"
		echo 1 >"$dir/cache_size"
		echo 0 >"$dir/queue_mode"
		echo 1 >"$dir/power" || die "null_blk does not begin"
	done
}

group_flush()
{
	local ram=/dev/nullb
	all_up linear -- dscow snapshot
	for s in $subjects; do fill "${dev_of[$s]}"; done
	in_turn flush "$subjects" fsync-4k 1
	clear_away
	fresh_turns first_flushes dscow snapshot
}
