#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The model test over block sizes from 512 B to 1 MiB and disks that are no
# multiple of anything.  With arguments: one run with these (see --help).
#
#	--short		each for 8 seconds (the default)
#	--long		each for 60 seconds
#	--seed N	the first one's seed, the next has N + 1 (default: random)
. "$(dirname "$0")/common.sh"

seconds=8 seed=$((RANDOM * 32768 + RANDOM))
while [ $# -gt 0 ]; do
	case $1 in
	--short) seconds=8 ;;
	--long) seconds=60 ;;
	--seed) [ -n "${3:-}" ] && break; seed=$2; shift ;;
	*) break ;;
	esac
	shift
done
if [ $# -gt 0 ]; then
	program model "$@"
	leave $?
fi

status=0
run() {
	program model --seed $((seed++)) --seconds "$seconds" --block-size "$1" \
		--sectors "$2" --threads "$3" || status=1
}

run 512 3001 4
run 512 40000 4
run 1024 777 4
run 4096 5003 4
run 4096 61 8
run 65536 30011 4
run 131072 9999 8
run 1048576 60007 4
leave $status
