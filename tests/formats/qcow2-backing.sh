#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# qcow2 with images below it, against qemu-img, in both directions.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

# Over a base of some other length, also one that ends within a cluster.
over_base()
{
	local options=$1 size=$2
	rm -f image data.raw
	qimg create -f qcow2 -b contents -F raw ${options:+-o "$options"} image "$size" &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 60 &&
		oracle_stop qcow2 image "$SEED" 60
}

make_random contents 3m "$SEED"
truncate -s 3100672 contents

for size in 512 1M 3100672 3101184 5000192; do
	for options in '' cluster_size=512 cluster_size=1m extended_l2=on compat=0.10; do
		next_seed
		check "over a base, disk of $size, ${options:-no options}" over_base "$options" "$size"
	done
done
# Clusters that keep their place and read as zeroes: what was written there before, and
# what a base holds, must not come back.
zero_in_place()
{
	from_contents "$@" && mv image base && qimg create -f qcow2 -b base -F qcow2 ${1:+-o "$1"} image || return
	local at
	for at in base image; do
		qemu-io -f qcow2 -c "write -q -P 5 0 1m" -c "write -q -z 64k 256k" \
			-c "write -q -z 900k 100k" $at &&
			qemu-img map --output=json $at | grep '"zero": true.*"offset"' || return
	done
	oracle_read qcow2 base && oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 60 &&
		oracle_stop qcow2 image "$((SEED + 1))" 60 && oracle_write qcow2 base "$SEED" 60
}

for options in '' cluster_size=4k extended_l2=on extended_l2=on,cluster_size=16k lazy_refcounts=on; do
	next_seed
	check "zeroes over allocated clusters, ${options:-no options}" zero_in_place "$options"
done

# link_chain N: deep.1 is a raw file, deep.N the image that is opened.
link_chain()
{
	local i below=raw
	rm -f deep.*
	truncate -s 1m deep.1
	for ((i = 2; i <= $1; i++)); do
		qimg create -f qcow2 -o cluster_size=4k deep.$i 1m &&
			qemu-io -f qcow2 -c "write -q -P $i $((i * 4))k 4k" deep.$i &&
			qimg rebase -u -f qcow2 -b deep.$((i - 1)) -F $below deep.$i || return
		below=qcow2
	done
}

# The 65th is one too many; of 64 each is read through all others, and written over.
deep()
{
	local text="deep.2: is the 64th image of the chain; no more are followed"
	link_chain 65 && refused deep.2 "$text" "$IMAGE_IO" open qcow2 deep.65 &&
		refused deep.2 "$text" "$IMAGE_IO" open -w qcow2 deep.65 &&
		refused deep.2 "$text" "$COWIMG" create -f qcow2 -b deep.65 -F qcow2 top &&
		refused deep.64 "deep.64: has 64 images" "$COWIMG" create -f qcow2 -b deep.64 -F qcow2 top &&
		oracle_read qcow2 deep.64 && oracle_write qcow2 deep.64 "$SEED" 30
}

# Two questions want more tables than the cache has room for: each block lies in sixty images.
crowded_deep()
{
	local i at below=bottom format=raw
	truncate -s 64m bottom
	for ((i = 0; i < 60; i++)); do
		qimg create -u -f qcow2 -o cluster_size=512 -b $below -F $format deep.$i 64m || return
		for ((at = 0; at < 64; at += 8)); do
			echo "write -q $(((at << 20) + i * 512)) 512"
		done | qemu-io -f qcow2 deep.$i >/dev/null || return
		below=deep.$i format=qcow2
	done
	qimg create -u -f qcow2 -b $below -F qcow2 top 64m &&
		"$BUILD/tests/formats/crowd" qcow2 top $((8 << 20))
}

next_seed
check "a chain of 64 images, and not of 65" deep
rm -f deep.*
check "a crowd of questions over sixty images" crowded_deep
rm -f deep.*

finish
