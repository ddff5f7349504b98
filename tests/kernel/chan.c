// SPDX-License-Identifier: GPL-2.0-or-later
/* The control node as a daemon of a test uses it. */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const ev_names[] = {
	"nothing", "MAP", "COPIED", "FLUSH", "DISCARD", "WRITE_ZEROES",
	"INVALIDATED", "REPLAY_END",
};

static const char *ev_name(uint32_t type)
{
	return type < ARRAY_SIZE(ev_names) ? ev_names[type] : "unknown";
}

static const char *ev_text(const struct dmu_event *ev)
{
	static __thread char buf[160];

	snprintf(buf, sizeof(buf),
		 "%s flags %x id %llu block %llu count %llu dev %u sector %llu",
		 ev_name(ev->type), ev->flags, (unsigned long long)ev->id,
		 (unsigned long long)ev->block, (unsigned long long)ev->count,
		 ev->dev, (unsigned long long)ev->sector);
	return buf;
}

struct chan *chan_open(void)
{
	struct chan *c = calloc(1, sizeof(*c));

	check(c, "no memory");
	c->fd = open("/dev/" DMU_DEVICE_NAME, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	check(c->fd >= 0, "cannot open the control node: %s", strerror(errno));
	return c;
}

void attach_arg(struct dmu_attach *a, const char *key)
{
	memset(a, 0, sizeof(*a));
	a->version = DMU_VERSION;
	strncpy(a->key, key, sizeof(a->key) - 1);
}

int chan_attach_arg(struct chan *c, struct dmu_attach *a)
{
	return ioctl(c->fd, DMU_IOC_ATTACH, a) ? errno : 0;
}

/* Attached, and nothing read yet. */
struct chan *chan_raw(struct disk *d, uint64_t features)
{
	struct chan *c = chan_open();
	struct dmu_attach a;
	int err;

	attach_arg(&a, d->name);
	a.features = features;
	err = chan_attach_arg(c, &a);
	check(!err, "cannot attach: %s", strerror(err));
	return c;
}

/* Attached to a disk that has nothing to replay. */
struct chan *chan_new(struct disk *d, uint64_t features)
{
	struct chan *c = chan_raw(d, features);

	ev_want(c, DMU_EV_REPLAY_END, 0, 0, 0);
	return c;
}

void chan_close(struct chan *c)
{
	close(c->fd);
	free(c);
}

/* Is there an event within @ms? */
static bool chan_fill(struct chan *c, int ms)
{
	uint64_t end = now_ms() + ms;

	while (!c->n) {
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		int64_t left = end - now_ms();
		ssize_t r;

		r = read(c->fd, c->q, sizeof(c->q));
		if (r > 0) {
			check(r % sizeof(c->q[0]) == 0, "read %zd bytes", r);
			c->head = 0;
			c->n = r / sizeof(c->q[0]);
			break;
		}
		check(r < 0 && errno == EAGAIN, "read of events: %s",
		      r ? strerror(errno) : "nothing");
		if (left <= 0)
			return false;
		poll(&p, 1, left);
	}
	return true;
}

/* What no event may break. */
static void ev_form(const struct dmu_event *ev)
{
	bool owed = ev->type == DMU_EV_MAP || ev->type == DMU_EV_FLUSH ||
		    ev->type == DMU_EV_DISCARD ||
		    ev->type == DMU_EV_WRITE_ZEROES ||
		    ev->type == DMU_EV_INVALIDATED;
	bool extent = ev->type != DMU_EV_FLUSH &&
		      ev->type != DMU_EV_REPLAY_END && ev->type != DMU_EV_LOST;

	check(ev->type >= DMU_EV_MAP && ev->type <= DMU_EV_LOST,
	      "event of type %u", ev->type);
	check(!!ev->id == owed, "wrong id in %s", ev_text(ev));
	check(extent ? !!ev->count : !ev->count && !ev->block,
	      "wrong extent in %s", ev_text(ev));
	check(!ev->flags || ev->type == DMU_EV_MAP, "flags in %s", ev_text(ev));
	check(ev->type == DMU_EV_COPIED || (!ev->dev && !ev->sector),
	      "place in %s", ev_text(ev));
	check(!ev->pad && !ev->reserved[0] && !ev->reserved[1],
	      "padding in %s", ev_text(ev));
}

/* False: none came within @ms. */
bool ev_poll(struct chan *c, struct dmu_event *ev, int ms)
{
	if (!chan_fill(c, ms))
		return false;
	*ev = c->q[c->head++];
	c->n--;
	ev_form(ev);
	return true;
}

struct dmu_event ev_get(struct chan *c)
{
	struct dmu_event ev;

	check(ev_poll(c, &ev, wait_limit_ms()), "no event came");
	return ev;
}

/* The next event is this one.  @flags is looked at for MAP. */
struct dmu_event ev_want(struct chan *c, uint32_t type, uint64_t block,
			 uint64_t count, uint32_t flags)
{
	struct dmu_event ev;

	check(chan_fill(c, wait_limit_ms()), "no event came, wanted %s",
	      ev_name(type));
	ev = ev_get(c);
	check(ev.type == type, "got %s, wanted %s", ev_text(&ev), ev_name(type));
	check(ev.block == block && ev.count == count,
	      "got %s, wanted block %llu count %llu", ev_text(&ev),
	      (unsigned long long)block, (unsigned long long)count);
	check(type != DMU_EV_MAP || ev.flags == flags,
	      "got %s, wanted flags %x", ev_text(&ev), flags);
	return ev;
}

struct dmu_event ev_copied(struct chan *c, uint64_t block, uint64_t count,
			   uint32_t dev, uint64_t sector)
{
	struct dmu_event ev = ev_want(c, DMU_EV_COPIED, block, count, 0);

	check(ev.dev == dev && ev.sector == sector, "got %s, wanted %u:%llu",
	      ev_text(&ev), dev, (unsigned long long)sector);
	return ev;
}

uint64_t ev_flush(struct chan *c)
{
	return ev_want(c, DMU_EV_FLUSH, 0, 0, 0).id;
}

/* Nothing comes. */
void ev_none(struct chan *c)
{
	if (!c->n && !chan_fill(c, 50))
		return;
	fail("got %s, wanted nothing", ev_text(&c->q[c->head]));
}

/* replies */

struct dmu_reply re_linear(uint64_t id, uint64_t block, uint64_t count,
			   uint32_t dev, uint64_t sector, uint32_t flags)
{
	return (struct dmu_reply){
		.type = DMU_RE_MAP, .kind = DMU_KIND_LINEAR, .id = id,
		.block = block, .count = count, .dev = dev, .sector = sector,
		.flags = flags,
	};
}

struct dmu_reply re_cow(uint64_t id, uint64_t block, uint64_t count,
			uint32_t dev, uint64_t sector,
			uint32_t src_dev, uint64_t src_sector)
{
	return (struct dmu_reply){
		.type = DMU_RE_MAP, .kind = DMU_KIND_COW, .id = id,
		.block = block, .count = count, .dev = dev, .sector = sector,
		.src_dev = src_dev, .src_sector = src_sector,
		.flags = DMU_RE_REMEMBER,
	};
}

struct dmu_reply re_kind(uint64_t id, uint64_t block, uint64_t count,
			 uint32_t kind, uint32_t flags)
{
	return (struct dmu_reply){
		.type = DMU_RE_MAP, .kind = kind, .id = id, .block = block,
		.count = count, .flags = flags,
	};
}

struct dmu_reply re_fail(uint64_t id, uint64_t block, uint64_t count, int err)
{
	return (struct dmu_reply){
		.type = DMU_RE_FAIL, .id = id, .block = block, .count = count,
		.error = err,
	};
}

struct dmu_reply re_flushed(uint64_t id, int err)
{
	return (struct dmu_reply){
		.type = DMU_RE_FLUSHED, .id = id, .error = err,
	};
}

struct dmu_reply re_done(uint64_t id, int err)
{
	return (struct dmu_reply){
		.type = DMU_RE_DONE, .id = id, .error = err,
	};
}

struct dmu_reply re_invalidate(uint64_t id, uint64_t block, uint64_t count)
{
	return (struct dmu_reply){
		.type = DMU_RE_INVALIDATE, .id = id, .block = block,
		.count = count,
	};
}

struct dmu_reply re_commit(void)
{
	return (struct dmu_reply){ .type = DMU_RE_COMMIT };
}

/* The same unasked. */
struct dmu_reply re_preload(struct dmu_reply r)
{
	r.type = DMU_RE_PRELOAD;
	r.id = 0;
	r.flags &= ~DMU_RE_REMEMBER;
	return r;
}

static int re_write(struct chan *c, const void *buf, size_t len)
{
	ssize_t r = write(c->fd, buf, len);

	if (r < 0)
		return errno;
	check(r == (ssize_t)len, "short write of one reply: %zd", r);
	return 0;
}

/* With as many zeroes behind it as it says: what is too short is refused for that alone. */
int re_try(struct chan *c, const struct dmu_reply *r)
{
	char buf[sizeof(*r) + 256] = { 0 };
	size_t bits = r->bitmap_len;

	if (bits > sizeof(buf) - sizeof(*r))	/* more than a test needs */
		bits = 0;
	memcpy(buf, r, sizeof(*r));
	return re_write(c, buf, sizeof(*r) + bits);
}

int re_try_bitmap(struct chan *c, struct dmu_reply r, const uint64_t *bitmap)
{
	size_t len = DMU_BITMAP_LEN(r.count);
	char *buf = malloc(sizeof(r) + len);
	int err;

	check(buf, "no memory");
	r.bitmap_len = len;
	memcpy(buf, &r, sizeof(r));
	memcpy(buf + sizeof(r), bitmap, len);
	err = re_write(c, buf, sizeof(r) + len);
	free(buf);
	return err;
}

void re_send(struct chan *c, struct dmu_reply r)
{
	int err = re_try(c, &r);

	check(!err, "reply of type %u kind %u was refused: %s", r.type, r.kind,
	      strerror(err));
}
