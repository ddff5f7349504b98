#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# qcow2 against qemu-img, in both directions.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

# What qemu wrote is read, and written onto.
both_ways()
{
	local options=$1 ops=$2
	shift 2
	from_contents "$options" "$@" && oracle_read qcow2 image &&
		oracle_write qcow2 image "$SEED" "$ops"
}

make_random contents 3m "$SEED"
truncate -s 3100672 contents

for bits in 9 10 12 14 16 18 21; do
	next_seed
	check "clusters of $((1 << bits))" both_ways "cluster_size=$((1 << bits))" 60
done
for bits in 1 2 4 8 32 64; do
	next_seed
	check "refcounts of $bits bits" both_ways "refcount_bits=$bits,cluster_size=4k" 40
done
for options in compat=0.10 compat=1.1,lazy_refcounts=on extended_l2=on \
	extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2m \
	preallocation=metadata preallocation=falloc,cluster_size=4k \
	data_file=data.raw data_file=data.raw,cluster_size=4k \
	data_file=data.raw,data_file_raw=on; do
	next_seed
	check "options $options" both_ways "$options" 60
done
for options in compression_type=zlib compression_type=zstd \
	compression_type=zlib,cluster_size=512 compression_type=zstd,cluster_size=2m \
	compression_type=zlib,extended_l2=on compression_type=zstd,extended_l2=on,cluster_size=16k \
	compat=0.10; do
	next_seed
	check "compressed, $options" both_ways "$options" 60 -c
done

# The file beside the image is the disk, for who reads it without the image; it may go on
# to the end of a cluster, with zeroes.
raw_itself()
{
	from_contents "data_file=data.raw,data_file_raw=on${1:+,$1}" &&
		qemu-img compare -f raw -F raw data.raw contents && cp contents mirror.raw &&
		"$IMAGE_IO" load qcow2 image mirror.raw "$SEED" 60 && check_image qcow2 image &&
		qemu-img compare -f raw -F raw data.raw mirror.raw
}

# Made by us, and full of data.
data_file_of_ours()
{
	rm -f image data.raw
	: >data.raw
	"$COWIMG" convert -f raw -O qcow2 -o "data_file=data.raw${1:+,$1}" dense image &&
		qemu-img info image | grep "data file: data.raw" && check_image qcow2 image &&
		same_contents data.raw dense && oracle_write qcow2 image "$SEED" 60 &&
		"$COWIMG" create --force -f qcow2 -o "data_file=data.raw${1:+,$1}" image 3100672 &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 60
}

head -c 3100672 /dev/urandom >dense
for options in '' cluster_size=4k extended_l2=on; do
	next_seed
	check "the data file itself, raw, ${options:-no options}" raw_itself "$options"
	check "a data file of ours, ${options:-no options}" data_file_of_ours "$options"
done

# Blocks that lie in three images each, so that all need the buffer in which they are put
# together, and more tables than the cache has room for.
crowded()
{
	local i
	rm -f low mid top
	truncate -s 1g bottom && qimg create -f qcow2 -o cluster_size=4k -b bottom -F raw low &&
		qimg create -f qcow2 -o cluster_size=4k -b low -F qcow2 mid &&
		qimg create -f qcow2 -b mid -F qcow2 top || return 1
	for ((i = 0; i < 512; i++)); do echo "write -q $((i * 2048 + 16))k 4k"; done |
		qemu-io -f qcow2 low >/dev/null || return
	for ((i = 0; i < 512; i++)); do echo "write -q $((i * 2048))k 4k"; done |
		qemu-io -f qcow2 mid >/dev/null || return
	"$BUILD/tests/formats/crowd" qcow2 top $((2 << 20))
}

check "a crowd of questions, and a small cache" crowded
finish
