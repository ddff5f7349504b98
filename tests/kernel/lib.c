// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The runner: each test in a process of its own, so that one that fails, or
 * hangs in the kernel, cannot spoil the next.  What it leaves is removed.
 */
#include "lib.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void (*before_test)(size_t i);
int test_limit_ms;
static size_t running;		/* index of the test */
static int result_fd = -1;	/* of the test: its verdict goes to the runner */

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

static int slow(void)
{
	const char *vm = getenv("DMU_VM");

	return vm && !strcmp(vm, "debug") ? 4 : 1;
}

int wait_limit_ms(void)
{
	return 30000 * slow();
}

/* The first verdict counts; '.' is good, '!' bad. */
static void verdict(char c, const char *text)
{
	char buf[700];
	int n = snprintf(buf, sizeof(buf), "%c%s\n", c, text);

	if (result_fd < 0) {
		fprintf(stderr, "%s\n", text);
		return;
	}
	if (n > (int)sizeof(buf))
		n = sizeof(buf);
	if (write(result_fd, buf, n) < 0)
		perror("verdict");
}

void fail_at(const char *file, int line, const char *fmt, ...)
{
	char text[500], all[600];
	const char *base = strrchr(file, '/');
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(all, sizeof(all), "%s:%d: %s", base ? base + 1 : file, line,
		 text);
	verdict('!', all);
	_exit(1);
}

int sh(const char *fmt, ...)
{
	char cmd[2000];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	r = system(cmd);
	return WIFEXITED(r) ? WEXITSTATUS(r) : 255;
}

/* random numbers: splitmix64 */

void rng_init(struct rng *r, uint64_t seed)
{
	r->s = seed;
}

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

bool rng_chance(struct rng *r, unsigned int percent)
{
	return rng_below(r, 100) < percent;
}

/* cleaning up */

/* Name of each dm device of the tests, in /sys; returns how many. */
static int for_each_dm(void (*fn)(const char *name))
{
	DIR *dir = opendir("/sys/block");
	struct dirent *e;
	int n = 0;

	while (dir && (e = readdir(dir))) {
		char path[300], name[128] = "";
		FILE *f;

		if (strncmp(e->d_name, "dm-", 3))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/dm/name", e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = '\0';
		fclose(f);
		if (strncmp(name, "dmut", 4))
			continue;
		n++;
		fn(name);
	}
	if (dir)
		closedir(dir);
	return n;
}

/* A gate that is shut goes first: what lies over it waits for its I/O. */
static void dm_open(const char *name)
{
	dm_resume(name);
}

static void dm_break(const char *name)
{
	if (dm_load(name, 1 << 20, "error", "", false))
		return;
	dm_suspend(name, DM_NOFLUSH | DM_NOLOCKFS);
	dm_resume(name);
}

/* Of all I/O that waits. */
static void let_go(void)
{
	for_each_dm(dm_open);
	for_each_dm(dm_break);
}

static void dm_remove_one(const char *name)
{
	dm_remove(name);
}

static bool clean_up(void)
{
	uint64_t end = now_ms() + wait_limit_ms();

	while (for_each_dm(dm_remove_one)) {
		if (now_ms() > end)
			return false;
		sleep_ms(10);
	}
	return true;
}

/* One test */

static void run_child(const struct test *t, int fd)
{
	result_fd = fd;
	signal(SIGPIPE, SIG_IGN);
	if (before_test)
		before_test(running);
	t->fn();
	verdict('.', "");
	_exit(0);
}

static void read_verdict(int fd, pid_t pid, int limit, char *buf, size_t len)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, limit) <= 0) {
		snprintf(buf, len, "!not done within %d seconds", limit / 1000);
		return;
	}
	n = read(fd, buf, len - 1);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (n <= 0)
		snprintf(buf, len, "!the test's process %d died", pid);
}

/* After the verdict the process has nothing to wait for. */
static bool reap(pid_t pid)
{
	uint64_t end = now_ms() + wait_limit_ms();

	while (!waitpid(pid, NULL, WNOHANG)) {
		if (now_ms() > end)
			return false;
		sleep_ms(5);
	}
	return true;
}

static char run_one(const struct test *t, char *why, size_t len, int limit)
{
	int fds[2];
	pid_t pid;

	fflush(stdout);
	if (pipe(fds))
		return '!';
	pid = fork();
	if (!pid) {
		close(fds[0]);
		run_child(t, fds[1]);
	}
	close(fds[1]);
	read_verdict(fds[0], pid, limit, why, len);
	close(fds[0]);
	kill(pid, *why == '!' ? SIGKILL : SIGCONT);
	if (*why == '!')
		let_go();
	if (!reap(pid)) {
		let_go();
		if (*why != '!')
			snprintf(why, len, "!its process did not end");
		kill(pid, SIGKILL);
		reap(pid);
	}
	if (!clean_up() && *why != '!')
		snprintf(why, len, "!its devices cannot be removed");
	return *why;
}

static int usage(const struct test *tests, size_t n)
{
	size_t i;

	puts("usage: [--list] [--repeat N] [TEST...]");
	for (i = 0; i < n; i++)
		puts(tests[i].name);
	return 0;
}

/* A name, or the beginning of one with '*' behind. */
static bool chosen(const char *name, int argc, char **argv)
{
	int i;

	if (!argc)
		return true;
	for (i = 0; i < argc; i++) {
		size_t len = strlen(argv[i]);

		if (!strcmp(name, argv[i]) ||
		    (len && argv[i][len - 1] == '*' &&
		     !strncmp(name, argv[i], len - 1)))
			return true;
	}
	return false;
}

static char report(const struct test *t, unsigned int nr, int limit)
{
	uint64_t start = now_ms(), took;
	char why[700];
	char c = run_one(t, why, sizeof(why), limit);

	took = now_ms() - start;
	printf("%s %u - %s%s%s", c == '!' ? "not ok" : "ok", nr, t->name,
	       c == '!' ? ": " : "", c == '.' ? "" : why + 1);
	if (took >= 2000)
		printf(" (%llu s)", (unsigned long long)took / 1000);
	putchar('\n');
	return c;
}

int run_tests(const struct test *tests, size_t n, int argc, char **argv)
{
	unsigned int nr = 0, bad = 0, repeat = 1;
	int limit = (test_limit_ms ?: 240000) * slow();
	size_t i;

	argc--;
	argv++;
	if (argc && (!strcmp(*argv, "--list") || !strcmp(*argv, "--help")))
		return usage(tests, n);
	if (argc > 1 && !strcmp(*argv, "--repeat")) {
		repeat = atoi(argv[1]);
		argc -= 2;
		argv += 2;
	}
	for (i = 0; i < n * repeat; i++) {
		const struct test *t = &tests[i % n];
		char c;

		if (!chosen(t->name, argc, argv))
			continue;
		running = i % n;
		c = report(t, ++nr, limit);
		bad += c == '!';
	}
	printf("1..%u\n", nr);
	if (!nr)
		printf("# no such test\n");
	if (bad)
		printf("# %u of %u failed\n", bad, nr);
	return bad || !nr;
}
