// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-userspace: start and stop.
 */
#include "dmu.h"

#include <linux/module.h>

#define CREATE_TRACE_POINTS
#include "trace.h"

static int __init dmu_init(void)
{
	int r;

	r = dmu_map_init();
	if (r)
		return r;
	r = dmu_channel_init();
	if (r)
		goto exit_map;
	r = dm_register_target(&dmu_target_type);
	if (r)
		goto exit_channel;
	return 0;

exit_channel:
	dmu_channel_exit();
exit_map:
	dmu_map_exit();
	return r;
}

static void __exit dmu_exit(void)
{
	dm_unregister_target(&dmu_target_type);
	dmu_channel_exit();
	dmu_map_exit();
}

module_init(dmu_init);
module_exit(dmu_exit);

MODULE_DESCRIPTION("device-mapper target that asks a daemon where blocks live");
MODULE_AUTHOR("The dm-userspace authors");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-userspace");
