#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# counts.sh [NAME...]: what makes the target fast, as counts that no machine changes:
# questions for each workload, bios cut, copies made, commits for flushes, and the
# functions that the kernel calls for a hit: none allocates, locks or wakes; what a device
# takes: memory, system calls to start and to answer, reads of a base that many share.
# Names: hits, path, flushes, huge, qcow2_writes, qcow2_reads, memory, starts, calls, base.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

dev=/dev/mapper/mydev
tracing=/sys/kernel/tracing

# ---- counters -----------------------------------------------------------------

# All counters of mydev, from the target itself; mark remembers them.
declare -A is was
look()
{
	local words i
	read -ra words < <(dmsetup status mydev)
	for ((i = 7; i < ${#words[@]}; i += 2)); do
		is[${words[i]}]=${words[i + 1]}
	done
}

mark()
{
	local name
	look
	for name in "${!is[@]}"; do was[$name]=${is[$name]}; done
}

# counter NAME: as it is now.
counter() { look; echo "${is[$1]}"; }

# grown NAME: what was added between mark and look.
grown() { echo $((is[$1] - was[$1])); }

# exactly WHAT NAME N: the counter NAME grew by N from mark to look.
exactly()
{
	local n
	n=$(grown "$2")
	if [ "$n" = "$3" ]; then
		echo "ok $1: $2 $n"
	else
		fail "$1: $2 grew by $n, not by $3"
	fi
}

# at_most WHAT NUMBER LIMIT
at_most()
{
	if [ "$2" -le "$3" ]; then
		echo "ok $1: $2, at most $3"
	else
		fail "$1: $2, more than $3"
	fi
}

# ---- workloads ----------------------------------------------------------------

# rd BYTES COUNT [OFFSET], wr ...: so many reads or writes of so many bytes, one after the other.
rd() { dd if=$dev of=/dev/null bs="$1" count="$2" skip="${3:-0}" iflag=direct,skip_bytes status=none || fail "read"; }
wr() { dd if=/dev/zero of=$dev bs="$1" count="$2" seek="${3:-0}" oflag=direct,seek_bytes status=none || fail "write"; }

flush() { blockdev --flushbufs $dev && sync $dev || fail "flush"; }

# load OPTION...: fio, one I/O at a time unless it is told otherwise.
load()
{
	fio --name=load --filename=$dev --direct=1 --ioengine=psync --bs=4k --randseed=1 \
		--randrepeat=1 --output=fio.log "$@" >/dev/null || { cat fio.log; fail "fio $*"; return 1; }
}

serve() { cowd "$@" || die "cowd $*"; }

# A dscow overlay on a RAM disk, over a file of 64 MiB; nothing was touched yet.
start_on_ram()
{
	file base.img $((64 << 20))
	modprobe brd rd_nr=1 rd_size=$((80 << 10)) || die "no RAM disk"
	cowimg create --force -f dscow -b "$work/base.img" -F raw /dev/ram0 || die "cowimg create"
	serve -p dscow --allow-backing "$work" mydev /dev/ram0
}

finish()
{
	cowctl stop mydev || fail "cowctl stop"
	nothing_left "$1"
	modprobe -r brd
}

# ---- hits, cuts, copies -------------------------------------------------------

test_hits()
{
	start_on_ram
	mark
	rd 4k 1
	look
	exactly "the first read" events 1
	mark
	wr 1M 16
	look
	exactly "whole blocks written for the first time" events 0
	exactly "whole blocks written for the first time" copies 0
	exactly "whole blocks written for the first time" overwrites 256
	mark
	wr 4k 8 $((32 << 20))
	look
	exactly "a part of a block written for the first time" copies 1
	exactly "the writes behind it" hits_write 7
	flush
	mark
	rd 4k 64
	rd 128k 32
	rd 1M 16
	look
	exactly "reads of own blocks, one hit for each" hits_read 112
	wr 4k 64
	wr 1M 16
	look
	exactly "writes of own blocks, one hit for each" hits_write 80
	rd 1M 8 $((40 << 20))
	look
	exactly "reads of blocks of the base, one hit for each" hits_read 120
	rd 1M 1 $((31 << 19))
	look
	exactly "a read is cut where own blocks end, and nowhere else" hits_read 122
	exactly "hits" events 0
	exactly "hits" faults 0
	exactly "hits" copies 0
	exactly "hits" commits 0
	finish hits
}

# ---- the path of a hit --------------------------------------------------------

# Functions called for what mydev is given, from ftrace; without those of interrupts, and
# what RCU makes up for one that came in a section.
called()
{
	awk -F'|' '/\|.*[({]/ {
		cpu = $1 + 0
		text = $2
		match(text, /^ */)
		depth = RLENGTH
		if (cpu in hidden && depth > hidden[cpu])
			next
		delete hidden[cpu]
		sub(/^ */, "", text)
		name = text
		sub(/[ (].*/, "", name)
		if (name !~ /^_raw_/ && name ~ /irq|sysvec|^asm_|rcu_read_unlock_special/)
			hidden[cpu] = depth
		else
			print name
	}' "$tracing/trace" | sort | uniq -c
}

# trace COMMAND...: what it makes the kernel call, in the file path.
trace()
{
	echo >"$tracing/trace"
	echo 1 >"$tracing/tracing_on"
	"$@"
	echo 0 >"$tracing/tracing_on"
	called >path
	grep -q dmu_map path || die "nothing was traced"
}

# Allocation, locks that processors share, wakeups, work put off.
forbidden='alloc|slab|mempool|_spin_(try)?lock|_read_lock_|_write_lock_|mutex|rwsem|down_|wake|queue|sched'
# One of each processor's own, and what they make of a name.
allowed='__cond_resched'

# untouched WHAT COMMAND...: once of five times is enough, as a hit does the same each time,
# and an interrupt may show half of what it did.
untouched()
{
	local what=$1 bad
	shift
	for _ in 1 2 3 4 5; do
		trace "$@"
		bad=$(grep -E "$forbidden" path | grep -vE "$allowed") && continue
		echo "ok $what: $(awk '{ printf "%s%s", sep, $2; sep = " " }' path)"
		return
	done
	fail "$what calls $bad"
}

test_path()
{
	start_on_ram
	wr 1M 1
	flush
	echo 0 >"$tracing/tracing_on"
	echo dmu_map dmu_end_io >"$tracing/set_graph_function" || die "ftrace does not know the target"
	echo 0 >"$tracing/options/funcgraph-irqs"
	echo function_graph >"$tracing/current_tracer"
	trace wr 4k 1 $((16 << 20))
	grep -q _raw_spin_lock path || fail "a first write is not seen to lock: this test sees nothing"
	flush
	untouched "a read" rd 4k 16
	untouched "a write" wr 4k 16
	untouched "a read of 16 blocks" rd 1M 1
	untouched "a read of the base" rd 4k 16 $((40 << 20))
	echo nop >"$tracing/current_tracer"
	echo >"$tracing/set_graph_function"
	finish path
}

# ---- flushes ------------------------------------------------------------------

# A hundred writers of a block each, who flush; cowd answers when all of them wait.
hundred()
{
	local worker waiting=0 writers limit=/proc/sys/kernel/hung_task_timeout_secs before
	worker=$(of_json worker </run/cowd/mydev.json)
	before=$(<$limit)
	echo 600 >$limit	# they wait on purpose
	kill -STOP "$worker"
	load --thread --numjobs=100 --rw=write --bs=64k --size=64k --offset_increment=64k --end_fsync=1 \
		--offset=$((32 << 20)) --group_reporting &
	writers=$!
	for _ in $(seq 1500); do
		waiting=$(counter waiting)
		[ "$waiting" -ge 100 ] && break
		sleep 0.2
	done
	kill -CONT "$worker"
	wait $writers || fail "the hundred writers"
	echo "$before" >$limit
	[ "$waiting" = 100 ] || fail "a hundred flushes: $waiting wait"
}

test_flushes()
{
	start_on_ram
	wr 64k 1
	flush
	[ "$(counter uncommitted)" = 0 ] || fail "something is uncommitted after a flush"
	mark
	load --rw=randwrite --size=64k --fsync=1 --end_fsync=1
	look
	exactly "writes of own blocks, each flushed" hits_write 16
	exactly "writes of own blocks, each flushed" commits 0
	exactly "writes of own blocks, each flushed" events 0
	[ "$(grown flushes)" -ge 16 ] || fail "16 writes, each flushed: $(grown flushes) flushes are counted"
	mark
	hundred
	look
	exactly "a hundred first writes that flush" copies 0
	exactly "a hundred first writes that flush" overwrites 100
	at_most "commits for a hundred flushes that wait" "$(grown commits)" 3
	finish flushes
}

# ---- 1 TiB --------------------------------------------------------------------

test_huge()
{
	local blocks=$((1 << 24))
	modprobe loop
	truncate -s 1T base.img
	dscow_tool -c a.dscow base.img >/dev/null || die "dscow_tool"
	serve -p dscow mydev a.dscow
	mark
	load --rw=randread --number_ios=200
	look
	exactly "first reads all over 1 TiB" events 1
	load --rw=randwrite --number_ios=100
	look
	exactly "first writes all over 1 TiB" events 1
	exactly "first writes all over 1 TiB" faults 1
	exactly "first writes all over 1 TiB" copies 100
	at_most "map memory for 1 TiB, bits" "$(($(counter map_bytes) * 8))" $((blocks * 2 * 101 / 100))
	finish "1 TiB"
	rm base.img a.dscow
}

# ---- qcow2 --------------------------------------------------------------------

# A part of each of 256 clusters, one after the other, with a flush now and then.
qcow2_first_writes()
{
	serve -p qcow2 --allow-backing "$work" mydev a.qcow2
	mark
	load --rw=write:60k --number_ios=256 --fsync=40
	look
	exactly "$1" copies 256
	at_most "questions of 256 first writes in a row, $1" "$(grown events)" 16
	finish "$1"
}

test_qcow2_writes()
{
	modprobe loop
	file base.img $((64 << 20))
	qemu-img create -q -f qcow2 a.qcow2 64M
	qcow2_first_writes "an empty image"
	qemu-img create -q -f qcow2 -b base.img -F raw a.qcow2
	qcow2_first_writes "an overlay"
	qemu-img check -q -f qcow2 a.qcow2 || fail "qemu-img check: $?"
	rm a.qcow2 base.img
}

# What qemu-img says follows each other in the file, cut where tables end: each part may ask once.
contiguous()
{
	qemu-img map --output=json -f qcow2 a.qcow2 |
		jq '[.[] | ((.start + .length - 1) / 536870912 | floor) - (.start / 536870912 | floor) + 1] | add'
}

test_qcow2_reads()
{
	local parts
	modprobe loop
	qemu-img create -q -f qcow2 -o preallocation=metadata a.qcow2 4G
	parts=$(contiguous)
	serve -p qcow2 mydev a.qcow2
	mark
	load --rw=read:4092k --number_ios=1024
	look
	exactly "reads of 4 GiB" hits_read $((1024 - $(grown faults)))
	at_most "questions, 4 GiB that lie in order" "$(grown events)" "$parts"
	finish "qcow2 in order"
	truncate -s 4G base.img
	qemu-img create -q -f qcow2 -b base.img -F raw a.qcow2
	serve -p qcow2 --allow-backing "$work" mydev a.qcow2
	mark
	load --rw=read:4092k --number_ios=1024
	look
	at_most "questions, 4 GiB of a backing file" "$(grown events)" 8
	finish "qcow2 over a base"
	rm a.qcow2 base.img
}

# ---- what a device takes ------------------------------------------------------

# Locked memory is taken whether it is used or not; the stack of a thread is 8 MiB by default.
test_memory()
{
	local worker
	start_on_ram
	worker=$(of_json worker </run/cowd/mydev.json)
	at_most "locked memory of a worker, KiB, but for the libraries' files" \
		"$(awk '/^[0-9a-f]+-/ { own = $4 == "00:00" } /^Locked:/ && own { n += $2 } END { print n }' \
			"/proc/$worker/smaps")" 3072
	finish memory
}

# device I: an overlay of base.img, and a device of it, mydevI.
device()
{
	cowimg create -f dscow -b "$work/base.img" -F raw "$1.dscow" >/dev/null || die "cowimg create"
	"${@:2}" serve -p dscow "mydev$1" "$1.dscow"
}

stop_devices()
{
	local i
	for ((i = 1; i <= $1; i++)); do cowctl stop "mydev$i" || fail "cowctl stop mydev$i"; done
	nothing_left "$1 devices"
	rm ./*.dscow base.img
}

# A start looks at the loop devices of all others, but as little as can be.
test_starts()
{
	local i most=2
	local -a started
	modprobe loop
	# Without IMA the kernel counts no readers, and each loop device is looked at.
	grep -q ' ima_file_check$' /proc/kallsyms || most=20
	file base.img $((1 << 20))
	for ((i = 1; i <= 20; i++)); do
		device $i traced
		started[i]=$(wc -l <calls)
	done
	echo "a start makes ${started[2]} system calls as the second device, ${started[20]} as the twentieth"
	at_most "system calls of a start more, for each device that is there" \
		$(((started[20] - started[2]) / 18)) $most
	stop_devices 20
}

ask()
{
	local i
	for ((i = 0; i < 16; i++)); do
		dmsetup message mydev 0 evict
		rd 4k 1
	done
}

# fd_of PID KIND: the descriptor, as the trace shows it.
fd_of()
{
	local fd
	for fd in "/proc/$1/fd/"*; do
		[ "$(readlink "$fd")" != "anon_inode:[$2]" ] || printf '%x' "${fd##*/}"
	done
}

# What the worker does for each question that comes alone: poll(), read() and write(), and with
# more processors often a poll() and a read() in vain, which is for nobody to bound. 0 is read().
test_calls()
{
	local worker
	start_on_ram
	rd 4k 1
	worker=$(of_json worker </run/cowd/mydev.json)
	mark
	traced ask
	look
	exactly "reads, each after what was known is forgotten" events 16
	echo "system calls of the worker for 16 questions: $(grep -c "^$worker " calls)"
	at_most "reads of the engine's descriptor, which had nothing to say" \
		"$(grep -c "^$worker 0 $(fd_of "$worker" eventfd)," calls)" 2
	finish calls
}

sectors_read() { awk '{ print $3 }' "/sys/dev/block/$(mountpoint -d "$(stat -c %m .)")/stat"; }

# A base that many devices read comes from its disk once.
test_base()
{
	local i before kib right
	modprobe loop
	file base.img $((16 << 20))
	right=$(sum base.img)
	for ((i = 1; i <= 8; i++)); do device $i; done
	sync
	echo 3 >/proc/sys/vm/drop_caches
	before=$(sectors_read)
	for ((i = 1; i <= 8; i++)); do
		[ "$(dd if="/dev/mapper/mydev$i" bs=1M iflag=direct status=none | md5sum)" = "$right" ] ||
			fail "mydev$i reads wrong"
	done
	kib=$((($(sectors_read) - before) / 2))
	[ "$kib" -ge $((15 << 10)) ] || fail "$kib KiB were read: this test sees nothing"
	at_most "KiB from the disk, 16 MiB of a base read by 8 devices" "$kib" $((18 << 10))
	stop_devices 8
}

[ $# -gt 0 ] || set -- hits path flushes huge qcow2_writes qcow2_reads memory starts calls base
for name; do
	"test_$name"
done
