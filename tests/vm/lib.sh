# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034 # others use the names
# What the scripts of this folder share. Sourced, never run.

# A failure within $(...) counts, too.
shopt -s inherit_errexit

# Where the scripts are, and the tree that they belong to.
VM_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
VM_TOP=$(cd "$VM_DIR/../.." && pwd -P)
VM_CACHE=${DMU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dm-userspace}
VM_BUILD=${DMU_BUILD_DIR:-$VM_TOP/build}
VM_KERNELS="6.1 6.12 7.2 debug xen"

# depmod, mke2fs and the rest of sbin are needed even where a user's PATH lacks them.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

note() { echo "${0##*/}: $*" >&2; }

die()
{
	note "$*"
	exit "${VM_DIE_STATUS:-2}"
}

need()
{
	local tool
	for tool; do
		command -v "$tool" >/dev/null ||
			die "$tool is not installed; run $VM_TOP/scripts/setup first"
	done
}

check_kernel_name()
{
	case " $VM_KERNELS " in
	*" $1 "*) ;;
	*) die "$1: no such kernel; choose one of: $VM_KERNELS" ;;
	esac
}

# locked FILE COMMAND [ARG...]: run COMMAND while nobody else holds FILE. Call it in
# a subshell where its failure is not to end the script.
# The descriptor is closed for the command's children, so that a daemon that one
# of them leaves behind cannot keep the lock.
locked()
{
	local file=$1 fd
	shift
	mkdir -p "$(dirname "$file")"
	exec {fd}>>"$file"
	# Not worth a word when it is short.
	if ! flock -w 3 "$fd"; then
		note "waiting for another run that holds $file"
		flock "$fd"
	fi
	# No "||" here: it would switch off errexit within the command.
	"$@" {fd}>&-
	exec {fd}>&-
}
