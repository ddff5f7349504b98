// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Batching and the short-write rule, against a kernel played by this program:
 * write() and read() on KERNEL_FD are taken over by the linker's --wrap.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dmu.h"

#define MAX_TAKEN 64

/* The kernel: refuses each reply whose block is bad_block with bad_error. */
static struct {
	int fd;
	uint64_t bad_block;
	int bad_error;
	int writes;
	int nr_taken;
	struct dmu_reply taken[MAX_TAKEN];
	uint64_t first_word[MAX_TAKEN];	/* of each bitmap */
	struct dmu_event events[4];
	ssize_t read_result;
} kernel;

static struct {
	int calls;
	int error;
	uint64_t block;
} refused;

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	const char *p = buf;
	size_t pos = 0;
	struct dmu_reply re;

	if (fd != kernel.fd)
		return __real_write(fd, buf, len);
	kernel.writes++;
	while (pos < len) {
		assert_true(len - pos >= sizeof(re));
		memcpy(&re, p + pos, sizeof(re));
		if (kernel.bad_error && re.block == kernel.bad_block) {
			if (pos)
				return (ssize_t)pos;
			errno = kernel.bad_error;
			return -1;
		}
		assert_true(kernel.nr_taken < MAX_TAKEN);
		if (re.bitmap_len)
			memcpy(&kernel.first_word[kernel.nr_taken],
			       p + pos + sizeof(re), 8);
		kernel.taken[kernel.nr_taken++] = re;
		pos += sizeof(re) + re.bitmap_len;
	}
	assert_int_equal(pos, len);
	return (ssize_t)len;
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	if (fd != kernel.fd)
		return __real_read(fd, buf, len);
	if (kernel.read_result < 0) {
		errno = (int)-kernel.read_result;
		return -1;
	}
	assert_true((size_t)kernel.read_result <= len);
	memcpy(buf, kernel.events, (size_t)kernel.read_result);
	return kernel.read_result;
}

static void on_refused(void *data, const struct dmu_reply *reply, int error)
{
	assert_ptr_equal(data, &refused);
	refused.calls++;
	refused.error = error;
	refused.block = reply->block;
}

static int open_channel(void **state)
{
	struct dmu_channel *ch;
	int err;

	memset(&kernel, 0, sizeof(kernel));
	memset(&refused, 0, sizeof(refused));
	kernel.fd = open("/dev/null", O_RDWR);
	err = dmu_channel_open(kernel.fd, 4, 4, 64, on_refused, &refused, &ch);
	*state = ch;
	return err;
}

static int close_channel(void **state)
{
	kernel.fd = -1;
	dmu_channel_close(*state);
	return 0;
}

static struct dmu_extent ext(uint64_t block, uint64_t count)
{
	return (struct dmu_extent){ .block = block, .count = count };
}

static struct dmu_place at(uint32_t dev, uint64_t sector)
{
	return (struct dmu_place){ .dev = dev, .sector = sector };
}

static void one_write_for_a_batch(void **state)
{
	struct dmu_channel *ch = *state;
	uint64_t *bitmap;

	assert_int_equal(dmu_reply_linear(ch, 1, ext(5, 2), at(1, 80),
					  DMU_RE_REMEMBER | DMU_RE_WRITABLE), 0);
	assert_int_equal(dmu_reply_cow(ch, 2, ext(64, 65), at(0, 8), at(1, 16),
				       DMU_RE_REMEMBER, &bitmap), 0);
	bitmap[0] = 5;
	assert_int_equal(dmu_reply_flushed(ch, 3, -ENOSPC), 0);
	assert_int_equal(kernel.writes, 0);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.writes, 1);
	assert_int_equal(kernel.nr_taken, 3);
	assert_int_equal(kernel.taken[0].type, DMU_RE_MAP);
	assert_int_equal(kernel.taken[0].sector, 80);
	assert_int_equal(kernel.taken[1].bitmap_len, 16);
	assert_int_equal(kernel.first_word[1], 5);
	assert_int_equal(kernel.taken[2].error, ENOSPC);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.writes, 1);
}

static void unasked_is_preload(void **state)
{
	struct dmu_channel *ch = *state;

	assert_int_equal(dmu_reply_linear(ch, 0, ext(5, 2), at(1, 80),
					  DMU_RE_REMEMBER | DMU_RE_METADATA), 0);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.taken[0].type, DMU_RE_PRELOAD);
	assert_int_equal(kernel.taken[0].flags, DMU_RE_METADATA);
}

static void full_queue_writes_itself(void **state)
{
	struct dmu_channel *ch = *state;
	uint64_t i;

	for (i = 1; i <= 6; i++)
		assert_int_equal(dmu_reply_zero(ch, i, ext(i, 1), 0), 0);
	assert_int_equal(kernel.writes, 1);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.nr_taken, 6);
	for (i = 1; i <= 6; i++)
		assert_int_equal(kernel.taken[i - 1].id, i);
}

static void refused_is_told_and_skipped(void **state)
{
	struct dmu_channel *ch = *state;

	kernel.bad_block = 2;
	kernel.bad_error = EEXIST;
	dmu_reply_zero(ch, 1, ext(1, 1), 0);
	dmu_reply_cow(ch, 2, ext(2, 64), at(0, 0), at(DMU_DEV_NONE, 0), 0,
		      &(uint64_t *){ NULL });
	dmu_reply_zero(ch, 3, ext(3, 1), 0);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.writes, 3);
	assert_int_equal(kernel.nr_taken, 2);
	assert_int_equal(kernel.taken[1].id, 3);
	assert_int_equal(refused.calls, 1);
	assert_int_equal(refused.error, -EEXIST);
	assert_int_equal(refused.block, 2);
}

/* Its question is owed no more, but what else it was to answer is. */
static void answered_already_is_told(void **state)
{
	struct dmu_channel *ch = *state;

	kernel.bad_block = 2;
	kernel.bad_error = ENOENT;
	dmu_reply_zero(ch, 1, ext(2, 1), 0);
	dmu_reply_fail(ch, 1, ext(2, 1), -EIO);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(refused.calls, 2);
	assert_int_equal(refused.error, -ENOENT);
}

static void gone_target_ends_it(void **state)
{
	struct dmu_channel *ch = *state;

	kernel.bad_block = 1;
	kernel.bad_error = ENODEV;
	dmu_reply_zero(ch, 1, ext(1, 1), 0);
	dmu_reply_zero(ch, 2, ext(2, 1), 0);
	assert_int_equal(dmu_flush_replies(ch), -ENODEV);
	assert_int_equal(refused.calls, 0);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.writes, 1);
}

static void bad_arguments(void **state)
{
	struct dmu_channel *ch = *state;
	uint64_t *bitmap;

	assert_int_equal(dmu_reply_zero(ch, 1, ext(1, 0), 0), -EINVAL);
	assert_int_equal(dmu_reply_fail(ch, 1, ext(1, 1), 0), -EINVAL);
	assert_int_equal(dmu_reply_fail(ch, 1, ext(1, 1), EIO), -EINVAL);
	assert_int_equal(dmu_reply_flushed(ch, 0, 0), -EINVAL);
	assert_int_equal(dmu_invalidate(ch, 0, ext(1, 1), 0), -EINVAL);
	assert_int_equal(dmu_invalidate(ch, 1, ext(1, 1), DMU_RE_LOST), -EINVAL);
	assert_int_equal(dmu_request_commit(ch, DMU_RE_LOST), -EINVAL);
	assert_int_equal(dmu_reply_cow(ch, 1, ext(0, 1 << 20), at(0, 0),
				       at(0, 0), 0, &bitmap), -E2BIG);
	assert_int_equal(dmu_flush_replies(ch), 0);
	assert_int_equal(kernel.writes, 0);
}

static void events(void **state)
{
	struct dmu_channel *ch = *state;
	const struct dmu_event *ev;

	kernel.events[1].id = 77;
	kernel.read_result = 2 * sizeof(*ev);
	assert_int_equal(dmu_read_events(ch, &ev), 2);
	assert_int_equal(ev[1].id, 77);
	kernel.read_result = sizeof(*ev) + 1;
	assert_int_equal(dmu_read_events(ch, &ev), -EPROTO);
	kernel.read_result = -EAGAIN;
	assert_int_equal(dmu_read_events(ch, &ev), -EAGAIN);
	kernel.read_result = 0;
	assert_int_equal(dmu_read_events(ch, &ev), -ENODEV);
}

#define CHANNEL_TEST(f) \
	cmocka_unit_test_setup_teardown(f, open_channel, close_channel)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHANNEL_TEST(one_write_for_a_batch),
		CHANNEL_TEST(unasked_is_preload),
		CHANNEL_TEST(full_queue_writes_itself),
		CHANNEL_TEST(refused_is_told_and_skipped),
		CHANNEL_TEST(answered_already_is_told),
		CHANNEL_TEST(gone_target_ends_it),
		CHANNEL_TEST(bad_arguments),
		CHANNEL_TEST(events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
