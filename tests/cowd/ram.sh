#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A ram disk as two devices at once: both see the same bytes, also while and
# after one cowd is dead; nobody opens it as something else meanwhile.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

shm=$(mktemp -d /run/ram.XXXXXX)
[ "$(stat -f -c %T "$shm")" = tmpfs ] || die "/run is no tmpfs"
chmod 755 "$shm"
disk=$shm/disk

# put DEVICE SEED AT: 64 KiB that follow from SEED; get DEVICE SEED AT: are they there?
bytes() { yes "$1 is the seed of this" | head -c 65536; }
put() { bytes "$2" | dd of="/dev/mapper/$1" bs=64k seek="$3" oflag=direct iflag=fullblock status=none; }
get() { dd if="/dev/mapper/$1" bs=64k skip="$3" count=1 iflag=direct status=none | cmp - <(bytes "$2"); }

cowimg create -f ram "$disk" 8m || die "cowimg create"
cowd -p ram one "$disk" || die "cowd one"
cowd -p ram two "$disk" || die "cowd two"
[ "$(losetup -a | grep -c "$disk")" = 2 ] || fail "$(losetup -a)"

for i in 1 2 3; do
	put one "one $i" $((i * 7)) || fail "one cannot be written"
	get two "one $i" $((i * 7)) || fail "two does not see what one wrote"
	put two "two $i" $((i * 7)) || fail "two cannot be written"
	get one "two $i" $((i * 7)) || fail "one does not see what two wrote"
done
echo "ok: both see the same bytes"

cowd -p ram -r three "$disk" || fail "no reader beside them"
get three "two 1" 7 || fail "the reader does not see what two wrote"
cowctl stop three || fail "cowctl stop three"
cowd -p raw four "$disk" 2>err && fail "was opened as raw as well"
grep -q "in use" err || fail "as raw: $(cat err)"
echo "ok: $(cat err)"

# Both die; neither keeps the other from being served again.
# shellcheck disable=SC2046 # numbers
kill -9 $(processes_of one; processes_of two)
for _ in $(seq 100); do [ -n "$(daemons)" ] || break; sleep 0.05; done
get one "two 1" 7 || fail "one does not read without its cowd"
cowd -p ram four "$disk" 2>err && fail "a third device beside dead ones"
grep -q -- "--recover" err || fail "does not say what helps: $(cat err)"
cowd --recover one || fail "one cannot be recovered"
cowd --recover two || fail "two cannot be recovered"
put one again 9 && get two again 9 || fail "not the same bytes after the recovery"
echo "ok: both recovered"

blkdiscard -o 65536 -l 65536 /dev/mapper/one || fail "discard"
put one last 100 || fail "one cannot be written"
cmp /dev/mapper/one /dev/mapper/two || fail "they differ"
cowctl stop one || fail "cowctl stop one"
get two last 100 || fail "gone with one"
cowctl stop two || fail "cowctl stop two"
cmp -n 65536 -i 6553600:0 "$disk" <(bytes last) || fail "the disk did not outlive its devices"
echo "ok: it outlives its devices"

mkfs.ext4 -q -F "$disk" 8m && cowd -p ram five "$disk" || fail "cowd five"
mkdir mnt && mount /dev/mapper/five mnt && cp /bin/true mnt && sync && umount mnt ||
	fail "a file system on it"
e2fsck -fn /dev/mapper/five >fsck.log || fail "$(cat fsck.log)"
cowctl stop five || fail "cowctl stop five"
rm -rf "$shm"
nothing_left "at the end"
