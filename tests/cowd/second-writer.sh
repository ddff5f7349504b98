#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An image that a device is made of is not served a second time, whether the
# device's cowd lives or died and holds no lock any more, and even when the run
# directory was lost; nor is it written by a tool.  Loop devices that write use direct
# I/O, and others do not.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
export LOAD_PACE=10	# leaves the processor to the commands that are tried

# twice WHAT WORD ARG...: refused while mydev is there, by one sentence with WORD.
twice()
{
	local what=$1 word=$2
	local -a sentences
	shift 2
	timeout 60 cowd "$@" 2>err </dev/null && fail "$what: served twice"
	mapfile -t sentences <err
	[ ${#sentences[@]} = 1 ] || fail "$what: ${sentences[*]}"
	[[ ${sentences[*]} == *"$word"* ]] || fail "$what: does not say '$word': ${sentences[*]}"
	[ ! -e /dev/mapper/two ] || fail "$what: a second device came"
	[ ! -e /run/cowd/two.json ] || fail "$what: left a record"
	found '/sys/block/dm-*'
	[[ -n $found && $found != *" "* ]] || fail "$what: not one device: $found"
	echo "ok $SECONDS s: $what: ${sentences[*]}"
}

# What of FILE must stay: all of the base, and the metadata of an overlay that nobody serves.
kept()
{
	stat -c '%i %s' "$1"
	case $1 in
	base.img) md5sum <"$1" ;;
	*) [ -n "$(daemons)" ] || head -c 4096 "$1" | md5sum ;;
	esac
}

# tool FILE TEXT COMMAND...: a tool that would write to FILE, which mydev uses, is
# refused by one sentence.
tool()
{
	local path=$1 text=$2 before
	shift 2
	before=$(kept "$path")
	"$@" >out 2>err </dev/null && fail "$*: was done while mydev is there"
	[[ $(wc -l <err) = 1 && $(<err) == *"$path: is "*"$text"* ]] ||
		fail "$*: does not say '$text': $(<err)"
	[ "$before" = "$(kept "$path")" ] || fail "$*: $path was changed or replaced"
	echo "ok $SECONDS s: $*: $(<err)"
}

# tools TEXT: of mydev, made of a.dscow over base.img.
tools()
{
	tool a.dscow "$1" cowimg check -r -f dscow a.dscow
	tool a.dscow "$1" dscow_tool -k --repair a.dscow
	tool a.dscow "$1" dscow_tool -m a.dscow
	tool a.dscow "$1" dscow_tool --accept-base a.dscow
	tool a.dscow "$1" dscow_tool -c --force a.dscow base.img
	tool a.dscow "$1" cowimg create --force -f qcow2 a.dscow 1m
	tool a.dscow "$1" img2qcow --force base.img a.dscow
	tool base.img "$1" cowimg convert --force -f raw -O raw new base.img
}

# The device mydev is there: both its image and its base are taken.
taken()
{
	local who=$1 word=$2 copy=${3:-}
	twice "$who: overlay" "$word" -p dscow two a.dscow
	twice "$who: overlay as raw" "$word" -p raw two a.dscow
	twice "$who: overlay, read only" "$word" -p dscow -r two a.dscow
	ln -sf a.dscow link
	ln -f a.dscow hard
	twice "$who: overlay by a link" "$word" -p raw two link
	twice "$who: overlay by another name" "$word" -p raw two hard
	twice "$who: base, writable" "$word" -p raw two base.img
	# Reading the base disturbs nobody.
	cowd -p raw -r "three$copy" base.img || fail "$who: the base cannot be read"
	cowctl stop "three$copy" || fail "$who: cowctl stop three"
}

overlay 32 8
cowd -p dscow mydev a.dscow || die "cowd"
for loop in /sys/block/loop*/loop; do
	direct=$(cat "$loop/dio") only_read=$(cat "$loop/../ro")
	[ "$direct" != "$only_read" ] ||
		fail "$loop: $(cat "$loop/backing_file"): read-only $only_read, direct I/O $direct"
	echo "ok: $(cat "$loop/backing_file"): direct I/O $direct"
done
load_start
taken alive "in use"
truncate -s 1m new
tools "by another program"
kill_cowd both
taken dead "cowd --recover mydev"
tools "cowd --recover mydev, or cowctl stop mydev"
# The same name with another image is no way around it.
dscow_tool -c b.dscow base.img >/dev/null
twice "dead: same name, another overlay" mydev -p dscow mydev b.dscow
mv /run/cowd/mydev.json kept.json
rm -rf /run/cowd
taken "record lost" "cowd --recover mydev"
tools "cowd --recover mydev, or cowctl stop mydev"
twice "record lost: same name, another overlay" "another image" -p dscow mydev b.dscow
cowd --recover mydev 2>err && fail "recovered without a record"
grep -q "no record" err || fail "does not say that the record is lost: $(cat err)"
cowd -p dscow mydev a.dscow || fail "record lost: a plain start does not serve it"
load_runs "served without its record"
load_stop
all_is_well

# The same for block devices.
modprobe brd rd_nr=2 rd_size=16384 || die "no RAM disks"
cowd -p raw mydev /dev/ram0 || die "cowd /dev/ram0"
twice "alive: block device" ram0 -p raw two /dev/ram0
twice "alive: block device, read only" ram0 -p raw -r two /dev/ram0
kill_cowd both
twice "dead: block device" "cowd --recover mydev" -p raw two /dev/ram0
twice "dead: block device, read only" "cowd --recover mydev" -p raw -r two /dev/ram0
rm -rf /run/cowd
twice "record lost: block device" "cowd --recover mydev" -p raw two /dev/ram0
cowd -p raw mydev /dev/ram0 || fail "a plain start does not serve the block device again"
cowctl stop mydev || fail "cowctl stop"
nothing_left "block device"

# A write was copied to a place that no table refers to: the tools would give that back.
for plugin in qcow vhd; do
	image=a.$plugin
	overlay 8 4
	file new 65536
	cowd -p "$plugin" mydev "$image" || die "cowd -p $plugin"
	dd if=new of=/dev/mapper/mydev bs=64k seek=70 oflag=direct conv=notrunc status=none
	kill_cowd both
	tool "$image" "cowd --recover mydev" cowimg check -r -f "$plugin" "$image"
	cowd --recover mydev || die "$plugin: --recover"
	dd if=/dev/mapper/mydev bs=64k skip=70 count=1 iflag=direct status=none | cmp new - ||
		fail "$plugin: what was written is lost"
	cowctl stop mydev || fail "$plugin: cowctl stop"
	nothing_left "$plugin"
	cowimg check -r -f "$plugin" "$image" || fail "$plugin: not repaired when nobody uses it"
done
