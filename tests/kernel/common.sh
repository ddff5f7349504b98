# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the scripts here: where the programs are, and that nothing is left.

kernel_dir=${DMU_KERNEL_TESTS:-${DMU_BUILD_DIR:-$(dirname "$0")/../../build}/tests/kernel}

program() {
	if [ ! -x "$kernel_dir/$1" ]; then
		echo "$kernel_dir/$1 is missing: build the tree first" >&2
		return 2
	fi
	"$kernel_dir/$@"
}

# The test is over: no device is left, and the module can go and come.
leave() {
	local status=$1
	if dmsetup ls 2>/dev/null | grep -q '^dmut'; then
		echo "not ok - devices are left: $(dmsetup ls | tr '\n' ' ')"
		status=1
	fi
	if [ -n "${DMU_MODULE:-}" ]; then
		if ! rmmod dm_userspace; then
			echo "not ok - the module cannot be removed"
			status=1
		elif ! insmod "$DMU_MODULE"; then
			echo "not ok - the module cannot be loaded again"
			status=1
		fi
	fi
	exit "$status"
}
