// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One test for each reply and each attach that must be refused.  A refused
 * reply changes nothing: the status is the same to the last number, the
 * question stays owed, and a good answer still works.
 */
#include "fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The scene: a read of block 2 and a write of block 4 were asked for; block
 * 50 is RO on device 0, 51 RW on device 0, 52 COW to device 0; device 3 is
 * read-only, device 4 has sectors of 4 KiB.
 */
#define READONLY	3
#define BIG_SECTORS	4

/* No address; volatile, so that the compiler does not know. */
static void *volatile nowhere;

static struct io *rd, *wr;
static uint64_t rd_id, wr_id;

static void scene(void)
{
	struct disk want = { .sectors = SECTORS - 3 + 8, .bs = BS };
	static char ro[80];
	struct dev *r;

	a = dev_new(DEV_SECTORS);
	b = dev_new(DEV_SECTORS);
	base = dev_new(DEV_SECTORS);
	r = dev_new(DEV_SECTORS);
	dev_fill(a, TAG_A);
	dev_fill(b, TAG_B);
	dev_fill(base, TAG_BASE);
	snprintf(ro, sizeof(ro), "ro:%s", r->path);
	want.devs[0] = a->path;
	want.devs[1] = b->path;
	want.devs[BASE] = base->path;
	want.devs[READONLY] = ro;
	want.devs[BIG_SECTORS] = dev_new_opts(DEV_SECTORS, 4096, 0)->path;
	d = disk_new(&want);
	c = chan_new(d, 0);
	re_send(c, re_preload(re_linear(0, 50, 1, 0, 400, 0)));
	re_send(c, re_preload(re_linear(0, 51, 1, 0, 408, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 52, 1, 0, 416, BASE, 416)));
	rd = io_start(d, IO_READ, 2 * BS, BS, 0);
	rd_id = ev_want(c, DMU_EV_MAP, 2, 1, 0).id;
	wr = io_start(d, IO_WRITE, 4 * BS, BS, 9);
	wr_id = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE).id;
}

static char before[1000];

static void note(void)
{
	disk_status_text(d, before, sizeof(before));
}

static void unchanged(void)
{
	char after[1000];

	disk_status_text(d, after, sizeof(after));
	check(!strcmp(before, after), "the refused reply changed the status:\n%s\n%s",
	      before, after);
	ev_none(c);
}

/* Everything still works. */
static void still_good(void)
{
	io_pending(rd);
	re_send(c, re_linear(rd_id, 2, 1, 0, 16, DMU_RE_REMEMBER));
	io_ok(rd);
	check(filled(rd->buf, BS, TAG_A, 16), "wrong data");
	re_send(c, re_linear(wr_id, 4, 1, 0, 32, RW));
	io_ok(wr);
	disk_expect(d, 50 * BS, BS, TAG_A, 400);
	disk_expect(d, 51 * BS, BS, TAG_A, 408);
	disk_expect(d, 52 * BS, BS, TAG_BASE, 416);
	ev_none(c);
}

/* --- one wrong field each --------------------------------------------------- */

enum from { LINEAR, COW, ZERO, ERROR, FAIL, FLUSHED, DONE, INVALIDATE, COMMIT,
	    PRE_LINEAR, PRE_COW, WRITE, NR_FROM };

static struct dmu_reply good(enum from from)
{
	switch (from) {
	case LINEAR:
		return re_linear(rd_id, 2, 1, 0, 16, DMU_RE_REMEMBER);
	case COW:
		return re_cow(rd_id, 2, 1, 0, 16, BASE, 16);
	case ZERO:
		return re_kind(rd_id, 2, 1, DMU_KIND_ZERO, DMU_RE_REMEMBER);
	case ERROR:
		return re_kind(rd_id, 2, 1, DMU_KIND_ERROR, DMU_RE_REMEMBER);
	case FAIL:
		return re_fail(rd_id, 2, 1, EIO);
	case FLUSHED:
		return re_flushed(rd_id, 0);
	case DONE:
		return re_done(rd_id, 0);
	case INVALIDATE:
		return re_invalidate(1, 2, 1);
	case COMMIT:
		return re_commit();
	case PRE_LINEAR:
		return re_preload(re_linear(0, 2, 1, 0, 16, 0));
	case PRE_COW:
		return re_preload(re_cow(0, 2, 1, 0, 16, BASE, 16));
	default:
		return re_linear(wr_id, 4, 1, 0, 32, RW);
	}
}

enum field { TYPE, FLAGS, ID, BLOCK, COUNT, KIND, ERRNO, DEV, SRC_DEV, SECTOR_,
	     SRC_SECTOR, BITMAP_LEN, PAD, RES0, RES1, RES2 };

static void set(struct dmu_reply *r, enum field f, uint64_t v)
{
	switch (f) {
	case TYPE: r->type = v; break;
	case FLAGS: r->flags = v; break;
	case ID: r->id = v; break;
	case BLOCK: r->block = v; break;
	case COUNT: r->count = v; break;
	case KIND: r->kind = v; break;
	case ERRNO: r->error = v; break;
	case DEV: r->dev = v; break;
	case SRC_DEV: r->src_dev = v; break;
	case SECTOR_: r->sector = v; break;
	case SRC_SECTOR: r->src_sector = v; break;
	case BITMAP_LEN: r->bitmap_len = v; break;
	case PAD: r->pad = v; break;
	case RES0: case RES1: case RES2: r->reserved[f - RES0] = v; break;
	}
}

/* Up to three fields differ from a good reply. */
struct bad {
	const char *name;
	enum from from;
	int err;
	struct { enum field f; uint64_t v; } set[4];
	unsigned int n;
};

#define F1(f, v)		{ { f, v } }, 1
#define F2(f, v, g, w)		{ { f, v }, { g, w } }, 2
#define F3(f, v, g, w, h, x)	{ { f, v }, { g, w }, { h, x } }, 3
#define F4(f, v, g, w, h, x, i, y) { { f, v }, { g, w }, { h, x }, { i, y } }, 4
#define MAX64 UINT64_MAX
#define BLOCKS 101

static const struct bad bads[] = {
	/* types, kinds, flags */
	{ "type_0", LINEAR, EINVAL, F1(TYPE, 0) },
	{ "type_8", LINEAR, EINVAL, F1(TYPE, 8) },
	{ "type_max", LINEAR, EINVAL, F1(TYPE, UINT32_MAX) },
	{ "kind_0", LINEAR, EINVAL, F1(KIND, 0) },
	{ "kind_5", ZERO, EINVAL, F1(KIND, 5) },
	{ "kind_max", ZERO, EINVAL, F1(KIND, UINT32_MAX) },
	{ "flag_8", LINEAR, EINVAL, F1(FLAGS, 8) },
	{ "flag_top", LINEAR, EINVAL, F1(FLAGS, 1U << 31) },
	{ "flag_writable_cow", COW, EINVAL, F1(FLAGS, RW) },
	{ "flag_writable_zero", ZERO, EINVAL, F1(FLAGS, RW) },
	{ "flag_writable_error", ERROR, EINVAL, F1(FLAGS, RW) },
	{ "flag_remember_preload", PRE_LINEAR, EINVAL, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "flag_remember_preload_cow", PRE_COW, EINVAL, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "flag_writable_preload_cow", PRE_COW, EINVAL, F1(FLAGS, DMU_RE_WRITABLE) },
	{ "flag_remember_fail", FAIL, EINVAL, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "flag_metadata_fail", FAIL, EINVAL, F1(FLAGS, DMU_RE_METADATA) },
	{ "flag_metadata_flushed", FLUSHED, EINVAL, F1(FLAGS, DMU_RE_METADATA) },
	{ "flag_metadata_done", DONE, EINVAL, F1(FLAGS, DMU_RE_METADATA) },
	{ "flag_metadata_invalidate", INVALIDATE, EINVAL, F1(FLAGS, DMU_RE_METADATA) },
	{ "flag_remember_invalidate", INVALIDATE, EINVAL, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "flag_remember_commit", COMMIT, EINVAL, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "flag_forget_commit", COMMIT, EINVAL, F1(FLAGS, DMU_RE_FORGET) },
	{ "flag_forget_done", DONE, EINVAL, F1(FLAGS, DMU_RE_FORGET) },
	{ "flag_forget_map", LINEAR, EINVAL, F1(FLAGS, DMU_RE_FORGET) },

	/* ids */
	{ "id_0", LINEAR, ENOENT, F1(ID, 0) },
	{ "id_never", LINEAR, ENOENT, F1(ID, 1ULL << 40) },
	{ "id_max", LINEAR, ENOENT, F1(ID, MAX64) },
	{ "id_cow_never", COW, ENOENT, F1(ID, 1ULL << 40) },
	{ "id_zero_never", ZERO, ENOENT, F1(ID, 1ULL << 40) },
	{ "id_elsewhere", LINEAR, ENOENT, F1(BLOCK, 3) },
	{ "id_of_another", WRITE, ENOENT, F1(BLOCK, 2) },
	{ "id_fail_never", FAIL, ENOENT, F1(ID, 1ULL << 40) },
	{ "id_fail_0", FAIL, ENOENT, F1(ID, 0) },
	{ "id_fail_elsewhere", FAIL, ENOENT, F1(BLOCK, 3) },
	{ "id_flushed_map", FLUSHED, ENOENT, F1(ERRNO, 0) },
	{ "id_flushed_0", FLUSHED, ENOENT, F1(ID, 0) },
	{ "id_done_map", DONE, ENOENT, F1(ERRNO, 0) },
	{ "id_done_0", DONE, ENOENT, F1(ID, 0) },
	{ "id_invalidate_0", INVALIDATE, EINVAL, F1(ID, 0) },

	/* extents */
	{ "count_0", LINEAR, EINVAL, F1(COUNT, 0) },
	{ "count_0_cow", COW, EINVAL, F1(COUNT, 0) },
	{ "count_0_fail", FAIL, EINVAL, F1(COUNT, 0) },
	{ "count_0_invalidate", INVALIDATE, EINVAL, F1(COUNT, 0) },
	{ "count_0_preload", PRE_LINEAR, EINVAL, F1(COUNT, 0) },
	{ "range_end", LINEAR, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_cow", COW, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_zero", ZERO, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_error", ERROR, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_fail", FAIL, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_invalidate", INVALIDATE, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_end_preload", PRE_LINEAR, ERANGE, F1(COUNT, BLOCKS - 1) },
	{ "range_start", PRE_LINEAR, ERANGE, F1(BLOCK, BLOCKS) },
	{ "range_start_cow", PRE_COW, ERANGE, F1(BLOCK, BLOCKS) },
	{ "range_start_max", LINEAR, ERANGE, F1(BLOCK, MAX64) },
	{ "range_start_fail", FAIL, ERANGE, F1(BLOCK, BLOCKS) },
	{ "range_start_invalidate", INVALIDATE, ERANGE, F1(BLOCK, BLOCKS) },
	{ "range_wrap", LINEAR, ERANGE, F1(COUNT, MAX64) },
	{ "range_wrap_0", LINEAR, ERANGE, F1(COUNT, MAX64 - 1) },
	{ "range_wrap_shift", LINEAR, ERANGE, F1(COUNT, 1ULL << 61) },
	{ "range_wrap_shift_1", LINEAR, ERANGE, F1(COUNT, (1ULL << 61) + 1) },
	{ "range_wrap_fail", FAIL, ERANGE, F1(COUNT, MAX64) },
	{ "range_wrap_invalidate", INVALIDATE, ERANGE, F1(COUNT, MAX64) },
	{ "range_wrap_preload", PRE_LINEAR, ERANGE, F2(BLOCK, 100, COUNT, MAX64 - 98) },
	{ "range_cow_longest", COW, ERANGE, F1(COUNT, DMU_MAX_COW_BLOCKS) },
	{ "range_cow_too_long", COW, ERANGE, F1(COUNT, DMU_MAX_COW_BLOCKS + 1) },
	{ "range_cow_max", COW, ERANGE, F1(COUNT, MAX64) },

	/* places */
	{ "dev_past_table", LINEAR, ENXIO, F1(DEV, 5) },
	{ "dev_255", LINEAR, ENXIO, F1(DEV, 255) },
	{ "dev_256", LINEAR, ENXIO, F1(DEV, 256) },
	{ "dev_none", LINEAR, ENXIO, F1(DEV, DMU_DEV_NONE) },
	{ "dev_past_table_cow", COW, ENXIO, F1(DEV, 5) },
	{ "dev_none_cow", COW, ENXIO, F1(DEV, DMU_DEV_NONE) },
	{ "src_past_table", COW, ENXIO, F1(SRC_DEV, 5) },
	{ "src_almost_none", COW, ENXIO, F1(SRC_DEV, DMU_DEV_NONE - 1) },
	{ "place_end", LINEAR, ERANGE, F1(SECTOR_, DEV_SECTORS - 7) },
	{ "place_past", LINEAR, ERANGE, F1(SECTOR_, DEV_SECTORS) },
	{ "place_far", LINEAR, ERANGE, F1(SECTOR_, 1ULL << 52) },
	{ "place_max", LINEAR, ERANGE, F1(SECTOR_, MAX64) },
	{ "place_wrap", LINEAR, ERANGE, F1(SECTOR_, MAX64 - 6) },
	{ "place_end_cow", COW, ERANGE, F1(SECTOR_, DEV_SECTORS - 7) },
	{ "place_wrap_cow", COW, ERANGE, F1(SECTOR_, MAX64 - 6) },
	{ "source_end", COW, ERANGE, F1(SRC_SECTOR, DEV_SECTORS - 7) },
	{ "source_wrap", COW, ERANGE, F1(SRC_SECTOR, MAX64 - 6) },
	{ "place_end_preload", PRE_LINEAR, ERANGE, F1(SECTOR_, DEV_SECTORS - 7) },
	{ "readonly_writable", LINEAR, EROFS, F2(DEV, READONLY, FLAGS, RW) },
	{ "readonly_writable_once", WRITE, EROFS, F2(DEV, READONLY, FLAGS, DMU_RE_WRITABLE) },
	{ "readonly_cow", COW, EROFS, F1(DEV, READONLY) },
	{ "readonly_preload", PRE_LINEAR, EROFS, F2(DEV, READONLY, FLAGS, DMU_RE_WRITABLE) },
	{ "misaligned", LINEAR, EINVAL, F2(DEV, BIG_SECTORS, SECTOR_, 12) },
	{ "misaligned_1", LINEAR, EINVAL, F2(DEV, BIG_SECTORS, SECTOR_, 1) },
	{ "misaligned_cow", COW, EINVAL, F2(DEV, BIG_SECTORS, SECTOR_, 12) },
	{ "misaligned_source", COW, EINVAL, F2(SRC_DEV, BIG_SECTORS, SRC_SECTOR, 12) },

	/* COW onto itself */
	{ "cow_on_itself", COW, EINVAL, F2(SRC_DEV, 0, SRC_SECTOR, 16) },
	{ "cow_overlap_up", COW, EINVAL, F2(SRC_DEV, 0, SRC_SECTOR, 9) },
	{ "cow_overlap_down", COW, EINVAL, F2(SRC_DEV, 0, SRC_SECTOR, 23) },
	{ "cow_overlap_long", COW, EINVAL, F3(SRC_DEV, 0, SRC_SECTOR, 88, COUNT, 10) },

	/* rights */
	{ "write_readonly", WRITE, EPERM, F1(FLAGS, DMU_RE_REMEMBER) },
	{ "write_readonly_once", WRITE, EPERM, F1(FLAGS, 0) },
	{ "write_zero", WRITE, EPERM, F4(FLAGS, DMU_RE_REMEMBER, KIND, DMU_KIND_ZERO, SECTOR_, 0, DEV, 0) },
	{ "write_zero_once", WRITE, EPERM, F4(FLAGS, 0, KIND, DMU_KIND_ZERO, SECTOR_, 0, DEV, 0) },

	/* what can be written through is there */
	{ "exist_rw_elsewhere", PRE_LINEAR, EEXIST, F3(BLOCK, 51, SECTOR_, 800, FLAGS, DMU_RE_WRITABLE) },
	{ "exist_rw_by_ro", PRE_LINEAR, EEXIST, F3(BLOCK, 51, SECTOR_, 408, FLAGS, 0) },
	{ "exist_rw_other_dev", PRE_LINEAR, EEXIST, F4(BLOCK, 51, SECTOR_, 408, FLAGS, DMU_RE_WRITABLE, DEV, 1) },
	{ "exist_rw_by_cow", PRE_COW, EEXIST, F3(BLOCK, 51, SECTOR_, 408, SRC_SECTOR, 408) },
	{ "exist_rw_by_zero", ZERO, EEXIST, F4(TYPE, DMU_RE_PRELOAD, FLAGS, 0, ID, 0, BLOCK, 51) },
	{ "exist_rw_by_error", ERROR, EEXIST, F4(TYPE, DMU_RE_PRELOAD, FLAGS, 0, ID, 0, BLOCK, 51) },
	{ "exist_cow_by_linear", PRE_LINEAR, EEXIST, F3(BLOCK, 52, SECTOR_, 416, FLAGS, DMU_RE_WRITABLE) },
	{ "exist_cow_by_ro", PRE_LINEAR, EEXIST, F2(BLOCK, 52, SECTOR_, 416) },
	{ "exist_cow_by_cow", PRE_COW, EEXIST, F3(BLOCK, 52, SECTOR_, 424, SRC_SECTOR, 416) },
	{ "exist_cow_by_zero", ZERO, EEXIST, F4(TYPE, DMU_RE_PRELOAD, FLAGS, 0, ID, 0, BLOCK, 52) },
	{ "exist_in_answer", LINEAR, EEXIST, F1(COUNT, 60) },
	{ "exist_in_answer_once", LINEAR, EEXIST, F2(COUNT, 60, FLAGS, 0) },
	{ "exist_at_end", PRE_LINEAR, EEXIST, F3(BLOCK, 40, COUNT, 12, FLAGS, 0) },
	{ "exist_at_start", PRE_LINEAR, EEXIST, F2(BLOCK, 52, COUNT, 12) },

	/* errnos */
	{ "errno_fail_0", FAIL, EINVAL, F1(ERRNO, 0) },
	{ "errno_fail_4096", FAIL, EINVAL, F1(ERRNO, 4096) },
	{ "errno_fail_negative", FAIL, EINVAL, F1(ERRNO, (uint32_t)-EIO) },
	{ "errno_fail_2_31", FAIL, EINVAL, F1(ERRNO, 1U << 31) },
	{ "errno_flushed_4096", FLUSHED, EINVAL, F1(ERRNO, 4096) },
	{ "errno_done_4096", DONE, EINVAL, F1(ERRNO, 4096) },

	/* bitmaps that do not fit the count, or are longer than any write() */
	{ "bitmap_length", COW, EINVAL, F1(BITMAP_LEN, 16) },
	{ "bitmap_length_less", COW, EINVAL, F2(BITMAP_LEN, 8, COUNT, 65) },
	{ "bitmap_length_odd", COW, EINVAL, F1(BITMAP_LEN, 4) },
	{ "bitmap_max", COW, EINVAL, F1(BITMAP_LEN, UINT32_MAX) },
	{ "bitmap_count_wraps", COW, EINVAL, F2(BITMAP_LEN, 8, COUNT, MAX64) },
};

/* Every field that a type does not use, one by one. */
struct unused {
	enum from from;
	const char *name;
	unsigned int fields;
};

#define B(f) (1U << (f))
#define ALWAYS (B(PAD) | B(RES0) | B(RES1) | B(RES2))
#define COW_ONLY (B(SRC_DEV) | B(SRC_SECTOR) | B(BITMAP_LEN))
#define PLACE (B(DEV) | B(SECTOR_))
#define EXTENT (B(BLOCK) | B(COUNT))

static const struct unused unused[] = {
	{ LINEAR, "linear", ALWAYS | COW_ONLY | B(ERRNO) },
	{ COW, "cow", ALWAYS | B(ERRNO) },
	{ ZERO, "zero", ALWAYS | COW_ONLY | PLACE | B(ERRNO) },
	{ ERROR, "error", ALWAYS | COW_ONLY | PLACE | B(ERRNO) },
	{ PRE_LINEAR, "preload_linear", ALWAYS | COW_ONLY | B(ERRNO) | B(ID) },
	{ PRE_COW, "preload_cow", ALWAYS | B(ERRNO) | B(ID) },
	{ FAIL, "fail", ALWAYS | COW_ONLY | PLACE | B(KIND) },
	{ FLUSHED, "flushed", ALWAYS | COW_ONLY | PLACE | B(KIND) | EXTENT },
	{ DONE, "done", ALWAYS | COW_ONLY | PLACE | B(KIND) | EXTENT },
	{ INVALIDATE, "invalidate", ALWAYS | COW_ONLY | PLACE | B(KIND) | B(ERRNO) },
	{ COMMIT, "commit", ALWAYS | COW_ONLY | PLACE | B(KIND) | EXTENT | B(ID) | B(ERRNO) },
};

static const char *const field_names[] = {
	"type", "flags", "id", "block", "count", "kind", "error", "dev",
	"src_dev", "sector", "src_sector", "bitmap_len", "pad", "reserved0",
	"reserved1", "reserved2",
};

static void refuse(const struct dmu_reply *r, int want)
{
	int err;

	note();
	err = re_try(c, r);
	check(err == want, "%s, not %s", err ? strerror(err) : "taken",
	      strerror(want));
	unchanged();
}

/* The tests in the table are told apart by this. */
static size_t which;

static void run_bad(void)
{
	const struct bad *bad = &bads[which];
	struct dmu_reply r;
	unsigned int i;

	scene();
	r = good(bad->from);
	for (i = 0; i < bad->n; i++)
		set(&r, bad->set[i].f, bad->set[i].v);
	refuse(&r, bad->err);
	still_good();
}

static void run_unused(void)
{
	const struct unused *u = &unused[which];
	/* 8 is the length of a good bitmap, where there may be one. */
	static const uint64_t values[] = { 1, 8, 1ULL << 31 };
	unsigned int f, v;

	scene();
	for (f = 0; f <= RES2; f++) {
		for (v = 0; u->fields & B(f) && v < ARRAY_SIZE(values); v++) {
			struct dmu_reply r = good(u->from);
			int err;

			set(&r, f, values[v]);
			note();
			err = re_try(c, &r);
			check(err == EINVAL, "%s = %llx in %s: %s",
			      field_names[f], (unsigned long long)values[v],
			      u->name, err ? strerror(err) : "taken");
			unchanged();
		}
	}
	still_good();
}

/* A zero source has no sector. */
static void zero_source_sector(void)
{
	struct dmu_reply r;

	scene();
	r = re_cow(rd_id, 2, 1, 0, 16, DMU_DEV_NONE, 8);
	refuse(&r, EINVAL);
	still_good();
}

/* What is right at the edges is taken. */
static void edges_taken(void)
{
	scene();
	re_send(c, re_linear(rd_id, 0, 50, 0, DEV_SECTORS - 400,
			     DMU_RE_REMEMBER));
	io_ok(rd);
	re_send(c, re_preload(re_linear(0, 100, 1, 0, DEV_SECTORS - 8, 0)));
	re_send(c, re_preload(re_linear(0, 60, 1, BIG_SECTORS, 8, 0)));
	re_send(c, re_preload(re_linear(0, 61, 1, READONLY, 3, 0)));
	re_send(c, re_preload(re_cow(0, 62, 2, 0, 800, 0, 816)));
	re_send(c, re_preload(re_cow(0, 64, 2, 0, 832, 0, 816)));
	re_send(c, re_preload(re_cow(0, 66, 1, 1, 5, BIG_SECTORS, 16)));
	re_send(c, re_preload(re_cow(0, 67, 1, 1, 16, READONLY, 5)));
	disk_write(d, 62 * BS, 2 * BS, 9);	/* the disk's sectors are 4 KiB */
	disk_write(d, 67 * BS, BS, 9);
	re_send(c, re_linear(wr_id, 4, 1, 0, 32, RW));
	io_ok(wr);
	ev_none(c);
}

/* A place so far away that the map cannot say it. */
static void place_too_far(void)
{
	struct disk want = { .sectors = 800, .bs = BS };
	struct dmu_reply r;
	char path[40];

	check_eq(dm_create("dmutfar", NULL), 0);
	check_eq(dm_load("dmutfar", (1ULL << 53) + 800, "zero", "", false), 0);
	if (dm_resume("dmutfar"))
		fail("no device of 2^62 bytes here");
	want.devs[0] = dm_path("dmutfar", path, sizeof(path));
	d = disk_new(&want);
	c = chan_new(d, 0);
	r = re_preload(re_linear(0, 0, 1, 0, 1ULL << 52, 0));
	refuse(&r, ERANGE);
	r.sector--;
	r.sector &= ~7ULL;
	re_send(c, r);
	r = re_preload(re_linear(0, 1, 1, 0, (1ULL << 53) + 8, 0));
	refuse(&r, ERANGE);
	disk_expect_zero(d, 0, 8);
}

/* The mapping of one that stands there already is no change. */
static void exist_equal_taken(void)
{
	scene();
	re_send(c, re_preload(re_linear(0, 51, 1, 0, 408, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_linear(0, 50, 1, 1, 0, DMU_RE_WRITABLE)));
	disk_expect(d, 50 * BS, BS, TAG_B, 0);
	check_eq(disk_status(d, "extents"), 3);
	re_send(c, re_fail(rd_id, 2, 1, EIO));
	io_fails(rd, EIO);
	re_send(c, re_fail(wr_id, 4, 1, EIO));
	io_fails(wr, EIO);
}

/* --- the same id twice -------------------------------------------------------- */

static void twice(void)
{
	struct dmu_reply r;

	scene();
	r = re_linear(rd_id, 2, 1, 0, 16, 0);
	re_send(c, r);
	io_ok(rd);
	refuse(&r, ENOENT);
	r = re_fail(rd_id, 2, 1, EIO);
	refuse(&r, ENOENT);
	re_send(c, re_fail(wr_id, 4, 1, EIO));
	io_fails(wr, EIO);
	r = re_fail(wr_id, 4, 1, EIO);
	refuse(&r, ENOENT);
}

static void flushed_twice(void)
{
	struct dmu_reply r;
	struct io *io;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE | DMU_RE_METADATA);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	r = re_flushed(ev_flush(c), 0);
	r.id++;
	refuse(&r, ENOENT);
	r.id--;
	re_send(c, r);
	io_ok(io);
	refuse(&r, ENOENT);
}

/* FLUSHED before FLUSH was read. */
static void flushed_too_early(void)
{
	struct dmu_reply r;
	struct io *io;
	uint64_t id;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE | DMU_RE_METADATA);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(io);
	for (id = 0; id < 20; id++) {
		r = re_flushed(id, 0);
		check_eq(re_try(c, &r), ENOENT);
	}
	re_send(c, re_flushed(ev_flush(c), 0));
	io_ok(io);
}

static void done_twice(void)
{
	struct dmu_reply r;
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .features = DMU_FEAT_DISCARD });
	io = io_start(d, IO_DISCARD, 0, 8, 0);
	ev = ev_want(c, DMU_EV_DISCARD, 0, 1, 0);
	r = re_linear(ev.id, 0, 1, 0, 0, RW);
	refuse(&r, ENOENT);		/* it is no MAP */
	r = re_fail(ev.id, 0, 1, EIO);
	refuse(&r, ENOENT);
	r = re_flushed(ev.id, 0);
	refuse(&r, ENOENT);
	re_send(c, re_done(ev.id, 0));
	io_ok(io);
	r = re_done(ev.id, 0);
	refuse(&r, ENOENT);
}

/* An id that an event has not carried yet cannot be answered. */
static void answered_too_early(void)
{
	struct dmu_reply r;
	struct io *io;
	uint64_t id;

	setup();
	io = io_start(d, IO_READ, 0, 1, 0);
	disk_wait_status(d, "waiting", 1);
	for (id = 0; id < 20; id++) {
		r = re_linear(id, 0, 1, 0, 0, RW);
		check_eq(re_try(c, &r), ENOENT);
	}
	io_pending(io);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 0, 0, 0));
	io_ok(io);
}

/* --- bitmaps -------------------------------------------------------------------- */

static void bitmap_tail(void)
{
	uint64_t bits[2] = { 0, 0 };
	struct dmu_reply r;
	unsigned int i;

	scene();
	r = re_preload(re_cow(0, 5, 3, 0, 16, BASE, 16));
	for (i = 3; i < 64; i++) {
		bits[0] = 1ULL << i;
		note();
		check_eq(re_try_bitmap(c, r, bits), EINVAL);
		unchanged();
	}
	still_good();
}

static void bitmap_tail_long(void)
{
	uint64_t bits[2] = { 0, 2 };
	struct dmu_reply r;

	setup();
	r = re_preload(re_cow(0, 0, 65, 0, 16, BASE, 16));
	note();
	check_eq(re_try_bitmap(c, r, bits), EINVAL);
	unchanged();
	bits[1] = 1;
	check_eq(re_try_bitmap(c, r, bits), 0);
	disk_expect(d, 64 * BS, BS, TAG_A, 16 + 64 * BS);
}

static void bitmap_too_short(void)
{
	struct {
		struct dmu_reply r;
		uint64_t bits[2];
	} msg = { .bits = { 0, 0 } };
	ssize_t r;
	size_t len;

	scene();
	msg.r = re_preload(re_cow(0, 5, 40, 0, 16, BASE, 16));
	msg.r.bitmap_len = 8;
	note();
	for (len = sizeof(msg.r); len < sizeof(msg.r) + 8; len++) {
		r = write(c->fd, &msg, len);
		check(r < 0 && errno == EINVAL, "%zu bytes of it: %zd", len, r);
	}
	unchanged();
	r = write(c->fd, &msg, sizeof(msg.r) + 8);
	check(r == sizeof(msg.r) + 8, "the whole: %s", strerror(errno));
	still_good();
}

/* Behind a bitmap the next reply is found. */
static void bitmap_then_reply(void)
{
	struct {
		struct dmu_reply r;
		uint64_t bits;
		struct dmu_reply next;
	} __attribute__((packed)) msg = { .bits = 1 };

	scene();
	msg.r = re_preload(re_cow(0, 10, 40, 0, 800, BASE, 16));
	msg.r.bitmap_len = 8;
	msg.next = re_linear(rd_id, 2, 1, 0, 16, DMU_RE_REMEMBER);
	check_eq(write(c->fd, &msg, sizeof(msg)), sizeof(msg));
	io_ok(rd);
	disk_expect(d, 10 * BS, BS, TAG_A, 800);
	disk_expect(d, 11 * BS, BS, TAG_BASE, 24);
	re_send(c, re_fail(wr_id, 4, 1, EIO));
	io_fails(wr, EIO);
}

static void bitmap_bad_address(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct dmu_reply r;
	char *at;
	ssize_t n;

	scene();
	munmap(p + page, page);
	r = re_preload(re_cow(0, 5, 40, 0, 16, BASE, 16));
	r.bitmap_len = 8;
	note();
	at = p + page - sizeof(r);		/* none of the bitmap */
	memcpy(at, &r, sizeof(r));
	n = write(c->fd, at, sizeof(r) + 8);
	check(n < 0 && errno == EFAULT, "no bitmap: %zd", n);
	at -= 4;				/* half of it */
	memset(p, 0, page);
	memcpy(at, &r, sizeof(r));
	n = write(c->fd, at, sizeof(r) + 8);
	check(n < 0 && errno == EFAULT, "half a bitmap: %zd", n);
	unchanged();
	still_good();
}

static void bitmap_budget(void)
{
	struct disk want = { .sectors = 1 << 20, .bs = 1,
			     .features = "2 map_memory 4" };
	struct dmu_reply r;

	a = dev_new(1 << 20);
	want.devs[0] = a->path;
	d = disk_new(&want);
	c = chan_new(d, 0);
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, 0)));
	r = re_preload(re_cow(0, 1, 1 << 19, 0, 1, DMU_DEV_NONE, 0));
	refuse(&r, E2BIG);
	r.count = 1 << 12;
	re_send(c, r);
	check(disk_status(d, "map_bytes") <= 4096, "over the budget");
}

/* --- write() and read() ----------------------------------------------------------- */

static void odd_lengths(void)
{
	struct dmu_reply r[2];
	ssize_t n;
	size_t len;

	scene();
	r[0] = re_preload(re_linear(0, 70, 1, 0, 0, 0));
	r[1] = re_preload(re_linear(0, 71, 1, 1, 0, 0));
	note();
	for (len = 1; len < sizeof(r[0]); len++) {
		n = write(c->fd, r, len);
		check(n < 0 && errno == EINVAL, "%zu bytes: %zd", len, n);
	}
	n = write(c->fd, r, 0);
	check(n <= 0, "no bytes: %zd", n);
	unchanged();
	n = write(c->fd, r, sizeof(r[0]) + 1);	/* one, and one byte */
	check_eq(n, sizeof(r[0]));
	check_eq(disk_status(d, "extents"), 4);
	n = write(c->fd, &r[1], sizeof(r[1]) - 1);
	check(n < 0 && errno == EINVAL, "%zd", n);
	still_good();
}

/* Good ones before a bad one are taken; the next write says why. */
static void short_write(void)
{
	struct dmu_reply r[4];
	ssize_t n;

	scene();
	r[0] = re_preload(re_linear(0, 70, 1, 0, 0, 0));
	r[1] = re_preload(re_linear(0, 71, 1, 1, 0, 0));
	r[2] = re_preload(re_linear(0, 72, 1, 7, 0, 0));
	r[3] = re_preload(re_linear(0, 73, 1, 1, 0, 0));
	n = write(c->fd, r, sizeof(r));
	check_eq(n, 2 * sizeof(r[0]));
	check_eq(disk_status(d, "extents"), 5);
	note();
	n = write(c->fd, &r[2], 2 * sizeof(r[0]));
	check(n < 0 && errno == ENXIO, "%zd", n);
	unchanged();
	n = write(c->fd, &r[3], sizeof(r[0]));
	check_eq(n, sizeof(r[0]));
	disk_expect(d, 71 * BS, BS, TAG_B, 0);
	still_good();
}

static void write_bad_address(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct dmu_reply r;
	char *at;
	ssize_t n;

	scene();
	munmap(p + page, page);
	note();
	n = write(c->fd, nowhere, sizeof(r));
	check(n < 0 && errno == EFAULT, "NULL: %zd", n);
	n = write(c->fd, p + page - 50, sizeof(r));
	check(n < 0 && errno == EFAULT, "across the end: %zd", n);
	unchanged();
	r = re_preload(re_linear(0, 70, 1, 0, 0, 0));	/* good, then bad */
	at = p + page - sizeof(r);
	memcpy(at, &r, sizeof(r));
	n = write(c->fd, at, 2 * sizeof(r));
	check_eq(n, sizeof(r));
	still_good();
}

static void read_too_small(void)
{
	struct dmu_event ev;
	struct io *io;
	size_t len;
	ssize_t n;

	setup();
	io = io_start(d, IO_READ, 0, 1, 0);
	disk_wait_status(d, "waiting", 1);
	for (len = 0; len < sizeof(ev); len++) {
		n = read(c->fd, &ev, len);
		check(n < 0 ? errno == EINVAL : !n && !len, "read of %zu: %zd",
		      len, n);
	}
	ev = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	re_send(c, re_linear(ev.id, 0, 1, 0, 0, 0));
	io_ok(io);
}

/* Only whole events, as many as fit. */
static void read_batches(void)
{
	struct dmu_event ev[4];
	struct io *io[3];
	unsigned int i;
	ssize_t n;

	setup();
	for (i = 0; i < 3; i++) {
		io[i] = io_start(d, IO_READ, 2 * i * BS, 1, 0);
		disk_wait_status(d, "waiting", i + 1);
	}
	n = read(c->fd, ev, 2 * sizeof(ev[0]) + 63);
	check_eq(n, 2 * sizeof(ev[0]));
	n = read(c->fd, &ev[2], 2 * sizeof(ev[0]));
	check_eq(n, sizeof(ev[0]));
	for (i = 0; i < 3; i++) {
		check_eq(ev[i].block, 2 * i);
		re_send(c, re_linear(ev[i].id, 2 * i, 1, 0, 0, 0));
		io_ok(io[i]);
	}
	n = read(c->fd, ev, sizeof(ev));
	check(n < 0 && errno == EAGAIN, "read of nothing: %zd", n);
}

/* Both copies, the invalidation, the flush, the questions at 0 and 2. */
static void all_come(void)
{
	unsigned int seen = 0;

	while (seen != 0x3f) {
		struct dmu_event ev = ev_get(c);

		switch (ev.type) {
		case DMU_EV_COPIED:
			seen |= ev.block == 50 ? 1 : 2;
			break;
		case DMU_EV_INVALIDATED:
			check(!(seen & 4), "INVALIDATED twice");
			seen |= 4;
			break;
		case DMU_EV_FLUSH:
			check((seen & 3) == 3, "FLUSH without COPIED");
			re_send(c, re_flushed(ev.id, 0));
			seen |= 8;
			break;
		case DMU_EV_MAP:
			seen |= ev.block ? 32 : 16;
			re_send(c, re_linear(ev.id, ev.block, 1, 0, 0, 0));
			break;
		}
	}
}

/* Events that could not be handed over are handed over again. */
static void read_bad_address(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct io *q, *q2, *fl;
	ssize_t n;
	int i;

	setup();
	munmap(p + page, page);
	re_send(c, re_preload(re_cow(0, 50, 10, 0, 0, BASE, 0)));
	disk_write(d, 50 * BS + 1, 1, 9);
	disk_write(d, 55 * BS + 1, 1, 9);
	q = io_start(d, IO_READ, 0, 1, 0);
	disk_wait_status(d, "waiting", 1);
	q2 = io_start(d, IO_READ, 2 * BS, 1, 0);
	disk_wait_status(d, "waiting", 2);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	re_send(c, re_invalidate(9, 90, 1));
	sleep_ms(100);
	for (i = 0; i < 5; i++) {
		n = read(c->fd, nowhere, 10 * sizeof(struct dmu_event));
		check(n < 0 && errno == EFAULT, "read to NULL: %zd", n);
		n = read(c->fd, p + page - 100, 10 * sizeof(struct dmu_event));
		check(n < 0 && errno == EFAULT, "read across the end: %zd", n);
		n = read(c->fd, nowhere, sizeof(struct dmu_event));
		check(n < 0 && errno == EFAULT, "read of one: %zd", n);
	}
	all_come();
	io_ok(q);
	io_ok(q2);
	io_ok(fl);
	ev_none(c);
}

/* The replay, too. */
static void read_bad_address_replay(void)
{
	struct io *q;
	ssize_t n;
	int i;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 50 * BS + 1, 1, 9);
	re_send(c, re_invalidate(1, 0, 10));
	daemon_gone();
	q = io_start(d, IO_READ, 0, 1, 0);
	disk_wait_status(d, "waiting", 1);
	daemon_back(0);
	sleep_ms(200);
	for (i = 0; i < 5; i++) {
		n = read(c->fd, nowhere, 10 * sizeof(struct dmu_event));
		check(n < 0 && errno == EFAULT, "read to NULL: %zd", n);
	}
	ev_copied(c, 50, 1, 0, 50 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	re_send(c, re_kind(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1,
			   DMU_KIND_ZERO, 0));
	io_ok(q);
}

/* --- attach ------------------------------------------------------------------------ */

static void small_disk(void)
{
	struct disk want = { .sectors = SECTORS, .bs = BS };

	a = dev_new(DEV_SECTORS);
	b = dev_new(DEV_SECTORS);
	want.devs[0] = a->path;
	want.devs[1] = b->path;
	d = disk_new(&want);
}

static void attach_refused(struct dmu_attach *arg, int want)
{
	int err = chan_attach_arg(c, arg);
	char text[1000];

	check(err == want, "attach: %s, not %s",
	      err ? strerror(err) : "taken", strerror(want));
	disk_status_text(d, text, sizeof(text));
	check(!strncmp(text, "0 ", 2), "attached after all");
}

static void attach_out(void)
{
	struct dmu_attach arg;

	small_disk();
	c = chan_open();
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
	check_eq(arg.version, DMU_VERSION);
	check_eq(arg.block_sectors, BS);
	check_eq(arg.nr_devs, 2);
	check_eq(arg.nr_sectors, SECTORS);
	check_eq(arg.features, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	chan_close(c);
	c = chan_open();
	attach_arg(&arg, d->name);
	arg.features = DMU_FEATURES_ALL;
	check_eq(chan_attach_arg(c, &arg), 0);
	check_eq(arg.features, DMU_FEATURES_ALL);
}

static void attach_version(void)
{
	static const uint32_t versions[] = { 0, 2, UINT32_MAX };
	struct dmu_attach arg;
	size_t i;

	small_disk();
	c = chan_open();
	for (i = 0; i < ARRAY_SIZE(versions); i++) {
		attach_arg(&arg, d->name);
		arg.version = versions[i];
		attach_refused(&arg, EPROTO);
		check_eq(arg.version, DMU_VERSION);
	}
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
}

static void attach_features(void)
{
	struct dmu_attach arg;
	int i;

	small_disk();
	c = chan_open();
	for (i = 2; i < 64; i++) {
		attach_arg(&arg, d->name);
		arg.features = 1ULL << i | DMU_FEAT_DISCARD;
		attach_refused(&arg, EOPNOTSUPP);
		check_eq(arg.features, DMU_FEATURES_ALL);
	}
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
}

static void attach_padding(void)
{
	struct dmu_attach arg;
	int i;

	small_disk();
	c = chan_open();
	for (i = 0; i < 8; i++) {
		attach_arg(&arg, d->name);
		if (i < 4)
			arg.reserved[i] = 1ULL << (i * 16);
		else if (i == 4)
			arg.pad = 1;
		else if (i == 5)
			arg.block_sectors = BS;
		else if (i == 6)
			arg.nr_devs = 1;
		else
			arg.nr_sectors = 1;
		attach_refused(&arg, EINVAL);
	}
}

static void attach_key(void)
{
	struct dmu_attach arg;

	small_disk();
	c = chan_open();
	attach_arg(&arg, "");
	attach_refused(&arg, EINVAL);
	attach_arg(&arg, d->name);
	memset(arg.key, 'x', sizeof(arg.key));		/* no end */
	attach_refused(&arg, EINVAL);
	attach_arg(&arg, d->name);
	arg.key[sizeof(arg.key) - 1] = 'x';		/* something behind */
	attach_refused(&arg, EINVAL);
	attach_arg(&arg, "nobody");
	attach_refused(&arg, ENODEV);
	attach_arg(&arg, d->name);
	arg.key[strlen(arg.key) - 1] = '\0';
	attach_refused(&arg, ENODEV);
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
}

/* The longest key there is. */
static void attach_long_key(void)
{
	struct dmu_attach arg;
	char params[400], key[DMU_KEY_LEN];
	struct chan *ch;

	a = dev_new(DEV_SECTORS);
	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	check_eq(dm_create("dmutlong", NULL), 0);
	snprintf(params, sizeof(params), "%s 8 1 %s", key, a->path);
	check_eq(dm_load("dmutlong", 800, "userspace", params, false), 0);
	check_eq(dm_resume("dmutlong"), 0);
	ch = chan_open();
	attach_arg(&arg, key);
	check_eq(chan_attach_arg(ch, &arg), 0);
	ev_want(ch, DMU_EV_REPLAY_END, 0, 0, 0);
}

static void attach_twice(void)
{
	struct dmu_attach arg;
	struct chan *other;

	small_disk();
	c = chan_new(d, 0);
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), EALREADY);
	other = chan_open();
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(other, &arg), EBUSY);
	all_linear(0, 0, 0);
	check_eq(disk_status(d, "extents"), 1);
	chan_close(c);
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(other, &arg), 0);
	ev_want(other, DMU_EV_REPLAY_END, 0, 0, 0);
}

static void attach_bad_address(void)
{
	struct dmu_attach arg;

	small_disk();
	c = chan_open();
	check(ioctl(c->fd, DMU_IOC_ATTACH, NULL) < 0 && errno == EFAULT,
	      "NULL: %s", strerror(errno));
	check(ioctl(c->fd, DMU_IOC_ATTACH, -4096L) < 0 && errno == EFAULT,
	      "kernel address: %s", strerror(errno));
	check(ioctl(c->fd, DMU_IOC_ATTACH + 1, &arg) < 0 && errno == ENOTTY,
	      "another ioctl: %s", strerror(errno));
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
}

static void not_attached(void)
{
	struct dmu_reply r = re_commit();
	struct dmu_event ev;
	struct pollfd p;

	small_disk();
	c = chan_open();
	p = (struct pollfd){ .fd = c->fd, .events = POLLIN | POLLOUT };
	check_eq(poll(&p, 1, 0), 1);
	check_eq(p.revents, POLLERR);
	check_eq(re_try(c, &r), ENOTCONN);
	check(read(c->fd, &ev, sizeof(ev)) < 0 && errno == ENOTCONN,
	      "read: %s", strerror(errno));
}

static void not_root(void)
{
	struct dmu_attach arg;
	int status;
	pid_t pid;

	small_disk();
	c = chan_open();
	check(!sh("chmod 666 /dev/dm-userspace"), "chmod");
	pid = fork();
	if (!pid) {
		int bad = 0;

		if (setresuid(65534, 65534, 65534))
			_exit(9);
		attach_arg(&arg, d->name);
		if (open("/dev/dm-userspace", O_RDWR) >= 0 || errno != EPERM)
			bad |= 1;
		if (chan_attach_arg(c, &arg) != EPERM)
			bad |= 2;
		_exit(bad);
	}
	waitpid(pid, &status, 0);
	sh("chmod 600 /dev/dm-userspace");
	check(WIFEXITED(status) && !(WEXITSTATUS(status) & 1),
	      "who is not root may open the node");
	check(WIFEXITED(status) && !WEXITSTATUS(status),
	      "who is not root may attach: %d", status);
}

static void attach_gone(void)
{
	struct dmu_attach arg;

	small_disk();
	close(d->fd);
	check_eq(dm_remove(d->name), 0);
	c = chan_open();
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), ENODEV);
}

/* --- the list ---------------------------------------------------------------------- */

#define T(name) { #name, name }
static const struct test fixed[] = {
	T(zero_source_sector), T(edges_taken), T(place_too_far),
	T(exist_equal_taken), T(twice),
	T(flushed_twice), T(flushed_too_early), T(done_twice),
	T(answered_too_early),
	T(bitmap_tail), T(bitmap_tail_long), T(bitmap_too_short), T(bitmap_then_reply),
	T(bitmap_bad_address), T(bitmap_budget),
	T(odd_lengths), T(short_write), T(write_bad_address),
	T(read_too_small), T(read_batches), T(read_bad_address),
	T(read_bad_address_replay),
	T(attach_out), T(attach_version), T(attach_features),
	T(attach_padding), T(attach_key), T(attach_long_key), T(attach_twice),
	T(attach_bad_address), T(not_attached), T(not_root), T(attach_gone),
};

#define NR (ARRAY_SIZE(bads) + ARRAY_SIZE(unused) + ARRAY_SIZE(fixed))

static char names[NR][60];

/* Find the row of the running test by its name. */
static void run_row(void)
{
	if (which < ARRAY_SIZE(bads)) {
		run_bad();
	} else {
		which -= ARRAY_SIZE(bads);
		run_unused();
	}
}

static void choose(size_t i)
{
	which = i;
}

int main(int argc, char **argv)
{
	struct test tests[NR];
	size_t i, n = 0;

	for (i = 0; i < ARRAY_SIZE(bads); i++, n++)
		snprintf(names[n], sizeof(names[n]), "%s", bads[i].name);
	for (i = 0; i < ARRAY_SIZE(unused); i++, n++)
		snprintf(names[n], sizeof(names[n]), "unused_%s",
			 unused[i].name);
	for (i = 0; i < n; i++) {
		tests[i].name = names[i];
		tests[i].fn = run_row;
	}
	memcpy(&tests[n], fixed, sizeof(fixed));
	before_test = choose;
	return run_tests(tests, NR, argc, argv);
}
