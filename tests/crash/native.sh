#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# native.sh [--long] [--seed N] [--seeds N] [--format NAME]...: power cuts without a kernel.  A
# load goes to an image by libcow, in both ways to its data; the order of the
# writes and syncs of its file is recorded; and every point of that order is
# a power cut, after which the image is checked.  NAME is a format, or
# FORMAT:OPTION=VALUE,...; FORMAT+snapshot is an image that shares all its data
# with a snapshot, instead of one over a base; vmdk+split is one whose disk is in
# two files.
set -euo pipefail

src=$(dirname "$(readlink -f "$0")")
here=$(cd "${BUILD:-.}" && pwd)
first=1 seeds=1 ops=120 between=3 formats=()
while [ $# -gt 0 ]; do
	case $1 in
	--long) seeds=100 ops=400 between=6 ;;
	--seed) first=$2; shift ;;
	--seeds) seeds=$2; shift ;;
	--format) formats+=("$2"); shift ;;
	*) echo "usage: ${0##*/} [--long] [--seed N] [--seeds N] [--format NAME]..." >&2; exit 2 ;;
	esac
	shift
done

# Direct I/O where the file system can do it: that is the way cowd goes.
dir=$(mktemp -d "${CRASH_DIR:-/var/tmp}/crash.XXXXXX")
trap 'rm -rf "$dir"' EXIT
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$here/../../plugins}
export COWD_PLUGIN_DIR
BUILD=$here/../..
# shellcheck source=tests/built.sh disable=SC1091
. "$src/../built.sh"
cowimg=${COWIMG:-$(built tools/cowimg)}
# Every format that is written to and has metadata.
[ ${#formats[@]} -gt 0 ] || formats=(dscow qcow qcow2 vhd vmdk
	qcow2:extended_l2=on qcow2:compat=0.10 qcow2:refcount_bits=1 qcow2+snapshot vmdk+split)
cd "$dir"

# The base as the format wants it: of its own kind where it takes no raw one.
make_base()
{
	"$here/writer" --prefill --size "$2" stamps || return
	case $1 in
	vmdk|vhd) "$cowimg" convert -f raw -O "$1" stamps base && base_format=$1 ;;
	*) mv stamps base; base_format=raw ;;
	esac
}

# A descriptor that names the two halves of the disk, image1 and image2.
make_split()
{
	local half
	for half in image1 image2; do
		"$cowimg" create -f vmdk -s "$1" -o zeroed-grain=on $half $(($2 / 2)) || return
	done
	cat >image <<-END
		# Disk DescriptorFile
		version=1
		CID=00000001
		parentCID=$(grep -aim1 '^CID=' base | tr -d '\0\r' | cut -d= -f2)
		createType="twoGbMaxExtentSparse"
		parentFileNameHint="base"
		RW $(($2 / 1024)) SPARSE "image1"
		RW $(($2 / 1024)) SPARSE "image2"
	END
}

# make_image NAME BLOCK_SIZE SIZE
make_image()
{
	local format=${1%%[:+]*} options=() base_format
	case $1 in *:*) options=(-o "${1#*:}") ;; esac
	make_base "$format" "$3" || return
	case $1 in
	*+snapshot)
		"$cowimg" convert -f raw -O "$format" -s "$2" base image || return
		qemu-img snapshot -c kept image
		;;
	*+split) make_split "$2" "$3" ;;
	*) "$cowimg" create -f "$format" -s "$2" "${options[@]}" -b base -F "$base_format" image ;;
	esac
}

# one NAME SEED BLOCK_SIZE MEGABYTES [--kernel].  Who calls it looks at its status, so that
# set -e is off in all that it calls.
one()
{
	local format=${1%%[:+]*} seed=$2 block=$3 size=$(($4 << 20)) name=$1 parts=() n=0 part
	shift 4
	rm -f ./*
	make_image "$name" "$block" "$size" || return
	case $name in *+split) parts=(image1 image2) ;; esac
	# As the log has them: one after the other, LOG_PART for each.
	for part in image "${parts[@]}"; do
		dd if="$part" of=image.new bs=1M seek=$((n++ * 16)) conv=sparse,notrunc status=none || return
	done
	"$here/recorder" --image "$format" --record record --log log \
		--seed "$seed" --ops "$ops" "$@" image "${parts[@]}" || return
	for part in "${parts[@]}"; do
		set -- "$@" --part "$part:$(stat -c %s "$part")"
	done
	[ "${1:-}" != --kernel ] || shift
	# What the file held when the load began is the first of the log.
	"$here/replay" --log log --state state --initial image.new \
		--size "$(stat -c %s image)" --seed "$seed" \
		--between "$between" --pure "$@" \
		"'$here/checker' --record record --image $format --size $size state"
}

status=0
blocks_of()
{
	case $1 in
	*extended_l2=on) blocks=(512 2048 8192) ;;	# of which a cluster has 32
	qcow) blocks=(4096 16384 65536) ;;
	vhd) blocks=(16384 65536 262144 2097152) ;;
	*) blocks=(4096 16384 65536 262144) ;;
	esac
}

for format in "${formats[@]}"; do
	blocks_of "$format"
	for ((seed = first; seed < first + seeds; seed++)); do
		block=${blocks[seed % ${#blocks[@]}]}
		for way in "" --kernel; do
			# shellcheck disable=SC2086 # nothing, or a word
			one "$format" "$seed" "$block" 2 $way || {
				echo "native.sh: $format, block $block, seed $seed ${way:-directly}: see above" >&2
				status=1
			}
		done
	done
done
exit $status
