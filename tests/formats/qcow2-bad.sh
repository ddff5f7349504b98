#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Damaged and hostile qcow2 images: one file of qcow2-bad/ each, which says what is
# broken (WHAT), at what (HOW), and what must be said of it (SAY).
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img

qimg() { qemu-img "$@" >qimg.log 2>&1 || { cat qimg.log; return 1; }; }
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
	fine) oracle_read qcow2 image ;;
	memory) reads_or_says_no_memory ;;
	read) expect_unreadable qcow2 image "$SAY" ;;
	*) echo "HOW=$HOW: what is that"; return 1 ;;
	esac
}

# The first clusters are data, so that the first entries are those of data.
make_random contents 2m "$SEED"
yes 'a cluster that can be compressed' | head -c 65536 | dd of=contents conv=notrunc status=none
for case in "$FORMATS_SRC"/qcow2-bad/*; do
	check "$(sed -n 's/^WHAT="\(.*\)"$/\1/p' "$case")" bad "$case"
done
finish
