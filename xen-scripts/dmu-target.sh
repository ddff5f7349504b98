# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034 # block-dmu uses what is set here
#
# Sourced by block-dmu: what a disk's target= means.
#
#	FORMAT:IMAGE[:BASE][:OPTION=VALUE...]
#
# Paths are absolute. In all fields %XX stands for the character of that hexadecimal
# number, so that paths can have colons (%3A), blanks (%20), commas (%2C) and percent
# signs (%25).  docs/xen.md lists the options.

# Replaces what %XX stands for; sets REPLY.
dmu_decode()
{
	local text=$1
	if [[ ! $text =~ ^([^%]|%[0-9A-Fa-f][0-9A-Fa-f])*$ || $text == *%00* ]]; then
		dmu_error="target=$dmu_target: in $text a % is not followed by a character's number; write %25 for a percent sign"
		return 1
	fi
	text=${text//\\/\\\\}
	printf -v REPLY %b "${text//%/\\x}"
}

# What the device stands on: systemd wants absolute paths.
dmu_needs() { [ "${1#/}" = "$1" ] || dmu_paths+=("$1"); }

# dmu_option NAME VALUE
dmu_option()
{
	case $1 in
	size) dmu_size=$2 ;;
	block-size) dmu_create+=(-s "$2") ;;
	base-format) dmu_base_format=$2 ;;
	create.?*) dmu_create+=(-o "${1#create.}=$2") ;;
	open.?*) dmu_open+=(-o "${1#open.}=$2") ;;
	allow-backing | allow-write)
		dmu_cowd+=("--$1" "$2")
		dmu_needs "$2"
		;;
	policy | no-space | map-memory | cache-size | scratch-size) dmu_cowd+=("--$1" "$2") ;;
	*)
		dmu_error="target=$dmu_target: $1 is no option; there are size, block-size, base-format, \
create.NAME, open.NAME, allow-backing, allow-write, policy, no-space, map-memory, cache-size and scratch-size"
		return 1
		;;
	esac
}

# dmu_field NUMBER TEXT
dmu_field()
{
	dmu_decode "$2" || return
	case $1:$REPLY in
	1:*) dmu_format=$REPLY ;;
	2:/*) dmu_image=$REPLY ;;
	3:/*) dmu_base=$REPLY ;;
	[3-9]:?*=* | [1-9][0-9]:?*=*) dmu_option "${REPLY%%=*}" "${REPLY#*=}" ;;
	2:*)
		dmu_error="target=$dmu_target: '$REPLY' is no absolute path of an image"
		return 1
		;;
	*)
		dmu_error="target=$dmu_target: '$REPLY' is neither an absolute path of a base nor OPTION=VALUE; write %3A for a colon in a path"
		return 1
		;;
	esac
}

# dmu_parse TARGET: sets dmu_format, dmu_image, dmu_base (or ''), dmu_base_format,
# dmu_size (or ''), the arrays dmu_create (options of cowimg create), dmu_open (of the
# format, to open it), dmu_cowd and dmu_paths (of files and folders that are needed); or
# fails with one sentence in dmu_error.
dmu_parse()
{
	local rest=$1: number=0 field
	dmu_target=$1 dmu_error='' dmu_format='' dmu_image='' dmu_base='' dmu_base_format=raw dmu_size=''
	dmu_create=() dmu_open=() dmu_cowd=() dmu_paths=()

	while [ -n "$rest" ]; do
		field=${rest%%:*}
		rest=${rest#*:}
		number=$((number + 1))
		dmu_field "$number" "$field" || return
	done
	if [[ ! $dmu_format =~ ^[a-z0-9][a-z0-9_-]*$ || -z $dmu_image ]]; then
		dmu_error="target=$dmu_target: should be FORMAT:/path/of/image[:/path/of/base][:OPTION=VALUE...]"
		return 1
	fi
	[ -z "$dmu_base" ] || dmu_cowd+=(--allow-backing "$dmu_base")
	dmu_paths=("$dmu_image" ${dmu_base:+"$dmu_base"} "${dmu_paths[@]}")
}

# dmu_make_command: how to make the image that does not exist, in the array REPLY.
dmu_make_command()
{
	REPLY=(cowimg create -f "$dmu_format" "${dmu_create[@]}")
	[ -z "$dmu_base" ] || REPLY+=(-b "$dmu_base" -F "$dmu_base_format")
	if [ -z "$dmu_base$dmu_size" ]; then
		dmu_error="$dmu_image does not exist; to have it made, name its base after it, or add :size=SIZE"
		return 1
	fi
	REPLY+=("$dmu_image" ${dmu_size:+"$dmu_size"})
}

# dmu_cowd_command NAME MODE: in the array REPLY. MODE is r or w, as Xen's scripts have it.
dmu_cowd_command()
{
	REPLY=(cowd -p "$dmu_format" "${dmu_open[@]}" "${dmu_cowd[@]}")
	[ "$2" != r ] || REPLY+=(--read-only)
	REPLY+=("$1" "$dmu_image")
}
