#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs the model test with a number of seeds: MODEL_SEEDS="1 2 3" ./model.sh
# MODEL_FORMAT=NAME: for that format only, over MODEL_BASE.
set -eu

here=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$here/../../plugins}
export COWD_PLUGIN_DIR
cd "$dir"

# COUNT [NAME=VALUE...]: the environment of the model.
seeds()
{
	count=$1
	shift
	echo "# $*"
	for seed in ${MODEL_SEEDS:-$(seq 1 "$count")}; do
		env "$@" "$here/model" "$seed" "${MODEL_STEPS:-200}"
	done
}

count=${MODEL_COUNT:-6}
third=$(((count + 2) / 3))
seeds "$count"
[ -z "${MODEL_FORMAT:-}" ] || exit 0
seeds $third MODEL_FORMAT=vmdk MODEL_BASE=none
seeds $third MODEL_FORMAT=vmdk MODEL_BASE=self
seeds $third MODEL_FORMAT=qcow2
for options in compat=0.10 cluster_size=512,refcount_bits=64 \
	extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=128k,refcount_bits=1; do
	seeds $((third / 2 + 1)) MODEL_FORMAT=qcow2 MODEL_OPTIONS=$options
done
seeds $((third / 2)) MODEL_FORMAT=qcow MODEL_BASE=none
seeds $((third / 2)) MODEL_FORMAT=qcow MODEL_BASE=self
seeds $((third / 2)) MODEL_FORMAT=qcow
seeds $((third / 2)) MODEL_FORMAT=qcow MODEL_OPTIONS=cluster_size=512,l2_bits=6
seeds $((third / 2)) MODEL_FORMAT=vhd MODEL_BASE=none
seeds $((third / 2)) MODEL_FORMAT=vhd MODEL_BASE=raw
seeds $((third / 2)) MODEL_FORMAT=vhd MODEL_BASE=self
