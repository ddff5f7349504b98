#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A worker that was taken over by its image tries what it must not be able to do,
# from inside the sandbox that cowd makes. Each is refused. As root and outside of
# it, the same attempts are possible, or the test would show nothing.
#
#	tests/vm/run tests/privilege/sandbox.sh
# shellcheck source=tests/privilege/lib.sh
. "$(dirname "$0")/lib.sh"

$hostile free >free.log </dev/null || true
grep IMPOSSIBLE free.log && fail "these probes show nothing"
n=$(sed -n 's/^\([0-9]*\) probes, 0 not as wanted$/\1/p' free.log)
[ -n "$n" ] || fail "outside, not all were tried: $(cat free.log)"
rm -rf /tmp/hostile-*

$hostile probes mydev base.img >probes.log 2>err </dev/null
grep "LET THROUGH" probes.log && fail "the sandbox let something through"
grep -qx "$n probes, 0 not as wanted" probes.log || fail "not all were tried: $(cat probes.log err)"
tried=$(grep -c ^refused probes.log)
possible=$(grep -c ^possible free.log)
[ "$tried" -ge 45 ] || fail "$tried probes only: $(cat err)"
for left in /tmp/hostile-*; do
	[ ! -e "$left" ] || fail "it made $left"
done
nothing_left "probes"
echo "$tried attempts refused in the sandbox, $possible of them possible outside"
