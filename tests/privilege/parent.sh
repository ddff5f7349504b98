#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The parent of cowd and a worker that was taken over: what it asks for beyond its
# rights is refused, and when it says what is no request at all it is ended,
# and nothing is left of it.
#
#	tests/vm/run tests/privilege/parent.sh
# shellcheck source=tests/privilege/lib.sh
. "$(dirname "$0")/lib.sh"

# ---- no requests ----------------------------------------------------------

breaches=0
for name in $($hostile list); do
	timeout 30 $hostile "$name" mydev base.img >out 2>err </dev/null
	status=$?
	[ $status = 1 ] || fail "$name: exit status $status"
	! grep "LET THROUGH" out || fail "$name was let through"
	[ "$(wc -l <err)" -le 2 ] || fail "$name: $(cat err)"
	grep -q "against the rules" err || fail "$name: does not say so: $(cat err)"
	case $name in
	*-when-ready|ready-twice)
		# The device is in use: it stays, for a cowd that is in order.
		[ -e /dev/mapper/mydev ] || fail "$name: the device went"
		cowd -p raw mydev base.img || fail "$name: cannot be served again"
		dd if=/dev/mapper/mydev bs=1M count=1 status=none |
			cmp -n 1048576 - base.img || fail "$name: reads wrong"
		cowctl stop mydev || fail "$name: cowctl stop"
		;;
	esac
	nothing_left "$name"
	breaches=$((breaches + 1))
done
[ $breaches -ge 25 ] || fail "$breaches breaches only"
echo "ok $SECONDS s: $breaches kinds of messages ended the worker"

# ---- requests beyond its rights -------------------------------------------

mkdir -p in/sub out
mv base.img in/
echo secret >out/secret
ln -s ../out/secret in/link
ln -s ../out in/sub/dir
ln -s /etc/shadow in/shadow
ln -s /proc/self/fd/0 in/fd
mkfifo in/pipe
cp in/base.img in/neighbour

paths=0
refused_path()
{
	timeout 30 $hostile open mydev "$work/in/base.img" "$1" >out.log 2>err </dev/null
	grep -q ^refused out.log || fail "open $1: $(cat out.log err)"
	paths=$((paths + 1))
	nothing_left "open $1"
}

for path in /etc/shadow /etc/passwd "$work/out/secret" "$work/in/../out/secret" \
	"$work/in/sub/../../out/secret" "$work/in/link" "$work/in/sub/dir/secret" \
	"$work/in/shadow" "$work/in/fd" "$work/in//./..//out/secret" \
	"$work/in" "$work/in/sub" "$work/in/pipe" "" . .. / in/base.img base.img \
	/proc/self/mem /proc/self/fd/0 /proc/self/fd/5 /proc/self/root/etc/shadow \
	/proc/self/cwd/etc/shadow /proc/1/root/etc/shadow /proc/1/mem /proc/kcore \
	/dev/mem /dev/null /dev/dm-userspace /dev/mapper/control /dev/loop-control \
	/dev/vda /run/cowd/mydev.json /run/cowd/mydev.sock "$work/in-not/x" \
	"$work/in/base.img/" "$work/in/base.img/../../out/secret" \
	"$(printf '/x%.0s' $(seq 3000))"; do
	refused_path "$path"
done
# What is allowed is not refused: else the above would show nothing.
for path in "$work/in/neighbour" "$work/in/sub/../neighbour" /proc/self/cwd"$work"/in/neighbour; do
	timeout 30 $hostile open mydev "$work/in/base.img" "$path" >out.log 2>err </dev/null
	grep -q "it was done" out.log || fail "open $path: $(cat out.log err)"
done
echo "ok $SECONDS s: $paths paths refused"

for what in files flags geometries; do
	timeout 60 $hostile $what mydev "$work/in/base.img" >out.log 2>err </dev/null
	! grep "LET THROUGH" out.log || fail "$what"
	n=$(grep -c ^refused out.log)
	[ "$n" -ge 3 ] || fail "$what: $(cat out.log err)"
	nothing_left "$what"
	echo "ok $SECONDS s: $what: $n refused"
done

# What it says is printed as text, in one line.
timeout 30 $hostile log mydev "$work/in/base.img" >out.log 2>err </dev/null
[ "$(grep -c three err)" = 1 ] && grep one err | grep -q three ||
	fail "a line of its own in the log: $(cat -v err)"
! grep -q '[[:cntrl:]]' err || fail "control characters in the log: $(cat -v err)"

# ---- the same by an image ----------------------------------------------------

# The base of an overlay is a link that leads away after the overlay was made;
# the same bytes are there, so that only the place can be the reason.
cd in || exit 1
cp base.img ../out/base.img
for target in ../out/base.img "$work/out/base.img" sub/dir/base.img /proc/self/cwd"$work"/out/base.img; do
	rm -f a.dscow backing
	ln -s base.img backing
	dscow_tool -c a.dscow backing >/dev/null || die "dscow_tool"
	rm backing
	cp -p base.img ../out/base.img
	ln -s "$target" backing
	refused "overlay over $target" allow-backing -p dscow mydev a.dscow
done
for target in "$work/out/base.img" ../out/base.img sub/../../out/base.img; do
	rm -f a.dscow
	dscow_tool -c a.dscow "$target" >/dev/null || die "dscow_tool"
	refused "overlay that names $target" allow-backing -p dscow mydev a.dscow
done
