#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# block-dmu with the helpers of Xen itself, on this machine: those of the test machine's Xen.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
xen=$("$top/tests/vm/kernel" path xen)
exec "$top/xen-scripts/test-script.sh" "$xen/tree/etc/xen/scripts"
