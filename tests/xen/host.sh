#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All that is tested on a Xen host, on one: to boot it takes as long as to boot a guest.
#
# host.sh [NAME...]: only these of guests, hotplug, formats and reboot
set -u

here=$(cd "$(dirname "$0")" && pwd)
status=0
[ $# -gt 0 ] || set -- guests hotplug formats reboot
for name; do
	"$here/$name.sh" || status=1
done
exit $status
