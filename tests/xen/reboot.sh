#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A host that reboots, under a real systemd and by Debian's own script xendomains: a guest starts
# with the host; it and its cowd end before the file system of its overlay. It starts again
# with what it had written, also when it is saved to a file and restored.
# shellcheck source=tests/xen/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/vm/systemd-lib.sh
. "$(dirname "$0")/../vm/systemd-lib.sh"

[ -e /etc/init.d/xendomains ] || die "no xendomains"
modprobe brd rd_nr=1 rd_size=131072 || die "no RAM disk"

# What the guest has flushed last, by its console.
life() { sed -n 's/^.*guest: wrote \([0-9]*\).*$/\1/p' /var/log/xen/console/guest-lives.log | tail -n 1; }
writes_past() { [ "$(life)" -gt "$1" ] 2>/dev/null; }

# It counts on its disk, each number durable before the next.
set_up()
{
	guest lives pv "'vdev=xvda,access=w,script=block-dmu,target=dscow:/srv/xen/lives.dscow:/srv/xen/golden.img'" <<-'END'
	waits 20 test -b /dev/xvda
	mount -t ext4 /dev/xvda /mnt || bad mount
	(cd /mnt && sha256sum -c sums >/dev/null) || bad "reads other files"
	i=0
	[ ! -e /mnt/count ] || read -r i </mnt/count
	said "found $i"
	while :; do
		i=$((i + 1))
		echo $i >/mnt/count || bad write
		sync
		said "wrote $i"
		sleep 1
	done
	END
	mkfs.ext4 -q /dev/ram0 && mkdir -p /srv/xen && mount /dev/ram0 /srv/xen || die "no storage"
	golden /srv/xen/golden.img 32
	before=$(sum /srv/xen/golden.img)
	umount /srv/xen
	mkdir -p /etc/xen/auto
	cp lives.cfg /etc/xen/auto/
	unit srv-xen.mount <<-'END'
	[Mount]
	What=/dev/ram0
	Where=/srv/xen
	Type=ext4
	END
	# Nothing here orders it after the storage: a guest's disk has to, by block-dmu.  What an
	# administrator gives is that it is there before a guest starts.
	unit xendomains.service.d/order.conf <<-'END'
	[Unit]
	Requires=srv-xen.mount
	After=srv-xen.mount
	[Service]
	StandardOutput=append:/run/xendomains.log
	StandardError=append:/run/xendomains.log
	END
	unit wanted.target <<-'END'
	[Unit]
	DefaultDependencies=no
	Requires=xendomains.service
	AllowIsolate=yes
	END
}

tell() { cat /run/xendomains.log; systemd_said | tail -n 30; inside systemctl --failed; }

# host_runs PAST: until the guest has written a number past that.
host_runs()
{
	systemd_starts wanted.target
	until_true 240 writes_past "$1" || die "the guest does not write: $(tell)"
	scope=$(inside systemctl list-units --no-legend --plain "cowd-xen-*.scope" | awk '!/keep/ { print $1 }')
	[ -n "$scope" ] || fail "cowd is in no unit of its own: $(inside systemctl list-units)"
	said=$(inside systemctl show -P After "$scope")
	[[ " $said " == *" srv-xen.mount "* ]] || fail "$scope is only after $said"
}

# line WORDS: the number of systemd's last line with them.
line() { systemd_said | grep -n -- "$1" | tail -n 1 | cut -d : -f 1; }

# host_ends WHAT
host_ends()
{
	local guests cowd storage
	systemd_ends || die "$1: systemd does not come to its end: $(tell)"
	guests=$(line 'Stopped .*xendomains')
	cowd=$(line "$scope: Deactivated")
	storage=$(line 'Unmounted .*/srv/xen')
	[ "${guests:-9999}" -lt "${storage:-0}" ] && [ "${cowd:-9999}" -lt "${storage:-0}" ] ||
		fail "$1: guests end at line $guests, cowd at $cowd, storage at $storage: $(tell)"
	[ -z "$(line 'Failed unmounting.*srv-xen')" ] || fail "$1: what was in use was unmounted: $(tell)"
	nothing_left "$1"
	mount /dev/ram0 /srv/xen || die "mount"
	dscow_tool -k /srv/xen/lives.dscow || fail "$1: the overlay's check says $?"
	[ "$(sum /srv/xen/golden.img)" = "$before" ] || fail "$1: the golden image was changed"
	umount /srv/xen
	ok "$1, when the guest had written $(life)"
}

set_up
echo XENDOMAINS_SAVE= >>/etc/default/xendomains
host_runs 2
host_ends "a shutdown"

at=$(life)
sed -i '$d' /etc/default/xendomains
host_runs $((at + 2))
[ "$(grep -c 'guest: found' /var/log/xen/console/guest-lives.log)" = 2 ] || fail "the guest did not start anew"
grep -qE "guest: found ($at|$((at + 1)))\b" /var/log/xen/console/guest-lives.log || fail "the guest found other than $at"
host_ends "a reboot, and a shutdown that saves"
ls /var/lib/xen/save/lives >/dev/null || fail "the guest was not saved: $(cat /run/xendomains.log)"

at=$(life)
host_runs $((at + 2))
[ "$(grep -c 'guest: found' /var/log/xen/console/guest-lives.log)" = 2 ] || fail "the guest was not restored"
xl destroy lives || fail "xl destroy"
host_ends "restored, and a guest that is destroyed"
