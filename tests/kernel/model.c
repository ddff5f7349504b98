// SPDX-License-Identifier: GPL-2.0-or-later
/* The model test: set-up, disturbances, and the end.  See model.h. */
#include "model.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct options opt = {
	.seconds = 20, .bs = 8, .sectors = 2003, .threads = 4,
};
struct disk *disk;
struct dev *places[NR_PLACES], *base_dev;
static struct rng rng;

/* Some devices are slow, so that what is under way can be met. */
static const char *slowed(struct dev *dev, const char *name, unsigned int ms)
{
	char params[100], *path = malloc(40);
	int err;

	check(path, "no memory");
	if (!ms)
		return dev->path;
	sh("modprobe -q dm-delay");
	err = dm_create(name, NULL);
	check(!err, "%s: %s", name, strerror(err));
	snprintf(params, sizeof(params), "%s 0 %u", dev->path, ms);
	err = dm_load(name, dev->sectors, "delay", params, false) ?:
	      dm_resume(name);
	check(!err, "dm-delay: %s", strerror(err));
	return dm_path(name, path, 40);
}

static void set_up(void)
{
	static const char *const names[] = { "dmut-slow0", "dmut-slow1" };
	struct disk want = { .sectors = opt.sectors, .bs = opt.bs };
	uint64_t blocks = (opt.sectors + opt.bs - 1) / opt.bs, s;
	int i;

	for (i = 0; i < NR_PLACES; i++) {
		places[i] = dev_new(PLACE_SHIFT +
				    (blocks + blocks / 2 + 80) * opt.bs + 1);
		dev_fill(places[i], 99);	/* what nobody may ever see */
		want.devs[i] = slowed(places[i], names[i],
				      opt.seed % 4 == 1 + (unsigned int)i ?
				      1 + rng_below(&rng, 12) : 0);
	}
	base_dev = dev_new(BASE_SHIFT + blocks * opt.bs);
	for (s = 0; s < opt.sectors; s++)
		base_sector((uint64_t *)(base_dev->data +
					 (BASE_SHIFT + s) * SECTOR), s, false);
	want.devs[BASE_DEV] = slowed(base_dev, "dmut-slow2", opt.seed % 4 == 3 ?
				     1 + rng_below(&rng, 12) : 0);
	disk = disk_new(&want);
	daemon_init();
	contents_init();
}

/* --- disturbances -------------------------------------------------------------------- */

static void new_daemon(void)
{
	daemon_kill();
	if (rng_chance(&rng, 30))
		sleep_ms(rng_below(&rng, 200));
	if (rng_chance(&rng, 20))
		crash_check();
	daemon_start();
}

static void suspended(int flags)
{
	int err = dm_suspend(disk->name, flags | DM_NOLOCKFS);

	check(!err, "suspend: %s", strerror(err));
	if (rng_chance(&rng, 30)) {
		err = disk_reload(disk);
		check(!err, "load: %s", strerror(err));
	}
	if (rng_chance(&rng, 20)) {
		daemon_kill();
		daemon_start();
	}
	sleep_ms(rng_below(&rng, 50));
	err = dm_resume(disk->name);
	check(!err, "resume: %s", strerror(err));
}

static void message(const char *text)
{
	int err = dm_message(disk->name, "%s", text);

	check(!err, "message %s: %s", text, strerror(err));
}

static void budget(void)
{
	static const char *const sizes[] = {
		"map_memory 1", "map_memory 4", "map_memory 65536",
		"map_memory 65536",
	};

	message(sizes[rng_below(&rng, ARRAY_SIZE(sizes))]);
	sleep_ms(rng_below(&rng, 30));
	if (rng_chance(&rng, 80))
		message(sizes[2]);
}

static void disturb(void)
{
	switch (rng_below(&rng, 12)) {
	case 0:
	case 1:
		new_daemon();
		break;
	case 2:
		suspended(DM_NOFLUSH);
		break;
	case 3:
		suspended(0);
		break;
	case 4:
	case 5:
		message("evict");
		break;
	case 6:
		budget();
		break;
	case 7:
	case 8:
		crash_check();
		break;
	default:
		break;
	}
}

static void numbers(void)
{
	char text[1000];

	disk_status_text(disk, text, sizeof(text));
	printf("# seed %llu: %llu operations\n# %s\n",
	       (unsigned long long)opt.seed,
	       (unsigned long long)contents_ops(), text);
	daemon_numbers();
	fflush(stdout);
}

/* --- the end --------------------------------------------------------------------------- */

/* Everything again from the metadata, in a kernel that knows nothing. */
static void restart(void)
{
	struct disk want = *disk;
	int err;

	daemon_kill();
	message("policy fail");
	close(disk->fd);
	err = dm_remove(disk->name);
	check(!err, "remove: %s", strerror(err));
	crash_check();
	free(disk);
	disk = disk_new(&want);
	daemon_start();
	contents_verify();
	daemon_kill();
}

static bool time_over(uint64_t end)
{
	return opt.ops ? contents_ops() >= opt.ops : now_ms() >= end;
}

static void model(void)
{
	uint64_t end = now_ms() + opt.seconds * 1000ULL;
	int err;

	rng_init(&rng, opt.seed);
	set_up();
	daemon_start();
	contents_start();
	while (!time_over(end)) {
		sleep_ms(1 + rng_below(&rng, 60));
		if (!opt.calm)
			disturb();
		if (contents_stuck()) {
			numbers();
			fail("I/O is stuck, seed %llu",
			     (unsigned long long)opt.seed);
		}
	}
	contents_stop();
	numbers();
	contents_verify();
	crash_check();
	do {
		err = io_sync(disk->fd, IO_FLUSH, 0, 0, NULL);
	} while (err == EIO);	/* refused on purpose */
	check(!err, "last flush: %s", strerror(err));
	check(contents_ops(), "no operation was done");
	restart();
	daemon_worked();
}

static const struct option long_options[] = {
	{ "seed", required_argument, NULL, 's' },
	{ "seconds", required_argument, NULL, 't' },
	{ "ops", required_argument, NULL, 'o' },
	{ "block-size", required_argument, NULL, 'b' },
	{ "sectors", required_argument, NULL, 'n' },
	{ "threads", required_argument, NULL, 'j' },
	{ "calm", no_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int help(int r)
{
	puts("usage: model [--seed N] [--seconds N | --ops N] [--block-size BYTES]\n"
	     "             [--sectors N] [--threads N] [--calm]\n"
	     "--calm: one daemon, no suspend, no eviction");
	return r;
}

int main(int argc, char **argv)
{
	static const struct test test = { "model", model };
	char *self[] = { argv[0], NULL };
	int c, r;

	opt.seed = now_ms() * 31 + getpid();
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's': opt.seed = strtoull(optarg, NULL, 0); break;
		case 't': opt.seconds = atoi(optarg); break;
		case 'o': opt.ops = strtoull(optarg, NULL, 0); break;
		case 'b': opt.bs = atoi(optarg) / SECTOR; break;
		case 'n': opt.sectors = strtoull(optarg, NULL, 0); break;
		case 'j': opt.threads = atoi(optarg); break;
		case 'c': opt.calm = true; break;
		default: return help(c != 'h');
		}
	}
	if (optind < argc || !opt.bs || !opt.sectors || !opt.threads ||
	    opt.threads > 16)
		return help(2);
	printf("# model --seed %llu --block-size %llu --sectors %llu --threads %u%s\n",
	       (unsigned long long)opt.seed, opt.bs * SECTOR,
	       (unsigned long long)opt.sectors, opt.threads,
	       opt.calm ? " --calm" : "");
	test_limit_ms = (opt.seconds + 200) * 1000 * (opt.ops ? 10 : 1);
	r = run_tests(&test, 1, 1, self);
	return r;
}
