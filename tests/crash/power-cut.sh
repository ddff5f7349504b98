#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# power-cut.sh [OPTION...]: a load on a cowd device whose overlay lies on a
# dm-log-writes device, and then a power cut at every point of that log.
#
#	--storage blk	the overlay is the logged device itself
#		  ext4	... a file of an ext4 there (xfs: the same)
#	--load raw	stamped writes to the cowd device
#	       file	... to a file of an ext4 on the cowd device
#	       fio	fio on the cowd device, each job one flush, or writes with FUA
#	--format NAME	of the overlay, default dscow
#	--seed N --ops N --threads N --block BYTES --seconds S
#	--points N	so many points by chance; 0 is all of them
#	--between N	cuts at each point with a part of what was volatile
#	--long		all points, more of everything
#	--check		the check of one cut, for replay; see check_loop()
#
# Without --storage and --load: a small choice of all (with --long a large one).
#
# At each cut: the file system below mounts, the image opens and its check is
# clean, and every sector is the one last flushed or one written since.
# shellcheck source=tests/crash/lib.sh
. "$(dirname "$0")/lib.sh"

storage='' load='' seed=1 ops=150 threads=3 block=65536 points=40 between=1 long='' check=''
tear=512 disk_mib=8 format=dscow
while [ $# -gt 0 ]; do
	case $1 in
	--storage) storage=$2; shift ;;
	--load) load=$2; shift ;;
	--format) format=$2; shift ;;
	--seed) seed=$2; shift ;;
	--ops) ops=$2; shift ;;
	--threads) threads=$2; shift ;;
	--block) block=$2; shift ;;
	--points) points=$2; shift ;;
	--between) between=$2; shift ;;
	--long) long=1 ;;
	--check) check=1 ;;
	*) sed -n '4,23s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

#------------------------------------------------------------------ one cut

# Runs in $CRASH_WORK, on the file "state" that the loop device $CRASH_LOOP is.
check_mount()
{
	[ "$storage" != blk ] || return 0
	mount -t "$storage" "$CRASH_LOOP" mnt 2>err
}

check_umount() { [ "$storage" = blk ] || umount mnt; }

image_at_cut() { if [ "$storage" = blk ]; then echo "$CRASH_WORK/state"; else echo "$CRASH_WORK/mnt/image"; fi; }

check_tool() { cowimg check -f "$format" "$(image_at_cut)" >out 2>&1 || [ $? = 3 ]; }

cut_device()
{
	cowd -p "$format" --allow-backing / cut "$(image_at_cut)" >out 2>&1
}

# The file system on the cowd device, mounted for real: its journal is replayed.
check_file()
{
	local answer

	e2fsck -fn -E journal_only /dev/mapper/cut >/dev/null 2>&1 || :
	mount -t ext4 /dev/mapper/cut inner 2>out || return 1
	answer=$(echo "$1 $2" | "$CHECKER" --record record --size "$CRASH_FILE_SIZE" inner/stamped 2>&1)
	umount inner
	[[ $answer = ok* ]] || { echo "${answer#bad }" >out; return 1; }
	compared=${answer#ok }
	e2fsck -fn /dev/mapper/cut >out 2>&1 || [ $? = 1 ]
}

check_fio()
{
	local blocks=0 touched=$((FIO_JOBS * FIO_KIB))

	if [ "$1" != 0 ]; then
		fio_jobs "$1" /dev/mapper/cut verify_only >./jobs
		fio --output=fio.out jobs >out 2>&1 || return
		blocks=$(grep -o 'issued rwts: total=[0-9]*' fio.out | awk -F= '{ n += $2 } END { print n + 0 }')
	fi
	[ "$blocks" = $(($1 * FIO_KIB / 4)) ] || { echo "fio compared $blocks blocks of $1 jobs" >out; return 1; }
	# Job N ends with mark N, and the next one had not begun.  After the last mark there is none.
	[ "${#2}" -gt 9 ] || touched=$(($2 * FIO_KIB))
	cmp -i $((touched << 10)) /dev/mapper/cut "$CRASH_STAMPS" >out 2>&1 || return
	compared=$((blocks * 8 + (disk_mib << 11) - (touched << 1)))
}

by_device()
{
	local status=0

	cut_device || return 1
	"$@" || status=1
	cowctl stop cut >err 2>&1 || { cat err >out; status=1; }
	return $status
}

check_cut()
{
	local status=0

	check_mount || { echo "does not mount: $(cat err)" >out; return 1; }
	check_tool || status=1
	case $status$load in
	0file | 0fio) by_device "check_$load" "$1" "$2" || status=1 ;;
	esac
	check_umount || { echo "cannot be unmounted" >out; return 1; }
	return $status
}

# Answers each line "FLOOR CEILING" of replay.
check_loop()
{
	local floor ceiling

	cd "$CRASH_WORK"
	while read -r floor ceiling; do
		compared=0
		if check_cut "$floor" "$ceiling"; then
			echo "ok $compared"
		else
			echo "bad $(tr '\n' ' ' <out)"
		fi
	done
}

# fio's blocks carry their place and their job's number, and a checksum.  A job is what
# lies between two flushes, or, each second one, writes that are durable by themselves.
FIO_KIB=72	# of a job: most blocks of 64 KiB are of two
FIO_JOBS=$((disk_mib * 1024 / FIO_KIB))

# fio_jobs COUNT DEVICE OPTIONS [COMMAND]: COMMANDn is run after job n
fio_jobs()
{
	local job

	printf '%s\n' '[global]' filename="$2" direct=1 rw=randwrite bs=4k size=${FIO_KIB}k ioengine=libaio \
		iodepth=8 verify=crc32c verify_pattern=%o verify_fatal=1 thread "$3"
	for ((job = 1; job <= $1; job++)); do
		printf '%s\n' "[job$job]" offset=$(((job - 1) * FIO_KIB))k randseed=$((seed * 1000 + job)) \
			"$(if [ $((job % 2)) = 0 ]; then echo sync=dsync; else echo end_fsync=1; fi)" \
			"${4:+exec_postrun=$4$job}"
	done
}

if [ "$check" ]; then
	check_loop
	exit
fi

#----------------------------------------------------------------- the load

prepare()
{
	need_module dm-log-writes
	need_module loop
	need_module "$([ "$storage" = blk ] && echo dm-mod || echo "$storage")"
	modprobe brd rd_nr=2 rd_size=$((384 * 1024)) || skip "no brd"
	begin
	mkdir "$work/mnt" "$work/inner"
	cd "$work"
	"$WRITER" --prefill --size $((disk_mib << 20)) "$store/stamps"
	base_format=raw
	case $format in
	vmdk|vhd) # take a base of their own kind only
		base_format=$format
		cowimg convert -f raw -O "$format" "$store/stamps" "$store/base" ;;
	*) cp "$store/stamps" "$store/base" ;;
	esac
}

# new_image PATH
new_image() { cowimg create -f "$format" -b "$store/base" -F "$base_format" "$1" >/dev/null; }

# $image; the initial contents of the logged device are in initial.
make_blk()
{
	new_image "$work/new"
	# Others than dscow grow.
	[ "$format" = dscow ] || truncate -s +$((disk_mib + 8))M new
	truncate -s %4096 new
	size=$(stat -c %s new)
	cat new >/dev/ram0
	cp --sparse=always new initial
	sync
	dm_create logged 0 $((size / 512)) log-writes /dev/ram0 /dev/ram1
	image=/dev/mapper/logged
}

make_fs()
{
	size=$((storage_mib << 20))
	: >initial
	dm_create logged 0 $((size / 512)) log-writes /dev/ram0 /dev/ram1
	# Hits go to the file itself only where what is below makes nobody wait, as dm-log-writes may.
	through=$(losetup -f --show --direct-io=on /dev/mapper/logged)
	if [ "$storage" = xfs ]; then
		mkfs.xfs -q -f -K -m reflink=0 "$through"
	else
		mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$through"
	fi
	mkdir "$store/mnt"
	mount -t "$storage" "$through" "$store/mnt"
	new_image "$store/mnt/image"
	sync -f "$store/mnt"
	image=$store/mnt/image
}

# writer OPTION...: the load, and $last_mark.
writer()
{
	"$WRITER" --record record --mark logged --seed "$seed" --threads "$threads" --ops "$ops" \
		--block "$block" --flush 12 --durable 8 "$@" >writer.out
	cat writer.out
	last_mark=$(($(grep -o '[0-9]* marks' writer.out | cut -d ' ' -f 1) - 1))
}

load_raw() { writer --zero "$zero" /dev/mapper/load; }

# Small files come and go beside it, so that the journal has work.
churn()
{
	local n=0

	while [ -e churning ]; do
		n=$((n + 1))
		echo "$n" >"inner/small$((n % 20))"
		[ $((n % 3)) != 0 ] || rm -f "inner/small$((n % 7))"
		[ $((n % 5)) != 0 ] || sync -d "inner/small$((n % 20))" 2>/dev/null || :
	done
}

load_file()
{
	mkfs.ext4 -q /dev/mapper/load
	mount /dev/mapper/load inner
	"$WRITER" --prefill --size "$file_size" inner/stamped
	sync -f inner
	touch churning
	churn &
	writer --zero 0 inner/stamped
	rm churning
	wait
	umount inner
}

load_fio()
{
	dmsetup message logged 0 mark m0
	last_mark=$FIO_JOBS
	fio_jobs "$FIO_JOBS" /dev/mapper/load $'do_verify=0\nstonewall' "dmsetup message logged 0 mark m" >./jobs
	fio jobs >fio.out 2>&1 || { cat fio.out; die "fio failed"; }
}

run_load()
{
	cowd -p "$format" --allow-backing / load "$image"
	"load_$load"
	ios=$(cowctl status --json load | jq ".[0].kernel.file_ios")
	cowctl stop load
	if [ "$storage" != blk ]; then
		say "$ios I/Os on the file itself"
		[ "$ios" -gt 0 ] || die "nothing was written to the file itself"
		umount "$store/mnt"
		losetup -d "$through"
	fi
	dmsetup remove --retry logged
}

#--------------------------------------------------------------- the replay

# What replay asks: the checker itself where it can do it all.
check_command()
{
	local mount=()

	if [ "$load" != raw ]; then
		echo "'$DMU_TOP/tests/crash/power-cut.sh' --check --format $format --storage $storage --load $load --seed $seed"
		return
	fi
	[ "$storage" = blk ] || mount=(--mount "$storage" --device "$loop")
	echo "exec '$CHECKER' --record record --size $((disk_mib << 20)) --image $format ${mount[*]} $(image_at_cut)"
}

# The last state that was checked, by the program that a person would use.
last_state()
{
	[ "$storage" = blk ] || mount -t "$storage" "$loop" mnt
	check_image "$(image_at_cut)" "$format"
	[ "$storage" = blk ] || umount mnt
}

run_replay()
{
	local pure=() loop=''

	export CRASH_WORK=$work CRASH_FILE_SIZE=$file_size CRASH_STAMPS=$store/stamps
	# Each mount and each cowd waits for grace periods, which are long here.
	echo 1 >/sys/kernel/rcu_expedited
	if [ "$storage" = blk ] && [ "$load" = raw ]; then
		pure=(--pure)
	fi
	truncate -s "$size" state
	if [ "$storage" != blk ]; then
		loop=$(losetup -f --show state)
	fi
	export CRASH_LOOP=$loop
	"$REPLAY" --log /dev/ram1 --state state --initial initial --size "$size" --seed "$seed" \
		--last-mark "$last_mark" --points "$points" --between "$between" --tear "$tear" "${pure[@]}" \
		"$(check_command)" || failed=1
	last_state
	[ -z "$loop" ] || losetup -d "$loop"
}

one()
{
	local through ios failed=0 zero=20 storage_mib=40 file_size=$((4 << 20)) size image base_format last_mark

	[ "$storage" != xfs ] || storage_mib=320
	# The log of a file system tears in its own units.
	[ "$storage" = blk ] || tear=4096
	# dm-log-writes does not know what a discard leaves.
	prepare
	"make_$([ "$storage" = blk ] && echo blk || echo fs)"
	run_load
	say "$format, storage $storage, load $load, seed $seed, block $block: $SECONDS s"
	run_replay
	say "replayed: $SECONDS s"
	[ $failed = 0 ] || die "a cut lost something: $me.sh --format $format --storage $storage --load $load --seed $seed"
}

if [ "$storage" ] && [ "$load" ]; then
	one
	exit
fi
[ -z "$storage$load" ] || die "--storage and --load go together"

# A VHD does not grow on a block device.
again()
{
	[ "$format $2" != "vhd blk" ] || return 0
	"$0" --format "$format" --seed "$seed" "$@" || exit $?
}

if [ -z "$long" ]; then
	again --storage blk --load raw --points 0 --ops 120
	again --storage ext4 --load raw --points 10
	exit
fi
for ((seed = 1; seed <= 5; seed++)); do
	again --storage blk --load raw --points 0 --between 4 --ops 600
	again --storage ext4 --load raw --points 0 --ops 300
done
again --storage xfs --load raw --points 200
again --storage blk --load file --points 100
again --storage ext4 --load file --points 60
again --storage blk --load fio --points 60
again --storage ext4 --load fio --points 40
