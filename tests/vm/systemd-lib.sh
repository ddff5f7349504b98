# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# A real systemd in a test machine, for scripts that say what it is to start: the first process of
# a PID namespace with mounts of its own, and the machine's devices.  udev runs in it, since where
# there is none systemd orders no mount after the maker of its device.
systemd_units=/run/test-units
systemd_pid=

# unit NAME: what stands on standard input.
unit()
{
	mkdir -p "$(dirname "$systemd_units/$1")"
	cat >"$systemd_units/$1"
}

# systemd_starts TARGET: and returns before that is reached.
systemd_starts()
{
	cat >/run/systemd-starts <<-'END'
	[ ! -e /proc/xen ] || mount -t xenfs xenfs /proc/xen || exit
	exec env -i container=test SYSTEMD_UNIT_PATH="$1:" PATH="$PATH" \
		/lib/systemd/systemd --system --unit="$2" --log-target=kmsg --show-status=no
	END
	rm -rf /run/systemd /run/udev
	# Its 90 s for a device are not enough with KASAN.
	mkdir -p /run/systemd/system.conf.d
	printf '[Manager]\nDefaultDeviceTimeoutSec=900s\n' >/run/systemd/system.conf.d/slow.conf
	unit "$1.d/udev.conf" <<-'END'
	[Unit]
	Wants=systemd-udevd.service systemd-udev-trigger.service
	END
	echo on >/proc/sys/kernel/printk_devkmsg	# each of its lines is in dmesg
	echo "a systemd begins here" >/dev/kmsg
	ldconfig	# what the manager starts gets no LD_LIBRARY_PATH
	unshare -m -p -f --propagation private --mount-proc sh /run/systemd-starts "$systemd_units" "$1" </dev/null &
	unshare_pid=$!
	for _ in $(seq 300); do
		systemd_pid=$(ps -o pid= --ppid "$unshare_pid" | tr -d ' ')
		[ ! -S /run/systemd/private ] || [ -z "$systemd_pid" ] || return 0
		sleep 0.2
	done
	die "systemd does not start"
}

# inside COMMAND...: as its child would see the machine.
inside() { nsenter -t "$systemd_pid" -m -p "$@"; }

# systemd_said: since it began last.  The machine's own search for warnings needs what is before.
systemd_said() { dmesg | tac | sed '/a systemd begins here/q' | tac | grep 'systemd\[1\]'; }

# What a shutdown of the host begins; returns when all is over.
systemd_ends()
{
	kill -s RTMIN+4 "$systemd_pid"
	timeout 240 tail --pid="$unshare_pid" -f /dev/null || return
	wait "$unshare_pid"
	systemd_pid=
}
