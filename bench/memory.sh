# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# A root in memory, for what starts programs while a clock runs. In the test machine programs are
# files of the computer that it runs on: each start waits for them, and a clock that
# counts instructions jumps meanwhile.
root=

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

# shared DIR: what is mounted in it later is there wherever it is bound to.
shared() { mount --bind "$1" "$1" && mount --make-shared "$1"; }

# root_in_memory FILE...: with these and the plugins, in $root; it is not there on a host.
root_in_memory()
{
	local dir
	[ -d /run/vm ] || return 0
	root=$(mktemp -d /tmp/root.XXXXXX)
	chmod 755 "$root"
	cp -a /bin /sbin /lib /lib64 "$root"	# links into /usr
	with_libraries "$@" "$(type -P bash)" "$(pkg-config --variable=plugindir cow-plugin)" \
		/etc/ld.so.cache /etc/passwd /etc/group /etc/nsswitch.conf /usr/lib/locale/C.utf8 |
		cpio -pdm --quiet "$root" || return
	echo "cowd:x:991:991::/nonexistent:/usr/sbin/nologin" >>"$root/etc/passwd"	# as README has it
	mkdir "$root/tmp"
	chmod 1777 "$root/tmp"
	shared "$work" && cd "$work" || return
	for dir in proc sys dev run "${work#/}"; do
		mkdir -p "$root/$dir"
		mount --rbind "/$dir" "$root/$dir" || return
	done
}

# in_memory COMMAND...: functions and variables are as they are here; files are by name.
in_memory()
{
	[ "$root" ] || { "$@"; return; }
	{
		declare -p | grep -vE '^declare -[^ ]*r|^declare -[^ ]* (BASH|FUNCNAME|DIRSTACK|GROUPS|PIPESTATUS)'
		declare -f
		printf '%q ' cd "$PWD"
		printf '\nroot=\n'
		printf '%q ' "$@"
	} | chroot "$root" bash
}

# timed COMMAND...: how many microseconds it took.
timed()
{
	local from=${EPOCHREALTIME/[!0-9]/}
	"$@" && echo $((${EPOCHREALTIME/[!0-9]/} - from))
}

# No start is to wait until it gives up.
cowd() { in_memory command cowd "$@"; }
