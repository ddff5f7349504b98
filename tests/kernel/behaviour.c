// SPDX-License-Identifier: GPL-2.0-or-later
/* What the target does with good answers, with none, and with lost daemons. */
#include "lib.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Most tests: 100 blocks of 8 sectors and 3 more; two places and a base. */
#define BS 8
#define SECTORS (100 * BS + 3)
#define DEV_SECTORS 4096
#define TAG_A 1
#define TAG_B 2
#define TAG_BASE 3
#define BASE 2			/* index of the base */

static struct dev *a, *b, *base;
static struct disk *d;
static struct chan *c;

static void setup_features(const char *table, uint64_t features)
{
	struct disk want = { .sectors = SECTORS, .bs = BS, .features = table };

	a = dev_new(DEV_SECTORS);
	b = dev_new(DEV_SECTORS);
	base = dev_new(DEV_SECTORS);
	dev_fill(a, TAG_A);
	dev_fill(b, TAG_B);
	dev_fill(base, TAG_BASE);
	want.devs[0] = a->path;
	want.devs[1] = b->path;
	want.devs[2] = base->path;
	d = disk_new(&want);
	c = chan_new(d, features);
}

static void setup(void)
{
	setup_features(NULL, 0);
}

/* The whole disk on @dev at @sector, unasked. */
static void all_linear(uint32_t dev, uint64_t sector, uint32_t flags)
{
	re_send(c, re_preload(re_linear(0, 0, d->blocks, dev, sector, flags)));
}

static void smoke(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	io = io_start(d, IO_READ, 3 * BS, BS, 0);
	ev = ev_want(c, DMU_EV_MAP, 3, 1, 0);
	io_pending(io);
	re_send(c, re_linear(ev.id, 3, 1, 0, 64, DMU_RE_REMEMBER));
	io_ok(io);
	check(filled(io->buf, BS, TAG_A, 64), "wrong data");
	disk_expect(d, 3 * BS, BS, TAG_A, 64);

	io = io_start(d, IO_WRITE, 3 * BS + 2, 2, 77);
	ev = ev_want(c, DMU_EV_MAP, 3, 1, DMU_EV_WRITE);
	io_pending(io);
	re_send(c, re_linear(ev.id, 3, 1, 1, 128,
			     DMU_RE_REMEMBER | DMU_RE_WRITABLE));
	io_ok(io);
	dev_check(b, 130, 2, 77, 3 * BS + 2);
	disk_expect(d, 3 * BS, 2, TAG_B, 128);
	disk_flush(d);
	ev_none(c);
}

static const struct test tests[] = {
	{ "smoke", smoke },
};

int main(int argc, char **argv)
{
	(void)all_linear;
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
