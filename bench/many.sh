# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# Many devices on one golden image: the time from nothing to the first read of each, what
# they take, all loaded at once, and taken away.

first_read() { dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none; }

# attach_all SUBJECT: device 0 is there first, and not counted.
attach_all()
{
	local i us
	"attach_$1" 0 || die "no device 0"
	for ((i = 1; i <= devices; i++)); do
		us=$(timed "attach_$1" "$i") || die "no device $i"
		echo "$1 $i $us"
	done
}

# measured SUBJECT: all its devices are there then.
measured()
{
	local i
	for ((i = 0; i <= devices; i++)); do "overlay_$1" "$i"; done
	in_memory attach_all "$1" >attached || die "$1: not all are there"
	awk -v OFS='\t' '{ print "many", $1, "attach", 1, $2, 1e6 / $3, $3, $3 }' attached >>"$out/raw.tsv"
}

attach_cowd()
{
	cowd -p dscow --allow-backing "$work/fs/golden" "b-many-$1" "fs/many/$1.dscow" && first_read "/dev/mapper/b-many-$1"
}

attach_qemu_nbd()
{
	qemu-nbd --fork --socket="$work/fs/many/$1.sock" --pid-file="$work/fs/many/$1.pid" --cache=none --aio=native \
		-f qcow2 "fs/many/$1.qcow2" && nbd-client -unix "$work/fs/many/$1.sock" "/dev/nbd$1" >/dev/null 2>&1 &&
		first_read "/dev/nbd$1"
}

detach_nbd()
{
	local i
	for ((i = 0; i <= devices; i++)); do
		nbd-client -d "/dev/nbd$i"
		kill "$(cat "fs/many/$i.pid")" 2>/dev/null || :	# it ends by itself as well
	done
}

stop_all()
{
	local i stay=0
	for ((i = 0; i <= devices; i++)); do
		cowctl stop "b-many-$i" || { note "b-many-$i stays"; stay=1; }
	done
	return $stay
}

# private_of PID...: KiB of memory that only they have, and the share of what they do.
private_of()
{
	local pid
	for pid; do cat "/proc/$pid/smaps_rollup"; done |
		awk -v n=$# '/^Private_/ { own += $2 } /^Pss:/ { pss += $2; seen++ } END {
			if (seen < n)
				exit 1
			printf "%d KiB of its own, %d KiB with its share of what is common", own / n, pss / n }'
}

all_loaded()
{
	local i
	for ((i = 1; i <= devices; i++)); do
		dev_of[many-$i]=/dev/mapper/b-many-$i
		printf '[%s]\nfilename=/dev/mapper/b-many-%s\n' "$i" "$i"
	done >many.fio
	fio --output=many.json --output-format=json --ioengine=libaio --direct=1 --rw=randrw --bs=4k --iodepth=4 --thread \
		--size="${size}M" --time_based --runtime="${milliseconds}ms" --group_reporting many.fio >/dev/null ||
		die "fio on $devices devices at once"
	fact "all $devices loaded at once" "$(sed -n '/^{/,$p' many.json |
		jq -r '.jobs[0] | "\(.read.iops | floor) reads and \(.write.iops | floor) writes a second, errors \(.error)"')"
}

# On a RAM disk, so that no other disk's time is in it.
golden()
{
	filesystem ext4 || die "no ext4"
	mkdir fs/many
	dd if=/dev/urandom of=fs/golden bs=1M count="$size" status=none
}

# overlay_SUBJECT N: the image of device N.
overlay_cowd() { cowimg create -f dscow -b "$work/fs/golden" -F raw "fs/many/$1.dscow" || die "no overlay"; }

overlay_qemu_nbd() { qemu-img create -q -f qcow2 -b "$work/fs/golden" -F raw "fs/many/$1.qcow2" || die "no overlay"; }

group_many()
{
	local i pids=() free own us
	golden
	modprobe loop max_loop=0 2>/dev/null
	echo 1048576 >/proc/sys/fs/aio-max-nr	# qemu-nbd takes 1024 of 65536
	free=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
	later stop_all
	measured cowd
	# shellcheck disable=SC2207,SC2046 # numbers
	for ((i = 1; i <= devices; i++)); do pids+=($(processes_of "b-many-$i")); done
	own=$(private_of "${pids[@]}") || die "a process of cowd is gone"
	fact "a process of cowd, of ${#pids[@]}" "$own"
	fact "memory taken for each device" "$(((free - $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)) / devices)) KiB"
	all_loaded
	us=$(in_memory timed stop_all) || die "a device stays"
	fact "stopping each device" "$((us / (devices + 1))) us"
	clear_away
	nbd_prepare || die "no nbd"
	golden
	later detach_nbd
	measured qemu_nbd
	pids=()
	for ((i = 1; i <= devices; i++)); do pids+=("$(cat "fs/many/$i.pid")"); done
	own=$(private_of "${pids[@]}") || die "a process of qemu-nbd is gone"
	fact "a process of qemu-nbd" "$own"
}
