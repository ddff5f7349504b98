#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# VHD, both ways: against qemu-img, for differencing disks (which it does not
# know) against vhd.py and libvhdi.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need python3
/usr/bin/python3 -c 'import pyvhdi' || { echo "vhd.sh: SKIP: python3-libvhdi is not installed"; exit 77; }
COWIMG=$(built tools/cowimg)
vhd() { python3 "$FORMATS_SRC/vhd.py" "$@"; }

# What qemu makes of each image is the size that its footer tells.
BY_FOOTER=vpc,force_size_calc=current_size

# No damage; a repair gives back what space was lost.
sound() { "$COWIMG" check -f vhd "$1"; set -- $?; [ "$1" = 0 ] || [ "$1" = 3 ]; }

read_as() { "$IMAGE_IO" read vhd "$1" ours.raw && same_contents ours.raw "$2"; }

# second_reads RAW IMAGE [PARENT...]: a second opinion, libvhdi's.
second_reads()
{
	local raw=$1
	shift
	/usr/bin/python3 "$FORMATS_SRC/second.py" vhd second.raw "$@" &&
		same_contents second.raw "$raw"
}

# --- Images that qemu made ----------------------------------------------------
for sub in dynamic fixed; do
	for size in 512 1000k 9m; do
		for force in on off; do
			next_seed
			make_random src.raw "$size" "$SEED"
			qemu-img convert -O vpc -o "subformat=$sub,force_size=$force" src.raw q.vhd
			check "reads qemu's $sub of $size, force_size=$force" oracle_read vhd q.vhd
			check "writes it" oracle_write vhd q.vhd "$SEED" 40
		done
	done
done
qemu-img create -q -f vpc -o subformat=dynamic,force_size=on q.vhd 9m
next_seed
check "stops while writing qemu's" oracle_stop vhd q.vhd "$SEED" 80
qemu-img create -q -f vpc -o subformat=dynamic q.vhd 2040g
next_seed
check "writes 2040 GiB" oracle_write vhd q.vhd "$SEED" 40

# --- The size rule ------------------------------------------------------------
size_of() { "$COWIMG" info -f vhd --json "$@" | sed -n 's/.*"virtual-size": *\([0-9]*\).*/\1/p'; }
has_size() { local want=$1 is; shift; is=$(size_of "$@"); [ "$is" = "$want" ] || { echo "$is, not $want"; return 1; }; }
QEMU_TAKES=''
# shellcheck disable=SC2086 # an option or none
rule()
{
	local creator=$1 want=$2
	vhd set q.vhd "footer.creator=x$(printf "$creator" | od -An -tx1 | tr -d ' \n')" &&
		has_size "$want" q.vhd && oracle_read vhd q.vhd $QEMU_TAKES
}

make_random src.raw 10m "$SEED"
qemu-img convert -O vpc -o subformat=dynamic,force_size=on src.raw q.vhd
vhd set q.vhd footer.cylinders=100 footer.heads=4 footer.sectors=17
for creator in 'vpc ' 'qemu'; do
	check "creator $creator means the geometry" rule "$creator" 3481600
done
for creator in 'win ' 'qem2' 'd2v ' 'CTXS' 'tap\0'; do
	check "creator $creator means the footer's size" rule "$creator" 10485760
done
# qemu before 10.0 has to be told.
newer_rule() { QEMU_TAKES=$BY_FOOTER rule "$@"; }
for creator in 'vbox' 'wa\0\0' 'vs  ' 'abcd'; do
	check "creator $creator means the footer's size" newer_rule "$creator" 10485760
done
check "size=chs says otherwise" has_size 3481600 -o size=chs q.vhd
check "qemu agrees" oracle_read vhd q.vhd vpc,force_size_calc=chs -o size=chs
vhd set q.vhd footer.creator=x76706320 footer.cylinders=65535 footer.heads=16 footer.sectors=255
check "the largest geometry is no size" has_size 10485760 q.vhd

# --- Images that we make ------------------------------------------------------
for size in 512 1000k 9m; do
	for block in 64k 2m 16m; do
		rm -f o.vhd
		next_seed
		check "creates $size, blocks of $block" "$COWIMG" create -f vhd -s "$block" o.vhd "$size"
		check "qemu reads and we write it" oracle_write vhd o.vhd "$SEED" 40
		check "by either rule" oracle_read vhd o.vhd $BY_FOOTER
		next_seed
		check "stops while writing" oracle_stop vhd o.vhd "$SEED" 40
		check "the check finds no damage" sound o.vhd
		check "is repaired" "$COWIMG" check -f vhd -r o.vhd
		check "qemu reads it after the repair" oracle_read vhd o.vhd
		"$IMAGE_IO" read vhd o.vhd our.raw
		check "and so does libvhdi" second_reads our.raw o.vhd
	done
done
rm -f o.vhd
check "creates 2040 GiB" "$COWIMG" create -f vhd o.vhd 2040g
check "qemu reads and we write it" oracle_write vhd o.vhd "$SEED" 40
rm -f o.vhd
check "creates a fixed one" "$COWIMG" create -f vhd -o subformat=fixed o.vhd 5m
check "qemu reads and we write it" oracle_write vhd o.vhd "$SEED" 40
rm -f o.vhd
touch o.vhd
check "refuses more than 2040 GiB" refused o.vhd "2040 GiB are the most" \
	"$COWIMG" create --force -f vhd o.vhd 2041g
rm -f o.vhd

# --- Differencing disks -------------------------------------------------------
# mirror.raw is what the disk must read as.
write_child()
{
	"$IMAGE_IO" load vhd "$1" mirror.raw "$2" 30 && vhd read "$1" spec.raw &&
		same_contents spec.raw mirror.raw && read_as "$1" mirror.raw
}

stop_child()
{
	cp mirror.raw m.raw && "$IMAGE_IO" load --no-commit vhd "$1" m.raw "$2" 30 &&
		vhd read "$1" spec.raw && "$IMAGE_IO" between spec.raw m.raw m.raw.now &&
		read_as "$1" spec.raw && cp spec.raw mirror.raw
}

for parent in raw dynamic fixed; do
	for block in 4k 2m; do
		rm -f p.* c.vhd cc.vhd
		next_seed
		make_random p.raw 4100k "$SEED"
		format=vhd name=p.vhd
		case $parent in
		raw) format=raw name=p.raw ;;
		*) qemu-img convert -O vpc -o "subformat=$parent,force_size=on" p.raw p.vhd ;;
		esac
		cp "$name" kept
		cp p.raw mirror.raw
		check "child of $parent, blocks of $block" \
			"$COWIMG" create -f vhd -s "$block" -b "$name" -F "$format" c.vhd
		check "written, by the specification" write_child c.vhd "$SEED"
		check "stopped while it is written" stop_child c.vhd "$((SEED + 1))"
		check "the check finds no damage" sound c.vhd
		check "is repaired" "$COWIMG" check -f vhd -r c.vhd
		check "the parent is as it was" cmp "$name" kept
		touch -d @1700000000 c.vhd
		check "grandchild" "$COWIMG" create -f vhd -b c.vhd -F vhd cc.vhd
		next_seed
		check "written" write_child cc.vhd "$SEED"
	done
done

# One sector in eight is the child's, so that each page of it is of both.
in_part()
{
	local i at
	rm -f part.vhd
	"$COWIMG" create -f vhd -s 2m -b p.vhd -F vhd part.vhd &&
		cp c.raw part.raw && truncate -s 2m part.raw || return 1
	cp p.raw mirror.raw
	at=$(($(stat -c %s part.vhd) + 4096 * 2))
	at=$((at / 4096 * 4096))
	truncate -s $((at + 2097152)) part.vhd
	head -c 512 part.vhd >footer && cat footer >>part.vhd
	dd if=part.raw of=part.vhd bs=4096 seek=$((at / 4096)) conv=notrunc status=none
	printf '\020%.0s' $(seq 512) |
		dd of=part.vhd bs=512 seek=$((at / 512 - 1)) conv=notrunc status=none
	vhd set part.vhd "bat[0]=$((at / 512 - 1))"
	for ((i = 3; i < 4096; i += 8)); do
		dd if=part.raw of=mirror.raw bs=512 skip=$i seek=$i count=1 conv=notrunc status=none
	done
	vhd read part.vhd spec.raw && same_contents spec.raw mirror.raw
}

touch p.vhd
qemu-img convert -O vpc -o subformat=dynamic,force_size=on p.raw p.vhd
next_seed
make_random c.raw 2m "$SEED"
check "makes a block that is there in part" in_part
check "reads it by sectors" read_as part.vhd mirror.raw
check "writes it by sectors" write_child part.vhd "$SEED"

# libvhdi 20210425 takes what follows a sector that is there, up to the next
# multiple of eight, for there too: so whole bytes of the bitmap for it.
by_bytes()
{
	in_part && printf '\377\000%.0s' $(seq 256) |
		dd of=part.vhd bs=512 seek="$(vhd get part.vhd 'bat[0]')" conv=notrunc status=none &&
		vhd read part.vhd spec.raw && read_as part.vhd spec.raw &&
		second_reads spec.raw part.vhd p.vhd
}
check "libvhdi agrees" by_bytes

rm -f c.vhd
"$COWIMG" create -f vhd -b p.vhd -F vhd c.vhd
touch -d @1700000000 p.vhd
check "refuses a parent that was written since" expect_refused vhd c.vhd "its time stamp differs"
check "parent-time=any takes it" "$IMAGE_IO" open -o parent-time=any vhd c.vhd
vhd set c.vhd "header.parent_id=x00112233445566778899aabbccddeeff"
check "refuses another parent" expect_refused vhd c.vhd "their unique ids differ" -o parent-time=any

# Taken as it is now, it is no other; the rest of the header stays.
vhd set c.vhd "header.parent_id=x$(vhd get p.vhd footer.unique_id)"
check "still refused" expect_refused vhd c.vhd "its time stamp differs"
amended()
{
	cp c.vhd before.vhd
	"$COWIMG" amend -f vhd -o parent-time=now c.vhd && "$IMAGE_IO" open vhd c.vhd &&
		[ "$(vhd get c.vhd header.parent_time)" = $((1700000000 - 946684800)) ] &&
		[ "$(cmp -l c.vhd before.vhd | awk '$1 <= 512 + 36 || $1 > 512 + 60' | wc -l)" = 0 ]
}
check "the parent's time is amended" amended
check "the second opinion takes it" /usr/bin/python3 "$FORMATS_SRC/second.py" vhd second.raw c.vhd p.vhd
check "nothing else is amended" refused c.vhd "parent-time=now can" "$COWIMG" amend -f vhd -o size=chs c.vhd
vhd set c.vhd "header.parent_id=x00112233445566778899aabbccddeeff"
check "not to another parent" refused c.vhd "their unique ids differ" "$COWIMG" amend -f vhd -o parent-time=now c.vhd

# --- Parents of another size --------------------------------------------------
# A shorter disk ends before its parent does; of a longer one the rest is zeroes.
for size in 2m 9m 5000704; do
	rm -f p.* c.vhd
	next_seed
	make_random p.raw 4100k "$SEED"
	qemu-img convert -O vpc -o subformat=dynamic,force_size=on p.raw p.vhd
	oracle_raw vhd p.vhd mirror.raw
	check "over a parent of 4100k, $size" "$COWIMG" create -f vhd -b p.vhd -F vhd c.vhd "$size"
	truncate -s "$(size_of c.vhd)" mirror.raw
	check "has that size" has_size "$(numfmt --from=iec "${size^^}")" c.vhd
	check "reads as its parent, and zeroes" read_as c.vhd mirror.raw
	check "written, by the specification" write_child c.vhd "$SEED"
done

# Two that are each other's parent: the second takes the name, id and time of a third.
loop_of_two()
{
	rm -f p.vhd c.vhd x.vhd
	"$COWIMG" create -f vhd p.vhd 4m && "$COWIMG" create -f vhd -b p.vhd -F vhd c.vhd &&
		"$COWIMG" create -f vhd -b c.vhd -F vhd x.vhd &&
		vhd set x.vhd "footer.unique_id=x$(vhd get p.vhd footer.unique_id)" &&
		touch -r p.vhd x.vhd && mv x.vhd p.vhd &&
		expect_refused vhd c.vhd "c.vhd: is in the chain of images twice" &&
		expect_refused vhd p.vhd "p.vhd: is in the chain of images twice"
}
check "refuses two that are each other's parent" loop_of_two

# --- The parent's names -------------------------------------------------------
mkdir sub elsewhere
cp p.raw sub/base.raw
"$COWIMG" create -f vhd -b sub/base.raw -F raw sub/c.vhd
check "a name beside the child" read_as sub/c.vhd p.raw
mv sub/c.vhd elsewhere/
check "the absolute one, when the child was moved" read_as elsewhere/c.vhd p.raw
mv sub/base.raw elsewhere/
touch -r elsewhere/base.raw elsewhere/c.vhd
check "the relative one, when both were moved" read_as elsewhere/c.vhd p.raw
vhd set elsewhere/c.vhd header.locator0.platform=0 header.locator1.platform=0
check "the header's, when no locator helps" read_as elsewhere/c.vhd p.raw
mv elsewhere/base.raw elsewhere/gone.raw
check "refuses when nothing is there" expect_refused vhd elsewhere/c.vhd "cannot be opened"
rm -rf sub elsewhere
"$COWIMG" create -f vhd -b "$PWD/p.raw" -F raw "abs.vhd"
check "an absolute name" read_as abs.vhd p.raw
name=$(printf 'B\303\244se \360\237\232\200.raw')
cp p.raw "$name"
"$COWIMG" create -f vhd -b "$name" -F raw utf.vhd
check "a name that needs UTF-16" read_as utf.vhd p.raw

# --- Lost space in the midst of the file ----------------------------------------
# As a crash leaves it: a block that nothing refers to, with others behind it.
status_of() { local want=$1 is; shift; "$@"; is=$?; [ $is = "$want" ] || { echo "status $is, not $want"; return 1; }; }
lost_middle()
{
	local blocks after
	rm -f lost.vhd mirror.raw
	"$COWIMG" create -f vhd -s 1m lost.vhd 3m && truncate -s 3m mirror.raw || return 1
	head -c 3145728 /dev/urandom >plain.raw
	"$COWIMG" convert --force -f raw -O vhd -s 1m plain.raw lost.vhd && vhd set lost.vhd 'bat[1]=0xffffffff' &&
		cp plain.raw mirror.raw && dd if=/dev/zero of=mirror.raw bs=1M seek=1 count=1 conv=notrunc status=none &&
		blocks=$(stat -c %b lost.vhd) && status_of 3 "$COWIMG" check -f vhd lost.vhd &&
		"$COWIMG" check -f vhd lost.vhd | grep -q "bytes from offset .* are in no block" &&
		"$COWIMG" check -f vhd -r lost.vhd && status_of 0 "$COWIMG" check -f vhd lost.vhd &&
		after=$(stat -c %b lost.vhd) && [ $((blocks - after)) -ge 2000 ] && oracle_read vhd lost.vhd && read_as lost.vhd mirror.raw
}
check "lost space between two blocks is told, and given back" lost_middle
lost_first()
{
	"$COWIMG" convert --force -f raw -O vhd -s 1m plain.raw lost.vhd && vhd set lost.vhd 'bat[0]=0xffffffff' &&
		status_of 3 "$COWIMG" check -f vhd lost.vhd && "$COWIMG" check -f vhd -r lost.vhd &&
		status_of 0 "$COWIMG" check -f vhd lost.vhd && oracle_read vhd lost.vhd
}
check "and before the first" lost_first
others_space()
{
	"$COWIMG" convert --force -f raw -O vhd -s 1m plain.raw lost.vhd &&
		vhd set lost.vhd 'bat[0]=0xffffffff' footer.creator=x74617000 && cp lost.vhd kept &&
		"$COWIMG" check -f vhd -r lost.vhd && cmp lost.vhd kept
}
check "but not what another program keeps there" others_space
# tapdisk has a map of the blocks behind the table, longer than a page for large disks.
others_map()
{
	rm -f lost.vhd && "$COWIMG" create -f vhd lost.vhd 64g && vhd set lost.vhd footer.creator=x74617000 &&
		tail -c 512 lost.vhd >last && truncate -s -512 lost.vhd &&
		{ printf tdbatmap; head -c 8184 /dev/urandom; cat last; } >>lost.vhd && cp lost.vhd kept &&
		status_of 0 "$COWIMG" check -f vhd lost.vhd && "$COWIMG" check -f vhd -r lost.vhd && cmp lost.vhd kept &&
		truncate -s -512 lost.vhd && "$COWIMG" check -f vhd -r lost.vhd && cmp lost.vhd kept
}
check "nor before there are blocks" others_map

# --- Mischief -----------------------------------------------------------------
# The user of a fixed disk writes a footer into its first sector.
rm -f o.vhd
"$COWIMG" create -f vhd -o subformat=fixed o.vhd 5m
"$COWIMG" create -f vhd -b /etc/hostname -F raw evil.vhd
dd if=evil.vhd of=o.vhd bs=4096 count=2 conv=notrunc status=none
head -c 5242880 o.vhd >fixed.raw
check "a fixed disk stays one, whatever its first sector holds" read_as o.vhd fixed.raw

# Each case: what is done to a dynamic disk with blocks 0 and 2, and what must
# be said. "how" may be -w: it can be read, but must not be written.
make_random src.raw 2m "$SEED"
rm -f good.vhd
"$COWIMG" create -f vhd -s 1m good.vhd 8m
rm -f mirror.raw
truncate -s 8m mirror.raw
"$IMAGE_IO" load vhd good.vhd mirror.raw "$SEED" 30
for case in "$FORMATS_SRC"/vhd-bad/*; do
	says='' how='' repaired=''
	cp good.vhd bad.vhd
	# shellcheck source=/dev/null
	. "$case"
	break_it bad.vhd
	check "${case##*/}" expect_refused vhd bad.vhd "$says" $how
	[ -n "$repaired" ] || continue
	check "${case##*/}: the check says it" grep -qE "$repaired" <("$COWIMG" check -f vhd bad.vhd 2>&1)
	check "${case##*/}: is repaired" "$COWIMG" check -f vhd -r bad.vhd
	check "${case##*/}: can be written again" "$IMAGE_IO" open -w vhd bad.vhd
	check "${case##*/}: qemu reads it" oracle_read vhd bad.vhd
done

# Six blocks are in the place of block 0: copies of all are more than there is.
not_multiplied()
{
	local size n
	cp good.vhd bad.vhd
	for n in 1 3 4 5 6 7; do vhd set bad.vhd "bat[$n]=$(vhd get bad.vhd 'bat[0]')" || return; done
	size=$(stat -c %s bad.vhd)
	limited "$COWIMG" check -f vhd -r bad.vhd
	[ $? = 2 ] && grep -q '6 blocks are in the places of 2 others; they are not repaired' refused.out &&
		[ "$(stat -c %s bad.vhd)" = "$size" ] && expect_refused vhd bad.vhd 'place of block 0' -w
}
check "a repair does not make many blocks of few" not_multiplied
last_place()
{
	local n
	for n in 0 1 2 3 4 5 6 7; do vhd get "$1" "bat[$n]"; done | grep -vx 4294967295 | sort -n | tail -n 1
}
# The same of a block that the end of the file cuts off: it is counted whole.
cut_not_multiplied()
{
	local size n last
	cp good.vhd bad.vhd
	last=$(last_place bad.vhd)
	for n in 0 1 2 3 4 5 6 7; do vhd set bad.vhd "bat[$n]=$last" || return; done
	size=$(stat -c %s bad.vhd)
	truncate -s -5120 bad.vhd
	limited "$COWIMG" check -f vhd -r bad.vhd
	[ $? = 2 ] && grep -q '7 blocks are in the places of 1 others; they are not repaired' refused.out &&
		[ "$(stat -c %s bad.vhd)" -le "$size" ] && expect_refused vhd bad.vhd 'place of block 0' -w
}
check "nor of one that is cut off" cut_not_multiplied
# Each begins in what the one before was made longer by: only the first was in the file, and
# is made whole; the others are free then.
chain_not_lengthened()
{
	local size n first block
	cp good.vhd bad.vhd
	block=$(($(vhd get bad.vhd header.block_size) / 512))
	first=$(last_place bad.vhd)
	for n in 0 1 2 3 4 5 6 7; do vhd set bad.vhd "bat[$n]=$((first + n * block))" || return; done
	size=$(stat -c %s bad.vhd)
	truncate -s -5120 bad.vhd
	limited "$COWIMG" check -f vhd -r bad.vhd
	[ $? = 0 ] && [ "$(grep -c 'points past the end of the file' refused.out)" = 8 ] &&
		[ "$(stat -c %s bad.vhd)" -le "$size" ] && [ "$(vhd get bad.vhd 'bat[0]')" = "$first" ] || return
	for n in 1 2 3 4 5 6 7; do [ "$(vhd get bad.vhd "bat[$n]")" = 4294967295 ] || return; done
	status_of 0 "$COWIMG" check -f vhd bad.vhd
}
check "nor makes the file longer and longer" chain_not_lengthened
finish
