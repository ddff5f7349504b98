# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of this folder share.  They run in dom0 of a real Xen host:
#	tests/vm/run --kernel xen tests/xen/guests.sh
# Guests boot the machine's own kernel with a file system in memory, whose /job is theirs.
# shellcheck source=tests/until.sh
. "$(dirname "${BASH_SOURCE[0]}")/../until.sh"
set -u

work=$(mktemp -d "${SCRATCH:-/tmp}/xen-test.XXXXXX")
chmod 755 "$work"
failed=0

cleanup()
{
	local status=$? domain name
	trap - EXIT
	[ $failed = 0 ] && [ $status = 0 ] || tell_all 2>&1
	for domain in $(xl list 2>/dev/null | awk 'NR > 1 && $2 > 0 { print $2 }'); do
		xl destroy "$domain"
	done
	cd /
	umount "$work"/mnt* 2>/dev/null
	# What a failed step has left is not the next script's.
	for name in $(cowctl list | awk '{ print $1 }'); do
		cowctl stop "$name"
	done
	[ -z "${volume:-}" ] || { dmsetup remove vols-Fedora4; losetup -d "$volume"; }
	rm -rf "$work"
	[ $failed = 0 ] || status=1
	[ $status = 0 ] && echo "PASS ${0##*/}"
	exit $status
}
trap cleanup EXIT
cd "$work" || exit 1

# What a failure cannot be understood without.
tell_all()
{
	tail -n 15 /var/log/xen/console/guest-*.log /var/log/xen/xen-hotplug.log /var/log/xen/xl-*.log
	xl list
	xenstore-ls backend 2>/dev/null | head -n 60
	cowctl list
	dmsetup ls
	losetup -a
}

fail()
{
	echo "FAIL: $*" >&2
	failed=1
}

die()
{
	fail "$*"
	exit 1
}

ok() { echo "ok $SECONDS s: $*"; }

sum() { sha256sum <"$1"; }

# A file system made from real files, with their sums: golden FILE MIB
golden()
{
	local from=$work/files
	mkdir -p "$from"
	cp -rL /etc/init.d /etc/default "$from/" || die "cp"
	cp -L /bin/bash /bin/tar /bin/ls /usr/bin/find "$from/" || die "cp"
	(cd "$from" && find . -type f -exec sha256sum {} + >"$work/sums" && mv "$work/sums" .) || die "sums"
	mke2fs -q -F -t ext4 -d "$from" "$1" "$2M" || die "mke2fs"
	rm -rf "$from"
}

# The files of a guest: busybox, what it needs of the kernel's modules, /init and /job.
guest_files()
{
	local root=$1 module
	mkdir -p "$root"/{bin,sbin,dev,proc,sys,mnt,modules}
	cp "$(readlink -f "$(command -v busybox)")" "$root/bin/busybox"
	for module in xen-blkfront ext4 crc32c_generic; do
		modprobe --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' >"$root/modules/list"
	while read -r module; do
		cp "$module" "$root/modules/"
	done <"$root/modules/list"
	cat >"$root/init" <<-'END'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mount -t devtmpfs devtmpfs /dev
		while read -r module; do insmod "/modules/${module##*/}"; done </modules/list
		said() { echo "guest: $*" >/dev/hvc0; }
		# Whoever reads the console switches us off: xenconsoled drops what it has not
		# read of a domain that is gone.
		last_word() { said "$*"; while :; do sleep 60; done; }
		bad() { last_word "FAIL: $*"; }
		# waits SECONDS COMMAND...
		waits() { n=$(($1 * 5)); shift; until "$@"; do n=$((n - 1)); [ $n -gt 0 ] || bad "no $*"; usleep 200000; done; }
		. /job
		last_word end
	END
	# What the kernel runs when the host says shutdown.
	printf '#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n' >"$root/sbin/poweroff"
	chmod 755 "$root/init" "$root/sbin/poweroff"
}

# guest NAME TYPE DISK: the job comes from standard input; makes NAME.cfg.
guest()
{
	local name=$1 type=$2 disk=$3
	[ -d files.guest ] || guest_files files.guest
	cat >files.guest/job
	(cd files.guest && find . | cpio --quiet -o -H newc -R 0:0) >"$name.cpio" || die "cpio"
	cat >"$name.cfg" <<-END
		# $name, a guest of the test
		name = "$name"
		type = "$type"
		memory = 192
		vcpus = 1
		kernel = "$DMU_KERNEL"
		ramdisk = "$work/$name.cpio"
		extra = "console=hvc0 panic=1 loglevel=4 mitigations=off"
		on_crash = "destroy"
		on_reboot = "destroy"
		disk = [ $disk ]
	END
	: >"/var/log/xen/console/guest-$name.log"
	rm -f "/var/log/xen/xl-$name.log"
}

# says NAME WORDS: without a process, since it is asked often.
says() { [[ $(<"/var/log/xen/console/guest-$1.log") == *"guest: $2"* ]]; }
had_its_say() { says "$1" end || says "$1" FAIL || ! has_xl; }

gone() { ! xl domid "$1" >/dev/null 2>&1; }

# The process of xl that stays with a guest ends when all of the guest is cleaned up.
xl_of() { sed -n 's/^Waiting for domain .*\[pid \([0-9]*\)\]$/\1/p' "/var/log/xen/xl-$1.log"; }

# It names itself a moment after xl create has returned.
names_xl() { [ -n "$(xl_of "$1")" ]; }
has_xl() { [ -e "/proc/$xl_pid" ]; }

# ends NAME: the guest did all that it should, is told to shut down, and is gone.
ends()
{
	local xl_pid
	until_true 60 names_xl "$1" || die "xl's log names no process: $(cat "/var/log/xen/xl-$1.log")"
	xl_pid=$(xl_of "$1")
	until_true 150 had_its_say "$1" || die "$1 does not end"
	says "$1" FAIL && fail "$1: $(grep FAIL "/var/log/xen/console/guest-$1.log")"
	says "$1" end || fail "$1 did not come to its end"
	xl shutdown "$1" >/dev/null 2>&1 || fail "xl shutdown $1"
	timeout 120 tail --pid="$xl_pid" -f /dev/null || die "xl does not come to the end of $1"
	gone "$1" || fail "$1 is still there"
}

# The folder is there since the first disk, or not yet; what cannot be asked is no answer.
no_backend()
{
	local left
	xenstore-exists /local/domain/0 || return
	! xenstore-exists /local/domain/0/backend/vbd || {
		left=$(xenstore-ls /local/domain/0/backend/vbd) && [ -z "$left" ]
	}
}

no_cowd() { [ -z "$(ps -C cowd -o pid=)" ]; }
no_keeper() { [ -z "$(ps -C cowctl -o pid=)" ]; }

# Nothing of what block-dmu and cowd make: dm, loop, processes, records, xenstore, locks.
nothing_left()
{
	local left
	no_backend || fail "$1: left in xenstore: $(xenstore-ls /local/domain/0/backend/vbd)"
	left=$(dmsetup ls --target userspace) || fail "$1: dmsetup ls says $?"
	left=$(grep -v '^No devices' <<<"$left")
	[ -z "$left" ] || fail "$1: left the device $left"
	# guests.sh has a volume of its own; all else is of cowd, of the golden image too.
	left=$(losetup -a | grep -v "^${volume:-none}:")
	[ -z "$left" ] || fail "$1: left the loop device $left"
	left=$(ps -C cowd -o pid=)
	[ -z "$left" ] || fail "$1: left processes $left"
	# It notices the end of its device by itself.
	until_true 30 no_keeper || fail "$1: left a cowctl keep"
	left=$(ls -A /run/cowd /run/xen-hotplug 2>/dev/null | grep -v '^/\|^$')
	[ -z "$left" ] || fail "$1: left $left"
	left=$(ls -d "${TMPDIR:-/tmp}"/dmu-xl.* 2>/dev/null)
	[ -z "$left" ] || fail "$1: left $left"
}
