// SPDX-License-Identifier: GPL-2.0-or-later
/* Daemons that go and come back, suspend, reload, removal. */
#include "fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- no daemon --------------------------------------------------------------- */

/* What is known goes on: hits, and copies under a delegation. */
static void gone_hits(void)
{
	setup();
	re_send(c, re_preload(re_linear(0, 0, 20, 1, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	re_send(c, re_preload(re_kind(0, 60, 10, DMU_KIND_ZERO, 0)));
	disk_write(d, 20 * BS + 1, 1, 8);
	daemon_gone();
	disk_expect(d, 0, 20 * BS, TAG_B, 0);
	disk_write(d, 5 * BS, BS, 9);
	disk_expect(d, 5 * BS, BS, 9, 5 * BS);
	disk_write(d, 21 * BS + 1, 2, 9);
	disk_expect(d, 20 * BS, 1, TAG_BASE, 160);
	disk_expect(d, 20 * BS + 1, 1, 8, 20 * BS + 1);
	disk_expect(d, 21 * BS, 1, TAG_BASE, 168);
	disk_expect(d, 21 * BS + 1, 2, 9, 21 * BS + 1);
	disk_expect_zero(d, 60 * BS, 10 * BS);
	check_eq(disk_status(d, "copies"), 2);
	check_eq(disk_status(d, "uncommitted"), 2);
}

/* The default: faults, flushes and FUA writes wait for the next daemon. */
static void gone_queue(void)
{
	struct io *rd, *fl, *fua;
	struct dmu_event ev;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	fua = io_start(d, IO_FUA, 25 * BS, 1, 9);
	io_pending(rd);
	io_pending(fl);
	io_pending(fua);
	check_eq(disk_status(d, "failed"), 0);
	daemon_back(0);
	ev_copied(c, 20, 1, 0, 0);
	ev_copied(c, 25, 1, 0, 40);
	for (;;) {
		ev = ev_get(c);
		if (ev.type == DMU_EV_REPLAY_END)
			break;
		check_eq(ev.type, DMU_EV_COPIED);
	}
	while (!rd->done || !fl->done || !fua->done) {
		ev = ev_get(c);
		if (ev.type == DMU_EV_FLUSH)
			re_send(c, re_flushed(ev.id, 0));
		else if (ev.type == DMU_EV_MAP)
			re_send(c, re_linear(ev.id, 0, 1, 1, 0, 0));
		sleep_ms(100);
	}
	io_ok(rd);
	io_ok(fl);
	io_ok(fua);
	check_eq(disk_status(d, "uncommitted"), 0);
}

static void gone_flush_clean(void)
{
	setup();
	all_linear(0, 0, DMU_RE_WRITABLE);
	disk_write(d, 0, 1, 9);
	daemon_gone();
	disk_flush(d);
	io_ok(io_start(d, IO_FUA, 8, 1, 9));
}

static void gone_fail(void)
{
	struct io *rd, *fl;

	setup_with(&(struct setup){ .table = "1 fail" });
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	check_eq(disk_status(d, "failed"), 0);
	rd = io_start(d, IO_READ, 0, 1, 0);
	ev_want(c, DMU_EV_MAP, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 20, 1, 0, 0);
	ev_flush(c);
	daemon_gone();
	io_fails(rd, EIO);		/* what waited */
	io_fails(fl, EIO);
	check_eq(disk_status(d, "failed"), 1);
	io_fails(io_start(d, IO_READ, 0, 1, 0), EIO);	/* what comes */
	io_fails(io_start(d, IO_FLUSH, 0, 0, 0), EIO);
	io_fails(io_start(d, IO_FUA, 21 * BS, 1, 9), EIO);
	disk_expect(d, 20 * BS + 1, 1, 8, 20 * BS + 1);
	check_eq(disk_status(d, "waiting"), 0);
	daemon_back(0);
	check_eq(disk_status(d, "failed"), 0);
	ev_copied(c, 20, 2, 0, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	flush_and_commit();
	rd = io_start(d, IO_READ, 0, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd);
}

static void gone_timeout(void)
{
	struct io *rd, *fl;
	uint64_t start;

	setup_with(&(struct setup){ .table = "2 timeout 2" });
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	start = now_ms();
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_fails(rd, EIO);
	io_fails(fl, EIO);
	check(now_ms() - start >= 1900, "failed after %llu ms",
	      (unsigned long long)(now_ms() - start));
	check(now_ms() - start < 10000, "failed after %llu ms only",
	      (unsigned long long)(now_ms() - start));
	check_eq(disk_status(d, "failed"), 1);
	start = now_ms();
	io_fails(io_start(d, IO_READ, 0, 1, 0), EIO);
	check(now_ms() - start < 1500, "a later fault waits again");
	disk_expect(d, 20 * BS + 1, 1, 8, 20 * BS + 1);
	daemon_back(0);
	check_eq(disk_status(d, "failed"), 0);
	ev_copied(c, 20, 1, 0, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	rd = io_start(d, IO_READ, 0, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd);
}

/* A daemon that is back in time: nothing fails, neither now nor later. */
static void gone_timeout_back(void)
{
	struct io *rd;

	setup_with(&(struct setup){ .table = "2 timeout 2" });
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	sleep_ms(1000);
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	ev_want(c, DMU_EV_MAP, 0, 1, 0);
	sleep_ms(2000);
	io_pending(rd);
	check_eq(disk_status(d, "failed"), 0);
	daemon_gone();			/* its time starts anew */
	sleep_ms(1000);
	io_pending(rd);
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd);
}

/* A disk that never saw a daemon. */
static void never_attached(void)
{
	struct io *rd;

	setup_with(&(struct setup){ .no_daemon = true, .table = "2 timeout 1" });
	rd = io_start(d, IO_READ, 0, 1, 0);
	io_fails(rd, EIO);
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	rd = io_start(d, IO_READ, 0, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd);
}

/* Messages move a disk that is stuck. */
static void messages(void)
{
	struct io *rd, *fl;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(rd);
	io_pending(fl);
	check_eq(dm_message(d->name, "policy fail"), 0);
	io_fails(rd, EIO);
	io_fails(fl, EIO);
	check_eq(disk_status(d, "failed"), 1);
	check_eq(dm_message(d->name, "policy queue"), 0);
	check_eq(disk_status(d, "failed"), 0);
	rd = io_start(d, IO_READ, 0, 1, 0);
	io_pending(rd);
	check_eq(dm_message(d->name, "policy timeout 1"), 0);
	io_fails(rd, EIO);
	check_eq(dm_message(d->name, "policy queue"), 0);
	rd = io_start(d, IO_READ, 0, 1, 0);
	io_pending(rd);
	daemon_back(0);
	ev_copied(c, 20, 1, 0, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd);
}

/* A policy counts without a daemon only. */
static void message_while_attached(void)
{
	struct io *rd;

	setup();
	rd = io_start(d, IO_READ, 0, 1, 0);
	ev_want(c, DMU_EV_MAP, 0, 1, 0);
	check_eq(dm_message(d->name, "policy fail"), 0);
	io_pending(rd);
	check_eq(disk_status(d, "failed"), 0);
	daemon_gone();
	io_fails(rd, EIO);
}

/* --- attach again ---------------------------------------------------------------- */

/* Revoked, replayed with the place, REPLAY_END, then what is owed. */
static void attach_again(void)
{
	struct dmu_event old, ev;
	struct dmu_reply r;
	struct io *rd, *wr;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	re_send(c, re_preload(re_cow(0, 30, 10, 1, 80, BASE, 240)));
	disk_write(d, 21 * BS, 2 * BS, 8);
	disk_write(d, 33 * BS + 1, 1, 8);
	rd = io_start(d, IO_READ, 0, 1, 0);
	old = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	wr = io_start(d, IO_WRITE, 2 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 2);		/* not read */
	daemon_gone();
	daemon_back(0);
	ev_copied(c, 21, 2, 0, 8);
	ev_copied(c, 33, 1, 1, 104);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	ev = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	check(ev.id != old.id, "the same id again");
	r = re_linear(old.id, 0, 1, 1, 0, 0);
	check_eq(re_try(c, &r), ENOENT);
	re_send(c, re_linear(ev.id, 0, 1, 1, 0, 0));
	io_ok(rd);
	ev = ev_want(c, DMU_EV_MAP, 2, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 2, 1, 1, 16, DMU_RE_WRITABLE));
	io_ok(wr);

	disk_expect(d, 21 * BS, 2 * BS, 8, 21 * BS);	/* goes on being served */
	disk_expect(d, 20 * BS, BS, TAG_BASE, 160);
	disk_write(d, 21 * BS + 1, 1, 10);
	wr = io_start(d, IO_WRITE, 20 * BS + 1, 1, 9);	/* the delegation ended */
	ev = ev_want(c, DMU_EV_MAP, 20, 1, DMU_EV_WRITE);
	io_pending(wr);
	re_send(c, re_cow(ev.id, 20, 1, 1, 0, BASE, 160));
	io_ok(wr);
	dev_check(b, 0, 1, TAG_BASE, 160);
	dev_check(b, 1, 1, 9, 161);

	flush_and_commit();
	check_eq(disk_status(d, "uncommitted"), 0);
}

/* What may take the place of a revoked delegation: not another truth. */
static void revoked_agrees(void)
{
	uint64_t bit = 1 << 2, none = 0;
	struct dmu_reply r;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 22 * BS, BS, 8);
	daemon_gone();
	daemon_back(0);
	ev_copied(c, 22, 1, 0, 16);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	r = re_preload(re_linear(0, 20, 10, BASE, 160, 0));
	check_eq(re_try(c, &r), EEXIST);
	r = re_preload(re_linear(0, 22, 1, 1, 16, DMU_RE_WRITABLE));
	check_eq(re_try(c, &r), EEXIST);
	r = re_preload(re_kind(0, 22, 1, DMU_KIND_ZERO, 0));
	check_eq(re_try(c, &r), EEXIST);
	r = re_preload(re_kind(0, 22, 1, DMU_KIND_ERROR, 0));
	check_eq(re_try(c, &r), EEXIST);
	r = re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160));
	check_eq(re_try(c, &r), EEXIST);		/* 22 is not OLD */
	check_eq(re_try_bitmap(c, r, &none), EEXIST);
	r = re_preload(re_cow(0, 20, 10, 0, 8, BASE, 160));
	check_eq(re_try_bitmap(c, r, &bit), EEXIST);	/* another place */
	disk_expect(d, 22 * BS, BS, 8, 22 * BS);
	re_send(c, re_preload(re_linear(0, 20, 2, BASE, 160, 0)));
	re_send(c, re_preload(re_linear(0, 22, 1, 0, 16, 0)));
	disk_expect(d, 22 * BS, BS, 8, 22 * BS);
	r = re_preload(re_cow(0, 23, 7, 1, 0, BASE, 184));
	re_send(c, r);					/* 23 on is OLD */
	disk_write(d, 23 * BS + 1, 1, 9);
	flush_and_commit();
	disk_expect(d, 22 * BS, BS, 8, 22 * BS);
	dev_check(b, 1, 1, 9, 23 * BS + 1);
}

/* The new daemon gives the same delegation, with what was copied in it. */
static void revoked_given_again(void)
{
	uint64_t bit = 1 << 2;
	struct dmu_reply r;
	struct io *io;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 22 * BS, BS, 8);
	daemon_gone();
	daemon_back(0);
	ev_copied(c, 22, 1, 0, 16);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	r = re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160));
	check_eq(re_try_bitmap(c, r, &bit), 0);
	disk_expect(d, 22 * BS, BS, 8, 22 * BS);
	disk_write(d, 25 * BS + 1, 1, 9);
	disk_write(d, 22 * BS, 2, 10);
	check_eq(disk_status(d, "uncommitted"), 2);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 22, 1, 0, 16);
	ev_copied(c, 25, 1, 0, 40);
	commit_ok();
	io_ok(io);
	check_eq(disk_status(d, "uncommitted"), 0);
	disk_expect(d, 22 * BS, 2, 10, 22 * BS);
}

/* All of it once more for the daemon after one that died in the replay. */
static void replay_interrupted(void)
{
	struct dmu_event ev;
	unsigned int round, i;

	setup();
	all_cow(0, 0, BASE, 0);
	for (i = 0; i < 50; i++)
		disk_write(d, 2 * i * BS + 1, 1, 9);
	for (round = 0; round < 5; round++) {
		daemon_gone();
		daemon_back(0);
		for (i = 0; i < 10 * round; i++) {
			uint64_t end = now_ms() + wait_limit_ms();

			while (read(c->fd, &ev, sizeof(ev)) != sizeof(ev)) {
				check(now_ms() < end, "no event %u", i);
				sleep_ms(2);
			}
			check_eq(ev.type, DMU_EV_COPIED);
			check_eq(ev.block, 2 * i);
		}
	}
	daemon_gone();
	daemon_back(0);
	for (i = 0; i < 50; i++)
		ev_copied(c, 2 * i, 1, 0, 2 * i * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	flush_and_commit();
	check_eq(disk_status(d, "uncommitted"), 0);
	daemon_gone();
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
}

/* A daemon that dies with a commit half done. */
static void died_in_commit(void)
{
	struct dmu_reply r;
	struct io *fl;
	uint64_t id;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	id = ev_flush(c);
	daemon_gone();
	io_pending(fl);
	daemon_back(0);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	r = re_flushed(id, 0);
	check_eq(re_try(c, &r), ENOENT);
	if (ev_get(c).type == DMU_EV_COPIED)	/* in a round of its own */
		id = ev_flush(c);
	else
		id = c->q[c->head - 1].id;
	io_pending(fl);
	re_send(c, re_flushed(id, 0));
	io_ok(fl);
	check_eq(disk_status(d, "uncommitted"), 0);
}

/* Invalidations die with their daemon; the mapping stays away. */
static void died_in_invalidate(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_linear(0, 0, DMU_RE_WRITABLE);
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_WRITE, 10 * BS, BS, 9);
	io_pending(io);
	re_send(c, re_invalidate(1, 0, d->blocks));
	daemon_gone();
	daemon_back(0);
	sleep_ms(100);
	ev_none(c);		/* the replay waits for what is in flight */
	gate_open(NAME_GATE_A);
	io_ok(io);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	ev_none(c);
	io = io_start(d, IO_READ, 0, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(io);
}

/* A copy under way when the daemon changes is in the replay. */
static void died_in_copy(void)
{
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_WRITE, 3 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	daemon_gone();
	daemon_back(0);
	sleep_ms(100);
	ev_none(c);
	gate_open(NAME_GATE_A);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	io_ok(io);
	dev_check(a, 3 * BS, 1, TAG_BASE, 3 * BS);
	dev_check(a, 3 * BS + 1, 1, 9, 3 * BS + 1);
}

/* Metadata that the dead daemon did not commit: the next flush asks still. */
static void died_with_metadata(void)
{
	struct io *fl;

	setup();
	all_linear(0, 0, DMU_RE_WRITABLE | DMU_RE_METADATA);
	daemon_gone();
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(fl);
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	commit_ok();
	io_ok(fl);
	check_eq(disk_status(d, "metadata_dirty"), 0);
}

/* A question that a daemon got as DISCARD is none for one that cannot. */
static struct io *feature_dropped(enum io_op op, uint64_t feature, uint32_t type)
{
	struct dmu_event ev;
	struct io *io;

	setup_with(&(struct setup){ .features = feature });
	all_linear(0, 0, DMU_RE_WRITABLE);
	io = io_start(d, op, 3 * BS, 2 * BS, 0);
	ev = ev_want(c, type, 3, 2, 0);
	io_pending(io);
	daemon_gone();
	io_pending(io);
	daemon_back(feature);		/* the same again */
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	check(ev_want(c, type, 3, 2, 0).id != ev.id, "the same id");
	daemon_gone();
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	ev_none(c);
	return io;
}

static void discard_feature_dropped(void)
{
	io_ok(feature_dropped(IO_DISCARD, DMU_FEAT_DISCARD, DMU_EV_DISCARD));
	io_ok(io_start(d, IO_DISCARD, 3 * BS, 2 * BS, 0));
	check(dev_is_hole(a, 3 * BS, 2 * BS), "the next one does not get through");
}

/* It cannot be cut any more: who sent it is told to write zeroes himself. */
static void zeroes_feature_dropped(void)
{
	io_fails(feature_dropped(IO_ZERO, DMU_FEAT_WRITE_ZEROES,
				 DMU_EV_WRITE_ZEROES), EOPNOTSUPP);
	io_ok(io_start(d, IO_ZERO, 3 * BS, 2 * BS, 0));
	disk_expect_zero(d, 3 * BS, 2 * BS);
}

/* Before REPLAY_END no mapping is taken: the daemon does not know all yet. */
static void busy_before_replay(void)
{
	struct dmu_reply r;
	struct io *io;

	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	gate_shut(NAME_GATE_A);
	io = io_start(d, IO_WRITE, 3 * BS + 1, 1, 9);
	disk_wait_status(d, "waiting", 1);
	daemon_gone();
	daemon_back(0);
	r = re_preload(re_linear(0, 3, 1, BASE, 3 * BS, 0));
	check_eq(re_try(c, &r), EBUSY);
	r = re_preload(re_linear(0, 50, 1, 1, 0, 0));
	check_eq(re_try(c, &r), EBUSY);
	gate_open(NAME_GATE_A);
	io_ok(io);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	re_send(c, r);
}

/* Writes are where they belong; reads, of blocks that none writes now, see what is there. */
static void storm_check(const struct io *io)
{
	if (io->op == IO_WRITE)
		dev_check(a, io->sector, io->count, io->tag, io->sector);
	else
		check(!memcmp(io->buf, a->data + io->sector * SECTOR, io->count * SECTOR),
		      "wrong data at %llu", (unsigned long long)io->sector);
}

/* Over and over under load: nothing is lost, nothing waits for ever. */
static void attach_storm(void)
{
	struct io *io[20];
	unsigned int round, i;

	setup();
	for (round = 0; round < 15; round++) {
		for (i = 0; i < 20; i++)
			io[i] = io_start(d, i & 1 ? IO_READ : IO_WRITE,
					 (i + round) * BS + 1, 2, 10 + round);
		for (i = 0; i < 5; i++) {
			daemon_gone();
			daemon_back(0);
			if (i & 1)
				sleep_ms(3);
		}
		ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
		all_linear(0, 0, DMU_RE_WRITABLE);
		for (i = 0; i < 20; i++) {
			io_ok(io[i]);
			storm_check(io[i]);
		}
		check_eq(disk_status(d, "waiting"), 0);
		re_send(c, re_invalidate(1, 0, d->blocks));
		while (ev_get(c).type != DMU_EV_INVALIDATED)
			;
	}
}

/* --- suspend ------------------------------------------------------------------------ */

static void *suspend_thread(void *arg)
{
	return (void *)(intptr_t)dm_suspend(d->name, (intptr_t)arg);
}

static pthread_t suspend_start(int flags)
{
	pthread_t t;

	check(!pthread_create(&t, NULL, suspend_thread,
			      (void *)(intptr_t)flags), "no thread");
	return t;
}

static void suspend_end(pthread_t t, unsigned int seconds)
{
	struct timespec ts;
	void *err;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += seconds + wait_limit_ms() / 1000;
	check(!pthread_timedjoin_np(t, &err, &ts), "suspend does not return");
	check(!err, "suspend: %s", strerror((intptr_t)err));
}

/* With a daemon that answers, a suspend waits and nothing fails. */
static void suspend_drains(void)
{
	struct dmu_event ev;
	pthread_t t;
	struct io *rd, *later;

	setup();
	rd = io_start(d, IO_READ, 0, 1, 0);
	ev = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	t = suspend_start(0);
	sleep_ms(100);
	io_pending(rd);
	re_send(c, re_linear(ev.id, 0, 1, 1, 0, 0));
	io_ok(rd);
	suspend_end(t, 0);
	later = io_start(d, IO_READ, BS, 1, 0);
	io_pending(later);
	ev_none(c);
	check_eq(dm_resume(d->name), 0);
	ev = ev_want(c, DMU_EV_MAP, 1, 1, 0);
	re_send(c, re_linear(ev.id, 1, 1, 1, 8, 0));
	io_ok(later);
}

/* Held I/O and flushes go back to device-mapper, and come again. */
static void suspend_noflush(void)
{
	struct io *rd, *wr, *fl, *fua, *unread;
	struct dmu_event old, ev;
	struct dmu_reply r;
	uint64_t id, end;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	rd = io_start(d, IO_READ, 0, 1, 0);
	old = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	wr = io_start(d, IO_WRITE, 4 * BS, 3 * BS, 9);
	disk_wait_status(d, "waiting", 4);
	ev_want(c, DMU_EV_MAP, 4, 3, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	for (;;) {
		ev = ev_get(c);
		if (ev.type == DMU_EV_FLUSH)
			break;
	}
	id = ev.id;
	fua = io_start(d, IO_FUA, 21 * BS, 1, 9);
	unread = io_start(d, IO_READ, 40 * BS, 1, 0);
	sleep_ms(50);
	check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
	check_eq(disk_status(d, "waiting"), 0);
	r = re_linear(old.id, 0, 1, 1, 0, 0);
	check_eq(re_try(c, &r), ENOENT);
	re_send(c, re_flushed(id, 0));		/* that commit still counts */
	io_pending(rd);
	io_pending(wr);
	io_pending(fl);
	io_pending(fua);
	io_pending(unread);
	check_eq(dm_resume(d->name), 0);
	end = now_ms() + wait_limit_ms();
	/* in whatever pieces and order device-mapper gives them back */
	while (!io_done(rd) || !io_done(wr) || !io_done(fl) || !io_done(fua) ||
	       !io_done(unread)) {
		if (!ev_poll(c, &ev, 10)) {
			check(now_ms() < end, "no event came, and not all I/O is done");
			continue;
		}
		if (ev.type == DMU_EV_FLUSH)
			re_send(c, re_flushed(ev.id, 0));
		else if (ev.type == DMU_EV_MAP)
			re_send(c, re_linear(ev.id, ev.block, ev.count, 1,
					     8 * ev.block, RW));
	}
	io_ok(rd);
	io_ok(wr);
	io_ok(fl);
	io_ok(fua);
	io_ok(unread);
	dev_check(b, 32, 24, 9, 32);
	check_eq(disk_status(d, "waiting"), 0);
}

static void suspend_noflush_no_daemon(void)
{
	struct io *rd, *fl;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(rd);
	check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
	io_pending(fl);
	check_eq(dm_resume(d->name), 0);
	io_pending(rd);
	io_pending(fl);
	daemon_back(0);
	ev_copied(c, 20, 1, 0, 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	while (!rd->done || !fl->done) {
		struct dmu_event ev = ev_get(c);

		if (ev.type == DMU_EV_FLUSH)
			re_send(c, re_flushed(ev.id, 0));
		else if (ev.type == DMU_EV_MAP)
			re_send(c, re_linear(ev.id, 0, 1, 1, 0, 0));
		sleep_ms(50);
	}
	io_ok(rd);
	io_ok(fl);
}

/* A suspend that has to drain fails what nobody can answer. */
static void suspend_no_daemon(void)
{
	struct io *rd, *rd2;
	pthread_t t;

	setup();
	daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	io_pending(rd);
	t = suspend_start(DM_NOLOCKFS);
	io_fails(rd, EIO);
	suspend_end(t, 0);
	check_eq(dm_resume(d->name), 0);
	check_eq(disk_status(d, "failed"), 0);
	rd2 = io_start(d, IO_READ, 0, 1, 0);	/* the policy is queue again */
	io_pending(rd2);
	daemon_back(0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 0, 1, 0).id, 0, 1, 1, 0, 0));
	io_ok(rd2);
}

/* The daemon dies while the suspend waits for it. */
static void suspend_daemon_dies(void)
{
	struct io *rd;
	pthread_t t;

	setup();
	rd = io_start(d, IO_READ, 0, 1, 0);
	ev_want(c, DMU_EV_MAP, 0, 1, 0);
	t = suspend_start(DM_NOLOCKFS);
	sleep_ms(200);
	io_pending(rd);
	daemon_gone();
	io_fails(rd, EIO);
	suspend_end(t, 0);
	check_eq(dm_resume(d->name), 0);
}

/* A daemon that is attached and silent: within the drain time of 30 s. */
static void suspend_silent_daemon(void)
{
	struct io *rd, *fl;
	uint64_t start;
	pthread_t t;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	rd = io_start(d, IO_READ, 0, 1, 0);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(fl);
	start = now_ms();
	t = suspend_start(DM_NOLOCKFS);
	suspend_end(t, 35);
	check(now_ms() - start > 25000 && now_ms() - start < 45000,
	      "it took %llu ms", (unsigned long long)(now_ms() - start));
	io_fails(rd, EIO);
	io_fails(fl, EIO);
	check_eq(disk_status(d, "uncommitted"), 1);
	check_eq(dm_resume(d->name), 0);
	rd = io_start(d, IO_READ, 0, 1, 0);	/* and now it answers */
	for (;;) {
		struct dmu_event ev = ev_get(c);

		if (ev.type != DMU_EV_MAP)
			continue;
		re_send(c, re_linear(ev.id, ev.block, 1, 1, 0, 0));
		break;
	}
	io_ok(rd);
}

/* One that answers, but has much to do, is waited for longer than that. */
static void suspend_slow_daemon(void)
{
	struct io *rd[2];
	uint64_t id[2];
	pthread_t t;

	setup();
	rd[0] = io_start(d, IO_READ, 0, 1, 0);
	id[0] = ev_want(c, DMU_EV_MAP, 0, 1, 0).id;
	rd[1] = io_start(d, IO_READ, 50 * BS, 1, 0);
	id[1] = ev_want(c, DMU_EV_MAP, 50, 1, 0).id;
	t = suspend_start(DM_NOLOCKFS);
	sleep(20);
	re_send(c, re_linear(id[0], 0, 1, 1, 0, 0));
	io_ok(rd[0]);
	sleep(20);
	re_send(c, re_linear(id[1], 50, 1, 1, 0, 0));
	io_ok(rd[1]);
	suspend_end(t, 5);
	check_eq(dm_resume(d->name), 0);
}

/* dmsetup remove --force always returns. */
static void force_remove(bool with_daemon)
{
	struct io *rd, *wr, *fl;
	uint64_t start;

	setup();
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	if (!with_daemon)
		daemon_gone();
	rd = io_start(d, IO_READ, 0, 1, 0);
	wr = io_start(d, IO_WRITE, 4 * BS, 3 * BS, 9);
	fl = io_start(d, IO_FLUSH, 0, 0, 0);
	io_pending(rd);
	io_pending(fl);
	start = now_ms();
	sh("dmsetup remove --force --noudevsync --noudevrules %s >/dev/null 2>&1",
	   d->name);	/* the open device stays, with an error table */
	check(now_ms() - start < (unsigned int)wait_limit_ms(),
	      "remove --force took %llu ms",
	      (unsigned long long)(now_ms() - start));
	io_fails(rd, EIO);
	io_fails(wr, EIO);
	io_wait(fl);
	if (with_daemon) {
		struct dmu_event ev;
		uint64_t end = now_ms() + wait_limit_ms();

		do {
			memset(&ev, 0, sizeof(ev));
			if (read(c->fd, &ev, sizeof(ev)) < 0 && errno != EAGAIN)
				break;
			if (ev.type == DMU_EV_FLUSH)
				re_send(c, re_flushed(ev.id, 0));
			check(now_ms() < end, "the channel is not told");
		} while (true);
		check_eq(errno, ENODEV);
	}
	close(d->fd);
	dm_remove(d->name);
}

static void remove_force_no_daemon(void)
{
	force_remove(false);
}

static void remove_force_silent(void)
{
	force_remove(true);
}

/* --- reload --------------------------------------------------------------------------- */

static void reload(void)
{
	int err = disk_reload(d);

	check(!err, "load: %s", strerror(err));
	err = dm_suspend(d->name, 0);
	check(!err, "suspend: %s", strerror(err));
	err = dm_resume(d->name);
	check(!err, "resume: %s", strerror(err));
}

static void reload_same(void)
{
	struct io *io;

	setup();
	re_send(c, re_preload(re_linear(0, 0, 20, 1, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 20, 40, 0, 0, BASE, 160)));
	disk_write(d, 20 * BS + 1, 1, 8);
	check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
	check_eq(disk_reload(d), 0);
	check_eq(dm_resume(d->name), 0);
	ev_copied(c, 20, 1, 0, 0);		/* told again */
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	disk_expect(d, 0, 20 * BS, TAG_B, 0);
	disk_expect(d, 20 * BS + 1, 1, 8, 20 * BS + 1);
	disk_write(d, 21 * BS + 1, 1, 9);	/* not revoked */
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 20, 2, 0, 0);
	commit_ok();
	io_ok(io);
	io = io_start(d, IO_READ, 80 * BS, 1, 0);	/* the same channel */
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 80, 1, 0).id, 80, 1, 1, 0, 0));
	io_ok(io);
}

static void reload_grown(void)
{
	struct dmu_event ev;
	struct io *io;

	setup();
	all_linear(0, 0, 0);
	d->sectors = 120 * BS;
	reload();
	disk_expect(d, 0, 100 * BS, TAG_A, 0);
	io = io_start(d, IO_READ, LAST * BS, 2 * BS, 0);	/* was short */
	disk_wait_status(d, "waiting", 2);
	ev = ev_want(c, DMU_EV_MAP, LAST, 2, 0);
	re_send(c, re_linear(ev.id, LAST, 20, 1, 0, DMU_RE_REMEMBER));
	io_ok(io);
	check(filled(io->buf, 2 * BS, TAG_B, 0), "wrong data");
}

static void reload_shrunk(void)
{
	struct dmu_reply r;
	struct io *io;

	setup();
	all_linear(0, 0, 0);
	d->sectors = 50 * BS + 5;
	reload();
	disk_expect(d, 0, 50 * BS, TAG_A, 0);
	io = io_start(d, IO_READ, 50 * BS, 5, 0);	/* is short now */
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 50, 1, 0).id, 50, 1, 1,
			     DEV_SECTORS - 5, DMU_RE_REMEMBER));
	io_ok(io);
	r = re_preload(re_linear(0, 51, 1, 0, 0, 0));
	check_eq(re_try(c, &r), ERANGE);
	io = io_start(d, IO_READ, 50 * BS + 5, 1, 0);
	check(io_wait(io), "a read behind the end");
	d->sectors = SECTORS;
	reload();
	io = io_start(d, IO_READ, 60 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 60, 1, 0).id, 60, 1, 1, 0, 0));
	io_ok(io);
}

/* Uncommitted blocks behind a new end are reported all the same. */
static void reload_shrunk_uncommitted(void)
{
	struct io *io;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 10 * BS + 1, 1, 9);
	disk_write(d, 90 * BS + 1, 1, 9);
	check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
	d->sectors = 50 * BS + 5;
	check_eq(disk_reload(d), 0);
	check_eq(dm_resume(d->name), 0);
	check_eq(disk_status(d, "uncommitted"), 2);
	ev_copied(c, 10, 1, 0, 10 * BS);
	ev_copied(c, 90, 1, 0, 90 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	disk_expect(d, 10 * BS + 1, 1, 9, 10 * BS + 1);
	disk_expect(d, 11 * BS, BS, TAG_BASE, 11 * BS);
	io = io_start(d, IO_FLUSH, 0, 0, 0);
	ev_copied(c, 10, 1, 0, 10 * BS);
	ev_copied(c, 90, 1, 0, 90 * BS);
	commit_ok();
	io_ok(io);
}

/* One device more; a smaller one in place of another; one fewer. */
static void reload_devices(void)
{
	struct dev *more, *small;
	struct io *io;

	setup();
	more = dev_new(DEV_SECTORS);
	dev_fill(more, 7);
	small = dev_new(100);
	dev_fill(small, 8);
	re_send(c, re_preload(re_linear(0, 0, 10, 0, 0, 0)));
	re_send(c, re_preload(re_linear(0, 10, 10, 1, 0, 0)));
	re_send(c, re_preload(re_linear(0, 20, 10, 1, 400, 0)));
	re_send(c, re_preload(re_cow(0, 30, 10, 0, 400, 1, 400)));
	re_send(c, re_preload(re_linear(0, 40, 10, BASE, 0, 0)));
	d->devs[3] = more->path;
	reload();
	check_eq(disk_status(d, "extents"), 5);
	re_send(c, re_preload(re_linear(0, 60, 10, 3, 0, 0)));
	disk_expect(d, 60 * BS, BS, 7, 0);
	d->devs[1] = small->path;
	reload();
	check_eq(disk_status(d, "extents"), 4);		/* not 20 and 30 */
	disk_expect(d, 10 * BS, 10 * BS, 8, 0);
	io = io_start(d, IO_READ, 20 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 20, 1, 0).id, 20, 1, 0, 0, 0));
	io_ok(io);
	io = io_start(d, IO_READ, 30 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 30, 1, 0).id, 30, 1, 0, 0, 0));
	io_ok(io);
	d->devs[BASE] = NULL;		/* two are left */
	d->devs[3] = NULL;
	reload();
	check_eq(disk_status(d, "extents"), 2);
	disk_expect(d, 0, 10 * BS, TAG_A, 0);
	io = io_start(d, IO_READ, 40 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 40, 1, 0).id, 40, 1, 0, 0, 0));
	io_ok(io);
}

/* What led to an index that means other data now is forgotten, and nothing else. */
static void reload_new(void)
{
	static char other[80];
	struct dev *more;
	struct io *io;

	setup();
	more = dev_new(DEV_SECTORS);
	dev_fill(more, 7);
	re_send(c, re_preload(re_linear(0, 0, 10, 0, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_linear(0, 10, 10, 1, 0, 0)));
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 400, 1, 400)));
	re_send(c, re_preload(re_cow(0, 30, 10, 0, 800, BASE, 800)));
	disk_write(d, 21 * BS + 1, 1, 9);	/* copied from there, and not committed */
	snprintf(other, sizeof(other), "new:%s", more->path);
	d->devs[1] = other;
	reload();
	ev_copied(c, 21, 1, 0, 400 + BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	check_eq(disk_status(d, "extents"), 2);
	disk_expect(d, 0, 10 * BS, TAG_A, 0);
	disk_expect(d, 30 * BS, BS, TAG_BASE, 800);
	io = io_start(d, IO_READ, 10 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 10, 1, 0).id, 10, 1, 1, 0, DMU_RE_REMEMBER));
	io_ok(io);
	disk_expect(d, 10 * BS, BS, 7, 0);
	io = io_start(d, IO_READ, 20 * BS, 1, 0);
	re_send(c, re_linear(ev_want(c, DMU_EV_MAP, 20, 1, 0).id, 20, 1, 0, 0, 0));
	io_ok(io);
	/* Said once: what was mapped since stays. */
	check_eq(dm_suspend(d->name, 0), 0);
	check_eq(dm_resume(d->name), 0);
	disk_expect(d, 10 * BS, BS, 7, 0);
}

/* Uncommitted blocks would be told of at a place that never held them. */
static void reload_new_uncommitted(void)
{
	static char other[80];
	const char *before;
	struct dmu_reply r;
	struct dev *more;

	setup();
	before = d->devs[0];
	more = dev_new(DEV_SECTORS);
	re_send(c, re_preload(re_cow(0, 20, 10, 0, 400, BASE, 400)));
	disk_write(d, 21 * BS + 1, 1, 9);
	snprintf(other, sizeof(other), "new:%s", more->path);
	d->devs[0] = other;
	check_eq(disk_reload(d), 0);
	check_eq(dm_suspend(d->name, 0), 0);
	check_eq(dm_resume(d->name), EBUSY);
	/* The table that was live is gone, and asked for a commit before. */
	ev_copied(c, 21, 1, 0, 400 + BS);
	re_send(c, re_flushed(ev_flush(c), EIO));
	/* No table is live now, so there is no device to put a block on. */
	r = re_preload(re_linear(0, 50, 1, 0, 0, 0));
	check_eq(re_try(c, &r), ENXIO);
	check_eq(disk_reload(d), EBUSY);	/* nor by loading it again */
	d->devs[0] = before;
	check_eq(disk_reload(d), 0);
	check_eq(dm_resume(d->name), 0);
	ev_copied(c, 21, 1, 0, 400 + BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	flush_and_commit();
	disk_wait_status(d, "uncommitted", 0);
	disk_expect(d, 21 * BS + 1, 1, 9, 21 * BS + 1);
}

/* A writable mapping on a device that is read-only in the new table. */
static void reload_readonly(void)
{
	static char ro[80];
	struct dmu_event ev;
	struct io *io;

	setup();
	re_send(c, re_preload(re_linear(0, 0, 10, 1, 0, DMU_RE_WRITABLE)));
	re_send(c, re_preload(re_cow(0, 10, 10, 1, 400, BASE, 400)));
	snprintf(ro, sizeof(ro), "ro:%s", b->path);
	d->devs[1] = ro;
	reload();
	io = io_start(d, IO_WRITE, 1, 1, 9);
	ev = ev_want(c, DMU_EV_MAP, 0, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 0, 1, 0, 0, DMU_RE_WRITABLE));
	io_ok(io);
	dev_check(b, 0, DEV_SECTORS, TAG_B, 0);
	io = io_start(d, IO_WRITE, 10 * BS + 1, 1, 9);
	ev = ev_want(c, DMU_EV_MAP, 10, 1, DMU_EV_WRITE);
	re_send(c, re_linear(ev.id, 10, 1, 0, 8, DMU_RE_WRITABLE));
	io_ok(io);
	dev_check(b, 0, DEV_SECTORS, TAG_B, 0);
}

/* Held I/O across a reload by suspend --noflush. */
static void reload_with_held(void)
{
	struct dmu_event old, ev;
	struct io *rd, *wr;

	setup();
	rd = io_start(d, IO_READ, 0, 1, 0);
	old = ev_want(c, DMU_EV_MAP, 0, 1, 0);
	wr = io_start(d, IO_WRITE, 100 * BS, 3, 9);
	ev_want(c, DMU_EV_MAP, 100, 1, DMU_EV_WRITE | DMU_EV_OVERWRITE);
	d->sectors = 120 * BS;
	check_eq(disk_reload(d), 0);
	check_eq(dm_suspend(d->name, DM_NOFLUSH | DM_NOLOCKFS), 0);
	check_eq(dm_resume(d->name), 0);
	ev = ev_get(c);
	check(ev.id != old.id, "an old id");
	re_send(c, re_linear(ev.id, ev.block, 1, 1, 8 * ev.block, DMU_RE_WRITABLE));
	ev = ev_get(c);
	check(!(ev.flags & DMU_EV_OVERWRITE), "3 sectors no longer cover block 100");
	re_send(c, re_linear(ev.id, ev.block, 1, 1, 8 * ev.block, DMU_RE_WRITABLE));
	io_ok(rd);
	io_ok(wr);
	dev_check(b, 800, 3, 9, 800);
}

/* Load after load without a resume, and the first one is resumed last. */
static void load_twice(void)
{
	struct dmu_attach arg;

	a = dev_new(DEV_SECTORS);
	d = calloc(1, sizeof(*d));
	strcpy(d->name, "dmutx");
	d->sectors = SECTORS;
	d->bs = BS;
	d->devs[0] = a->path;
	check_eq(dm_create(d->name, NULL), 0);
	check_eq(disk_reload(d), 0);
	c = chan_open();		/* before the first resume */
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	all_linear(0, 0, 0);
	d->sectors = SECTORS + 80;
	check_eq(disk_reload(d), 0);
	re_send(c, re_preload(re_linear(0, 0, 1, 0, 0, 0)));
	chan_close(c);
	c = chan_open();
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(c, &arg), 0);
	check_eq(arg.nr_sectors, SECTORS + 80);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	check_eq(dm_resume(d->name), 0);
	all_linear(0, 0, 0);
}

/* A table that is loaded and thrown away changes nothing. */
static void load_and_clear(void)
{
	setup();
	all_linear(0, 0, 0);
	d->sectors = 50 * BS;
	check_eq(disk_reload(d), 0);
	check(!sh("dmsetup clear %s >/dev/null", d->name), "dmsetup clear");
	disk_expect(d, 0, SECTORS, TAG_A, 0);
	d->sectors = SECTORS;
	d->blocks = LAST + 1;
	all_linear(0, 0, 0);
	ev_none(c);
}

/* --- ends --------------------------------------------------------------------------------- */

static void remove_now(void)
{
	close(d->fd);
	check_eq(dm_remove(d->name), 0);
}

/* read() and poll() say that all is over. */
static void over(int error)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	struct dmu_event ev;

	check_eq(poll(&p, 1, wait_limit_ms()), 1);
	check(p.revents & POLLHUP, "no POLLHUP when all is over");
	check(read(c->fd, &ev, sizeof(ev)) < 0, "there is one more event: %u",
	      ev.type);
	check_eq(errno, error);
	check_eq(re_try(c, &(struct dmu_reply){ .type = DMU_RE_COMMIT }), ENODEV);
}

/* Who sleeps until there is something to read is woken by the end. */
static void *sleep_on_channel(void *fd)
{
	struct pollfd p = { .fd = *(int *)fd, .events = POLLIN };

	check_eq(poll(&p, 1, wait_limit_ms()), 1);
	check(p.revents & POLLHUP, "woken for %x", p.revents);
	return NULL;
}

/* Block 3 was copied for a write, and nobody has flushed. */
static void copied_block(void)
{
	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
}

/* What was copied, and flushed by nobody, the daemon hears of, and can commit. */
static void removal_is_told(void)
{
	struct dmu_reply late = re_linear(77, 0, 1, 0, 0, RW);
	uint64_t flushes, id;
	pthread_t sleeper;

	copied_block();
	disk_write(d, 60 * BS, BS, 9);
	flushes = dev_stat(a, DEV_FLUSHES);
	remove_now();
	check_eq(dev_stat(a, DEV_FLUSHES), flushes + 1);
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_copied(c, 60, 1, 0, 60 * BS);
	id = ev_flush(c);
	ev_none(c);
	check_eq(re_try(c, &late), ENOENT);	/* the channel is whole */
	check_eq(pthread_create(&sleeper, NULL, sleep_on_channel, &c->fd), 0);
	sleep_ms(200);
	re_send(c, re_flushed(id, 0));
	check_eq(pthread_join(sleeper, NULL), 0);
	over(ENODEV);
}

/* The daemon finds out that data was lost: nothing more is told. */
static void removal_and_loss(void)
{
	copied_block();
	remove_now();
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_flush(c);
	re_send(c, (struct dmu_reply){ .type = DMU_RE_COMMIT,
				       .flags = DMU_RE_LOST });
	over(EIO);
}

/* An INVALIDATE that is under way has its end. */
static void removal_in_invalidate(void)
{
	struct dmu_event ev;
	bool told = false;

	copied_block();
	re_send(c, re_invalidate(7, 0, 10));
	remove_now();
	do {
		ev = ev_get(c);
		told = told || (ev.type == DMU_EV_INVALIDATED && ev.id == 7);
	} while (ev.type != DMU_EV_FLUSH);
	re_send(c, re_flushed(ev.id, 0));
	if (!told)
		ev_want(c, DMU_EV_INVALIDATED, 0, 10, 0);
	over(ENODEV);
}

/* A commit that fails is not asked for again, and is no reason to wait. */
static void removal_commit_fails(void)
{
	copied_block();
	remove_now();
	ev_copied(c, 3, 1, 0, 3 * BS);
	re_send(c, re_flushed(ev_flush(c), EIO));
	over(ENODEV);
}

/* A commit is under way, and what it has not goes into another one. */
static void removal_in_commit(void)
{
	uint64_t id;

	copied_block();
	re_send(c, re_commit());
	ev_copied(c, 3, 1, 0, 3 * BS);
	id = ev_flush(c);
	disk_write(d, 4 * BS + 1, 1, 9);
	remove_now();
	ev_none(c);
	re_send(c, re_flushed(id, 0));
	ev_copied(c, 4, 1, 0, 4 * BS);
	commit_ok();
	over(ENODEV);
}

/* What may be lost is not told as if it were there. */
static void removal_flush_fails(void)
{
	setup_with(&(struct setup){ .gates = GATE_A });
	all_cow(0, 0, BASE, 0);
	disk_write(d, 3 * BS + 1, 1, 9);
	gate_break_writes(NAME_GATE_A);
	remove_now();
	over(EIO);
	gate_mend(NAME_GATE_A);
}

/* With all committed there is nothing to say, and nothing to flush. */
static void removal_of_clean(void)
{
	uint64_t flushes;

	copied_block();
	flush_and_commit();
	flushes = dev_stat(a, DEV_FLUSHES);
	remove_now();
	over(ENODEV);
	check_eq(dev_stat(a, DEV_FLUSHES), flushes);
}

/* Before the daemon that is attached has the replay: it hears of all in the end. */
static void removal_in_replay(void)
{
	struct dmu_event ev;

	copied_block();
	daemon_gone();
	daemon_back(0);
	remove_now();
	ev_copied(c, 3, 1, 0, 3 * BS);
	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	ev = ev_get(c);
	if (ev.type == DMU_EV_COPIED)	/* the replay had begun before */
		ev = ev_get(c);
	check_eq(ev.type, DMU_EV_FLUSH);
	re_send(c, re_flushed(ev.id, 0));
	over(ENODEV);
}

/* A channel without its device, its last words unread, and its last close. */
static void removed_while_attached(void)
{
	struct dmu_attach arg;
	struct chan *other;

	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 1, 1, 9);
	remove_now();
	d = disk_new(&(struct disk){ .sectors = SECTORS, .bs = BS,
				     .devs = { a->path }, .name = "dmut0" });
	other = chan_open();
	attach_arg(&arg, d->name);
	check_eq(chan_attach_arg(other, &arg), 0);	/* another life */
	ev_want(other, DMU_EV_REPLAY_END, 0, 0, 0);
	chan_close(c);
	c = other;
	all_linear(0, 0, 0);
	disk_expect(d, 1, 1, 9, 1);
}

/* Uncommitted blocks and no daemon: the device can go. */
static void removed_uncommitted(void)
{
	setup();
	all_cow(0, 0, BASE, 0);
	disk_write(d, 1, 1, 9);
	disk_write(d, 80, 80, 9);
	check_eq(disk_status(d, "uncommitted"), 11);
	daemon_gone();
	/* the last close of a block device flushes it; that must not hang */
	check_eq(dm_message(d->name, "policy fail"), 0);
	remove_now();
}

#define T(name) { #name, name }
static const struct test tests[] = {
	T(gone_hits), T(gone_queue), T(gone_flush_clean), T(gone_fail),
	T(gone_timeout), T(gone_timeout_back), T(never_attached), T(messages),
	T(message_while_attached),
	T(attach_again), T(revoked_agrees), T(revoked_given_again),
	T(replay_interrupted), T(died_in_commit), T(died_in_invalidate),
	T(died_in_copy), T(died_with_metadata), T(discard_feature_dropped),
	T(zeroes_feature_dropped), T(busy_before_replay), T(attach_storm),
	T(suspend_drains), T(suspend_noflush), T(suspend_noflush_no_daemon),
	T(suspend_no_daemon), T(suspend_daemon_dies), T(suspend_silent_daemon), T(suspend_slow_daemon),
	T(remove_force_no_daemon), T(remove_force_silent),
	T(reload_same), T(reload_grown), T(reload_shrunk),
	T(reload_shrunk_uncommitted), T(reload_devices), T(reload_new),
	T(reload_new_uncommitted), T(reload_readonly),
	T(reload_with_held), T(load_twice), T(load_and_clear),
	T(removal_is_told), T(removal_and_loss), T(removal_in_invalidate),
	T(removal_commit_fails), T(removal_in_commit),
	T(removal_flush_fails), T(removal_of_clean), T(removal_in_replay),
	T(removed_while_attached), T(removed_uncommitted),
};

int main(int argc, char **argv)
{
	return run_tests(tests, ARRAY_SIZE(tests), argc, argv);
}
