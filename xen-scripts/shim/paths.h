/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where things are on a Xen host; the test has a ROOT of its own. */
#ifndef SHIM_PATHS_H
#define SHIM_PATHS_H

#ifndef ROOT
#define ROOT		""
#endif

#define DEVICES		ROOT "/dev/mapper/"
#define SYSTEMD		ROOT "/run/systemd/system"
#define RECORDS		ROOT "/run/cowd"		/* of cowd: NAME.json */
#define LOCKS		ROOT "/var/run/xen-hotplug"	/* as in Xen's locking.sh */
#define LOG		ROOT "/var/log/xen/xen-hotplug.log"

#endif /* SHIM_PATHS_H */
