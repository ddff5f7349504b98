// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress.h"

#include <common/size.h>

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define WIDTH 40

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void progress_start(struct progress *p, uint64_t total, const char *what)
{
	p->on = isatty(STDERR_FILENO);
	p->total = total;
	p->what = what;
	p->start = now();
	p->shown = 0;
}

static void show(struct progress *p, uint64_t done, uint64_t written)
{
	char rate[SIZE_TEXT_MAX], bar[WIDTH + 1];
	double seconds = now() - p->start;
	double part = p->total ? (double)done / (double)p->total : 1;
	int i;

	for (i = 0; i < WIDTH; i++)
		bar[i] = i < (int)(part * WIDTH) ? '#' : '.';
	bar[WIDTH] = 0;
	size_text((uint64_t)((double)written / (seconds > 0.01 ? seconds :
							       0.01)), rate);
	fprintf(stderr, "\r[%s] %3d%%  %s/s%s    ", bar, (int)(part * 100),
		rate, p->what);
	fflush(stderr);
}

/* At most ten times a second. */
void progress_at(struct progress *p, uint64_t done, uint64_t written)
{
	if (!p->on || (done < p->total && now() - p->shown < 0.1))
		return;
	p->shown = now();
	show(p, done, written);
}

void progress_end(struct progress *p)
{
	if (p->on)
		fputc('\n', stderr);
	p->on = false;
}
