#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What block-dmu makes of a disk's target=: the commands it runs, and what it refuses.
set -u

src=${srcdir:-$(dirname "$0")}
# shellcheck source=xen-scripts/dmu-target.sh
. "$src/dmu-target.sh"
failed=0

show()
{
	local IFS='|'
	echo "$*"
}

# same WHAT WANTED GOT
same()
{
	[ "$2" = "$3" ] || { echo "FAIL: $1: $3, and not $2"; failed=1; }
}

# takes TARGET MODE COWD-COMMAND [COWIMG-COMMAND]: words separated by |.
takes()
{
	dmu_parse "$1" || { echo "FAIL: refused: $dmu_error"; failed=1; return; }
	dmu_cowd_command xen-5-51712 "$2"
	same "$1" "$3" "$(show "${REPLY[@]}")"
	[ $# -ge 4 ] || return 0
	dmu_make_command || { echo "FAIL: cannot be made: $dmu_error"; failed=1; return; }
	same "$1" "$4" "$(show "${REPLY[@]}")"
}

# refuses TARGET WORDS: in one sentence.
refuses()
{
	dmu_error=
	if dmu_parse "$1" && dmu_make_command; then
		echo "FAIL: takes $1"
		failed=1
	elif [[ $dmu_error != *"$2"* || $dmu_error == *$'\n'* ]]; then
		echo "FAIL: $1: does not say '$2': $dmu_error"
		failed=1
	fi
}

takes dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4 w \
	'cowd|-p|dscow|--allow-backing|/dev/vols/Fedora4|xen-5-51712|/tmp/fedora4.dscow' \
	'cowimg|create|-f|dscow|-b|/dev/vols/Fedora4|-F|raw|/tmp/fedora4.dscow'
takes qcow2:/a:/b:base-format=qcow:block-size=128k:size=2g r \
	'cowd|-p|qcow2|--allow-backing|/b|--read-only|xen-5-51712|/a' \
	'cowimg|create|-f|qcow2|-s|128k|-b|/b|-F|qcow|/a|2g'
# What a tap: line becomes allows no base elsewhere; cowd refuses one, unless it is named.
takes qcow:/srv/a w 'cowd|-p|qcow|xen-5-51712|/srv/a'
takes qcow:/srv/a:/golden/b w 'cowd|-p|qcow|--allow-backing|/golden/b|xen-5-51712|/srv/a'
takes raw:/dev/vg/disk w 'cowd|-p|raw|xen-5-51712|/dev/vg/disk'
takes raw:/disk r 'cowd|-p|raw|--read-only|xen-5-51712|/disk'
takes ram:/dev/shm/disk:size=1g w 'cowd|-p|ram|xen-5-51712|/dev/shm/disk' \
	'cowimg|create|-f|ram|/dev/shm/disk|1g'
takes vmdk:/a:policy=timeout=30:no-space=wait:map-memory=1m:cache-size=2m:scratch-size=4m:allow-backing=/c:allow-write=/d w \
	'cowd|-p|vmdk|--policy|timeout=30|--no-space|wait|--map-memory|1m|--cache-size|2m|--scratch-size|4m|--allow-backing|/c|--allow-write|/d|xen-5-51712|/a'
takes vhd:/a:/b:create.type=dynamic:open.depth=a=b w \
	'cowd|-p|vhd|-o|depth=a=b|--allow-backing|/b|xen-5-51712|/a' \
	'cowimg|create|-f|vhd|-o|type=dynamic|-b|/b|-F|raw|/a'
# Paths of all kinds, each one word.
takes 'qcow:/a b%3Ac%25d%2Ce%20f:/x%5Cn*$(y)' w \
	'cowd|-p|qcow|--allow-backing|/x\n*$(y)|xen-5-51712|/a b:c%d,e f' \
	'cowimg|create|-f|qcow|-b|/x\n*$(y)|-F|raw|/a b:c%d,e f'
takes 'raw:/a\x41%41' w 'cowd|-p|raw|xen-5-51712|/a\x41A'
takes 'raw:/%C3%A4' w 'cowd|-p|raw|xen-5-51712|/ä'

refuses '' 'should be FORMAT:'
refuses dscow 'should be FORMAT:'
refuses :/a 'should be FORMAT:'
refuses -x:/a:size=1 'should be FORMAT:'
refuses ../x:/a:size=1 'should be FORMAT:'
refuses dscow: "'' is no absolute path"
refuses dscow:a:/b "'a' is no absolute path"
refuses dscow:/a:b "'b' is neither"
refuses dscow:/a:/b:/c "'/c' is neither"
refuses dscow:/a:/b: "'' is neither"
refuses dscow:/a:=x "'=x' is neither"
refuses dscow:/a:colour=red 'colour is no option'
refuses dscow:/a:size=1:create.=x 'create. is no option'
refuses dscow:/a%:/b 'write %25'
refuses dscow:/a%zz:/b 'write %25'
refuses dscow:/a%00b:/b 'write %25'
refuses dscow:/a 'name its base after it, or add :size=SIZE'

[ "$failed" = 0 ] && echo "PASS test-target.sh"
exit "$failed"
