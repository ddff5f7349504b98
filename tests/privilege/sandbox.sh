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
rm -rf /tmp/hostile-*

$hostile probes mydev base.img >probes.log 2>err </dev/null
grep "LET THROUGH" probes.log && fail "the sandbox let something through"
tried=$(grep -c ^refused probes.log)
possible=$(grep -c ^possible free.log)
[ "$tried" -ge 45 ] || fail "$tried probes only: $(cat err)"
for left in /tmp/hostile-*; do
	[ ! -e "$left" ] || fail "it made $left"
done
nothing_left "probes"
echo "$tried attempts refused in the sandbox, $possible of them possible outside"
