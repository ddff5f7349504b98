// SPDX-License-Identifier: GPL-2.0-or-later
#include "image-io.h"

static uint64_t state;

void chance_seed(uint64_t seed)
{
	state = seed * 0x9e3779b97f4a7c15ull + 1;
}

uint64_t chance(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state * 0x2545f4914f6cdd1dull >> 16) % below;
}

/* One fill in four is of one byte: what compresses well is met as well. */
void chance_fill(void *buf, uint64_t len)
{
	uint64_t n = chance(UINT32_MAX), i;
	bool flat = chance(4) == 0;
	uint8_t *p = buf;

	for (i = 0; i < len; i++) {
		if (!flat)
			n = n * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(n >> (flat ? 8 : 56));
	}
}
