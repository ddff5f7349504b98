#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the target does with good answers: mappings, copies, commits, discard.
# Arguments: names of tests (a '*' at the end matches all that begin so), --list.
. "$(dirname "$0")/common.sh"
program behaviour "$@"
leave $?
