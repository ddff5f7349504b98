// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * crowd FORMAT IMAGE STRIDE: a question each STRIDE bytes, all at once,
 * with the smallest cache that there is. Each is answered, within a minute, or it fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libcow/cow.h>

#define MAX_QUESTIONS	4096
#define TIMEOUT_MS	60000

static struct cow_request questions[MAX_QUESTIONS];
static unsigned int nr_left;
static int failed;

static void answered(struct cow_request *req, int status)
{
	if (status)
		fprintf(stderr, "crowd: block %" PRIu64 ": %s\n", req->first,
			strerror(-status));
	failed |= status;
	nr_left--;
}

static void ask(struct cow_chain *chain, uint64_t stride)
{
	struct cow_chain_info info;
	uint64_t at;

	cow_chain_info(chain, &info);
	for (at = 0; at < info.size && nr_left < MAX_QUESTIONS; at += stride) {
		questions[nr_left] = (struct cow_request){
			.op = COW_OP_MAP,
			.first = at / info.block_size,
			.count = 1,
			.done = answered,
		};
		nr_left++;
	}
}

/* All are counted before the first is asked: one may be answered at once. */
static void submit(struct cow_chain *chain)
{
	unsigned int i, n = nr_left;

	for (i = 0; i < n; i++)
		cow_submit(chain, &questions[i]);
}

static int wait_for_all(struct cow_chain *chain)
{
	struct pollfd p = { .fd = cow_event_fd(chain), .events = POLLIN };

	while (nr_left) {
		if (poll(&p, 1, TIMEOUT_MS) <= 0) {
			fprintf(stderr, "crowd: %u questions wait for ever\n", nr_left);
			return 1;
		}
		cow_dispatch(chain);
	}
	return !!failed;
}

int main(int argc, char **argv)
{
	struct cow_open_params p = COW_OPEN_PARAMS_INIT;
	struct cow_plugins *plugins;
	struct cow_chain *chain;

	if (argc != 4)
		return 2;
	if (cow_plugins_new(NULL, NULL, NULL, &plugins))
		return 1;
	p.plugins = plugins;
	p.format = argv[1];
	p.path = argv[2];
	p.flags = COW_OPEN_WRITE;
	p.cache_bytes = 1;
	if (cow_chain_open(&p, &chain))
		return 1;
	ask(chain, strtoull(argv[3], NULL, 10));
	if (nr_left < 2)
		return 2;	/* no crowd */
	submit(chain);
	if (wait_for_all(chain))
		return 1;	/* what it waits for cannot be closed */
	cow_chain_close(chain);
	cow_plugins_free(plugins);
	return 0;
}
