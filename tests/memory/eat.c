// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * eat MIB ROUNDS: uses so much memory, each page with a stamp, and verifies
 * every page in every round.  With more than the machine has, it swaps.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE		4096u
#define WORDS		(PAGE / 8)
#define THREADS		2u
#define STEP		7919u	/* a prime: another order of pages */

static uint64_t nr_pages, rounds;
static uint64_t *memory;

static uint64_t stamp(uint64_t page, uint64_t round, unsigned int word)
{
	return (page * 0x9e3779b97f4a7c15ull) ^ (round << 32) ^ word;
}

static void fill(uint64_t page, uint64_t round)
{
	uint64_t *p = memory + page * WORDS;
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		p[i] = stamp(page, round, i);
}

static void verify(uint64_t page, uint64_t round)
{
	const uint64_t *p = memory + page * WORDS;
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		if (p[i] == stamp(page, round, i))
			continue;
		fprintf(stderr, "eat: page %" PRIu64 " word %u in round %" PRIu64 ": %" PRIx64 "\n",
			page, i, round, p[i]);
		exit(1);
	}
}

/* Odd rounds go up, even ones jump, so that swap is read at random. */
static uint64_t place(uint64_t i, uint64_t n, uint64_t round)
{
	return round % 2 || n % STEP == 0 ? i : i * STEP % n;
}

static void *work(void *arg)
{
	uint64_t n = nr_pages / THREADS, first = (uintptr_t)arg * n;
	uint64_t round, i, page;

	for (i = 0; i < n; i++)
		fill(first + i, 0);
	for (round = 1; round <= rounds; round++)
		for (i = 0; i < n; i++) {
			page = first + place(i, n, round);
			verify(page, round - 1);
			fill(page, round);
		}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	uintptr_t i;

	if (argc != 3)
		return 2;
	nr_pages = strtoull(argv[1], NULL, 0) * 256;
	rounds = strtoull(argv[2], NULL, 0);
	memory = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		perror("eat: mmap");
		return 1;
	}
	madvise(memory, nr_pages * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			return 1;
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("eat: %" PRIu64 " pages right in each of %" PRIu64 " rounds\n",
	       nr_pages / THREADS * THREADS, rounds);
	return 0;
}
