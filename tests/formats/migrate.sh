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

# --- What does not open without an option of its format -------------------------
# fails TEXT COMMAND...: with one sentence that has TEXT in it, and there is no image.
fails()
{
	local text=$1
	shift
	rm -f image
	"$@" >told.log 2>&1 && return 1
	cat told.log
	[ "$(wc -l <told.log)" = 1 ] && grep -qE "$text" told.log && [ ! -e image ]
}

# told OPTION TEXT COMMAND...: fails without that option for the source; with it image is
# what want.raw is.
told()
{
	local option=$1 text=$2
	shift 2
	fails "$text" "$@" && "$@" --source-option "$option" &&
		qemu-img compare -F raw image want.raw
}
make_random small.raw 6m "$SEED"
cp small.raw want.raw
qemu-img convert -O qcow2 small.raw base.qcow2
qemu-img create -q -f qcow -b base.qcow2 -F qcow2 over.qcow
qemu-io -f qcow -c "write -P 7 1m 200k" over.qcow >told.log
qemu-io -f raw -c "write -P 7 1m 200k" want.raw >told.log
truncate -s %512 over.qcow
sum_of base.qcow2 >base.sum
guessed="tell it by the option backing_format"
check "qcow over qcow2, which it does not tell" \
	told backing_format=qcow2 "$guessed" "$COWIMG" convert -f qcow -O qcow2 over.qcow image
check "by img2qcow" told backing_format=qcow2 "$guessed" "$(built tools/img2qcow)" -f qcow over.qcow image
check "by qcow2raw" told backing_format=qcow2 "$guessed" "$(built tools/qcow2raw)" over.qcow image
check "its base is as it was" test "$(cat base.sum)" = "$(sum_of base.qcow2)"
check "no option that the format has not" fails "option x=1: the format qcow has no such option" \
	"$COWIMG" convert -f qcow -O raw --source-option x=1 over.qcow image
check "nor of another tool" fails "is not known" \
	"$(built tools/qcow-create)" --source-option x=1 image 1m

cp small.raw want.raw
"$COWIMG" create -f vhd -b small.raw -F raw child.vhd && touch -d @1700000000 small.raw
check "VHD over what was written since" told parent-time=any "time stamp differs" \
	"$COWIMG" convert -f vhd -O raw child.vhd image
: >data.raw
"$COWIMG" convert -f raw -O qcow2 -o data_file=data.raw small.raw apart.qcow2
mkdir elsewhere && mv data.raw elsewhere
check "qcow2 whose data is elsewhere" told data_file=elsewhere/data.raw "data.raw: cannot be opened" \
	"$COWIMG" convert -f qcow2 -O raw apart.qcow2 image
finish
