#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# native.sh [--long] [--seed N] [--seeds N]: power cuts without a kernel.  A
# load goes to an image by libcow, in both ways to its data; the order of the
# writes and syncs of its file is recorded; and every point of that order is
# a power cut, after which the image is checked.
set -euo pipefail

here=$(cd "${BUILD:-.}" && pwd)
first=1 seeds=6 ops=120 between=3
while [ $# -gt 0 ]; do
	case $1 in
	--long) seeds=100 ops=400 between=6 ;;
	--seed) first=$2; shift ;;
	--seeds) seeds=$2; shift ;;
	*) echo "usage: ${0##*/} [--long] [--seed N] [--seeds N]" >&2; exit 2 ;;
	esac
	shift
done

# Direct I/O where the file system can do it: that is the way cowd goes.
dir=$(mktemp -d "${CRASH_DIR:-/var/tmp}/crash.XXXXXX")
trap 'rm -rf "$dir"' EXIT
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$here/../../plugins}
export COWD_PLUGIN_DIR
tool=${DSCOW_TOOL:-$here/../../tools/dscow_tool}
cd "$dir"

# one SEED BLOCK_SIZE MEGABYTES [--kernel]
one()
{
	local seed=$1 block=$2 size=$(($3 << 20))
	shift 3
	rm -f ./*
	"$here/writer" --prefill --size "$size" base
	"$tool" -c -b "$block" image base >/dev/null
	cp --sparse=always image image.new
	"$here/recorder" --image dscow --record record --log log \
		--seed "$seed" --ops "$ops" "$@" image
	# What the file held when the load began is the first of the log.
	"$here/replay" --log log --state state.dscow --initial image.new \
		--size "$(stat -c %s image)" --seed "$seed" \
		--between "$between" --pure \
		"'$here/checker' --record record --image dscow --size $size state.dscow"
}

status=0
blocks=(4096 16384 65536 262144)
for ((seed = first; seed < first + seeds; seed++)); do
	block=${blocks[seed % 4]}
	one "$seed" "$block" 2 || status=1
	one "$seed" "$block" 2 --kernel || status=1
done
exit $status
