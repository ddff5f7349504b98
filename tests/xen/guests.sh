#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Guests boot by the line of the original's page, PV and PVH, and two at a time on one
# golden image.  What they wrote is in their overlays; the golden image is as it was.
# Errors reach the person.
#
# guests.sh [STEP...]: only these of its steps, such as boots_two.
# shellcheck source=tests/xen/lib.sh
. "$(dirname "$0")/lib.sh"

# The names of the original: a volume, and an overlay in /tmp.
golden golden.img 32
before=$(sum golden.img)
volume=$(losetup -f --show golden.img) || die "losetup"
dmsetup create vols-Fedora4 --table "0 $(blockdev --getsz "$volume") linear $volume 0" || die "dmsetup"
mkdir -p /dev/vols
ln -sf /dev/mapper/vols-Fedora4 /dev/vols/Fedora4

job()
{
	cat <<-END
		waits 20 test -b /dev/xvda
		mount -t ext4 /dev/xvda /mnt || bad mount
		cd /mnt
		sha256sum -c sums >/dev/null || bad "reads other files"
		mkdir written || bad mkdir
		i=0
		while [ \$i -lt 20 ]; do
			head -c 70000 /dev/urandom >written/\$i || bad write
			i=\$((i + 1))
		done
		echo $1 >written/name
		(cd written && sha256sum [0-9]* >sums)
		sync
		rm -r init.d || bad rm
		cd /
		umount /mnt || bad umount
	END
}

# What a guest wrote, and the rest, by its overlay alone.
check_overlay()
{
	local name=$1 overlay=$2
	dscow_tool -k "$overlay" || fail "$name: the overlay's check says $?"
	cowd -p dscow -r --allow-backing /dev/vols/Fedora4 seen "$overlay" || die "cowd"
	e2fsck -fn /dev/mapper/seen >fsck.log 2>&1 || fail "$name: $(cat fsck.log)"
	mkdir -p mnt
	mount -o ro /dev/mapper/seen mnt || die "mount"
	[ "$(cat mnt/written/name)" = "$name" ] || fail "$name: has the files of another"
	(cd mnt/written && sha256sum --quiet -c sums) || fail "$name: what it wrote is not there"
	[ ! -e mnt/init.d ] && [ -d mnt/default ] || fail "$name: what it removed is there"
	umount mnt
	cowctl stop seen || fail "cowctl stop"
}

# The guest's own kernel did, in which nothing is ours.
panicked()
{
	local xl_pid
	until_true 60 names_xl "$1" || return
	xl_pid=$(xl_of "$1")
	until_true 150 had_its_say "$1"
	grep -q 'Kernel panic' "/var/log/xen/console/guest-$1.log"
}

by_original_line()
{
	rm -f /tmp/fedora4.dscow
	job "$1" | guest "$1" "$1" '"dmu:dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4,hda1,w"'
	xl create -q "$1.cfg" >err 2>&1 && die "xl takes the line by itself"
	dmu-xl create -q "$1.cfg" || die "dmu-xl create"
}

# The line of the original, by a guest of TYPE: boots TYPE
boots()
{
	local type=$1 backend left=3
	by_original_line "$type"
	# Served by the kernel: no qemu, no other process between.
	backend=/local/domain/0/backend/vbd/$(xl domid "$type")
	[ "$(xenstore-read "$backend/$(xenstore-list "$backend")/physical-device-path")" = \
		"/dev/mapper/xen-$(xl domid "$type")-$(xenstore-list "$backend")" ] || fail "physical-device-path"
	# QEMU emulates the processor's virtualization for a PVH guest; on a busy host the guest's
	# kernel now and then faults over and over in the entry of an exception.
	while [ "$type" = pvh ] && [ $left -gt 0 ] && panicked "$type"; do
		left=$((left - 1))
		echo "the guest's kernel panicked, and boots again, at most $left times more:" \
			"$(grep -m 1 'RIP:' "/var/log/xen/console/guest-$type.log")"
		until_true 60 no_backend
		until_true 30 no_cowd
		nothing_left "$type after a panic"
		by_original_line "$type"
	done
	ends "$type"
	nothing_left "$type"
	check_overlay "$type" /tmp/fedora4.dscow
	ok "$type boots, writes and ends with the line of the original"
}

boots_pv() { boots pv; }
boots_pvh() { boots pvh; }

# Two guests on one golden image; both are there before either runs.
boots_two()
{
	local name
	rm -f /tmp/*.dscow
	for name in one two; do
		job "$name" | guest "$name" pv "'dmu:dscow:/tmp/$name.dscow:/dev/vols/Fedora4:block-size=128k,xvda,w'"
		dmu-xl create -q -p "$name.cfg" || die "dmu-xl create $name"
	done
	[ "$(cowctl list | wc -l)" = 2 ] || fail "not at the same time: $(cowctl list)"
	for name in one two; do xl unpause "$name"; done
	for name in one two; do ends "$name"; done
	nothing_left "two guests"
	for name in one two; do check_overlay "$name" "/tmp/$name.dscow"; done
	cmp -s /tmp/one.dscow /tmp/two.dscow && fail "the overlays are the same"
	ok "two guests on one golden image"
}

# Read-only where the line says so.
reads_only()
{
	local before_reader
	cowimg create -f dscow -b /dev/vols/Fedora4 -F raw /tmp/reader.dscow || die "cowimg"
	before_reader=$(sum /tmp/reader.dscow)
	guest reader pv "'dmu:dscow:/tmp/reader.dscow:/dev/vols/Fedora4,xvda,r'" <<-'END'
	waits 20 test -b /dev/xvda
	[ "$(cat /sys/block/xvda/ro)" = 1 ] || bad "not read-only"
	dd if=/dev/zero of=/dev/xvda bs=4k count=1 2>/dev/null && sync && bad "could write"
	dd if=/dev/xvda of=/dev/null bs=1M count=8 2>/dev/null || bad "cannot read"
	END
	dmu-xl create -q reader.cfg || die "dmu-xl create reader"
	ends reader
	nothing_left reader
	[ "$(sum /tmp/reader.dscow)" = "$before_reader" ] || fail "a reader changed the overlay"
	ok "a read-only disk"
}

# refused WORDS DISK: xl shows the sentence, and nothing is left. The words stand not in the
# line, which xl may show, too.
refused()
{
	guest refused pv "'$2'" </dev/null
	[[ $2 != *"$1"* ]] || die "$1 is found in the line itself"
	dmu-xl create -q refused.cfg >out 2>&1 && { fail "boots with $2"; xl destroy refused; }
	grep -q -- "$1" out || fail "$2: xl does not say '$1': $(cat out)"
	nothing_left "$2"
	ok "$(grep -m 1 -e "$1" out)"
}

refuses()
{
	[ -e /tmp/reader.dscow ] || cowimg create -f dscow -b /dev/vols/Fedora4 -F raw /tmp/reader.dscow || die "cowimg"
	refused 'name its base after it' 'dmu:dscow:/tmp/none.dscow,xvda,w'
	refused '/dev/vols/none: cannot be opened' 'dmu:dscow:/tmp/none.dscow:/dev/vols/none,xvda,w'
	refused 'colour is no option' 'dmu:dscow:/tmp/reader.dscow:colour=red,xvda,w'
	refused 'no plugin for the format bochs' 'dmu:bochs:/tmp/reader.dscow,xvda,w'
	refused 'not over' "dmu:dscow:/tmp/reader.dscow:$work/golden.img,xvda,w"
	[ ! -e /tmp/none.dscow ] || fail "an image is left"
}

[ $# -gt 0 ] || set -- boots_pv boots_pvh boots_two reads_only refuses
for step; do
	$step
done

[ "$(sum golden.img)" = "$before" ] || fail "the golden image was changed"
