#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Damaged and hostile qcow2 images: one file of qcow2-bad/ each, which says what is
# broken (WHAT), at what (HOW), and what must be said of it (SAY).
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

be64() { echo $((0x$(od -An -tx1 -j "$2" -N 8 "$1" | tr -d ' \n'))); }
reftable() { be64 image 48; }
refblock() { be64 image "$(reftable)"; }
l1() { be64 image 40; }
l2() { echo $(($(be64 image "$(l1)") & 0xfffffffffffe00)); }

# put_packed FILE: it becomes the first cluster of the disk, behind the end of image.
put_packed()
{
	local at entry
	truncate -s %4096 image
	at=$(stat -c %s image)
	cat "$1" >>image
	truncate -s %4096 image
	entry=$(printf %016x $((1 << 62 | ($(stat -c %s "$1") - 1) / 512 << 58 | at)))
	# shellcheck disable=SC2001 # of each two
	poke image "$(l2)" "$(sed 's/../\\x&/g' <<<"$entry")"
}

# However little memory there is: what is said then is not that the image is damaged.
reads_or_says_no_memory()
{
	local kib tried=0
	"$IMAGE_IO" read qcow2 image out.raw || return
	for kib in $(seq 122880 -2048 20480); do
		(ulimit -v "$kib"; exec "$IMAGE_IO" read qcow2 image out.raw) >said 2>&1 && continue
		! grep damaged said || { echo "with $kib KiB"; return 1; }
		! grep -q "$SAY" said || tried=$((tried + 1))
	done
	echo "$tried limits were met in the midst of it"
	[ $tried -gt 0 ]
}

# It may say what it found besides.
refused_any()
{
	limited "$IMAGE_IO" open -w qcow2 image
	[ $? = 1 ] || { echo "it was not refused"; return 1; }
	cat refused.log
	grep -qE "$SAY" refused.log || { echo "it does not say: $SAY"; return 1; }
}

# shellcheck source=/dev/null
bad()
{
	local WHAT HOW SAY
	. "$1"
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k contents image || return
	break_it || return
	case $HOW in
	open) expect_refused qcow2 image "$SAY" ;;
	openw) expect_refused qcow2 image "$SAY" -w ;;
	openw-any) refused_any ;;
	confined) refused image "$SAY" "$IMAGE_IO" open -a "$PWD" qcow2 image &&
		refused image "$SAY" "$IMAGE_IO" open -w -a "$PWD" qcow2 image ;;
	fine) oracle_read qcow2 image ;;
	memory) reads_or_says_no_memory ;;
	read) expect_unreadable qcow2 image "$SAY" ;;
	*) echo "HOW=$HOW: what is that"; return 1 ;;
	esac
}

extended() { qimg convert -f raw -O qcow2 -o extended_l2=on small image; }

# status THEIRS OURS BREAK: the exit statuses of qemu-img check and cowimg check.
status()
{
	local theirs=$1 ours=$2 status
	shift 2
	rm -f image
	qimg convert -f raw -O qcow2 small image || return
	eval "$*" || return
	qemu-img check -f qcow2 image
	status=$?
	[ $status = "$theirs" ] || { echo "qemu-img: status $status instead of $theirs"; return 1; }
	"$COWIMG" check -f qcow2 image
	status=$?
	[ $status = "$ours" ] || { echo "cowimg: status $status instead of $ours"; return 1; }
}

# Where the two are not the same, the third column says why, and theirs are first.
statuses()
{
	local what theirs why how
	while IFS='|' read -r what theirs why how; do
		set -- $theirs
		check "exit status $theirs${why:+ ($why)}: $what" status "$1" "${2:-$1}" "$how"
	done <<'END'
nothing|0||:
bad magic|1||poke image 0 X
no known version|1||poke image 7 '\0011'
header cut off|1||truncate -s 50 image
no byte|1||truncate -s 0 image
no file|1||rm image
encrypted|1||poke image 35 '\0001'
clusters of 2^255|1||poke image 23 '\0377'
an unknown feature|1||poke image 72 '\0200'
a header of 1 byte|1||poke image 103 '\0001'
refcounts of 2^8 bits|1||poke image 99 '\0010'
L1 table too large|1||poke image 36 '\0377'
L1 table not aligned|1||poke image 46 '\0001\0001'
L1 table past the end|2 1|no disk can be read|poke image 42 '\0377'
L1 entry past the end|2||poke image "$(l1)" '\0200\0\0377'
L1 entry not aligned|2||poke image $(($(l1) + 6)) '\0003'
L2 entry past the end|2||poke image "$(l2)" '\0200\0\0377'
L2 entry not aligned|2||poke image $(($(l2) + 6)) '\0003'
L2 entry with reserved bits|2||poke image $(($(l2) + 7)) '\0002'
L2 entry of the header, as used once|3 2|they take it for none|poke image "$(l2)" '\0200\0\0\0\0\0\0\0'
L2 entry of subclusters without a place|2||extended && poke image "$(l2)" '\0\0\0\0\0\0\0\0'
L2 entry not marked as used once|2||poke image "$(l2)" '\0'
two L2 entries of one cluster|2||dd if=image of=image bs=1 skip="$(l2)" seek=$(($(l2) + 8)) count=8 conv=notrunc status=none
a leaked cluster|3||poke image "$(l2)" '\0\0\0\0\0\0\0\0'
a refcount of 0|2||poke image $(($(refblock) + 10)) '\0\0'
a refcount of 2 with one reference|2 3|nothing can be lost|poke image $(($(refblock) + 10)) '\0\0002'
refcount block past the end|2||poke image "$(reftable)" '\0\0\0377'
refcount block not aligned|1 2|they stop there|poke image $(($(reftable) + 6)) '\0003'
refcount table not aligned|1||poke image 54 '\0003'
refcount table too large|1||poke image 56 '\0377'
refcount table past the end|2 1|none can be rebuilt|poke image 50 '\0377'
snapshot table not aligned|1||poke image 63 '\0001\0\0\0\0\0377\0\0\0001'
too many snapshots|1||poke image 60 '\0377\0377\0377\0377'
the file is cut off|2||truncate -s 300k image
marked as dirty|0 3|a write would repair it|poke image 79 '\0001'
marked as corrupt|0 2|it is not written|poke image 79 '\0002'
its backing image is missing|1 0|one image is checked|qimg create -f qcow2 -F raw -b small image && mv small away && trap 'mv away small; trap - RETURN' RETURN
END
}

# told LINES SAY: what a check of the image prints is limited, and says SAY.
told()
{
	local lines=$1
	shift
	limited "$COWIMG" check -f qcow2 image
	[ $? = 2 ] || { cat refused.log; return 1; }
	[ "$(wc -l <refused.out)" -le "$lines" ] || { wc -l refused.out; return 1; }
	grep -qE "$1" refused.out || { cat refused.out; return 1; }
}

# bytes COUNT OCTAL: so many of the same
bytes() { head -c "$1" /dev/zero | tr '\0' "\\$2"; }

# 512 entries that cannot be followed, and the clusters that they leave.
many_findings()
{
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k contents image &&
		bytes 4096 377 | dd of=image bs=4096 seek=$(($(l2) / 4096)) conv=notrunc status=none &&
		told 102 'DAMAGE: and 4[0-9]* more' &&
		grep -qE '51[2-9] damaged, [0-9]* harmless' refused.out &&
		{ "$COWIMG" check --json -f qcow2 image >json || :; } &&
		[ "$(grep -c 'the L2 entry at' json)" = 100 ]
}

# Written, it is refused at once, by one sentence.
refused_write() { expect_refused qcow2 image "$1" -w; }

put64() { poke "$1" "$2" "$(printf %016x "$3" | sed 's/../\\x&/g')"; }

# twice FILE TIMES: it is made so often twice as long.
twice() { local i; for i in $(seq "$2"); do cat "$1" "$1" >doubled && mv doubled "$1" || return; done; }

# append FILE: to the image, at a cluster of its own; AT says where.
append()
{
	truncate -s %4096 image
	AT=$(stat -c %s image)
	cat "$1" >>image && truncate -s %4096 image
}

# 256 L1 entries at one L2 table, of 512 bad entries: told of once.
many_names()
{
	rm -f image entry
	qimg create -f qcow2 -o cluster_size=4k image 512m && bytes 4096 377 >table && append table &&
		put64 entry 0 $((1 << 63 | AT)) && twice entry 8 &&
		dd if=entry of=image bs=4096 seek=$(($(l1) / 4096)) conv=notrunc status=none &&
		told 102 'DAMAGE: the L1 entry at offset .* points to the L2 table of another one' &&
		grep -q '^image: 1024 damaged' refused.out &&
		{ "$COWIMG" check -r -f qcow2 image >repaired || :; } && refused_write 'L1 entry'
}

# 2^15 snapshots with one L1 table, whose 256 L2 tables are those of the disk.
many_snapshots()
{
	rm -f image entry
	qimg create -f qcow2 -o cluster_size=4k,preallocation=metadata image 512m || return
	dd if=image of=table bs=4096 skip=$(($(l1) / 4096)) count=1 status=none && append table &&
		put64 entry 0 "$AT" && put64 entry 8 $((256 << 32)) && put64 entry 32 0 && twice entry 15 &&
		append entry && poke image 60 '\0\0\0200\0' && put64 image 64 "$AT" &&
		told 102 'counted too low .refcount 1, references 32769' &&
		{ "$COWIMG" check -r -f qcow2 image >repaired || :; } &&
		refused_write 'L1 table of a snapshot at .* another one'
}

# 2^10 bitmaps with the same table, of 1 GiB, which is a hole but for one entry.
many_bitmaps()
{
	local extension dir
	rm -f image entry
	qimg create -f qcow2 -o cluster_size=4k image 1m && qimg bitmap --add image one || return
	extension=$(LC_ALL=C grep -obUaP '\x23\x85\x28\x75' image | head -1 | cut -d: -f1)
	dir=$(be64 image $((extension + 24)))
	dd if=image of=entry bs=1 skip="$dir" count=32 status=none
	poke entry 8 '\0010\0\0\0' && put64 entry 0 $((1 << 30)) && twice entry 10 && append entry &&
		poke image $((extension + 8)) '\0\0\0004\0' && put64 image $((extension + 16)) 32768 &&
		put64 image $((extension + 24)) "$AT" && truncate -s 3g image &&
		put64 image $(((1 << 30) + 4096)) $((1 << 31)) &&
		told 102 '1 cluster from offset 1073741824 on: .* .refcount 0, references 1024' &&
		refused_write 'offset .* has a refcount of 0'
}

# The first clusters are data, so that the first entries are those of data.
make_random contents 2m "$SEED"
yes 'a cluster that can be compressed' | head -c 65536 | dd of=contents conv=notrunc status=none
for case in "$FORMATS_SRC"/qcow2-bad/*; do
	check "$(sed -n 's/^WHAT="\(.*\)"$/\1/p' "$case")" bad "$case"
done
{ head -c 256k contents; head -c 768k /dev/zero; } >small
statuses
check "a hundred findings are told, and how many more there are" many_findings
check "one L2 table with 256 names is read once" many_names
check "tables of 32768 snapshots are read once" many_snapshots
check "a table of 1024 bitmaps is read once" many_bitmaps
finish
