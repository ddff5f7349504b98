# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154 # options are set in ./inside
#
# How one figure is taken, and how subjects are measured in turn.
#
# A subject NAME is a function up_NAME which makes a device and sets dev_of[NAME] (and
# span[NAME], if not $size MiB of it are used); what
# it leaves is taken away by the commands that it gave to later(), in reverse.
set -u
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd -P)
declare -A dev_of span
undo=() nbds=0

note() { echo "bench: $*" >&2; }

die()
{
	note "$*"
	exit 1
}

# fact NAME VALUE: stands above the tables.
fact() { echo "$1=$2" >>"$out/facts"; }

later() { undo+=("$*"); }

clear_away()
{
	local i
	for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
		eval "${undo[i]}" >/dev/null 2>&1 || note "failed: ${undo[i]}"
	done
	undo=()
	dev_of=()
	span=()
	nbds=0
}

begin()
{
	[ "$(id -u)" = 0 ] || die "wants root"
	[ -e /dev/dm-userspace ] || die "the module dm-userspace is not loaded"
	work=$(mktemp -d "$SCRATCH/bench.XXXXXX")
	chmod 755 "$work"
	cd "$work" || exit 1
	trap 'clear_away; cd /; umount -l "$work" 2>/dev/null; rm -rf "$work"' EXIT
	# shellcheck disable=SC2046 # names without spaces
	root_in_memory $(type -P cowd cowctl qemu-nbd nbd-client dd) || die "no root in memory"
}

# processes_of DEVICE: those of its cowd.
processes_of() { jq -r '.pid, .worker' "/run/cowd/$1.json"; }

accelerator()
{
	if [ -n "$instructions" ]; then
		echo "TCG, one processor whose clock counts instructions (8 ns each), whatever the host does"
	elif grep -q '^model name.*TCG' /proc/cpuinfo; then
		echo "TCG: emulated, only ratios mean something"
	elif grep -qw hypervisor /proc/cpuinfo; then
		echo "a virtual machine, KVM or another"
	else
		echo "none, the machine itself"
	fi
}

# fill DEV: every block written once, so that all are its own and warm.
fill()
{
	dd if=/dev/zero of="$1" bs=1M count="$size" oflag=direct conv=notrunc status=none || die "fill $1"
	sync "$1"
}

# The patterns: what each is to fio.
pattern()
{
	case $1 in
	randread-4k) echo rw=randread bs=4k ;;
	randwrite-4k) echo rw=randwrite bs=4k ;;
	uring-4k) echo rw=randread bs=4k ioengine=io_uring ;;
	read-128k) echo rw=read bs=128k ;;
	write-128k) echo rw=write bs=128k ;;
	read-1M) echo rw=read bs=1M ;;
	write-1M) echo rw=write bs=1M ;;
	fsync-4k) echo rw=randwrite bs=4k fsync=1 ;;
	*) die "no pattern $1" ;;
	esac
}

# options_of PATTERN: the same, for a command line.
options_of() { pattern "$1" | sed 's/[^ ]*=/--&/g'; }

# job SUBJECT PATTERN DEPTH WORD...: one section for measure, to run after those before.
job()
{
	printf '[%s,%s,%s]\nstonewall\nfilename=%s\niodepth=%s\n' "$1" "$2" "$3" "${dev_of[$1]}" "$3"
	printf '%s\n' "${@:4}"
}

# measure GROUP ROUND: the jobs on standard input, one after the other in one fio, recorded.
measure()
{
	{
		printf '%s\n' '[global]' ioengine=libaio direct=1 thread lat_percentiles=1 clat_percentiles=0 \
			random_generator=tausworthe64
		cat
	} >jobs.fio
	fio --output-format=json --output=fio.json jobs.fio >/dev/null 2>fio.err ||
		die "fio: $(cat fio.err)"
	# fio's remarks come before.
	sed -n '/^{/,$p' fio.json | jq -r --arg group "$1" --arg round "$2" '.jobs[] | (.jobname / ",") as $name |
		(if .write.total_ios > 0 then .write else .read end) |
		[$group, $name[0], $name[1], $name[2], $round, .iops,
		.lat_ns.percentile["50.000000"] / 1000, .lat_ns.percentile["99.000000"] / 1000] |
		@tsv' >>"$out/raw.tsv" || die "fio made no results"
}

wanted() { [ -z "$only" ] || [[ $only == *,$1,* ]]; }

# in_turn GROUP "SUBJECT..." "PATTERN..." "DEPTH...": each round measures each subject
# once before the next pattern, so that what else the computer does meets all alike.
in_turn()
{
	local group=$1 subjects=$2 round pattern depth s
	for ((round = 1; round <= rounds; round++)); do
		for pattern in $3; do
			[ -z "$patterns" ] || [[ $patterns == *,$pattern,* ]] || continue
			for depth in $4; do
				for s in $subjects; do
					# shellcheck disable=SC2046 # words
					job "$s" "$pattern" "$depth" $(pattern "$pattern") norandommap=1 \
						time_based=1 runtime="${milliseconds}ms" size="${span[$s]:-${size}M}"
				done
			done
		done | measure "$group" "$round" || exit 1
		# Who was first is not always first.
		subjects="${subjects#* } ${subjects%% *}"
		note "$group: round $round of $rounds"
	done
}

# all_up REFERENCE... -- SUBJECT...: makes them, and prints nothing; $subjects are those.
all_up()
{
	local s must=1
	subjects=
	for s; do
		[ "$s" != -- ] || { must=; continue; }
		[ -n "$must" ] || wanted "$s" || continue
		"up_$s" || die "$s cannot be set up"
		subjects+="${subjects:+ }$s"
	done
}

# profile_of GROUP SUBJECT PATTERN DEPTH: the functions where processors spend time.
profile_of()
{
	[ -n "$profile" ] || return 0
	# shellcheck disable=SC2046 # words
	perf record -q -e cpu-clock -F 997 -a -o perf.data -- \
		fio --name=profile --filename="${dev_of[$2]}" --ioengine=libaio --direct=1 --iodepth="$4" \
		--thread --norandommap=1 --time_based --runtime=5 --size="${size}M" \
		$(options_of "$3") >/dev/null 2>&1
	perf report -i perf.data --stdio --no-children --sort dso,symbol -g none 2>/dev/null |
		grep -v '^#' | grep . | head -n 40 >"$out/profile-$1-$2-$3-$4.txt"
}
