#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What cannot be served is refused by one sentence that names the object, with
# a status that is not zero, and leaves nothing behind.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

# poke FILE OFFSET BYTES (as printf takes them)
poke()
{
	# shellcheck disable=SC2059 # the bytes are given as a format
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# seal FILE: the checksum of a dscow header becomes that of what stands there.
seal()
{
	python3 - "$1" <<'END' || die "python3"
import sys
with open(sys.argv[1], "r+b") as f:
    c = 0xffffffff
    for byte in f.read(508):
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    f.write((c ^ 0xffffffff).to_bytes(4, "little"))
END
}

modprobe loop || die "no loop devices"
file base.img 5000192
cp -p base.img kept.img
overlay()
{
	rm -f a.dscow
	dscow_tool -c a.dscow "${1:-base.img}" >/dev/null || die "dscow_tool"
}

overlay
refused "missing image" no-such.img -p dscow mydev no-such.img
refused "no such format" nosuch -p nosuch mydev a.dscow
refused "wrong format" base.img -p dscow mydev base.img
refused "a folder" "$work" -p raw mydev "$work"
refused "a character device" /dev/null -p raw mydev /dev/null
mkfifo pipe
refused "a named pipe" pipe -p raw mydev pipe
: >empty
refused "an empty image" empty -p dscow mydev empty
refused "an empty raw image" "empty: has a disk of 0 bytes" -p raw mydev empty
cowimg create -f qcow2 nothing.qcow2 0 || die "cowimg create"
refused "a disk of 0 bytes" "nothing.qcow2: has a disk of 0 bytes" -p qcow2 mydev nothing.qcow2
ln -s loop-b loop-a
ln -s loop-a loop-b
refused "a link to itself" loop-a -p raw mydev loop-a

mv base.img gone.img
refused "missing base" base.img -p dscow mydev a.dscow
mv gone.img base.img

truncate -s 4000000 base.img
touch -r kept.img base.img
refused "base that shrank" "its base $work/base.img is not what it was when the overlay was made: it shrank" -p dscow mydev a.dscow
cp -p kept.img base.img
poke base.img 1000 '\377\376'
touch -r kept.img base.img
refused "base that changed" "base.img is not what it was when the overlay was made: its contents are others" -p dscow mydev a.dscow
cp -p kept.img base.img
touch base.img
refused "base that was written" "base.img is not what it was when the overlay was made: it was written since" -p dscow mydev a.dscow
touch -r kept.img base.img
cowd -p dscow mydev a.dscow || fail "the base as it was is refused"
cowctl stop mydev
overlay

poke a.dscow 0 XXXX
refused "no magic" a.dscow -p dscow mydev a.dscow
overlay
# Every field that a reader checks, in a header whose checksum is right.
while read -r offset text; do
	overlay
	poke a.dscow "$offset" '\377\377\377\377'
	seal a.dscow
	refused "header field at $offset" "a.dscow: $text" -p dscow mydev a.dscow
done <<'END'
4	is no dscow image
8	is a dscow image of a version
12	has a header of another length
16	uses features of dscow
32	has a header whose size
40	has a header whose block size
44	has a header whose bitmap count
48	has a header whose bitmap offset
56	has a header whose first block
88	has a header whose base time
92	has a header whose base flags
100	has a header whose base path
104	has a damaged header: the checksum of the base's path
136	has a header whose base format
END
overlay
poke a.dscow 508 '\377\377\377\377'
refused "header checksum" "a.dscow: has a damaged header" -p dscow mydev a.dscow
overlay
truncate -s 100 a.dscow
refused "truncated in the header" a.dscow -p dscow mydev a.dscow
overlay
truncate -s 4096 a.dscow
refused "truncated" a.dscow -p dscow mydev a.dscow
overlay

# In use elsewhere, under another name and under the same.
cowd -p dscow other a.dscow || die "cowd"
timeout 60 cowd -p dscow mydev a.dscow 2>err && fail "one overlay, served twice"
grep -q a.dscow err || fail "does not name the overlay: $(cat err)"
[ "$(wc -l <err)" = 1 ] || fail "in use: $(cat err)"
timeout 60 cowd -p raw other base.img 2>err && fail "one name, served twice"
grep -q other err || fail "does not name the device: $(cat err)"
[ -e /dev/mapper/other ] || fail "the wrong device went"
[ ! -e /dev/mapper/mydev ] || fail "a second device came"
dd if=/dev/mapper/other of=/dev/null bs=1M status=none || fail "the first one suffered"
cowctl stop other || fail "cowctl stop other"

# A block device that is mounted.
modprobe brd rd_nr=1 rd_size=16384
mkfs.ext4 -q /dev/ram0
mkdir mnt
mount /dev/ram0 mnt
refused "a mounted device" /dev/ram0 -p raw mydev /dev/ram0
umount mnt

# A device of that name that is not ours.
dmsetup create foreign --table "0 8 zero"
timeout 60 cowd -p raw foreign base.img 2>err && fail "took a foreign name"
grep -q foreign err || fail "does not name the device: $(cat err)"
dmsetup table foreign | grep -q zero || fail "the foreign device suffered"
dmsetup remove foreign
nothing_left "foreign name"

# Where the base may lie.
mkdir else
cp base.img else/base.img
overlay else/base.img
mkdir apart
mv a.dscow apart/
refused "base outside" allow-backing -p dscow mydev apart/a.dscow
cowd -p dscow --allow-backing else mydev apart/a.dscow || fail "--allow-backing did not allow"
cowctl stop mydev
cowd -p dscow --allow-backing "$work/else/base.img" mydev apart/a.dscow ||
	fail "--allow-backing of the file did not allow"
cowctl stop mydev
# A link out of an allowed folder allows nothing.
mv else/base.img elsewhere.img
ln -s ../elsewhere.img else/base.img
refused "base behind a link" allow-backing -p dscow --allow-backing else mydev apart/a.dscow
overlay

# No right to.
chmod 777 .
setpriv --reuid 65534 --regid 65534 --clear-groups cowd --run-dir "$work/run" \
	-p raw mydev base.img 2>err && fail "served without root"
[ "$(wc -l <err)" = 1 ] || fail "without root: $(cat err)"
echo "ok: without root: $(cat err)"
rm -rf run
refused "no such user" no-such-user --user no-such-user -p raw mydev base.img
refused "root as the user" root --user root -p raw mydev base.img
refused "a run directory that is a file" base.img --run-dir "$work/base.img" -p raw mydev base.img

# No space for the record.
mkdir full
mount -t tmpfs -o size=4k,nr_inodes=8 tmpfs full
head -c 4096 /dev/zero >full/fill
refused "no space" full/ --run-dir "$work/full" -p raw mydev base.img
umount full

# Usage has a status of its own.
for args in "" "mydev" "mydev base.img" "-p raw a/b base.img" "-p raw mydev base.img more" \
	"--policy never -p raw mydev base.img" "--cache-size x -p raw mydev base.img" "--nonsense"; do
	# shellcheck disable=SC2086 # words are wanted
	cowd $args 2>err
	[ $? = 2 ] || fail "cowd $args: exit status is not 2"
	[ -s err ] || fail "cowd $args: says nothing"
done

# The same without the module.
rmmod dm_userspace || die "the module cannot be unloaded"
refused "no module" dm-userspace -p raw mydev base.img
insmod "${DMU_MODULE:?}"
cowd -p raw mydev base.img || fail "with the module again"
cowctl stop mydev
nothing_left "the end"
