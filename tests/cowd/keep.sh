#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowctl keep: parent, worker or both are killed under a load that verifies, and the
# device is served again without a person; also after an upgrade, and when a start
# fails at first.  It ends with the device, and restarts nothing that was told to end.
#	keep.sh [--seed S]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
export LOAD_PACE=10	# leaves the processor to the commands that are tried
arguments "$@"

record=/run/cowd/mydev.json
of_record() { of_json "$1" <"$record"; }
state() { cowctl list | awk '$1 == "mydev" { print $2 }'; }

# waits WHAT COMMAND...
waits()
{
	local what=$1 i
	shift
	for i in $(seq 600); do
		"$@" && return
		sleep 0.1
	done
	die "$what: waited 60 s; $(cowctl list; cat keep.log)"
}

another() { [ "$(state)" = running ] && [ "$(of_record worker)" != "$worker" ]; }
is_dead() { [ "$(state)" = dead ] && [ -z "$(daemons)" ]; }
ended() { ! kill -0 "$keeper" 2>/dev/null; }

# killed WHAT SIGNAL-TARGET...: those of the record die; the load goes on as before.
killed()
{
	local what=$1 who victims=''
	shift
	worker=$(of_record worker)
	for who; do victims+=" $(of_record "$who")"; done
	# shellcheck disable=SC2086 # numbers
	kill -9 $victims
	waits "$what" another
	load_runs "$what"
	echo "ok $SECONDS s: $what"
}

cowctl keep mydev 2>err && fail "keeps what is not there"
grep -q 'no cowd serves' err || fail "does not say so: $(cat err)"

overlay 64 16
cowd -p dscow mydev a.dscow || die "cowd"
load_start
cowctl keep mydev 2>keep.log &
keeper=$!
killed "the parent is killed" pid
killed "the worker is killed" worker
killed "both are killed" pid worker

worker=$(of_record worker)
timeout 200 cowctl upgrade mydev >/dev/null || fail "cowctl upgrade: exit status $?"
another || fail "not upgraded"
[ "$(grep -c 'started again' keep.log)" = 3 ] || fail "an upgrade is no death: $(cat keep.log)"
killed "killed after an upgrade" pid worker
load_stop

# Nothing to serve for a while: it tries again.
mv a.dscow moved
worker=$(of_record worker)
# shellcheck disable=SC2046 # numbers
kill -9 $(of_record pid) $(of_record worker)
waits "the first try" grep -q 'a.dscow' keep.log
waits "dead without its image" is_dead
mv moved a.dscow
waits "its image is there again" another
ended && fail "gave up"

cowctl stop mydev || fail "cowctl stop: exit status $?"
waits "the device is gone" ended
wait "$keeper" || fail "the end of the device is an error: status $?"
[ "$(grep -c 'cowd (process [0-9]*) died' keep.log)" -ge 5 ] || fail "does not say what it does: $(cat keep.log)"
nothing_left "kept and stopped"
dscow_tool -k a.dscow || fail "the overlay's check says $?"
