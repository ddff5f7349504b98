#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs the model test with a number of seeds: MODEL_SEEDS="1 2 3" ./model.sh
set -eu

here=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$here/../../plugins}
export COWD_PLUGIN_DIR
cd "$dir"
for seed in ${MODEL_SEEDS:-$(seq 1 "${MODEL_COUNT:-30}")}; do
	"$here/model" "$seed" "${MODEL_STEPS:-200}"
done
