#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# test-many.sh [DISKS]: block-dmu-shim watches a host on which 200 guests start and end, with
# a xenstore of files. Counted, not timed: each disk costs the same processes and no more
# calls to xenstore than a few, however many there are.
set -u

disks=${1:-200}
shim=$PWD/shim-in-files
work=$(mktemp -d)
watcher=
trap '[ -z "$watcher" ] || kill "$watcher"; rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir -p bin store devices dev/mapper var/run/xen-hotplug var/log/xen
export WORK=$work STORE=$work/store
: >image
: >started
: >xenstore-calls
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

# program NAME: its text comes from standard input; it notes that it was started.
program()
{
	{
		printf '#!/bin/sh\nPATH=/usr/bin:/bin\necho "%s $1" >>"$WORK/started"\n' "$1"
		cat
	} >"bin/$1"
	chmod +x "bin/$1"
}

program cowd <<'END'
while [ $# -gt 2 ]; do shift; done
echo "$2" >"$WORK/devices/$1"
ln -s /dev/null "$WORK/dev/mapper/$1"
END
program cowctl <<'END'
case $1 in
status)
	read -r image <"$WORK/devices/$3" || exit 3
	printf '[{"name":"%s","state":"running","format":"raw","image":"%s","device":{"read_only":false}}]\n' "$3" "$image"
	;;
stop) rm "$WORK/devices/$2" "$WORK/dev/mapper/$2" ;;
esac
END
program setsid <<'END'
shift
exec "$WORK/bin/$@"
END

tells() { printf '%s\n' "$@" >&7; }

# Bounded, for whatever does not come.
until_true()
{
	local i
	for i in $(seq 3000); do
		"$@" && return
		sleep 0.1
	done
	fail "waited five minutes for: $*"
	exit 1
}

begins()
{
	local disk=backend/vbd/$1/51712
	mkdir -p "store/$disk"
	printf "raw:%s" "$work/image" >"store/$disk/params"
	printf w >"store/$disk/mode"
	printf /etc/xen/scripts/block-dmu >"store/$disk/script"
	tells "$disk" "$disk/frontend" "$disk/params" "$disk/script" "$disk/mode" "$disk/state"
}

ends()
{
	rm -r "store/backend/vbd/$1"
	tells "backend/vbd/$1/51712" "backend/vbd/$1"
}

all_connected() { [ "$(cat store/backend/vbd/*/51712/hotplug-status 2>/dev/null)" = "$connected" ]; }
none_served() { [ -z "$(ls devices)" ]; }
all_kept() { [ "$(grep -c '^cowctl keep$' started)" = "$disks" ]; }

mkfifo events
# Nothing is found but the programs above.
PATH=/none "$shim" watch &
watcher=$!
exec 7>events
connected=$(printf 'connected%.0s' $(seq "$disks"))
# Domains that no other run of this has at the same time: keepers are looked for by name.
first=$(($$ * 500)) last=$(($$ * 500 + disks - 1))
for domain in $(seq "$first" "$last"); do begins "$domain"; done
until_true all_connected
until_true all_kept
[ "$(ls dev/mapper | wc -l)" = "$disks" ] || fail "serves $(ls dev/mapper | wc -l) of $disks"
for domain in $(seq "$first" "$last"); do ends "$domain"; done
until_true none_served

# Two shims for each disk, one to add and one to remove it, and who watches.
shims=$(tr -dc o <xenstore-calls | wc -c)
[ "$shims" = $((2 * disks + 1)) ] || fail "$shims processes of the shim for $disks disks"
each="$disks cowctl keep
$((2 * disks)) cowctl status
$disks cowctl stop
$disks cowd -p
$disks setsid -f"
[ "$(sort started | uniq -c | sed 's/^ *//' | sort -k 2)" = "$each" ] ||
	fail "started for $disks disks: $(sort started | uniq -c)"
calls=$(wc -c <xenstore-calls)
[ "$calls" -le $((30 * disks)) ] || fail "$calls calls to xenstore for $disks disks"
[ -z "$(ls -A var/run/xen-hotplug)" ] || fail "left locks"

exec 7>&-
wait "$watcher"
watcher=
[ "$failed" = 0 ] && echo "PASS test-many.sh: $disks disks, $(wc -l <started) programs, $calls calls to xenstore"
exit "$failed"
