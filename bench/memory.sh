# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# A root in memory, for what starts programs while a clock runs. In the test machine programs are
# files of the computer that it runs on: each start waits for them, and a clock that
# counts instructions jumps meanwhile.

# with_libraries FILE...: those, the folders' files, all they are linked with, where links lead.
with_libraries()
{
	local file
	find "$@" ! -type d | while read -r file; do
		echo "$file"
		ldd "$file" 2>/dev/null | grep -o '/[^ ]*'
	done | sort -u | while read -r file; do
		echo "$(readlink -f "$(dirname "$file")")/$(basename "$file")"
		readlink -f "$file"
	done | sort -u
}

# root_in_memory FILE...: with these, in $root; empty on a host, where files are in memory anyway.
root_in_memory()
{
	local dir
	root=
	[ -d /run/vm ] || return 0
	root=$(mktemp -d /tmp/root.XXXXXX)
	later "rm -rf $root"
	chmod 755 "$root"
	cp -a /bin /sbin /lib /lib64 "$root"	# links into /usr
	with_libraries "$@" "$(command -v bash)" /etc/ld.so.cache /etc/passwd /etc/group /etc/nsswitch.conf |
		cpio -pdm --quiet "$root" || return
	echo "cowd:x:991:991::/nonexistent:/usr/sbin/nologin" >>"$root/etc/passwd"	# as README has it
	mkdir -p "$root/tmp"
	chmod 1777 "$root/tmp"
	for dir in proc sys dev run "${work#/}"; do
		mkdir -p "$root/$dir"
		mount --rbind "/$dir" "$root/$dir" || return
		later "umount -l $root/$dir"
	done
}

# in_memory COMMAND...: functions and variables are as they are here; $work is there.
in_memory()
{
	[ "$root" ] || { "$@"; return; }
	{
		declare -p | grep -vE '^declare -[^ ]*r|^declare -[^ ]* (BASH|FUNCNAME|DIRSTACK|GROUPS|PIPESTATUS)'
		declare -f
		printf '%q ' cd "$work"
		echo
		printf '%q ' "$@"
	} | chroot "$root" bash
}
