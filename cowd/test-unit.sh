#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# cowd@.service: systemd understands each of its lines and gives no device up, and
# what a cowd that died has left is not removed by the end of its unit.  cowd-generator gives
# it its place, which tests/cowd/systemd.sh sees systemd keep.
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

# in_order NAME LINE...: that is what cowd-generator makes of NAME.conf.
in_order()
{
	local name=$1 file=$work/made/cowd@$1.service.d/order.conf
	shift
	[ "$(cat "$file" 2>&1)" = "$(printf '%s\n' '[Unit]' "$@")" ] || fail "$name: its order is $(cat "$file")"
	! command -v systemd-analyze >/dev/null || {
		mkdir -p "$work/cowd@$name.service.d" && cp "$file" "$work/cowd@$name.service.d/"
		said=$(SYSTEMD_UNIT_PATH=$work: systemd-analyze verify --man=no "$work/cowd@$name.service" 2>&1)
		[ -z "$said" ] || fail "$name: systemd says $said"
	}
}

# generates FOLDER: for the files there.
generates()
{
	mkdir -p "$work/made"
	sed "s|^conf=.*|conf='$1'|" "$generator" >"$work/cowd-generator"
	said=$(sh "$work/cowd-generator" "$work/made" "$work/early" "$work/late" 2>&1) || fail "cowd-generator: exit status $?"
	[ -z "$said" ] || fail "cowd-generator says $said"
}

generator=$(cd "${srcdir:-$(dirname "$0")}" && pwd)/cowd-generator
generates "$work/none"
if command -v systemd-escape >/dev/null; then
	mkdir "$work/conf"
	printf 'FORMAT=raw\nIMAGE=/old\n IMAGE = /srv/a.raw \nNO_IMAGE=/no\n' >"$work/conf/plain.conf"
	printf 'IMAGE="/srv/100%% of \\it"\nOPTIONS=-r --allow-backing /srv/* --allow-backing=/dev/vg/lv-1 --allow-backing\n' \
		>"$work/conf/my-disk.conf"
	printf 'IMAGE=/dev/shm/a\nOPTIONS=--allow-write /a -o data_file=/b --option=c=/d --allow-write=/e --allow-backing %s -o\n' \
		"$work" >"$work/conf/more.conf"
	printf 'IMAGE=/dev/mapper/plain\nOPTIONS=--allow-backing /dev/ -o x\n' >"$work/conf/inner.conf"
	touch "$work/conf/.conf" "$work/conf/.hidden.conf"
	printf "IMAGE='/dev/sdb'\n" >"$work/conf/device.conf"
	printf 'FORMAT=raw\nIMAGE=relative\n' >"$work/conf/wrong.conf"
	mkdir "$work/conf/sub.conf" && printf 'IMAGE=/no\n' >"$work/conf/sub.conf/below.conf"
	generates "$work/conf"
	[ ! -e "$work/made/cowd@below.service.d" ] || fail "reads a file that the unit does not read"
	in_order plain Wants=blockdev@dev-mapper-plain.target Before=blockdev@dev-mapper-plain.target \
		'RequiresMountsFor="/srv/a.raw"'
	in_order my-disk 'Wants=blockdev@dev-mapper-my\x2ddisk.target' 'Before=blockdev@dev-mapper-my\x2ddisk.target' \
		'RequiresMountsFor="/srv/100%% of \\it"' 'RequiresMountsFor="/srv/*"' \
		'Wants=dev-vg-lv\x2d1.device' 'After=dev-vg-lv\x2d1.device blockdev@dev-vg-lv\x2d1.target'
	in_order more Wants=blockdev@dev-mapper-more.target Before=blockdev@dev-mapper-more.target \
		'RequiresMountsFor="/dev/shm/a"' 'RequiresMountsFor="/a"' 'RequiresMountsFor="/b"' 'RequiresMountsFor="/d"' \
		'RequiresMountsFor="/e"' "RequiresMountsFor=\"$work\""
	in_order inner Wants=blockdev@dev-mapper-inner.target Before=blockdev@dev-mapper-inner.target \
		Wants=dev-mapper-plain.device 'After=dev-mapper-plain.device blockdev@dev-mapper-plain.target'
	[ -h "$work/made/dev-mapper-my\x2ddisk.device.wants/cowd@my-disk.service" ] || fail "who waits for the device starts nothing"
	[ "$(cd "$work/made" && echo cowd@*)" = "$(printf 'cowd@%s.service.d\n' device inner more my-disk plain wrong | tr '\n' ' ' |
		sed 's/ $//')" ] || fail "there is an order for $(cd "$work/made" && echo cowd@*)"
	in_order device Wants=blockdev@dev-mapper-device.target Before=blockdev@dev-mapper-device.target \
		Wants=dev-sdb.device 'After=dev-sdb.device blockdev@dev-sdb.target'
	in_order wrong Wants=blockdev@dev-mapper-wrong.target Before=blockdev@dev-mapper-wrong.target
else
	echo "no systemd-escape: the order is not seen"
fi

[ "$failed" = 0 ] && echo "PASS test-unit.sh"
exit "$failed"
