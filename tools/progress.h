/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* A bar on stderr, if that is a terminal. */
struct progress {
	uint64_t total;
	double start, shown;	/* seconds */
	bool on;
};

void progress_start(struct progress *p, uint64_t total);
void progress_at(struct progress *p, uint64_t done, uint64_t written);
void progress_end(struct progress *p);

#endif /* PROGRESS_H */
