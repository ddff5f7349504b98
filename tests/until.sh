# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash

# until_true SECONDS COMMAND...: 1 when it was not true for so long. To ask often costs more than
# what is waited for, emulated.
until_true()
{
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.5
	done
}
