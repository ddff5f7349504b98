#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Every reply and attach that must be refused.
# Arguments: names of tests (a '*' at the end matches all that begin so), --list.
. "$(dirname "$0")/common.sh"
program protocol "$@"
leave $?
