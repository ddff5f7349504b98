# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# The devices that are compared, and the groups of them.

sectors_of() { echo $(($1 * 2048)); }

# RAM disks: 0 origin, 1 dscow, 2 snapshot, 3 thin data, 4 thin metadata, 5 linear.
ram()
{
	[ -e /dev/ram5 ] && return
	modprobe brd rd_nr=6 rd_size=$((size * 1024 * 3)) || die "no RAM disks"
	later modprobe -r brd
}

# forget N: what was there; all pages are there again, for each alike.
forget() { dd if=/dev/zero of="/dev/ram$1" bs=1M count=$((size + 8)) oflag=direct status=none; }

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
	dm b-origin "0 $(sectors_of "$size") linear /dev/ram0 0"
	dd if=/dev/urandom of=/dev/mapper/b-origin bs=1M count="$size" oflag=direct status=none
}

up_linear()
{
	ram
	forget 5
	dm b-linear "0 $(sectors_of "$size") linear /dev/ram5 0" && dev_of[linear]=/dev/mapper/b-linear
}

up_dscow()
{
	up_origin
	forget 1
	cowimg create --force -f dscow -b /dev/mapper/b-origin -F raw /dev/ram1 &&
		cowd -p dscow --allow-backing /dev/mapper/b-origin b-dscow /dev/ram1 || return
	later cowctl stop b-dscow
	dev_of[dscow]=/dev/mapper/b-dscow
}

up_snapshot()
{
	up_origin
	modprobe dm-snapshot && forget 2
	dm b-snapshot "0 $(sectors_of "$size") snapshot /dev/mapper/b-origin /dev/ram2 P 128" &&
		dev_of[snapshot]=/dev/mapper/b-snapshot
}

up_thin()
{
	up_origin
	modprobe dm-thin-pool && forget 3 && forget 4
	dm b-pool "0 $(sectors_of $((size * 2))) thin-pool /dev/ram4 /dev/ram3 128 0 1 skip_block_zeroing" &&
		dmsetup message b-pool 0 "create_thin 0" &&
		dm b-thin "0 $(sectors_of "$size") thin /dev/mapper/b-pool 0 /dev/mapper/b-origin" &&
		dev_of[thin]=/dev/mapper/b-thin
}

group_block()
{
	all_up linear -- dscow snapshot thin
	for s in $subjects; do fill "${dev_of[$s]}"; done
	in_turn block "$subjects" \
		"randread-4k randwrite-4k read-128k write-128k read-1M write-1M" "1 32"
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

group_flush()
{
	all_up linear -- dscow snapshot
	for s in $subjects; do fill "${dev_of[$s]}"; done
	in_turn flush "$subjects" fsync-4k 1
	clear_away
	fresh_turns first_flushes dscow snapshot
}

# ---- growth -------------------------------------------------------------------

# zero NAME SECTORS: a device of any size that takes no memory.
zero() { dm "$1" "0 $2 zero"; }

# how_much NAME PID...: what the processes have in memory, with the results.
how_much()
{
	local name=$1 pid kib=0
	shift
	for pid; do kib=$((kib + $(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status"))); done
	echo "memory of $name=$kib KiB in $# processes, $(dmsetup status "b-$name" |
		grep -o 'map_bytes [0-9]*') in the kernel" >>"$out/facts"
}

# opened NAME COMMAND...: how long it takes, with the results.
opened()
{
	local name=$1 from
	shift
	from=$(date +%s%N)
	"$@" || die "$*"
	echo "opening $name=$((($(date +%s%N) - from) / 1000)) us" >>"$out/facts"
}

# grown GIB: a dscow overlay over nothing; only header and bitmap stand on a RAM disk.
grown()
{
	local name=dscow-$1G sectors=$(($1 << 21)) at pids
	local base=/dev/mapper/b-base-$1G image=/dev/mapper/b-image-$1G
	ram
	forget 1
	zero "b-base-$1G" "$sectors" &&
		dm "b-image-$1G" "0 98304 linear /dev/ram1 0
98304 $((sectors + 65536)) zero" || return
	cowimg create --force -f dscow -b "$base" -F raw "$image" || return
	opened "$name" cowd -p dscow --map-memory 256m --allow-backing "$base" "b-$name" "$image"
	later cowctl stop "b-$name"
	dev_of[$name]=/dev/mapper/b-$name span[$name]=$1G
	for ((at = 0; at < $1; at += 64)); do	# asked once for each region
		dd if="${dev_of[$name]}" of=/dev/null bs=4k count=1 skip=$((at << 18)) iflag=direct status=none
	done
	read -ra pids < <(jq -r '[.worker, .pid] | @tsv' "/run/cowd/b-$name.json")
	how_much "$name" "${pids[@]}"
}

# extents COUNT: a target whose map has so many entries.
extents()
{
	local name=extents-$1 sectors=$(($1 * 128)) pid
	zero "b-a-$1" "$sectors" && zero "b-b-$1" "$sectors" || return
	dm "b-$name" "0 $sectors userspace b-$name 128 2 /dev/mapper/b-a-$1 /dev/mapper/b-b-$1 2 map_memory 262144" || return
	/usr/bin/python3 "$here/extents.py" "b-$name" "$1" >"extents-$1" &
	pid=$!
	later "kill $pid; wait $pid"
	until [ -s "extents-$1" ]; do
		kill -0 "$pid" || die "extents.py ended"
		sleep 0.1
	done
	dev_of[$name]=/dev/mapper/b-$name span[$name]=$(($1 * 64))K
	how_much "$name"
}

group_growth()
{
	local n
	subjects=
	for n in 1 64 1024 16384; do
		grown $n || die "dscow of $n GiB cannot be set up"
		subjects+=" dscow-${n}G"
	done
	for n in 1 1000 100000 1000000; do
		extents $n || die "$n extents cannot be set up"
		subjects+=" extents-$n"
	done
	in_turn growth "${subjects# }" randread-4k 1
}
