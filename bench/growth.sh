# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# What a hit costs as devices and maps grow, and what opening takes.

# zero NAME SECTORS: a device of any size that takes no memory.
zero() { dm "$1" "0 $2 zero"; }

# answering NAME WAY: the daemon answer serves target b-NAME; $pid is its process.
answering()
{
	"$DMU_BUILD_DIR/bench/answer" "b-$1" "$2" >"answer-$1" &
	pid=$!
	later "kill $pid; wait $pid"
	until [ -s "answer-$1" ]; do
		kill -0 "$pid" || die "answer ended"
		sleep 0.1
	done
}

# memory_of NAME PID...: what the processes alone have in memory, and the kernel's map.
memory_of()
{
	local name=$1 pid kib=0
	shift
	for pid; do kib=$((kib + $(awk '/^Private_/ { sum += $2 } END { print sum + 0 }' "/proc/$pid/smaps_rollup"))); done
	fact "memory of $name" "$kib KiB in $# processes, $(dmsetup status "b-$name" |
		grep -o 'map_bytes [0-9]*') in the kernel"
}

# took NAME COMMAND...: how long it takes.
took()
{
	local name=$1 us
	shift
	us=$(in_memory timed "$@") || die "$*"
	fact "opening $name" "$us us"
}

# grown GIB: a dscow overlay over nothing; only header and bitmap stand on a RAM disk.
grown()
{
	local name=dscow-$1G sectors=$(($1 << 21)) at
	local base=/dev/mapper/b-base-$1G image=/dev/mapper/b-image-$1G
	ram
	forget 1
	zero "b-base-$1G" "$sectors" && dm "b-image-$1G" "0 98304 linear /dev/ram1 0
98304 $((sectors + 65536)) zero" || return
	cowimg create --force -f dscow -b "$base" -F raw "$image" || return
	took "$name" cowd -p dscow --map-memory 256m --allow-backing "$base" "b-$name" "$image"
	later cowctl stop "b-$name"
	dev_of[$name]=/dev/mapper/b-$name span[$name]=$1G
	for ((at = 0; at < $1; at += 64)); do	# asked once for each region
		dd if="${dev_of[$name]}" of=/dev/null bs=4k count=1 skip=$((at << 18)) iflag=direct status=none
	done
	# shellcheck disable=SC2046 # numbers
	memory_of "$name" $(processes_of "b-$name")
}

# extents COUNT: a target whose map has so many entries.
extents()
{
	local name=extents-$1 sectors=$(($1 * 128)) pid
	zero "b-a-$1" "$sectors" && zero "b-b-$1" "$sectors" &&
		dm "b-$name" "0 $sectors userspace b-$name 128 2 /dev/mapper/b-a-$1 /dev/mapper/b-b-$1 2 map_memory 262144" ||
		return
	answering "$name" entries
	dev_of[$name]=/dev/mapper/b-$name span[$name]=$(($1 * 64))k
	memory_of "$name" "$pid"
}

# opened GIB: a qcow2 of nothing: what it takes to open it and to read its end.
opened()
{
	local name=qcow2-$1G
	cowimg create -f qcow2 "$name" "$1G" || return
	took "$name" cowd -p qcow2 "b-$name" "$name"
	later "cowctl stop b-$name; rm $work/$name"
	dd if="/dev/mapper/b-$name" of=/dev/null bs=4k count=1 skip=$((($1 << 18) - 1)) iflag=direct status=none || return
	# shellcheck disable=SC2046 # numbers
	memory_of "$name" $(processes_of "b-$name")
}

group_growth()
{
	local n all=''
	for n in 1 64 1024 16384; do
		grown $n || die "dscow of $n GiB cannot be set up"
		all+=" dscow-${n}G"
	done
	for n in 1 1000 100000 1000000; do
		extents $n || die "$n extents cannot be set up"
		all+=" extents-$n"
	done
	for n in 1 16384; do opened $n || die "qcow2 of $n GiB cannot be set up"; done
	in_turn growth "${all# }" randread-4k 1
}
