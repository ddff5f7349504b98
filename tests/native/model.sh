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

# FORMAT BASE, the number of seeds; nothing for both: dscow and raw.
seeds()
{
	for seed in ${MODEL_SEEDS:-$(seq 1 "$3")}; do
		env ${1:+MODEL_FORMAT="$1"} ${2:+MODEL_BASE="$2"} \
			"$here/model" "$seed" "${MODEL_STEPS:-200}"
	done
}

count=${MODEL_COUNT:-30}
if [ "${MODEL_FORMAT:-}" ]; then
	seeds "" "" "$count"
	exit
fi
seeds "" "" "$count"
seeds vmdk none $(((count + 2) / 3))
seeds vmdk self $(((count + 2) / 3))
