// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * toy.c - an image format that exists to test libcow with, built outside of
 * the tree against the installed header.  It needs what dscow does not:
 * clusters allocated anywhere and freed again, two kinds of tables in two
 * phases, blocks whose bytes do not stand in the file as they are.
 *
 * File: a header; references, one byte a cluster (phase 0); the map, one
 * 64-bit entry a block (phase 1); clusters of one block each.  Entry: 0 is
 * the backing image, else a cluster number + 1, with flags.
 *
 * Write order: a reference is durable before the entry that needs it.  An
 * entry is durable before the reference that it gave up is cleared: that is
 * put off to the next commit, which follows by itself, and the cluster is used
 * again after that one.
 * A crash so leaks clusters at most.
 */
#include <libcow/cow-plugin.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE 4096u
#define ENTRIES (TABLE / 8)
#define RUN 8u				/* what one change may be about */
#define FLAG_ZERO (1ull << 63)		/* reads as zeroes, no cluster */
#define FLAG_XOR (1ull << 62)		/* every byte is inverted */
#define CLUSTER(entry) (((entry) & ~(FLAG_ZERO | FLAG_XOR)) - 1)

struct header {
	char magic[8];
	uint64_t size, blocks, clusters, map_offset, data_offset;
	uint32_t block_size;
	uint32_t in_use;	/* is being written: durable before a write */
	char backing_path[1024], backing_format[32];
};

/* What a cluster is doing; the references tell the rest. */
enum { IDLE, GIVEN, FREED, COMMITTING, FREED_COMMITTED, CLEARED };

struct toy {
	struct cow_image *img;
	struct header h;
	bool writable;
	enum { UNMARKED, MARKING, MARKED } mark;	/* of in_use */
	uint8_t *use;		/* a cluster */
	uint64_t *pending;	/* a block: cluster + 1 given for it, or 0 */
	uint64_t next;		/* cluster to look at next */
	const char *ahead;	/* each question expects a table that is not there */
};

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint64_t place(const struct toy *t, uint64_t cluster)
{
	return t->h.data_offset + cluster * t->h.block_size;
}

/* --- Tables --------------------------------------------------------------- */

static int get_ref(struct toy *t, uint64_t cluster, bool write,
		   struct cow_table **table, uint8_t **ref)
{
	uint64_t offset = TABLE + cluster / TABLE * TABLE;
	int ret;

	ret = write ? cow_table_get_write(t->img, 0, offset, TABLE, 0, table) :
		      cow_table_get(t->img, 0, offset, TABLE, table);
	if (!ret)
		*ref = (uint8_t *)cow_table_data(*table) + cluster % TABLE;
	return ret;
}

static int get_entry(struct toy *t, uint64_t block, bool write,
		     struct cow_table **table, uint64_t **entry)
{
	uint64_t offset = t->h.map_offset + block / ENTRIES * TABLE;
	int ret;

	ret = write ? cow_table_get_write(t->img, 0, offset, TABLE, 1, table) :
		      cow_table_get(t->img, 0, offset, TABLE, table);
	if (!ret)
		*entry = (uint64_t *)cow_table_data(*table) + block % ENTRIES;
	return ret;
}

static void dirty(struct cow_table *table, const void *at, uint32_t len)
{
	const char *start = cow_table_data(table);

	cow_table_dirty(table, (uint32_t)((const char *)at - start), len);
}

/* --- In use --------------------------------------------------------------- */

/* Nothing is written before the header says so, durably. */
static int mark(struct toy *t)
{
	struct cow_table *table;
	struct header *h;
	int ret;

	if (t->mark == MARKED)
		return 0;
	ret = cow_table_get_write(t->img, 0, 0, TABLE, 0, &table);
	if (ret)
		return ret;
	h = cow_table_data(table);
	h->in_use = 1;
	dirty(table, &h->in_use, sizeof(h->in_use));
	t->mark = MARKING;
	return cow_commit_first(t->img);
}

static int toy_finish(void *handle)
{
	struct toy *t = handle;

	t->h.in_use = 0;
	return cow_write(t->img, 0, &t->h, sizeof(t->h), 0);
}

/* --- Map ------------------------------------------------------------------ */

static int find_free(struct toy *t, uint64_t *cluster)
{
	struct cow_table *table;
	uint64_t i;
	uint8_t *ref;
	int ret;

	for (i = 0; i < t->h.clusters; i++) {
		*cluster = (t->next + i) % t->h.clusters;
		if (t->use[*cluster] != IDLE)
			continue;
		ret = get_ref(t, *cluster, false, &table, &ref);
		if (ret)
			return ret;
		if (!*ref)
			return 0;
	}
	return cow_error(t->img, -ENOSPC, "has no cluster left");
}

static int give(struct toy *t, uint64_t block)
{
	uint64_t cluster = 0;
	int ret;

	if (t->pending[block])
		return 0;
	ret = find_free(t, &cluster);
	if (!ret)
		ret = cow_file_extend(t->img, 0, place(t, cluster + 1));
	if (ret)
		return ret;
	t->next = cluster + 1;
	t->use[cluster] = GIVEN;
	t->pending[block] = cluster + 1;
	return 0;
}

static int map_cow(struct toy *t, uint64_t block, uint64_t entry,
		   struct cow_mapping *m)
{
	int ret = give(t, block);

	if (ret)
		return ret;
	m->kind = COW_KIND_COW;
	m->offset = place(t, t->pending[block] - 1);
	if (entry & FLAG_ZERO)
		m->source = COW_SOURCE_ZERO;
	else if (entry & FLAG_XOR)
		m->source = COW_SOURCE_READ;
	m->cookie = entry;
	return 0;
}

/* Behind the end of the file: its read fails.  "new": it is made all the same. */
static int read_ahead(struct toy *t, uint64_t block)
{
	uint64_t far = round_up(place(t, 2 * t->h.clusters), TABLE);
	struct cow_table *table;

	cow_table_expect(t->img, 0, far + block * TABLE, TABLE);
	if (strcmp(t->ahead, "new"))
		return 0;
	return cow_table_new(t->img, 0, far + block * TABLE, TABLE, 0, &table);
}

static int toy_map(void *handle, const struct cow_query *q,
		   struct cow_mapping *m)
{
	struct toy *t = handle;
	struct cow_table *table;
	uint64_t *at, entry;
	int ret = 0;

	if (q->flags & COW_QUERY_WRITE)
		ret = mark(t);
	if (!ret && t->ahead)
		ret = read_ahead(t, q->first);
	if (!ret)
		ret = get_entry(t, q->first, false, &table, &at);
	if (ret)
		return ret;
	entry = *at;
	m->first = q->first;
	m->count = 1;
	if (entry && !(entry & (FLAG_ZERO | FLAG_XOR))) {
		m->kind = COW_KIND_LINEAR;
		m->flags = t->writable && t->mark == MARKED ?
			   COW_MAPPING_WRITABLE : 0;
		m->offset = place(t, CLUSTER(entry));
		return 0;
	}
	if (q->flags & COW_QUERY_WRITE)
		return map_cow(t, q->first, entry, m);
	m->kind = entry & FLAG_ZERO ? COW_KIND_ZERO :
		  entry & FLAG_XOR ? COW_KIND_READ : COW_KIND_BACKING;
	m->cookie = entry;
	return 0;
}

static int toy_read(void *handle, const struct cow_mapping *m, void *buf,
		    size_t len)
{
	struct toy *t = handle;
	uint8_t *p = buf;
	size_t i;
	int ret;

	ret = cow_read(t->img, 0, buf, len, place(t, CLUSTER(m->cookie)));
	for (i = 0; !ret && i < len; i++)
		p[i] ^= 0xff;
	return ret;
}

/* --- Changes -------------------------------------------------------------- */

static int check_run(struct toy *t, uint64_t first, uint64_t count)
{
	if (count && first / RUN == (first + count - 1) / RUN)
		return 0;
	return cow_error(t->img, -EINVAL, "a change of blocks %llu+%llu",
			 (unsigned long long)first, (unsigned long long)count);
}

static void give_up(struct toy *t, uint64_t entry)
{
	if (entry && !(entry & FLAG_ZERO))
		t->use[CLUSTER(entry)] = FREED;
}

static int toy_copied(void *handle, const struct cow_extent *e)
{
	struct toy *t = handle;
	uint64_t cluster = (e->offset - t->h.data_offset) / t->h.block_size;
	struct cow_table *map_table, *ref_table;
	uint64_t *entry, i;
	uint8_t *ref;
	int ret = check_run(t, e->first, e->count);

	for (i = 0; !ret && i < e->count; i++) {
		uint64_t block = e->first + i, c = cluster + i;

		if (e->file || e->offset < t->h.data_offset ||
		    (e->offset - t->h.data_offset) % t->h.block_size ||
		    c >= t->h.clusters)
			return cow_error(t->img, -EINVAL,
				"block %llu cannot stand at offset %llu",
				(unsigned long long)block,
				(unsigned long long)e->offset);
		ret = get_entry(t, block, true, &map_table, &entry);
		if (ret == 0 || ret == -EAGAIN) {
			int ret2 = get_ref(t, c, true, &ref_table, &ref);

			ret = ret2 ? ret2 : ret;
		}
		if (ret)
			return ret;
		if (*entry == c + 1)
			continue;
		if (*ref || t->use[c] > GIVEN)
			return cow_error(t->img, -EINVAL,
				"cluster %llu is in use",
				(unsigned long long)c);
		give_up(t, *entry);
		*ref = 1;
		*entry = c + 1;
		dirty(ref_table, ref, 1);
		dirty(map_table, entry, 8);
		t->use[c] = IDLE;
		t->pending[block] = 0;
	}
	return ret;
}

static int toy_zero(void *handle, uint64_t first, uint64_t count)
{
	struct toy *t = handle;
	struct cow_table *table;
	uint64_t *entry, block;
	int ret = check_run(t, first, count);

	/* Each block is done as a whole: to do one again does no harm. */
	for (block = first; !ret && block < first + count; block++) {
		ret = get_entry(t, block, true, &table, &entry);
		if (ret)
			return ret;
		give_up(t, *entry);
		if (t->pending[block])
			t->use[t->pending[block] - 1] = IDLE;
		t->pending[block] = 0;
		*entry = FLAG_ZERO;
		dirty(table, entry, 8);
	}
	return ret;
}

/* --- Commit --------------------------------------------------------------- */

static int toy_commit(void *handle)
{
	struct toy *t = handle;
	struct cow_table *table;
	uint64_t c;
	uint8_t *ref;
	int ret;

	for (c = 0; c < t->h.clusters; c++) {
		if (t->use[c] != FREED_COMMITTED)
			continue;
		ret = get_ref(t, c, true, &table, &ref);
		if (ret)
			return ret;
		*ref = 0;
		dirty(table, ref, 1);
		t->use[c] = CLEARED;
	}
	/* What is freed from now on is for the commits after this one. */
	for (c = 0; c < t->h.clusters; c++) {
		if (t->use[c] == FREED)
			t->use[c] = COMMITTING;
	}
	return 0;
}

static void toy_committed(void *handle, int status)
{
	struct toy *t = handle;
	bool more = false;
	uint64_t c;

	if (!status && t->mark == MARKING)
		t->mark = MARKED;
	for (c = 0; c < t->h.clusters; c++) {
		if (t->use[c] == COMMITTING)
			t->use[c] = status ? FREED : FREED_COMMITTED;
		else if (t->use[c] == CLEARED && !status)
			t->use[c] = IDLE;
		more |= t->use[c] == FREED_COMMITTED;
	}
	if (more && !status)
		cow_commit_more(t->img);
}

/* --- Open, create, check -------------------------------------------------- */

static void toy_close(void *handle)
{
	struct toy *t = handle;

	free(t->use);
	free(t->pending);
	free(t);
}

/* Clusters that a crash leaked are given up: no entry refers to them. */
static int find_leaks(struct toy *t)
{
	uint8_t *refs = malloc(t->h.clusters);
	uint64_t *map = malloc(t->h.blocks * 8), i;
	int ret = refs && map ? 0 : -ENOMEM;

	if (!ret)
		ret = cow_read(t->img, 0, refs, t->h.clusters, TABLE);
	if (!ret)
		ret = cow_read(t->img, 0, map, t->h.blocks * 8,
			       t->h.map_offset);
	for (i = 0; !ret && i < t->h.clusters; i++)
		t->use[i] = refs[i] ? FREED_COMMITTED : IDLE;
	for (i = 0; !ret && i < t->h.blocks; i++) {
		if (map[i] && !(map[i] & FLAG_ZERO))
			t->use[CLUSTER(map[i])] = IDLE;
	}
	free(refs);
	free(map);
	return ret;
}

static int toy_open(struct cow_image *img, uint32_t flags, void **handle)
{
	struct toy *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return -ENOMEM;
	t->img = img;
	t->writable = flags & COW_OPEN_WRITE;
	ret = cow_read(img, 0, &t->h, sizeof(t->h), 0);
	if (!ret && memcmp(t->h.magic, "toyimage", 8))
		ret = cow_error(img, -EINVAL, "is no toy image");
	if (!ret) {
		t->use = calloc(t->h.clusters, 1);
		t->pending = calloc(t->h.blocks, sizeof(*t->pending));
		ret = t->use && t->pending ? 0 : -ENOMEM;
	}
	if (!ret)
		ret = find_leaks(t);
	if (!ret)
		ret = cow_image_tables(img, TABLE,
				       t->h.data_offset / TABLE);
	t->ahead = cow_image_option(img, "ahead");
	if (!ret && cow_image_option(img, "fixed"))
		ret = cow_image_fixed_places(img);
	if (ret) {
		toy_close(t);
		return ret;
	}
	*handle = t;
	return 0;
}

static int toy_info(void *handle, struct cow_image_info *info)
{
	struct toy *t = handle;

	info->size = t->h.size;
	info->block_size = t->h.block_size;
	info->backing_path = *t->h.backing_path ? t->h.backing_path : NULL;
	info->backing_format = t->h.backing_format;
	info->run_blocks = RUN;
	return 0;
}

/* Every other block is put in, inverted: it reads as in the backing. */
static int invert_blocks(struct cow_image *img, const struct header *h,
			 struct cow_image *backing)
{
	uint8_t *buf = malloc(h->block_size);
	uint64_t block, i, cluster = 0, entry;
	uint8_t one = 1;
	int ret = buf ? 0 : -ENOMEM;

	for (block = 0; !ret && (block + 1) * h->block_size <=
			cow_image_size(backing); block += 2, cluster++) {
		ret = cow_read(backing, 0, buf, h->block_size,
			       block * h->block_size);
		for (i = 0; i < h->block_size; i++)
			buf[i] ^= 0xff;
		if (!ret)
			ret = cow_write(img, 0, buf, h->block_size,
				h->data_offset + cluster * h->block_size);
		entry = (cluster + 1) | FLAG_XOR;
		if (!ret)
			ret = cow_write(img, 0, &entry, 8,
					h->map_offset + block * 8);
		if (!ret)
			ret = cow_write(img, 0, &one, 1, TABLE + cluster);
	}
	free(buf);
	return ret;
}

static int toy_create(struct cow_image *img, const struct cow_create *create)
{
	struct header h = { .magic = "toyimag" };
	int ret;

	h.magic[7] = 'e';
	h.size = round_up(create->backing_size, 512);
	h.block_size = create->block_size ? create->block_size : 4096;
	h.blocks = round_up(h.size, h.block_size) / h.block_size;
	h.clusters = 8 * h.blocks + 64;
	h.map_offset = TABLE + round_up(h.clusters, TABLE);
	h.data_offset = round_up(h.map_offset + round_up(h.blocks * 8, TABLE),
				 h.block_size < TABLE ? TABLE : h.block_size);
	if (create->backing_path) {
		strncpy(h.backing_path, create->backing_path, 1023);
		strncpy(h.backing_format, create->backing_format, 31);
	}
	ret = cow_file_extend(img, 0, h.data_offset);
	if (!ret)
		ret = cow_write(img, 0, &h, sizeof(h), 0);
	if (!ret)
		ret = invert_blocks(img, &h, create->backing);
	return ret;
}

static int toy_check(void *handle, struct cow_check *check, bool repair)
{
	struct toy *t = handle;
	uint8_t *refs = malloc(t->h.clusters), *uses;
	uint64_t *map = malloc(t->h.blocks * 8), i;
	int ret;

	uses = calloc(t->h.clusters, 1);
	if (!refs || !map || !uses)
		return -ENOMEM;
	ret = cow_read(t->img, 0, refs, t->h.clusters, TABLE);
	if (!ret)
		ret = cow_read(t->img, 0, map, t->h.blocks * 8,
			       t->h.map_offset);
	for (i = 0; !ret && i < t->h.blocks; i++) {
		if (!map[i] || map[i] & FLAG_ZERO)
			continue;
		if (CLUSTER(map[i]) >= t->h.clusters ||
		    uses[CLUSTER(map[i])]++ || !refs[CLUSTER(map[i])])
			cow_check_found(check, COW_FOUND_CORRUPT, false,
				"block %llu has a bad cluster",
				(unsigned long long)i);
	}
	for (i = 0; !ret && i < t->h.clusters; i++) {
		if (refs[i] && !uses[i])
			cow_check_found(check, COW_FOUND_LEAK, false,
				"cluster %llu is lost", (unsigned long long)i);
	}
	free(refs);
	free(map);
	free(uses);
	return ret;
}

static const struct cow_option toy_options[] = {
	{ "fixed", "the image itself is not asked to discard", COW_OPTION_OPEN },
	{ "ahead", "expect a table that is not there", COW_OPTION_OPEN },
	{ 0 }
};

static const struct cow_plugin toy_plugin = {
	COW_PLUGIN_HEADER,
	.name = "toy",
	.description = "for tests only",
	.options = toy_options,
	.open = toy_open,
	.close = toy_close,
	.info = toy_info,
	.map = toy_map,
	.copied = toy_copied,
	.commit = toy_commit,
	.committed = toy_committed,
	.discard = toy_zero,
	.write_zeroes = toy_zero,
	.read = toy_read,
	.create = toy_create,
	.check = toy_check,
	.finish = toy_finish,
};

COW_PLUGIN_REGISTER(toy_plugin)
