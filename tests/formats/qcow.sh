#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# qcow, version 1, against qemu-img, in both directions, and against libqcow.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need qemu-io
/usr/bin/python3 -c 'import pyqcow' || { echo "qcow.sh: SKIP: python3-libqcow is not installed"; exit 77; }
COWIMG=$(built tools/cowimg)

# No damage; clusters that nothing refers to may be there.
sound() { "$COWIMG" check -f qcow "$1"; set -- $?; [ "$1" = 0 ] || [ "$1" = 3 ]; }
# qemu-img 7.2 ends with status 1 when it was to compress, though all is there.
convert()
{
	local raw=$1
	shift
	rm -f image
	qemu-img convert -f raw -O qcow "$@" "$raw" image || [ "${1:-}" = -c ] || return 1
	qemu-img compare -f raw -F qcow "$raw" image
}
second_reads() { /usr/bin/python3 "$FORMATS_SRC/second.py" qcow second.raw "$1" && same_contents second.raw "$2"; }
be64() { echo $((0x$(od -An -tx1 -j "$2" -N 8 "$1" | tr -d ' \n'))); }

# --- Theirs, read and written by us ----------------------------------------------

# $1: size; the rest: of qemu-img convert
theirs()
{
	local size=$1
	shift
	make_random raw "$size" "$SEED" && convert raw "$@" && "$COWIMG" check -f qcow image && oracle_read qcow image && second_reads image raw &&
		oracle_write qcow image "$SEED" 100 && sound image && oracle_stop qcow image "$SEED" 60 && sound image
}
for size in 512 9999k 40m; do
	next_seed
	check "qemu's of $size" theirs "$size"
	next_seed
	check "qemu's of $size, compressed" theirs "$size" -c
done

# Over a base of some other length; what it is, is told or not. $1: its format
over()
{
	local size=$2
	shift 2
	rm -f image && qimg create -f qcow -b "base.$format" -F "$format" image "$size" &&
		oracle_read qcow image '' "$@" && oracle_write qcow image "$SEED" 60 '' "$@" &&
		oracle_stop qcow image "$SEED" 60 '' "$@" && sound image
}
make_random base.raw 3100672 "$SEED"
for f in qcow qcow2 vmdk; do
	qimg convert -f raw -O "$f" base.raw "base.$f"
done
for size in 1M 3100672 5000192; do
	for format in raw qcow qcow2 vmdk; do
		next_seed
		check "qemu's of $size over $format" over "$format" "$size" -o "backing_format=$format"
	done
	next_seed
	format=raw
	check "qemu's of $size over raw, which nobody told" over raw "$size"
done
qimg create -f qcow -b base.qcow2 -F qcow2 image
truncate -s %512 image
check "what looks like an image is not taken for one" expect_refused qcow image \
	"base.qcow2 has, which looks like one of the format qcow2; tell it by the option backing_format"
check "nor for a raw disk" expect_refused qcow image "looks like one of the format qcow2" -w
check "a format of no backing file" expect_refused qcow base.qcow "has no backing file" -o backing_format=raw

# --- Ours, read and written by them ------------------------------------------------

# $1: size, $2: cluster, $3: options
ours()
{
	"$COWIMG" create --force -f qcow -s "$2" ${3:+-o "$3"} image "$1" && "$COWIMG" check -f qcow image &&
		oracle_write qcow image "$SEED" 100 && sound image && oracle_stop qcow image "$SEED" 60 && sound image
}
while read -r size cluster options; do
	next_seed
	check "ours of $size, clusters of $cluster $options" ours "$size" "$cluster" "$options"
done <<-'END'
	512 512
	1000k 512 l2_bits=6
	5m 512
	5m 1k
	5m 2k l2_bits=13
	9999k 4k
	9999k 4k l2_bits=6
	9m 16k l2_bits=13
	40m 64k
	40m 64k l2_bits=6
	3g 64k
END
# libqcow 20201213 knows no clusters of 64k, no L2 tables of another size than a
# cluster's, and no L1 entry of 0.
second()
{
	rm -f image && "$COWIMG" convert -f raw -O qcow -o "cluster_size=$1,l2_bits=$2" full.raw image && "$COWIMG" check -f qcow image &&
		oracle_read qcow image && second_reads image full.raw
}
dd if=/dev/urandom of=full.raw bs=1000k count=5 status=none
for bits in 9 12 15; do
	check "libqcow reads clusters of 2^$bits" second $((1 << bits)) $((bits - 3))
done
ours_over()
{
	local base
	"$COWIMG" create --force -f qcow -s "$1" -b base.qcow2 -F qcow2 mid.qcow 3m &&
		"$COWIMG" create --force -f qcow -s "$2" -b mid.qcow -F qcow image 4m &&
		oracle_read qcow image && oracle_write qcow image "$SEED" 60 && oracle_stop qcow image "$SEED" 60 &&
		sound image
}
for sizes in "512 512" "4k 64k" "64k 512"; do
	next_seed
	# shellcheck disable=SC2086 # two words
	check "ours over ours over qcow2, whose formats it says: $sizes" ours_over $sizes
done

# qemu writes on, and so do we.
in_turns()
{
	"$COWIMG" create --force -f qcow -s "$1" image 20m && oracle_write qcow image "$SEED" 60 &&
		qemu-io -f qcow -c "write -P 7 0 1m" -c "write -P 9 12345k 300k" -c "write -c -P 5 16m $1" image &&
		oracle_read qcow image && oracle_write qcow image "$SEED" 60 && sound image
}
for cluster in 512 4k 64k; do
	next_seed
	check "written in turns with qemu, clusters of $cluster" in_turns "$cluster"
done

# wrong WHAT TEXT OPTION...: cannot be created, and nothing is left.
wrong()
{
	local text=$1
	shift
	rm -f new && touch new && refused new "$text" "$COWIMG" create --force -f qcow "$@" && rm new
}
check "clusters of 128k" wrong "power of two of 512 to 64k" -s 128k new 1m
check "clusters of 1000" wrong "power of two of 512 to 64k" -o cluster_size=1000 new 1m
check "L2 tables of 2^5" wrong "l2_bits=5: must be 6 to 13" -o l2_bits=5 new 1m
check "a disk of 2^63" wrong "cannot be had" new 9223372036854775807
check "too many tables" wrong "cannot be had with clusters of 512 bytes" -s 512 -o l2_bits=6 new 16t
echo base >'a:b'
check "a name that would be a protocol" wrong "put ./ before it" -b a:b -F raw new 1m

# --- Shapes --------------------------------------------------------------------------

huge()
{
	rm -f h.qcow mirror && "$COWIMG" create -f qcow h.qcow "$1" && truncate -s "$1" mirror &&
		"$IMAGE_IO" load qcow h.qcow mirror "$SEED" 40 && sound h.qcow &&
		qemu-io -f qcow -r -c "read 0 64k" h.qcow
}
next_seed
size=63T
truncate -s $size probe 2>/dev/null || size=7T
check "$size" huge $size
rm -f probe mirror h.qcow
qemu_huge()
{
	rm -f h.qcow mirror && qimg create -f qcow h.qcow 2T && truncate -s 2T mirror &&
		"$IMAGE_IO" load qcow h.qcow mirror "$SEED" 20 && sound h.qcow &&
		[ "$(stat -c %b h.qcow)" -lt 65536 ]
}
check "2 TiB in qemu's clusters of 4k" qemu_huge
rm -f mirror h.qcow
# The last cluster ends with the file, as older programs leave it.
short_file()
{
	make_random raw 200192 "$SEED" && dd if=/dev/urandom of=raw bs=512 seek=384 count=7 conv=notrunc status=none &&
		rm -f image && qimg convert -f raw -O qcow raw image &&
		truncate -s $(($(stat -c %s image) - 600)) image && oracle_read qcow image &&
		oracle_write qcow image "$SEED" 60
}
check "the file ends in the last cluster" short_file
# qemu's L1 table lies beside the header, and data right behind it.
check "tables in one cluster with the header" eval \
	'rm -f image; qimg create -f qcow image 40m && [ "$(be64 image 40)" = 48 ] && oracle_write qcow image "$SEED" 60'

# --- Bugs that others had ------------------------------------------------------------

# The rest of it stays, and so do its neighbours in the same cluster of the file.
partly()
{
	rm -f image raw && yes 'a cluster that can be compressed' | head -c 1m >raw && convert raw -c && [ "$(stat -c %s image)" -lt 200000 ] &&
		cp raw mirror || return 1
	"$IMAGE_IO" load qcow image mirror "$SEED" 3 && oracle_raw qcow image out.raw &&
		same_contents out.raw mirror && ! cmp -s mirror raw && sound image
}
next_seed
check "a compressed cluster that is written in part" partly

churn()
{
	local i
	"$COWIMG" create --force -f qcow -s 4k image 8m && rm -f mirror && truncate -s 8m mirror || return 1
	for i in $(seq 12); do
		"$IMAGE_IO" load qcow image mirror "$((SEED + i))" 60 || return 1
	done
	# Each cluster twice, the tables, and what a file grows by.
	[ "$(stat -c %s image)" -le $((2 * 8388608 + 131072 + 4194304)) ] ||
		{ echo "has grown to $(stat -c %s image)"; return 1; }
	oracle_raw qcow image out.raw && same_contents out.raw mirror
}
next_seed
check "space does not grow without bound under discards and flushes" churn

# What a discard gave up is found, told from damage, and given back.
lost()
{
	local used
	"$COWIMG" create --force -f qcow -s 4k image 8m && rm -f mirror && truncate -s 8m mirror &&
		qemu-io -f qcow -c "write -P 7 0 4m" image && "$COWIMG" check -f qcow image || return 1
	# A crash of qemu's: the entry of a table was not written.
	dd if=/dev/zero of=image bs=8 seek=$(($(be64 image "$(be64 image 40)") / 8 + 100)) count=200 conv=notrunc status=none
	"$COWIMG" check -f qcow image >said 2>&1
	[ $? = 3 ] && cat said && grep -q '819200 bytes, from offset .* that nothing refers to' said || return 1
	oracle_raw qcow image mirror && sync image && used=$(stat -c %b image) && "$COWIMG" check -r -f qcow image &&
		"$COWIMG" check -f qcow image && sync image && [ "$(stat -c %b image)" -lt "$used" ] &&
		oracle_raw qcow image out.raw && same_contents out.raw mirror &&
		oracle_write qcow image "$SEED" 60
}
check "lost clusters are found, and given back" lost

finish
