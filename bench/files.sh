# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# Images in files, on a file system on a RAM disk.

# filesystem ext4|xfs
filesystem()
{
	ram
	"mkfs.$1" -q "$([ "$1" = xfs ] && echo -f || echo -F)" /dev/ram6 && mkdir -p fs && mount /dev/ram6 fs || return
	later "umount $work/fs"
}

up_plain()
{
	truncate -s "${size}M" fs/plain && dev_of[plain]=$work/fs/plain
}

# loop NAME: on the file of that name, in $loop.
loop()
{
	modprobe loop
	truncate -s "${size}M" "fs/$1" && loop=$(losetup -f --show --direct-io=on "fs/$1") || return
	later "losetup -d $loop"
}

up_loop()
{
	local loop
	loop loop && dev_of[loop]=$loop
}

# What device-mapper alone makes of it.
up_loop_linear()
{
	local loop
	loop linear && dm b-loop-linear "0 $(sectors_of "$size") linear $loop 0" &&
		dev_of[loop_linear]=/dev/mapper/b-loop-linear
}

# Where the kernel has ublk, and its server is installed.
may_ublk()
{
	if command -v ublk >/dev/null && modprobe ublk_drv; then
		echo ublk
	else
		note "no ublk here: the kernel has none, or there is no program ublk"
	fi
}

up_ublk()
{
	truncate -s "${size}M" fs/ublk && ublk add -t loop -n 0 -f "$work/fs/ublk" >/dev/null || return
	later ublk del -n 0
	dev_of[ublk]=/dev/ublkb0
}

# Its blocks are all its own when it is measured: what the base holds does not matter.
up_dscow_file()
{
	truncate -s "${size}M" base.raw &&
		cowimg create -f dscow -b "$work/base.raw" -F raw fs/overlay &&
		cowd -p dscow --allow-backing "$work/base.raw" b-dscow-file fs/overlay || return
	later cowctl stop b-dscow-file
	dev_of[dscow_file]=/dev/mapper/b-dscow-file
}

# up_image FORMAT
up_image()
{
	cowimg create -f "$1" "fs/image.$1" "${size}M" && cowd -p "$1" "b-$1" "fs/image.$1" || return
	later "cowctl stop b-$1"
	dev_of[$1]=/dev/mapper/b-$1
}

up_qcow2() { up_image qcow2; }
up_vmdk() { up_image vmdk; }

up_qemu_nbd()
{
	nbd_prepare && qemu-img create -q -f qcow2 fs/nbd.qcow2 "${size}M" &&
		qemu-nbd --fork --socket="$work/qemu.sock" --pid-file="$work/qemu.pid" \
			--cache=none --aio=native -f qcow2 fs/nbd.qcow2 || return
	# shellcheck disable=SC2016
	later 'kill $(cat '"$work"'/qemu.pid); sleep 0.5'
	nbd "$work/qemu.sock" && dev_of[qemu_nbd]=$nbd
}

group_file()
{
	local fs
	for fs in ext4 xfs; do
		filesystem "$fs" || die "no $fs"
		# shellcheck disable=SC2046 # a name or none
		all_up loop plain qemu_nbd -- dscow_file qcow2 vmdk loop_linear $(may_ublk)
		for s in $subjects; do fill "${dev_of[$s]}"; done
		in_turn "file-$fs" "$subjects" \
			"randread-4k randwrite-4k read-128k write-128k read-1M write-1M" "1 32"
		for s in $subjects; do profile_of "file-$fs" "$s" randread-4k 32; done
		clear_away
		rm -f base.raw
	done
}
