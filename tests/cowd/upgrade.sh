#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowctl upgrade: the cowd that is installed takes over from the one that runs,
# under a load that verifies, and hot I/O goes on, also while none is attached.
# Then what a supervisor's Restart= does, by the command line of the unit, when
# parent, worker or both die.
#	upgrade.sh [--long | --times N] [--seed S] [--plugin NAME]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
export LOAD_PACE=10	# leaves the processor to the commands that are tried
export LOAD_WARM=1	# so that no hot I/O has to ask
arguments "$@"
: "${times:=${long:+30}}" "${times:=3}"

installed=$(command -v cowd)
version=$(cowd --version | awk '{ print $NF }')
slowest=0 done_while=0

# The same program under another version of the same length.
install_version()
{
	sed "s/$version/$1/g" "$installed" >"$installed.new"
	chmod 755 "$installed.new"
	mv "$installed.new" "$installed"
	version=$1
	[ "$(cowd --version | awk '{ print $NF }')" = "$1" ] || die "cannot install $1"
}

status_of() { cowctl status --json mydev | of_json "$1"; }

upgrade_once()
{
	local before pid worker ms
	install_version "$(printf '9.%0*d' $((${#version} - 2)) "$1")"
	pid=$(status_of pid) worker=$(status_of worker)
	"$load" count state reset >/dev/null
	before=$(counted total)
	timeout 200 cowctl upgrade mydev || die "cowctl upgrade: exit status $?"
	done_while=$((done_while + $(counted total) - before))
	ms=$(counted slowest_ms)
	[ "$ms" -le $slowest ] || slowest=$ms
	load_runs "upgrade $1"
	[ "$(counted total)" -gt "$before" ] || fail "no I/O during upgrade $1"
	[ "$(status_of version)" = "$version" ] || fail "runs $(status_of version), not $version"
	[ "$(status_of worker)" != "$worker" ] || fail "the worker is the same"
	[ -n "$2" ] || [ "$(status_of pid)" != "$pid" ] || fail "the process is the same"
	[ "$(daemons | wc -l)" = 2 ] || fail "processes: $(daemons)"
}

attached() { dmsetup status mydev | awk '{ print $4 }'; }

# Each hot thread does ten I/Os more, and nothing else is done until then.
hot_goes_on()
{
	local before
	before=$(counted hot)
	for _ in $(seq 600); do
		[ "$(counted hot)" -lt $((before + 10)) ] || return
		sleep 0.1
	done
	die "$1: hot I/O waits"
}

# An upgrade that is held where nobody is attached, and again when the new one just is.
upgrade_in_steps()
{
	local worker upgrading
	worker=$(status_of worker)
	mv "$installed" "$installed.good"
	cat >"$installed" <<END
#!/bin/sh
[ "\$1" = --version ] && exit
: >$work/executed
while [ -e $work/executed ]; do sleep 0.1; done
exec $installed "\$@"
END
	chmod 755 "$installed"
	timeout 200 cowctl upgrade mydev &
	upgrading=$!
	for _ in $(seq 1200); do
		[ ! -e executed ] || break
		sleep 0.1
	done
	[ -e executed ] || die "the new one is not executed"
	[ "$(attached)" = 0 ] || die "the old one is still attached"
	hot_goes_on "nobody is attached"
	[ "$(attached)" = 0 ] || die "somebody has attached"
	mv "$installed.good" "$installed"
	rm executed
	for _ in $(seq 1200); do
		[ "$(attached)" = 0 ] || break
		sleep 0.1
	done
	# shellcheck disable=SC2046 # numbers
	kill -STOP $(daemons)
	[ "$(attached)" = 1 ] || die "the new one does not attach"
	hot_goes_on "the new one does nothing yet"
	# shellcheck disable=SC2046
	kill -CONT $(daemons)
	wait $upgrading || fail "in steps: cowctl upgrade: exit status $?"
	load_runs "upgrade in steps"
	[ "$(status_of worker)" != "$worker" ] || fail "in steps: the worker is the same"
	echo "ok $SECONDS s: hot I/O goes on with nobody attached, and with a new one that does nothing"
}

overlay 96 16
cowd -p "$plugin" --policy fail mydev "$image" || die "cowd"
load_start
for n in $(seq "$times"); do
	upgrade_once "$n" ""
done
in_force fail "upgraded"
# Not the one that it was started with: the one in force.
dmsetup message mydev 0 policy timeout 77
upgrade_once 98 ""
in_force "timeout 77" "upgraded after a message"
echo "$times upgrades, $done_while I/Os during them, the slowest took $slowest ms"
upgrade_in_steps

# One that does not run is not tried; one that runs and cannot serve says why.
mv "$installed" "$installed.good"
echo garbage >"$installed"
chmod 755 "$installed"
cowctl upgrade mydev 2>err && fail "upgraded to garbage"
grep -q "does not run" err || fail "does not say that it does not run: $(cat err)"
[ "$(status_of state)" = running ] || fail "does not go on"
cat >"$installed" <<'END'
#!/bin/sh
[ "$1" = --version ] || { echo "cowd: this one is broken" >&2; exit 1; }
END
cowctl upgrade mydev 2>err && fail "upgraded to one that cannot serve"
grep -q "this one is broken" err || fail "the new one's words are lost: $(cat err)"
grep -q "recover" err || fail "does not say what helps: $(cat err)"
mv "$installed.good" "$installed"
cowctl upgrade mydev 2>err && fail "upgraded what is dead"
grep -q "recover" err || fail "dead: does not say what helps: $(cat err)"
in_force queue "nobody has taken over yet"
cowd --recover mydev || die "cowd --recover"
in_force "timeout 77" "taken over at the second try"
load_runs "the first one again"
load_stop
all_is_well

# Restart=on-failure, RestartSec=1, as the unit says; KillMode=mixed ends leftovers.
unit=$(dirname "$installed")/../lib/systemd/system/cowd@.service
of_unit() { sed -n "s/%i/mydev/g; s/^$1=.bin.sh -c '\(.*\)'$/\1/p" "$unit"; }
command=$(of_unit ExecStart) end=$(of_unit ExecStop)
[ -n "$command" ] && [ -n "$end" ] || die "$unit: no ExecStart, or no ExecStop"
supervise()
{
	while ! FORMAT=$plugin IMAGE=$work/$image OPTIONS='' sh -c "$command" 2>>fg.log; do
		sleep 1
	done
}
serves()
{
	for _ in $(seq 200); do
		[ "$(status_of state 2>/dev/null)" = running ] &&
			[ "$(status_of worker)" != "$1" ] && return
		sleep 0.1
	done
	die "$2: nobody serves again: $(cat fg.log)"
}
supervise &
serves 0 "first start"
load_start
for who in worker pid both; do
	worker=$(status_of worker)
	before=$(counted total)
	# shellcheck disable=SC2046 # numbers
	case $who in
	both) kill -9 $(status_of pid) "$worker" ;;
	*) kill -9 "$(status_of $who)" ;;
	esac
	# systemd does so when it is dead already, and names no process then.
	env -u MAINPID sh -c "$end" || fail "killed $who: ExecStop: exit status $?"
	serves "$worker" "killed $who"
	load_runs "killed $who"
	[ "$(counted total)" -gt "$before" ] || fail "no I/O around the death of $who"
	echo "ok: killed $who, served again"
done
# In the foreground the process stays, so that the supervisor need not know.
upgrade_once 99 same
load_stop
MAINPID=$(status_of pid) sh -c "$end" || fail "ExecStop: exit status $?"
wait %supervise 2>/dev/null
nothing_left "supervised"
cowd -p "$plugin" mydev "$image" || die "cowd"
all_is_well
