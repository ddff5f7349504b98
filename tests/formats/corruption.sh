#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Corruption bugs that others had: corruption.c, for each format that is
# written and has metadata.  corruption.sh [FORMAT [NAME]]: of that one only.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need python3
export FORMATS_SRC
formats=(dscow qcow qcow2 vhd vmdk)
[ $# = 0 ] || formats=("$1")
for format in "${formats[@]}"; do
	NR=$((NR + 1))
	"$BUILD/tests/formats/corruption" "$format" ${2:+"$2"} || FAILED=$((FAILED + 1))
done
finish
