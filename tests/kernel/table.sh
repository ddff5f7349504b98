#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Table lines and messages that must be refused, with the words that the
# kernel gives, and those that must be taken; what dmsetup prints is loaded.
. "$(dirname "$0")/common.sh"
set -u

nr=0 bad=0
T=dmut-table
D=$(mktemp -d)
trap 'clean; rm -rf "$D"' EXIT

ok() { echo "ok $((++nr)) - $1"; }
not_ok() { echo "not ok $((++nr)) - $1: $2"; bad=$((bad + 1)); }

clean() {
	dmsetup remove --noudevsync "$T" "$T-2" "$T-ro" >/dev/null 2>&1
	for l in "${L0:-}" "${L1:-}" "${L4K:-}" "${LRO:-}"; do
		[ -n "$l" ] && losetup -d "$l" 2>/dev/null
	done
}

loop() {
	truncate -s 4M "$D/$1"
	losetup -f --show "${@:2}" "$D/$1"
}

modprobe -q loop
L0=$(loop a) && L1=$(loop b) && L4K=$(loop c -b 4096) && LRO=$(loop d -r) ||
	{ echo "cannot make loop devices"; exit 1; }

marker() { echo "dmut $RANDOM$RANDOM" | tee /dev/kmsg; }

# What the kernel said since the marker.
said() { dmesg | sed "0,/$1/d"; }

# refused NAME WORDS PARAMETERS [SECTORS [TARGET]]
refused() {
	local m out
	m=$(marker)
	if out=$(dmsetup create --noudevsync "$T" \
		--table "0 ${4:-1024} ${5:-userspace} $3" 2>&1); then
		dmsetup remove --noudevsync "$T"
		not_ok "$1" "taken"
		return
	fi
	dmsetup remove --noudevsync "$T" >/dev/null 2>&1
	out+=$(said "$m")
	if grep -q 'WARNING\|BUG' <<<"$out"; then
		not_ok "$1" "the kernel warns"
	elif ! grep -qF -- "$2" <<<"$out"; then
		not_ok "$1" "no '$2' in: $(tr '\n' '|' <<<"$out")"
	else
		ok "$1"
	fi
}

# taken NAME PARAMETERS EXPECTED_TABLE_AFTER_THE_DEVICES
taken() {
	local got
	if ! dmsetup create --noudevsync "$T" --table "0 1024 userspace $2" \
		>"$D/out" 2>&1; then
		not_ok "$1" "refused: $(cat "$D/out")"
		return
	fi
	got=$(dmsetup table "$T")
	if [ "${got#*" $3"}" = "$got" ]; then
		not_ok "$1" "the table reads: $got"
	elif ! dmsetup reload --noudevsync "$T" --table "$got" 2>"$D/out"; then
		not_ok "$1" "cannot load what it prints ($got): $(cat "$D/out")"
	elif dmsetup resume --noudevsync "$T" &&
	     [ "$(dmsetup table "$T")" != "$got" ]; then
		not_ok "$1" "after a reload: $(dmsetup table "$T") instead of $got"
	else
		ok "$1"
	fi
	dmsetup remove --noudevsync "$T" || not_ok "$1" "cannot be removed"
}

n0=$(stat -c %Hr:%Lr "$L0") n1=$(stat -c %Hr:%Lr "$L1")
defaults="3 queue map_memory 65536"
long=$(printf 'k%.0s' $(seq 127))

### taken
taken plain "k 8 1 $L0" "userspace k 8 1 $n0 $defaults"
taken two_devices "k 8 2 $L0 $L1" "k 8 2 $n0 $n1 $defaults"
taken device_twice "k 8 2 $L0 $L0" "k 8 2 $n0 $n0 $defaults"
taken by_number "k 8 1 $n0" "k 8 1 $n0 $defaults"
taken readonly "k 8 2 ro:$L0 $L1" "k 8 2 ro:$n0 $n1 $defaults"
taken readonly_device "k 8 1 ro:$LRO" "ro:"
taken both_ways "k 8 2 ro:$L0 $L0" "k 8 2 ro:$n0 $n0 $defaults"
taken smallest_block "k 1 1 $L0" "k 1 1 $n0 $defaults"
taken largest_block "k 32768 1 $L0" "k 32768 1 $n0 $defaults"
taken longest_key "$long 8 1 $L0" "$long 8 1 $n0 $defaults"
taken no_features "k 8 1 $L0 0" "k 8 1 $n0 $defaults"
taken queue "k 8 1 $L0 1 queue" "$n0 $defaults"
taken fail "k 8 1 $L0 1 fail" "$n0 3 fail map_memory 65536"
taken timeout "k 8 1 $L0 2 timeout 7" "$n0 4 timeout 7 map_memory 65536"
taken timeout_longest "k 8 1 $L0 2 timeout 86400" "4 timeout 86400 map_memory 65536"
taken map_memory "k 8 1 $L0 2 map_memory 77" "$n0 3 queue map_memory 77"
taken all_features "k 8 1 $L0 4 map_memory 77 timeout 9" "4 timeout 9 map_memory 77"
taken odd_key "a,b:c/d%s%n 8 1 $L0" "a,b:c/d%s%n 8 1 $n0"

### refused
W="wants <key> <block sectors> <#devs> <dev>..."
refused nothing "$W" ""
refused key_only "$W" "k"
refused no_devices_number "$W" "k 8"
refused no_devices "$W" "k 8 1"
refused long_key "key is longer than 127 bytes" "${long}k 8 1 $L0"
B="block size is no power of two of 1 to 32768 sectors"
for v in 0 3 7 65536 -8 x 8x 0x8 8.0 4294967304 18446744073709551624 ''; do
	[ -n "$v" ] && refused "block_$v" "$B" "k $v 1 $L0"
done
N="number of devices is not 1 to 255"
for v in 0 256 -1 x 4294967297; do
	refused "devices_$v" "$N" "k 8 $v $L0"
done
refused fewer_devices "fewer devices than announced" "k 8 2 $L0"
refused far_fewer_devices "fewer devices than announced" "k 8 255 $L0 $L1"
O="cannot open a destination device"
refused no_such_device "$O" "k 8 1 /dev/nothing"
refused no_such_number "$O" "k 8 1 99:999"
refused second_missing "$O" "k 8 2 $L0 /dev/nothing"
refused a_file "$O" "k 8 1 $D/a"
refused ro_of_nothing "$O" "k 8 1 ro:"
refused ro_twice "$O" "k 8 1 ro:ro:$L0"
refused readonly_for_writing "$O" "k 8 1 $LRO"
refused logical_block "block is smaller than a device's logical block" "k 4 1 $L4K"
refused logical_block_second "block is smaller than a device's logical block" "k 1 2 $L0 $L4K"
refused more_devices "wrong number of feature arguments" "k 8 1 $L0 $L1"
C="wrong number of feature arguments"
for v in 9 -1 x 4294967297; do
	refused "features_$v" "$C" "k 8 1 $L0 $v queue"
done
refused features_missing "not enough arguments" "k 8 1 $L0 1"
refused features_fewer "not enough arguments" "k 8 1 $L0 2 queue"
refused features_left "arguments left over" "k 8 1 $L0 0 queue"
refused features_left_2 "arguments left over" "k 8 1 $L0 1 queue fail"
refused features_unknown "unknown feature argument" "k 8 1 $L0 1 nothing"
refused features_case "unknown feature argument" "k 8 1 $L0 1 QUEUE"
P="more than one of queue, fail, timeout"
refused policy_twice "$P" "k 8 1 $L0 2 queue fail"
refused policy_same_twice "$P" "k 8 1 $L0 2 fail fail"
refused policy_timeout_too "$P" "k 8 1 $L0 3 timeout 5 queue"
S="timeout wants seconds, 1 to 86400"
refused timeout_missing "$S" "k 8 1 $L0 1 timeout"
refused timeout_borrowed "$S" "k 8 1 $L0 1 timeout 5"
for v in 0 86401 -1 x 5s 4294967297; do
	refused "timeout_$v" "$S" "k 8 1 $L0 2 timeout $v"
done
M="map_memory wants KiB, at least 1"
refused map_memory_missing "$M" "k 8 1 $L0 1 map_memory"
for v in 0 -1 x 64k 4294967296; do
	refused "map_memory_$v" "$M" "k 8 1 $L0 2 map_memory $v"
done

### a key in use
dmsetup create --noudevsync "$T-2" --table "0 1024 userspace used 8 1 $L0"
refused key_in_use "key is in use by another device" "used 8 1 $L0"
m=$(marker)
if dmsetup reload --noudevsync "$T-2" --table "0 1024 userspace used 16 1 $L0" 2>"$D/out"; then
	not_ok block_size_changes "taken"
	dmsetup clear "$T-2"
elif said "$m" | grep -qF "block size differs from that of the live table"; then
	ok block_size_changes
else
	not_ok block_size_changes "$(said "$m")"
fi
m=$(marker)
if printf '0 512 userspace twice 8 1 %s\n512 512 userspace twice 8 1 %s\n' "$L0" "$L1" |
	dmsetup create --noudevsync "$T" 2>"$D/out"; then
	not_ok key_twice_in_a_table "taken"
	dmsetup remove --noudevsync "$T"
elif said "$m" | grep -qF "key stands twice in one table"; then
	ok key_twice_in_a_table
else
	not_ok key_twice_in_a_table "$(said "$m")"
fi
dmsetup remove --noudevsync "$T" >/dev/null 2>&1

# Two keys in one table are two disks.
if printf '0 512 userspace one 8 1 %s\n512 512 userspace two 8 1 %s\n' "$L0" "$L1" |
	dmsetup create --noudevsync "$T" 2>"$D/out"; then
	ok two_keys_in_a_table
	dmsetup remove --noudevsync "$T"
else
	not_ok two_keys_in_a_table "$(cat "$D/out")"
fi

# A device that is read-only as a whole opens what is below for reading.
if dmsetup create --noudevsync --readonly "$T-ro" --table "0 1024 userspace r 8 1 $LRO" 2>"$D/out"; then
	ok readonly_table
	dmsetup remove --noudevsync "$T-ro"
else
	not_ok readonly_table "$(cat "$D/out")"
fi

# The longest table and the longest status.
devs=$(for i in $(seq 255); do printf ' %s' "$L0"; done)
if dmsetup create --noudevsync "$T" --table "0 1024 userspace many 8 255$devs" 2>"$D/out" &&
	[ "$(dmsetup table "$T" | wc -w)" -eq $((3 + 3 + 255 + 4)) ]; then
	ok devices_255
else
	not_ok devices_255 "$(cat "$D/out") $(dmsetup table "$T" 2>&1 | wc -w) words"
fi
dmsetup remove --noudevsync "$T" >/dev/null 2>&1

### status
s=$(dmsetup status "$T-2")
want="0 1024 userspace 0 queue 8 18 "
if [ "${s#"$want"}" = "$s" ]; then
	not_ok status_head "it reads: $s"
else
	ok status_head
fi
set -- ${s#"$want"}
[ $# -eq 36 ] && ok status_pairs || not_ok status_pairs "$# words for 18 pairs"
missing=
for n in hits_read hits_write faults events copies copy_errors overwrites commits flushes discards \
	extents map_bytes map_budget evictions waiting uncommitted metadata_dirty failed; do
	[[ " $s " =~ \ $n\ [0-9]+\  ]] || missing+=" $n"
done
[ -z "$missing" ] && ok status_names || not_ok status_names "no$missing"

### messages

# message NAME taken|WORDS MESSAGE...
message() {
	local m name=$1 want=$2 out
	shift 2
	m=$(marker)
	if dmsetup message "$T-2" 0 "$@" >"$D/out" 2>&1; then
		[ "$want" = taken ] && ok "$name" || not_ok "$name" "taken"
		return
	fi
	out=$(said "$m")
	if [ "$want" = taken ]; then
		not_ok "$name" "refused: $out"
	elif grep -q 'WARNING: \|BUG' <<<"$out"; then
		not_ok "$name" "the kernel warns"
	elif grep -qF -- "$want" <<<"$out"; then
		ok "$name"
	else
		not_ok "$name" "no '$want' in: $out"
	fi
}

U="unknown message; known: policy, map_memory, evict"
message message_unknown "$U" nothing
message message_evict_more "$U" evict 1
message message_policy_alone "$U" policy
message message_memory_alone "$U" map_memory
message message_memory_more "$U" map_memory 5 6
Q="message wants: policy queue|fail|timeout <1 to 86400 seconds>"
message message_policy_unknown "$Q" policy nothing
message message_policy_queue_more "$Q" policy queue 5
message message_policy_timeout_alone "$Q" policy timeout
for v in 0 86401 -1 x 4294967297; do
	message "message_policy_timeout_$v" "$Q" policy timeout "$v"
done
for v in 0 -1 x 4294967296; do
	message "message_memory_$v" "message wants: map_memory <KiB, at least 1>" map_memory "$v"
done
case $(dmsetup status "$T-2") in
"$want"*) ok refused_messages_change_nothing ;;
*) not_ok refused_messages_change_nothing "$(dmsetup status "$T-2")" ;;
esac
message message_policy_fail taken policy fail
message message_policy_timeout taken policy timeout 5
message message_case taken POLICY Timeout 6
message message_memory taken map_memory 99
message message_evict taken evict
t=$(dmsetup table "$T-2")
case $t in
*" 4 timeout 6 map_memory 99") ok messages_in_the_table ;;
*) not_ok messages_in_the_table "$t" ;;
esac
dmsetup reload --noudevsync "$T-2" --table "$t" && dmsetup resume --noudevsync "$T-2" &&
	[ "$(dmsetup table "$T-2")" = "$t" ] && ok messages_outlive_a_reload ||
	not_ok messages_outlive_a_reload "$(dmsetup table "$T-2")"
dmsetup reload --noudevsync "$T-2" --table "0 1024 userspace used 8 1 $L0" &&
	dmsetup resume --noudevsync "$T-2"
case $(dmsetup table "$T-2") in
*" 4 timeout 6 map_memory 99") ok defaults_do_not_override ;;
*) not_ok defaults_do_not_override "$(dmsetup table "$T-2")" ;;
esac
dmsetup remove --noudevsync "$T-2"

# Nothing is left of a device that went: the key is free, with another block size.
taken key_is_free "used 16 1 $L0" "used 16 1 $n0 $defaults"

echo "1..$nr"
[ "$bad" = 0 ] || echo "# $bad of $nr failed"
clean
leave $((bad != 0))
