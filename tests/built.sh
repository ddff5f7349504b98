# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Sourced with BUILD, where the tree was built. built DIR/NAME: prints the path of a program
# of it, without libtool's script around it where there is one: to start that costs ten times
# what the program does. The libraries are found by LD_LIBRARY_PATH instead.
built()
{
	local program=$BUILD/${1%/*}/.libs/${1##*/}

	[ -x "$program" ] || program=$BUILD/$1
	echo "$program"
}

LD_LIBRARY_PATH=$BUILD/libcow/.libs:$BUILD/libdmu/.libs
export LD_LIBRARY_PATH
