#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A plugin from outside of the tree: built with nothing but a compiler and
# what was installed, loaded, and put through the model test.
set -eu

src=$(cd "${srcdir:-$(dirname "$0")}" && pwd)
build=$PWD/../..
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
command -v pkg-config >/dev/null || exit 77

# Installing the plugins would link them again in the build folder, and take
# them away from the tests beside this one for that time.
for folder in libcow tools; do
	make -s -C "$build/$folder" install DESTDIR="$dir/root" >"$dir/log" 2>&1 || {
		cat "$dir/log"
		exit 1
	}
done
pc=$(find "$dir/root" -name cow-plugin.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR=$dir/root
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
installed=$dir/root$(pkg-config --variable=plugindir cow-plugin | sed "s|^$dir/root||")
libdir=$(dirname "$(dirname "$pc")")
mkdir -p "$installed"
cp "$build"/plugins/*/.libs/*.so "$installed"

# Where the compiler's own flags matter (sanitizers) they come from configure.
eval "$(sed -n "s/^CC = \(.*\)/cc='\1'/p; s/^CFLAGS = \(.*\)/cflags='\1'/p" "$build/Makefile")"
# shellcheck disable=SC2046,SC2086
# shellcheck disable=SC2154 # set by eval above
$cc $cflags -std=c11 -Wall -Wextra -Wno-unused-parameter -Werror \
	-shared -fPIC -fvisibility=hidden -o "$dir/toy.so" "$src/plugin/toy.c" \
	$(pkg-config --cflags --libs cow-plugin)
[ "$(nm -D --defined-only "$dir/toy.so" | grep -c ' T ')" = 1 ] || {
	echo "the plugin shows more than its entry"
	exit 1
}
for plugin in "$installed"/*.so; do
	[ "$(nm -D --defined-only "$plugin" | grep -c ' T ')" = 1 ] || {
		echo "$plugin shows more than its entry"
		exit 1
	}
done

# The installed tool finds the installed plugins.
export LD_LIBRARY_PATH=$libdir
head -c 100000 /dev/urandom >"$dir/base"
tool=$(find "$dir/root" -name dscow_tool -type f)
env -u COWD_PLUGIN_DIR "$tool" --plugin-dir "$installed" -c "$dir/o" "$dir/base" >/dev/null

# The model with the plugin from outside on top.
mkdir "$dir/work"
cd "$dir/work"
export COWD_PLUGIN_DIR=$dir:$installed MODEL_FORMAT=toy
"$build/tests/native/test-calls"
for seed in $(seq 1 "${MODEL_COUNT:-20}"); do
	"$build/tests/native/model" "$seed" "${MODEL_STEPS:-150}"
done
