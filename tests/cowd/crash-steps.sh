#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowd killed before every step by which it changes the world: a start, a first
# write with a commit, a stop.  After each the device can be had by a plain start
# and by --recover, or be cleaned up by cowctl stop, and nothing is lost.
#	crash-steps.sh [--steps FROM-TO] [--long | --times N] [--seed S]
# --times: how many of the steps are tried, spread evenly; --long: all of them,
# each with each of the three; --steps: only these.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
range=
[ "${1:-}" != --steps ] || { range=$2; shift 2; }
arguments "$@"
: "${times:=8}"

page=$work/page
export CRASH_AT_FILE=$page
: >steps

# number OFFSET: of the page; poke N: die at step N, and count anew.
number() { od -An -t u8 -j "$1" -N 8 "$page" | tr -d ' '; }
poke()
{
	local i hex=''
	for i in 0 8 16 24; do
		hex+=$(printf '\\x%02x' $(($1 >> i & 255)))
	done
	# shellcheck disable=SC2059 # bytes
	{ head -c 8 /dev/zero; printf "$hex"; head -c 68 /dev/zero; } |
		dd of="$page" bs=80 count=1 iflag=fullblock conv=notrunc status=none
}
died_at() { dd if="$page" bs=1 skip=16 count=64 status=none | tr -d '\0'; }

# A whole life; what was flushed is in the model, what may or may not be there
# is written again by the one that follows.
life()
{
	LD_PRELOAD=$shim cowd -p dscow --policy timeout=2 mydev a.dscow 2>/dev/null || return
	block=$((RANDOM % 120))
	file new 65536
	if timeout 60 dd if=new of=/dev/mapper/mydev bs=64k seek=$block oflag=direct \
		conv=notrunc,fsync status=none 2>/dev/null; then
		dd if=new of=model bs=64k seek=$block conv=notrunc status=none
	else
		unsure=$block
	fi
	# Only a living one; what a dead one left is the matter of what follows.
	[ -z "$(daemons)" ] || timeout 100 cowctl stop mydev 2>/dev/null
}

all_dead()
{
	local left
	for _ in $(seq 100); do
		left=$(daemons)
		[ -n "$left" ] || return 0
		sleep 0.05
	done
	# The worker alone was killed while nobody needs it: so is the parent.
	# shellcheck disable=SC2086 # numbers
	kill -9 $left 2>/dev/null
	sleep 0.2
}

# What is unsure is one block: each page of it is the old or the new one, and is known then.
settle_unsure()
{
	local i at=$((unsure * 65536))
	dd if=/dev/mapper/mydev of=got bs=64k skip="$unsure" count=1 status=none
	for ((i = 0; i < 65536; i += 4096)); do
		cmp -s -n 4096 -i $i got new || cmp -s -n 4096 -i $i:$((at + i)) got model ||
			fail "$1: block $unsure holds neither what was there nor what was written at $i"
	done
	dd if=got of=model bs=64k seek="$unsure" conv=notrunc status=none
}

compare()
{
	[ -z "$unsure" ] || settle_unsure "$1"
	timeout 60 cmp model /dev/mapper/mydev || fail "$1: reads wrong"
	unsure=
}

serve_and_stop()
{
	timeout 100 cowd -p dscow mydev a.dscow || die "$1: plain start"
	compare "$1"
	timeout 100 cowctl stop mydev || die "$1: cowctl stop"
}

# after HOW WHAT
after()
{
	local there=
	[ ! -e /run/cowd/mydev.json ] || there=1
	case $1 in
	start)
		serve_and_stop "$2"
		;;
	recover)
		if [ -n "$there" ] && dmsetup info mydev >/dev/null 2>&1; then
			timeout 100 cowd --recover mydev || die "$2: --recover"
			compare "$2"
			timeout 100 cowctl stop mydev || die "$2: cowctl stop"
		elif timeout 100 cowd --recover mydev 2>/dev/null; then
			fail "$2: recovered what is not there"
		fi
		;;
	stop)
		timeout 100 cowctl stop mydev 2>err
		case $? in
		0) ;;
		3) [ -z "$there" ] || fail "$2: cowctl stop: $(cat err)" ;;
		*) fail "$2: cowctl stop: $(cat err)" ;;
		esac
		;;
	esac
	[ "$1" != start ] || { nothing_left "$2"; return; }
	[ -z "$there" ] || nothing_left "$2"
	serve_and_stop "$2, at last"
	nothing_left "$2"
}

shim=$built/.libs/crash-at.so
[ -e "$shim" ] || die "$shim is not built"
overlay 8 4
cp base.img model
truncate -s 80 page
unsure=

# Who takes long to end has ended when cowctl stop says so: the helper that
# removes the device, and cowd itself.
CRASH_AT_LINGER=1500 life || die "a life that ends slowly fails"
nothing_left "a slow end"

poke 0
life || die "a life that nobody disturbs fails"
total=$(number 0)
[ "$total" -gt 20 ] || die "only $total steps; is the shim loaded?"
nothing_left "an undisturbed life"
how=(start recover stop)
step=$((total / times)) tried=0 lives=0 killed=0
[ -z "$long" ] && [ $step -gt 0 ] || step=1
first=$((1 + (seed - 1) % step)) last=$total
[ -z "$range" ] || { first=${range%-*}; last=${range#*-}; }
for ((n = first; n <= last; n += step)); do
	for h in $([ -n "$long" ] && echo 0 1 2 || echo $((tried % 3))); do
		poke "$n"
		lives=$((lives + 1))
		life
		what="killed before step $n ($(died_at)), then ${how[h]}"
		[ -z "$(died_at)" ] || { killed=$((killed + 1)); died_at >>steps; echo >>steps; }
		poke 0
		all_dead
		after "${how[h]}" "$what"
		[ $failed = 0 ] || die "$what"
		echo "ok $SECONDS s: $what"
	done
	tried=$((tried + 1))
done
dscow_tool -k a.dscow || fail "the overlay's check says $?"
"$load" verify base.img - 4 || fail "the base was changed"
sort steps | uniq -c
echo "$total steps, $killed kills survived, seed $seed"
[ $killed -ge $((lives / 2)) ] || fail "too few were killed"
