#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Migration offline: from every format to every format that can be created, a
# sparse disk of 4 GiB. qemu-img reads what was made, where it knows it.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

# The formats of this tree whose images are files of their own.
formats()
{
	local dir f
	for dir in "$BUILD"/plugins/*/; do
		f=$(basename "$dir")
		[ "$f" = ram ] || [ ! -e "$dir/$f.la" ] || echo "$f"
	done
}

# to FORMAT SOURCE-FORMAT SOURCE IMAGE: a dscow image needs a base.
to()
{
	local base=
	[ "$1" != dscow ] || base="-b zero.raw -F raw"
	# shellcheck disable=SC2086 # options
	"$COWIMG" convert -f "$2" -O "$1" $base "$3" "$4"
}

# By qemu-img where it knows the format. A format may have a larger disk, by
# its rules of geometry: what is added must be zero.
is_right()
{
	local format=$1 image=$2
	if [ "$format" = dscow ]; then
		"$COWIMG" check -f dscow "$image" && to raw dscow "$image" plain.raw &&
			qemu-img compare -f raw -F raw plain.raw disk.raw
		set -- $?
		rm -f plain.raw
		return "$1"
	fi
	check_image "$format" "$image" &&
		qemu-img compare -f "$(qemu_format "$format")" -F raw "$image" disk.raw
}

make_random disk.raw 4g "$SEED"
truncate -s 4g zero.raw
all=$(formats)
[ -n "$all" ] || exit 1
# The processor's seconds of one conversion: reading 4 GiB of holes takes more.
ulimit -t 10
for from in $all; do
	check "raw to $from" to "$from" raw disk.raw "source.$from"
	check "raw to $from is right" is_right "$from" "source.$from"
	for into in $all; do
		check "$from to $into" to "$into" "$from" "source.$from" image
		check "$from to $into is right" is_right "$into" image
		check "$from to $into is sparse" test "$(stat -c %b image)" -lt 131072
		rm -f image
	done
done
echo "# $(echo "$all" | wc -l) formats"
finish
