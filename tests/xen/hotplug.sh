#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Disks come and go while a guest runs, also in domain 0; a guest writes while cowd is
# killed and served again.
#
# hotplug.sh [STEP...]: only these of its steps, such as plugs
# shellcheck source=tests/xen/lib.sh
. "$(dirname "$0")/lib.sh"

times=3
golden golden.img 32
before=$(sum golden.img)

# A guest reads, writes and lets go whatever comes as xvdb.
plugs()
{
	local i
	guest plugged pv '' <<-END
	i=0
	while [ \$i -lt $times ]; do
		waits 60 test -b /dev/xvdb
		mount -t ext4 /dev/xvdb /mnt || bad mount
		(cd /mnt && sha256sum -c sums >/dev/null) || bad "reads other files"
		echo \$i >/mnt/count
		umount /mnt || bad umount
		said "done \$i"
		waits 60 test ! -e /sys/block/xvdb
		i=\$((i + 1))
	done
	END
	xl create -q plugged.cfg || die "xl create"
	for i in $(seq 0 $((times - 1))); do
		dmu-xl block-attach plugged "dmu:dscow:$work/plugged.dscow:$work/golden.img,xvdb,w" || die "block-attach $i"
		until_true 60 says plugged "done $i" || die "the guest does not see disk $i"
		xl block-detach plugged xvdb || die "block-detach $i"
		until_true 30 no_backend || fail "detached, and not gone"
		nothing_left "detach $i"
	done
	ends plugged
	dscow_tool -k plugged.dscow || fail "the overlay's check says $?"
	ok "attached and detached $times times"
}

# As blktap's users mounted images.
domain_0()
{
	modprobe xen-blkfront || die "no xen-blkfront"
	dmu-xl block-attach 0 "dmu:dscow:$work/zero.dscow:$work/golden.img" /dev/xvdd w || die "block-attach 0"
	until_true 30 test -b /dev/xvdd || die "no /dev/xvdd in domain 0"
	mkdir -p mnt
	mount -t ext4 /dev/xvdd mnt || die "mount in domain 0"
	(cd mnt && sha256sum --quiet -c sums) || fail "domain 0 reads other files"
	umount mnt
	xl block-detach 0 xvdd || fail "block-detach 0"
	nothing_left "domain 0"
	until_true 10 test ! -b /dev/xvdd || fail "detached, and /dev/xvdd is there"
	ok "attached to domain 0"
}

# Two disks on one image.  What xl wrote for a disk that was refused goes by block-detach.
refuses_a_second()
{
	modprobe xen-blkfront || die "no xen-blkfront"
	dmu-xl block-attach 0 "tap:aio:$work/golden.img,xvdd,w" || die "block-attach raw"
	dmu-xl block-attach 0 "tap:aio:$work/golden.img,xvde,w" >out 2>&1 && fail "served twice"
	grep -q 'in use' out || fail "does not say that it is in use: $(cat out)"
	[ "$(cowctl list | wc -l)" = 1 ] || fail "left: $(cowctl list)"
	xl block-detach 0 xvde || fail "block-detach of what was refused"
	xl block-detach 0 xvdd || fail "block-detach 0"
	nothing_left "served twice"
	ok "$(grep -m 1 'in use' out)"
}

# Each round of the guest writes a file of its own, overwrites a common one, and flushes.
writes_without_cowd()
{
	local device round
	guest writer pv "'dmu:dscow:$work/writer.dscow:$work/golden.img,xvda,w'" <<-'END'
	waits 20 test -b /dev/xvda
	mount -t ext4 /dev/xvda /mnt || bad mount
	i=0
	while [ $i -lt 40 ]; do
		head -c 50000 /dev/urandom >/mnt/new$i || bad write
		cp /mnt/new$i /mnt/common || bad write
		sync
		said "round $i"
		i=$((i + 1))
	done
	(cd /mnt && sha256sum new* common >written) || bad sums
	umount /mnt || bad umount
	END
	dmu-xl create -q writer.cfg || die "dmu-xl create"
	device=xen-$(xl domid writer)-51712
	for round in 3 12; do
		until_true 60 says writer "round $round" || die "the guest does not write"
		# shellcheck disable=SC2046 # numbers
		kill -9 $(jq -r '.pid, .worker' "/run/cowd/$device.json")
		until_true 20 test -z "$(ps -C cowd -o pid=)"
		sleep 1
		gone writer && die "the guest died with cowd"
		dd if="/dev/mapper/$device" of=/dev/null bs=64k count=1 status=none || fail "the device does not go on"
		cowd --recover "$device" || die "cowd --recover"
	done
	ends writer
	nothing_left writer
	dscow_tool -k writer.dscow || fail "the overlay's check says $?"
	mkdir -p mnt
	cowd -p dscow -r seen writer.dscow || die "cowd"
	mount -o ro /dev/mapper/seen mnt || die "mount"
	(cd mnt && sha256sum --quiet -c written && sha256sum --quiet -c sums) || fail "the guest's writes are not there"
	umount mnt
	cowctl stop seen
	ok "a guest writes while cowd is killed and served again"
}

[ $# -gt 0 ] || set -- plugs domain_0 refuses_a_second writes_without_cowd
for step; do
	$step
done
[ "$(sum golden.img)" = "$before" ] || fail "the golden image was changed"
