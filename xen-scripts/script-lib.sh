# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Sourced by test-script.sh and test-trouble.sh: a host of files and programs that note
# what they were called with, on which block-dmu or block-dmu-shim runs.
set -u

src=$(cd "${srcdir:-$(dirname "$0")}" && pwd)
helpers='' shim=''
if [ -d "${1:-}" ]; then
	helpers=$1
elif [ $# -gt 0 ]; then
	shim=$(realpath "$1")
fi
work=$(mktemp -d)
watcher=
trap '[ -z "$watcher" ] || kill "$watcher"; rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir -p bin xen devices images dev/mapper var/run/xen-hotplug var/log/xen run/systemd run/cowd
mapper=$work/dev/mapper locks=$work/var/run/xen-hotplug systemd=$work/run/systemd/system
log=$work/var/log/xen/xen-hotplug.log
[ -z "$shim" ] || mapper=./dev/mapper
export WORK=$work STORE=$work/store
failed=0

fail()
{
	echo "FAIL: $what: $*"
	failed=1
}

# program NAME: its text comes from standard input.
program()
{
	{ echo '#!/bin/bash'; cat; } >"bin/$1"
	chmod +x "bin/$1"
}

# ---- Xen -------------------------------------------------------------------

# As the real one: what is not plain comes as escapes, but for -R.
program xenstore-read <<'END_PROGRAM'
LC_ALL=C
raw=
[ "$1" != -R ] || { raw=yes; shift; }
for path; do
	value=$(cat "$STORE/$path" 2>/dev/null) || { echo "xenstore-read: couldn't read path $path" >&2; exit 1; }
	if [ -z "$raw" ]; then
		value=${value//\\/\\\\}
		out=
		for ((i = 0; i < ${#value}; i++)); do
			c=${value:i:1}
			[[ $c == [\ -~] ]] || printf -v c '\\x%02x' "'$c"
			out+=${c/xffffffffffffff/x}
		done
		value=$out
	fi
	printf '%s\n' "$value"
done
END_PROGRAM

# As the real one: it knows escapes.
program xenstore-write <<'END_PROGRAM'
while [ $# -ge 2 ]; do
	[ ! -e "$WORK/refuse-${1##*/}" ] || exit 1
	mkdir -p "$STORE/${1%/*}"
	printf %b "$2" >"$STORE/$1"
	shift 2
done
END_PROGRAM

program logger <<'END_PROGRAM'
echo "$*" >>"$WORK/syslog"
END_PROGRAM

# What the scripts of Xen promise: fatal tells xenstore and ends the script, as does
# each command that fails.
cat >xen/block-common.sh <<'END_HELPERS'
set -e
exec 2>>"$WORK/var/log/xen/xen-hotplug.log"
export PATH=$WORK/bin:/usr/bin:/bin
command=$1
: "${XENBUS_PATH:?}"
log() { logger -p "daemon.$1" -- "${@:2}"; }
fatal()
{
	xenstore-write "$XENBUS_PATH/hotplug-error" "$*" "$XENBUS_PATH/hotplug-status" error
	log err "$@"
	exit 1
}
xenstore_read()
{
	local value
	value=$(xenstore-read "$@" || true)
	[ -n "$value" ] || fatal "xenstore-read $* failed."
	echo "$value"
}
xenstore_write() { xenstore-write "$@" || fatal "Writing $* to xenstore failed."; }
canonicalise_mode()
{
	case $1 in
	*w*!*) echo ! ;;
	*w*) echo w ;;
	*) echo r ;;
	esac
}
write_dev()
{
	local numbers
	numbers=$(stat -L -c %t:%T "$1")
	xenstore_write "$XENBUS_PATH/physical-device" "$numbers"
	xenstore_write "$XENBUS_PATH/physical-device-path" "$1"
	xenstore_write "$XENBUS_PATH/hotplug-status" connected
}
claim_lock()
{
	# As the real one: who has the lock removes the file.
	while :; do
		exec 200<>"$WORK/var/run/xen-hotplug/$1"
		flock -x 200
		[ ! /dev/fd/200 -ef "$WORK/var/run/xen-hotplug/$1" ] || break
	done
}
release_lock() { rm "$WORK/var/run/xen-hotplug/$1"; }
END_HELPERS

if [ -n "$helpers" ]; then
	rm xen/block-common.sh
	cp "$helpers"/*.sh xen/ || exit 1
	rm -f xen/dmu-target.sh
	sed -i "s|/var/log/xen/xen-hotplug.log|$log|" xen/xen-hotplug-common.sh
	sed -i "s|/var/run/xen-hotplug|$locks|" xen/locking.sh
	sed -i "s|^bindir=.*|bindir=$work/bin|; s|^LIBEXEC_BIN=.*|LIBEXEC_BIN=/none|" xen/hotplugpath.sh
	for word in "$log:xen-hotplug-common.sh" "$locks:locking.sh" "$work/bin:hotplugpath.sh"; do
		grep -q "${word%:*}" "xen/${word##*:}" || { echo "FAIL: $helpers/${word##*:} is another than this test knows"; exit 1; }
	done
fi

# ---- ours ------------------------------------------------------------------

# The words of a call, in one line of the file calls.
program note <<'END_PROGRAM'
IFS='|'
echo "$*" >>"$WORK/calls"
END_PROGRAM

# A device is a file with the state of its cowd, and a node.
program cowd <<'END_PROGRAM'
[ -n "${CHILD:-}" ] || note cowd "$@"
for fd in /proc/$$/fd/*; do
	case $(readlink "$fd") in */xen-hotplug/*) echo "$fd" >>"$WORK/held" ;; esac
done
name=${*: -2:1}
[ ! -e "$WORK/taken" ] || cat "$WORK/taken"
[ ! -e "$WORK/refuse-cowd" ] || { echo "cowd: $(cat "$WORK/refuse-cowd")" >&2; exit 1; }
if [ -e "$WORK/used-by" ] && [ -e "$WORK/devices/$(cat "$WORK/used-by")" ]; then
	by=/dev/mapper/$(cat "$WORK/used-by")
	[ ! -e "$WORK/used-by-another" ] || by="another program; it can be written by one only"
	echo "cowd: ${*: -1}: is in use by $by" >&2
	exit 1
fi
# As the real one, who started it only waits, and may be ended.
if [ -e "$WORK/starting" ] && [ -z "${CHILD:-}" ]; then
	CHILD=yes setsid "$0" "$@" &
	wait
	exit
fi
[ -z "${CHILD:-}" ] || printf '%s\n' starting "$2" "${*: -1}" false >"$WORK/devices/$name"
for i in {1..900}; do
	[ -e "$WORK/starting" ] || break
	sleep 0.1
done
read_only=false
case " $* " in *' --read-only '*) read_only=true ;; esac
for i in {1..300}; do
	[ -e "$WORK/slow-cowd" ] || break
	sleep 0.1
done
: >"$WORK/run/cowd/$name.json"
printf '%s\n' running "$2" "${*: -1}" "$read_only" >"$WORK/devices/$name"
ln -sf /dev/null "$WORK/dev/mapper/$name"
END_PROGRAM

program cowctl <<'END_PROGRAM'
case $1 in
status)
	name=${*: -1}
	[ -e "$WORK/devices/$name" ] || { echo "cowctl: $name: no cowd serves a device of that name" >&2; exit 3; }
	{ read -r state; read -r format; read -r image; read -r read_only; } <"$WORK/devices/$name"
	image=${image//\\/\\\\}
	printf '[\n  {\n    "name":"%s",\n    "state":"%s",\n    "format":"%s",\n    "image":"%s",\n    "device":{\n      "exists":true,\n      "read_only":%s\n    }\n  }\n]\n' \
		"$name" "$state" "$format" "${image//\"/\\\"}" "${read_only:-false}"
	;;
keep)
	note cowctl "$@"
	while [ -e "$WORK/keeps" ]; do sleep 0.1; done
	;;
stop)
	note cowctl "$@"
	[ -e "$WORK/devices/$2" ] || { echo "cowctl: $2: no cowd serves a device of that name" >&2; exit 3; }
	! grep -q '^starting$' "$WORK/devices/$2" || { echo "cowctl: $2: its cowd lives, but does not listen; is it starting or ending?" >&2; exit 1; }
	[ ! -e "$WORK/busy" ] || { sleep 1; echo "cowctl: $2 is in use (open 1 times)" >&2; exit 1; }
	[ ! -e "$WORK/slow" ] || exec sleep 600
	[ ! -e "$WORK/used" ] || { cat "$WORK/used" >&2; rm "$WORK/used"; exit 1; }
	rm -f "$WORK/devices/$2" "$WORK/dev/mapper/$2" "$WORK/run/cowd/$2.json"
	;;
esac
END_PROGRAM

program cowimg <<'END_PROGRAM'
case $1 in
create)
	note cowimg "$@"
	[ ! -e "$WORK/refuse-cowimg" ] || { echo "cowimg: $(cat "$WORK/refuse-cowimg")" >&2; exit 1; }
	for image; do
		case $image in /*) last=$image ;; esac
		[ "$before" != -b ] || printf %s "$image" >"$WORK/backing"
		before=$image
	done
	: >"$last"
	;;
info)
	[ "$2" = --json ] || exit 2
	[ ! -e "$WORK/refuse-info" ] || { echo "cowimg: $(cat "$WORK/refuse-info")" >&2; exit 1; }
	printf '{\n  "filename":"%s"' "${*: -1}"
	if [ -e "$WORK/backing" ]; then
		backing=$(cat "$WORK/backing")
		backing=${backing//\\/\\\\}
		printf ',\n  "backing-filename":"%s"' "${backing//\"/\\\"}"
	fi
	[ ! -e "$WORK/backing-format" ] || printf ',\n  "backing-filename-format":"%s"' "$(cat "$WORK/backing-format")"
	printf ',\n  "details":{\n  }\n}\n'
	;;
esac
END_PROGRAM

program systemd-run <<'END_PROGRAM'
note systemd-run "$@"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
END_PROGRAM

sed -e "s|@s*bindir@|$work/bin|g; s|/run/systemd/system|$systemd|; s|/run/cowd/|$work/run/cowd/|; s|/dev/mapper/|$work/dev/mapper/|g" \
	"$src/block-dmu.in" >xen/block-dmu || exit 1
cp "$src/dmu-target.sh" xen/
chmod +x xen/block-dmu

# ---- the test --------------------------------------------------------------

# A domain that no other run of this has at the same time: keepers are looked for by name.
domain=$$
backend=backend/vbd/$domain/51712
name=xen-$domain-51712

# disk MODE TARGET: what xl writes for a disk, and a host on which nothing happened.
disk()
{
	rm -rf store calls syslog refuse-* used used-by used-by-another starting keeps again taken slow busy backing* held run/systemd/* run/cowd/* devices/* dev/mapper/* images/*
	mkdir -p "store/$backend"
	printf %s "$1" >"store/$backend/mode"
	printf %s "$2" >"store/$backend/params"
	: >images/golden
}

# script add|remove: as the toolstack runs it; what it outlives must be over.
script()
{
	: >calls
	toolstack "$1"
}

toolstack()
{
	XENBUS_PATH=$backend timeout 60 "${shim:-xen/block-dmu}" "$1" </dev/null
}

node() { cat "store/$backend/$1" 2>/dev/null; }
lines() { [ $# = 0 ] || printf '%s\n' "$@"; }

# calls_are LINE...: what was called, but for what keeps a device, which comes last.
calls_are()
{
	sed -i -E 's/(\|--unit=cowd-[^|]*-)[0-9]+\|/\1PID|/' calls
	lines "$@" | cmp -s - calls || fail "called: $(cat calls)"
}

# cowctl keep goes to the background: it may come after the script's end.
kept()
{
	local i
	for i in $(seq 300); do
		grep -q "^cowctl|keep|$name\$" calls && break
		sleep 0.1
	done
	[ "$(tail -n 1 calls)" = "cowctl|keep|$name" ] || fail "nobody keeps it: $(cat calls)"
	sed -i '$d' calls
}

connected()
{
	[ "$(node hotplug-status)" = connected ] || fail "hotplug-status is $(node hotplug-status): $(node hotplug-error)"
	[ "$(node physical-device)" = 1:3 ] || fail "physical-device is $(node physical-device)"
	[ "$(node physical-device-path)" = "$mapper/$name" ] || fail "physical-device-path is $(node physical-device-path)"
	[ "$(node node)" = "$mapper/$name" ] || fail "node is $(node node)"
	[ -z "$(node hotplug-error)" ] || fail "hotplug-error is $(node hotplug-error)"
	unlocked
}

unlocked()
{
	[ -z "$(ls "$locks")" ] || fail "left the lock $(ls "$locks")"
	[ ! -e held ] || fail "cowd holds the lock"
}

adds()
{
	script add || fail "add: status $?: $(node hotplug-error)"
	kept
	connected
}

# add_fails SENTENCE: and says so.
add_fails()
{
	script add && fail "add does not fail"
	[ "$(node hotplug-status)" = error ] || fail "hotplug-status is $(node hotplug-status)"
	[ "$(node hotplug-error)" = "$1" ] || fail "hotplug-error is $(node hotplug-error)"
	[ "$(node hotplug-error | wc -l)" = 0 ] || fail "more than one line: $(node hotplug-error)"
	[ -z "$(node physical-device)" ] || fail "physical-device is $(node physical-device)"
}

# refused SENTENCE: add fails; remove does not fail then.
refused()
{
	add_fails "$1"
	removes
}

removes()
{
	script remove || fail "remove: status $?"
	[ -z "$(ls -A devices)$(ls -A dev/mapper)" ] || fail "left $(ls devices dev/mapper)"
	unlocked
}

# until_true COMMAND...
until_true()
{
	local i
	for i in $(seq 300); do
		"$@" && return
		sleep 0.1
	done
	fail "waited 30 s for: $*"
}
