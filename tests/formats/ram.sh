#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ram: one memory for several openers, and who is kept out. qemu-img reads the
# file as raw, which it is.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)
case $(stat -f -c %T /dev/shm) in
tmpfs) ;;
*) echo "$ME: SKIP: /dev/shm is no tmpfs"; exit 77 ;;
esac
shm=$(mktemp -d /dev/shm/ram.XXXXXX)
# A folder that is not in memory, whatever TMPDIR is.
solid=$(mktemp -d /var/tmp/ram.XXXXXX)
trap 'rm -rf "$shm" "$solid" "$WORK"; exit 1' EXIT
disk=$shm/disk

is_raw() { oracle_raw raw "$disk" theirs.raw && "$IMAGE_IO" read ram "$disk" ours.raw && same_contents ours.raw theirs.raw; }

# An opener that waits, as a device does; then the command, and it waits still.
while_open()
{
	local pid status
	"$IMAGE_IO" "$1" hold "$2" "$disk" >held &
	pid=$!
	while [ ! -s held ] && kill -0 $pid 2>/dev/null; do sleep 0.05; done
	[ -s held ] || { echo "the opener has ended"; return 1; }
	shift 2
	"$@"
	status=$?
	kill $pid 2>/dev/null
	wait $pid 2>/dev/null
	[ $? = 143 ] || { echo "the opener did not wait"; status=1; }
	rm -f held
	return $status
}

check "is created" "$COWIMG" create -f ram "$disk" 5m
check "has its size" test "$(stat -c %s "$disk")" = 5242880
check "is blank" is_raw
check "is written" oracle_write ram "$disk" "$SEED" 100
check "is read" is_raw
check "converted to" "$COWIMG" convert -f raw -O ram ours.raw "$shm/two"
check "is the same" cmp ours.raw "$shm/two"
check "two writers" while_open -w ram oracle_write ram "$disk" "$SEED" 50
check "a reader beside a writer" while_open -w ram "$IMAGE_IO" open ram "$disk"
check "a writer beside a reader" while_open -r ram "$IMAGE_IO" -w open ram "$disk"
check "one memory" "$IMAGE_IO" share ram "$disk" "$SEED"
check "no writer as raw beside" while_open -w ram expect_refused raw "$disk" "in use" -w
check "no reader as raw beside" while_open -r ram expect_refused raw "$disk" "being written"
check "not beside a reader as raw" while_open -r raw expect_refused ram "$disk" "does not share"
check "not beside a writer as raw" while_open -w raw expect_refused ram "$disk" "does not share" -w
check "readers as raw go together" while_open -r raw "$IMAGE_IO" open raw "$disk"
check "an overlay over it" "$COWIMG" create -f dscow -b "$disk" -F ram over
check "beside a reader" while_open -r ram "$IMAGE_IO" -w open dscow over
truncate -s 1m "$solid/file"
check "no file on a disk" expect_refused ram "$solid/file" "no file in memory"
check "nor created there" refused "$solid/file" "no file in memory" "$COWIMG" create --force -f ram "$solid/file" 1m
truncate -s 1000 "$shm/odd"
check "no odd size" expect_refused ram "$shm/odd" "whole sectors"
: >"$shm/empty"
check "not empty" expect_refused ram "$shm/empty" "has 0 bytes"
rm -rf "$shm" "$solid"
finish
