#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# cowimg: what it prints and makes, its exit statuses, and that nothing is lost or left when it
# cannot end well; that also of img2qcow and qcow2raw.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need jq
need python3
need script
COWIMG=$(built tools/cowimg)

# run STATUS ARG...: cowimg ends with STATUS; out and err are kept.
run()
{
	local want=$1 status
	shift
	"$COWIMG" "$@" >out 2>err
	status=$?
	cat out err
	[ "$status" = "$want" ] || { echo "status $status instead of $want"; return 1; }
}

# says STATUS TEXT ARG...: one sentence, nothing else, all files as before.
says()
{
	local want=$1 text=$2
	shift 2
	state >before
	run "$want" "$@" || return 1
	state >now
	diff before now || return 1
	[ ! -s out ] || { echo "it printed something"; return 1; }
	[ "$(wc -l <err)" = 1 ] || { echo "no single sentence"; return 1; }
	grep -qE "^cowimg: .*$text" err || { echo "it does not say: $text"; return 1; }
}

# json FILTER ARG...: jq finds FILTER true.
json()
{
	local filter=$1
	shift
	run 0 "$@" && jq -e "$filter" out
}

maps_right()
{
	run 0 map -f "$1" --json "$2" && "$IMAGE_IO" read "$1" "$2" plain.raw &&
		python3 "$FORMATS_SRC/extents.py" out plain.raw
}

same_disk()
{
	"$IMAGE_IO" read "$1" "$2" one.raw && "$IMAGE_IO" read "$3" "$4" two.raw &&
		same_contents one.raw two.raw
}

make_random a.raw 6m "$SEED"
make_random base.raw 6m "$((SEED + 1))"
cp base.raw kept.raw
head -c 1M /dev/urandom >random.raw

# --- info, create, map -------------------------------------------------------
check "info" json '.format == "raw" and ."virtual-size" == 6291456' info -f raw --json a.raw
check "info guesses aloud" run 0 info a.raw
check "info says that it guessed" grep -q "warning: a.raw: looks like no known format" err
check "create over a backing image" run 0 create -f dscow -b base.raw -F raw -s 4k o.dscow
check "info of it" json '."backing-filename" == "base.raw" and ."block-size" == 4096 and
	.details.copied == 0' info -f dscow --json o.dscow
check "info without the backing image" bash -c \
	"mv base.raw gone && '$COWIMG' info -f dscow o.dscow; s=\$?; mv gone base.raw; exit \$s"
check "create with a size" run 0 create -f raw new.raw 1m
check "which is there" test "$(stat -c %s new.raw)" = 1048576
check "what was made, for programs" json '.filename == "made" and .format == "dscow" and
	."virtual-size" == 6291456 and ."block-size" == 8192 and ."backing-filename" == "base.raw" and
	."backing-filename-format" == "raw" and (has("source-filename") | not)' \
	create --json -f dscow -b base.raw -F raw -s 8k made
cp out made.json
check "is what info says of it" bash -c \
	"'$COWIMG' info --json -f dscow made | diff - made.json"
check "nothing that was not made" says 1 "exists already" create --json -f raw made 1m
check "map of a sparse file" maps_right raw a.raw
check "writes to the overlay" bash -c "'$IMAGE_IO' read dscow o.dscow m.raw &&
	'$IMAGE_IO' load dscow o.dscow m.raw $SEED 60"
check "map of an overlay" maps_right dscow o.dscow
check "map as text" run 0 map -f dscow o.dscow
check "map names both files" bash -c 'grep -q o.dscow$ out && grep -q base.raw$ out'

# --- check -------------------------------------------------------------------
check "clean: 0" run 0 check -f dscow o.dscow
cp o.dscow broken
check "no such file: 1" says 1 "nothing.*: cannot be opened" check -f dscow nothing
poke broken 0 XXXX
check "no image at all: 1, as qemu-img says of its own" says 1 "broken: " check -f dscow broken
qemu-img create -q -f qcow2 damaged 1m && poke damaged "$((0x$(od -An -tx1 -j 40 -N 8 damaged | tr -d ' ')))" '\0200\0\0377'
check "damaged: 2" run 2 check -f qcow2 damaged
run 0 create -f dscow -b base.raw -F raw leaky >/dev/null && truncate -s 1m leaky
check "harmless: 3" run 3 check -f dscow leaky
check "harmless, for programs" run 3 check -f dscow --json leaky
check "is counted" jq -e '.leaks == 1 and .corruptions == 0 and (.findings | length) == 1' out
check "repaired" run 0 check -f dscow -r leaky
check "and is clean" run 0 check -f dscow leaky
check "nothing to check: 63" says 63 "cannot be checked" check -f raw a.raw

# --- convert -----------------------------------------------------------------
check "raw to raw" run 0 convert -f raw -O raw a.raw b.raw
check "which is the same" cmp a.raw b.raw
check "a chain to one file" run 0 convert -f dscow -O raw o.dscow flat.raw
check "as it reads" same_disk dscow o.dscow raw flat.raw
check "over a backing image" run 0 convert -f raw -O dscow -b base.raw -F raw a.raw a.dscow
check "as it reads" same_disk raw a.raw dscow a.dscow
check "what is the same below is not held" \
	run 0 convert -f raw -O dscow -b a.raw -F raw b.raw none.dscow
check "what was written is told" json '.written == 0 and ."source-filename" == "b.raw" and
	."source-format" == "raw" and .filename == "none.dscow" and .format == "dscow" and
	."backing-filename" == "a.raw"' convert --force --json -f raw -O dscow -b a.raw -F raw b.raw none.dscow
check "so are all bytes" json '.written == 1048576 and ."virtual-size" == 1048576' \
	convert --json -f raw -O raw random.raw told.raw
check "not a block" json '.details.copied == 0' info -f dscow --json none.dscow
check "zeroes over data" bash -c "truncate -s 6m zero.raw &&
	'$COWIMG' convert -f raw -O dscow -b base.raw -F raw zero.raw z.dscow"
check "read as zeroes" same_disk raw zero.raw dscow z.dscow
check "bases are as they were" cmp base.raw kept.raw

# by TOOL NAME: COMMAND makes an image, to be named yet, of NAME.raw or NAME.qcow2.
by()
{
	case $1 in
	cowimg) COMMAND=("$COWIMG" convert -f raw -O raw "$2.raw") ;;
	img2qcow) COMMAND=("$(built tools/img2qcow)" -f raw "$2.raw") ;;
	qcow2raw) COMMAND=("$(built tools/qcow2raw)" "$2.qcow2") ;;
	esac
}
tools=cowimg
[ ! -e "$BUILD/plugins/qcow2/qcow2.la" ] || tools="cowimg img2qcow qcow2raw"

bar()
{
	script -qec "${COMMAND[*]@Q} seen" /dev/null | tr '\r' '\n' >out
	cat out
	grep -qE '\] +100%  [0-9.]+ [KMG]?i?B/s' out
}
no_bar() { "${COMMAND[@]}" quiet 2>err && [ ! -s err ]; }
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
for tool in $tools; do
	by "$tool" a
	check "$tool: a bar and a rate on a terminal" bar
	check "$tool: none elsewhere" no_bar
	rm -f seen quiet
done

# By seconds of the processor: reading 8 TiB of holes takes thousands.
truncate -s 8t huge.raw
dd if=a.raw of=huge.raw bs=1M seek=5000000 count=1 conv=notrunc status=none
holes() { (ulimit -t 5; "$COWIMG" convert -f raw -O raw huge.raw huge2.raw); }
check "holes are not read" holes
check "the data is there" cmp -n 1048576 a.raw huge2.raw 0 5242880000000
check "sparse as it was" test "$(stat -c %b huge2.raw)" -lt 8192
rm huge.raw huge2.raw

# --- compressed clusters and chains of qcow2, where the format is there -------
if [ -e "$BUILD/plugins/qcow2/qcow2.la" ]; then
	qemu-img convert -c -f raw -O qcow2 a.raw c.qcow2
	qemu-img create -q -f qcow2 -b c.qcow2 -F qcow2 top.qcow2
	qemu-io -f qcow2 -c "write -P 7 100k 300k" -c "write -z 1m 64k" top.qcow2 >/dev/null
	check "map of compressed clusters" maps_right qcow2 c.qcow2
	check "are told" json '[.[] | select(.compressed)] | length > 0' map -f qcow2 --json c.qcow2
	check "map of a chain" maps_right qcow2 top.qcow2
	check "tells the depth" json '[.[] | .depth // empty] | unique == [0, 1]' map -f qcow2 --json top.qcow2
	check "a chain of qcow2 to one" run 0 convert -f qcow2 -O qcow2 top.qcow2 one.qcow2
	check "qemu-img agrees" qemu-img compare -f qcow2 -F qcow2 top.qcow2 one.qcow2
	check "and finds no damage" qemu-img check -f qcow2 one.qcow2
	check "clusters of 4k" run 0 convert -f qcow2 -O qcow2 -s 4k top.qcow2 small.qcow2
	check "have that size" json '."block-size" == 4096' info -f qcow2 --json small.qcow2
	check "qemu-img agrees" qemu-img compare -f qcow2 -F qcow2 top.qcow2 small.qcow2
fi

# --- what must not happen ----------------------------------------------------
check "an image is not replaced" says 1 "b.raw: exists already; use --force" \
	convert -f raw -O raw base.raw b.raw
check "create does not either" says 1 "exists already" create -f raw b.raw 1m
check "with --force it is" run 0 convert --force -f raw -O raw base.raw b.raw
check "as it reads" cmp base.raw b.raw
check "not its own source" says 1 "is in use" convert --force -f raw -O raw a.raw a.raw
check "not its own backing image" \
	says 1 "is the base itself" convert --force -f raw -O dscow -b b.raw -F raw a.raw b.raw
no_room() { (ulimit -f 2000; trap '' XFSZ; says 1 "$@"); }
check "no room: nothing is left" no_room "cannot be|File too large" \
	convert -f raw -O raw a.raw room.raw
check "no room: the old one is kept" no_room "cannot be|File too large" \
	convert --force -f raw -O raw a.raw b.raw
# What is past the end of a file is damage, not a hole.
if [ -e "$BUILD/plugins/vmdk/vmdk.la" ]; then
	"$COWIMG" convert -f raw -O vmdk a.raw cut.vmdk && truncate -s 256k cut.vmdk
	check "a source that is cut off" says 1 "is damaged" convert -f vmdk -O raw cut.vmdk x.raw
fi

# A device made of the image has no lock, and its user may be gone: see also
# tests/cowd/second-writer.sh.
loop_refuses()
{
	local used="h.qcow: is used by $LOOP; end that first"
	ln -f l.qcow h.qcow
	says 1 "$used" check -r -f qcow h.qcow && says 1 "$used" amend -f qcow -o backing=a.raw h.qcow &&
		says 1 "$used" create --force -f qcow h.qcow 1m &&
		says 1 "$used" convert --force -f raw -O qcow a.raw h.qcow &&
		refused h.qcow "h.qcow: is used by $LOOP" "$(built tools/img2qcow)" --force a.raw h.qcow &&
		run 0 check -f qcow h.qcow && run 0 info -f qcow h.qcow || return 1
	! setpriv --reuid 65534 --clear-groups test -x "$COWIMG" -a -x . || as_nobody "$used"
}

as_nobody()
{
	chmod 666 l.qcow
	setpriv --reuid 65534 --clear-groups "$COWIMG" check -r -f qcow h.qcow 2>err
	cat err
	grep -q "$1" err
}

"$COWIMG" create -f qcow l.qcow 1m
if LOOP=$(losetup -f --show l.qcow 2>/dev/null); then
	chmod 711 .
	check "not what a loop device is made of" loop_refuses
	chmod 700 .
	# As after cowctl stop, when udev still looks at it.
	(sleep 0.3; losetup -d "$LOOP") &
	check "but when that goes" run 0 check -r -f qcow h.qcow
	wait
else
	echo "# no loop devices here: not tried"
fi
rm -f l.qcow h.qcow

mv base.raw gone
check "a chain that is not whole" says 1 "base.raw: cannot be opened" \
	convert -f dscow -O raw o.dscow x.raw
mv gone base.raw

is_dense()
{
	if [ "$tool" = img2qcow ]; then
		qemu-img check -f qcow2 s && qemu-img compare -f qcow2 -F raw s dense.raw
	else
		cmp dense.raw s
	fi
}

# Ends COMMAND at some moment: there is the whole image, or none.
stop_it()
{
	local signal=$1 after=$2 status
	rm -f s
	state >before
	timeout -s "$signal" "$after" "${COMMAND[@]}" s >out 2>err
	status=$?
	# It may be whole already when the signal comes.
	if [ "$status" = 0 ] || [ -e s ]; then
		is_dense && rm s
		return
	fi
	stops=$((stops + 1))
	state >now
	diff before now
}
dd if=/dev/urandom of=dense.raw bs=1M count=128 status=none
qemu-img convert -f raw -O qcow2 dense.raw dense.qcow2
for tool in $tools; do
	by "$tool" dense
	stops=0
	for after in 0.01 0.03 0.06 0.1 0.2; do
		check "$tool: SIGTERM after $after s" stop_it TERM "$after"
		check "$tool: SIGKILL after $after s" stop_it KILL "$after"
	done
	check "$tool: some were stopped ($stops of 10)" test "$stops" -gt 1
	check "$tool: started again, it ends" "${COMMAND[@]}" s
	check "$tool: as it reads" is_dense
	rm -f s
done
rm dense.raw dense.qcow2

# --- disks of 0 bytes ----------------------------------------------------------

# nothing_in FORMAT IMAGE: a disk of 0 bytes, for us as for qemu-img.
nothing_in()
{
	local driver want=0
	driver=$(qemu_format "$1")
	[ "$1" != raw ] || want=63
	[ "$(qemu-img info --output=json -f "$driver" "$2" | jq '."virtual-size"')" = 0 ] &&
		check_image "$1" "$2" && json '."virtual-size" == 0' info --json -f "$1" "$2" &&
		json '. == []' map --json -f "$1" "$2" && run 0 map -f "$1" "$2" &&
		run "$want" check -f "$1" "$2" && oracle_read "$1" "$2"
}

# Theirs, ours, and each of them as each other.
disk_of_nothing()
{
	local to
	rm -f theirs.* ours.* to.*
	qemu-img create -q -f "$(qemu_format "$1")" theirs.img 0 && nothing_in "$1" theirs.img &&
		run 0 create -f "$1" ours.img 0 && nothing_in "$1" ours.img || return 1
	for to in raw qcow2 vhd; do
		run 0 convert -f "$1" -O "$to" theirs.img "to.$to" && nothing_in "$to" "to.$to" || return 1
	done
}
for format in raw qcow2 vhd; do
	check "0 bytes: $format" disk_of_nothing "$format"
done
# An overlay of such a base, and a longer one, which reads as zeroes.
over_nothing()
{
	: >nothing.raw
	run 0 create --force -f qcow2 -b nothing.raw -F raw over.qcow2 && nothing_in qcow2 over.qcow2 &&
		run 0 create --force -f qcow2 -b nothing.raw -F raw over.qcow2 1m &&
		oracle_read qcow2 over.qcow2 && oracle_write qcow2 over.qcow2 "$SEED" 20
}
check "0 bytes: a base" over_nothing
for format in qcow vmdk; do
	check "0 bytes: not as $format, like qemu-img" says 1 "0 bytes cannot be had" create -f "$format" x 0
done
check "0 bytes: not over a base" says 1 "0 bytes over a backing image" \
	create -f qcow2 -b base.raw -F raw x 0
rm -f theirs.* ours.* to.* over.qcow2 nothing.raw

# --- mistakes ----------------------------------------------------------------
check "no format" says 1 "format must be given" check a.raw
check "no output format" says 1 "needs -O" convert -f raw a.raw x.raw
check "no format of the backing image" says 1 "-b and -F" create -f dscow -b base.raw x
check "no size" says 1 "a size is needed" create -f raw x
check "a wrong size" says 1 "size 12q: is no size" create -f raw x 12q
check "a wrong block size" says 1 "no power of two" create -f dscow -s 5000 -b base.raw -F raw x
check "an option elsewhere" says 1 "info takes no option --force" info --force a.raw
check "an unknown option" says 1 "is not known" info --bogus a.raw
check "an unknown option of the format" \
	says 1 "has no such option" create -f raw -o bogus=1 x 1m
check "an unknown format" says 1 "no plugin for the format bogus" check -f bogus a.raw
check "an unknown command" says 1 "bogus: is no command" bogus a.raw
check "no image" says 1 "an image must be named" check -f raw
check "too many images" says 1 "a source and a new image" convert -f raw -O raw a b c
check "no room for the output" bash -c "'$COWIMG' map -f raw --json a.raw >/dev/full; [ \$? = 1 ]"
# A crash between link and rename leaves a name, and a process id comes again.
after_a_crash()
{
	"$COWIMG" create --force -f raw left.raw 1m &&
		bash -c 'for n in $(seq $(($$ - 2)) $(($$ + 50))); do : >"left.raw.new-$n"; done; exec "$0" "$@"' \
			"$COWIMG" create --force -f raw left.raw 2m && [ "$(stat -c %s left.raw)" = 2097152 ]
}
check "a temporary name that a crash left is in nobody's way" after_a_crash
# --- amend ---------------------------------------------------------------------

amends()
{
	"$COWIMG" create --force -f qcow2 lazy.qcow2 1m && "$COWIMG" amend -f qcow2 -o lazy_refcounts=on lazy.qcow2 &&
		qemu-img info lazy.qcow2 | grep -q "lazy refcounts: true" && qemu-img check -q lazy.qcow2 &&
		"$COWIMG" amend -f qcow2 -o lazy_refcounts=off lazy.qcow2 && qemu-img info lazy.qcow2 | grep -q "lazy refcounts: false"
}
check "amends what can be amended" amends
check "amend: not what the format does not know" refused lazy.qcow2 "cannot be amended" \
	"$COWIMG" amend -f qcow2 -o cluster_size=4k lazy.qcow2
finish
