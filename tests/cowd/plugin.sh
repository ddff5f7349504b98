#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A plugin from outside of the tree, built against what is installed, serves a
# device.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/lib.sh"

top=${DMU_TOP:-$(dirname "$0")/../..}
for tool in gcc pkg-config; do
	command -v $tool >/dev/null || { echo "SKIP: no $tool"; exit 77; }
done

export PKG_CONFIG_PATH=/usr/local/lib/pkgconfig
mkdir plugins
# shellcheck disable=SC2046 # words
gcc -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -shared -fPIC -fvisibility=hidden \
	-o plugins/halves.so "$top/tests/cowd/outside/halves.c" \
	$(pkg-config --cflags --libs cow-plugin) || die "does not build against the installed header"

dir=${SCRATCH:-$work}/plugin
mkdir -p "$dir"
half=$((10 * 1048576))
file "$dir/one" $half
file "$dir/two" $half
cat "$dir/two" "$dir/one" >"$dir/image"
cat "$dir/one" "$dir/two" >"$dir/disk"
sum "$dir/disk" >expected

cowd -p halves dev "$dir/image" 2>err && fail "found a plugin that nobody named a folder of"
grep -q halves err || fail "does not say which plugin is missing: $(cat err)"

cowd --plugin-dir "$work/plugins" -p halves dev "$dir/image" || die "does not serve"
sum /dev/mapper/dev | cmp - expected || fail "reads other data"
mkfs.ext4 -q /dev/mapper/dev || fail "mkfs"
fsck.ext4 -fn /dev/mapper/dev >fsck.log 2>&1 || fail "$(cat fsck.log)"
cowctl stop dev || fail "does not stop"
tail -c $half "$dir/image" >"$dir/disk"
head -c $half "$dir/image" >>"$dir/disk"
fsck.ext4 -fn "$dir/disk" >fsck.log 2>&1 || fail "the image does not hold what was written: $(cat fsck.log)"
rm -rf "$dir"
nothing_left "a plugin from outside"
