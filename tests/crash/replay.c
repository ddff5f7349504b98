// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay - what a power cut may leave, from a log of dm-log-writes.
 *
 *	replay --log LOG --state FILE --size BYTES [OPTION...] COMMAND
 *
 * A cut after an entry of the log that makes something durable (a flush, a
 * FUA write, a mark) leaves all before it, and of the writes from there to
 * the next flush any part: a volatile cache writes back what it likes.  A FUA
 * write ends them too: the log has it before plain writes that were done
 * earlier, but also before those that were begun when it was durable.  For
 * each such point FILE is made what the device would hold, first with none
 * of those writes and then --between times with a random part of them; and
 * COMMAND, started once, is given the line "FLOOR CEILING": the last mark
 * before the cut, and the first one that had not been set when the last of
 * those writes was done.  It answers "ok NUMBER" or tells what is wrong.
 *
 * COMMAND may write to FILE; with --pure it does not, which is faster.
 *
 * With --last-mark that mark is the last one in the log: dm-log-writes without
 * room for more goes on without a log.
 */
#include "die.h"
#include "log.h"
#include "peer.h"
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK 65536u
#define MAX_PARTS 4

/* How the cache lost its contents. */
enum loss {
	LOSS_ALL,	/* nothing volatile got through */
	LOSS_NONE,
	LOSS_PART,	/* each unit by chance */
	LOSS_TAIL,	/* the first ones got through */
	LOSS_HEAD,	/* the last ones did */
};

struct replay {
	struct log log;
	struct peer peer;
	uint64_t size, seed, between, max_points;
	uint64_t last_mark;	/* UINT64_MAX: any */
	uint32_t tear;		/* bytes that are written as a whole */
	bool pure, verbose;
	uint8_t *durable;	/* the device as it is for certain */
	uint8_t *want;		/* ... with some volatile writes */
	uint8_t *state;		/* FILE, mapped */
	uint64_t applied;	/* entries in durable */
	struct chance chance;
	/* Figures. */
	uint64_t points, cuts, sectors, failures;
};

/* --- Entries -------------------------------------------------------------- */

static bool is_mark(const struct log_item *it, uint64_t *nr)
{
	char *end;

	if (!(it->flags & LOG_MARK) || it->mark[0] != 'm')
		return false;
	*nr = strtoull(it->mark + 1, &end, 10);
	return !*end && end != it->mark + 1;
}

/* After it something is certain that was not before. */
static bool is_point(const struct log_item *it)
{
	return it->flags & (LOG_FLUSH | LOG_FUA | LOG_MARK);
}

static void check_item(const struct replay *r, const struct log_item *it)
{
	if (it->offset > r->size || it->len > r->size - it->offset)
		die("an entry leaves the device: %" PRIu64 " bytes at %" PRIu64,
		    it->len, it->offset);
}

static void load_item(const struct replay *r, const struct log_item *it,
		      uint8_t *to)
{
	check_item(r, it);
	if (it->data)
		log_read(&r->log, to, it->len, it->data);
	else
		memset(to, 0, it->len);
}

static void apply(struct replay *r, uint8_t *to, const struct log_item *it)
{
	if (it->len)
		load_item(r, it, to + it->offset);
}

/* --- Part of the volatile writes ------------------------------------------ */

/* The entries after a point that are volatile there: [from, end). */
static uint64_t window_end(const struct replay *r, uint64_t from)
{
	while (from < r->log.nr &&
	       !(r->log.items[from].flags & (LOG_FLUSH | LOG_FUA)))
		from++;
	return from;
}

static void apply_part(struct replay *r, const struct log_item *it,
		       unsigned int percent, uint32_t unit)
{
	uint8_t *data = xcalloc(1, it->len);
	uint64_t at, n;

	load_item(r, it, data);
	for (at = 0; at < it->len; at += n) {
		n = it->len - at < unit ? it->len - at : unit;
		if (chance_below(&r->chance, 100) < percent)
			memcpy(r->want + it->offset + at, data + at, n);
	}
	free(data);
}

static uint32_t any_unit(struct replay *r)
{
	return chance_below(&r->chance, 2) ? r->tear : UINT32_MAX;
}

static void apply_window(struct replay *r, uint64_t from, uint64_t end,
			 enum loss loss)
{
	static const unsigned int percents[] = { 10, 50, 90 };
	unsigned int percent = percents[chance_below(&r->chance, 3)];
	uint64_t split = from + chance_below(&r->chance, end - from + 1);
	uint32_t unit = any_unit(r);
	uint64_t i;

	for (i = from; i < end; i++) {
		const struct log_item *it = &r->log.items[i];

		if (!it->len)
			continue;
		if (loss == LOSS_PART)
			apply_part(r, it, percent, unit);
		else if (loss == LOSS_NONE || (loss == LOSS_TAIL && i < split) ||
			 (loss == LOSS_HEAD && i >= split))
			apply_part(r, it, 100, UINT32_MAX);
	}
}

/* --- The file ------------------------------------------------------------- */

/* FILE becomes want, but only where it differs: that keeps it sparse. */
static void put_state(struct replay *r)
{
	uint64_t at, n;

	for (at = 0; at < r->size; at += n) {
		n = r->size - at < CHUNK ? r->size - at : CHUNK;
		if (memcmp(r->state + at, r->want + at, n))
			memcpy(r->state + at, r->want + at, n);
	}
}

static void reset_window(struct replay *r, uint64_t from, uint64_t end)
{
	uint64_t i;

	for (i = from; i < end; i++) {
		const struct log_item *it = &r->log.items[i];

		memcpy(r->want + it->offset, r->durable + it->offset, it->len);
	}
}

static void copy_window(struct replay *r, uint64_t from, uint64_t end)
{
	uint64_t i;

	for (i = from; i < end; i++) {
		const struct log_item *it = &r->log.items[i];

		memcpy(r->state + it->offset, r->want + it->offset, it->len);
	}
}

/* --- Cuts ----------------------------------------------------------------- */

static const char *const loss_names[] = {
	[LOSS_ALL] = "all", [LOSS_NONE] = "nothing", [LOSS_PART] = "a part",
	[LOSS_TAIL] = "the last", [LOSS_HEAD] = "the first",
};

static void ask(struct replay *r, uint64_t point, enum loss loss,
		uint64_t floor, uint64_t ceiling)
{
	char question[64];
	const char *a;
	uint64_t n;

	snprintf(question, sizeof(question), "%" PRIu64 " %" PRIu64, floor,
		 ceiling);
	a = peer_ask(&r->peer, question);
	if (!a)
		die("cut after entry %" PRIu64 ": the check ended", point);
	r->cuts++;
	if (sscanf(a, "ok %" SCNu64, &n) == 1) {
		r->sectors += n;
		if (r->verbose)
			printf("cut after entry %" PRIu64 ", mark m%" PRIu64 ": %s\n",
			       point, floor, a);
		return;
	}
	printf("FAIL: cut after entry %" PRIu64 " of %" PRIu64
	       " (mark m%" PRIu64 " passed), with %s of the later writes lost, seed %" PRIu64 ": %s\n",
	       point, r->log.nr, floor, loss_names[loss], r->seed, a);
	fflush(stdout);
	r->failures++;
}

static uint64_t next_mark(const struct replay *r, uint64_t i)
{
	uint64_t nr;

	for (; i < r->log.nr; i++)
		if (is_mark(&r->log.items[i], &nr))
			return nr;
	return UINT64_MAX;
}

static void cut(struct replay *r, uint64_t point, uint64_t floor,
		enum loss loss)
{
	uint64_t from = point + 1, end = window_end(r, from);

	if (loss == LOSS_ALL)
		end = from;
	apply_window(r, from, end, loss);
	if (r->pure)
		copy_window(r, from, end);
	else
		put_state(r);
	ask(r, point, loss, floor, next_mark(r, end));
	reset_window(r, from, end);
	if (r->pure)
		copy_window(r, from, end);
}

static bool has_writes(const struct replay *r, uint64_t from, uint64_t end)
{
	for (; from < end; from++)
		if (r->log.items[from].len)
			return true;
	return false;
}

static void point(struct replay *r, uint64_t i, uint64_t floor)
{
	uint64_t n;

	r->points++;
	cut(r, i, floor, LOSS_ALL);
	if (!has_writes(r, i + 1, window_end(r, i + 1)))
		return;
	for (n = 0; n < r->between; n++)
		cut(r, i, floor, chance_below(&r->chance, 2) ? LOSS_PART :
		    LOSS_NONE + (enum loss)chance_below(&r->chance, 4));
}

/* --- All of it ------------------------------------------------------------ */

/* Entries up to and with @i are durable now. */
static void advance(struct replay *r, uint64_t i)
{
	for (; r->applied <= i; r->applied++) {
		const struct log_item *it = &r->log.items[r->applied];

		apply(r, r->durable, it);
		apply(r, r->want, it);
		if (r->pure)
			apply(r, r->state, it);
	}
}

static uint64_t count_points(const struct replay *r, uint64_t from)
{
	uint64_t n = 0;

	for (; from < r->log.nr; from++)
		n += is_point(&r->log.items[from]);
	return n;
}

static uint64_t find_start(const struct replay *r)
{
	uint64_t i, nr;

	for (i = 0; i < r->log.nr; i++)
		if (is_mark(&r->log.items[i], &nr) && nr == 0)
			return i;
	die("the mark m0 is not in the log");
}

static void check_end(const struct replay *r)
{
	uint64_t i, last = 0;

	for (i = 0; i < r->log.nr; i++)
		is_mark(&r->log.items[i], &last);
	if (r->last_mark != UINT64_MAX && last != r->last_mark)
		die("the last mark in the log is m%" PRIu64 ", not m%" PRIu64,
		    last, r->last_mark);
}

static void run(struct replay *r)
{
	uint64_t start = find_start(r), floor = 0, i;
	uint64_t left = count_points(r, start), take = r->max_points;

	printf("replay: %" PRIu64 " entries, %" PRIu64 " points\n", r->log.nr,
	       left);
	for (i = start; i < r->log.nr && r->failures < 5; i++) {
		const struct log_item *it = &r->log.items[i];

		if (!is_point(it))
			continue;
		is_mark(it, &floor);
		advance(r, i);
		/* Each with the same chance, and as many as were wanted. */
		if (!r->max_points || chance_below(&r->chance, left) < take) {
			point(r, i, floor);
			take -= r->max_points != 0;
		}
		left--;
	}
}

/* At this place if it is not NULL. */
static uint8_t *map_state(uint8_t *at, const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	void *p;

	if (fd < 0 || ftruncate(fd, (off_t)size))
		die_errno(path);
	p = mmap(at, size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
	if (p == MAP_FAILED)
		die_errno(path);
	close(fd);
	return p;
}

/* A device that is several files one after the other, LOG_PART for each. */
static void map_parts(struct replay *r, const char *state, char **parts,
		      unsigned int nr)
{
	uint64_t first = r->size;
	unsigned int i;
	char *size;

	r->size = (uint64_t)(nr + 1) * LOG_PART;
	r->state = mmap(NULL, r->size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->state == MAP_FAILED)
		die_errno("mmap");
	map_state(r->state, state, first);
	for (i = 0; i < nr; i++) {
		size = strchr(parts[i], ':');
		if (!size)
			die("--part wants FILE:BYTES");
		*size++ = '\0';
		map_state(r->state + (uint64_t)(i + 1) * LOG_PART, parts[i],
			  number(size, "--part"));
	}
}

static void load_initial(struct replay *r, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	uint64_t at;

	if (fd < 0)
		die_errno(path);
	for (at = 0; at < r->size; at += (uint64_t)n) {
		n = read(fd, r->durable + at, r->size - at);
		if (n < 0)
			die_errno(path);
		if (!n)
			break;
	}
	close(fd);
	memcpy(r->want, r->durable, r->size);
	put_state(r);
}

static const struct option options[] = {
	{ "log", required_argument, NULL, 'l' },
	{ "state", required_argument, NULL, 's' },
	{ "size", required_argument, NULL, 'S' },
	{ "part", required_argument, NULL, 'P' },
	{ "seed", required_argument, NULL, 'e' },
	{ "between", required_argument, NULL, 'b' },
	{ "points", required_argument, NULL, 'n' },
	{ "tear", required_argument, NULL, 't' },
	{ "initial", required_argument, NULL, 'i' },
	{ "last-mark", required_argument, NULL, 'm' },
	{ "pure", no_argument, NULL, 'p' },
	{ "verbose", no_argument, NULL, 'v' },
	{ 0 }
};

static void usage(void)
{
	fputs("usage: replay --log LOG --state FILE --size BYTES [OPTION...] COMMAND\n"
	      "  --between N   cuts with a part of the volatile writes, for each point\n"
	      "  --points N    so many points by chance instead of all\n"
	      "  --tear BYTES  unit in which a write is torn (512)\n"
	      "  --initial FILE  what the device held when the log began (zeroes)\n"
	      "  --last-mark N  the log ends after this mark, or is not all of it\n"
	      "  --part FILE:BYTES  a further file of the same image\n"
	      "  --pure        the command does not write to FILE\n"
	      "  --seed N, --verbose\n", stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	struct replay r = { .seed = 1, .between = 2, .tear = SECTOR,
			    .last_mark = UINT64_MAX };
	const char *log = NULL, *state = NULL, *initial = NULL;
	unsigned int nr_parts = 0;
	char *parts[MAX_PARTS];
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'l': log = optarg; break;
		case 's': state = optarg; break;
		case 'S': r.size = number(optarg, "--size"); break;
		case 'P':
			if (nr_parts == MAX_PARTS)
				usage();
			parts[nr_parts++] = optarg;
			break;
		case 'e': r.seed = number(optarg, "--seed"); break;
		case 'b': r.between = number(optarg, "--between"); break;
		case 'n': r.max_points = number(optarg, "--points"); break;
		case 't': r.tear = (uint32_t)number(optarg, "--tear"); break;
		case 'i': initial = optarg; break;
		case 'm': r.last_mark = number(optarg, "--last-mark"); break;
		case 'p': r.pure = true; break;
		case 'v': r.verbose = true; break;
		default: usage();
		}
	}
	if (!log || !state || !r.size || !r.tear || optind + 1 != argc)
		usage();
	chance_seed(&r.chance, r.seed);
	log_open(&r.log, log);
	check_end(&r);
	if (nr_parts)
		map_parts(&r, state, parts, nr_parts);
	else
		r.state = map_state(NULL, state, r.size);
	r.durable = xcalloc(1, r.size);
	r.want = xcalloc(1, r.size);
	if (initial)
		load_initial(&r, initial);
	peer_start(&r.peer, argv[optind]);
	run(&r);
	if (peer_end(&r.peer))
		r.failures++;
	printf("replay: seed %" PRIu64 ": %" PRIu64 " points, %" PRIu64
	       " cuts, %" PRIu64 " sectors compared, %" PRIu64 " failures\n",
	       r.seed, r.points, r.cuts, r.sectors, r.failures);
	return r.failures || !r.cuts ? 1 : 0;
}
