#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A plugin from outside of the tree, built against what is installed, serves a
# device: raw under another name.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

top=${DMU_TOP:-$(dirname "$0")/../..}
for tool in gcc pkg-config; do
	command -v $tool >/dev/null || { echo "SKIP: no $tool"; exit 77; }
done

export PKG_CONFIG_PATH=/usr/local/lib/pkgconfig
mkdir plugins
sed 's/\.name = "raw"/.name = "outside"/' "$top/plugins/raw/raw.c" >outside.c
grep -q '"outside"' outside.c || die "plugins/raw/raw.c has no name to change"
# shellcheck disable=SC2046 # words
gcc -std=gnu11 -Wall -shared -fPIC -fvisibility=hidden -o plugins/outside.so outside.c \
	$(pkg-config --cflags --libs cow-plugin) || die "does not build against the installed header"

dir=${SCRATCH:-$work}/plugin
mkdir -p "$dir"
file "$dir/image" $((20 * 1048576))
sum "$dir/image" >expected

cowd -p outside dev "$dir/image" 2>err && fail "found a plugin that nobody named a folder of"
grep -q outside err || fail "does not say which plugin is missing: $(cat err)"

cowd --plugin-dir "$work/plugins" -p outside dev "$dir/image" || die "does not serve"
sum /dev/mapper/dev | cmp - expected || fail "reads other data"
mkfs.ext4 -q /dev/mapper/dev || fail "mkfs"
fsck.ext4 -fn /dev/mapper/dev >fsck.log 2>&1 || fail "$(cat fsck.log)"
cowctl stop dev || fail "does not stop"
fsck.ext4 -fn "$dir/image" >fsck.log 2>&1 || fail "the image has no file system: $(cat fsck.log)"
rm -rf "$dir"
nothing_left "a plugin from outside"
