#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# dmu-xl, by what xl's own parser makes of what it writes.
set -u

src=$(cd "${srcdir:-$(dirname "$0")}" && pwd)
built=$PWD
[ -x "$built/xl-disk" ] || { echo "xl's parser (libxlutil) was not there at configure"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export TMPDIR=$work
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

# becomes SPECIFICATION "VDEV|MODE|TYPE|SCRIPT|TARGET": as xl reads what it becomes.
becomes()
{
	local got
	got=$("$built/xl-disk" "$("$src/dmu-xl" disk "$1")" 2>&1)
	[ "$got" = "$2" ] || fail "$1: xl reads $got, and not $2"
}

refuses()
{
	"$src/dmu-xl" disk "$1" >out 2>err && fail "takes $1"
	[ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$2" err || fail "$1: says $(cat out err)"
}

# The line that this is for: xl's own answer first.
line='dmu:dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4,hda1,w'
"$built/xl-disk" "$line" >/dev/null 2>err && fail "xl takes $line by itself: dmu-xl is needed no more"
becomes "$line" 'hda1|w|disk|block-dmu|dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4'
becomes 'tap:aio:/a,sda1,w' 'sda1|w|disk|block-dmu|raw:/a'
becomes 'tap:sync:/a,sda1,r' 'sda1|r|disk|block-dmu|raw:/a'
becomes 'tap:qcow:/a,sda1,w' 'sda1|w|disk|block-dmu|qcow:/a'
becomes 'tap:qcow2:/a,sda1,w' 'sda1|w|disk|block-dmu|qcow2:/a'
becomes 'tap:vmdk:/a,sda1,w' 'sda1|w|disk|block-dmu|vmdk:/a'
becomes 'tap:ram:/a,sda1,w' 'sda1|w|disk|block-dmu|ram:/a'
becomes 'tap:vhd:/a,sda1,w' 'sda1|w|disk|block-dmu|vhd:/a'
becomes 'tap2:tapdisk:vhd:/a,/dev/xvda1,w!' 'xvda1|w|disk|block-dmu|vhd:/a'
becomes ' tap:aio:/a b:c%d , hdc:cdrom , ro ' 'hdc|r|cdrom|block-dmu|raw:/a%20b%3Ac%25d'
becomes 'dmu:qcow2:/a%2Cb:block-size=64k,xvdb:disk,rw' 'xvdb|w|disk|block-dmu|qcow2:/a%2Cb:block-size=64k'
becomes 'dmu:raw:/a,xvdb,w,0' 'xvdb|w|disk|block-dmu|raw:/a'
becomes 'phy:/dev/vg/a,xvdb,w' 'xvdb|w|disk||/dev/vg/a'
becomes 'tapestry,raw,xvdb,r' 'xvdb|r|disk||tapestry'
refuses 'tap:bochs:/a,sda1,w' 'tap:bochs: is no type'
# Devices as numbers, access that is missing or empty, and settings behind: as xl has them.
becomes 'dmu:raw:/a,51712,w' '51712|w|disk|block-dmu|raw:/a'
becomes 'dmu:raw:/a,0xca00,r' '0xca00|r|disk|block-dmu|raw:/a'
becomes 'tap:aio:/a,sda1' 'sda1|w|disk|block-dmu|raw:/a'
becomes 'tap:aio:/a,hdc:cdrom' 'hdc|r|cdrom|block-dmu|raw:/a'
becomes 'dmu:raw:/a,xvda,' 'xvda|w|disk|block-dmu|raw:/a'
becomes 'dmu:raw:/a,xvda,,access=r' 'xvda|r|disk|block-dmu|raw:/a'
becomes 'dmu:raw:/a,xvda,w,direct-io-safe,no-discard' 'xvda|w|disk|block-dmu|raw:/a'
becomes 'dmu:raw:/a,xvda,r,devtype=cdrom' 'xvda|r|cdrom|block-dmu|raw:/a'
[ "$("$src/dmu-xl" disk 'dmu:raw:/a,xvda,w,direct-io-safe,backend=disks,discard')" = \
	'vdev=xvda,access=w,direct-io-safe,backend=disks,discard,script=block-dmu,target=raw:/a' ] ||
	fail "settings: $("$src/dmu-xl" disk 'dmu:raw:/a,xvda,w,direct-io-safe,backend=disks,discard')"
# An overlay whose base lies elsewhere is refused by cowd; this line names the base.
becomes 'dmu:qcow:/srv/a:/golden/b,sda1,w' 'sda1|w|disk|block-dmu|qcow:/srv/a:/golden/b'
refuses 'dmu:dscow:/a' 'should be dmu:FORMAT:IMAGE[:BASE],DEVICE[,MODE]'
refuses 'dmu:dscow:/a,0xcz,w' '0xcz is no device'
refuses 'dmu:dscow:/a,xvda,w,script=block' 'script=block: is said by'
refuses 'dmu:dscow:/a,sda1,w,0,x' 'should be dmu:'
refuses 'dmu:dscow:/a,sd a,w' 'sd a is no device of a guest'
refuses 'dmu:dscow:/a,sda:tape,w' 'tape is neither'
refuses 'dmu:dscow:/a,sda,x' 'x is neither r nor w'

# A whole configuration: everything else stays, byte for byte.
cat >legacy.cfg <<'END'
# disk = [ "dmu:dscow:/no:/no,hda1,w" ]	a comment with a ' in it
name = "guest"; memory = 64
extra = 'disk=[ "tap:aio:/x,sda1,w" ]'
disk = [ "dmu:dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4,hda1,w",	# tap:aio:/x,sda1,w
	 'phy:/dev/vg/x,xvdc,r',
# "tap:ram:/x,sda1,w"
	 'tap:vhd:/b,xvdd,w', ]
vif = [ "tap:aio:/x,sda1,w" ]
END
"$src/dmu-xl" rewrite legacy.cfg >new.cfg || fail "rewrite"
[ "$(diff legacy.cfg new.cfg | grep -c '^<')" = 2 ] || fail "changed: $(diff legacy.cfg new.cfg)"
"$src/dmu-xl" rewrite new.cfg | cmp - new.cfg || fail "rewriting twice is not the same"
[ "$("$src/dmu-xl" rewrite <legacy.cfg)" = "$(cat new.cfg)" ] || fail "from standard input"
cat >wanted <<'END'
hda1|w|disk|block-dmu|dscow:/tmp/fedora4.dscow:/dev/vols/Fedora4
xvdc|r|disk||/dev/vg/x
xvdd|w|disk|block-dmu|vhd:/b
END
"$built/xl-disk" -f new.cfg | diff wanted - || fail "xl reads another configuration"
printf 'name="x"\ndisk=["phy:/a,xvda,w"]\n' >plain.cfg
"$src/dmu-xl" rewrite plain.cfg | cmp - plain.cfg || fail "changes what it need not"
printf 'name="x"\n\ndisk=["dmu:/a"]\n' >bad.cfg
"$src/dmu-xl" rewrite bad.cfg >out 2>err && fail "takes bad.cfg"
grep -q 'bad.cfg: line 3: dmu:/a: should be' err || fail "$(cat err)"

# In xl's place: what xl is called with, and the file that it finds.
cat >xl <<'END'
#!/bin/bash
printf '<%s>' "$@"; echo
for a; do [ ! -f "$a" ] || cat "$a"; done
exit 7
END
chmod +x xl
export DMU_XL=$work/xl

# calls WANTED ARGUMENT...: the folder of a rewritten file is shown as NEW.
calls()
{
	local want=$1 got
	shift
	got=$("$src/dmu-xl" "$@" 2>&1)
	[ $? = 7 ] || fail "$*: xl's exit status is lost: $got"
	got=$(sed "s|$work/dmu-xl\.[A-Za-z0-9]*|NEW|" <<<"$got")
	[ "$got" = "$want" ] || fail "$*: $got, and not $want"
}

calls "<-v><create><-q><NEW/legacy.cfg><memory=5>
$(cat new.cfg)" -v create -q legacy.cfg memory=5
calls "<create><-f><NEW/legacy.cfg><-c>
$(cat new.cfg)" create -f legacy.cfg -c
calls "<create><--defconfig=NEW/legacy.cfg>" create --defconfig=legacy.cfg
calls "<config-update><guest><NEW/legacy.cfg>
$(cat new.cfg)" config-update guest legacy.cfg
calls "<create><NEW/plain.cfg><disk=['vdev=sda,access=w,script=block-dmu,target=raw:/x y']>
$(cat plain.cfg)" create plain.cfg "disk=['dmu:raw:/x y,sda,w']"
calls "<block-attach><0><vdev=xvda1,access=w,backend=0,script=block-dmu,target=raw:/a>" \
	block-attach 0 tap:aio:/a /dev/xvda1 w 0
calls "<block-attach><guest><vdev=xvda,access=r,script=block-dmu,target=qcow2:/a:/b>" \
	block-attach guest dmu:qcow2:/a:/b,xvda,r
calls "<block-attach><guest><phy:/dev/x><xvdb><w>" block-attach guest phy:/dev/x xvdb w
calls "<block-attach><guest><vdev=xvdb><target=/a,b>" block-attach guest vdev=xvdb target=/a,b
calls "<block-attach><guest><vdev=xvda,access=w,script=block-dmu,target=raw:/a>" \
	block-attach guest ' tap:aio:/a' xvda w
calls "<destroy><two words><>" destroy 'two words' ''
"$src/dmu-xl" create bad.cfg >out 2>err && fail "takes bad.cfg"
[ ! -s out ] || fail "calls xl for bad.cfg"
"$src/dmu-xl" create none.cfg >out 2>err && fail "takes none.cfg"
grep -q 'none.cfg: cannot be read' err || fail "$(cat err)"
[ -z "$(find "$work" -name 'dmu-xl.*')" ] || fail "left a file"

[ "$failed" = 0 ] && echo "PASS test-xl.sh"
exit "$failed"
