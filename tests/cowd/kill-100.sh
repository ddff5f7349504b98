#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SIGKILL of cowd at random moments under a load that verifies all it reads: hits
# and first writes inside delegated extents go on while it is dead, no I/O fails,
# and it is served again by --recover and by a plain start in turns.
#	kill-100.sh [--split] [--long | --times N] [--seed S] [--plugin NAME]
# --split: of a VMDK in two files.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/until.sh
. "$(dirname "$0")/../until.sh"
if [ "${1:-}" = --split ]; then
	shift
	split=1 allow=(--allow-write "$work")
	set -- "$@" --plugin vmdk
fi
arguments "$@"
: "${times:=${long:+100}}" "${times:=12}"

idle=0 io=0 firsts=0
whom=(pid worker both)

more_firsts() { [ "$(counted firsts)" -gt "$1" ]; }

# Counts what the kernel does alone.
while_dead()
{
	local io_before firsts_before
	io_before=$(counted total)
	firsts_before=$(counted firsts)
	pause $((100 + RANDOM % 400))
	# The other formats give places to those who ask.
	[ "$plugin" != dscow ] || until_true 30 more_firsts "$firsts_before" ||
		die "kill $1: no first write while it is dead, in 30 s"
	load_runs "kill $1"
	io_before=$(($(counted total) - io_before))
	[ $io_before -gt 0 ] || idle=$((idle + 1))
	io=$((io + io_before))
	firsts=$((firsts + $(counted firsts) - firsts_before))
}

serve_again()
{
	if [ $(($1 % 2)) = 0 ]; then
		timeout 60 cowd --recover mydev || die "kill $1: --recover"
	else
		timeout 60 cowd -p "$plugin" "${allow[@]}" mydev "$image" || die "kill $1: plain start"
	fi
}

# So slow that there are first writes left for the last kill.
export LOAD_ZEROES=1 LOAD_FRESH=80
overlay $((48 + (times < 40 ? times : 40) * 6)) 24
cowd -p "$plugin" "${allow[@]}" mydev "$image" || die "cowd"
load_start
for n in $(seq "$times"); do
	served=$(counted firsts)
	pause $((RANDOM % 700))
	# What one cowd delegated ends when the next one attaches, who is asked once first.
	[ "$plugin" != dscow ] || until_true 30 more_firsts "$served" ||
		die "kill $n: no first write while it is served, in 30 s"
	kill_cowd "${whom[RANDOM % 3]}"
	while_dead "$n"
	serve_again "$n"
	[ $((n % 10)) != 0 ] || echo "ok $SECONDS s: $n kills, $io I/Os while it was dead"
done
load_stop
zeroes=$(counted zeroes) discards=$(counted discards)
dmsetup status mydev
all_is_well
echo "$times kills of $plugin${split:+, split,} survived, seed $seed; while it was dead: $io I/Os, $firsts first writes, $idle times no I/O"
[ $io -gt 0 ] || fail "no I/O while it was dead"
[ "$zeroes" -gt 0 ] || fail "no zeroes were written"
case $plugin in
qcow | qcow2 | vmdk) [ "$discards" -gt 0 ] || fail "nothing was discarded" ;;
esac
[ $((idle * 4)) -le "$times" ] || fail "too often no I/O while it was dead"
