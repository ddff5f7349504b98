#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# --help and the manual page of cowd and cowctl know the same options, and the
# same exit statuses; --version says the version.  cowctl's page knows each key of
# status --json, and each state.
set -eu
dir=${srcdir:-$(dirname "$0")}
status=0

# The long options in a text, one a line.
options()
{
	sed 's/\\//g' | grep -o -- '--[a-z][a-z-]*' | sort -u
}

for program in cowd cowctl; do
	./$program --help >$program.help
	options <$program.help >$program.help-options
	# Options that the page lists, each at the head of a paragraph.
	grep -A1 '^\.TP' "$dir/$program.8" | options >$program.man-options
	diff $program.help-options $program.man-options || {
		echo "$program: --help (<) and $program.8 (>) differ in options" >&2
		status=1
	}
	for number in $(sed -n '/EXIT STATUS/,/^\.SH [^E]/s/^\.B \([0-9]\)$/\1/p' "$dir/$program.8"); do
		tr '\n' ' ' <$program.help | grep -q "Exit status:.*$number" || {
			echo "$program: --help does not know exit status $number" >&2
			status=1
		}
	done
	./$program --version | grep -q "^$program (dm-userspace) [0-9]" || {
		echo "$program: --version says: $(./$program --version)" >&2
		status=1
	}
	code=0
	./$program --no-such-option 2>/dev/null || code=$?
	[ $code = 2 ] || {
		echo "$program: exit status $code for wrong usage" >&2
		status=1
	}
	rm -f $program.help $program.help-options $program.man-options
done

# The words in quotation marks of report.c and clients.c that status --json prints.
sed '/^char \*cowd_report_done/,$d' "$dir/report.c" |
	grep -o 'add[a-z_]*(o, "[a-z_]*"' | cut -d'"' -f2 >keys
sed -n 's/^\t\[[A-Z]*\] = "\([a-z]*\)",$/\1/p' "$dir/clients.c" >>keys
[ "$(wc -l <keys)" -gt 50 ] || {
	echo "the keys of status --json are not found in report.c and clients.c" >&2
	status=1
}
sed -n '/^\.SH JSON/,/^\.SH EXIT/p' "$dir/cowctl.8" | tr -c 'a-z_\n' ' ' >page
while read -r key; do
	grep -qw "$key" page || {
		echo "cowctl.8, JSON: does not tell of $key" >&2
		status=1
	}
done <keys
rm -f keys page
exit $status
