#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# vmdk against qemu-img, in both directions, and against libvmdk.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need qemu-io
need python3
need jq
/usr/bin/python3 -c 'import pyvmdk' || { echo "vmdk.sh: SKIP: python3-libvmdk is not installed"; exit 77; }
COWIMG=$(built tools/cowimg)
MAKE="python3 $FORMATS_SRC/vmdk-make.py"
ALL="monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized"
WRITABLE="monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat"

cid_of() { grep -aim1 '^CID=' "$1" | tr -d '\0\r' | cut -d= -f2; }
# A raw file of zeroes.
blank() { rm -f "$1" && truncate -s "$2" "$1"; }
unclean() { [ "$(dd if="$1" bs=1 skip=72 count=1 status=none | od -An -tu1 | tr -d ' ')" = "$2" ] ||
	{ echo "$1: unclean_shutdown is not $2"; return 1; }; }

# second_reads IMAGE [PARENT...]: libvmdk reads what we read.  It refuses grains of 4 KiB,
# and over a parent it takes a zeroed grain for one that is not there.
second_reads()
{
	"$IMAGE_IO" read vmdk "$1" ours.raw &&
		/usr/bin/python3 "$FORMATS_SRC/second.py" vmdk second.raw "$@" &&
		same_contents ours.raw second.raw
	set -- $?
	rm -f ours.raw second.raw
	return "$1"
}

# The two directories lead to tables that are equal, entry by entry.
copies_equal()
{
	python3 - "$1" <<-'PY'
	import struct, sys
	f = open(sys.argv[1], "rb")
	h = struct.unpack("<4sIIQQQQIQQQB", f.read(73))
	n = -(-h[3] // (h[4] * 512))
	def at(sector, count):
	    f.seek(sector * 512)
	    return struct.unpack("<%dI" % count, f.read(4 * count))
	for i, (a, b) in enumerate(zip(at(h[9], n), at(h[8], n))):
	    if (a == 0) != (b == 0) or (a and at(a, 512) != at(b, 512)):
	        sys.exit("grain table %d differs from its copy" % i)
	PY
}

# --- Theirs, read by us --------------------------------------------------------

theirs()
{
	make_random raw "$2" "$3" && rm -f x*.vmdk &&
		qemu-img convert -O vmdk -o subformat="$1${4:+,$4}" raw x.vmdk &&
		oracle_read vmdk x.vmdk && second_reads x.vmdk && "$COWIMG" check -f vmdk x.vmdk
}

# Extents of 2 GiB: two of them are a split disk.
sizes_of()
{
	case $1 in
	twoGb*) echo 512 9999k 2100m ;;
	*) echo 512 9999k ;;
	esac
}

for sub in $ALL; do
	for size in $(sizes_of "$sub"); do
		next_seed
		check "read $sub of $size" theirs "$sub" "$size" "$SEED"
	done
done
for o in adapter_type=ide adapter_type=lsilogic adapter_type=buslogic adapter_type=legacyESX \
	hwversion=6 compat6=on zeroed_grain=on toolsversion=1; do
	next_seed
	check "read with $o" theirs monolithicSparse 20m "$SEED" "$o"
done

vmfs()
{
	make_random x-flat.vmdk 3m "$SEED" && cat >vmfs.vmdk <<-'END'
	# Disk DescriptorFile
	version=1
	encoding="UTF-8"
	CID=2f6e50d1
	parentCID=ffffffff
	isNativeSnapshot="no"
	createType="vmfs"

	# Extent description
	RW 6144 VMFS "x-flat.vmdk"

	ddb.adapterType = "lsilogic"
	ddb.thinProvisioned = "1"
	END
	oracle_read vmdk vmfs.vmdk && oracle_write vmdk vmfs.vmdk "$SEED" 100
}
check "read and write a flat extent of VMFS" vmfs

stream()
{
	make_random raw "$1" "$2" && $MAKE stream raw s.vmdk && oracle_read vmdk s.vmdk &&
		second_reads s.vmdk && "$COWIMG" check -f vmdk s.vmdk &&
		expect_refused vmdk s.vmdk "streamOptimized.*overlay" -w
}
for size in 512 70000k; do
	next_seed
	check "read a stream of $size with its directory at the end" stream "$size" "$SEED"
done

# --- Written by us, read by them -----------------------------------------------

written()
{
	make_random raw "$2" "$3" && rm -f x*.vmdk &&
		qemu-img convert -O vmdk -o subformat="$1${4:+,$4}" raw x.vmdk &&
		oracle_write vmdk x.vmdk "$3" 150 && oracle_stop vmdk x.vmdk "$3" 80 &&
		second_reads x.vmdk && "$COWIMG" check -f vmdk x.vmdk
}
for sub in $WRITABLE; do
	for size in $(sizes_of "$sub"); do
		next_seed
		check "write $sub of $size" written "$sub" "$size" "$SEED"
	done
done
next_seed
check "write with zeroed grains" written monolithicSparse 30m "$SEED" zeroed_grain=on

# Made by us.  $1: size, $2: grain, $3: options
created()
{
	"$COWIMG" create --force -f vmdk -s "$2" ${3:+-o "$3"} n.vmdk "$1" && qemu-img check -f vmdk n.vmdk &&
		oracle_write vmdk n.vmdk "$SEED" 150 && copies_equal n.vmdk && unclean n.vmdk 0 &&
		oracle_stop vmdk n.vmdk "$SEED" 80 && copies_equal n.vmdk &&
		{ [ "$2" = 4k ] || second_reads n.vmdk; } && "$COWIMG" check -f vmdk n.vmdk
}
while read -r size grain; do
	next_seed
	check "create and write $size, grains of $grain" created "$size" "$grain"
done <<-'END'
	512 4k
	1000k 4k
	1000k 64k
	3g 64k
	512 1m
	20m 1m
END
next_seed
check "create with options" created 9m 64k adapter-type=lsilogic,hwversion=7,zeroed-grain=on
check "what was made has what was asked for" eval \
	'"$COWIMG" info -f vmdk n.vmdk | tee info && grep -q lsilogic info && grep -q "version 2" info &&
	grep -aq "virtualHWVersion = \"7\"" n.vmdk'
check "other subformats are not created" refused n.vmdk "subformat=monolithicFlat" \
	"$COWIMG" create --force -f vmdk -o subformat=monolithicFlat n.vmdk 1m

# qemu writes on, and so do we.
in_turns()
{
	"$COWIMG" create --force -f vmdk n.vmdk 20m && oracle_write vmdk n.vmdk "$SEED" 60 &&
		qemu-io -f vmdk -c "write -P 7 0 1m" -c "write -P 9 12345k 300k" n.vmdk &&
		oracle_read vmdk n.vmdk && oracle_write vmdk n.vmdk "$SEED" 60 && copies_equal n.vmdk
}
next_seed
check "written in turns with qemu" in_turns

untabled()
{
	$MAKE untabled u.vmdk $((1 << 30)) && oracle_read vmdk u.vmdk &&
		oracle_write vmdk u.vmdk "$SEED" 150 && copies_equal u.vmdk &&
		oracle_stop vmdk u.vmdk "$SEED" 60 && copies_equal u.vmdk && second_reads u.vmdk &&
		"$COWIMG" check -f vmdk u.vmdk
}
next_seed
check "grain tables are added as needed" untabled


# --- Parents -------------------------------------------------------------------

# Parent of $1, overlay of $2, by qemu; we read, write, compare.
parents()
{
	make_random raw "$1" "$3" && qemu-img convert -O vmdk raw base.vmdk &&
		qemu-img create -q -f vmdk -o zeroed_grain="$4" -b base.vmdk -F vmdk top.vmdk "$2" &&
		cp base.vmdk kept && oracle_read vmdk top.vmdk && oracle_write vmdk top.vmdk "$3" 150 &&
		oracle_stop vmdk top.vmdk "$3" 60 && cmp base.vmdk kept || return 1
	[ "$4" = on ] || second_reads top.vmdk base.vmdk
}
for zeroed in on off; do
	next_seed
	check "over a parent, zeroed_grain=$zeroed" parents 9m 9m "$SEED" "$zeroed"
done
# qemu-img wants the same size; others do not.
odd_parent()
{
	make_random raw 9m "$SEED" && qemu-img convert -O vmdk raw base.vmdk &&
		"$COWIMG" create --force -f vmdk -b base.vmdk -F vmdk top.vmdk "$1" &&
		cp raw mirror && truncate -s "$1" mirror && "$IMAGE_IO" read vmdk top.vmdk out &&
		same_contents out mirror && "$IMAGE_IO" load vmdk top.vmdk mirror "$SEED" 150 &&
		"$IMAGE_IO" read vmdk top.vmdk out && same_contents out mirror
}
check "over a longer parent" odd_parent 5m
check "over a shorter parent" odd_parent 14m
ours_over()
{
	make_random raw 9m "$SEED" && qemu-img convert -O vmdk -o subformat="$1" raw base.vmdk &&
		"$COWIMG" create --force -f vmdk -b base.vmdk -F vmdk mid.vmdk &&
		"$COWIMG" create --force -f vmdk -b mid.vmdk -F vmdk top.vmdk &&
		oracle_read vmdk top.vmdk && oracle_write vmdk top.vmdk "$SEED" 100 || return 1
	"$COWIMG" create --force -f vmdk -o zeroed-grain=off -b mid.vmdk -F vmdk top.vmdk &&
		oracle_write vmdk top.vmdk "$SEED" 100 && second_reads top.vmdk mid.vmdk base.vmdk
}
for sub in $ALL; do
	next_seed
	check "create an overlay of an overlay of $sub" ours_over "$sub"
done
check "a parent of another format is refused" refused raw "must be a VMDK" \
	"$COWIMG" create --force -f vmdk -b raw -F raw raw.vmdk

# --- Content ID ----------------------------------------------------------------

cid_changes()
{
	local before after
	"$COWIMG" create --force -f vmdk base.vmdk 5m &&
		"$COWIMG" create --force -f vmdk -b base.vmdk -F vmdk top.vmdk || return 1
	before=$(cid_of base.vmdk)
	"$IMAGE_IO" open -w vmdk base.vmdk && "$IMAGE_IO" read -w vmdk base.vmdk out &&
		[ "$(cid_of base.vmdk)" = "$before" ] || { echo "changed by reading"; return 1; }
	"$IMAGE_IO" open vmdk top.vmdk || return 1
	cp out mirror
	"$IMAGE_IO" load --no-commit vmdk base.vmdk mirror 5 20 || return 1
	after=$(cid_of base.vmdk)
	[ "$after" != "$before" ] || { echo "not changed by a write that was not flushed"; return 1; }
	unclean base.vmdk 1 && expect_refused vmdk top.vmdk "content ID is $after instead of $before"
}
check "the content ID changes before the first write, not before" cid_changes
long_id()
{
	local cid
	$MAKE untabled u.vmdk 1048576 && blank mirror 1m &&
		"$IMAGE_IO" load vmdk u.vmdk mirror 5 20 && cid=$(cid_of u.vmdk) && [ "$cid" != 7654321a ] &&
		grep -aq "longContentID = \"00112233445566778899aabb$cid\"" u.vmdk
}
check "ddb.longContentID changes with it" long_id
flat_cid()
{
	qemu-img create -q -f vmdk -o subformat=monolithicFlat f.vmdk 1m && cp f.vmdk kept && blank mirror 1m &&
		"$IMAGE_IO" load vmdk f.vmdk mirror 5 20 && ! cmp -s f.vmdk kept &&
		[ "$(cmp -l f.vmdk kept | awk '$1 < 37 || $1 > 44' | wc -l)" = 0 ] && [ "$(stat -c %s f.vmdk)" = "$(stat -c %s kept)" ]
}
check "of a descriptor file the eight digits change, and nothing else" flat_cid

# --- Shapes --------------------------------------------------------------------

huge()
{
	qemu-img create -q -f vmdk h.vmdk 63T && blank mirror 63T 2>/dev/null || return 1
	"$IMAGE_IO" load vmdk h.vmdk mirror "$SEED" 40 && check_image vmdk h.vmdk &&
		qemu-io -f vmdk -r -c "read 0 64k" h.vmdk && copies_equal h.vmdk
}
next_seed
if truncate -s 63T probe 2>/dev/null; then
	check "63 TiB" huge
	rm -f h.vmdk mirror
else
	check "7 TiB" eval 'qemu-img create -q -f vmdk h.vmdk 7T && blank mirror 7T &&
		"$IMAGE_IO" load vmdk h.vmdk mirror "$SEED" 40 && check_image vmdk h.vmdk && copies_equal h.vmdk'
	rm -f h.vmdk mirror
fi
rm -f probe
short_file()
{
	make_random raw 200000 "$SEED" && dd if=/dev/urandom of=raw bs=1 count=200 seek=199000 conv=notrunc status=none &&
		truncate -s 200192 raw && qemu-img convert -O vmdk raw x.vmdk &&
		truncate -s $(($(stat -c %s x.vmdk) - 20000)) x.vmdk && oracle_read vmdk x.vmdk &&
		oracle_write vmdk x.vmdk "$SEED" 100
}
check "the file ends in the last grain" short_file
mixed()
{
	make_random a-flat 1000k "$SEED" && qemu-img create -q -f vmdk b.vmdk 640k && cat >mix.vmdk <<-'END'
	# Disk DescriptorFile
	version=1
	CID=00000001
	parentCID=ffffffff
	createType="monolithicFlat"
	RW 1001 FLAT "a-flat" 7
	RW 1280 SPARSE "b.vmdk"
	RW 300 ZERO
	END
	"$IMAGE_IO" read vmdk mix.vmdk out && [ "$(stat -c %s out)" = $((2581 * 512)) ] &&
		cmp -n 512512 -i 3584:0 a-flat out && expect_refused vmdk mix.vmdk "cannot be written \(ZERO\)" -w
}
check "flat, sparse and zero extents that begin anywhere" mixed

# Each extent, as the text has it; a single one is no list.
extents_told()
{
	qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse x.vmdk 5g &&
		"$COWIMG" info --json -f vmdk x.vmdk >info && cat info &&
		[ "$(jq '.details.extents' info)" = 3 ] &&
		diff <(jq -r '.details.extent[]' info) \
			<("$COWIMG" info -f vmdk x.vmdk | sed -n 's/^Extent: *//p') &&
		[ "$(jq -r '.details.extent[2]' info | grep -c 'x-s003.vmdk')" = 1 ] &&
		qemu-img create -q -f vmdk x.vmdk 1m && "$COWIMG" info --json -f vmdk x.vmdk |
		jq -e '.details.extent | type == "string"'
}
check "all extents are told, to programs too" extents_told

# --- Bugs that others had ------------------------------------------------------

# A table that points to a grain before its data is durable, and a failed
# write that stays referred to: the crash test of the model finds both.
fsync_churn()
{
	local i
	"$COWIMG" create --force -f vmdk n.vmdk 8m && blank mirror 8m || return 1
	for i in $(seq 12); do
		"$IMAGE_IO" load vmdk n.vmdk mirror "$((SEED + i))" 60 || return 1
	done
	# Each block twice, the tables, and what a file grows by.
	[ "$(stat -c %s n.vmdk)" -le $((2 * 8388608 + 131072 + 4194304)) ] ||
		{ echo "has grown to $(stat -c %s n.vmdk)"; return 1; }
	oracle_raw vmdk n.vmdk out && same_contents out mirror
}
next_seed
check "space does not grow without bound under discards and flushes" fsync_churn
crash_copies()
{
	local place
	"$COWIMG" create --force -f vmdk n.vmdk 4m && blank mirror 4m &&
		"$IMAGE_IO" load vmdk n.vmdk mirror "$SEED" 40 || return 1
	# As a crash between the copies leaves it: the redundant one is older.
	place=$($MAKE get n.vmdk $((21 * 512)))
	dd if=/dev/zero of=n.vmdk bs=512 seek="$place" count=4 conv=notrunc status=none
	! copies_equal n.vmdk >/dev/null 2>&1 || return 1
	expect_refused vmdk n.vmdk "is damaged, and not opened for writing: .*redundant" -w || return 1
	poke n.vmdk 72 '\x01'
	"$IMAGE_IO" open -w vmdk n.vmdk && copies_equal n.vmdk && unclean n.vmdk 0 &&
		oracle_raw vmdk n.vmdk out && same_contents out mirror
}
next_seed
check "copies of tables that a crash left different are made equal" crash_copies
repair()
{
	local place
	"$COWIMG" create --force -f vmdk n.vmdk 4m && blank mirror 4m &&
		"$IMAGE_IO" load vmdk n.vmdk mirror "$SEED" 40 || return 1
	place=$($MAKE get n.vmdk $((26 * 512)))
	# The first copy points out of the file: the second one knows better.
	for i in 0 1 2; do $MAKE u32 n.vmdk $((place * 512 + 4 * i)) 0xfffffff0; done
	"$COWIMG" check -f vmdk n.vmdk && return 1
	expect_refused vmdk n.vmdk "damaged" -w &&
		"$COWIMG" check -r -f vmdk n.vmdk && "$COWIMG" check -f vmdk n.vmdk && copies_equal n.vmdk &&
		oracle_raw vmdk n.vmdk out && same_contents out mirror
}
next_seed
check "a damaged table is repaired from its copy" repair

# No place beyond 2 TiB can be said in a grain table.
larger_than_can_be_said()
{
	rm -f image
	"$COWIMG" create -f vmdk image 10m && truncate -s 3T image &&
		oracle_write vmdk image "$SEED" 100
}

check "a file of 3 TiB" larger_than_can_be_said
finish
