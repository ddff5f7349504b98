# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the scripts of this folder share, beyond what those of cowd share.
# shellcheck source=tests/cowd/lib.sh
. "$(dirname "$0")/../cowd/lib.sh"

# shellcheck disable=SC2034 # of the scripts
hostile=$DMU_BUILD_DIR/tests/privilege/hostile
modprobe loop || die "no loop devices"
file base.img 4194304
