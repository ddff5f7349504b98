#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# below.sh [--long] [--seed N]: the devices below a cowd device fail, and work again.
# Half of the disk ("bad") stands where faults are put, the other ("good") does not;
# a stamped load runs on each.  An error must reach the request that it belongs to and
# no other, no flush may be reported as done that was not, and when the fault is gone
# the device must go on, without a restart, with all that was done on it.
# shellcheck source=tests/crash/lib.sh
. "$(dirname "$0")/../crash/lib.sh"

seed=1 ops=60 switches=12
while [ $# -gt 0 ]; do
	case $1 in
	--long) ops=1500 switches=300 ;;
	--seed) seed=$2; shift ;;
	*) sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

HALF=16384	# sectors of each half
FIRST=128	# where block 0 stands in the image

# table NAME...: what the device is made of from now on, with I/O under way.
switch()
{
	local name=$1

	dmsetup suspend --noflush --nolockfs "$name"
	dmsetup load "$name"
	dmsetup resume "$name"
}

good_dst() { echo "0 $dst_len linear $disk 0" | switch dst; }
good_src() { echo "0 $((2 * HALF)) linear /dev/ram0 0" | switch src; }

bad_src() { printf '0 %d linear /dev/ram0 0\n%d %d error\n' $HALF $HALF $HALF | switch src; }

# The data of the bad half.
bad_data()
{
	local from=$((FIRST + HALF))

	printf '0 %d linear %s 0\n%d %d error\n' $from "$disk" $from $((dst_len - from)) | switch dst
}

# Header and bitmap.
bad_meta()
{
	printf '0 %d error\n%d %d linear %s %d\n' \
		$FIRST $FIRST $((dst_len - FIRST)) "$disk" $FIRST | switch dst
}

# Writes and flushes; reads are served.
bad_writes() { echo "0 $dst_len flakey $disk 0 0 1000 1 error_writes" | switch dst; }

setup()
{
	need_module dm-flakey
	modprobe brd rd_nr=1 rd_size=65536 || skip "no brd"
	modprobe loop || skip "no loop"
	begin
	cd "$work"
	"$WRITER" --prefill --size $((HALF * 512)) half
	cat half half >/dev/ram0
	dm_create src 0 $((2 * HALF)) linear /dev/ram0 0
	dscow_tool -c new /dev/mapper/src >/dev/null
	dst_len=$(($(stat -c %s new) / 512))
	cp new new.disk
	# A loop device has a cache to flush, other than brd.
	disk=$(losetup -f --show new.disk)
	dm_create dst 0 "$dst_len" linear "$disk" 0
	losetup -d "$disk"	# when the last table lets go of it
	attach
}

attach()
{
	cowd -p dscow --allow-backing /dev x /dev/mapper/dst
	dm_create good 0 $HALF linear /dev/mapper/x 0
	dm_create bad 0 $HALF linear /dev/mapper/x $HALF
}

detach()
{
	dmsetup remove --retry good
	dmsetup remove --retry bad
	cowctl stop x
}

last_commit() { cowctl status --json x | tr -d '\n' | grep -o '"last_commit":[^,}]*'; }

# The blocks are new again: a load finds nothing copied.
renew()
{
	detach
	dd if=new of=/dev/mapper/dst bs=1M oflag=direct conv=fsync status=none
	attach
}

# load WHERE OPTION...: its figures are in WHERE.out.
load()
{
	local where=$1
	shift
	"$WRITER" --record "$where.record" --seed "$seed" --threads 2 --ops "$ops" "$@" \
		"/dev/mapper/$where" >"$where.out" 2>&1 || die "$what: $where: $(cat "$where.out")"
}

# write_errors or flush_errors of a load: the numbers in parentheses.
failed_writes() { grep -o 'writes ([0-9]*' "$1.out" | grep -o '[0-9]*$'; }
flushes() { grep -o '[0-9]* flushes' "$1.out" | grep -o '^[0-9]*'; }
failed_flushes() { grep -o 'flushes ([0-9]*' "$1.out" | grep -o '[0-9]*$'; }

both()
{
	load good &
	load bad --errors --flush "$1"
	wait $! || die "$what: the load beside it failed"
}

# What was kept of a half, or what its record says, if anything was written there in this test.
half_holds()
{
	[ ! -e "$1.want" ] || cmp "$2" "$1.want" || die "$what: $1 half$3 is not what was written"
	[ ! -s "$1.record" ] || live "$1.record" "$2" "$what: $1 half$3"
}

# One that lost nothing: who knows that says so.
trust()
{
	[ "$(counter data_lost)" = 0 ] || dmsetup message x 0 commit_anyway
}

settled()
{
	good_dst
	good_src
	trust
	sync /dev/mapper/x || die "$what: a flush fails after the fault went away"
	[[ $(last_commit) = *'"ok"'* ]] || die "$what: $(last_commit) after the fault went away"
	[ "$(counter uncommitted)" = 0 ] || die "$what: blocks stay uncommitted"
	half_holds good /dev/mapper/good ""
	half_holds bad /dev/mapper/bad ""
}

# What it says at the end must be in the image as well.
image_holds()
{
	local half at=0

	detach
	check_image /dev/mapper/dst
	cowd -p dscow --allow-backing /dev -r y /dev/mapper/dst
	for half in good bad; do
		dm_create "y$half" 0 $HALF linear /dev/mapper/y "$at"
		half_holds "$half" "/dev/mapper/y$half" " after a restart"
		dmsetup remove --retry "y$half"
		at=$HALF
	done
	cowctl stop y
	attach
}

#-------------------------------------------------------------------- faults

test_source()
{
	what="source that cannot be read"
	bad_src
	both 10
	[ "$(failed_writes good)" = 0 ] || die "$what: $(cat good.out)"
	[ "$(failed_writes bad)" != 0 ] || die "$what: no write failed"
	[ "$(failed_flushes bad)" = 0 ] || die "$what: a flush failed: $(cat bad.out)"
	[ "$(counter copy_errors)" != 0 ] || die "$what: the status counts no copy error"
	say "$what: $(cat bad.out)"
	settled
	image_holds
}

test_data()
{
	what="destination that cannot be written"
	bad_data
	both 10
	[ "$(failed_writes good)" = 0 ] || die "$what: $(cat good.out)"
	[ "$(failed_writes bad)" != 0 ] || die "$what: no write failed"
	[ "$(counter copy_errors)" != 0 ] || die "$what: the status counts no copy error"
	# A block whose copy failed is the base's still: it can be read.
	live bad.record /dev/mapper/bad "$what: bad half, during the fault"
	say "$what: $(cat bad.out)"
	settled
	image_holds
}

read_one() { dd if=/dev/mapper/good of=/dev/null bs=4k count=1 iflag=direct status=none 2>err; }

# Nobody has asked yet where a block is: cowd has to read the bitmap.
test_cold()
{
	what="metadata that cannot be read"
	: >good.record
	: >bad.record
	bad_meta
	! read_one || die "$what: a read that needs it was served"
	cowctl status x >/dev/null || die "$what: cowctl status fails"
	good_dst
	read_one || die "$what: reads fail after the fault went away"
	say "$what: $(cat err)"
	settled
}

test_metadata()
{
	what="metadata that cannot be written"
	: >bad.record
	read_one
	bad_meta
	dd if=/dev/mapper/good of=/dev/mapper/good bs=4k count=1 oflag=direct status=none
	load good --errors --flush 30 --durable 0
	[ "$(failed_writes good)" = 0 ] || die "$what: $(cat good.out)"
	[ "$(failed_flushes good)" = "$(flushes good)" ] ||
		die "$what: a flush was reported as done: $(cat good.out)"
	[[ $(last_commit) != *'"ok"'* ]] || die "$what: cowctl status says that all is well"
	[ "$(counter uncommitted)" != 0 ] || die "$what: the status tells of nothing uncommitted"
	[ "$(counter commit_errors)" != 0 ] || die "$what: the status counts no failed commit"
	# not a pipe: who writes into one whose reader has seen enough fails
	grep -q 'could not commit' < <(dmesg) || die "$what: nothing in the kernel's log"
	say "$what: $(cat good.out), $(last_commit)"
	live good.record /dev/mapper/good "$what: during the fault"
	settled
	image_holds
}

test_writes()
{
	what="device that takes no writes and no flushes"
	dd if=/dev/mapper/good of=/dev/mapper/good bs=4k count=1 oflag=direct conv=fsync status=none
	dd if=/dev/mapper/good of=/dev/mapper/good bs=4k count=1 seek=100 skip=100 oflag=direct status=none
	bad_writes
	load good --errors --flush 30
	load bad --errors --flush 30
	[ "$(failed_writes good)" != 0 ] || die "$what: no write failed"
	[ "$(failed_flushes good)" = "$(flushes good)" ] ||
		die "$what: a flush was reported as done: $(cat good.out)"
	live good.record /dev/mapper/good "$what: during the fault"
	say "$what: $(cat good.out)"
	settled
	image_holds
}

# one_block HALF N [OPTION...]: a part of block N of a half, so that the rest is copied.
one_block()
{
	local half=$1 n=$2
	shift 2
	head -c 4096 /dev/urandom >part
	dd if=part of="/dev/mapper/$half" bs=4k seek=$((n * 16)) oflag=direct conv=notrunc "$@" status=none 2>err
}

block_is() { cmp -s <(dd if="$1" bs=64k skip="$2" count=1 iflag=direct status=none) "$3"; }

# shellcheck disable=SC2046 # numbers
cowd_signal() { kill -"$1" $(ps -C cowd -o pid=); }

# Flushed, and again: no success, and what is not committed stays so.
never_committed()
{
	! sync /dev/mapper/x 2>err || die "$what: $1: a flush was reported as done"
	[ "$(counter uncommitted)" != 0 ] || die "$what: $1: blocks were committed"
	[ "$(counter data_lost)" = 1 ] || die "$what: $1: the status does not say so"
}

drop()
{
	dmsetup remove --retry good
	dmsetup remove --retry bad
	! cowctl stop x 2>err || die "$what: stopped as if all were well"
	grep -q 'dmsetup remove x' err || die "$what: does not say what to do: $(cat err)"
	dmsetup remove --retry x
	timeout 60 sh -c 'while ps -C cowd >/dev/null; do sleep 0.1; done' || die "$what: cowd goes on"
}

# A flush fails, and all that was not flushed is gone: the copy of a block, too,
# of which nobody but the kernel knows.  That later flushes succeed does not help.
test_lost()
{
	what="device that loses what it held"
	: >bad.record
	: >good.record
	one_block good 7 conv=notrunc,fsync || die "$what: $(cat err)"
	dd if=/dev/mapper/good of=kept bs=64k skip=7 count=1 iflag=direct status=none
	cowd_signal STOP	# or it might commit before the fault
	one_block good 5 || die "$what: $(cat err)"
	bad_writes
	! sync /dev/mapper/x 2>err || die "$what: a flush was reported as done that failed"
	cowd_signal CONT
	dd if=new of="$disk" bs=64k skip=$((5 + FIRST / 128)) seek=$((5 + FIRST / 128)) count=1 \
		oflag=direct conv=notrunc status=none
	good_dst
	never_committed "after the fault"
	one_block bad 9 || die "$what: a later write fails: $(cat err)"
	read_one || die "$what: a read fails"
	cowctl upgrade x || die "$what: cowctl upgrade"
	never_committed "another daemon"
	say "$what: $(dmsetup status x)"
	drop
	check_image /dev/mapper/dst
	attach
	dd if=half of=base bs=64k skip=5 count=1 status=none
	block_is /dev/mapper/good 5 base || die "$what: a block was committed whose data is lost"
	block_is /dev/mapper/good 7 kept || die "$what: what was committed before is gone"
	image_holds
}

test_switching()
{
	local i kind half block

	what="faults that come and go"
	: >good.record
	cp half good.want
	load bad --errors --flush 10 --pause 5 --ops 1000000000 &
	for ((i = 0; i < switches; i++)); do
		kind=$(((seed * 7 + i * 5 + i / 3) % 4))
		case $kind in
		0) bad_src ;;
		1) bad_data ;;
		2) bad_meta ;;
		3) bad_writes ;;
		esac
		sleep 0.2
		good_dst
		good_src
		trust	# or nothing is committed any more
		[ $i != $((switches / 2)) ] || half=$(counter commits)
		block=$((i % (HALF / 128)))
		# A flush that began before may have failed since.
		one_block good $block conv=fsync || { trust; sleep 0.2; }
		one_block good $block conv=fsync ||
			die "$what: a write and a flush after fault $i fail: $(cat err)"
		dd if=part of=good.want bs=4k seek=$((block * 16)) conv=notrunc status=none
	done
	[ "$(counter commits)" -gt "$half" ] || die "$what: no commit since fault $((switches / 2))"
	# shellcheck disable=SC2046 # numbers
	kill $(ps -C writer -o pid=) || die "$what: the load ended before the faults did: $(cat bad.out)"
	wait $! || die "$what: $(cat bad.out)"
	[ "$(failed_writes bad)" != 0 ] || die "$what: no write failed"
	say "$what: $switches faults, $(cat bad.out)"
	settled
	image_holds
}

setup
for test in source data cold metadata writes lost switching; do
	renew
	"test_$test"
done
detach
