#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Daemons that go and come back, suspend, reload, removal.
# Arguments: names of tests (a '*' at the end matches all that begin so), --list.
. "$(dirname "$0")/common.sh"
program lifecycle "$@"
leave $?
