#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The scripts at the top of the tree: help that is help only, and one sentence for what
# is missing.
set -u
top=$(cd "${srcdir:-$(dirname "$0")}/../.." && pwd)
status=0

# says STATUS WORDS COMMAND...
says()
{
	local wanted=$1 words=$2 said code=0
	shift 2
	said=$("$@" 2>&1 </dev/null) || code=$?
	[ "$code" = "$wanted" ] && [ "${said/"$words"/}" != "$said" ] || {
		echo "$*: exit status $code, not $wanted with \"$words\": $said"
		status=1
	}
}

for script in check demo scripts/setup; do
	says 0 "${script##*/} [--" "$top/$script" --help
	# What else stands in comments is none.
	! "$top/$script" --help | grep -E 'shellcheck|SPDX|^set |^#' || status=1
	[ "$("$top/$script" --help | wc -l)" -lt 25 ] || { echo "$script --help does not end"; status=1; }
done
for option in --on --jobs; do
	says 2 "check: $option wants a value" "$top/check" "$option"
done
says 2 "unknown argument --no-such" "$top/demo" --no-such

# No busybox, and one that would not run in the golden image.
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
for program in bash mktemp ldd; do
	ln -s "$(command -v $program)" "$bin"
done
says 1 "install busybox-static" env "PATH=$bin" "$top/examples/demo-steps"
ln -s "$(command -v cat)" "$bin/busybox"
says 1 "install busybox-static" env "PATH=$bin" "$top/examples/demo-steps"
exit $status
