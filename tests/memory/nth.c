// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nth DEVICE STEP: makes, attaches, answers and asks a target over DEVICE while
 * the first allocation of each call fails, then the one STEP after it, and so on
 * until no allocation is left to fail: each call either works or says why, leaves
 * nothing, and works afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmu.h>

#define NAME	"nth"
#define KEPT	"nth-kept"
#define MOST	2000	/* allocations in one call; more is a loop */

static int nth_fd, step, nr_fails, last_refusal;
static struct dmu_channel *channel;
static struct dmu_dest dest;

static void die(const char *what, int n, int err)
{
	fprintf(stderr, "nth: %s, allocation %d: %s\n", what, n, strerror(-err));
	exit(1);
}

static void arm(int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	if (pwrite(nth_fd, text, (size_t)len, 0) != len)
		die("/proc/self/fail-nth", n, -errno);
}

/* Was the allocation that was armed for reached? */
static bool disarm(void)
{
	char text[16] = "";
	ssize_t len = pread(nth_fd, text, sizeof(text) - 1, 0);
	bool fired = len > 0 && atoi(text) == 0;

	arm(0);
	return fired;
}

static int create_as(const char *name)
{
	struct dmu_table table = {
		.key = name, .nr_sectors = 16384, .block_sectors = 8,
		.nr_dests = 1, .dests = &dest, .policy = DMU_POLICY_FAIL,
	};
	uint32_t cookie = 0;

	return dmu_device_create(name, &table, 0, &cookie);
}

static int create(void)
{
	return create_as(NAME);
}

static void undo_create(int err)
{
	int again = dmu_device_remove(NAME, 0, 5000);

	if (err && !again)
		die("create failed and left a device", 0, err);
	if (!err && again)
		die("remove", 0, again);
}

static int attached_fd = -1;

static int attach(void)
{
	struct dmu_geometry geometry;

	attached_fd = dmu_attach(NAME, 0, &geometry);
	return attached_fd < 0 ? attached_fd : 0;
}

static void undo_attach(int err)
{
	if (!err)
		close(attached_fd);
}

static void refused(void *data, const struct dmu_reply *reply, int error)
{
	(void)data;
	(void)reply;
	last_refusal = error;
}

static int flush_replies(void)
{
	int err;

	last_refusal = 0;
	err = dmu_flush_replies(channel);
	return err ? err : last_refusal;
}

static int linear(void)
{
	struct dmu_extent extent = { 100, 50 };
	struct dmu_place place = { 0, 800 };

	dmu_reply_linear(channel, 0, extent, place, DMU_RE_REMEMBER);
	return flush_replies();
}

static int cow(void)
{
	struct dmu_extent extent = { 0, 2048 };
	struct dmu_place place = { 0, 0 }, source = { DMU_DEV_NONE, 0 };

	dmu_reply_cow(channel, 0, extent, place, source, DMU_RE_REMEMBER, NULL);
	return flush_replies();
}

static int zero(void)
{
	struct dmu_extent extent = { 7, 3 };

	dmu_reply_zero(channel, 0, extent, DMU_RE_REMEMBER);
	return flush_replies();
}

static int invalidate(void)
{
	struct dmu_extent extent = { 0, 2048 };

	dmu_invalidate(channel, 77, extent, 0);
	return flush_replies();
}

/* All events up to one of @type. */
static void wait_event(uint32_t type, const char *what)
{
	const struct dmu_event *events;
	int i, n, tries;

	for (tries = 0; tries < 1000; tries++) {
		n = dmu_read_events(channel, &events);
		for (i = 0; i < n; i++)
			if (events[i].type == type)
				return;
		usleep(10000);
	}
	die(what, 0, -ETIMEDOUT);
}

/* What the call before left is invalidated, and that is waited for. */
static void undo_reply(int err)
{
	(void)err;
	if (invalidate())
		die("invalidate", 0, last_refusal);
	wait_event(DMU_EV_INVALIDATED, "INVALIDATED did not come");
}

static void undo_invalidate(int err)
{
	if (!err)
		wait_event(DMU_EV_INVALIDATED, "INVALIDATED did not come");
}

static int status(void)
{
	struct dmu_status st;

	return dmu_device_status(NAME, &st);
}

static int evict(void)
{
	return dmu_device_message(NAME, "evict");
}

static void undo_nothing(int err)
{
	(void)err;
}

static void each(const char *what, int (*call)(void), void (*undo)(int err))
{
	int n, err, tried = 0, failed = 0;
	bool fired;

	for (n = 1; n < MOST; n += step) {
		arm(n);
		err = call();
		fired = disarm();
		if (err && !fired)
			die(what, n, err);
		failed += err != 0;
		undo(err);
		if (!fired)
			break;
		tried++;
	}
	if (n >= MOST)
		die("does not come to an end", n, -ELOOP);
	nr_fails += tried;
	printf("nth: %s: %d allocations failed in turn, %d times the call with them\n",
	       what, tried, failed);
}

static void open_channel(void)
{
	int err = attach();

	if (!err)
		err = dmu_channel_open(attached_fd, 64, 64, 4096, refused, NULL,
				       &channel);
	if (err)
		die("channel", 0, err);
	wait_event(DMU_EV_REPLAY_END, "REPLAY_END did not come");
}

int main(int argc, char **argv)
{
	step = argc == 3 ? atoi(argv[2]) : 0;
	if (step < 1)
		return 2;
	dest.dev = argv[1];
	setvbuf(stdout, NULL, _IOLBF, 0);
	nth_fd = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0) {
		printf("SKIP: no fault injection in this kernel\n");
		return 77;
	}
	/* libdevmapper asks for versions once, and does not ask again when told none. */
	undo_create(create());
	/*
	 * It keeps the cache of bios of this size: when that cannot be made, 6.1 loses its
	 * name (sysfs_slab_add()), which the search for leaks would find.
	 */
	if (create_as(KEPT))
		die("create", 0, -EIO);
	each("create", create, undo_create);
	if (create())
		die("create", 0, -EIO);
	each("attach", attach, undo_attach);
	open_channel();
	each("linear", linear, undo_reply);
	each("zero", zero, undo_reply);
	each("cow", cow, undo_reply);
	each("invalidate", invalidate, undo_invalidate);
	each("status", status, undo_nothing);
	each("evict", evict, undo_nothing);
	dmu_channel_close(channel);
	undo_create(0);
	if (dmu_device_remove(KEPT, 0, 5000))
		die("remove", 0, -EIO);
	printf("nth: %d allocations failed\n", nr_fails);
	return nr_fails < 1 + 20 / step;
}
