// SPDX-License-Identifier: GPL-2.0-or-later
/* What the target does with good answers. */
#include "fixture.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
	re_send(c, re_linear(ev.id, 3, 1, 1, 128, RW));
	io_ok(io);
	dev_check(b, 130, 2, 77, 3 * BS + 2);
	disk_expect(d, 3 * BS, 2, TAG_B, 128);
	disk_flush(d);
	ev_none(c);
}

/* --- LINEAR, ZERO, ERROR, FAIL ------------------------------------------ */

static void linear_rw(void)
{
	setup();
	all_linear(0, 16, DMU_RE_WRITABLE);
	disk_expect(d, 0, SECTORS, TAG_A, 16);
	disk_write(d, 5 * BS + 3, 20, 9);
	dev_check(a, 16 + 5 * BS + 3, 20, 9, 5 * BS + 3);
	dev_check(a, 16 + 5 * BS + 23, 20, TAG_A, 16 + 5 * BS + 23);
	disk_write(d, SECTORS - 1, 1, 9);	/* the short block */
	dev_check(a, 16 + SECTORS - 1, 1, 9, SECTORS - 1);
	dev_check(a, 16 + SECTORS, 8, TAG_A, 16 + SECTORS);
	ev_none(c);
	check_eq(disk_status(d, "faults"), 0);
	check_eq(disk_status(d, "extents"), 1);
}

/* A hit of many blocks is one bio below, too. */
static void hits_not_split(void)
{
	uint64_t reads, writes, hits;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE);
	disk_expect(d, 0, 8, TAG_A, 0);
	reads = dev_stat(a, DEV_READS);
	writes = dev_stat(a, DEV_WRITES);
	hits = disk_status(d, "hits_read");
	disk_expect(d, 4, 512, TAG_A, 4);
	check_eq(disk_status(d, "hits_read") - hits, 1);
	check_eq(dev_stat(a, DEV_READS), reads + 1);
	disk_write(d, 5, 512, 9);
	check_eq(disk_status(d, "hits_write"), 1);
	check_eq(dev_stat(a, DEV_WRITES), writes + 1);
}

/* RWF_NOWAIT, as io_uring asks for: what waits here lets the submitter go. */
static void nowait(void)
{
	struct io *io, *w[2];

	setup_with(&(struct setup){ .gates = GATE_A });
	io = io_start(d, IO_READ_NOWAIT, 3 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 3, 1, 0).id, 3, 1, 0, 3 * BS, RW));
	io_ok(io);
	io_ok(io_start(d, IO_WRITE_NOWAIT, 3 * BS, BS, 9));
	disk_expect(d, 3 * BS, BS, 9, 3 * BS);

	/* A hit is not begun where it would have to wait, ... */
	gate_shut(NAME_GATE_A);
	io_fails(io_start(d, IO_READ_NOWAIT, 3 * BS, 1, 0), EAGAIN);
	io_fails(io_start(d, IO_WRITE_NOWAIT, 3 * BS, 1, 10), EAGAIN);
	/* ... and what the worker sends on waits as any other. */
	w[0] = io_start(d, IO_WRITE_NOWAIT, 4 * BS, 1, 11);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE).id, 4, 1, 0, 4 * BS, RW));
	re_send(c, re_preload(re_cow(0, 5, 1, 0, 5 * BS, BASE, 5 * BS)));
	w[1] = io_start(d, IO_WRITE_NOWAIT, 5 * BS, 1, 12);
	io_pending(w[0]);
	io_pending(w[1]);
	gate_open(NAME_GATE_A);
	io_ok(w[0]);
	io_ok(w[1]);
	disk_expect(d, 3 * BS, BS, 9, 3 * BS);
	disk_expect(d, 4 * BS, 1, 11, 4 * BS);
	disk_expect(d, 5 * BS, 1, 12, 5 * BS);
	disk_expect(d, 5 * BS + 1, BS - 1, TAG_BASE, 5 * BS + 1);
}

/* Neighbours that continue each other are one extent, in any order. */
static void neighbours_are_one(void)
{
	static const unsigned int order[] = { 5, 3, 4, 0, 2, 1, 6, 7 };
	uint64_t reads;
	size_t i;

	setup();
	for (i = 0; i < ARRAY_SIZE(order); i++)
		re_send(c, re_preload(re_linear(0, order[i], 1, 0,
						40 + order[i] * BS, 0)));
	check_eq(disk_status(d, "extents"), 1);
	reads = disk_status(d, "hits_read");
	disk_expect(d, 0, 8 * BS, TAG_A, 40);
	check_eq(disk_status(d, "hits_read") - reads, 1);
	re_send(c, re_preload(re_linear(0, 3, 1, 1, 0, 0)));
	check_eq(disk_status(d, "extents"), 3);
	disk_expect(d, 0, 3 * BS, TAG_A, 40);
	disk_expect(d, 3 * BS, BS, TAG_B, 0);
	disk_expect(d, 4 * BS, 4 * BS, TAG_A, 40 + 4 * BS);
}

/* Places before and after the block's own position, and block 0 alone. */
static void distances(void)
{
	setup();
	re_send(c, re_preload(re_linear(0, 0, 1, 1, DEV_SECTORS - BS, 0)));
	disk_expect(d, 0, BS, TAG_B, DEV_SECTORS - BS);
	re_send(c, re_preload(re_linear(0, 99, 1, 0, 0, 0)));
	disk_expect(d, 99 * BS, BS, TAG_A, 0);
	re_send(c, re_preload(re_linear(0, 50, 1, 0, 3, 0)));
	disk_expect(d, 50 * BS + 1, 2, TAG_A, 4);
	re_send(c, re_preload(re_linear(0, LAST, 1, 0, DEV_SECTORS - 3, 0)));
	disk_expect(d, LAST * BS, 3, TAG_A, DEV_SECTORS - 3);
}

static void zero_kind(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	re_send(c, re_preload(re_kind(0, 10, 20, DMU_KIND_ZERO, 0)));
	disk_expect_zero(d, 10 * BS, 20 * BS);
	disk_expect_zero(d, 12 * BS + 1, 3);
	io = io_start(d, IO_WRITE, 12 * BS + 1, 3, 9);
	ev = ev_want(c, DMU_EV_MAP, 12, 1, DMU_EV_WRITE);
	io_pending(io);
	re_send(c, re_linear(ev.id, 12, 1, 0, 0, RW));
	io_ok(io);
	dev_check(a, 1, 3, 9, 12 * BS + 1);
	disk_expect_zero(d, 10 * BS, 2 * BS);
}

static void error_kind(void)
{
	setup();
	re_send(c, re_preload(re_kind(0, 10, 2, DMU_KIND_ERROR, 0)));
	io_fails(io_start(d, IO_READ, 10 * BS, 1, 0), EIO);
	io_fails(io_start(d, IO_WRITE, 11 * BS, 1, 0), EIO);
	ev_none(c);
}

static void error_kind_once(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	io = io_start(d, IO_WRITE, 10 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 10, 1, DMU_EV_WRITE);
	re_send(c, re_kind(ev.id, 10, 1, DMU_KIND_ERROR, 0));
	io_fails(io, EIO);
	io = io_start(d, IO_READ, 10 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 10, 1, 0);
	re_send(c, re_kind(ev.id, 10, 1, DMU_KIND_ZERO, 0));
	io_ok(io);
	check_eq(disk_status(d, "extents"), 0);
}

static void fail_one(int err, int seen)
{
	struct dmu_event ev;
	struct io *io = io_start(d, IO_READ, 10 * BS, 1, 0);
	int got;

	ev = ev_want(c, DMU_EV_MAP, 10, 1, 0);
	re_send(c, re_fail(ev.id, 10, 1, err));
	got = io_wait(io);
	check(seen ? got == seen : got != 0, "FAIL with %s: the reader sees %s",
	      strerror(err), strerror(got));
}

static void fail_errno(void)
{
	int err;

	setup();
	fail_one(EIO, EIO);
	fail_one(ENOSPC, ENOSPC);
	fail_one(ETIMEDOUT, ETIMEDOUT);
	fail_one(EINVAL, EIO);
	fail_one(4095, EIO);
	for (err = 1; err < 134; err++)
		fail_one(err, 0);
	check_eq(disk_status(d, "waiting"), 0);
}

/* The kernel's own codes for "again" must not get in. */
static void fail_errno_again(void)
{
	setup();
	fail_one(EREMCHG, EIO);
	fail_one(EAGAIN, EIO);
}

/* --- questions ------------------------------------------------------------ */

static void not_remembered(void)
{
	struct dmu_event ev;
	struct io *io;
	int i;

	setup();
	for (i = 0; i < 3; i++) {
		io = io_start(d, IO_READ, 4 * BS + 1, 2, 0);
		ev = ev_want(c, DMU_EV_MAP, 4, 1, 0);
		re_send(c, re_linear(ev.id, 4, 1, 0, 80 * i, 0));
		io_ok(io);
		check(filled(io->buf, 2, TAG_A, 80 * i + 1), "wrong data");
	}
	io = io_start(d, IO_WRITE, 4 * BS + 1, 2, 9);
	ev = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 4, 1, 1, 800, DMU_RE_WRITABLE));
	io_ok(io);
	dev_check(b, 801, 2, 9, 4 * BS + 1);
	check_eq(disk_status(d, "extents"), 0);
	check_eq(disk_status(d, "faults"), 4);
	check_eq(disk_status(d, "waiting"), 0);
}

/* What was written by a mapping that is not remembered is flushed, too. */
static void not_remembered_flush(void)
{
	struct dmu_event ev;
	struct io *io;
	uint64_t flushes;

	setup();
	io = io_start(d, IO_WRITE, 4 * BS + 1, 2, 9);
	ev = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 4, 1, 1, 800, DMU_RE_WRITABLE));
	io_ok(io);
	flushes = dev_stat(b, DEV_FLUSHES);
	disk_flush(d);
	check_eq(dev_stat(b, DEV_FLUSHES), flushes + 1);
	ev_none(c);
}

static void write_to_readonly(void)
{
	struct dmu_event ev;
	struct dmu_reply r;
	struct io *io;

	setup();
	all_linear(0, 0, 0);
	io = io_start(d, IO_WRITE, 4 * BS, 2, 9);
	ev = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE);
	r = re_linear(ev.id, 4, 1, 1, 0, DMU_RE_REMEMBER);
	check_eq(re_try(c, &r), EPERM);
	disk_expect(d, 4 * BS, BS, TAG_A, 4 * BS);
	io_pending(io);
	re_send(c, re_linear(ev.id, 4, 1, 1, 0, RW));
	io_ok(io);
	dev_check(b, 0, 2, 9, 4 * BS);
	disk_expect(d, 4 * BS + 2, BS - 2, TAG_B, 2);
	disk_expect(d, 3 * BS, BS, TAG_A, 3 * BS);
}

/* Questions side by side come as one, of one sort each. */
static void merged_questions(void)
{
	struct dmu_event ev;
	struct io *rd, *wr, *over;

	setup();
	rd = io_start(d, IO_READ, 20 * BS + 2, 4 * BS, 0);
	disk_wait_status(d, "faults", 5);
	wr = io_start(d, IO_WRITE, 25 * BS + 2, 2, 9);
	disk_wait_status(d, "faults", 6);
	over = io_start(d, IO_WRITE, 26 * BS, 3 * BS, 9);
	disk_wait_status(d, "faults", 9);
	check_eq(disk_status(d, "waiting"), 9);
	ev = ev_want(c, DMU_EV_MAP, 20, 5, 0);
	re_send(c, re_linear(ev.id, 20, 5, 0, 0, DMU_RE_REMEMBER));
	ev = ev_want(c, DMU_EV_MAP, 25, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 25, 1, 0, 160, RW));
	ev = ev_want(c, DMU_EV_MAP, 26, 3, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_linear(ev.id, 26, 3, 0, 168, RW));
	io_ok(rd);
	io_ok(wr);
	io_ok(over);
	check(filled(rd->buf, 4 * BS, TAG_A, 2), "wrong data");
	check_eq(disk_status(d, "events"), 3);
	check_eq(disk_status(d, "waiting"), 0);
}

/* The question of a reader that a writer joins is one for writing. */
static void read_then_write(void)
{
	struct dmu_event ev;
	struct io *rd, *wr;

	setup();
	rd = io_start(d, IO_READ, 20 * BS, 1, 0);
	disk_wait_status(d, "faults", 1);
	wr = io_start(d, IO_WRITE, 20 * BS + 1, 2, 9);
	disk_wait_status(d, "waiting", 2);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 20, 1, 0, 0, RW));
	io_ok(rd);
	io_ok(wr);
	ev_none(c);
}

/* The reader has been asked for already: the writer asks again. */
static void write_after_read_asked(void)
{
	struct dmu_event ev;
	struct io *rd, *wr;

	setup();
	rd = io_start(d, IO_READ, 20 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, 0);
	wr = io_start(d, IO_WRITE, 20 * BS + 1, 2, 9);
	disk_wait_status(d, "waiting", 2);
	ev_none(c);
	re_send(c, re_linear(ev.id, 20, 1, 0, 0, DMU_RE_REMEMBER));
	io_ok(rd);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, DMU_EV_WRITE);
	io_pending(wr);
	re_send(c, re_linear(ev.id, 20, 1, 0, 0, RW));
	io_ok(wr);
}

/* The same with an answer that is used once. */
static void write_after_read_once(void)
{
	struct dmu_event ev;
	struct io *rd, *wr;

	setup();
	rd = io_start(d, IO_READ, 20 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, 0);
	wr = io_start(d, IO_WRITE, 20 * BS + 1, 2, 9);
	disk_wait_status(d, "waiting", 2);
	re_send(c, re_kind(ev.id, 20, 1, DMU_KIND_ZERO, 0));
	io_ok(rd);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, DMU_EV_WRITE);
	io_pending(wr);
	re_send(c, re_linear(ev.id, 20, 1, 0, 0, DMU_RE_WRITABLE));
	io_ok(wr);
	dev_check(a, 1, 2, 9, 20 * BS + 1);
}

static void answered_in_parts(void)
{
	struct dmu_event ev;
	struct dmu_reply r;
	struct io *io;

	setup();
	io = io_start(d, IO_READ, 20 * BS, 4 * BS, 0);
	disk_wait_status(d, "faults", 4);
	ev = ev_want(c, DMU_EV_MAP, 20, 4, 0);
	re_send(c, re_linear(ev.id, 22, 1, 0, 16, 0));
	re_send(c, re_linear(ev.id, 20, 2, 0, 0, DMU_RE_REMEMBER));
	r = re_linear(ev.id, 20, 3, 0, 0, 0);
	check_eq(re_try(c, &r), ENOENT);
	io_pending(io);
	re_send(c, re_linear(ev.id, 23, 1, 0, 24, 0));
	io_ok(io);
	check(filled(io->buf, 4 * BS, TAG_A, 0), "wrong data");
	r = re_linear(ev.id, 23, 1, 0, 24, 0);
	check_eq(re_try(c, &r), ENOENT);
}

static void failed_in_parts(void)
{
	struct dmu_event ev;
	struct io *io[4];
	int i;

	setup();
	for (i = 0; i < 4; i++) {
		io[i] = io_start(d, IO_READ, (20 + i) * BS, BS, 0);
		disk_wait_status(d, "faults", i + 1);
	}
	ev = ev_want(c, DMU_EV_MAP, 20, 4, 0);
	re_send(c, re_fail(ev.id, 21, 2, ENOSPC));
	io_fails(io[1], ENOSPC);
	io_fails(io[2], ENOSPC);
	io_pending(io[0]);
	io_pending(io[3]);
	re_send(c, re_linear(ev.id, 0, d->blocks, 0, 0, DMU_RE_REMEMBER));
	io_ok(io[0]);
	io_ok(io[3]);
}

/* A remembered answer answers every question that it suffices for. */
static void answers_others(void)
{
	struct io *rd, *unread, *wr, *first;
	struct dmu_event ev, ev2, evw;
	struct dmu_reply r;

	setup();
	rd = io_start(d, IO_READ, 30 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 30, 1, 0);
	first = io_start(d, IO_READ, 34 * BS, 1, 0);
	ev2 = ev_want(c, DMU_EV_MAP, 34, 1, 0);
	wr = io_start(d, IO_WRITE, 36 * BS, 1, 9);
	evw = ev_want(c, DMU_EV_MAP, 36, 1, DMU_EV_WRITE);
	unread = io_start(d, IO_READ, 38 * BS, 1, 0);
	disk_wait_status(d, "faults", 4);
	re_send(c, re_linear(ev.id, 30, 10, 0, 0, DMU_RE_REMEMBER));
	io_ok(rd);
	io_ok(first);
	io_ok(unread);
	check(filled(unread->buf, 1, TAG_A, 8 * BS), "wrong data");
	r = re_linear(ev2.id, 34, 1, 0, 4 * BS, 0);
	check_eq(re_try(c, &r), ENOENT);
	io_pending(wr);
	re_send(c, re_linear(evw.id, 36, 1, 0, 6 * BS, RW));
	io_ok(wr);
	ev_none(c);
}

static void preload_answers(void)
{
	struct io *rd, *wr;
	struct dmu_event ev;
	struct dmu_reply r;

	setup();
	rd = io_start(d, IO_READ, 30 * BS, 2 * BS, 0);
	disk_wait_status(d, "waiting", 2);
	ev = ev_want(c, DMU_EV_MAP, 30, 2, 0);
	wr = io_start(d, IO_WRITE, 60 * BS, 1, 9);
	disk_wait_status(d, "faults", 3);
	all_linear(0, 0, DMU_RE_WRITABLE);
	io_ok(rd);
	io_ok(wr);
	ev_none(c);
	r = re_linear(ev.id, 30, 2, 0, 0, 0);
	check_eq(re_try(c, &r), ENOENT);
}

/* --- COW ------------------------------------------------------------------ */

static void cow_partial(void)
{
	setup();
	all_cow(0, 1000, BASE, 100);
	disk_expect(d, 0, SECTORS, TAG_BASE, 100);
	disk_write(d, 7 * BS + 2, 3, 9);
	dev_check(a, 1000 + 7 * BS, 2, TAG_BASE, 100 + 7 * BS);
	dev_check(a, 1000 + 7 * BS + 2, 3, 9, 7 * BS + 2);
	dev_check(a, 1000 + 7 * BS + 5, 3, TAG_BASE, 100 + 7 * BS + 5);
	dev_check(a, 1000 + 6 * BS, BS, TAG_A, 1000 + 6 * BS);
	dev_check(a, 1000 + 8 * BS, BS, TAG_A, 1000 + 8 * BS);
	dev_check(base, 0, DEV_SECTORS, TAG_BASE, 0);
	disk_expect(d, 7 * BS + 2, 3, 9, 7 * BS + 2);
	disk_expect(d, 6 * BS, BS, TAG_BASE, 100 + 6 * BS);
	disk_write(d, 7 * BS, 1, 10);		/* no second copy */
	check_eq(disk_status(d, "copies"), 1);
	check_eq(disk_status(d, "uncommitted"), 1);
	check_eq(disk_status(d, "faults"), 0);
	ev_none(c);
}

/* A part of a block, 64 KiB: what is read for it, and that it is written by one I/O. */
static void cow_part_costs(uint64_t sector, uint64_t count, uint64_t block, uint64_t read)
{
	uint64_t sectors = dev_stat(base, DEV_READ_SECTORS), reads = dev_stat(base, DEV_READS);
	uint64_t writes = dev_stat(a, DEV_WRITES), written = dev_stat(a, DEV_WRITE_SECTORS);

	disk_write(d, sector, count, 9);
	check_eq(dev_stat(base, DEV_READS), reads + 1);
	check_eq(dev_stat(base, DEV_READ_SECTORS), sectors + read);
	check_eq(dev_stat(a, DEV_WRITES), writes + 1);
	check_eq(dev_stat(a, DEV_WRITE_SECTORS), written + block);
	disk_expect(d, sector, count, 9, sector);
}

static void cow_costs(void)
{
	setup_with(&(struct setup){ .bs = 128 });
	all_cow(0, 0, BASE, 0);
	cow_part_costs(128 + 2, 3, 128, 128);		/* in the middle */
	cow_part_costs(256, 24, 128, 128 - 24);		/* in front */
	cow_part_costs(512 - 10, 10, 128, 128 - 10);	/* at the end */
	cow_part_costs(768 + 2, 7, 35, 35);		/* of the short one */
	dev_check(a, 0, 128, TAG_A, 0);
	dev_check(a, 128 + 5, 123, TAG_BASE, 128 + 5);
	dev_check(a, 256 + 24, 104, TAG_BASE, 256 + 24);
	dev_check(a, 384, 118, TAG_BASE, 384);
	dev_check(a, 512, 256, TAG_A, 512);
	dev_check(a, 768 + 9, 26, TAG_BASE, 768 + 9);
	dev_check(a, 768 + 35, 93, TAG_A, 768 + 35);
	check_eq(disk_status(d, "copies"), 4);
	check_eq(disk_status(d, "uncommitted"), 4);
}

/* Parts of blocks of @bs sectors, small and large, at each end and over the ends. */
static void cow_parts(unsigned int bs)
{
	uint64_t at = 0, n = 1, end;

	setup_with(&(struct setup){ .bs = bs });
	all_cow(0, 1000, BASE, 100);
	while (at < SECTORS) {
		end = at + n < SECTORS ? at + n : SECTORS;
		disk_write(d, at, end - at, 9);
		disk_expect(d, at, end - at, 9, at);
		if (end < SECTORS)
			disk_expect(d, end, 1, TAG_BASE, 100 + end);
		dev_check(a, 1000 + at, end - at, 9, at);
		at = end + n / 2 + 1;
		n = n < 200 ? 2 * n + 1 : 3;
	}
	dev_check(a, 0, 1000, TAG_A, 0);
	dev_check(a, 1000 + SECTORS, 100, TAG_A, 1000 + SECTORS);
	dev_check(base, 0, DEV_SECTORS, TAG_BASE, 0);
	check_eq(disk_status(d, "waiting"), 0);
	ev_none(c);
}

static void cow_parts_16k(void)
{
	cow_parts(32);
}

static void cow_parts_256k(void)
{
	cow_parts(512);
}

/* More than is copied with the write: by kcopyd. */
static void cow_parts_512k(void)
{
	cow_parts(1024);
}

/* The classic answer: one block, with the write waiting. */
static void cow_answer(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	io = io_start(d, IO_WRITE, 7 * BS + 2, 3, 9);
	ev = ev_want(c, DMU_EV_MAP, 7, 1, DMU_EV_WRITE);
	re_send(c, re_cow(ev.id, 7, 1, 1, 48, BASE, 800));
	io_ok(io);
	dev_check(b, 48, 2, TAG_BASE, 800);
	dev_check(b, 50, 3, 9, 7 * BS + 2);
	check_eq(disk_status(d, "copies"), 1);
}

static void cow_whole(void)
{
	uint64_t reads;

	setup();
	all_cow(0, 0, BASE, 0);
	reads = dev_stat(base, DEV_READS);
	disk_write(d, 7 * BS, BS, 9);
	disk_write(d, LAST * BS, 3, 9);
	check_eq(dev_stat(base, DEV_READS) - reads, 0);
	dev_check(a, 7 * BS, BS, 9, 7 * BS);
	dev_check(a, LAST * BS, 3, 9, LAST * BS);
	dev_check(a, SECTORS, 5, TAG_A, SECTORS);
	check_eq(disk_status(d, "copies"), 0);
	check_eq(disk_status(d, "overwrites"), 2);
	check_eq(disk_status(d, "uncommitted"), 2);
	disk_expect(d, 7 * BS, BS, 9, 7 * BS);
	ev_none(c);
}

/* One bio that covers many blocks stays one. */
static void cow_whole_run(void)
{
	uint64_t writes;

	setup();
	all_cow(0, 0, BASE, 0);
	writes = dev_stat(a, DEV_WRITES);
	disk_write(d, 20 * BS, 40 * BS, 9);
	check_eq(dev_stat(a, DEV_WRITES), writes + 1);
	check_eq(disk_status(d, "overwrites"), 40);
	check_eq(disk_status(d, "copies"), 0);
	dev_check(a, 20 * BS, 40 * BS, 9, 20 * BS);

	disk_write(d, 70 * BS - 2, 10 * BS + 4, 11);	/* parts at both ends */
	check_eq(disk_status(d, "overwrites"), 50);
	check_eq(disk_status(d, "copies"), 2);
	dev_check(a, 69 * BS, BS - 2, TAG_BASE, 69 * BS);
	dev_check(a, 70 * BS - 2, 10 * BS + 4, 11, 70 * BS - 2);
	dev_check(a, 80 * BS + 2, BS - 2, TAG_BASE, 80 * BS + 2);
}

/* A whole write over blocks of which some are ours already. */
static void cow_mixed_run(void)
{
	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 22 * BS + 1, 1, 8);
	disk_write(d, 25 * BS, BS, 8);
	disk_write(d, 20 * BS, 10 * BS, 9);
	dev_check(a, 20 * BS, 10 * BS, 9, 20 * BS);
	check_eq(disk_status(d, "copies"), 1);
	check_eq(disk_status(d, "overwrites"), 9);
	disk_expect(d, 20 * BS, 10 * BS, 9, 20 * BS);
}

static void cow_concurrent(void)
{
	unsigned int round, i;
	struct io *io[BS];

	setup();
	all_cow(0, 0, BASE, 0);
	for (round = 0; round < 30; round++) {
		for (i = 0; i < BS; i++)
			io[i] = io_start(d, IO_WRITE, round * BS + i, 1, 9);
		for (i = 0; i < BS; i++)
			io_ok(io[i]);
		disk_expect(d, round * BS, BS, 9, round * BS);
	}
	check_eq(disk_status(d, "copies"), 30);
	check_eq(disk_status(d, "waiting"), 0);
	dev_check(a, 0, 30 * BS, 9, 0);
}

/* While a block is copied, its writers wait and its readers do not. */
static void cow_copying(void)
{
	struct io *w1, *w2, *whole;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	w1 = io_start(d, IO_WRITE, 7 * BS + 2, 3, 9);
	disk_wait_status(d, "waiting", 1);
	w2 = io_start(d, IO_WRITE, 7 * BS + 6, 1, 9);
	whole = io_start(d, IO_WRITE, 6 * BS, 3 * BS, 10);
	disk_wait_status(d, "waiting", 3);
	disk_expect(d, 7 * BS, BS, TAG_BASE, 7 * BS);
	check_eq(disk_status(d, "uncommitted"), 0);
	gate_open(NAME_GATE_A);
	io_ok(w1);
	io_ok(w2);
	io_ok(whole);
	check_eq(disk_status(d, "uncommitted"), 3);
	check_eq(disk_status(d, "copies"), 1);
	check_eq(disk_status(d, "waiting"), 0);
	dev_check(a, 7 * BS, 2, 10, 7 * BS);
}

/* While a block is overwritten, too. */
static void cow_claimed(void)
{
	struct io *whole, *part;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	whole = io_start(d, IO_WRITE, 6 * BS, 3 * BS, 10);
	sleep_ms(50);
	part = io_start(d, IO_WRITE, 7 * BS + 6, 1, 9);
	disk_wait_status(d, "waiting", 1);
	disk_expect(d, 6 * BS, 3 * BS, TAG_BASE, 6 * BS);
	gate_open(NAME_GATE_A);
	io_ok(whole);
	io_ok(part);
	dev_check(a, 6 * BS, BS + 6, 10, 6 * BS);
	dev_check(a, 7 * BS + 6, 1, 9, 7 * BS + 6);
	check_eq(disk_status(d, "copies"), 0);
	check_eq(disk_status(d, "overwrites"), 3);
}

static void cow_bitmap(void)
{
	uint64_t bits[2] = { 0x5, 1ULL << 36 };	/* blocks 0, 2, 100 */
	struct dmu_reply r;
	int err;

	setup();
	r = re_preload(re_cow(0, 0, d->blocks, 0, 0, BASE, 0));
	err = re_try_bitmap(c, r, bits);
	check(!err, "refused: %s", strerror(err));
	disk_expect(d, 0, BS, TAG_A, 0);
	disk_expect(d, BS, BS, TAG_BASE, BS);
	disk_expect(d, 2 * BS, BS, TAG_A, 2 * BS);
	disk_expect(d, 3 * BS, 97 * BS, TAG_BASE, 3 * BS);
	disk_expect(d, LAST * BS, 3, TAG_A, LAST * BS);
	disk_write(d, 2 * BS + 1, 2, 9);
	check_eq(disk_status(d, "copies"), 0);
	check_eq(disk_status(d, "uncommitted"), 0);
	disk_flush(d);
	ev_none(c);
}

/* With every bit set it is LINEAR. */
static void cow_bitmap_full(void)
{
	uint64_t bits = 0xff;
	struct dmu_reply r;

	setup();
	r = re_preload(re_cow(0, 8, 8, 0, 64, BASE, 0));
	check_eq(re_try_bitmap(c, r, &bits), 0);
	re_send(c, re_preload(re_linear(0, 0, 8, 0, 0, DMU_RE_WRITABLE)));
	check_eq(disk_status(d, "extents"), 1);
	disk_expect(d, 0, 16 * BS, TAG_A, 0);
}

static void cow_zero(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	all_cow(0, 0, DMU_DEV_NONE, 0);
	disk_expect_zero(d, 0, SECTORS);
	disk_write(d, 7 * BS + 2, 3, 9);
	dev_check_zero(a, 7 * BS, 2);
	dev_check(a, 7 * BS + 2, 3, 9, 7 * BS + 2);
	dev_check_zero(a, 7 * BS + 5, 3);
	dev_check(a, 8 * BS, BS, TAG_A, 8 * BS);
	disk_write(d, LAST * BS + 1, 1, 9);
	dev_check_zero(a, LAST * BS, 1);
	dev_check(a, LAST * BS + 1, 1, 9, LAST * BS + 1);
	dev_check_zero(a, LAST * BS + 2, 1);
	dev_check(a, SECTORS, 5, TAG_A, SECTORS);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 7, 1, 0, 7 * BS);
	ev_copied(c, LAST, 1, 0, LAST * BS);
	ev = ev_want(c, DMU_EV_FLUSH, 0, 0, 0);
	re_send(c, re_flushed(ev.id, 0));
	io_ok(io);
}

/* The copy of the last block ends where the disk ends. */
static void cow_short(void)
{
	setup();
	re_send(c, re_preload(re_cow(0, LAST, 1, 1, DEV_SECTORS - 3, BASE,
				     DEV_SECTORS - 3)));
	disk_write(d, LAST * BS + 1, 1, 9);
	dev_check(b, DEV_SECTORS - 3, 1, TAG_BASE, DEV_SECTORS - 3);
	dev_check(b, DEV_SECTORS - 2, 1, 9, LAST * BS + 1);
	dev_check(b, DEV_SECTORS - 1, 1, TAG_BASE, DEV_SECTORS - 1);
}

/* Source and destination on one device, side by side. */
static void cow_one_device(void)
{
	setup();
	re_send(c, re_preload(re_cow(0, 0, 10, 0, 80, 0, 0)));
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 160, 0, 240)));
	disk_write(d, 1, 1, 9);
	disk_write(d, 29 * BS + 1, 1, 9);
	dev_check(a, 80, 1, TAG_A, 0);
	dev_check(a, 82, 6, TAG_A, 2);
	dev_check(a, 160 + 9 * BS, 1, TAG_A, 240 + 9 * BS);
	dev_check(a, 160 + 9 * BS + 1, 1, 9, 29 * BS + 1);
	dev_check(a, 0, 80, TAG_A, 0);
}

static void cow_forgotten(void)
{
	struct dmu_event ev;
	struct dmu_reply r;
	struct io *io;

	setup();
	io = io_start(d, IO_WRITE, 7 * BS + 2, 3, 9);
	ev = ev_want(c, DMU_EV_MAP, 7, 1, DMU_EV_WRITE);
	r = re_cow(ev.id, 7, 2, 0, 0, BASE, 0);
	r.flags = 0;
	re_send(c, r);
	io_ok(io);
	disk_expect(d, 7 * BS + 2, 3, 9, 7 * BS + 2);	/* till the commit */
	check_eq(disk_status(d, "extents"), 1);
	flush_and_commit();
	disk_wait_status(d, "extents", 0);
	io = io_start(d, IO_READ, 7 * BS, BS, 0);
	ev = ev_want(c, DMU_EV_MAP, 7, 1, 0);
	re_send(c, re_linear(ev.id, 7, 1, 0, 0, 0));
	io_ok(io);
	check(filled((char *)io->buf + 2 * SECTOR, 3, 9, 7 * BS + 2), "data");
}

/* A COW extent that is all ours and committed becomes LINEAR. */
static void cow_becomes_linear(void)
{
	setup();
	re_send(c, re_preload(re_linear(0, 0, 8, 0, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 8, 4, 0, 64, BASE, 0)));
	disk_write(d, 8 * BS, 3 * BS, 9);
	flush_and_commit();
	check_eq(disk_status(d, "extents"), 2);
	disk_write(d, 11 * BS + 1, 1, 9);
	flush_and_commit();
	disk_wait_status(d, "extents", 1);
	disk_expect(d, 8 * BS, 3 * BS, 9, 8 * BS);
	disk_expect(d, 11 * BS + 2, 2, TAG_BASE, 26);
	disk_write(d, 0, 12 * BS, 10);
	disk_flush(d);
	ev_none(c);
}

/* The largest extent, dirty at the edges of every unit inside. */
static void cow_huge(void)
{
	static const uint64_t at[] = {
		0, 1, 63, 64, 4095, 4096, 4097, 1 << 20, (1 << 25) - 1,
	};
	struct disk want = { .sectors = (1 << 25) + 100, .bs = 1 };
	struct dmu_reply r;
	struct io *io;
	size_t i;

	a = dev_new((1 << 25) + 200);
	want.devs[0] = a->path;
	d = disk_new(&want);
	c = chan_new(d, 0);
	r = re_preload(re_cow(0, 0, DMU_MAX_COW_BLOCKS + 1, 0, 100,
			      DMU_DEV_NONE, 0));
	check_eq(re_try(c, &r), E2BIG);
	r.count--;
	re_send(c, r);
	for (i = 0; i < ARRAY_SIZE(at); i++)
		disk_write(d, at[i], 1, 9);
	check_eq(disk_status(d, "uncommitted"), ARRAY_SIZE(at));
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 0, 2, 0, 100);
	ev_copied(c, 63, 2, 0, 163);
	ev_copied(c, 4095, 3, 0, 4195);
	ev_copied(c, 1 << 20, 1, 0, (1 << 20) + 100);
	ev_copied(c, (1 << 25) - 1, 1, 0, (1 << 25) + 99);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
	disk_expect(d, 4095, 3, 9, 4095);
	disk_expect_zero(d, 4098, 100);
}

/* --- commits --------------------------------------------------------------- */

static void flush_clean(void)
{
	uint64_t fa, fb;

	setup();
	disk_flush(d);
	all_linear(0, 0, DMU_RE_WRITABLE);
	disk_write(d, 0, 1, 9);
	fa = dev_stat(a, DEV_FLUSHES);
	fb = dev_stat(b, DEV_FLUSHES);
	disk_flush(d);
	check_eq(dev_stat(a, DEV_FLUSHES), fa + 1);
	check_eq(dev_stat(b, DEV_FLUSHES) - fb, 0);
	ev_none(c);
	check_eq(disk_status(d, "commits"), 0);
	check_eq(disk_status(d, "flushes"), 2);
}

/* Two devices written to: both are flushed. */
static void flush_clean_two(void)
{
	uint64_t fa, fb;

	setup();
	re_send(c, re_preload(re_linear(0, 0, 9, 0, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_linear(0, 9, 9, 1, 0, DMU_RE_WRITABLE)));
	disk_write(d, 8 * BS, 2 * BS, 9);
	fa = dev_stat(a, DEV_FLUSHES);
	fb = dev_stat(b, DEV_FLUSHES);
	disk_flush(d);
	check_eq(dev_stat(a, DEV_FLUSHES), fa + 1);
	check_eq(dev_stat(b, DEV_FLUSHES), fb + 1);
	ev_none(c);
	check_eq(disk_status(d, "commits"), 0);
	check_eq(disk_status(d, "flushes"), 1);
}

static void copied_before_flush(void)
{
	uint64_t flushes;
	struct io *io;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	disk_write(d, 4 * BS, 2 * BS, 9);
	disk_write(d, 9 * BS + 1, 1, 9);
	ev_none(c);			/* nothing before it is needed */
	flushes = dev_stat(a, DEV_FLUSHES);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 3, 0, 3 * BS);
	check_eq(dev_stat(a, DEV_FLUSHES), flushes + 1);
	ev_copied(c, 9, 1, 0, 9 * BS);
	io_pending(io);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
	check_eq(disk_status(d, "commits"), 1);
	disk_write(d, 3 * BS + 1, 1, 9);
	disk_flush(d);			/* all is committed */
	ev_none(c);
}

static void copied_across_extents(void)
{
	unsigned int i;
	struct io *io;

	setup();
	re_send(c, re_preload(re_cow(0, 0, 4, 0, 0, BASE, 0)));
	re_send(c, re_preload(re_cow(0, 4, 4, 0, 32, BASE, 800)));
	re_send(c, re_preload(re_cow(0, 8, 4, 1, 64, BASE, 0)));
	re_send(c, re_preload(re_cow(0, 12, 4, 1, 160, BASE, 0)));
	for (i = 2; i < 14; i++)
		disk_write(d, i * BS, BS, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 2, 6, 0, 16);
	ev_copied(c, 8, 4, 1, 64);
	ev_copied(c, 12, 2, 1, 160);
	commit_ok();
	io_ok(io);
}

/* The same, however they came to be. */
static void copied_any_order(void)
{
	static const unsigned int order[] = { 5, 3, 4, 0, 2, 1, 6, 7 };
	struct dmu_event ev;
	struct io *io;
	size_t i;

	setup();
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		io = io_start(d, IO_WRITE, order[i] * BS + 1, 1, 9);
		ev = ev_want(c, DMU_EV_MAP, order[i], 1, DMU_EV_WRITE);
		re_send(c, re_cow(ev.id, order[i], 1, 0, 80 + order[i] * BS,
				  BASE, 0));
		io_ok(io);
	}
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 0, 8, 0, 80);
	commit_ok();
	io_ok(io);
}

/* More events than one read holds, and a read for each. */
static void copied_many(void)
{
	struct disk want = { .sectors = 2000, .bs = 1 };
	struct dmu_event ev;
	unsigned int i;
	struct io *io;

	a = dev_new(DEV_SECTORS);
	want.devs[0] = a->path;
	d = disk_new(&want);
	c = chan_new(d, 0);
	all_cow(0, 0, DMU_DEV_NONE, 0);
	for (i = 0; i < 1000; i++)
		check(!io_sync(d->fd, IO_ZERO, 2 * i, 1, NULL), "write %u", i);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	for (i = 0; i < 1000; i++) {
		if (i < 700) {
			ev_copied(c, 2 * i, 1, 0, 2 * i);
			continue;
		}
		if (c->n) {
			ev_copied(c, 2 * i, 1, 0, 2 * i);
			continue;
		}
		check_eq(read(c->fd, &ev, sizeof(ev)), sizeof(ev));
		check_eq(ev.type, DMU_EV_COPIED);
		check_eq(ev.block, 2 * i);
	}
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
}

static void metadata_flag(void)
{
	struct dmu_reply r;
	struct io *io;
	uint64_t id;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE | DMU_RE_METADATA);
	check_eq(disk_status(d, "metadata_dirty"), 1);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "metadata_dirty"), 0);
	disk_flush(d);
	ev_none(c);

	/* said again while a commit is under way: that one does not cover it */
	r = re_preload(re_linear(0, 0, 1, 0, 0,
				 DMU_RE_WRITABLE | DMU_RE_METADATA));
	re_send(c, r);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	id = ev_flush(c);
	re_send(c, r);
	re_send(c, re_flushed(id, 0));
	io_ok(io);
	check_eq(disk_status(d, "metadata_dirty"), 1);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "metadata_dirty"), 0);
}

static void commit_reply(void)
{
	setup();
	re_send(c, re_commit());
	ev_none(c);
	all_cow(0, 0, BASE, 0);
	disk_write(d, 1, 1, 9);
	re_send(c, re_commit());
	ev_copied(c, 0, 1, 0, 0);
	commit_ok();
	disk_wait_status(d, "uncommitted", 0);
	re_send(c, re_commit());
	ev_none(c);
	check_eq(disk_status(d, "commits"), 1);
}

/* The daemon has something to commit that the kernel does not know of. */
static void commit_reply_metadata(void)
{
	struct dmu_reply r = re_commit();
	struct io *io;

	setup();
	r.flags = DMU_RE_METADATA;
	re_send(c, r);
	commit_ok();
	disk_wait_status(d, "metadata_dirty", 0);
	ev_none(c);
	check_eq(disk_status(d, "commits"), 1);
	/* Said while a commit is under way, which does not cover it. */
	re_send(c, r);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	re_send(c, re_flushed(ev_flush(c), 0));
	re_send(c, r);
	commit_ok();
	io_ok(io);
	disk_wait_status(d, "metadata_dirty", 0);
}

/* Without a daemon a commit waits for the next one, and nothing is tried again and again. */
static void commit_rests_without_a_daemon(void)
{
	char before[256], after[256];

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 1, 1, 9);
	daemon_gone();
	check_eq(dm_message(d->name, "policy fail"), 0);
	io_fails(io_start(d, IO_FLUSH, 0, 0, 0), EIO);
	gate_stat(NAME_GATE_A, before, sizeof(before));
	usleep(300000);
	gate_stat(NAME_GATE_A, after, sizeof(after));
	check(!strcmp(before, after), "device 0 is busy: %s -> %s", before, after);
	check_eq(dm_message(d->name, "policy queue"), 0);
	daemon_back(0);
	ev_copied(c, 0, 1, 0, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	commit_ok();
	disk_wait_status(d, "uncommitted", 0);
}

static void fua(void)
{
	uint64_t flushes;
	struct io *io;

	setup();
	all_cow(0, 0, BASE, 0);
	io = io_start(d, IO_FUA, 3 * BS + 1, 1, 9);
	ev_copied(c, 3, 1, 0, 3 * BS);
	dev_check(a, 3 * BS + 1, 1, 9, 3 * BS + 1);
	io_pending(io);
	commit_ok();
	io_ok(io);
	io = io_start(d, IO_FUA, 5 * BS, BS, 9);	/* a whole block */
	ev_copied(c, 5, 1, 0, 5 * BS);
	io_pending(io);
	commit_ok();
	io_ok(io);
	flushes = dev_stat(a, DEV_FLUSHES);
	io_ok(io_start(d, IO_FUA, 3 * BS + 2, 1, 9));	/* nothing to commit */
	check_eq(dev_stat(a, DEV_FLUSHES) > flushes, 1);
	ev_none(c);
	disk_write(d, 7 * BS + 1, 1, 9);
	io = io_start(d, IO_FUA, 3 * BS + 2, 1, 9);	/* something else */
	ev_copied(c, 7, 1, 0, 7 * BS);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "commits"), 3);
}

/* However many flushes wait: one commit. */
static void flushes_grouped(void)
{
	struct io *io, *many[8];
	uint64_t id;
	int i;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	id = ev_flush(c);
	disk_write(d, 5 * BS + 1, 1, 9);
	for (i = 0; i < 8; i++)
		many[i] = io_start(d, i & 1 ? IO_FUA : IO_FLUSH, i & 1 ? i : 0,
				   i & 1, 9);
	sleep_ms(50);
	ev_none(c);
	re_send(c, re_flushed(id, 0));
	io_ok(io);
	ev_copied(c, 0, 1, 0, 0);
	ev_copied(c, 5, 1, 0, 5 * BS);
	for (i = 0; i < 8; i++)
		io_pending(many[i]);
	commit_ok();
	for (i = 0; i < 8; i++)
		io_ok(many[i]);
	ev_none(c);
	check_eq(disk_status(d, "commits"), 2);
}

static void flush_refused(void)
{
	struct io *io, *fua;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	re_send(c, re_flushed(ev_flush(c), ENOSPC));
	check(io_wait(io), "the flush did not fail");
	check_eq(disk_status(d, "uncommitted"), 1);
	disk_expect(d, 3 * BS + 1, 1, 9, 3 * BS + 1);
	/* fsync() would take that for success */
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	re_send(c, re_flushed(ev_flush(c), EOPNOTSUPP));
	io_fails(io, EIO);
	fua = io_start(d, IO_FUA, 5 * BS + 1, 1, 9);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 5, 1, 0, 5 * BS);
	re_send(c, re_flushed(ev_flush(c), EIO));
	io_fails(fua, EIO);
	check_eq(disk_status(d, "uncommitted"), 2);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 5, 1, 0, 5 * BS);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
	check_eq(disk_status(d, "commits"), 1);
}

/* Block 3 is uncommitted, and a flush of its device fails. */
static void lose_block_3(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	gate_break_writes(NAME_GATE_A);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	check(io_wait(io), "the flush did not fail");
	gate_mend(NAME_GATE_A);
}

static void flush_fails(void)
{
	struct io *io = io_start(d, IO_FLUSH, 0, 0, 0);

	io_fails(io, EIO);
	ev_none(c);
	check_eq(disk_status(d, "data_lost"), 1);
}

/*
 * A device that cannot flush: no commit may refer to its data, nor later, when
 * it can flush again.  I/O goes on, until somebody says that nothing was lost.
 */
static void flush_device_fails(void)
{
	struct io *io;

	lose_block_3();
	ev_want(c, DMU_EV_LOST, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	check_eq(disk_status(d, "uncommitted"), 1);
	flush_fails();
	disk_write(d, 4 * BS + 1, 1, 9);
	disk_expect(d, 3 * BS + 1, 1, 9, 3 * BS + 1);
	re_send(c, re_commit());
	flush_fails();
	check_eq(disk_status(d, "uncommitted"), 2);
	check_eq(disk_status(d, "commits"), 0);
	check_eq(dm_message(d->name, "commit_anyway"), 0);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 2, 0, 3 * BS);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "data_lost"), 0);
}

/* Who attaches hears of it before any block that it is about. */
static void lost_is_told_again(void)
{
	lose_block_3();
	chan_close(c);
	c = chan_raw(d, 0);
	ev_want(c, DMU_EV_LOST, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	flush_fails();
}

/* The daemon's own flush of a file: the same, but for nothing uncommitted. */
static void daemon_tells_of_loss(void)
{
	struct dmu_reply lost = re_commit();

	lost.flags = DMU_RE_LOST;
	setup();
	all_cow(0, 0, BASE, 0);
	re_send(c, lost);
	check_eq(disk_status(d, "data_lost"), 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	re_send(c, lost);
	ev_want(c, DMU_EV_LOST, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	flush_fails();
}

/*
 * Whoever is told of a block may commit it at once, so it is flushed before, also
 * where no flush asks for it; by a flush that failed it is not.
 */
static void copied_is_durable(void)
{
	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	gate_break_writes(NAME_GATE_A);
	re_send(c, re_invalidate(7, 10, 1));
	ev_want(c, DMU_EV_LOST, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_INVALIDATED, 10, 1, 0);
	/* Nor is it later, when somebody believes that all is well. */
	check_eq(dm_message(d->name, "commit_anyway"), 0);
	re_send(c, re_invalidate(8, 11, 1));
	ev_want(c, DMU_EV_LOST, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_INVALIDATED, 11, 1, 0);
	gate_mend(NAME_GATE_A);
}

/* A write with FUA that was not begun has lost nothing of what is being copied. */
static void fua_nowait_loses_nothing(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A | GATE_BASE });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS, BS, 9);
	flush_and_commit();
	gate_shut(NAME_GATE_BASE);
	io = io_start(d, IO_WRITE, 4 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	gate_shut(NAME_GATE_A);
	io_fails(io_start(d, IO_FUA_NOWAIT, 3 * BS, 1, 10), EAGAIN);
	check_eq(disk_status(d, "data_lost"), 0);
	gate_open(NAME_GATE_A);
	gate_open(NAME_GATE_BASE);
	io_ok(io);
	flush_and_commit();
	disk_expect(d, 3 * BS, BS, 9, 3 * BS);
}

/* With nothing uncommitted who wrote is told, and can write again. */
static void flush_fails_on_hits(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_linear(0, 0, DMU_RE_WRITABLE);
	disk_write(d, 3 * BS + 1, 1, 9);
	gate_break_writes(NAME_GATE_A);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	check(io_wait(io), "the flush did not fail");
	gate_mend(NAME_GATE_A);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	io_ok(io);
	check_eq(disk_status(d, "data_lost"), 0);
	ev_none(c);
}

/* Blocks dirtied while a commit is under way are not in it. */
static void dirty_during_commit(void)
{
	struct io *io;
	uint64_t id;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	id = ev_flush(c);
	disk_write(d, 4 * BS + 1, 1, 9);
	re_send(c, re_flushed(id, 0));
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 1);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 4, 1, 0, 4 * BS);
	commit_ok();
	io_ok(io);
}

/* --- what a CPU found before ------------------------------------------------ */

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(!sched_setaffinity(0, sizeof(set), &set), "CPU %d: %s", cpu,
	      strerror(errno));
}

/* Block 4 and its neighbours stand where was said last, whichever CPU asks. */
static void reads_on_all(uint32_t tag, uint32_t beside)
{
	long cpu, n = sysconf(_SC_NPROCESSORS_ONLN);

	for (cpu = 0; cpu < n; cpu++) {
		on_cpu((int)cpu);
		disk_expect(d, 4 * BS, BS, tag, 4 * BS);
		disk_expect(d, 3 * BS, BS, beside, 3 * BS);
		disk_expect(d, 5 * BS, BS, beside, 5 * BS);
	}
}

/* Block 4 is in no mapping: whichever CPU asks, it finds none. */
static void asked_on_all(void)
{
	long cpu, n = sysconf(_SC_NPROCESSORS_ONLN);
	struct io *io[64];
	uint64_t id = 0;

	check(n <= (long)ARRAY_SIZE(io), "%ld CPUs are too many", n);
	for (cpu = 0; cpu < n; cpu++) {
		on_cpu((int)cpu);	/* the thread of the read has it from here */
		io[cpu] = io_start(d, IO_READ, 4 * BS, BS, 0);
		if (!cpu)
			id = ev_want(c, DMU_EV_MAP, 4, 1, 0).id;
		io_pending(io[cpu]);
	}
	re_send(c, re_linear(id, 4, 1, 1, 4 * BS, DMU_RE_REMEMBER));
	for (cpu = 0; cpu < n; cpu++)
		io_ok(io[cpu]);
}

/* I16: one store after the other, the new entry equal, wider, narrower, none. */
static void found_before(void)
{
	unsigned int i;

	setup();
	for (i = 0; i < 20; i++) {
		all_linear(0, 0, 0);
		reads_on_all(TAG_A, TAG_A);
		re_send(c, re_preload(re_linear(0, 4, 1, 1, 4 * BS, 0)));
		reads_on_all(TAG_B, TAG_A);
		re_send(c, re_preload(re_linear(0, 2, 6, 1, 2 * BS, 0)));
		reads_on_all(TAG_B, TAG_B);
		re_send(c, re_preload(re_linear(0, 4, 1, 0, 4 * BS, 0)));
		reads_on_all(TAG_A, TAG_B);
		re_send(c, re_invalidate(1, 4, 1));
		ev_want(c, DMU_EV_INVALIDATED, 4, 1, 0);
		asked_on_all();
		reads_on_all(TAG_B, TAG_B);
	}
}

/* --- INVALIDATE ------------------------------------------------------------- */

static void invalidate(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE);
	re_send(c, re_invalidate(77, 10, 5));
	ev = ev_want(c, DMU_EV_INVALIDATED, 10, 5, 0);
	check_eq(ev.id, 77);
	check_eq(disk_status(d, "extents"), 2);
	disk_expect(d, 9 * BS, BS, TAG_A, 9 * BS);
	disk_expect(d, 15 * BS, BS, TAG_A, 15 * BS);
	io = io_start(d, IO_READ, 12 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 12, 1, 0);
	re_send(c, re_linear(ev.id, 10, 5, 1, 0, RW));
	io_ok(io);
	check(filled(io->buf, 1, TAG_B, 2 * BS), "wrong data");
	re_send(c, re_invalidate(~0ULL, 0, d->blocks));
	ev = ev_want(c, DMU_EV_INVALIDATED, 0, d->blocks, 0);
	check_eq(ev.id, ~0ULL);
	check_eq(disk_status(d, "extents"), 0);
	check_eq(disk_status(d, "map_bytes"), 0);
}

/* Hits in flight, reads and writes, hold it up. */
static void invalidate_waits(void)
{
	enum io_op ops[] = { IO_READ, IO_WRITE };
	struct io *io;
	size_t i;

	setup_with(&(struct setup){ .gates = GATE_A });
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		all_linear(0, 0, DMU_RE_WRITABLE);
		gate_shut(NAME_GATE_A);
		io = io_start(d, ops[i], 10 * BS, BS, 9);
		io_pending(io);
		re_send(c, re_invalidate(i + 1, 0, d->blocks));
		sleep_ms(200);
		ev_none(c);
		gate_open(NAME_GATE_A);
		io_ok(io);
		ev_want(c, DMU_EV_INVALIDATED, 0, d->blocks, 0);
	}
}

/* I/O under a mapping that was used once, too. */
static void invalidate_waits_once(void)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_WRITE, 10 * BS, BS, 9);
	ev = ev_want(c, DMU_EV_MAP, 10, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_linear(ev.id, 10, 1, 0, 0, DMU_RE_WRITABLE));
	re_send(c, re_invalidate(1, 10, 1));
	sleep_ms(200);
	ev_none(c);
	gate_open(NAME_GATE_A);
	io_ok(io);
	ev_want(c, DMU_EV_INVALIDATED, 10, 1, 0);
}

static void invalidate_after_copied(void)
{
	struct io *io;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	disk_write(d, 8 * BS, 2 * BS, 9);
	re_send(c, re_invalidate(5, 0, 5));
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 8, 2, 0, 8 * BS);
	ev_want(c, DMU_EV_INVALIDATED, 0, 5, 0);
	check_eq(disk_status(d, "uncommitted"), 3);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 8, 2, 0, 8 * BS);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
}

/* What was copied there is not told any more, to nobody; what is beside it is. */
static void invalidate_forgets(void)
{
	struct dmu_reply r = re_invalidate(5, 4, 5);
	struct io *io, *discard;
	struct dmu_event ev;

	setup_with(&(struct setup){ .features = DMU_FEAT_DISCARD });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS, 7 * BS, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 7, 0, 3 * BS);
	re_send(c, re_flushed(ev_flush(c), EIO));
	io_fails(io, EIO);
	disk_write(d, 12 * BS, BS, 9);
	r.flags = DMU_RE_FORGET;
	check_eq(re_try(c, &r), ENOENT);	/* nothing is owed */
	discard = io_start(d, IO_DISCARD, 4 * BS, 4 * BS, 0);
	ev = ev_want(c, DMU_EV_DISCARD, 4, 4, 0);
	check_eq(re_try(c, &r), ENOENT);	/* one block too many */
	check_eq(disk_status(d, "uncommitted"), 8);
	r.count = 4;
	re_send(c, r);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 8, 2, 0, 8 * BS);
	ev_copied(c, 12, 1, 0, 12 * BS);
	ev_want(c, DMU_EV_INVALIDATED, 4, 4, 0);
	check_eq(disk_status(d, "uncommitted"), 4);
	re_send(c, re_done(ev.id, 0));
	io_ok(discard);
	/* A new place of a block that was forgotten is told, and only that. */
	re_send(c, re_preload(re_cow(0, 4, 4, 1, 4 * BS, BASE, 4 * BS)));
	disk_write(d, 6 * BS, BS, 9);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 8, 2, 0, 8 * BS);
	ev_copied(c, 12, 1, 0, 12 * BS);
	ev_copied(c, 6, 1, 1, 6 * BS);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
}

/*
 * A first write under way when its extent lost the block ends after a commit: what was
 * copied to its old place is told before what was copied to the new one.
 */
static void invalidate_keeps_order(void)
{
	struct io *late, *io;
	uint64_t id;

	setup_with(&(struct setup){ .gates = GATE_BASE });
	re_send(c, re_preload(re_cow(0, 0, 5, 1, 0, BASE, 0)));
	re_send(c, re_preload(re_cow(0, 20, 20, 0, 20 * BS, BASE, 20 * BS)));
	disk_write(d, 1, 1, 9);
	gate_shut(NAME_GATE_BASE);
	late = io_start(d, IO_WRITE, 25 * BS + 1, 1, 8);
	disk_wait_status(d, "waiting", 1);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 0, 1, 1, 0);
	id = ev_flush(c);
	re_send(c, re_invalidate(5, 15, 11));
	re_send(c, re_flushed(id, 0));
	io_ok(io);
	gate_open(NAME_GATE_BASE);
	io_ok(late);
	ev_copied(c, 25, 1, 0, 25 * BS);
	ev_want(c, DMU_EV_INVALIDATED, 15, 11, 0);
	re_send(c, re_preload(re_cow(0, 15, 11, 1, 15 * BS, BASE, 15 * BS)));
	disk_write(d, 25 * BS + 1, 1, 7);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 25, 1, 0, 25 * BS);
	ev_copied(c, 25, 1, 1, 25 * BS);
	commit_ok();
	io_ok(io);
}

/* A copy under way ends first, with its write, and is told; who waited behind it asks. */
static void invalidate_during_copy(void)
{
	bool copied = false, gone = false, asked = false;
	struct io *first, *second;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	first = io_start(d, IO_WRITE, 3 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	second = io_start(d, IO_WRITE, 3 * BS + 4, 1, 9);
	disk_wait_status(d, "waiting", 2);
	re_send(c, re_invalidate(5, 0, d->blocks));
	sleep_ms(100);
	ev_none(c);
	gate_open(NAME_GATE_A);
	while (!copied || !gone || !asked) {
		struct dmu_event ev = ev_get(c);

		switch (ev.type) {
		case DMU_EV_COPIED:
			check(ev.block == 3 && ev.count == 1, "wrong block");
			copied = true;
			break;
		case DMU_EV_INVALIDATED:
			check(copied, "INVALIDATED before COPIED");
			gone = true;
			break;
		case DMU_EV_MAP:
			check(gone, "a question before INVALIDATED");
			asked = true;
			re_send(c, re_linear(ev.id, 3, 1, 0, 3 * BS, RW));
			break;
		default:
			fail("event %u", ev.type);
		}
	}
	io_ok(first);
	io_ok(second);
	dev_check(a, 3 * BS, 1, TAG_BASE, 3 * BS);
	dev_check(a, 3 * BS + 1, 1, 9, 3 * BS + 1);
	dev_check(a, 3 * BS + 4, 1, 9, 3 * BS + 4);
}

/* Many at once, with ids of the daemon's choice, none lost. */
static void invalidate_many(void)
{
	uint64_t seen[2] = { 0, 0 };
	unsigned int i;

	setup();
	for (i = 0; i < 101; i++) {
		re_send(c, re_preload(re_linear(0, i, 1, i & 1, 0, 0)));
		re_send(c, re_invalidate(i + 1000, i, 1));
	}
	for (i = 0; i < 101; i++) {
		struct dmu_event ev = ev_get(c);

		check_eq(ev.type, DMU_EV_INVALIDATED);
		check_eq(ev.id, ev.block + 1000);
		check(!(seen[ev.block / 64] & 1ULL << ev.block % 64), "twice");
		seen[ev.block / 64] |= 1ULL << ev.block % 64;
	}
	ev_none(c);
}

/* Blocks move while they are written to: no write is lost. */
static void invalidate_and_move(void)
{
	unsigned int i;

	setup();
	for (i = 0; i < 30; i++) {
		bool gone = false;
		uint32_t dev = i & 1;
		struct dmu_reply r;
		struct dmu_event ev;
		struct io *io;

		r = re_linear(0, 4, 1, dev, 80 * i, DMU_RE_WRITABLE);
		re_send(c, re_preload(r));
		io = io_start(d, IO_WRITE, 4 * BS, BS, 100 + i);
		re_send(c, re_invalidate(1, 4, 1));
		while (!gone || !io_done(io)) {
			if (!ev_poll(c, &ev, 1))
				continue;
			if (ev.type == DMU_EV_INVALIDATED) {
				gone = true;
			} else {
				check(gone, "a question before INVALIDATED");
				r.id = ev.id;	/* used once */
				re_send(c, r);
			}
		}
		io_ok(io);
		dev_check(dev ? b : a, 80 * i, BS, 100 + i, 4 * BS);
	}
}

/* Until INVALIDATED no mapping is taken there, and nothing is asked. */
static void invalidate_busy(void)
{
	struct io *io, *rd, *wr;
	struct dmu_event ev;
	struct dmu_reply r;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_linear(0, 0, DMU_RE_WRITABLE);
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_READ, 10 * BS, BS, 0);
	io_pending(io);
	rd = io_start(d, IO_READ, 50 * BS, 1, 0);
	sleep_ms(50);
	re_send(c, re_invalidate(7, 10, 5));
	wr = io_start(d, IO_WRITE, 12 * BS, 1, 9);
	disk_wait_status(d, "waiting", 1);
	ev_none(c);
	r = re_preload(re_linear(0, 14, 1, 1, 0, 0));
	check_eq(re_try(c, &r), EBUSY);
	r = re_preload(re_linear(0, 9, 2, 0, 9 * BS, DMU_RE_WRITABLE));
	check_eq(re_try(c, &r), EBUSY);
	r = re_preload(re_cow(0, 14, 1, 1, 0, BASE, 0));
	check_eq(re_try(c, &r), EBUSY);
	re_send(c, re_preload(re_linear(0, 9, 1, 0, 9 * BS, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_linear(0, 15, 1, 0, 15 * BS, DMU_RE_WRITABLE)));
	ev_none(c);
	gate_open(NAME_GATE_A);
	io_ok(io);
	io_ok(rd);
	ev_want(c, DMU_EV_INVALIDATED, 10, 5, 0);
	ev = ev_want(c, DMU_EV_MAP, 12, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 10, 5, 1, 0, RW));
	io_ok(wr);
	dev_check(b, 16, 1, 9, 12 * BS);
}

/* Nor is what was asked before INVALIDATE and not read, nor with the question beside it. */
static void invalidate_not_asked(void)
{
	struct io *io, *before, *in, *beside;
	struct dmu_event ev, early;
	bool asked;

	setup_with(&(struct setup){ .gates = GATE_A });
	re_send(c, re_preload(re_linear(0, 10, 3, 0, 10 * BS, DMU_RE_WRITABLE)));
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_READ, 11 * BS, BS, 0);
	io_pending(io);
	before = io_start(d, IO_WRITE, 14 * BS, 1, 9);
	disk_wait_status(d, "waiting", 1);
	re_send(c, re_invalidate(7, 10, 5));
	in = io_start(d, IO_WRITE, 10 * BS, 1, 9);
	disk_wait_status(d, "waiting", 2);
	asked = ev_poll(c, &early, 100);
	beside = io_start(d, IO_WRITE, 9 * BS, 1, 9);
	ev = ev_get(c);
	gate_open(NAME_GATE_A);		/* before anything is found wrong */
	check(!asked, "a question about block %llu", (unsigned long long)early.block);
	check_eq(ev.block, 9);
	check_eq(ev.count, 1);
	re_send(c, re_linear(ev.id, 9, 1, 1, 9 * BS, RW));
	io_ok(beside);
	io_ok(io);
	ev_want(c, DMU_EV_INVALIDATED, 10, 5, 0);
	ev = ev_want(c, DMU_EV_MAP, 14, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 10, 5, 1, 10 * BS, RW));
	io_ok(before);
	io_ok(in);
	dev_check(b, 10 * BS, 1, 9, 10 * BS);
	dev_check(b, 14 * BS, 1, 9, 14 * BS);
}

/* Trees of every size, taken down at once: by INVALIDATE and by removal. */
static void map_large(void)
{
	struct disk want = { .sectors = 20000, .bs = 1 };
	struct dmu_reply r[64];
	uint64_t i, size;

	a = dev_new(20000);
	want.devs[0] = a->path;
	for (size = 1000; size < 20000; size += 1900) {
		d = disk_new(&want);
		c = chan_new(d, 0);
		for (i = 0; i < size; i++) {
			r[i % 64] = re_preload(re_linear(0, i, 1, 0,
							 (i * 7) % 20000, 0));
			if (i % 64 == 63 || i == size - 1)
				check(write(c->fd, r, (i % 64 + 1) * sizeof(*r)) ==
				      (ssize_t)((i % 64 + 1) * sizeof(*r)),
				      "PRELOAD was refused");
		}
		check_eq(disk_status(d, "extents"), size);
		re_send(c, re_invalidate(1, size / 8, size / 2));
		ev_want(c, DMU_EV_INVALIDATED, size / 8, size / 2, 0);
		check_eq(disk_status(d, "extents"), size - size / 2);
		chan_close(c);
		close(d->fd);
		check_eq(dm_remove(d->name), 0);
	}
}

/* --- the budget ------------------------------------------------------------- */

static void evict_message(void)
{
	uint64_t bit = 1;
	struct dmu_event ev;
	struct dmu_reply r;
	struct io *io;

	setup();
	re_send(c, re_preload(re_linear(0, 0, 5, 0, 0, 0)));
	re_send(c, re_preload(re_linear(0, 5, 5, 1, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_kind(0, 10, 5, DMU_KIND_ZERO, 0)));
	re_send(c, re_preload(re_kind(0, 15, 5, DMU_KIND_ERROR, 0)));
	r = re_preload(re_cow(0, 20, 5, 0, 160, BASE, 0));
	check_eq(re_try_bitmap(c, r, &bit), 0);
	check_eq(disk_status(d, "extents"), 5);
	check_eq(dm_message(d->name, "evict"), 0);
	check_eq(disk_status(d, "extents"), 0);
	check_eq(disk_status(d, "evictions"), 5);
	disk_wait_status(d, "map_bytes", 0);
	io = io_start(d, IO_READ, 20 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 20, 1, 0);
	re_send(c, re_linear(ev.id, 20, 1, 0, 160, 0));
	io_ok(io);
}

static void evict_keeps_uncommitted(void)
{
	setup();
	re_send(c, re_preload(re_cow(0, 0, 5, 0, 0, BASE, 0)));
	re_send(c, re_preload(re_cow(0, 5, 5, 0, 40, BASE, 0)));
	disk_write(d, 1, 1, 9);
	check_eq(dm_message(d->name, "evict"), 0);
	check_eq(disk_status(d, "extents"), 1);
	check_eq(disk_status(d, "uncommitted"), 1);
	disk_expect(d, 1, 1, 9, 1);
	disk_expect(d, 2, 3, TAG_BASE, 2);
	flush_and_commit();
	check_eq(dm_message(d->name, "evict"), 0);
	check_eq(disk_status(d, "extents"), 0);
}

/* ... nor a block that is being copied. */
static void evict_during_copy(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_BASE });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_BASE);
	io = io_start(d, IO_WRITE, 3 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	check_eq(dm_message(d->name, "evict"), 0);
	check_eq(disk_status(d, "extents"), 1);
	gate_open(NAME_GATE_BASE);
	io_ok(io);
	flush_and_commit();
	disk_expect(d, 3 * BS + 1, 1, 9, 3 * BS + 1);
}

static void budget(void)
{
	unsigned int i;

	setup_with(&(struct setup){ .table = "2 map_memory 1" });
	check_eq(disk_status(d, "map_budget"), 1024);
	for (i = 0; i <= LAST; i++) {
		re_send(c, re_preload(re_linear(0, i, 1, i & 1, 0,
						DMU_RE_WRITABLE)));
		check(disk_status(d, "map_bytes") <= 1024, "over the budget");
	}
	check_eq(disk_status(d, "extents"), 1024 / 48);
	check_eq(disk_status(d, "evictions"), LAST + 1 - 1024 / 48);
}

/*
 * I/O under way may still read what was forgotten.  It is not counted with what is
 * remembered, or all of that would be forgotten for its sake; nor is it without bound.
 */
static void budget_dying(void)
{
	unsigned int i, kept, more;
	struct dmu_reply r;
	struct io *io;

	setup_with(&(struct setup){ .table = "2 map_memory 2", .gates = GATE_A });
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, 0)));
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_READ, 0, 1, 0);
	disk_wait_status(d, "hits_read", 1);
	for (i = 1; !disk_status(d, "evictions"); i++)
		re_send(c, re_preload(re_cow(0, i, 1, 0, i * BS, BASE, 0)));
	kept = disk_status(d, "extents");
	for (more = 0; more < 50; more++, i++) {
		r = re_preload(re_cow(0, i, 1, 0, i * BS, BASE, 0));
		if (re_try(c, &r))
			break;
		check(disk_status(d, "extents") + 1 >= kept, "too much was forgotten");
		check(disk_status(d, "map_bytes") <= 2048, "over the budget");
	}
	check(more >= kept - 2 && more <= kept + 2, "%u more, %u kept", more, kept);
	gate_open(NAME_GATE_A);
	io_ok(io);
	while (re_try(c, &r))
		sleep_ms(1);
}

/* To forget a part of an extent makes room for an entry, not for all that the extent takes. */
static void budget_parts(void)
{
	struct dmu_reply r;
	unsigned int i;

	setup_with(&(struct setup){ .table = "2 map_memory 2" });
	re_send(c, re_preload(re_cow(0, 0, 40, 0, 0, BASE, 0)));
	for (i = 1; i < 40; i += 2) {
		re_send(c, re_invalidate(i, i, 1));
		ev_want(c, DMU_EV_INVALIDATED, i, 1, 0);
	}
	check_eq(disk_status(d, "extents"), 20);
	for (i = 50; i < 70; i++) {
		r = re_preload(re_cow(0, i, 1, 0, i * BS, BASE, 0));
		while (re_try(c, &r))	/* what was forgotten still goes */
			sleep_ms(1);
		check(disk_status(d, "map_bytes") <= 2048, "over the budget");
	}
	check(disk_status(d, "evictions") > 20, "too few were forgotten");
}

/* Uncommitted extents fill the budget: E2BIG, until they are committed. */
static void budget_uncommitted(void)
{
	struct dmu_reply r;
	unsigned int i;
	int err;

	setup_with(&(struct setup){ .table = "2 map_memory 2" });
	for (i = 0; i < 50; i++) {
		r = re_preload(re_cow(0, i, 1, 0, i * BS, BASE, 0));
		err = re_try(c, &r);
		if (err)
			break;
		disk_write(d, i * BS + 1, 1, 9);
	}
	check(i > 2 && i < 50, "%u extents went into 2 KiB", i);
	check_eq(err, E2BIG);
	check_eq(disk_status(d, "uncommitted"), i);
	check(disk_status(d, "map_bytes") <= 2048, "over the budget");
	while (i--)
		disk_expect(d, i * BS + 1, 1, 9, i * BS + 1);
	flush_and_commit();
	r = re_preload(re_cow(0, 60, 1, 0, 60 * BS, BASE, 0));
	re_send(c, r);
}

/* Nothing of it can be forgotten before a commit. */
static void take_room(uint64_t block, uint64_t count)
{
	re_send(c, re_preload(re_cow(0, block, count, 0, block * BS, BASE, 0)));
	disk_write(d, block * BS + 1, 1, 9);
}

/*
 * An answer that finds no room is used once, for the question that it answers; the
 * other that it would have answered comes again, and nobody waits for ever.
 */
static void budget_answer(void)
{
	struct io *io, *other;
	struct dmu_event ev, ev_other;
	uint64_t extents;
	unsigned int i;

	setup_with(&(struct setup){ .table = "2 map_memory 1" });
	for (i = 0; i < 3; i++)
		take_room(i, 1);
	take_room(10, 65);
	check(disk_status(d, "map_bytes") + 48 > 1024, "there is room left");
	extents = disk_status(d, "extents");
	io = io_start(d, IO_READ, 90 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 90, 1, 0);
	other = io_start(d, IO_READ, 91 * BS, 1, 0);
	ev_other = ev_want(c, DMU_EV_MAP, 91, 1, 0);
	re_send(c, re_linear(ev.id, 90, 2, 1, 0, DMU_RE_REMEMBER));
	io_ok(io);
	check(filled(io->buf, 1, TAG_B, 0), "wrong data");
	check_eq(disk_status(d, "extents"), extents);
	check_eq(disk_status(d, "evictions"), 0);
	ev = ev_want(c, DMU_EV_MAP, 91, 1, 0);
	check(ev.id != ev_other.id, "the same id");
	re_send(c, re_linear(ev.id, 91, 1, 1, 8, 0));
	io_ok(other);
	check(filled(other->buf, 1, TAG_B, 8), "wrong data");
	io = io_start(d, IO_READ, 90 * BS, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 90, 1, 0);
	re_send(c, re_linear(ev.id, 90, 1, 1, 0, 0));
	io_ok(io);
}

static void budget_message(void)
{
	unsigned int i;

	setup();
	for (i = 0; i <= LAST; i++)
		re_send(c, re_preload(re_linear(0, i, 1, i & 1, 0, 0)));
	check_eq(disk_status(d, "extents"), LAST + 1);
	check_eq(dm_message(d->name, "map_memory 1"), 0);
	check(disk_status(d, "map_bytes") <= 1024, "over the budget");
	check_eq(disk_status(d, "map_budget"), 1024);
}

/* --- discard and write-zeroes ------------------------------------------------ */

static void discard_own(void)
{
	setup();
	re_send(c, re_preload(re_linear(0, 0, 50, 0, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 50, 40, 0, 400, BASE, 0)));
	disk_write(d, 50 * BS, 20 * BS, 9);
	check(!dev_is_hole(a, 8, 8), "a hole before the discard");
	io_ok(io_start(d, IO_DISCARD, 8, 8, 0));
	check(dev_is_hole(a, 8, 8), "the space was not given back");
	disk_expect_zero(d, 8, 8);
	disk_expect(d, 0, 8, TAG_A, 0);
	io_ok(io_start(d, IO_DISCARD, 400, 40 * BS, 0));
	check(dev_is_hole(a, 400, 20 * BS), "the space was not given back");
	disk_expect_zero(d, 400, 20 * BS);	/* ours: zeroes, not the base */
	disk_expect(d, 400 + 20 * BS, 20 * BS, TAG_BASE, 20 * BS);
	ev_none(c);
	check(disk_status(d, "discards") >= 2, "not counted");
}

/* What is not ours does not change; the base keeps its data. */
static void discard_foreign(void)
{
	setup();
	re_send(c, re_preload(re_linear(0, 0, 50, BASE, 0, 0)));
	re_send(c, re_preload(re_cow(0, 50, 40, 0, 400, BASE, 400)));
	io_ok(io_start(d, IO_DISCARD, 0, SECTORS / 8 * 8, 0));
	dev_check(base, 0, DEV_SECTORS, TAG_BASE, 0);
	dev_check(a, 0, DEV_SECTORS, TAG_A, 0);
	disk_expect(d, 0, 90 * BS, TAG_BASE, 0);
	ev_none(c);
	check_eq(disk_status(d, "waiting"), 0);
}

static void zeroes_whole(void)
{
	uint64_t reads;
	struct io *io;

	setup();
	all_cow(0, 0, BASE, 0);
	reads = dev_stat(base, DEV_READS);
	io_ok(io_start(d, IO_ZERO, 10 * BS, 20 * BS, 0));
	check_eq(dev_stat(base, DEV_READS), reads);
	check_eq(disk_status(d, "copies"), 0);
	check_eq(disk_status(d, "overwrites"), 20);
	disk_expect_zero(d, 10 * BS, 20 * BS);
	disk_expect(d, 9 * BS, BS, TAG_BASE, 9 * BS);
	disk_expect(d, 30 * BS, BS, TAG_BASE, 30 * BS);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 10, 20, 0, 10 * BS);
	commit_ok();
	io_ok(io);
}

static void zeroes_part(void)
{
	setup();
	all_cow(0, 0, BASE, 0);
	io_ok(io_start(d, IO_ZERO, 10 * BS + 2, 3, 0));
	check_eq(disk_status(d, "copies"), 1);
	disk_expect(d, 10 * BS, 2, TAG_BASE, 10 * BS);
	disk_expect_zero(d, 10 * BS + 2, 3);
	disk_expect(d, 10 * BS + 5, 3, TAG_BASE, 10 * BS + 5);
}

/* Write-zeroes where nothing is known asks as a write does. */
static void zeroes_fault(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	io = io_start(d, IO_ZERO, 10 * BS, BS, 0);
	ev = ev_want(c, DMU_EV_MAP, 10, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_cow(ev.id, 10, 1, 0, 0, BASE, 0));
	io_ok(io);
	dev_check_zero(a, 0, BS);
	check_eq(disk_status(d, "copies"), 0);
}

static void discard_event(void)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .features = DMU_FEAT_DISCARD });
	all_linear(0, 0, DMU_RE_WRITABLE);
	io = io_start(d, IO_DISCARD, 3 * BS, 10 * BS, 0);
	ev = ev_want(c, DMU_EV_DISCARD, 3, 10, 0);
	check_eq(disk_status(d, "waiting"), 1);
	io_pending(io);
	re_send(c, re_done(ev.id, 0));
	io_ok(io);
	dev_check(a, 0, DEV_SECTORS, TAG_A, 0);	/* the daemon's business */
	io = io_start(d, IO_DISCARD, 3 * BS, 10 * BS, 0);
	ev = ev_want(c, DMU_EV_DISCARD, 3, 10, 0);
	re_send(c, re_done(ev.id, EIO));
	check(io_wait(io), "the discard did not fail");
	io_ok(io_start(d, IO_ZERO, 3 * BS, BS, 0));	/* not asked for */
	dev_check_zero(a, 3 * BS, BS);
	ev_none(c);
}

/* Only whole blocks are asked for; the rest of a discard is no error. */
static void discard_event_parts(void)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .features = DMU_FEAT_DISCARD });
	all_linear(0, 0, DMU_RE_WRITABLE);
	io_ok(io_start(d, IO_DISCARD, 3 * BS + 1, BS - 1, 0));
	ev_none(c);
	io = io_start(d, IO_DISCARD, 3 * BS + 5, 10 * BS, 0);
	ev = ev_want(c, DMU_EV_DISCARD, 4, 9, 0);
	re_send(c, re_done(ev.id, 0));
	io_ok(io);
	io = io_start(d, IO_DISCARD, 99 * BS, BS + 3, 0);	/* the short one */
	ev = ev_want(c, DMU_EV_DISCARD, 99, 2, 0);
	re_send(c, re_done(ev.id, 0));
	io_ok(io);
	dev_check(a, 0, DEV_SECTORS, TAG_A, 0);
}

static void zeroes_event(void)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .features = DMU_FEAT_WRITE_ZEROES });
	all_linear(0, 0, DMU_RE_WRITABLE);
	io = io_start(d, IO_ZERO, 3 * BS, 10 * BS, 0);
	ev = ev_want(c, DMU_EV_WRITE_ZEROES, 3, 10, 0);
	io_pending(io);
	re_send(c, re_done(ev.id, 0));
	io_ok(io);
	dev_check(a, 0, DEV_SECTORS, TAG_A, 0);
	io_ok(io_start(d, IO_ZERO, 3 * BS + 1, 2, 0));	/* a part: a write */
	dev_check_zero(a, 3 * BS + 1, 2);
	io_ok(io_start(d, IO_DISCARD, 20 * BS, BS, 0));
	check(dev_is_hole(a, 20 * BS, BS), "discard did not get through");
	ev_none(c);
}

/* --- errors -------------------------------------------------------------------- */

static void copy_error(const char *gate, int gates)
{
	struct io *w[3];
	int i;

	setup_with(&(struct setup){ .gates = gates });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 20 * BS + 1, 1, 9);
	gate_shut(gate);
	for (i = 0; i < 3; i++)
		w[i] = io_start(d, IO_WRITE, 3 * BS + i, 1, 9);
	disk_wait_status(d, "waiting", 3);
	gate_break(gate);
	for (i = 0; i < 3; i++)
		io_fails(w[i], EIO);
	check_eq(disk_status(d, "copy_errors"), 1);
	check_eq(disk_status(d, "copies"), 1);
	check_eq(disk_status(d, "uncommitted"), 1);
	check_eq(disk_status(d, "waiting"), 0);
	gate_mend(gate);
	disk_expect(d, 3 * BS, BS, TAG_BASE, 3 * BS);
	disk_write(d, 3 * BS + 1, 1, 10);
	disk_expect(d, 3 * BS + 1, 1, 10, 3 * BS + 1);
	disk_expect(d, 3 * BS + 2, 1, TAG_BASE, 3 * BS + 2);
	check_eq(disk_status(d, "uncommitted"), 2);
	ev_none(c);
}

static void copy_error_source(void)
{
	copy_error(NAME_GATE_BASE, GATE_BASE);
}

static void copy_error_destination(void)
{
	copy_error(NAME_GATE_A, GATE_A);
}

/* A whole write that fails leaves the block as it was. */
static void overwrite_error(void)
{
	struct io *whole, *part;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	whole = io_start(d, IO_WRITE, 3 * BS, 2 * BS, 9);
	sleep_ms(50);
	part = io_start(d, IO_WRITE, 4 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	gate_break(NAME_GATE_A);
	io_fails(whole, EIO);
	io_fails(part, EIO);		/* runs again: its own copy fails */
	check_eq(disk_status(d, "uncommitted"), 0);
	disk_expect(d, 3 * BS, 2 * BS, TAG_BASE, 3 * BS);
	gate_mend(NAME_GATE_A);
	disk_expect(d, 3 * BS, 2 * BS, TAG_BASE, 3 * BS);
	disk_write(d, 3 * BS, 2 * BS, 9);
	disk_expect(d, 3 * BS, 2 * BS, 9, 3 * BS);
}

/* --- no space ---------------------------------------------------------------- */

/* A write of four blocks waits for space; the first one fills what there is. */
#define FULL	THIN_CHUNK		/* no place has space from here on */
#define NR_FULL	(FULL / BS)		/* the block */

static struct io *wait_for_space(enum io_op op, bool linear)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = THIN_A, .table = "2 no_space wait" });
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, DMU_RE_WRITABLE)));
	disk_write(d, 0, BS, 1);
	re_send(c, re_preload(linear ? re_linear(0, NR_FULL, 4, 0, FULL, DMU_RE_WRITABLE) :
				       re_cow(0, NR_FULL, 4, 0, FULL, BASE, FULL)));
	io = io_start(d, op, FULL, 4 * BS, 9);
	disk_wait_status(d, "no_space", 1);
	return io;
}

/*
 * What it was sent by is forgotten while it waits, or revoked, so that its blocks are asked for: one
 * after the other, as each may go elsewhere, and none is written by a mapping of another.
 */
static void no_space_forgotten(enum io_op op, bool linear)
{
	struct io *io = wait_for_space(op, linear);
	struct dmu_event ev;

	if (linear) {
		check_eq(dm_message(d->name, "evict"), 0);
	} else {
		daemon_gone();
		c = chan_new(d, 0);
	}
	ev = ev_want(c, DMU_EV_MAP, NR_FULL, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_linear(ev.id, NR_FULL, 1, 1, 0, RW));
	ev = ev_want(c, DMU_EV_MAP, NR_FULL + 1, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_cow(ev.id, NR_FULL + 1, 3, 0, FULL + BS, BASE, FULL + BS));
	disk_wait_status(d, "no_space", 1);
	io_pending(io);
	thin_room(2);
	if (op == IO_FUA) {
		ev_copied(c, NR_FULL + 1, 3, 0, FULL + BS);
		io_pending(io);
		commit_ok();
	}
	io_ok(io);
	disk_expect(d, FULL, 4 * BS, 9, FULL);
	dev_check(b, 0, BS, 9, FULL);
	check_eq(disk_status(d, "waiting"), 0);
	check_eq(disk_status(d, "uncommitted"), op == IO_FUA ? 0 : 3);
	check_eq(disk_status(d, "commits"), op == IO_FUA);
	ev_none(c);
}

static void no_space_evicted(void)
{
	no_space_forgotten(IO_WRITE, true);
}

static void no_space_revoked(void)
{
	no_space_forgotten(IO_WRITE, false);
}

static void no_space_durable(void)
{
	no_space_forgotten(IO_FUA, false);
}

/* The first and the last block are written to in part: what is left of them is copied. */
static void no_space_parts(void)
{
	const uint64_t first = FULL + BS - 1, count = 2 * BS + 2;
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .gates = THIN_A, .table = "2 no_space wait" });
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, DMU_RE_WRITABLE)));
	disk_write(d, 0, BS, 1);
	re_send(c, re_preload(re_linear(0, NR_FULL, 4, 0, FULL, DMU_RE_WRITABLE)));
	io = io_start(d, IO_WRITE, first, count, 9);
	disk_wait_status(d, "no_space", 1);
	check_eq(dm_message(d->name, "evict"), 0);
	ev = ev_want(c, DMU_EV_MAP, NR_FULL, 1, DMU_EV_WRITE);
	re_send(c, re_cow(ev.id, NR_FULL, 4, 1, 0, BASE, FULL));
	io_ok(io);
	check_eq(disk_status(d, "copies"), 2);
	check_eq(disk_status(d, "overwrites"), 2);
	disk_expect(d, FULL, BS - 1, TAG_BASE, FULL);
	disk_expect(d, first, count, 9, first);
	disk_expect(d, first + count, BS - 1, TAG_BASE, first + count);
}

/* Suspends that come when writes come back without space: none of them is seen to end. */
static void no_space_suspended(void)
{
	struct io *io[8];
	struct rng r;
	unsigned int i;

	setup_with(&(struct setup){ .gates = THIN_A, .table = "2 no_space wait" });
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, DMU_RE_WRITABLE)));
	disk_write(d, 0, BS, 1);
	re_send(c, re_preload(re_linear(0, NR_FULL, 80, 0, FULL, DMU_RE_WRITABLE)));
	for (i = 0; i < ARRAY_SIZE(io); i++)
		io[i] = io_start(d, IO_WRITE, FULL + 2 * i * BS, 2 * BS, 9);
	disk_wait_status(d, "no_space", ARRAY_SIZE(io));
	rng_init(&r, 1);
	for (i = 0; i < 300; i++) {
		check_eq(dm_message(d->name, "no_space wait"), 0);	/* all are tried again */
		usleep(rng_below(&r, 300));
		check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
		check_eq(dm_resume(d->name), 0);
	}
	for (i = 0; i < ARRAY_SIZE(io); i++)
		check(!io_done(io[i]), "a write ended: %s", strerror(io[i]->err));
	thin_room(3);
	for (i = 0; i < ARRAY_SIZE(io); i++)
		io_ok(io[i]);
	disk_expect(d, FULL, 2 * ARRAY_SIZE(io) * BS, 9, FULL);
}

/* A write-zeroes that the daemon has no space for goes on as a write does, block by block. */
static void no_space_zeroes(void)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .table = "2 no_space wait",
				    .features = DMU_FEAT_WRITE_ZEROES });
	io = io_start(d, IO_ZERO, 3 * BS, 2 * BS, 0);
	ev = ev_want(c, DMU_EV_WRITE_ZEROES, 3, 2, 0);
	re_send(c, re_done(ev.id, ENOSPC));
	io_pending(io);
	ev = ev_want(c, DMU_EV_MAP, 3, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_linear(ev.id, 3, 1, 0, 3 * BS, RW));
	ev = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_fail(ev.id, 4, 1, ENOSPC));
	io_pending(io);
	ev = ev_want(c, DMU_EV_MAP, 4, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	re_send(c, re_linear(ev.id, 4, 1, 1, 4 * BS, RW));
	io_ok(io);
	disk_expect_zero(d, 3 * BS, 2 * BS);
	/* By the policy fail it ends. */
	check_eq(dm_message(d->name, "no_space fail"), 0);
	io = io_start(d, IO_ZERO, 7 * BS, 2 * BS, 0);
	ev = ev_want(c, DMU_EV_WRITE_ZEROES, 7, 2, 0);
	re_send(c, re_done(ev.id, ENOSPC));
	io_fails(io, ENOSPC);
}

/* A FUA write without space has flushed nothing, so it says nothing of the copy under way. */
static void no_space_not_lost(void)
{
	struct io *io, *fua;
	uint64_t lost;
	int err;

	setup_with(&(struct setup){ .gates = THIN_A | GATE_BASE });
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, DMU_RE_WRITABLE)));
	disk_write(d, 0, BS, 1);
	re_send(c, re_preload(re_cow(0, 3, 1, 0, 3 * BS, BASE, 3 * BS)));
	re_send(c, re_preload(re_linear(0, NR_FULL, 1, 0, FULL, DMU_RE_WRITABLE)));
	gate_shut(NAME_GATE_BASE);
	io = io_start(d, IO_WRITE, 3 * BS + 1, 1, 9);
	io_pending(io);
	fua = io_start(d, IO_FUA, FULL, BS, 9);
	err = io_wait(fua);
	lost = disk_status(d, "data_lost");
	gate_open(NAME_GATE_BASE);
	check_eq(err, ENOSPC);
	check_eq(lost, 0);
	io_ok(io);
	flush_and_commit();
	check_eq(disk_status(d, "commits"), 1);
}

/* --- the rest ---------------------------------------------------------------- */

static void poll_and_end(void)
{
	struct pollfd p;
	struct dmu_event ev;
	struct dmu_reply r = re_commit();
	struct io *io;

	setup();
	p = (struct pollfd){ .fd = c->fd, .events = POLLIN };
	check_eq(poll(&p, 1, 0), 0);
	io = io_start(d, IO_READ, 0, 1, 0);
	check_eq(poll(&p, 1, wait_limit_ms()), 1);
	check_eq(p.revents, POLLIN);
	ev = ev_get(c);
	check_eq(poll(&p, 1, 0), 0);
	re_send(c, re_linear(ev.id, 0, 1, 0, 0, 0));
	io_ok(io);
	close(d->fd);
	check_eq(dm_remove(d->name), 0);
	check_eq(poll(&p, 1, wait_limit_ms()), 1);
	check(p.revents & POLLHUP, "no POLLHUP when the target is gone");
	check(read(c->fd, &ev, sizeof(ev)) < 0 && errno == ENODEV,
	      "read() when the target is gone: %s", strerror(errno));
	check_eq(re_try(c, &r), ENODEV);
}

static void tracepoints(void)
{
	static const char *const names[] = {
		"dmu_fault", "dmu_reply", "dmu_copy", "dmu_commit",
	};
	char path[200], line[400];
	bool seen[4] = { false };
	struct io *io;
	size_t i;
	FILE *f;

	sh("mountpoint -q /sys/kernel/tracing || mount -t tracefs t /sys/kernel/tracing 2>/dev/null");
	if (access("/sys/kernel/tracing/events", F_OK))
		fail("this kernel has no tracing");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path),
			 "/sys/kernel/tracing/events/dm_userspace/%s/enable",
			 names[i]);
		check(!access(path, F_OK), "no tracepoint %s", names[i]);
	}
	check(!sh("cd /sys/kernel/tracing && echo > trace && echo 1 > events/dm_userspace/enable"),
	      "cannot enable the events");
	setup();
	re_send(c, re_preload(re_cow(0, 0, 3, 0, 0, BASE, 0)));
	disk_write(d, 1, 1, 9);
	flush_and_commit();
	io = io_start(d, IO_READ, 50 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 50, 1, 0).id, 50, 1, 0, 0, 0));
	sh("echo 0 > /sys/kernel/tracing/events/dm_userspace/enable");
	f = fopen("/sys/kernel/tracing/trace", "r");
	check(f, "no trace");
	while (fgets(line, sizeof(line), f))
		for (i = 0; i < ARRAY_SIZE(names); i++)
			seen[i] |= !!strstr(line, names[i]);
	fclose(f);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		check(seen[i], "no %s in the trace", names[i]);
	io_ok(io);
}

#define T(name) { #name, name }
static const struct test tests[] = {
	T(smoke),
	T(linear_rw), T(hits_not_split), T(nowait), T(neighbours_are_one), T(distances),
	T(zero_kind), T(error_kind), T(error_kind_once), T(fail_errno),
	T(fail_errno_again),
	T(not_remembered), T(not_remembered_flush), T(write_to_readonly),
	T(merged_questions), T(read_then_write), T(write_after_read_asked),
	T(write_after_read_once), T(answered_in_parts), T(failed_in_parts),
	T(answers_others), T(preload_answers),
	T(cow_costs), T(cow_parts_16k), T(cow_parts_256k), T(cow_parts_512k),
	T(cow_partial), T(cow_answer), T(cow_whole), T(cow_whole_run),
	T(cow_mixed_run), T(cow_concurrent), T(cow_copying), T(cow_claimed),
	T(cow_bitmap), T(cow_bitmap_full), T(cow_zero), T(cow_short),
	T(cow_one_device), T(cow_forgotten), T(cow_becomes_linear), T(cow_huge),
	T(flush_clean), T(flush_clean_two), T(copied_before_flush),
	T(copied_across_extents), T(copied_any_order), T(copied_many), T(metadata_flag),
	T(commit_reply), T(commit_reply_metadata),
	T(commit_rests_without_a_daemon), T(fua), T(flushes_grouped), T(flush_refused),
	T(flush_device_fails), T(lost_is_told_again), T(daemon_tells_of_loss),
	T(copied_is_durable), T(fua_nowait_loses_nothing), T(flush_fails_on_hits), T(dirty_during_commit),
	T(found_before), T(invalidate), T(invalidate_waits), T(invalidate_waits_once),
	T(invalidate_forgets), T(invalidate_keeps_order), T(invalidate_after_copied), T(invalidate_during_copy),
	T(invalidate_many), T(invalidate_and_move), T(invalidate_busy),
	T(invalidate_not_asked),
	T(map_large), T(evict_message), T(evict_keeps_uncommitted), T(evict_during_copy),
	T(budget), T(budget_dying), T(budget_parts), T(budget_uncommitted), T(budget_answer), T(budget_message),
	T(discard_own), T(discard_foreign), T(zeroes_whole), T(zeroes_part),
	T(zeroes_fault), T(discard_event), T(discard_event_parts),
	T(zeroes_event),
	T(copy_error_source), T(copy_error_destination), T(overwrite_error),
	T(no_space_evicted), T(no_space_revoked), T(no_space_durable), T(no_space_parts),
	T(no_space_suspended), T(no_space_not_lost), T(no_space_zeroes),
	T(poll_and_end), T(tracepoints),
};

int main(int argc, char **argv)
{
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
