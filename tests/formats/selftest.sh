#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# lib.sh and image-io say so when something is wrong. Each function is given
# what it must take and what it must not.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img

# fails TEXT COMMAND...: the command fails and says TEXT.
fails()
{
	local text=$1
	shift
	"$@" >fails.log 2>&1 && { echo "it passed"; return 1; }
	cat fails.log
	grep -qE -- "$text" fails.log || { echo "it does not say: $text"; return 1; }
}

# After a load the mirror is changed: as if the image were.
tampered()
{
	cp image copy && oracle_raw raw copy mirror.raw &&
		"$IMAGE_IO" load raw copy mirror.raw "$SEED" 50 &&
		same_contents copy mirror.raw && poke mirror.raw 70000 '\0377\0001' &&
		fails "mismatch" same_contents copy mirror.raw
}

# The image is not what the mirror says at the start.
load_sees()
{
	cp image copy && cp image mirror.raw && shred -n 1 copy &&
		fails "byte [0-9]+ reads" "$IMAGE_IO" load raw copy mirror.raw "$SEED" 50
}

between_sees()
{
	make_random old 64k 1 && make_random new 64k 2 && cp old file &&
		dd if=new of=file bs=512 count=3 conv=notrunc status=none &&
		"$IMAGE_IO" between file old new && poke file 40000 '\0377\0001\0377' &&
		fails "the sector at 39936 is neither" "$IMAGE_IO" between file old new
}

same_twice()
{
	make_random a 3m "$1" && make_random b 3m "$1" && cmp a b &&
		make_random b 3m "$(($1 + 1))" && fails differ cmp a b
}

script_fails()
{
	{ echo "cd '$BUILD/tests/formats'"; echo ". '$FORMATS_SRC/lib.sh'"; echo "$1"; } >script
	fails "${2:-}" bash script
}

# As if qemu-img read something else.
other_contents()
{
	(
		oracle_raw() { make_random "$3" 3670016 7; }
		oracle_read raw image
	)
}

slow() { local REFUSE_SECONDS=1; refused image "" sleep 5; }
greedy() { local REFUSE_KIB=65536; refused image "" dd if=/dev/zero of=/dev/null bs=256M count=1; }
changer() { refused image image bash -c 'echo >>image; echo image >&2; exit 1'; }
crash() { refused image image bash -c 'kill -ABRT $$'; }

# A leaked cluster of qcow2 is let pass only where it may be.
leaks()
{
	qemu-img create -q -f qcow2 leaky 1m &&
		qemu-io -f qcow2 -c "write 0 64k" leaky >/dev/null &&
		check_image qcow2 leaky || return 1
	# L1 entry 0 goes: its table and the cluster that it names are lost.
	poke leaky 196608 '\0\0\0\0\0\0\0\0' && check_image qcow2 leaky leaks &&
		fails "ends with 3" check_image qcow2 leaky
}

make_random image 3m "$SEED"
truncate -s 3670016 image
check "same seed, same contents" same_twice "$SEED"
check "what is equal passes" oracle_read raw image
check "other contents are noticed" fails "mismatch" other_contents
check "another size is noticed" fails "has 3670016 bytes" oracle_read raw image "raw,size=4096"
check "writes that are there pass" oracle_write raw image "$SEED" 50
check "a changed byte is noticed" tampered
check "a wrong image is noticed by load" load_sees
check "a sector that is neither is noticed" between_sees
check "no refusal is noticed" fails "was not refused" expect_refused raw image ""
truncate -s 1000 odd
check "a refusal passes" expect_refused raw odd "whole sectors" -w
check "another sentence is noticed" fails "does not say" expect_refused raw odd "no such words" -w
check "a hang is noticed" fails "took longer" slow
check "much memory is noticed" fails "exhausted" greedy
check "a change of the image is noticed" fails "was changed" changer
check "a crash is noticed" fails "status 13[49]" crash
check "leaks and damage are told apart" leaks
check "a test that fails fails its script" script_fails "check no false; finish" "not ok 1"
check "a test that an expression ends fails its script" script_fails 'check odd eval ": \$((/ 2))"
finish' "1 failed"
check "a script that ends early fails" script_fails "check yes true; exit 0"
check "a script without a test fails" script_fails finish "1..0"
finish
