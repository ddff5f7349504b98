#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The fuzzer of the control node.  Arguments: --seed N, --seconds N.
. "$(dirname "$0")/common.sh"
program fuzz "$@"
leave $?
