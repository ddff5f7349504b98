#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# vmdk: damaged and hostile images. Each file in vmdk-bad/ is one: break_it makes
# bad.vmdk out of a good image, how says when it is found out (open, write: when
# opened for writing; look: when not; read; confined: when only its folder is
# allowed), and says is what must be said, of the file that names tells.
. "${srcdir:-$(dirname "$0")}/lib.sh"
need qemu-img
need qemu-io
need python3
COWIMG=$(built tools/cowimg)
MAKE="python3 $FORMATS_SRC/vmdk-make.py"

u32() { $MAKE u32 bad.vmdk "$1" "$2"; }
u64() { $MAKE u64 bad.vmdk "$1" "$2"; }

# A descriptor file. $1: createType, $2: lines
text()
{
	printf '# Disk DescriptorFile\nversion=1\nCID=12345678\ncreateType="%s"\n%s\n' "$1" "$2" >bad.vmdk
}

# sed has made the embedded descriptor longer: what follows goes back.
fix_length()
{
	python3 - <<-'PY'
	data = open("bad.vmdk", "rb").read()
	end = data.index(b"\0\0\0\0", 600)
	extra = len(data) - 262144
	open("bad.vmdk", "wb").write(data[:end] + data[end + extra:])
	PY
}

stream()
{
	make_random raw 200k 7 && dd if=/dev/urandom of=raw bs=64k count=1 conv=notrunc status=none &&
		$MAKE stream raw bad.vmdk
}

# One grain that says it is a gigabyte of zeroes.
bomb()
{
	stream && python3 - <<-'PY'
	import struct, zlib
	packed = zlib.compress(bytes(16 << 20), 9)
	f = open("bad.vmdk", "r+b")
	f.seek(65536)
	f.write(struct.pack("<QI", 0, len(packed)) + packed)
	PY
}

good()
{
	qemu-img create -q -f vmdk bad.vmdk 1m && qemu-io -f vmdk -c "write -P 1 0 128k" bad.vmdk >qemu.log &&
		[ "$(stat -c %s bad.vmdk)" = 196608 ] && truncate -s 256k bad.vmdk
}

# shellcheck disable=SC1090,SC2154 # a case, and what it sets
bad()
(
	rm -rf case outside.vmdk && mkdir case && cd case || return 1
	names=bad.vmdk
	. "$1"
	good || return 1
	"$IMAGE_IO" open -w vmdk bad.vmdk || return 1
	good && break_it || return 1
	case $how in
	open) expect_refused vmdk bad.vmdk "$says" && expect_refused vmdk bad.vmdk "$says" -w ;;
	write) "$IMAGE_IO" open vmdk bad.vmdk && expect_refused vmdk bad.vmdk "$says" -w ;;
	read) expect_unreadable vmdk bad.vmdk "$says" ;;
	confined) refused "$names" "$says" "$IMAGE_IO" open -a "$PWD" vmdk bad.vmdk &&
		refused "$names" "$says" "$IMAGE_IO" open -w -a "$PWD" vmdk bad.vmdk ;;
	look) refused "$names" "$says" "$IMAGE_IO" open vmdk bad.vmdk ;;
	*) echo "how is $how"; return 1 ;;
	esac
)

# 256 entries of each directory at one grain table, of 512 bad entries: it is told of
# once, and the repair makes no copy of it.
many_names()
{
	local table size
	rm -f bad.vmdk
	qemu-img create -q -f vmdk bad.vmdk 8g || return
	python3 - <<-'PY'
	import struct
	f = open("bad.vmdk", "r+b")
	rgd, gd = struct.unpack_from("<QQ", f.read(512), 48)
	f.seek(gd * 512)
	table = f.read(4)
	f.seek(gd * 512)
	f.write(table * 256)
	f.seek(rgd * 512)
	f.write(bytes(1024))
	f.seek(struct.unpack("<I", table)[0] * 512)
	f.write(b"\xff" * 2048)
	PY
	size=$(stat -c %s bad.vmdk)
	limited "$COWIMG" check -r -f vmdk bad.vmdk
	[ $? = 2 ] || { cat refused.log; return 1; }
	tail -n 2 refused.out
	[ "$(wc -l <refused.out)" = 102 ] && grep -q '^bad.vmdk: 767 damaged' refused.out &&
		[ $(($(stat -c %s bad.vmdk) - size)) -le 131072 ]
}

# Not closed; the first table lacks its second copy, which the repair puts at the end of the
# file; and there, by both of its copies, the second table has a grain.
in_what_grows()
{
	rm -f bad.vmdk
	qemu-img create -q -f vmdk bad.vmdk 64m || return
	python3 - <<-'PY'
	import os, struct
	f = open("bad.vmdk", "r+b")
	head = f.read(512)
	rgd, gd = struct.unpack_from("<QQ", head, 48)
	grain = struct.unpack_from("<Q", head, 20)[0] * 512
	end = -(-os.fstat(f.fileno()).st_size // grain) * grain
	f.truncate(end)
	def put(at, n):
	    f.seek(at)
	    f.write(struct.pack("<I", n))
	def get(at):
	    f.seek(at)
	    return struct.unpack("<I", f.read(4))[0]
	for directory in rgd, gd:
	    put(get(directory * 512 + 4) * 512, end // 512)
	put(rgd * 512, 0)
	f.seek(72)
	f.write(b"\1")
	PY
}

no_grain_in_what_grows()
{
	in_what_grows && { limited "$IMAGE_IO" open -w vmdk bad.vmdk; [ $? = 1 ]; } &&
		grep -q 'grain 512 cannot lie at offset' refused.log || { cat refused.log; return 1; }
	in_what_grows && { limited "$COWIMG" check -r -f vmdk bad.vmdk; [ $? = 2 ]; } &&
		grep -q 'grain 512 cannot lie at offset' refused.out || { cat refused.out; return 1; }
}

for f in "$FORMATS_SRC"/vmdk-bad/*; do
	check "${f##*/}: $(sed -n '2s/^# //p' "$f")" bad "$f"
done
check "one grain table with 256 names is read once" many_names
check "no grain lies where a repair puts a table" no_grain_in_what_grows
finish
