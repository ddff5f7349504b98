# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# For tests of a format against qemu-img, without a kernel. A script begins
#
#	. "${srcdir:-$(dirname "$0")}/lib.sh"
#	need qemu-img
#
# works in an empty folder of its own, calls check NAME COMMAND... for each
# thing that must hold, and ends with finish. It fails when one of them fails,
# and when it does not get to finish. FORMATS_SEED=N replays a run.

set -u

case $0 in /*) ME=$0 ;; *) ME=$PWD/$0 ;; esac
FORMATS_SRC=$(cd "$(dirname "$ME")" && pwd)
# make check runs in the build folder; by hand it is where ./check builds.
BUILD=$PWD/../..
[ -x "$BUILD/tests/formats/image-io" ] ||
	BUILD=${DMU_BUILD_DIR:-$(cd "$FORMATS_SRC/../.." && pwd)/build}
# shellcheck source=tests/built.sh disable=SC1091
. "$FORMATS_SRC/../built.sh"
IMAGE_IO=$BUILD/tests/formats/image-io
COWD_PLUGIN_DIR=${COWD_PLUGIN_DIR:-$BUILD/plugins}
export COWD_PLUGIN_DIR
# FORMATS_SEED=random is another run each time.
SEED=${FORMATS_SEED:-1}
[ "$SEED" != random ] || SEED=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
REFUSE_SECONDS=${REFUSE_SECONDS:-10}
REFUSE_KIB=${REFUSE_KIB:-524288}

ME=${ME##*/}
NR=0 FAILED=0
WORK=$(mktemp -d) || exit 1
trap 'status=$?; rm -rf "$WORK"; [ "$status" != 0 ] || status=1; exit "$status"' EXIT
cd "$WORK" || exit 1
echo "# $ME: seed $SEED; FORMATS_SEED=$SEED does the same again"
[ -x "$IMAGE_IO" ] || { echo "$ME: $IMAGE_IO is not built; make check builds it"; exit 1; }

# A program that is not there is a test that did not run.
need()
{
	command -v "$1" >/dev/null && return
	echo "$ME: SKIP: $1 is not installed"
	exit 77
}

# The same for a format that this tree does not have.
need_plugin()
{
	[ -e "$BUILD/plugins/$1/$1.la" ] && return
	echo "$ME: SKIP: there is no plugin $1"
	exit 77
}

# A new seed out of the run's.
next_seed() { SEED=$(((SEED * 1103515245 + 12345) % 4294967296)); }

# qemu-img, which is heard only if it fails.
qimg() { qemu-img "$@" >qimg.log 2>&1 || { cat qimg.log; return 1; }; }

# from_contents OPTIONS [CONVERT-ARGUMENT...]: a qcow2 image of the raw file contents.
from_contents()
{
	local options=$1
	shift
	rm -f image data.raw
	qimg convert -f raw -O qcow2 "$@" ${options:+-o "$options"} contents image
}

# check NAME COMMAND...: the command succeeds. What it prints is for a failure.
check()
{
	local name=$1
	shift
	NR=$((NR + 1))
	# Until it has succeeded: an error in an expression in it ends this as well.
	FAILED=$((FAILED + 1))
	if "$@" >check.log 2>&1; then
		FAILED=$((FAILED - 1))
		echo "ok $NR - $name"
	else
		echo "not ok $NR - $name: $*"
		sed 's/^/#	/' check.log
	fi
}

finish()
{
	echo "1..$NR"
	[ "$FAILED" = 0 ] || echo "# $FAILED failed"
	[ "$NR" -gt 0 ] && [ "$FAILED" = 0 ] || exit 1
	trap - EXIT
	rm -rf "$WORK"
	exit 0
}

# The name of qemu's driver for one of our formats.
qemu_format()
{
	case $1 in
	ram) echo raw ;;
	vhd) echo vpc ;;
	*) echo "$1" ;;
	esac
}

# qemu_image FORMAT PATH: as its --image-opts want it. FORMAT may go on with
# options of the driver: "vpc,force_size_calc=current_size".
qemu_image() { echo "driver=$1,file.driver=file,file.filename=$2"; }

# make_random PATH SIZE SEED: a raw file of data and holes.
make_random() { "$IMAGE_IO" make "$@"; }

# same_contents A B: two raw files, to the last byte.
same_contents()
{
	local a b
	a=$(stat -c %s "$1") b=$(stat -c %s "$2")
	[ "$a" = "$b" ] || { echo "$1 has $a bytes, $2 has $b"; return 1; }
	qemu-img compare -f raw -F raw "$1" "$2"
}

# oracle_raw FORMAT IMAGE OUT [QEMU-FORMAT]: what qemu-img reads.
oracle_raw()
{
	local image
	image=$(qemu_image "${4:-$(qemu_format "$1")}" "$2")
	qemu-img convert -U --image-opts -O raw "$image" "$3"
}

# oracle_read FORMAT IMAGE [QEMU-FORMAT [OPTION...]]: we read what qemu-img
# reads. OPTIONs are for image-io: -o NAME=VALUE.
oracle_read()
{
	local format=$1 image=$2 qemu=${3:-}
	shift "$(($# < 3 ? $# : 3))"
	"$IMAGE_IO" read "$@" "$format" "$image" ours.raw &&
		oracle_raw "$format" "$image" theirs.raw "$qemu" &&
		same_contents ours.raw theirs.raw
	set -- $?
	rm -f ours.raw theirs.raw
	return "$1"
}

# check_image FORMAT IMAGE [leaks]: qemu-img check finds nothing; leaks may be.
# Formats that qemu-img cannot check are fine: status 63 says so.
check_image()
{
	local status
	qemu-img check -f "$(qemu_format "$1")" "$2"
	status=$?
	case $status in
	0 | 63) return 0 ;;
	3) [ "${3:-}" = leaks ] && return 0 ;;
	esac
	echo "qemu-img check $2 ends with $status"
	return 1
}

# oracle_write FORMAT IMAGE SEED OPS [QEMU-FORMAT [OPTION...]]: random
# operations by us; then qemu-img finds no damage and what was written.
oracle_write()
{
	local format=$1 image=$2 seed=$3 ops=$4 qemu=${5:-}
	shift "$(($# < 5 ? $# : 5))"
	echo "seed $seed, $ops operations"
	oracle_raw "$format" "$image" mirror.raw "$qemu" &&
		"$IMAGE_IO" load "$@" "$format" "$image" mirror.raw "$seed" "$ops" &&
		check_image "$format" "$image" &&
		oracle_raw "$format" "$image" after.raw "$qemu" &&
		same_contents after.raw mirror.raw
	set -- $?
	rm -f mirror.raw after.raw
	return "$1"
}

# oracle_stop FORMAT IMAGE SEED OPS [QEMU-FORMAT [OPTION...]]: the same, but
# the process ends with writes that no flush followed, as by a crash: no damage
# but leaked space, all that was flushed is there, and each sector written
# since is as it was or as written. Then it can be written again.
oracle_stop()
{
	local format=$1 image=$2 seed=$3 ops=$4 qemu=${5:-}
	shift "$(($# < 5 ? $# : 5))"
	echo "seed $seed, $ops operations, no commit"
	oracle_raw "$format" "$image" mirror.raw "$qemu" &&
		"$IMAGE_IO" load --no-commit "$@" "$format" "$image" mirror.raw "$seed" "$ops" &&
		check_image "$format" "$image" leaks &&
		oracle_raw "$format" "$image" after.raw "$qemu" &&
		"$IMAGE_IO" between after.raw mirror.raw mirror.raw.now &&
		"$IMAGE_IO" load "$@" "$format" "$image" after.raw "$((seed + 1))" 20 &&
		check_image "$format" "$image" leaks
	set -- $?
	rm -f mirror.raw mirror.raw.now after.raw
	return "$1"
}

# Runs with little memory and not for long; what it says goes to refused.log.
limited()
{
	(ulimit -v "$REFUSE_KIB"; timeout -k 1 "$REFUSE_SECONDS" "$@") >refused.out 2>refused.log
}

# refused IMAGE TEXT COMMAND...: it fails, with one sentence that names the
# image and has TEXT (grep -E) in it; within limits, not by a signal; and the
# image is as it was.
refused()
{
	local image=$1 text=$2 status before
	shift 2
	before=$(sum_of "$image")
	limited "$@"
	status=$?
	cat refused.log
	case $status in
	1 | 2) ;;
	0) echo "$image: was not refused"; return 1 ;;
	124 | 137) echo "$image: took longer than $REFUSE_SECONDS s"; return 1 ;;
	*) echo "$image: status $status"; return 1 ;;
	esac
	[ "$(wc -l <refused.log)" = 1 ] || { echo "$image: no single sentence"; return 1; }
	grep -qF -- "${image##*/}" refused.log || { echo "the sentence does not name $image"; return 1; }
	grep -qE -- "$text" refused.log || { echo "the sentence does not say: $text"; return 1; }
	[ "$before" = "$(sum_of "$image")" ] || { echo "$image: was changed"; return 1; }
}

# Contents of a file of reasonable size; else its size and time of change.
sum_of()
{
	if [ "$(stat -c %b "$1")" -lt 65536 ] && [ "$(stat -c %s "$1")" -lt 1073741824 ]; then
		sha256sum <"$1"
	else
		stat -c '%s %y' "$1"
	fi
}

# What is here, but for the notes of scripts: who writes a file changes its size,
# time or inode.
state()
{
	local f
	for f in *; do
		case $f in out | err | check.log | before | now) continue ;; esac
		stat -c '%n %s %y %i' "$f"
	done
}

# expect_refused FORMAT IMAGE TEXT [OPTION...]: opening fails; -w in OPTIONs
# opens it for writing.
expect_refused()
{
	local format=$1 image=$2 text=$3
	shift 3
	refused "$image" "$text" "$IMAGE_IO" open "$@" "$format" "$image"
}

# expect_unreadable FORMAT IMAGE TEXT [OPTION...]: it opens; reading all of it
# fails.
expect_unreadable()
{
	local format=$1 image=$2 text=$3
	shift 3
	"$IMAGE_IO" open "$@" "$format" "$image" || return 1
	refused "$image" "$text" "$IMAGE_IO" read "$@" "$format" "$image"
}

# poke FILE OFFSET BYTES: bytes in printf's notation.
poke() { printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
