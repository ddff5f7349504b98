#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# dscow_tool: what it prints, and one test per bad input.  Prints TAP.
set -u

top=$PWD/../..
BUILD=$top
# shellcheck source=tests/built.sh disable=SC1091
. "$(dirname "$(readlink -f "$0")")/../built.sh"
tool=${DSCOW_TOOL:-$(built tools/dscow_tool)}
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$top/plugins}
export COWD_PLUGIN_DIR
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
nr=0 failed=0
as=()	# as whom the tool runs

# ok NAME COMMAND...: the command succeeds.
ok() {
	local name=$1
	shift
	nr=$((nr + 1))
	if "$@"; then
		echo "ok $nr - $name"
	else
		echo "not ok $nr - $name"
		sed 's/^/# /' out err 2>/dev/null
		failed=$((failed + 1))
	fi
}

# run STATUS ARG...: dscow_tool ends with STATUS; out and err are kept.
run() {
	local want=$1 status
	shift
	"${as[@]}" "$tool" "$@" >out 2>err
	status=$?
	[ $status = "$want" ] || { echo "status $status, not $want" >>err; return 1; }
}

# refuses STATUS PATTERN ARG...: one sentence on stderr, nothing on stdout,
# and the same files as before.
refuses() {
	local want=$1 pattern=$2 before after
	shift 2
	before=$(ls -A --ignore=out --ignore=err)
	run "$want" "$@" || return 1
	after=$(ls -A --ignore=out --ignore=err)
	[ "$before" = "$after" ] || { echo "left behind: $after" >>err; return 1; }
	[ ! -s out ] || return 1
	[ "$(wc -l <err)" = 1 ] || return 1
	grep -q "^dscow_tool: .*$pattern" err
}

has() { grep -q -- "$1" "${2:-out}"; }

# poke FILE OFFSET BYTES: bytes in printf's notation.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# shellcheck disable=SC2120 # its arguments are options, given where they matter
fresh() { rm -f ov.dscow && run 0 -c "$@" ov.dscow base.img; }

# hold MODE FILE COMMAND...: while FILE is locked shared or exclusively, as an
# open image is.
hold() {
	local mode=$1 file=$2
	shift 2
	python3 - "$mode" "$file" <<'PY' &
import fcntl, os, struct, sys, time
mode, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
kind = fcntl.F_WRLCK if mode == "exclusive" else fcntl.F_RDLCK
fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
open("held", "w").close()
time.sleep(60)
PY
	local pid=$! status
	while [ ! -e held ]; do sleep 0.05; done
	rm held
	"$@"
	status=$?
	kill $pid
	wait $pid 2>/dev/null
	return $status
}

# --- Create ------------------------------------------------------------------

truncate -s 537919488 golden.img
cat >want <<END
Size:         537919488
First block:  65536
Block size:   65536
Blocks:       8208
Bitmap count: 257
END
ok "create runs" run 0 -c golden.dscow golden.img
ok "create prints the original's lines" cmp -s want out
ok "overlay is sparse" [ "$(du -k golden.dscow | cut -f1)" -le 64 ]
ok "not created twice" refuses 1 "golden.dscow: exists already; use --force" -c golden.dscow golden.img
ok "--force replaces" run 0 -c --force golden.dscow golden.img

head -c 1000000 /dev/urandom >base.img
ok "odd size is rounded up to sectors" fresh
ok "... and printed so" has "^Size: *1000448$"
for bs in 4k 64k 1m 16m; do
	ok "block size $bs" fresh -b $bs
done
ok "block size in bytes" fresh --block-size=8192
ok "... is used" has "^Block size: *8192$"
rm -f ov.dscow
for bs in 2k 32m 65537 3m; do
	ok "block size $bs is refused" refuses 1 "ov.dscow: a block size" -c -b $bs ov.dscow base.img
done
ok "block size 1x is refused" refuses 1 "block size 1x" -c -b 1x ov.dscow base.img
ok "block size 0 is refused" refuses 1 "block size 0" -c -b 0 ov.dscow base.img
ok "missing base" refuses 1 "nobase: cannot be opened: No such file" -c ov.dscow nobase
mkdir folder
ok "base that is a folder" refuses 1 "folder: " -c ov.dscow folder
: >empty
ok "empty base" refuses 1 "a disk of 0 bytes cannot be had" -c ov.dscow empty
ok "missing folder of the overlay" refuses 1 "no/ov.dscow: cannot be created" -c no/ov.dscow base.img
ok "overlay that is a folder" refuses 1 "folder: exists and is no regular file" -c --force folder base.img
cp base.img keep.img
ok "overlay that is its base" refuses 1 "base.img: " -c --force base.img base.img
ok "... and the base is as it was" cmp -s base.img keep.img
ok "unknown base format" refuses 1 "no plugin for the format nosuch" -c -f nosuch ov.dscow base.img
ok "base format that is a path" refuses 1 "no name of a format" -c -f ../raw ov.dscow base.img
ok "base of another format than said" refuses 1 "base.img: is no dscow image" -c -f dscow ov.dscow base.img
fresh
ok "overlay as a base is not taken for raw" refuses 1 "looks like an image of the format dscow" -c ov2.dscow ov.dscow
ok "overlay of an overlay" run 0 -c -f dscow ov2.dscow ov.dscow
rm -f ov2.dscow
ok "replace an overlay in use" hold shared ov.dscow refuses 1 "ov.dscow: is in use" -c --force ov.dscow base.img
ok "base being written" hold exclusive base.img refuses 1 "base.img: is being written" -c new.dscow base.img
if [ "$(id -u)" = 0 ]; then	# who may everything
	chmod 777 .
	as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
fi
if [ ${#as[@]} = 0 ] || run 0 --version; then
	chmod 0 base.img
	ok "base without permission" refuses 1 "base.img: cannot be opened: Permission" -c new.dscow base.img
	chmod 644 base.img
	mkdir -m 555 closed
	ok "folder without permission" refuses 1 "closed/o: cannot be created: Permission" -c closed/o base.img
else
	echo "# skipped: no permission for a base, a folder: only root may run $tool"
fi
as=()
(
	ulimit -f 100
	trap '' XFSZ
	refuses 1 "full.dscow: .*cannot be extended.*File too large" -c full.dscow golden.img
)
ok "no space leaves nothing behind" [ $? = 0 ]

# --- Base paths --------------------------------------------------------------

mkdir -p a b
cp base.img a/
run 0 -c a/ov base.img
ok "relative base elsewhere is recorded absolutely" run 0 -i a/ov
ok "... with this folder" has "^Base: *$PWD/base.img$"
run 0 -c a/ov2 a/base.img
run 0 -i a/ov2
ok "base in the same folder is recorded by its name" has "^Base: *base.img$"
mv a moved
ok "... so both can be moved" run 0 -k moved/ov2

# --- Info --------------------------------------------------------------------

fresh
ok "info" run 0 -i ov.dscow
ok "... names the base" has "^Base: *base.img$"
ok "info as JSON" run 0 -i --json ov.dscow
ok "... is JSON" python3 -c 'import json; assert json.load(open("out"))["bitmap-count"] == 1'
ok "missing overlay" refuses 1 "gone: cannot be opened: No such file" -i gone
ok "raw file is no overlay" refuses 1 "base.img: is no dscow image" -i base.img
ok "empty file is no overlay" refuses 1 "empty: is no dscow image" -i empty

# --- Damage ------------------------------------------------------------------

fresh; poke ov.dscow 8 '\002'
ok "another version" refuses 1 "version that is not known" -i ov.dscow
ok "... is damage to -k" refuses 2 "version that is not known" -k ov.dscow
fresh; poke ov.dscow 40 '\001'
ok "damaged header" refuses 1 "its checksum is wrong" -i ov.dscow
ok "... is damage to -k" refuses 2 "its checksum is wrong" -k ov.dscow
fresh; poke ov.dscow 512 'X'
ok "damaged base path" refuses 1 "checksum of the base's path" -i ov.dscow
fresh; truncate -s 10000 ov.dscow
ok "bitmap truncated" refuses 1 "is truncated" -i ov.dscow
fresh; truncate -s 200000 ov.dscow
ok "unused blocks truncated: harmless" run 3 -k ov.dscow
ok "... refused otherwise" refuses 1 "is truncated" -m ov.dscow
ok "... repaired" run 0 -k --repair ov.dscow
ok "... and clean then" run 0 -k ov.dscow
fresh; poke ov.dscow 8193 '\200'; truncate -s 200000 ov.dscow
ok "used blocks truncated: damage" run 2 -k ov.dscow
fresh; poke ov.dscow 8195 '\200'
ok "bits past the end: harmless" run 3 -k ov.dscow
ok "... repaired" run 0 -k --repair ov.dscow
ok "... and clean then" run 0 -k ov.dscow
fresh
ok "clean" run 0 -k ov.dscow
ok "check as JSON" run 0 -k --json ov.dscow
ok "... is JSON" python3 -c 'import json; assert json.load(open("out"))["corrupt"] == 0'
ok "missing overlay cannot be checked" refuses 1 "gone: cannot be opened" -k gone
ok "overlay in use cannot be checked" hold exclusive ov.dscow refuses 1 "is being written" -k ov.dscow

# --- The base changes --------------------------------------------------------

cp -p base.img keep.img
fresh
touch base.img
ok "written base" run 2 -k ov.dscow
ok "... says so" has "written since" err
ok "accept it" run 0 --accept-base ov.dscow
ok "... is clean then" run 0 -k ov.dscow
stamp=$(stat -c %y base.img)
poke base.img 999999 'x'; touch -d "$stamp" base.img
ok "changed contents" run 2 -k ov.dscow
ok "... say so" has "contents are others" err
cp -p keep.img base.img; fresh
truncate -s 900000 base.img
ok "base that shrank" run 2 -k ov.dscow
ok "... says so" has "it shrank" err
ok "... is not merged" refuses 1 "it shrank" -m ov.dscow
cp -p keep.img base.img; fresh
truncate -s 1100000 base.img; touch -r keep.img base.img
ok "base that grew" run 2 -k ov.dscow
ok "... says so" has "it grew" err
mv base.img other.img
ok "base that is gone" run 2 -k ov.dscow
ok "... is named with the overlay" has "ov.dscow: its backing image base.img: cannot be opened" err
ok "... and not accepted" refuses 1 "base.img: cannot be opened" --accept-base ov.dscow
mv other.img base.img

# --- Merge -------------------------------------------------------------------

head -c 1048576 /dev/urandom >base.img
cp base.img want.img
fresh
# Blocks 1 and 15 are ours: data, then bits.
head -c 65536 /dev/urandom >block
for n in 1 15; do
	dd if=block of=ov.dscow bs=65536 seek=$((n + 1)) conv=notrunc status=none
	dd if=block of=want.img bs=65536 seek=$n conv=notrunc status=none
done
poke ov.dscow 8192 '\002\200'
cp ov.dscow begun.dscow
ok "merge while the base is in use" hold shared base.img refuses 1 "base.img: is in use" -m ov.dscow
ok "merge" run 0 -m ov.dscow
ok "... says how much" has "128.0 KiB merged into base.img"
ok "... draws no bar on a file" [ ! -s err ]
ok "base holds all" cmp -s base.img want.img
ok "overlay is empty and fits" run 0 -k ov.dscow
run 0 -i ov.dscow
ok "... shows no block" has "^Copied: *0$"
ok "... and gave its space back" [ "$(du -k ov.dscow | cut -f1)" -le 64 ]
ok "merge of an empty overlay" run 0 -m ov.dscow
# A merge that was stopped: incompatible bit 0 is set, the base is half done.
python3 - <<'PY'
def crc(data):
    c = 0xffffffff
    for byte in data:
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    return c ^ 0xffffffff
with open("begun.dscow", "r+b") as f:
    h = bytearray(f.read(512))
    h[16] |= 1
    h[508:512] = crc(h[:508]).to_bytes(4, "little")
    f.seek(0)
    f.write(h)
PY
poke base.img 70000 'half'
ok "merge not ended: damage" run 2 -k begun.dscow
ok "... and not used as a base" refuses 1 "merge into the base was begun" -c -f dscow no.dscow begun.dscow
ok "... is ended" run 0 -m begun.dscow
ok "... and right" cmp -s base.img want.img
ok "... and clean" run 0 -k begun.dscow
if command -v script >/dev/null; then
	fresh
	script -qec "$tool -m ov.dscow" /dev/null </dev/null >out 2>err
	ok "bar on a terminal" has "100%"
fi

# --- Usage -------------------------------------------------------------------

ok "no action" refuses 1 "nothing to do"
ok "two actions" refuses 1 "only one action" -i -k ov.dscow
ok "unknown option" refuses 1 "not known" --nosuch
ok "missing argument" refuses 1 "an overlay and a base" -c ov.dscow
ok "too many arguments" refuses 1 "exactly one overlay" -i a b
ok "option of another action" refuses 1 "with -c only" -i --force ov.dscow
ok "--repair without -k" refuses 1 "with -k only" -i --repair ov.dscow
ok "--json without use" refuses 1 "go.* with -i and -k" -m --json ov.dscow
ok "--help" run 0 --help
ok "--version" run 0 --version
echo "1..$nr"
exit $((failed != 0))
