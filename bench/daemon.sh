# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# The path through a daemon, when each I/O asks: ours, and nbd with a server that has nothing.

up_ask()
{
	local sectors
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

# batch_at DEPTH: how many questions the daemon, $pid, reads at once.
batch_at()
{
	local reads asked
	reads=$(awk '/^syscr/ { print $2 }' "/proc/$pid/io")
	# shellcheck disable=SC2046 # words
	asked=$(fio --name=batch --filename="${dev_of[ask]}" --ioengine=libaio --direct=1 --thread --norandommap=1 \
		--iodepth="$1" --time_based --runtime="${milliseconds}ms" --size="${size}M" \
		$(options_of randread-4k) --output-format=json 2>fio.err |
		sed -n '/^{/,$p' | jq '.jobs[0].read.total_ios')
	[ "${asked:-0}" -gt 0 ] || die "fio: $(cat fio.err)"
	reads=$(($(awk '/^syscr/ { print $2 }' "/proc/$pid/io") - reads))
	fact "questions read at once at depth $1" "$(awk -v n="$asked" -v r=$reads 'BEGIN { printf "%.2f", n / r }')"
}

group_control()
{
	local pid depth
	all_up nbd_null -- ask
	! wanted ask || for depth in 1 8 32; do batch_at $depth; done
	in_turn control "$subjects" "randread-4k randwrite-4k" "1 32"
}
