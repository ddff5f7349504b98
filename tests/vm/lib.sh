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

# The first of the programs that is not there.
lacking()
{
	local tool
	for tool; do
		command -v "$tool" >/dev/null || { echo "$tool"; return; }
	done
}

# need TOOL...: a fresh machine gets what is missing by its own package manager.
need()
{
	local tool
	tool=$(lacking "$@")
	[ -n "$tool" ] || return 0
	note "$tool is not installed; scripts/setup vm is run"
	"$VM_TOP/scripts/setup" vm >&2 ||
		die "$tool is missing, and scripts/setup vm could not install it (see above)"
	tool=$(lacking "$@")
	[ -z "$tool" ] || die "$tool is not installed"
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

# What a healthy kernel does not say.
TROUBLE='WARNING: |BUG: |kernel BUG at|Oops: |general protection fault|Kernel panic|'
TROUBLE+='BUG [a-z0-9_-]+ .*(overwritten|corrupt|freed|Invalid)|detected (expedited )?stall|blocked for more than|self-detected stall|soft lockup|hard LOCKUP|'
TROUBLE+='INFO: possible|INFO: suspicious|INFO: trying to register non-static key|'
TROUBLE+='possible (circular|recursive|irq lock)|inconsistent lock state|suspicious RCU|'
TROUBLE+='KASAN: |UBSAN: |KCSAN: |ODEBUG: |DEBUG_LOCKS_WARN_ON|refcount_t: |'
TROUBLE+='list_(add|del) corruption|sleeping function called|scheduling while atomic|'
TROUBLE+='unreferenced object|Objects remaining|'
TROUBLE+='unable to handle|stack segment:|divide error:|invalid opcode:|Unknown symbol'
# What it says at boot all the same.
HARMLESS='(Spectre|RETBleed|SRSO|MDS|TAA|MMIO|VMSCAPE|Speculative).*WARNING'

# trouble_in ALLOW FILE...: the first that is found, with the lines that follow; ALLOW is forgiven.
trouble_in()
{
	local allow=$1 file found
	shift
	for file; do
		[ -s "$file" ] || continue
		found=$(tr -d '\r' <"$file" | grep -aE "$TROUBLE" | grep -avE "$HARMLESS${allow:+|$allow}" |
			head -n 1 || true)
		if [ -n "$found" ]; then
			# The lines that follow say where.
			tr -d '\r' <"$file" | grep -aF -m 1 -A 60 -e "$found" || true
			return
		fi
	done
	return 1
}
