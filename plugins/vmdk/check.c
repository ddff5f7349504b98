// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmdk.h"

#include <common/num.h>

#include <errno.h>
#include <stdlib.h>

/* Tables are as they should be: nobody needs to look again. */
static int check_flag(struct vmdk *v, struct vmdk_extent *e,
		      struct cow_check *check, bool repair)
{
	int ret = 0;

	if (repair)
		ret = vmdk_set_unclean(v, e, false);
	if (!ret)
		cow_check_found(check, COW_FOUND_LEAK, repair,
			"file %u: the image was not closed after it was written",
			e->file);
	return ret;
}

static int check_extent(struct vmdk *v, struct vmdk_extent *e,
			struct cow_check *check, bool repair)
{
	struct vmdk_scan scan = {
		.v = v, .e = e, .check = check, .repair = repair,
		.units = num_div_up(e->end, e->h.grain_size),
	};
	int ret;

	scan.ref = calloc(1, num_div_up(scan.units, 8));
	if (!scan.ref)
		return -ENOMEM;
	ret = vmdk_scan(&scan);
	free(scan.ref);
	if (!ret && e->h.unclean && !scan.corrupt)
		ret = check_flag(v, e, check, repair);
	return ret;
}

/*
 * An image that is open for its disk to be written has been looked at by the
 * open; its tables are not written behind the back of the cache.
 */
int vmdk_check(void *handle, struct cow_check *check, bool repair)
{
	struct vmdk *v = handle;
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < v->nr_extents; i++) {
		if (v->extents[i].type == VMDK_SPARSE)
			ret = check_extent(v, &v->extents[i], check,
					   repair && !v->writable);
	}
	return ret;
}
