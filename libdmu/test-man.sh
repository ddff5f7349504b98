#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every function that the library shows stands in its header and its page.
set -eu
dir=${srcdir:-$(dirname "$0")}
status=0
for f in $(sed -n 's/^\t\(dmu_[a-z_]*\);/\1/p' "$dir/libdmu.syms"); do
	for file in include/dmu.h dmu.3; do
		grep -q "$f" "$dir/$file" || {
			echo "$file does not know $f" >&2
			status=1
		}
	done
done
for f in $(grep -v typedef "$dir/include/dmu.h" | grep -o 'dmu_[a-z_]*(' | tr -d '(' | sort -u); do
	grep -q "^	$f;" "$dir/libdmu.syms" || {
		echo "libdmu.syms does not show $f" >&2
		status=1
	}
done
exit $status
