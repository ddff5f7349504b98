// SPDX-License-Identifier: GPL-2.0-or-later
#include "stamp.h"

#include <string.h>

#define MAGIC 0x706d617473726373ull
#define WORDS (SECTOR / 8)

static uint64_t next_word(uint64_t w)
{
	return w * 6364136223846793005ull + 1442695040888963407ull;
}

void stamp_make(void *buf, uint64_t sector, uint64_t version)
{
	uint64_t words[WORDS];
	unsigned int i;

	words[0] = MAGIC;
	words[1] = sector;
	words[2] = version;
	words[3] = next_word(sector * 0x9e3779b97f4a7c15ull ^ version);
	for (i = 4; i < WORDS; i++)
		words[i] = next_word(words[i - 1]);
	memcpy(buf, words, sizeof(words));
}

void stamp_make_run(void *buf, uint64_t sector, uint64_t count,
		    uint64_t version)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		stamp_make((char *)buf + i * SECTOR, sector + i, version);
}

enum stamp_kind stamp_read(const void *buf, uint64_t *sector,
			   uint64_t *version)
{
	static const char zeroes[SECTOR];
	uint64_t words[3];
	char want[SECTOR];

	memcpy(words, buf, sizeof(words));
	if (words[0] != MAGIC)
		return memcmp(buf, zeroes, SECTOR) ? STAMP_BAD : STAMP_ZERO;
	*sector = words[1];
	*version = words[2];
	stamp_make(want, *sector, *version);
	return memcmp(buf, want, SECTOR) ? STAMP_BAD : STAMP_GOOD;
}
