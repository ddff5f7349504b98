# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# The path through a daemon, when each I/O asks: ours, and nbd with a server that has nothing.

up_ask()
{
	local pid sectors
	sectors=$(sectors_of "$size")
	zero b-a "$sectors" && zero b-b "$sectors" &&
		dm b-ask "0 $sectors userspace b-ask 8 2 /dev/mapper/b-a /dev/mapper/b-b" || return
	answering ask ask
	dev_of[ask]=/dev/mapper/b-ask
}

# Before anything is measured: no device's start is to have the module's in it.
nbd_prepare() { modprobe nbd nbds_max=256; }

# nbd SOCKET: the next free /dev/nbdN, in $nbd.
nbd()
{
	local left=100
	nbd=/dev/nbd$nbds
	nbds=$((nbds + 1))
	until [ -S "$1" ] || [ $((left -= 1)) = 0 ]; do sleep 0.05; done
	nbd-client -unix "$1" "$nbd" >/dev/null 2>&1 || return
	later "nbd-client -d $nbd"
}

up_nbd_null()
{
	nbd_prepare || return
	nbdkit --unix "$work/null.sock" --pidfile "$work/null.pid" null "${size}M" || return
	# shellcheck disable=SC2016 # when it is taken away
	later 'kill $(cat '"$work"'/null.pid)'
	nbd "$work/null.sock" && dev_of[nbd_null]=$nbd
}

group_control()
{
	all_up nbd_null -- ask
	in_turn control "$subjects" "randread-4k randwrite-4k" "1 32"
}
