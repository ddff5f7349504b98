#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Damaged and hostile qcow images: one file of qcow-bad/ each, which says what is
# broken (WHAT), when it is found out (HOW), and what must be said of it (SAY). A
# check finds all that an open for writing refuses, and repairs none of it.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

be64() { echo $((0x$(od -An -tx1 -j "$2" -N 8 "$1" | tr -d ' \n'))); }
# put64 OFFSET NUMBER: into the image.
put64() { poke image "$1" "$(printf '%016x' "$2" | sed 's/../\\x&/g')"; }
l1() { be64 image 40; }
l2() { be64 image "$(l1)"; }
end() { stat -c %s image; }

# Opened for writing it is refused; a check says why, and changes nothing.
write()
{
	local sum
	"$IMAGE_IO" open qcow image && expect_refused qcow image "$SAY" -w || return 1
	sum=$(sum_of image)
	limited "$COWIMG" check -r -f qcow image && { echo "the check finds nothing"; return 1; }
	[ "$(sum_of image)" = "$sum" ] || { echo "the check changed it"; return 1; }
	cat refused.out refused.log | grep -qE "${SAY#*writing: }"
}

# shellcheck source=/dev/null
bad()
{
	local WHAT HOW SAY
	. "$1"
	rm -f image base && qimg convert -f raw -O qcow contents image && "$IMAGE_IO" open -w qcow image &&
		break_it || return 1
	case $HOW in
	open) expect_refused qcow image "$SAY" && expect_refused qcow image "$SAY" -w ;;
	look) expect_refused qcow image "$SAY" ;;
	read) expect_unreadable qcow image "$SAY" ;;
	write) write ;;
	confined) refused image "$SAY" "$IMAGE_IO" open -a "$PWD" qcow image &&
		refused image "$SAY" "$IMAGE_IO" open -w -a "$PWD" qcow image ;;
	fine) limited "$IMAGE_IO" read qcow image out && oracle_read qcow image ;;
	*) echo "HOW=$HOW: what is that"; return 1 ;;
	esac
}

# 256 L1 entries at one L2 table, of 512 bad entries: told of once.
many_names()
{
	local at
	rm -f image entry
	qimg create -f qcow image 512m || return
	truncate -s %4096 image
	at=$(stat -c %s image)
	head -c 4096 /dev/zero | tr '\0' '\377' >>image
	printf '%b' "$(printf %016x "$at" | sed 's/../\\x&/g')" >entry
	for _ in $(seq 8); do cat entry entry >doubled && mv doubled entry; done
	dd if=entry of=image bs=1 seek="$(l1)" conv=notrunc status=none
	limited "$COWIMG" check -f qcow image
	[ $? = 2 ] || { cat refused.log; return 1; }
	tail -n 2 refused.out
	[ "$(wc -l <refused.out)" = 102 ] && grep -q '^DAMAGE: and 667 more' refused.out &&
		grep -q '^image: 767 damaged' refused.out
}

# The disk needs two L2 tables, of which there is one.
make_random contents 200k "$SEED"
dd if=/dev/urandom of=contents bs=64k count=2 conv=notrunc status=none
truncate -s 3m contents
for case in "$FORMATS_SRC"/qcow-bad/*; do
	check "${case##*/}: $(sed -n 's/^WHAT="\(.*\)"$/\1/p' "$case")" bad "$case"
done
check "one L2 table with 256 names is read once" many_names
finish
