#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# test-trouble.sh [DIR | PROGRAM]: as test-script.sh, block-dmu where paths are strange, where
# others come between, and where cowd is slow.
# shellcheck source=xen-scripts/script-lib.sh
. "${srcdir:-$(dirname "$0")}/script-lib.sh"

what="a path that is no plain ASCII"
image="$work/images/gäst\\x"
disk w "raw:$image"
: >"$image"
adds
calls_are "cowd|-p|raw|$name|$image"
removes

what="a sentence with such a path"
disk w "raw:$work/images/gäst\\x41"
refused "$work/images/gäst\\x41 does not exist; to have it made, name its base after it, or add :size=SIZE"
what="a target with such a path"
disk w "raw:$work/images/gäst\\x41:wrong"
refused "target=raw:$work/images/gäst\\x41:wrong: 'wrong' is neither an absolute path of a base nor OPTION=VALUE; write %3A for a colon in a path"

[ "$failed" = 0 ] && echo "PASS ${0##*/}${1:+ with $1}"
exit "$failed"
