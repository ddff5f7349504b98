#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowd@.service under a real systemd: started with the host, served again when it dies, ended
# after the file systems on its device and before those that image and base are in; once
# more, as after a reboot; and with an image that is a device itself, by a name that systemd escapes.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/vm/systemd-lib.sh
. "$(dirname "$0")/../vm/systemd-lib.sh"
# shellcheck source=tests/until.sh
. "$(dirname "$0")/../until.sh"

status_of() { inside cowctl status --json mydev 2>/dev/null | of_json "$1"; }
written() { local n; read -r n 2>/dev/null </run/written; echo "${n:-0}"; }

writes_past() { [ "$(written)" -gt "$1" ]; }
served_by_another() { [ "$(status_of state)" = running ] && [ "$(status_of worker)" != "$1" ]; }

# configured NAME FORMAT IMAGE OPTIONS: only cowd-generator says what the unit has to wait for,
# and what has to wait for it.
configured()
{
	mkdir -p /etc/cowd
	printf 'FORMAT=%s\nIMAGE="%s"\nOPTIONS=%s\n' "${@:2}" >"/etc/cowd/$1.conf"
	unit mnt-guest.mount <<-END
	[Mount]
	What=/dev/mapper/$1
	Where=/mnt/guest
	Type=ext4
	END
}

units()
{
	unit "$(systemd-escape -p --suffix=mount '/srv/the images')" <<-END
	[Mount]
	What=/dev/ram0
	Where=/srv/the images
	Type=ext4
	END
	unit srv-bases.mount <<-END
	[Mount]
	What=/dev/ram1
	Where=/srv/bases
	Type=ext4
	END
	unit cowd@.service.d/seen.conf <<-'END'
	[Service]
	StandardError=append:/run/cowd.log
	ExecStopPost=/bin/sh -c '{ echo "cowd: $SERVICE_RESULT"; grep -oE " /(mnt|srv)/[^ ]* ext4" /proc/mounts | sort; dmsetup ls; } >/run/at-stop 2>&1'
	END
	# Each number is durable before the next one.
	unit writer.service <<-'END'
	[Unit]
	DefaultDependencies=no
	RequiresMountsFor=/mnt/guest
	Conflicts=shutdown.target
	Before=shutdown.target
	[Service]
	ExecStart=/bin/bash -c 'cd /mnt/guest; read -r i <count; while :; do i=$((i + 1)); echo $i 1<>count; sync count || exit; echo $i >/run/written; done'
	StandardError=append:/run/writer.log
	END
	unit wanted.target <<-END
	[Unit]
	DefaultDependencies=no
	Requires=writer.service
	AllowIsolate=yes
	END
}

# golden FILE: a file system that counts.
golden()
{
	mkdir -p tree
	echo 0 >tree/count
	mke2fs -q -F -t ext4 -d tree "$1" 64M 2>/dev/null || die "mke2fs"
}

in_files()
{
	local n
	mkdir -p mnt0 /srv/bases
	for n in 0 1; do mkfs.ext4 -q "/dev/ram$n" || die "no storage"; done
	mount /dev/ram0 mnt0 && mount /dev/ram1 /srv/bases || die "no storage"
	golden /srv/bases/golden
	base=$(sum /srv/bases/golden)
	dscow_tool -c mnt0/a.dscow /srv/bases/golden >/dev/null || die "no overlay"
	umount /srv/bases mnt0
	configured mydev dscow '/srv/the images/a.dscow' '--allow-backing /srv/bases'
}

# host_runs: until the device's file system is written to.
host_runs()
{
	local before
	before=$(written)
	systemd_starts wanted.target
	until_true 900 writes_past "$before" || die "nothing is written: $(inside systemctl --failed; cat /run/*.log; systemd_said | tail -n 40)"
}

# host_ends WHAT MOUNTED: everything in its order; that is mounted when cowd has ended.
host_ends()
{
	rm -f /run/at-stop
	systemd_ends || die "$1: systemd does not come to its end: $(inside systemctl list-jobs)"
	[ "$(cat /run/at-stop)" = "cowd: success${2:+
$2}
No devices found" ] || fail "$1: when cowd had ended: $(cat /run/at-stop)"
	[ -s /run/writer.log ] && fail "$1: the writer says $(cat /run/writer.log)"
	! systemd_said | grep 'Failed unmounting.* /[ms][nr][tv]/' || fail "$1: what was in use was unmounted"
	nothing_left "$1"
	echo "ok $SECONDS s: $1: $(written) numbers written"
}

# number_is DISK: what was written last and told of, or the next one.
number_is()
{
	local number
	number=$(debugfs -R 'cat count' "$1" 2>/dev/null)
	[ "$number" = "$(written)" ] || [ "$number" = $(($(written) + 1)) ] ||
		fail "told of $(written), and there is '$number'"
}

files_are_well()
{
	mount /dev/ram0 mnt0 && mount /dev/ram1 /srv/bases || die "mount"
	dscow_tool -k mnt0/a.dscow || fail "the overlay's check says $?"
	cowimg convert -f dscow -O raw mnt0/a.dscow whole || fail "the overlay cannot be read"
	number_is whole
	rm whole
	[ "$(sum /srv/bases/golden)" = "$base" ] || fail "the base was changed"
	umount mnt0 /srv/bases
}

modprobe brd rd_nr=2 rd_size=131072 && modprobe loop || die "no disks"
units
in_files
host_runs
lives=$(inside systemctl show -P InvocationID mnt-guest.mount writer.service)
for who in worker pid both; do
	worker=$(status_of worker)
	cp /run/cowd/mydev.json record
	# shellcheck disable=SC2046 # numbers
	case $who in
	both) inside kill -9 $(processes_of mydev) ;;
	*) inside kill -9 "$(status_of $who)" ;;
	esac
	at=$(written)
	until_true 900 served_by_another "$worker" || die "killed $who: nobody serves again: $(cat /run/cowd.log)"
	until_true 900 writes_past $((at + 3)) || die "killed $who: nothing is written"
	echo "ok $SECONDS s: killed $who, served again"
done
[ "$(inside systemctl show -P InvocationID mnt-guest.mount writer.service)" = "$lives" ] ||
	fail "what stands on the device was ended when cowd was started again"
[ "$(inside systemctl show -P NRestarts cowd@mydev.service)" = 3 ] || fail "systemd does not count three"
file_systems=" /srv/bases ext4
 /srv/the\\040images ext4"
host_ends "shutdown" "$file_systems"
files_are_well

# A run directory that outlives the host names processes and a device of its former life.
cp record /run/cowd/mydev.json
host_runs
host_ends "shutdown after a reboot" "$file_systems"
files_are_well

# A device stands on no file system, whose end would pull cowd along.
rm -f /run/written
golden /dev/ram0
configured my-disk raw /dev/ram0 ''
host_runs
host_ends "shutdown, all on a device" ''
number_is /dev/ram0
