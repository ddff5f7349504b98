# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of this folder share.  They run as root in a test machine:
#	tests/vm/run tests/cowd/serve.sh
# and use cowd, cowctl and dscow_tool from PATH.
set -u

work=$(mktemp -d "${SCRATCH:-/tmp}/cowd-test.XXXXXX")
# shellcheck disable=SC2034
built=${DMU_BUILD_DIR:-$(cd "$(dirname "$0")/../../build" && pwd)}/tests/cowd
load=$built/load
chmod 755 "$work"
failed=0

cleanup()
{
	local status=$?
	trap - EXIT
	cd /
	# shellcheck disable=SC2046 # numbers
	kill -9 $(jobs -p) 2>/dev/null
	umount "$work"/mnt* 2>/dev/null
	for name in $(dmsetup ls --target userspace 2>/dev/null | awk '/\t/ { print $1 }'); do
		cowctl stop "$name" >/dev/null 2>&1 || {
			dmsetup message "$name" 0 policy fail
			dmsetup remove --force "$name"
		}
	done
	rm -rf "$work"
	[ $failed = 0 ] || status=1
	[ $status = 0 ] && echo "PASS ${0##*/}"
	exit $status
}
trap cleanup EXIT
cd "$work" || exit 1

fail()
{
	echo "FAIL: $*" >&2
	failed=1
}

die()
{
	fail "$*"
	exit 1
}

# found GLOB: its matches are in $found.
found()
{
	found=''
	# shellcheck disable=SC2086 # a pattern
	set -- $1
	[ ! -e "$1" ] || found=$*
}

# What a cowd that ended, or never began, must not leave. No program is started here and
# in what follows: emulated, each costs more than all that the shell does by itself.
nothing_left()
{
	local left
	left=$(daemons)
	[ -z "$left" ] || fail "$1: left processes $left"
	found '/sys/block/dm-*/dm/name'
	# shellcheck disable=SC2086 # names
	[ -z "$found" ] || fail "$1: left the device $(cat $found)"
	found '/sys/block/loop*/loop/backing_file'
	# shellcheck disable=SC2086
	[ -z "$found" ] || fail "$1: left the loop device $(cat $found)"
	found '/run/cowd/*'
	[ -z "$found" ] || fail "$1: left in /run/cowd: $found"
	found '/run/cowd/.[!.]*'
	[ -z "$found" ] || fail "$1: left in /run/cowd: $found"
}

# Process numbers of all cowds, but of those that only wait to be reaped.
daemons()
{
	local file line
	for file in /proc/[0-9]*/stat; do
		{ read -r line <"$file"; } 2>/dev/null || continue
		[[ $line != *" (cowd) "[!Z]* ]] || echo "${line%% *}"
	done
}

# all_end WHAT: every cowd ends by itself, or by what was done to it.
all_end()
{
	for _ in $(seq 300); do
		[ -n "$(daemons)" ] || return 0
		sleep 0.1
	done
	die "$1: cowd $(daemons) lives on"
}

# All files here, their sizes, and what they begin with, which is where metadata is.
# Space may be reserved in them.
files_here()
{
	find . -xdev -type f ! -name out ! -name err -printf '%p %s\n' | sort
	find . -xdev -type f ! -name out ! -name err -print0 | sort -z | xargs -0r head -qc 65536 | md5sum
}

# refused WHAT TEXT ARG...: cowd ARG... fails with one sentence on stderr that
# holds TEXT, nothing is left, and no file is another one.
refused()
{
	local what=$1 text=$2 status before
	local -a sentences
	shift 2
	before=$(files_here)
	timeout 60 cowd "$@" >out 2>err </dev/null
	status=$?
	[ "$before" = "$(files_here)" ] || fail "$what: files were made, changed or are gone"
	[ $status = 1 ] || fail "$what: exit status $status"
	[ ! -s out ] || fail "$what: said on stdout: $(<out)"
	mapfile -t sentences <err
	[ ${#sentences[@]} = 1 ] || fail "$what: ${#sentences[@]} sentences: ${sentences[*]}"
	[[ ${sentences[*]} == *"$text"* ]] || fail "$what: does not say '$text': ${sentences[*]}"
	nothing_left "$what"
	echo "ok $SECONDS s: $what: ${sentences[*]}"
}

# pause MS: starts no program, so that it is about as long as that.  (A number by chance is
# the argument, as in $(...) it would not be one of the seed's.)
exec {nothing_comes}<> <(:)
pause()
{
	local s
	printf -v s %d.%03d $(($1 / 1000)) $(($1 % 1000))
	read -r -t "$s" -u "$nothing_comes"
}

# A file of random bytes: file PATH SIZE
file()
{
	head -c "$2" /dev/urandom >"$1"
}

# arguments "$@": --long, --times N, --seed S, --plugin NAME set $long, $times,
# $seed, and $plugin and $image, which stay those of dscow without it.
# Who sets $split makes of it a descriptor that names two files, which $allow lets cowd write.
plugin=dscow image=a.dscow split='' allow=()
# shellcheck disable=SC2034 # for the scripts
arguments()
{
	long='' times='' seed=1
	while [ $# -gt 0 ]; do
		case $1 in
		--long) long=1 ;;
		--times) times=$2; shift ;;
		--seed) seed=$2; shift ;;
		--plugin) plugin=$2 image=a.$2; shift ;;
		*) die "usage: ${0##*/} [--long] [--times N] [--seed S] [--plugin NAME]" ;;
		esac
		shift
	done
	RANDOM=$seed
}

make_overlay_of_its_own_kind()
{
	if [ -z "$split" ]; then
		cowimg create -f "$plugin" -b "$base" -F "$plugin" "$image" >/dev/null
		return
	fi
	# Two sparse files, as of a disk that is larger than 2 GiB.
	local half size
	size=$(stat -c %s base.img)
	for half in 1 2; do
		qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b "$base" -F vmdk \
			"half$half.vmdk" $((size / 2)) || return
	done
	{
		sed '/^RW /d' half1.vmdk
		grep -h '^RW ' half1.vmdk half2.vmdk
	} >"$image"
	[ "$(grep -c '^RW .*SPARSE' "$image")" = 2 ]
}

# The overlay over base.img, or over a base of its own kind where it takes no raw one.
make_overlay()
{
	base=base.img
	case $plugin in
	dscow) dscow_tool -c "$image" base.img >/dev/null ;;
	vhd | vmdk)
		base=base.$plugin
		cowimg convert -f raw -O "$plugin" base.img "$base" &&
			make_overlay_of_its_own_kind
		;;
	*) cowimg create -f "$plugin" -b base.img -F raw "$image" >/dev/null ;;
	esac
}

# The overlay $image of MIB, whose base is stamped as far as FILLED: overlay MIB FILLED
overlay()
{
	modprobe loop || die "no loop devices"
	rm -f base.* "$image" state
	"$load" fill base.img "$2" || die "load fill"
	truncate -s "$1M" base.img
	filled=$2 base_size=$(($1 << 20))
	make_overlay || die "the overlay cannot be made"
}

# No damage in $image, by us and by qemu-img where it can look. A daemon that
# was killed may leave space that nothing uses, in formats that give places out.
check_overlay()
{
	local status=0 qemu_status=0
	if [ "$plugin" = dscow ]; then
		dscow_tool -k "$image" || fail "the overlay's check says $?"
		return
	fi
	cowimg check -f "$plugin" "$image" || status=$?
	[ $status = 0 ] || [ $status = 3 ] || fail "the overlay's check says $status"
	case $plugin in
	qcow2 | vmdk)
		qemu-img check -f "$plugin" "$image" || qemu_status=$?
		[ $qemu_status = 0 ] || [ $qemu_status = 3 ] || fail "qemu-img check says $qemu_status"
		;;
	esac
}

base_is_kept()
{
	[ "$base" = base.img ] || cowimg convert --force -f "$plugin" -O raw "$base" base.img || return
	[ "$(stat -c %s base.img)" = $base_size ] || return
	"$load" verify base.img - "$filled"
}

# The load in the background, on mydev, or its continuation; counted COUNTER tells how far it is.
# What is not delegated before it is written to is hot when all of it was.
load_start()
{
	local before=0 warm=0
	[ ! -s state ] || before=$(counted total) warm=$(counted warm)
	[ "$plugin" = dscow ] || export LOAD_WARM=1
	"$load" run /dev/mapper/mydev state "$filled" "${seed:-1}" &
	load_pid=$!
	for _ in $(seq 1200); do
		sleep 0.1
		kill -0 "$load_pid" 2>/dev/null || break
		[ -s state ] && [ "$(counted total)" -gt "$before" ] || continue
		[ -z "${LOAD_WARM:-}" ] || [ "$(counted warm)" = $((warm + 4)) ] || continue
		return
	done
	die "the load does not start"
}

counted()
{
	"$load" count state | tr ' ' '\n' | sed -n "s/^$1=//p"
}

load_runs()
{
	kill -0 "$load_pid" 2>/dev/null && [ "$(counted errors)" = 0 ] ||
		die "$*: the load has seen an error"
}

load_stop()
{
	kill "$load_pid"
	wait "$load_pid" || fail "the load saw an error: exit status $?"
}

# Stopped, started and stopped again: every sector, the image, the base.
all_is_well()
{
	"$load" verify /dev/mapper/mydev state || fail "reads wrong"
	cowctl stop mydev || fail "cowctl stop: exit status $?"
	nothing_left "the end"
	check_overlay
	cowd -p "$plugin" "${allow[@]}" mydev "$image" || die "cowd"
	"$load" verify /dev/mapper/mydev state || fail "reads wrong after a restart"
	cowctl stop mydev || fail "cowctl stop: exit status $?"
	base_is_kept || fail "the base was changed"
}

# in_force POLICY WHEN: it is that of mydev.
in_force()
{
	dmsetup table mydev | grep -q " $1 map_memory" ||
		fail "$2: the policy is not $1: $(dmsetup table mydev)"
}

# features_in_force "map_memory KIB no_space X" WHEN
features_in_force()
{
	dmsetup table mydev | grep -q " $1\$" ||
		fail "$2: not in force: $1: $(dmsetup table mydev)"
}

# of_json NAME: its value, a number or a word.  Emulated, jq takes two seconds to begin.
of_json()
{
	tr ',{}' '\n\n\n' | sed -n "s/^[[:space:]]*\"$1\":[[:space:]]*\"\{0,1\}\([^\"]*\)\"\{0,1\}[[:space:]]*\$/\1/p"
}

# Both of a device.
processes_of()
{
	of_json pid <"/run/cowd/$1.json"
	of_json worker <"/run/cowd/$1.json"
}

# kill_cowd WHO: pid, worker or both; until all are gone.
kill_cowd()
{
	local victims
	case $1 in
	both) victims=$(processes_of mydev) ;;
	*) victims=$(of_json "$1" </run/cowd/mydev.json) ;;
	esac
	# shellcheck disable=SC2086 # numbers
	kill -9 $victims || fail "kill -9 $victims"
	for _ in $(seq 100); do
		[ -z "$(daemons)" ] && return
		sleep 0.05
	done
	die "killed $1, but $(daemons) lives on"
}

# traced COMMAND...: in the file calls, process, number and arguments of each system call that
# any cowd makes meanwhile.  $? is the command's.
traced()
{
	local tracing=/sys/kernel/tracing status
	local event=$tracing/events/raw_syscalls/sys_enter
	echo 0 >"$tracing/tracing_on"
	echo >"$tracing/trace"
	echo 'comm == "cowd"' >"$event/filter" || die "the kernel traces no system calls"
	echo 1 >"$event/enable"
	echo 1 >"$tracing/tracing_on"
	"$@"
	status=$?
	echo 0 >"$tracing/tracing_on"
	echo 0 >"$event/enable"
	sed -n 's/^ *cowd-\([0-9]*\) .* NR \([0-9]*\) (\(.*\))$/\1 \2 \3/p' "$tracing/trace" >calls
	[ -s calls ] || die "no system call was traced"
	return $status
}

sum()
{
	md5sum <"$1"
}
