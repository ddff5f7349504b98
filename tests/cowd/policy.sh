#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# No daemon: what I/O that needs an answer does under each policy, given to cowd
# or changed at run time; a stuck device is suspended and removed; no command
# hangs.  Then devices made, killed and removed again and again: nothing is left.
#	policy.sh [--long | --times N] [--seed S]
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"
arguments "$@"
: "${times:=${long:+1000}}" "${times:=12}"

# within SECONDS COMMAND...: it ends by then, however.
within()
{
	local limit=$1 status
	shift
	timeout "$limit" "$@"
	status=$?
	[ $status != 124 ] || fail "hangs for $limit s: $*"
	return $status
}

# One that forgot all, and that nobody serves: each read needs an answer.
orphan()
{
	cowd -p dscow "$@" mydev a.dscow || die "cowd $*"
	kill_cowd both
	dmsetup message mydev 0 evict
}

ask() { timeout "${2:-600}" dd if=/dev/mapper/mydev of=/dev/null bs=4k count=1 skip="$1" iflag=direct status=none 2>/dev/null; }
ask_for_long() { ask "$1" & asker=$!; sleep "$2"; }
ask_within()
{
	ask "$2" "$1"
	set -- "$1" $?
	[ "$2" != 124 ] || fail "a read hangs for $1 s"
	return "$2"
}
waits() { kill -0 "$asker" 2>/dev/null || fail "$*: does not wait"; }
ended()
{
	for _ in $(seq 300); do
		kill -0 "$asker" 2>/dev/null || break
		sleep 0.1
	done
	kill -0 "$asker" 2>/dev/null && fail "$2: still waits"
	wait "$asker"
	[ $? = "$1" ] || fail "$2: status is not $1"
}

gone() { [ ! -e /dev/mapper/mydev ] || fail "$*: the device is there"; nothing_left "$*"; }

overlay 16 8

orphan --policy fail
ask_within 10 1 && fail "fail: no error"
dmsetup message mydev 0 policy queue
ask_for_long 1 1
waits "queue, at run time"
within 10 cowctl list >/dev/null || fail "cowctl list"
within 10 cowctl status mydev >/dev/null || fail "cowctl status"
within 20 cowctl stop mydev 2>err && fail "stopped while somebody waits"
grep -q "in use" err || fail "does not say that it is in use: $(cat err)"
within 60 cowd --recover mydev || fail "--recover with a reader that waits"
ended 0 "served again"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "queue"
echo "ok $SECONDS s: fail, queue"

# One that takes nobody: more ask it than can wait for it, and none waits for ever.
cowd -p dscow mydev a.dscow || die cowd
stopped=$(of_json pid </run/cowd/mydev.json)
kill -STOP "$stopped"
callers=()
for _ in $(seq 24); do
	timeout 60 cowctl status mydev >/dev/null 2>>asked &
	callers+=($!)
done
for caller in "${callers[@]}"; do
	wait "$caller"
	[ $? = 1 ] || fail "asking one that takes nobody: not status 1"
done
[ "$(grep -c "mydev: its cowd did not answer" asked)" = 24 ] || fail "not each says so: $(<asked)"
kill -CONT "$stopped"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "taking nobody"
echo "ok $SECONDS s: one that takes nobody"

# What is in force stays when the device is served again, whatever was asked for
# at first, unless something else is asked for now.
orphan --policy fail
in_force fail "dead"
dmsetup message mydev 0 policy timeout 77
within 60 cowd --recover mydev || die "--recover"
in_force "timeout 77" "--recover after a message"
kill_cowd both
dmsetup message mydev 0 policy queue
within 60 cowd -p dscow mydev a.dscow || die "served again by a plain start"
in_force queue "a plain start after a message"
kill_cowd both
within 60 cowd --recover --policy fail mydev || die "--recover --policy fail"
in_force fail "--recover --policy fail"
kill_cowd both
within 60 cowd -p dscow --policy timeout=78 mydev a.dscow || die "plain start with a policy"
in_force "timeout 78" "a plain start with a policy"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "policies"

# So do the other features.
orphan --no-space wait --map-memory 2M
features_in_force "map_memory 2048 no_space wait" "dead"
dmsetup message mydev 0 no_space fail
dmsetup message mydev 0 map_memory 3000
within 60 cowd --recover mydev || die "--recover"
features_in_force "map_memory 3000 no_space fail" "--recover after messages"
dmsetup message mydev 0 no_space wait
within 100 cowctl upgrade mydev || fail "cowctl upgrade"
features_in_force "map_memory 3000 no_space wait" "upgrade after a message"
kill_cowd both
within 60 cowd -p dscow mydev a.dscow || die "served again by a plain start"
features_in_force "map_memory 3000 no_space wait" "a plain start after a message"
kill_cowd both
within 60 cowd --recover --no-space fail --map-memory 1M mydev || die "--recover with features"
features_in_force "map_memory 1024 no_space fail" "--recover with features"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "features"
echo "ok $SECONDS s: the policy in force"

orphan --policy timeout=10
began=$SECONDS
ask_for_long 2 1
waits "timeout=10"
ended 1 "timeout=10"
[ $((SECONDS - began)) -ge 8 ] || fail "timeout=10: it waited $((SECONDS - began)) s"
ask_within 9 3 && fail "after the timeout: no error"
within 60 cowd -p dscow mydev a.dscow || fail "served again after the timeout"
ask_within 20 3 || fail "fails though it is served again"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "timeout"
echo "ok $SECONDS s: timeout"

# queue, a reader waits for ever: suspended, resumed, and then it fails.
orphan
ask_for_long 4 1
waits queue
within 20 dmsetup suspend --noflush --nolockfs mydev || fail "suspend --noflush"
within 20 cowctl status mydev >/dev/null || fail "cowctl status of a suspended device"
within 20 dmsetup resume mydev || fail "resume"
sleep 0.5
waits "suspended and resumed"
dmsetup message mydev 0 policy timeout 1
ended 1 "timeout, at run time"
within 20 dmsetup remove mydev || fail "dmsetup remove"
within 20 cowctl stop mydev || fail "cowctl stop of a record alone"
gone "stuck"
echo "ok $SECONDS s: suspended and removed"

# Storage that does not answer: what is under way there cannot be waited for for ever. The
# device is as it was, and is served again when the storage answers.
file disk $((16 * 1024 * 1024))
loop=$(losetup -f --show disk)
echo "0 32768 linear $loop 0" | dmsetup create below
cowd -p raw mydev /dev/mapper/below || die "cowd on a device"
ask 1 || fail "read"
dmsetup suspend --noflush --nolockfs below
ask_for_long 1 1
waits "storage that does not answer"
kill_cowd both
within 100 cowd -p raw mydev /dev/mapper/below 2>err && fail "served again though nothing answers below"
grep -q "mydev: waited 30 s for its I/O to the files below" err || fail "does not say what it waited for: $(<err)"
dmsetup info mydev | grep -q "State: *ACTIVE" || fail "stays suspended"
waits "not served again"
# Killed alone while it waits there: who waits for it ends with it, and suspends nothing.
cowd -p raw mydev /dev/mapper/below 2>/dev/null &
launcher=$!
sleep 8
of_json pid </run/cowd/mydev.json | xargs kill -9
for _ in $(seq 100); do
	[ -n "$(daemons)" ] || break
	sleep 0.1
done
[ -z "$(daemons)" ] || fail "somebody lives on: $(daemons)"
wait "$launcher" && fail "a cowd that was killed has served"
dmsetup resume below
ended 0 "the storage answers again"
sleep 1
dmsetup info mydev | grep -q "State: *ACTIVE" || fail "suspended by one whose parent was killed"
ask 3 10 || fail "read after that"
within 60 cowd --recover mydev || fail "--recover when the storage answers"
ask 2 || fail "read"
within 60 cowctl stop mydev || fail "cowctl stop"
dmsetup remove below
losetup -d "$loop"
gone "stuck storage"
echo "ok $SECONDS s: storage that does not answer"

# One write is not committed when it dies: stopping saves it, with the image
# gone it says so, and --force drops it.
orphan
cowd --recover mydev || die "--recover"
ask 5 || fail "read"
kill_cowd worker
file new 4096
within 20 dd if=new of=/dev/mapper/mydev bs=4k seek=300 oflag=direct conv=notrunc status=none || fail "write while dead"
mv a.dscow hidden.dscow
within 60 cowctl stop mydev 2>err && fail "stopped without the image"
grep -q -- --force err || fail "does not say that --force would do it: $(cat err)"
mv hidden.dscow a.dscow
within 100 cowctl stop mydev || fail "cowctl stop of a dead one with something to save"
gone "saved"
cowd -p dscow mydev a.dscow || die cowd
dd if=/dev/mapper/mydev bs=4k skip=300 count=1 status=none | cmp - new || fail "what was written while it was dead is lost"
kill_cowd both
file newer 4096
within 20 dd if=newer of=/dev/mapper/mydev bs=4k seek=600 oflag=direct conv=notrunc status=none || fail "write while dead"
mv a.dscow hidden.dscow
within 60 cowctl stop mydev 2>/dev/null && fail "stopped without the image, with something to save"
within 60 cowctl stop --force mydev || fail "cowctl stop --force"
mv hidden.dscow a.dscow
gone "forced"
cowd -p dscow mydev a.dscow || die cowd
dd if=/dev/mapper/mydev bs=4k skip=600 count=1 status=none | cmp -s - newer && fail "what --force drops is there"
dd if=/dev/mapper/mydev bs=4k skip=600 count=1 status=none |
	cmp - <(dd if=base.img bs=4k skip=600 count=1 status=none) || fail "block 600 is not the base's again"
within 60 cowctl stop mydev || fail "cowctl stop"
echo "ok $SECONDS s: leftovers"

# An upgrade holds the policy, and is given up: that of the users is in force again.
cowd -p dscow --policy timeout=7 mydev a.dscow || die cowd
kill_cowd both
sed -i 's/"policy_held": *false/"policy_held":true/' /run/cowd/mydev.json
grep -q '"policy_held":true' /run/cowd/mydev.json || die "no policy_held: $(</run/cowd/mydev.json)"
dmsetup message mydev 0 policy queue
mv a.dscow hidden.dscow
within 60 cowd --recover mydev 2>/dev/null && fail "served without its image"
in_force "timeout 7" "an upgrade that was given up"
mv hidden.dscow a.dscow
within 60 cowd --recover mydev || fail "--recover with the image"
in_force "timeout 7" "recovered"
within 60 cowctl stop mydev || fail "cowctl stop"
gone "a policy that was held"
echo "ok $SECONDS s: a policy that was held"

memory() { awk '/^(Slab|Percpu|VmallocUsed):/ { n += $2 } END { print n }' /proc/meminfo; }
whom=(pid both)
one_round()
{
	cowd -p dscow mydev a.dscow || die "round $1: cowd"
	ask $((RANDOM % 4000)) || fail "round $1: read"
	kill_cowd "${whom[RANDOM % 2]}"
	case $(($1 % 3)) in
	0) within 60 cowctl stop mydev || die "round $1: cowctl stop" ;;
	1) within 60 cowctl stop --force mydev || die "round $1: cowctl stop --force" ;;
	2)
		within 60 dmsetup remove --force mydev || die "round $1: dmsetup remove"
		within 20 cowctl stop mydev || die "round $1: cowctl stop"
		;;
	esac
	nothing_left "round $1"
}
# What is cached at first is there after some.
for n in $(seq 0 $((times < 20 ? 1 : 20))); do
	one_round "$n"
done
memory_before=$(memory)
for n in $(seq "$times"); do
	one_round "$n"
	[ $failed = 0 ] || die "round $n"
done
memory_after=$(memory)
echo "$times devices made, killed and removed; kernel memory $memory_before KiB before, $memory_after after"
# Of few it tells nothing.
[ "$times" -lt 500 ] || [ $((memory_after - memory_before)) -lt $((times * 4)) ] || fail "the kernel's memory grew"
dscow_tool -k a.dscow || fail "the overlay's check says $?"
