#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# cowd@.service: systemd understands each of its lines and gives no device up, and
# what a cowd that died has left is not removed by the end of its unit.
set -u

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

printf '#!/bin/sh\necho "$*"\n' >"$work/cowctl"
chmod 755 "$work/cowctl"
unit=$work/cowd@.service
sed "s|[^ '=]*/cowctl |$work/cowctl |" cowd@.service >"$unit"
if command -v systemd-analyze >/dev/null; then
	said=$(SYSTEMD_UNIT_PATH=$work: systemd-analyze verify --man=no "$work/cowd@mydev.service" 2>&1)
	[ -z "$said" ] || fail "systemd says $said"
fi
# Five starts in ten seconds would be its last otherwise.
sed -n '/^\[Unit\]$/,/^\[Service\]$/p' "$unit" | grep -qx 'StartLimitIntervalSec=0' || fail "systemd gives it up"

# Served again, and ready when the device can be used.
for line in Restart=on-failure RestartSec=1 Type=notify; do
	sed -n '/^\[Service\]$/,/^\[Install\]$/p' "$unit" | grep -qx "$line" || fail "has no $line"
done
# A wrong option stays wrong: status 2 of cowd(8).
grep -qx 'RestartPreventExitStatus=2' "$unit" || fail "starts a wrong configuration again and again"

command=$(sed -n "s/%i/mydev/g; s/^ExecStop=.bin.sh -c '\(.*\)'$/\1/p" "$unit")
[ -n "$command" ] || fail "it does not end as is known here"
# systemd names the process while it is there, and would put in what stands in braces itself.
case $command in
*'${'*) fail "systemd puts something into: $command" ;;
esac
said=$(MAINPID=1 sh -c "$command") || fail "does not end: $command"
[ "$said" = "stop mydev" ] || fail "ends by: $said"
said=$(env -u MAINPID sh -c "$command") || fail "dead already: the unit fails"
[ -z "$said" ] || fail "dead already, and then: $said"

[ "$failed" = 0 ] && echo "PASS test-unit.sh"
exit "$failed"
