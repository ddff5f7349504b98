#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# At shutdown: guests, then cowd, then storage. systemd stops units in the reverse of the
# order that it starts them in; that it reads this order out of what we give it is seen by
# the contradiction that it finds when the other unit says the opposite.
set -u

src=$(cd "${srcdir:-$(dirname "$0")}" && pwd)
built=$PWD
command -v systemd-analyze >/dev/null || { echo "no systemd-analyze"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SYSTEMD_UNIT_PATH=$work: TMPDIR=$work
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

says() { systemd-analyze verify --man=no "$work/$1" 2>&1; }

# other NAME SECTION-LINE: the unit that ours is ordered against.
other()
{
	printf '[Unit]\n%s\n[Service]\nType=oneshot\nExecStart=/bin/true\n' "$2" >"$work/$1"
}

# ordered UNIT before|after OTHER
ordered()
{
	local against
	case $2 in
	before) against="Before=$1" ;;
	after) against="After=$1" ;;
	esac
	# Only what is started together has an order.
	sed -i "/^Wants=/d; s/^\[Unit\]/&\nWants=$3/" "$work/$1"
	other "$3" ""
	[ -z "$(says "$1")" ] || fail "$1 with $3: systemd says $(says "$1")"
	other "$3" "$against"
	says "$1" | grep -q "ordering cycle" || fail "$1 is not $2 $3: $(says "$1")"
	rm "$work/$3"
}

# The disks of guests that no script is run for.
sed "s|^ExecStart=[^ ]*|ExecStart=/bin/true|" "$built/block-dmu-shim.service" >"$work/block-dmu-shim.service"
grep -q '^ExecStart=[^ ]*/block-dmu-shim watch$' "$built/block-dmu-shim.service" || fail "what does it start?"
# Five starts in ten seconds would be its last otherwise.
sed -n '/^\[Unit\]$/,/^\[Service\]$/p' "$built/block-dmu-shim.service" |
	grep -qx 'StartLimitIntervalSec=0' || fail "systemd gives the shim up"
for other in xendomains.service libvirt-guests.service; do
	ordered block-dmu-shim.service before "$other"
done
for other in xen.service xenstored.service; do
	ordered block-dmu-shim.service after "$other"
done

# What block-dmu gives each cowd; test-script.sh sees that the shim gives the same.
properties=$(sed -n 's/^.*--property="\(Before=.*\|After=.*\)"$/\1/p' "$src/block-dmu.in")
[ -n "$properties" ] || fail "block-dmu names no order"
{
	printf '[Unit]\n%s\n' "$properties"
	printf 'RequiresMountsFor="%s/an image" "%s/base"\n[Service]\nExecStart=/bin/true\n' "$work/images" "$work/bases"
} >"$work/cowd-xen-1-51712.service"
for other in xendomains.service libvirt-guests.service; do
	ordered cowd-xen-1-51712.service before "$other"
done
for other in blk-availability.service iscsid.service multipathd.service; do
	ordered cowd-xen-1-51712.service after "$other"
done
# The file systems of image and base, of which it needs the mounts.
for folder in images bases; do
	mount=$(systemd-escape -p --suffix=mount "$work/$folder")
	mkdir "$work/$folder"
	printf '[Unit]\nAfter=cowd-xen-1-51712.service\n[Mount]\nWhat=tmpfs\nWhere=%s\nType=tmpfs\n' "$work/$folder" >"$work/$mount"
	says cowd-xen-1-51712.service | grep -q "ordering cycle" || fail "cowd is not after the mount of $folder"
	rm "$work/$mount"
done

[ "$failed" = 0 ] && echo "PASS test-units.sh"
exit "$failed"
