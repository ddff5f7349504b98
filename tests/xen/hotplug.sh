#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Disks come and go while a guest runs, also in domain 0; a guest writes while cowd is
# killed and started again.
#
# hotplug.sh [--times N] [STEP...]: only these of its steps, such as plugs, which attaches
# and detaches three times, or N
# shellcheck source=tests/xen/lib.sh
. "$(dirname "$0")/lib.sh"

times=3
[ "${1:-}" != --times ] || { times=$2; shift 2; }
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

# What domain 0 reads and writes of the golden image through /dev/xvdd.
uses_xvdd()
{
	until_true 60 test -b /dev/xvdd || die "no /dev/xvdd in domain 0"
	mkdir -p mnt
	mount -t ext4 /dev/xvdd mnt || die "mount in domain 0"
	(cd mnt && sha256sum --quiet -c sums) || fail "domain 0 reads other files"
	echo written >mnt/name || fail "domain 0 cannot write"
	umount mnt
}

lets_go()
{
	xl block-detach 0 xvdd || fail "block-detach 0"
	until_true 60 test ! -b /dev/xvdd || fail "detached, and /dev/xvdd is there"
	until_true 60 no_cowd
	nothing_left "$1"
}

# As blktap's users mounted images.
domain_0()
{
	modprobe xen-blkfront || die "no xen-blkfront"
	dmu-xl block-attach 0 "dmu:dscow:$work/zero.dscow:$work/golden.img" /dev/xvdd w || die "block-attach 0"
	uses_xvdd
	lets_go "domain 0"
	ok "attached to domain 0"
}

# The program in the script's place, called by xl.
by_the_shim()
{
	modprobe xen-blkfront || die "no xen-blkfront"
	xl block-attach 0 "vdev=xvdd,access=w,script=block-dmu-shim,target=dscow:$work/shim.dscow:$work/golden.img" ||
		die "block-attach 0"
	uses_xvdd
	lets_go "the shim"
	xl block-attach 0 "vdev=xvdd,access=w,script=block-dmu-shim,target=dscow:$work/none.dscow" >out 2>&1 &&
		fail "attaches what is not there"
	grep -q 'name its base after it' out || fail "xl does not say so: $(cat out)"
	xl block-detach 0 xvdd || fail "block-detach of what was refused"
	nothing_left "the shim refuses"
	ok "by block-dmu-shim; $(grep -m 1 -o '[^ ]* does not exist; .*' out)"
}

# Without scripts: xl is told to run none, and the shim sees by itself what comes and goes.
watched()
{
	local watcher before_log
	modprobe xen-blkfront || die "no xen-blkfront"
	echo run_hotplug_scripts=0 >>/etc/xen/xl.conf
	xenstore-rm libxl/disable_udev 2>/dev/null
	/etc/xen/scripts/block-dmu-shim watch &
	watcher=$!
	before_log=$(wc -c </var/log/xen/xen-hotplug.log)
	dmu-xl block-attach 0 "dmu:dscow:$work/watched.dscow:$work/golden.img,xvdd,w" || die "block-attach 0"
	uses_xvdd
	lets_go "watched"
	[ "$(wc -c </var/log/xen/xen-hotplug.log)" = "$before_log" ] || fail "a script ran"
	kill "$watcher"
	sed -i '$d' /etc/xen/xl.conf
	ok "without scripts, watched by block-dmu-shim"
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

served_by_another()
{
	cowctl list | grep -q "^$device .*running" && [ "$(jq -r .worker "/run/cowd/$device.json")" != "$worker" ]
}

# Each round of the guest writes a file of its own, overwrites a common one, and flushes.
writes_without_cowd()
{
	local device round worker
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
		worker=$(jq -r .worker "/run/cowd/$device.json")
		# shellcheck disable=SC2046 # numbers
		kill -9 $(jq -r '.pid, .worker' "/run/cowd/$device.json")
		until_true 60 served_by_another || die "nobody serves it again: $(cowctl list; tail -n 5 /var/log/xen/xen-hotplug.log)"
		gone writer && die "the guest died with cowd"
	done
	[ "$(grep -c "^cowctl: $device: its cowd .* died" /var/log/xen/xen-hotplug.log)" = 2 ] ||
		fail "the log does not say what happened: $(tail -n 5 /var/log/xen/xen-hotplug.log)"
	ends writer
	nothing_left writer
	dscow_tool -k writer.dscow || fail "the overlay's check says $?"
	mkdir -p mnt
	cowd -p dscow -r seen writer.dscow || die "cowd"
	mount -o ro /dev/mapper/seen mnt || die "mount"
	(cd mnt && sha256sum --quiet -c written && sha256sum --quiet -c sums) || fail "the guest's writes are not there"
	umount mnt
	cowctl stop seen
	ok "a guest writes while cowd is killed, twice, and started again by itself"
}

rounds() { grep -c "guest: round" "/var/log/xen/console/guest-$1.log"; }

# Nobody serves the guest's disk, and nobody is to come: what it has written once it writes on.
goes_on_unserved()
{
	local device at
	guest hot pv "'dmu:dscow:$work/hot.dscow:$work/golden.img,xvda,w'" <<-'END'
	waits 20 test -b /dev/xvda
	i=0
	while [ $i -lt 300 ]; do
		dd if=/dev/urandom of=/dev/xvda bs=64k count=1 seek=$((i % 4)) oflag=direct conv=fsync,notrunc 2>/dev/null || bad write
		said "round $i"
		usleep 50000
		i=$((i + 1))
	done
	END
	dmu-xl create -q hot.cfg || die "dmu-xl create"
	device=xen-$(xl domid hot)-51712
	until_true 60 says hot "round 8" || die "the guest does not write"
	pkill -9 -x cowctl
	# shellcheck disable=SC2046 # numbers
	kill -9 $(jq -r '.pid, .worker' "/run/cowd/$device.json")
	until_true 20 no_cowd || die "cowd lives on"
	at=$(rounds hot)
	until_true 60 says hot "round $((at + 8))" || die "the guest stands still without cowd"
	no_cowd || die "somebody serves it"
	cowctl list | awk -v d="$device" '$1 == d && $2 == "dead"' | grep -q . || die "cowctl list: $(cowctl list)"
	cowd --recover "$device" || die "cowd --recover"
	ends hot
	nothing_left hot
	dscow_tool -k hot.dscow || fail "the overlay's check says $?"
	ok "a guest writes while nobody serves its disk: from round $at on"
}
[ $# -gt 0 ] || set -- domain_0 by_the_shim refuses_a_second plugs writes_without_cowd goes_on_unserved watched
for step; do
	$step
done
[ "$(sum golden.img)" = "$before" ] || fail "the golden image was changed"
