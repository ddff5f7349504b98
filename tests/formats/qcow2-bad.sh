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
