#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The parent of cowd and a worker that was taken over: what it asks for beyond its
# rights is refused, and when it says what is no request at all it is ended,
# and nothing is left of it.
#
#	tests/vm/run tests/privilege/parent.sh [--long] [--seed S]
#
# Every kind of breach and every path is tried each time. --long also tries all
# breaches that leave a device in use, and all images; else one of each, by the seed.
# shellcheck source=tests/privilege/lib.sh
. "$(dirname "$0")/lib.sh"
arguments "$@"

# some N WORD...: N of the words, by the seed, are in $chosen; all with --long.  Not in a
# subshell: that has a seed of its own.
some()
{
	local n=$1 i
	shift
	chosen=()
	while [ $# -gt 0 ] && { [ -n "$long" ] || [ "$n" -gt 0 ]; }; do
		i=$((RANDOM % $# + 1))
		chosen+=("${!i}")
		set -- "${@:1:i-1}" "${@:i+1}"
		n=$((n - 1))
	done
}

# As cowd does, from the root; or from $from.
hostile() { (cd "${from:-/}" && timeout 200 "$hostile" "$@" </dev/null); }

# ---- no requests ----------------------------------------------------------

mapfile -t breaches < <($hostile list)
[ ${#breaches[@]} -ge 25 ] || fail "${#breaches[@]} breaches only"
hostile breaches mydev "$work/base.img" "${breaches[@]}" >out.log 2>&1 || fail "$(cat out.log)"
n=$(grep -c ^ended out.log)
[ "$n" = ${#breaches[@]} ] || fail "$n of ${#breaches[@]} breaches ended the worker: $(cat out.log)"
nothing_left "breaches"
echo "ok $SECONDS s: $n kinds of messages ended the worker"

# With the device in use: it stays, for a cowd that is in order.
mapfile -t breaches < <($hostile list-in-use)
[ ${#breaches[@]} -ge 3 ] || fail "${#breaches[@]} breaches in use only"
some 1 "${breaches[@]}"
for name in "${chosen[@]}"; do
	hostile "$name" mydev "$work/base.img" >out.log 2>err
	status=$?
	[ $status = 1 ] || fail "$name: exit status $status"
	! grep "LET THROUGH" out.log || fail "$name was let through"
	grep -q "against the rules" err || fail "$name: does not say so: $(cat err)"
	[ -e /dev/mapper/mydev ] || fail "$name: the device went"
	cowd -p raw mydev base.img || fail "$name: cannot be served again"
	dd if=/dev/mapper/mydev bs=1M count=1 status=none |
		cmp -n 1048576 - base.img || fail "$name: reads wrong"
	cowctl stop mydev || fail "$name: cowctl stop"
	nothing_left "$name"
	echo "ok $SECONDS s: $name ended the worker, and the device goes on"
done

# ---- requests beyond its rights -------------------------------------------

mkdir -p in/sub out in-not
mv base.img in/
image=$work/in/base.img
echo secret >out/secret
ln -s ../out/secret in/link
ln -s ../../out in/sub/dir
ln -s /etc/shadow in/shadow
ln -s /proc/self/fd/0 in/fd
mkfifo in/pipe
cp in/base.img in/neighbour
cp in/base.img in-not/x

# tried CASE WANTED ARG...: the worker tries CASE with each; each answer is a WANTED, which
# is a pattern, and the parent ends as it should.
tried()
{
	local what=$1 wanted=$2 n status
	shift 2
	hostile "$what" mydev "$image" "$@" >out.log 2>err
	status=$?
	n=$(grep -c "^$wanted" out.log)
	[ "$n" = "$(wc -l <out.log)" ] && [ "$n" -ge $(($# ? $# : 3)) ] ||
		fail "$what: not all are $wanted: $(cat out.log err)"
	[ $status = 1 ] || fail "$what: exit status $status: $(cat out.log err)"
	! grep 'Broken pipe\|Connection reset' out.log || fail "$what: nobody answered: $(cat err)"
	nothing_left "$what"
	echo "ok $SECONDS s: $what: $n $wanted"
}

denied='refused .*: Permission denied$' invalid='refused .*: Invalid argument$'
tried open "$denied" /etc/shadow /etc/passwd "$work/out/secret" "$work/in/../out/secret" \
	"$work/in/sub/../../out/secret" "$work/in/link" "$work/in/sub/dir/secret" \
	"$work/in/shadow" "$work/in//./..//out/secret" "$work/in-not/x" \
	/proc/self/mem /proc/self/root/etc/shadow /proc/self/cwd/etc/shadow \
	/proc/1/root/etc/shadow /proc/1/mem /proc/kcore /dev/vda /run/cowd/mydev.json
tried open "$invalid" "$work/in" "$work/in/sub" "$work/in/pipe" "$work/in/fd" / \
	/proc/self/fd/0 /proc/self/fd/5 /dev/mem /dev/null /dev/dm-userspace \
	/dev/mapper/control /dev/loop-control /run/cowd/mydev.sock
tried open refused "$image/" "$image/../../out/secret" "$(printf '/x%.0s' $(seq 3000))"
# No path that depends on where the parent is.
from=$work tried open "$invalid" "" . .. in/base.img in/neighbour base.img
# What is allowed is not refused: else the above would show nothing.
tried open "LET THROUGH" "$work/in/neighbour" "$work/in/sub/../neighbour" \
	/proc/self/cwd"$work"/in/neighbour
# Written is the image, and what the user said.
mkdir in/parts
cp in/base.img in/parts/extent
ln -s ../neighbour in/parts/link
ln in/base.img in/parts/hardlink
tried write "LET THROUGH" "$image"
tried write "$denied" "$work/in/neighbour" "$work/in/parts/extent" "$work/in/sub/../neighbour" \
	"$work/in/parts/hardlink" "$work/in//base.img" "$work/out/secret"
tried write "$invalid" /proc/self/fd/0
export HOSTILE_ALLOW_WRITE=$work/in/parts
tried write "LET THROUGH" "$image" "$work/in/parts/extent" "$work/in/parts/hardlink"
tried write "$denied" "$work/in/neighbour" "$work/in/parts/link" "$work/in/parts/../neighbour" \
	"$work/out/secret"
tried write "$invalid" "$work/in/parts"
unset HOSTILE_ALLOW_WRITE
export HOSTILE_OPTION=data=parts/extent
tried write "LET THROUGH" "$image" "$work/in/parts/extent"
mkdir in/data=parts
cp in/base.img in/extent
cp in/base.img in/data=parts/extent
tried write "$denied" "$work/in/neighbour" "$work/in/parts/hardlink" "$work/in/extent" \
	"$work/in/data=parts/extent"
from=$work/in tried write "$invalid" parts/extent data=parts/extent
unset HOSTILE_OPTION

# A device as the image allows no other device.
modprobe brd rd_nr=2 rd_size=4096 || die "no RAM disks"
image=/dev/ram0 tried open "$denied" /dev/ram1 /dev/loop0 "$work/in/neighbour"
image=/dev/ram0 tried write "LET THROUGH" /dev/ram0

tried files 'refused .*: Operation not permitted$'
tried flags "$invalid"
tried geometries "$invalid"

# What it says is printed as text, in one line.
hostile log mydev "$image" >out.log 2>err
[ "$(grep -c three err)" = 1 ] && grep one err | grep -q three ||
	fail "a line of its own in the log: $(cat -v err)"
! grep -q '[[:cntrl:]]' err || fail "control characters in the log: $(cat -v err)"
nothing_left "requests"

# No log is filled by it, and what is left out is counted: a line a second.
hostile flood mydev "$image" >out.log 2>err
lines=$(grep -c 'flood [0-9]' err)
dropped=$(sed -n 's/.*[^0-9]\([0-9]*\) lines that the worker had to say were dropped.*/\1/p' err |
	awk '{ n += $1 } END { print n + 0 }')
[ "$lines" -ge 64 ] && [ "$lines" -le 400 ] || fail "flood: $lines lines in the log"
[ $((lines + dropped)) = 20000 ] || fail "flood: $lines lines, and $dropped were dropped"
nothing_left "flood"
echo "ok $SECONDS s: of 20000 lines $lines went to the log, and $dropped were counted"

# ---- the same by an image ----------------------------------------------------

# The base of an overlay is a link that leads away after the overlay was made;
# the same bytes are there, so that only the place can be the reason.
cd in || exit 1
some 1 ../out/base.img "$work/out/base.img" sub/dir/base.img /proc/self/cwd"$work"/out/base.img
for target in "${chosen[@]}"; do
	rm -f a.dscow backing
	ln -s base.img backing
	dscow_tool -c a.dscow backing >/dev/null || die "dscow_tool"
	rm backing
	cp -p base.img ../out/base.img
	ln -s "$target" backing
	refused "overlay over $target" allow-backing -p dscow mydev a.dscow
done
cp base.img ../out/base.img
some 1 "$work/out/base.img" ../out/base.img sub/../../out/base.img
for target in "${chosen[@]}"; do
	rm -f a.dscow
	dscow_tool -c a.dscow "$target" >/dev/null || die "dscow_tool"
	refused "overlay that names $target" allow-backing -p dscow mydev a.dscow
done

# An image that names what lies beside it as its own extent: that is read, but
# written only if the user says so.
cat >a.vmdk <<'END'
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicFlat"
RW 8192 FLAT "neighbour" 0
END
sum=$(md5sum <neighbour)
refused "an image whose extent is a neighbour" allow-write -p vmdk mydev a.vmdk
cowd -r -p vmdk mydev a.vmdk || fail "not even for reading"
cmp /dev/mapper/mydev neighbour || fail "its extent reads wrong"
cowctl stop mydev || fail "cowctl stop"
[ "$sum" = "$(md5sum <neighbour)" ] || fail "the neighbour was written"
cowd -p vmdk --allow-write neighbour mydev a.vmdk || fail "--allow-write did not allow"
dd if=../out/secret of=/dev/mapper/mydev bs=512 conv=sync,notrunc oflag=direct status=none || fail "write"
cowctl stop mydev || fail "cowctl stop"
[ "$(head -c 6 neighbour)" = secret ] || fail "was allowed, and not written"
nothing_left "extents"
echo "ok $SECONDS s: a neighbour as an extent"
