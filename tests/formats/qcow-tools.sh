#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# qcow-create, img2qcow, qcow2raw: what they make, against qemu-img.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need_plugin qcow2
CREATE=$(built tools/qcow-create)
TO_QCOW=$(built tools/img2qcow)
TO_RAW=$(built tools/qcow2raw)

# says TEXT COMMAND...: fails with one sentence, and leaves no new file.
says()
{
	local text=$1 before
	shift
	before=$(state)
	"$@" >out 2>err && { echo "it succeeded"; return 1; }
	cat err
	[ "$(wc -l <err)" = 1 ] || { echo "no single sentence"; return 1; }
	grep -qE -- "$text" err || { echo "it does not say: $text"; return 1; }
	[ "$before" = "$(state)" ] || { echo "a file has changed"; return 1; }
}

is() { check_image "$1" "$2" && qemu-img compare -f "$1" -F raw "$2" "$3"; }

# The format that stands in the header.
version() { [ "$(od -An -tu1 -j7 -N1 "$1" | tr -d ' ')" = "$2" ]; }

formats=qcow2
[ ! -e "$BUILD/plugins/qcow/qcow.la" ] || formats="qcow2 qcow"
make_random disk.raw 40m "$SEED"
truncate -s 40m zero.raw
for f in $formats; do
	check "$f: blank" "$CREATE" -f "$f" "blank.$f" 40m
	check "$f: is blank" is "$f" "blank.$f" zero.raw
	check "$f: over a backing file" "$CREATE" -f "$f" -b disk.raw -F raw "over.$f"
	check "$f: shows it" is "$f" "over.$f" disk.raw
	check "$f: written" oracle_write "$f" "over.$f" "$SEED" 60
	check "$f: from raw" "$TO_QCOW" -O "$f" disk.raw "disk.$f"
	check "$f: is the same" is "$f" "disk.$f" disk.raw
	check "$f: is sparse" test "$(stat -c %b "disk.$f")" -lt 70000
	check "$f: to raw, its format found" "$TO_RAW" "disk.$f" "back-$f.raw"
	check "$f: is the same" same_contents "back-$f.raw" disk.raw
	check "$f: to raw, its format said" "$TO_RAW" --force -f "$f" "over.$f" "back-$f.raw"
	check "$f: with its backing file" is "$f" "over.$f" "back-$f.raw"
	check "$f: is not replaced" says "exists already; use --force" "$TO_QCOW" disk.raw "disk.$f"
	check "$f: what differs only" "$TO_QCOW" -O "$f" -b disk.raw -F raw "back-$f.raw" "diff.$f"
	check "$f: is the same" is "$f" "diff.$f" "back-$f.raw"
done
check "qcow2 is the default" version disk.qcow2 3
check "options of the format" "$CREATE" -o compat=0.10 old.qcow2 1m
check "are taken" version old.qcow2 2
check "not from what looks like an image" says "looks like an image of the format qcow2" \
	"$TO_QCOW" disk.qcow2 x.qcow2
check "but when it is said" "$TO_QCOW" -f qcow2 disk.qcow2 y.qcow2
check "is the same" is qcow2 y.qcow2 disk.raw
check "no other format" says "is neither qcow nor qcow2" "$CREATE" -f raw x.raw 1m
check "not from a raw disk" says "is neither a qcow nor a qcow2 image" "$TO_RAW" disk.raw x.raw
check "no size" says "a size is needed" "$CREATE" x.qcow2
check "no format of the backing image" says "-b and -F" "$CREATE" -b disk.raw x.qcow2
check "no target" says "a source and a target" "$TO_RAW" disk.qcow2
check "an unknown option" says "is not known" "$TO_RAW" -O raw disk.qcow2 x.raw
finish
