#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
set -eu

here=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$here/../../plugins}
export COWD_PLUGIN_DIR
cd "$dir"
"$here/test-large"
