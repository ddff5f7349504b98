#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Wrong usage, and no right to: one sentence that names what it is about.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
status=0

# says STATUS WORDS COMMAND...: it ends with that status, and one line with these words.
says()
{
	wanted=$1 words=$2 code=0
	shift 2
	"$@" >"$work/out" 2>&1 || code=$?
	[ "$code" = "$wanted" ] || {
		echo "$*: exit status $code, not $wanted"
		status=1
	}
	[ "$(wc -l <"$work/out")" = 1 ] && grep -qF -e "$words" "$work/out" || {
		echo "$*: does not say \"$words\" alone:"
		cat "$work/out"
		status=1
	}
}

# What a record says cannot be said anew, for it would have no effect.
for option in "-p raw" -r "-o size=1" "--allow-backing /" "--allow-write /" "--cache-size 2m" "--scratch-size 2m"; do
	# shellcheck disable=SC2086 # an option and its value
	says 2 "so leave it out" ./cowd --run-dir "$work" --recover $option mydev
done
says 2 "--cache-size" ./cowd --run-dir "$work" --recover --cache-size 2m mydev
for option in "--policy fail" "--no-space wait" "--map-memory 2m" "--plugin-dir /" "--user root"; do
	# shellcheck disable=SC2086 # an option and its value
	says 1 "there is no record of it" ./cowd --run-dir "$work" --recover $option mydev
done

says 2 "--cache-size 12q: is no size; give a number and k, m, g or t" ./cowd --cache-size 12q
says 2 "--cache-size 4k: is less than 1.0 MiB" ./cowd --cache-size 4k
says 2 "--map-memory 10: is less than 1.0 KiB" ./cowd --map-memory 10

for command in stop upgrade keep grow; do
	says 2 "$command: the NAME of a device is wanted" ./cowctl $command
done
says 2 "nosuch: not a command" ./cowctl nosuch

says 1 "$work: is no block device" ../examples/placed mydev "$work"

# Where device-mapper cannot be asked, nothing is said of what there is.
echo '{ "name": "mydev", "format": "raw", "image": "/no-such.img" }' >"$work/mydev.json"
if [ ! -e /dev/mapper/control ]; then
	says 1 "mydev: its cowd died, and device-mapper cannot be asked" ./cowctl --run-dir "$work" status mydev
fi

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	# Not all folders above this one need be open to others.
	cp cowd cowctl "$work" 2>/dev/null
	nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
	for program in cowd cowctl; do
		[ ! -x ".libs/$program" ] || cp ".libs/$program" "$work"
	done
	libs=$(cd .. && pwd)/libdmu/.libs:$(cd .. && pwd)/libcow/.libs
	if env "LD_LIBRARY_PATH=$libs" $nobody "$work/cowd" --version >/dev/null 2>&1; then
		mkdir "$work/mine"
		says 1 "$work/mine/run: cannot be made: Permission denied; this needs root" \
			env "LD_LIBRARY_PATH=$libs" $nobody "$work/cowd" --run-dir "$work/mine/run" -p raw mydev /no-such.img
		says 1 "this needs root" env "LD_LIBRARY_PATH=$libs" $nobody "$work/cowctl" --run-dir "$work" status mydev
	fi
fi
exit $status
