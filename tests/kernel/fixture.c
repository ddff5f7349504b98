// SPDX-License-Identifier: GPL-2.0-or-later
/* See fixture.h. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

struct dev *a, *b, *base;
struct disk *d;
struct chan *c;

static char path_a[32], path_base[32];

static struct dev *gate_dev(const char *name)
{
	return strcmp(name, NAME_GATE_A) ? base : a;
}

static void gate_table(const char *name, const char *target,
		       const char *more)
{
	char params[128];
	int err;

	snprintf(params, sizeof(params), more ? "%s 0 %s" : "",
		 gate_dev(name)->path, more);
	err = dm_load(name, DEV_SECTORS, target, params, false);
	check(!err, "gate %s: %s", name, strerror(err));
	err = dm_suspend(name, DM_NOFLUSH | DM_NOLOCKFS) ?: dm_resume(name);
	check(!err, "gate %s: %s", name, strerror(err));
}

void gate_shut(const char *name)
{
	int err = dm_suspend(name, DM_NOFLUSH | DM_NOLOCKFS);

	check(!err, "gate %s: %s", name, strerror(err));
}

void gate_open(const char *name)
{
	int err = dm_resume(name);

	check(!err, "gate %s: %s", name, strerror(err));
}

void gate_break(const char *name)
{
	gate_table(name, "error", NULL);
}

void gate_break_writes(const char *name)
{
	sh("modprobe -q dm-flakey");
	gate_table(name, "flakey", "0 1 1 error_writes");
}

void gate_mend(const char *name)
{
	gate_table(name, "linear", "");
}

void gate_stat(const char *name, char *line, int size)
{
	const char *gate = strcmp(name, NAME_GATE_A) ? path_base : path_a;
	char path[64];
	struct stat st;
	FILE *f;

	check(!stat(gate, &st), "gate %s: no node %s", name, gate);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat",
		 major(st.st_rdev), minor(st.st_rdev));
	f = fopen(path, "r");
	check(f && fgets(line, size, f), "gate %s: no counts", name);
	fclose(f);
}

static const char *gate_new(const char *name, struct dev *dev, char *path,
			    size_t len)
{
	int err = dm_linear_over(name, dev, path, len);

	check(!err, "gate %s: %s", name, strerror(err));
	return path;
}

#define NAME_POOL	"dmutpool"
#define NAME_THIN	"dmutthin"

static char pool[200], thin[32];

static void thin_step(const char *what, int err)
{
	check(!err, "thin device: %s: %s", what, strerror(err));
}

void thin_room(unsigned int chunks)
{
	thin_step("load", dm_load(NAME_POOL, chunks * THIN_CHUNK, "thin-pool", pool, false));
	thin_step("suspend", dm_suspend(NAME_POOL, DM_NOFLUSH | DM_NOLOCKFS));
	thin_step("resume", dm_resume(NAME_POOL));
}

/* Chunks of @data, as they are written to. */
static const char *thin_new(struct dev *data)
{
	struct dev *meta = dev_new(16384);
	char path[32], params[64];

	if (sh("modprobe -q dm-thin-pool"))
		fail("no dm-thin-pool in this kernel");
	snprintf(pool, sizeof(pool),
		 "%s %s %u 0 2 skip_block_zeroing error_if_no_space", meta->path,
		 data->path, THIN_CHUNK);
	thin_step("create", dm_create(NAME_POOL, NULL));
	thin_room(1);
	thin_step("message", dm_message(NAME_POOL, "create_thin 0"));
	thin_step("create", dm_create(NAME_THIN, NULL));
	snprintf(params, sizeof(params), "%s 0", dm_path(NAME_POOL, path, sizeof(path)));
	thin_step("load", dm_load(NAME_THIN, data->sectors, "thin", params, false));
	thin_step("resume", dm_resume(NAME_THIN));
	return dm_path(NAME_THIN, thin, sizeof(thin));
}

void setup_with(const struct setup *s)
{
	struct disk want = { .sectors = SECTORS, .bs = s->bs ? s->bs : BS,
			     .features = s->table };

	a = dev_new(DEV_SECTORS);
	b = dev_new(DEV_SECTORS);
	base = dev_new(DEV_SECTORS);
	dev_fill(a, TAG_A);
	dev_fill(b, TAG_B);
	dev_fill(base, TAG_BASE);
	want.devs[0] = a->path;
	want.devs[1] = b->path;
	want.devs[BASE] = base->path;
	if (s->gates & GATE_A)
		want.devs[0] = gate_new(NAME_GATE_A, a, path_a, sizeof(path_a));
	if (s->gates & THIN_A)
		want.devs[0] = thin_new(a);
	if (s->gates & GATE_BASE)
		want.devs[BASE] = gate_new(NAME_GATE_BASE, base, path_base,
					   sizeof(path_base));
	d = disk_new(&want);
	if (!s->no_daemon)
		c = chan_new(d, s->features);
}

void setup(void)
{
	setup_with(&(struct setup){ 0 });
}

void all_linear(uint32_t dev, uint64_t sector, uint32_t flags)
{
	re_send(c, re_preload(re_linear(0, 0, d->blocks, dev, sector, flags)));
}

void all_cow(uint32_t dev, uint64_t sector, uint32_t src_dev, uint64_t src)
{
	re_send(c, re_preload(re_cow(0, 0, d->blocks, dev, sector, src_dev,
				     src)));
}

/* What it had not committed is not committed by that. */
void daemon_gone(void)
{
	uint64_t dirty = disk_status(d, "metadata_dirty");

	chan_close(c);
	c = NULL;
	check_eq(disk_status(d, "metadata_dirty"), dirty);
}

void daemon_back(uint64_t features)
{
	c = chan_raw(d, features);
}

void commit_ok(void)
{
	re_send(c, re_flushed(ev_flush(c), 0));
}

void flush_and_commit(void)
{
	struct io *io = io_start(d, IO_FLUSH, 0, 0, 0);
	struct dmu_event ev;

	while ((ev = ev_get(c)).type == DMU_EV_COPIED)
		;
	check(ev.type == DMU_EV_FLUSH, "event %u instead of FLUSH", ev.type);
	re_send(c, re_flushed(ev.id, 0));
	io_ok(io);
}
