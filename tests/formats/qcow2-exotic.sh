#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# qcow2 against qemu-img: snapshots, chains, odd shapes, check and repair.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
COWIMG=$(built tools/cowimg)

# --- Internal snapshots: shared clusters are copied, and stay as they were ---

# snapshot_raw IMAGE NAME OUT
snapshot_raw() { qimg convert -f qcow2 -l "snapshot.name=$2" -O raw "$1" "$3"; }

# make_image OPTIONS [CONVERT-ARGUMENT...]
make_image()
{
	local options=$1
	shift
	rm -f image
	qimg convert -f raw -O qcow2 "$@" ${options:+-o "$options"} contents image
}

snapshots()
{
	make_image "$@" && qimg snapshot -c one image &&
		oracle_write qcow2 image "$SEED" 60 &&
		snapshot_raw image one one.raw && same_contents one.raw contents &&
		qemu-img convert -f qcow2 -O raw image two.now &&
		qimg snapshot -c two image && oracle_write qcow2 image "$((SEED + 1))" 60 &&
		snapshot_raw image one one.raw && same_contents one.raw contents &&
		snapshot_raw image two two.raw && same_contents two.raw two.now &&
		oracle_stop qcow2 image "$((SEED + 2))" 60 &&
		snapshot_raw image two two.raw && same_contents two.raw two.now &&
		qimg snapshot -d one image && qimg snapshot -a two image &&
		oracle_read qcow2 image && oracle_write qcow2 image "$((SEED + 3))" 40
	set -- $?
	rm -f one.raw two.raw two.now
	return "$1"
}

make_random contents 3100672 "$SEED"
truncate -s 3100672 contents
for options in '' cluster_size=512 cluster_size=2m compat=0.10 refcount_bits=2 refcount_bits=64 \
	extended_l2=on extended_l2=on,cluster_size=16k lazy_refcounts=on; do
	next_seed
	check "snapshots, ${options:-no options}" snapshots "$options"
done
for options in cluster_size=4k extended_l2=on,cluster_size=16k compression_type=zstd,cluster_size=64k; do
	next_seed
	check "snapshots of compressed clusters, $options" snapshots "$options" -c
done

# --- Chains ------------------------------------------------------------------

# Each layer has other clusters and some writes.
chain()
{
	local depth=$1 i below=contents format=raw
	rm -f layer.*
	for i in $(seq "$depth"); do
		qimg create -f qcow2 -o "cluster_size=$((512 << (i * 5 % 12)))" \
			-b "$below" -F $format "layer.$i" || return
		qemu-img convert -f qcow2 -O raw "layer.$i" mirror.raw &&
			"$IMAGE_IO" load qcow2 "layer.$i" mirror.raw "$((SEED + i))" 8 || return
		below=layer.$i format=qcow2
	done
	oracle_read qcow2 "layer.$depth" && oracle_write qcow2 "layer.$depth" "$SEED" 60
}

mixed_chain()
{
	rm -f image base.vmdk middle
	qimg convert -f raw -O vmdk contents base.vmdk &&
		qimg create -f qcow2 -b base.vmdk -F vmdk middle &&
		qimg create -f qcow2 -o cluster_size=4k -b middle -F qcow2 image &&
		oracle_write qcow2 middle "$SEED" 20 &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 60
}

next_seed
check "a chain of 9" chain 9
[ ! -e "$BUILD/plugins/vmdk/vmdk.la" ] || check "over a vmdk image" mixed_chain

# --- Odd shapes -----------------------------------------------------------------

# far_end SIZE [RAW]: the image is written and read at its start, its end and between,
# and qemu reads what was written to the last bytes. It begins with what RAW has.
far_end()
{
	local window=4194304
	rm -f mirror last.raw
	if [ $# = 2 ]; then cp "$2" mirror; fi
	truncate -s $((8 * window)) mirror
	"$IMAGE_IO" load qcow2 image mirror "$SEED" 60 && check_image qcow2 image &&
		qimg dd -f qcow2 -O raw bs=4M count=$(($1 / window)) skip=$(($1 / window - 1)) if=image of=last.raw &&
		cmp <(tail -c +$((window + 1)) mirror | head -c $window) last.raw &&
		[ "$(tr -d '\0' <last.raw | head -c 1 | wc -c)" = 1 ]
	set -- $?
	rm -f mirror last.raw image
	return "$1"
}

# sized SIZE OPTIONS: blank, too large to be compared as a whole
sized()
{
	rm -f image
	qimg create -f qcow2 ${2:+-o "$2"} image "$1" &&
		limited "$IMAGE_IO" open -w qcow2 image && check_image qcow2 image && far_end "$1"
}

# The same over a shorter base.
sized_over()
{
	rm -f image
	qimg create -f qcow2 -o "$2" -b contents -F raw image "$1" &&
		"$COWIMG" info -f qcow2 image >info.log &&
		limited "$IMAGE_IO" open -w qcow2 image && check_image qcow2 image && far_end "$1" contents
}

# Ours, as qemu reads it.
ours()
{
	rm -f image
	"$COWIMG" create -f qcow2 ${2:+-o "$2"} image "$1" && check_image qcow2 image &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 60
}

next_seed
check "63 TiB" sized $((63 << 40)) ''
check "63 TiB over a short base" sized_over $((63 << 40)) cluster_size=64k
check "128 GiB of 512 bytes" sized $((128 << 30)) cluster_size=512
check "1 EiB of 2 MiB" sized $((1 << 60)) cluster_size=2M
for size in 512 4608 1m 3100672; do
	for options in '' cluster_size=512 cluster_size=2m compat=0.10 extended_l2=on \
		refcount_bits=1 refcount_bits=64,compression_type=zstd lazy_refcounts=on; do
		next_seed
		check "made by us: $size, ${options:-no options}" ours $size "$options"
	done
done

# The file ends within the last cluster, which is data: the rest is zero.
ragged()
{
	rm -f image
	qimg convert -f raw -O qcow2 contents image &&
		truncate -s -1000 image &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 30
}

next_seed
check "the file ends within a cluster" ragged

blank()
{
	qimg create -f qcow2 image 0 && oracle_read qcow2 image && "$IMAGE_IO" open -w qcow2 image && check_image qcow2 image
}
rm -f image
check "a disk of 0 bytes" blank

# --- Check and repair --------------------------------------------------------------

# repaired COMMAND...: what the command breaks is found, repaired, and then clean.
repaired()
{
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k contents image || return
	"$@" || return
	! "$COWIMG" check -f qcow2 image >check1.log 2>&1 || { echo "nothing was found"; return 1; }
	"$COWIMG" check -f qcow2 --repair image >check2.log 2>&1 || :
	"$COWIMG" check -f qcow2 image || { cat check2.log; return 1; }
	qimg check -f qcow2 image && oracle_read qcow2 image &&
		qemu-img convert -f qcow2 -O raw image now.raw && same_contents now.raw contents &&
		oracle_write qcow2 image "$SEED" 40
}

be64() { echo $((0x$(od -An -tx1 -j "$2" -N 8 "$1" | tr -d ' \n'))); }
reftable() { be64 image 48; }
refblock() { be64 image "$(reftable)"; }
l1() { be64 image 40; }

lose_count() { poke image $(($(refblock) + 2 * 40)) '\0\0'; }
# One more cluster, which nothing refers to.
leak_count()
{
	local n=$((($(stat -c %s image) + 4095) / 4096))
	truncate -s $(((n + 1) * 4096)) image && poke image $(($(refblock) + 2 * n)) '\0\1'
}
high_count() { poke image $(($(refblock) + 2 * 30)) '\0\7'; }
lose_header() { poke image "$(refblock)" '\0\0'; }
lose_block() { poke image "$(reftable)" '\0\0\0\0\0\0\0\0'; }
bad_block() { poke image "$(reftable)" '\0\0\0\0\0\0\3\1'; }
lose_bit() { poke image "$(l1)" '\0'; }

next_seed
check "repairs a count that is too low" repaired lose_count
check "repairs a leak" repaired leak_count
check "repairs a count that is too high" repaired high_count
check "repairs the header's count" repaired lose_header
check "repairs a missing refcount block" repaired lose_block
check "repairs a refcount table entry that points nowhere" repaired bad_block
check "repairs bit 63" repaired lose_bit

# Nobody shares the L2 table though bit 63 does not say so: it is copied, and
# its clusters are written where they are.
unmarked_l2()
{
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k contents image && lose_bit &&
		oracle_write qcow2 image "$SEED" 40
}
check "an L2 table that is not marked as ours is copied" unmarked_l2

# Block 0 stands 40 GiB into the file, 10 Mi clusters, where nothing is counted.
far_count()
{
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k contents image && truncate -s 41g image &&
		poke image $(($(be64 image "$(l1)") & 0xfffffffffffe00)) '\200\0\0\012\0\0\0\0' &&
		expect_refused qcow2 image "offset 42949672960 has a refcount of 0 and 1 references" -w
}
check "a count too low is found behind 8 Mi clusters" far_count
rm -f image

# As qemu leaves an image with lazy refcounts behind when it is killed.
dirty()
{
	rm -f image
	qimg convert -f raw -O qcow2 -o cluster_size=4k,lazy_refcounts=on contents image &&
		poke image 79 '\1' && lose_count && leak_count &&
		oracle_read qcow2 image && oracle_write qcow2 image "$SEED" 40 &&
		[ "$(be64 image 72)" = 0 ]
}

bitmaps()
{
	rm -f image
	qimg convert -f raw -O qcow2 contents image && qimg bitmap --add image one &&
		"$COWIMG" check -f qcow2 image && [ "$(be64 image 88)" = 1 ] &&
		"$IMAGE_IO" open -w qcow2 image && [ "$(be64 image 88)" = 0 ]
}

# Bit 3 is nobody's; bitmaps are counted by a repair, and stay.
unknown_bit()
{
	rm -f image
	qimg convert -f raw -O qcow2 contents image && qimg bitmap --add image one &&
		poke image 95 '\011' && lose_bit && "$COWIMG" check -f qcow2 -r image &&
		[ "$(be64 image 88)" = 1 ] && check_image qcow2 image
}

check "a dirty image is repaired when it is opened" dirty
check "a repair clears autoclear bits that it does not know" unknown_bit
check "bitmaps are no more believed after a write" bitmaps

# A long name of the backing file, and no format of it.
no_format()
{
	rm -f image
	qimg create -f qcow2 image 1m && qimg rebase -u -f qcow2 -b contents -F raw image &&
		poke image 112 '\0\0\0\1' && expect_refused qcow2 image "which format"
}

check "the format of a backing file is not guessed" no_format
finish
