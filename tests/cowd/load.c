// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A load that knows what every sector must hold.
 *
 *	load fill FILE MIB		a base: every sector is stamped, version 0
 *	load run DEV STATE MIB SEED	until SIGTERM; the base's first MIB are stamped.
 *					A STATE that is there is gone on with
 *	load watch DEV MIB		reads a base that nothing was written to at
 *					random, past the page cache, until SIGTERM
 *	load verify DEV STATE		every sector holds what was written last, and DEV is
 *					as large as it was, or with LOAD_GROWN larger
 *	load verify FILE - MIB		a base that nothing was written to
 *	load count STATE [reset]	what was done so far
 *
 * A stamp tells sector and version.  STATE holds the version of every sector,
 * and counters; another process may read them while the load runs.  The disk's
 * lower half is hot: threads read, verify and write it at random, all over each
 * other's blocks, but no two of them the same sectors.  In the upper half one
 * thread goes from block to block and writes to each for the first time.
 * Another one flushes.  LOAD_PACE=N makes it wait N times as long between two I/Os, and
 * LOAD_FRESH=N between two first writes.
 * With LOAD_WARM each hot block is written to once before all that.  With LOAD_ZEROES
 * one more thread writes zeroes and discards among the hot ones, and whole blocks in
 * the last quarter of the lower half, which is its own.  What was discarded reads as
 * zeroes, or as what was written last: never as what was there before.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SECTOR		512u
#define GROUP		32u	/* sectors that belong to one thread */
#define FRESH		128u	/* sectors: one first write in each */
#define THREADS		4
#define WIDE		2048u	/* sectors: the most that are discarded at once */
#define PACE_NS		(15 * 1000 * 1000)
#define HOT_NS		(4 * 1000 * 1000)	/* the machine has more to do */
#define STALL_US	(120 * 1000000ULL)	/* of an I/O; the kernel reports no task that waits for one */
#define NS_PER_S	1000000000ULL
#define MAGIC		0x6c6f61642d636f77ULL

/* Of a sector's version. */
#define ZEROED		(1u << 31)
#define DISCARDED	(1u << 30)
#define WRITES		(DISCARDED - 1)

struct stamp {
	uint64_t magic, sector, version, check;
};

struct state {
	uint64_t magic;
	uint64_t sectors, filled, seed;
	_Atomic uint64_t reads, writes, firsts, flushes, zeroes, discards;
	_Atomic uint64_t errors;
	_Atomic uint64_t warm;		/* threads that have written to all of theirs once */
	_Atomic uint64_t hot[THREADS];	/* I/Os of each in the lower half since */
	_Atomic uint64_t slowest_us;
	uint32_t version[];
};

struct worker {
	struct state *st;
	int fd;
	unsigned int number;
	uint64_t random;
	uint8_t *buf;
};

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- stamps ------------------------------------------------------------- */

static void stamp_make(uint8_t *p, uint64_t sector, uint64_t version)
{
	struct stamp s = { MAGIC, sector, version, 0 };
	size_t i;

	s.check = ~(s.magic ^ s.sector ^ s.version << 32);
	for (i = 0; i < SECTOR; i += sizeof(s))
		memcpy(p + i, &s, sizeof(s));
}

static bool is_right(const struct state *st, const uint8_t *p, uint64_t sector,
		     uint32_t version)
{
	static const uint8_t zeroes[SECTOR];
	bool is_zero = !memcmp(p, zeroes, SECTOR);
	uint8_t want[SECTOR];

	if (version & ZEROED || (!(version & WRITES) && sector >= st->filled))
		return is_zero;
	if (version & DISCARDED && is_zero)
		return true;
	stamp_make(want, sector, version & WRITES);
	return !memcmp(p, want, SECTOR);
}

static void say_wrong(struct state *st, const uint8_t *p, uint64_t sector)
{
	struct stamp s;

	memcpy(&s, p, sizeof(s));
	st->errors++;
	fprintf(stderr, "load: sector %" PRIu64 " wants version %u%s%s, holds %s of sector %" PRIu64 " version %" PRIu64 "\n",
		sector, st->version[sector] & WRITES,
		st->version[sector] & ZEROED ? ", zeroed" : "",
		st->version[sector] & DISCARDED ? ", discarded" : "",
		s.magic == MAGIC ? "a stamp" : "no stamp", s.sector, s.version);
}

static void check(struct state *st, const uint8_t *p, uint64_t sector,
		  unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count && st->errors < 10; i++)
		if (!is_right(st, p + i * SECTOR, sector + i, st->version[sector + i]))
			say_wrong(st, p + i * SECTOR, sector + i);
}

/* ---- I/O ---------------------------------------------------------------- */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void note_time(struct state *st, uint64_t began)
{
	uint64_t took = now_us() - began;
	uint64_t slowest = st->slowest_us;

	if (took > STALL_US) {
		st->errors++;
		fprintf(stderr, "load: an I/O took %" PRIu64 " s\n", took / 1000000);
	}
	while (took > slowest &&
	       !atomic_compare_exchange_weak(&st->slowest_us, &slowest, took))
		;
}

static void io_failed(struct state *st, const char *what, uint64_t sector)
{
	st->errors++;
	fprintf(stderr, "load: %s at sector %" PRIu64 ": %s\n", what, sector,
		strerror(errno));
	stopped = 1;
}

static void read_some(struct worker *w, uint64_t sector, unsigned int count)
{
	uint64_t began = now_us();
	size_t len = count * SECTOR;

	if (pread(w->fd, w->buf, len, (off_t)(sector * SECTOR)) != (ssize_t)len) {
		io_failed(w->st, "read", sector);
		return;
	}
	note_time(w->st, began);
	check(w->st, w->buf, sector, count);
	w->st->reads++;
}

static void write_some(struct worker *w, uint64_t sector, unsigned int count)
{
	uint64_t began = now_us();
	size_t len = count * SECTOR;
	uint32_t *version = w->st->version + sector;
	unsigned int i;

	for (i = 0; i < count; i++) {
		version[i] = (version[i] & WRITES) + 1;
		stamp_make(w->buf + i * SECTOR, sector + i, version[i]);
	}
	if (pwrite(w->fd, w->buf, len, (off_t)(sector * SECTOR)) != (ssize_t)len) {
		io_failed(w->st, "write", sector);
		return;
	}
	note_time(w->st, began);
	w->st->writes++;
}

static void zero_some(struct worker *w, uint64_t sector, unsigned int count)
{
	uint64_t range[2] = { sector * SECTOR, (uint64_t)count * SECTOR };
	unsigned int i;

	if (ioctl(w->fd, BLKZEROOUT, range)) {
		io_failed(w->st, "write zeroes", sector);
		return;
	}
	for (i = 0; i < count; i++)
		w->st->version[sector + i] |= ZEROED;
	w->st->zeroes++;
}

static void discard_some(struct worker *w, uint64_t sector, unsigned int count)
{
	uint64_t range[2] = { sector * SECTOR, (uint64_t)count * SECTOR };
	unsigned int i;

	if (ioctl(w->fd, BLKDISCARD, range)) {
		if (errno != EOPNOTSUPP)
			io_failed(w->st, "discard", sector);
		return;
	}
	for (i = 0; i < count; i++)
		w->st->version[sector + i] |= DISCARDED;
	w->st->discards++;
}

/* ---- threads ------------------------------------------------------------ */

static uint64_t next_random(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static unsigned long pace = 1, fresh_pace = 1;

static void pause_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns * pace / NS_PER_S),
		.tv_nsec = (long)(ns * pace % NS_PER_S),
	};

	nanosleep(&ts, NULL);
}

/* The first sector of those that the thread for zeroes has for itself. */
static uint64_t first_wide(const struct state *st)
{
	return st->sectors * 3 / 8;
}

/* What each thread has among the others', in groups of which it has every fifth. */
static uint64_t nr_groups(const struct state *st)
{
	return first_wide(st) / GROUP / (THREADS + 1);
}

static uint64_t sector_of(const struct worker *w, uint64_t group)
{
	unsigned int stripe = w->number < THREADS ? w->number : THREADS;

	return (group * (THREADS + 1) + stripe) * GROUP;
}

static void warm(struct worker *w)
{
	uint64_t g;

	for (g = 0; !stopped && g < nr_groups(w->st); g++)
		write_some(w, sector_of(w, g), GROUP);
	w->st->warm++;
}

static void *run_hot(void *data)
{
	struct worker *w = data;

	if (getenv("LOAD_WARM"))
		warm(w);
	while (!stopped) {
		uint64_t sector = sector_of(w, next_random(w) % nr_groups(w->st));
		unsigned int first = (unsigned int)(next_random(w) % GROUP);
		unsigned int count = 1 + (unsigned int)(next_random(w) % (GROUP - first));

		if (next_random(w) % 3)
			read_some(w, sector + first, count);
		else
			write_some(w, sector + first, count);
		w->st->hot[w->number]++;
		pause_ns(HOT_NS);
	}
	return NULL;
}

static void *run_fresh(void *data)
{
	struct worker *w = data;
	uint64_t at;

	for (at = w->st->sectors / 2; !stopped && at + FRESH <= w->st->sectors; at += FRESH) {
		write_some(w, at + next_random(w) % (FRESH - GROUP),
			   1 + (unsigned int)(next_random(w) % GROUP));
		read_some(w, at, FRESH);
		w->st->firsts++;
		pause_ns(PACE_NS * fresh_pace);
	}
	return NULL;
}

/* Half of the changes begin and end with a block, whatever its size. */
static void change_some(struct worker *w)
{
	uint64_t base = first_wide(w->st), wide = w->st->sectors / 2 - base;
	uint64_t grain = next_random(w) % 2 ? FRESH : 1;
	uint64_t sector = base + next_random(w) % (wide - WIDE - FRESH);
	unsigned int count = 1 + (unsigned int)(next_random(w) % WIDE);

	sector = (sector + grain - 1) / grain * grain;
	count = (unsigned int)((count + grain - 1) / grain * grain);
	switch (next_random(w) % 4) {
	case 0:
		zero_some(w, sector, count);
		break;
	case 1:
		discard_some(w, sector, count);
		break;
	default:
		write_some(w, sector, count < FRESH ? count : FRESH);
	}
	read_some(w, sector, count < FRESH ? count : FRESH);
}

static void *run_zeroes(void *data)
{
	struct worker *w = data;

	while (!stopped) {
		uint64_t sector = sector_of(w, next_random(w) % nr_groups(w->st));
		unsigned int count = 1 + (unsigned int)(next_random(w) % GROUP);

		if (next_random(w) % 2)
			zero_some(w, sector, count);
		else
			write_some(w, sector, count);
		read_some(w, sector, count);
		change_some(w);
		pause_ns(HOT_NS);
	}
	return NULL;
}

static void *run_flush(void *data)
{
	struct worker *w = data;

	while (!stopped) {
		if (fdatasync(w->fd))
			io_failed(w->st, "flush", 0);
		w->st->flushes++;
		pause_ns(4 * PACE_NS);
	}
	return NULL;
}

static void start_thread(pthread_t *thread, struct worker *w, struct state *st,
			 int fd, unsigned int number, void *(*run)(void *))
{
	*w = (struct worker){ .st = st, .fd = fd, .number = number };
	w->random = (st->seed + number + 1) * 0x9e3779b97f4a7c15ULL;
	if (posix_memalign((void **)&w->buf, 4096, FRESH * SECTOR) ||
	    pthread_create(thread, NULL, run, w))
		die("thread");
}

static void run_threads(struct state *st, int fd)
{
	static void *(*const others[])(void *) = { run_fresh, run_flush, run_zeroes };
	unsigned int nr = THREADS + (getenv("LOAD_ZEROES") ? 3 : 2), i;
	struct worker workers[THREADS + 3];
	pthread_t threads[THREADS + 3];

	for (i = 0; i < nr; i++)
		start_thread(&threads[i], &workers[i], st, fd, i,
			     i < THREADS ? run_hot : others[i - THREADS]);
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

/* ---- commands ----------------------------------------------------------- */

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static uint64_t sectors_of(int fd)
{
	off_t end = lseek(fd, 0, SEEK_END);

	return end < 0 ? 0 : (uint64_t)end / SECTOR;
}

static struct state *map_state(const char *path, uint64_t sectors)
{
	int fd = open_or_die(path, O_RDWR | (sectors ? O_CREAT : 0));
	size_t size = sizeof(struct state) + sectors * sizeof(uint32_t);
	struct stat st;
	void *p;

	if (sectors && ftruncate(fd, (off_t)size))
		die(path);
	if (fstat(fd, &st))
		die(path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die(path);
	close(fd);
	return p;
}

/* Of the thread that did the fewest: one that waits is not hidden by the others. */
static uint64_t least_hot(struct state *st)
{
	uint64_t least = st->hot[0];
	unsigned int i;

	for (i = 1; i < THREADS; i++)
		if (st->hot[i] < least)
			least = st->hot[i];
	return least;
}

static void print_count(struct state *st)
{
	printf("total=%" PRIu64 " reads=%" PRIu64 " writes=%" PRIu64 " hot=%" PRIu64 " firsts=%" PRIu64 " flushes=%" PRIu64 " zeroes=%" PRIu64 " discards=%" PRIu64 " slowest_ms=%" PRIu64 " warm=%" PRIu64 " errors=%" PRIu64 "\n",
	       st->reads + st->writes, st->reads, st->writes, least_hot(st), st->firsts,
	       st->flushes, st->zeroes, st->discards, st->slowest_us / 1000, st->warm, st->errors);
}

static int fill(const char *path, uint64_t mib)
{
	int fd = open_or_die(path, O_WRONLY | O_CREAT);
	static uint8_t buf[1 << 20];
	uint64_t i, sector = 0;

	while (mib--) {
		for (i = 0; i < sizeof(buf); i += SECTOR)
			stamp_make(buf + i, sector++, 0);
		if (write(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
			die(path);
	}
	return close(fd) ? 1 : 0;
}

static int run(const char *dev, const char *path, uint64_t mib, uint64_t seed)
{
	struct sigaction action = { .sa_handler = stop };
	int fd = open_or_die(dev, O_RDWR | O_DIRECT);
	struct state *st = map_state(path, sectors_of(fd));

	st->magic = MAGIC;
	st->sectors = sectors_of(fd);
	st->filled = mib << 11;
	st->seed = seed;
	sigaction(SIGTERM, &action, NULL);
	run_threads(st, fd);
	print_count(st);
	return st->errors ? 1 : 0;
}

static int verify(const char *path, struct state *st)
{
	int fd = open_or_die(path, O_RDONLY);
	static uint8_t buf[1 << 20];
	uint64_t sector, left;
	ssize_t n;

	st->errors = 0;
	if (sectors_of(fd) < st->sectors ||
	    (sectors_of(fd) > st->sectors && !getenv("LOAD_GROWN"))) {
		fprintf(stderr, "load: %s: %" PRIu64 " sectors, not %" PRIu64 "\n",
			path, sectors_of(fd), st->sectors);
		return 1;
	}
	for (sector = 0; sector < st->sectors; sector += (uint64_t)n / SECTOR) {
		left = (st->sectors - sector) * SECTOR;	/* it may have grown */
		n = pread(fd, buf, left < sizeof(buf) ? left : sizeof(buf),
			  (off_t)(sector * SECTOR));
		if (n < (ssize_t)SECTOR)
			die(path);
		check(st, buf, sector, (unsigned int)n / SECTOR);
	}
	close(fd);
	return st->errors ? 1 : 0;
}

/* A state in which nothing was written. */
static struct state *new_state(const char *path, uint64_t mib)
{
	int fd = open_or_die(path, O_RDONLY);
	uint64_t sectors = sectors_of(fd);
	struct state *st = calloc(1, sizeof(*st) + sectors * sizeof(uint32_t));

	if (!st)
		die("memory");
	st->sectors = sectors;
	st->filled = mib << 11;
	close(fd);
	if (st->sectors >= st->filled)
		return st;
	fprintf(stderr, "load: %s: %" PRIu64 " sectors, fewer than are filled\n", path, sectors);
	exit(1);
}

static int watch(const char *dev, struct state *st)
{
	struct worker w = { .st = st, .random = 1 };
	struct sigaction action = { .sa_handler = stop };

	w.fd = open_or_die(dev, O_RDONLY | O_DIRECT);
	if (posix_memalign((void **)&w.buf, 4096, GROUP * SECTOR))
		die("memory");
	sigaction(SIGTERM, &action, NULL);
	while (!stopped && !st->errors)
		read_some(&w, next_random(&w) % (st->sectors / GROUP) * GROUP, GROUP);
	print_count(st);
	return st->errors ? 1 : 0;
}

static int count(struct state *st, bool reset)
{
	print_count(st);
	if (reset)
		st->slowest_us = 0;
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 2 ? argv[1] : "";

	if (getenv("LOAD_PACE"))
		pace = strtoul(getenv("LOAD_PACE"), NULL, 10);
	if (getenv("LOAD_FRESH"))
		fresh_pace = strtoul(getenv("LOAD_FRESH"), NULL, 10);
	if (!strcmp(command, "fill") && argc == 4)
		return fill(argv[2], strtoull(argv[3], NULL, 0));
	if (!strcmp(command, "run") && argc == 6)
		return run(argv[2], argv[3], strtoull(argv[4], NULL, 0),
			   strtoull(argv[5], NULL, 0));
	if (!strcmp(command, "watch") && argc == 4)
		return watch(argv[2], new_state(argv[2], strtoull(argv[3], NULL, 0)));
	if (!strcmp(command, "verify") && argc == 4)
		return verify(argv[2], map_state(argv[3], 0));
	if (!strcmp(command, "verify") && argc == 5)
		return verify(argv[2], new_state(argv[2], strtoull(argv[4], NULL, 0)));
	if (!strcmp(command, "count") && argc <= 4)
		return count(map_state(argv[2], 0), argc == 4);
	fputs("usage: load fill|run|watch|verify|count ...; the source says more\n", stderr);
	return 2;
}
