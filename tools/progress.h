/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* A bar on stderr, if that is a terminal. */
struct progress {
	uint64_t total;
	const char *what;	/* after the rate */
	double start, shown;	/* seconds */
	bool on;
};

void progress_start(struct progress *p, uint64_t total, const char *what);
void progress_at(struct progress *p, uint64_t done, uint64_t written);
/* Nothing, where no bar is shown any more. */
void progress_end(struct progress *p);

#endif /* PROGRESS_H */
