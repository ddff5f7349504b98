#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Table lines and messages: what must be refused, with which words; status.
# Arguments: names of tests (a '*' at the end matches all that begin so), --list.
. "$(dirname "$0")/common.sh"
program table "$@"
leave $?
