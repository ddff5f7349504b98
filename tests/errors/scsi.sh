#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# scsi.sh: base and overlay on SCSI disks (scsi_debug).  A sector of the base that
# cannot be read fails what needs it and nothing else; a disk that goes offline and comes
# back loses nothing that was flushed, and the device goes on without a restart.
# shellcheck source=tests/crash/lib.sh
. "$(dirname "$0")/../crash/lib.sh"

BASE_MIB=8
BAD=7		# the block with the sector that cannot be read
BAD_SECTOR=$((BAD * 128 + 40))

driver=/sys/bus/pseudo/drivers/scsi_debug
parameters=/sys/module/scsi_debug/parameters

# Two disks with memory of their own.
disks()
{
	modprobe -q sd_mod || skip "no SCSI disks in this kernel"
	modprobe -q scsi_debug add_host=2 per_host_store=1 dev_size_mb=24 delay=0 ||
		skip "no scsi_debug in this kernel"
	for _ in $(seq 100); do
		# shellcheck disable=SC2012 # names of disks
		mapfile -t found < <(ls -d $driver/adapter*/host*/target*/*/block/* 2>/dev/null)
		[ ${#found[@]} != 2 ] || break
		sleep 0.1
	done
	[ ${#found[@]} = 2 ] || die "scsi_debug has ${#found[@]} disks"
	base=/dev/${found[0]##*/} over=/dev/${found[1]##*/}
}

serve() { cowd -p dscow --allow-backing /dev x /dev/mapper/dst; }

setup()
{
	begin
	disks
	cd "$work"
	"$WRITER" --prefill --size $((BASE_MIB << 20)) stamps
	dd if=stamps of="$base" bs=1M oflag=direct conv=fsync status=none
	dm_create src 0 $((BASE_MIB * 2048)) linear "$base" 0
	dscow_tool -c new /dev/mapper/src >/dev/null
	dd if=new of="$over" bs=64k iflag=fullblock conv=fsync,notrunc status=none
	dm_create dst 0 $(($(stat -c %s new) / 512)) linear "$over" 0
	serve
}

sector_bad()
{
	echo $BAD_SECTOR >$parameters/medium_error_start
	echo 1 >$parameters/medium_error_count
	echo 2 >$driver/opts
}

sector_good() { echo 0 >$driver/opts; }

# state offline|running: of the overlay's disk.
state() { echo "$1" >"/sys/block/${over#/dev/}/device/state"; }

# By sectors: get FIRST COUNT, put FIRST COUNT [OPTION...]
get() { dd if=/dev/mapper/x of=got bs=512 skip="$1" count="$2" iflag=direct status=none 2>err; }
put()
{
	local first=$1 count=$2
	shift 2
	head -c $((count * 512)) /dev/urandom >part
	dd if=part of=/dev/mapper/x bs=$((count * 512)) count=1 oflag=direct,seek_bytes \
		seek=$((first * 512)) conv=notrunc"${1:+,$1}" status=none 2>err || return 1
	dd if=part of=stamps bs=512 seek="$first" conv=notrunc status=none
}

same() { cmp -s stamps /dev/mapper/x || die "$what: reads wrong"; }

test_sector()
{
	what="sector of the base that cannot be read"
	sector_bad
	! get $BAD_SECTOR 1 || die "$what: it was read"
	get $((BAD_SECTOR - 8)) 8 || die "$what: the sectors before it: $(cat err)"
	get $((BAD_SECTOR + 1)) 8 || die "$what: the sectors behind it: $(cat err)"
	! put $((BAD * 128)) 8 || die "$what: a write that needs the rest of its block succeeds"
	put $(((BAD - 1) * 128)) 8 || die "$what: the block before it: $(cat err)"
	put $(((BAD + 1) * 128)) 8 || die "$what: the block behind it: $(cat err)"
	[ "$(counter copy_errors)" != 0 ] || die "$what: the status counts no copy error"
	sync /dev/mapper/x || die "$what: a flush fails"
	say "$what: $(counter copy_errors) copies failed, $(counter copies) did not"
	sector_good
	same
	put $((BAD * 128)) 8 || die "$what: a write fails after the fault went away: $(cat err)"
	same
}

test_whole()
{
	what="block that is written whole over a sector that cannot be read"
	sector_bad
	put $((BAD * 128)) 128 || die "$what: $(cat err)"
	get $BAD_SECTOR 1 || die "$what: reads what it replaced: $(cat err)"
	sector_good
	same
}

test_offline()
{
	what="disk that goes offline"
	put $((20 * 128)) 8 fsync || die "$what: before: $(cat err)"
	# Not committed before that: a cowd does so by itself after some seconds.
	pkill -STOP -x cowd
	put $((21 * 128)) 8 || die "$what: before: $(cat err)"
	state offline
	pkill -CONT -x cowd
	! get $((20 * 128)) 8 || die "$what: a read of it was served"
	! put $((22 * 128)) 8 || die "$what: a write to it was served"
	! sync /dev/mapper/x 2>err || die "$what: a flush was reported as done"
	get $((30 * 128)) 128 || die "$what: a read of the base fails: $(cat err)"
	[ "$(counter data_lost)" = 1 ] || die "$what: the status does not say that data may be lost"
	state running
	! sync /dev/mapper/x 2>err || die "$what: committed, though nobody knows what the disk lost"
	dmsetup message x 0 commit_anyway	# it lost nothing
	sync /dev/mapper/x || die "$what: a flush fails when it is back"
	[ "$(counter uncommitted)" = 0 ] || die "$what: blocks stay uncommitted"
	put $((22 * 128)) 8 fsync || die "$what: a write fails when it is back: $(cat err)"
	say "$what: $(dmsetup status x)"
	same
}

restart()
{
	what="served again"
	cowctl stop x
	check_image /dev/mapper/dst
	serve
	same
	cowctl stop x
}

setup
test_sector
test_offline
restart
# Anew, so that no block is its own yet.
dd if=new of=/dev/mapper/dst bs=64k oflag=direct iflag=fullblock conv=fsync status=none
"$WRITER" --prefill --size $((BASE_MIB << 20)) stamps
serve
test_whole
restart
dmsetup remove --retry dst
dmsetup remove --retry src
modprobe -r scsi_debug || die "scsi_debug is still in use"
