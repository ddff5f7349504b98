// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device-mapper side: table lines, suspend and resume, status, messages.
 *
 * <start> <len> userspace <key> <block sectors> <#devs> <dev>...
 *				[<#feature args> <arg>...]
 */
#include "dmu.h"

#include <linux/log2.h>

#define DMU_MAX_FEATURE_ARGS 8

/* What a table line says, before it is given to the disk. */
struct dmu_args {
	const char *key;
	unsigned int block_sectors;
};

static int dmu_parse_block(struct dm_target *ti, const char *arg,
			   struct dmu_args *a)
{
	if (kstrtouint(arg, 10, &a->block_sectors) ||
	    !is_power_of_2(a->block_sectors) ||
	    a->block_sectors > DMU_MAX_BLOCK_SECTORS) {
		ti->error = "block size is no power of two of 1 to 32768 sectors";
		return -EINVAL;
	}
	return 0;
}

static int dmu_parse_key(struct dm_target *ti, const char *arg,
			 struct dmu_args *a)
{
	if (strlen(arg) >= DMU_KEY_LEN) {
		ti->error = "key is longer than 127 bytes";
		return -EINVAL;
	}
	a->key = arg;
	return 0;
}

/*
 * "new:" before a device: what was mapped to its index is forgotten when the table
 * takes over.  "ro:" before a device: it is never written to.  It is opened like the others
 * all the same if it can be: device-mapper replaces, and frees, a struct dm_dev
 * that was got for reading when the same table asks for writing later.
 */
static int dmu_parse_dev(struct dmu_target *t, const char *arg)
{
	struct dmu_dev *dev = &t->devs[t->nr_devs];
	blk_mode_t mode = dm_table_get_mode(t->ti->table);
	bool marked;
	int r;

	dev->fresh = !strncmp(arg, "new:", 4);
	if (dev->fresh)
		arg += 4;
	marked = !strncmp(arg, "ro:", 3);
	if (marked)
		arg += 3;
	dev->readonly = marked || !(mode & DMU_OPEN_WRITE);
	r = dm_get_device(t->ti, arg, mode, &dev->dev);
	if (r && marked)
		r = dm_get_device(t->ti, arg, mode & ~DMU_OPEN_WRITE, &dev->dev);
	if (r) {
		t->ti->error = "cannot open a destination device";
		return -ENODEV;
	}
	if (bdev_read_only(dev->dev->bdev))	/* opening it did not tell */
		dev->readonly = true;
	t->nr_devs++;
	return 0;
}

static int dmu_parse_number(struct dm_target *ti, struct dm_arg_set *as,
			    unsigned int *left, unsigned int *v, char *error)
{
	const char *arg = *left ? dm_shift_arg(as) : NULL;

	if (!arg || kstrtouint(arg, 10, v) || !*v) {
		ti->error = error;
		return -EINVAL;
	}
	--*left;
	return 0;
}

static int dmu_parse_policy(struct dmu_target *t, enum dmu_policy policy)
{
	if (t->has_policy) {
		t->ti->error = "more than one of queue, fail, timeout";
		return -EINVAL;
	}
	t->has_policy = true;
	t->policy = policy;
	return 0;
}

/* The longest time and budget keep jiffies and bytes in range. */
#define DMU_MAX_TIMEOUT		(24 * 60 * 60)

static int dmu_parse_timeout(struct dmu_target *t, struct dm_arg_set *as,
			     unsigned int *left)
{
	char *error = "timeout wants seconds, 1 to 86400";
	int r = dmu_parse_number(t->ti, as, left, &t->timeout, error);

	if (!r && t->timeout > DMU_MAX_TIMEOUT) {
		t->ti->error = error;
		return -EINVAL;
	}
	return r ?: dmu_parse_policy(t, DMU_POLICY_TIMEOUT);
}

static int dmu_parse_no_space(struct dmu_target *t, struct dm_arg_set *as,
			      unsigned int *left)
{
	const char *arg = *left ? dm_shift_arg(as) : NULL;

	if (t->has_no_space) {
		t->ti->error = "no_space stands twice";
		return -EINVAL;
	}
	if (!arg || (strcmp(arg, "wait") && strcmp(arg, "fail"))) {
		t->ti->error = "no_space wants wait or fail";
		return -EINVAL;
	}
	--*left;
	t->has_no_space = true;
	t->no_space_wait = !strcmp(arg, "wait");
	return 0;
}

static int dmu_parse_memory(struct dmu_target *t, struct dm_arg_set *as,
			    unsigned int *left)
{
	unsigned int kib = 0;
	int r;

	if (t->map_budget) {
		t->ti->error = "map_memory stands twice";
		return -EINVAL;
	}
	r = dmu_parse_number(t->ti, as, left, &kib,
			     "map_memory wants KiB, at least 1");
	t->map_budget = (u64)kib << 10;
	return r;
}

static int dmu_parse_feature(struct dmu_target *t, struct dm_arg_set *as,
			     unsigned int *left)
{
	const char *arg = dm_shift_arg(as);

	--*left;
	if (!strcmp(arg, "queue"))
		return dmu_parse_policy(t, DMU_POLICY_QUEUE);
	if (!strcmp(arg, "fail"))
		return dmu_parse_policy(t, DMU_POLICY_FAIL);
	if (!strcmp(arg, "timeout"))
		return dmu_parse_timeout(t, as, left);
	if (!strcmp(arg, "no_space"))
		return dmu_parse_no_space(t, as, left);
	if (!strcmp(arg, "map_memory"))
		return dmu_parse_memory(t, as, left);
	t->ti->error = "unknown feature argument";
	return -EINVAL;
}

static int dmu_parse_features(struct dmu_target *t, struct dm_arg_set *as)
{
	static const struct dm_arg count = {
		0, DMU_MAX_FEATURE_ARGS, "wrong number of feature arguments"
	};
	struct dm_target *ti = t->ti;
	unsigned int left;
	int r;

	if (as->argc) {
		r = dm_read_arg_group(&count, as, &left, &ti->error);
		if (r)
			return r;
		while (left) {
			r = dmu_parse_feature(t, as, &left);
			if (r)
				return r;
		}
	}
	if (as->argc) {
		ti->error = "arguments left over";
		return -EINVAL;
	}
	return 0;
}

static int dmu_check_devs(struct dmu_target *t, unsigned int block_sectors)
{
	unsigned int i;

	for (i = 0; i < t->nr_devs; i++) {
		struct block_device *bdev = t->devs[i].dev->bdev;

		if (bdev_logical_block_size(bdev) >
		    block_sectors << SECTOR_SHIFT) {
			t->ti->error = "block is smaller than a device's logical block";
			return -EINVAL;
		}
	}
	return 0;
}

static void dmu_put_devs(struct dmu_target *t)
{
	while (t->nr_devs) {
		dmu_file_put(&t->devs[--t->nr_devs]);
		dm_put_device(t->ti, t->devs[t->nr_devs].dev);
	}
}

/*
 * The table becomes the disk's live one, and what does not fit it is forgotten;
 * under table_lock, no I/O in flight.  If copied blocks were among that, the
 * daemon is told of them before it is asked anything more.
 */
static int dmu_take_over(struct dmu_target *t)
{
	struct dmu_disk *d = t->disk;
	int r;

	if (!dmu_uncommitted_fit(d, t)) {
		DMERR("%s: a device that holds uncommitted blocks is not in the new table: load one that has it",
		      d->key);
		return -EBUSY;
	}
	mutex_lock(&d->map_mutex);
	r = dmu_map_prune(d, t, d->nr_sectors);
	mutex_unlock(&d->map_mutex);
	if (r)
		return r;
	d->target = t;
	d->nr_sectors = t->nr_sectors;
	spin_lock_irq(&d->lock);
	if (t->has_policy) {
		d->policy = t->policy;
		d->timeout = t->timeout;
	}
	spin_unlock_irq(&d->lock);
	if (t->map_budget)
		WRITE_ONCE(d->map_budget, t->map_budget);
	if (t->has_no_space)
		dmu_set_no_space_wait(d, t->no_space_wait);
	dmu_round_retell(d);
	return 0;
}

/* A daemon may attach to the first table before it is resumed. */
static int dmu_first_table(struct dmu_target *t)
{
	struct dmu_disk *d = t->disk;
	int r = 0;

	down_write(&d->table_lock);
	list_add_tail(&t->list, &d->targets);
	if (!d->target)
		r = dmu_take_over(t);
	if (r)
		list_del(&t->list);
	up_write(&d->table_lock);
	if (r)
		t->ti->error = "cannot fit the map to the table";
	return r;
}

static void dmu_set_limits(struct dm_target *ti)
{
	ti->per_io_data_size = sizeof(struct dmu_io);
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = 1;
	ti->discards_supported = true;
	ti->num_write_zeroes_bios = 1;
}

static int dmu_ctr_devs(struct dmu_target *t, struct dm_arg_set *as,
			unsigned int nr_devs, struct dmu_args *a)
{
	struct dm_target *ti = t->ti;
	int r;

	while (nr_devs--) {
		r = dmu_parse_dev(t, dm_shift_arg(as));
		if (r)
			return r;
	}
	r = dmu_check_devs(t, a->block_sectors);
	if (r)
		return r;
	r = dmu_parse_features(t, as);
	if (r)
		return r;
	t->disk = dmu_disk_get(a->key, ti, ilog2(a->block_sectors), &ti->error);
	return PTR_ERR_OR_ZERO(t->disk);
}

static int dmu_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	static const struct dm_arg devs_arg = {
		1, DMU_MAX_DEVS, "number of devices is not 1 to 255"
	};
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct dmu_args a = { };
	struct dmu_target *t;
	unsigned int nr_devs;
	int r;

	if (argc < 4) {
		ti->error = "wants <key> <block sectors> <#devs> <dev>...";
		return -EINVAL;
	}
	r = dmu_parse_key(ti, dm_shift_arg(&as), &a);
	if (r)
		return r;
	r = dmu_parse_block(ti, dm_shift_arg(&as), &a);
	if (r)
		return r;
	r = dm_read_arg(&devs_arg, &as, &nr_devs, &ti->error);
	if (r)
		return r;
	if (nr_devs > as.argc) {
		ti->error = "fewer devices than announced";
		return -EINVAL;
	}

	t = kzalloc(struct_size(t, devs, nr_devs), GFP_KERNEL);
	if (!t) {
		ti->error = "cannot allocate the target";
		return -ENOMEM;
	}
	t->ti = ti;
	t->nr_sectors = ti->len;
	r = dmu_ctr_devs(t, &as, nr_devs, &a);
	if (r) {
		dmu_put_devs(t);
		kfree(t);
		return r;
	}
	r = dmu_first_table(t);
	if (r) {
		dmu_disk_put_target(t->disk, ti->table);
		dmu_put_devs(t);
		kfree(t);
		return r;
	}
	dmu_set_limits(ti);
	ti->private = t;
	return 0;
}

static void dmu_dtr(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;
	struct dmu_disk *d = t->disk;

	dmu_round_last(d, t);
	down_write(&d->table_lock);
	dmu_round_last_again(d, t);
	list_del(&t->list);
	if (d->target == t) {	/* never resumed, or the last one */
		d->target = NULL;
		if (!list_empty(&d->targets) &&
		    dmu_take_over(list_last_entry(&d->targets,
						  struct dmu_target, list)))
			DMWARN("%s: the next table does not take over, attach waits for its resume",
			       d->key);
	}
	up_write(&d->table_lock);
	dmu_round_kick(d);	/* before it is dead: what is due is not over */
	dmu_disk_put_target(d, ti->table);
	dmu_put_devs(t);
	kfree(t);
}

static int dmu_map(struct dm_target *ti, struct bio *bio)
{
	return dmu_io_map(ti->private, bio);
}

static int dmu_end_io(struct dm_target *ti, struct bio *bio,
		      blk_status_t *error)
{
	return dmu_io_end(ti->private, bio, error);
}

static void dmu_presuspend(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;

	dmu_set_mode(t->disk, dm_noflush_suspending(ti) ? DMU_MODE_REQUEUE :
							   DMU_MODE_DRAIN);
}

/* Drained: what the suspend waited for is over. */
static void dmu_postsuspend(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;

	dmu_suspended(t->disk);
}

static void dmu_presuspend_undo(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;

	dmu_set_mode(t->disk, DMU_MODE_RUN);
}

/* This table takes over.  No I/O is in flight under the one before. */
static int dmu_preresume(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;
	struct dmu_disk *d = t->disk;
	int r = 0;

	down_write(&d->table_lock);
	if (d->target != t)
		r = dmu_take_over(t);
	up_write(&d->table_lock);
	if (r)
		DMERR("%s: cannot take over the table: %d", d->key, r);
	return r;
}

static void dmu_resume(struct dm_target *ti)
{
	struct dmu_target *t = ti->private;

	dmu_set_mode(t->disk, DMU_MODE_RUN);
}

static const char *dmu_policy_name(enum dmu_policy p)
{
	switch (p) {
	case DMU_POLICY_TIMEOUT:
		return "timeout";
	case DMU_POLICY_FAIL:
		return "fail";
	default:
		return "queue";
	}
}

static const struct {
	const char *name;
	enum dmu_stat stat;
} dmu_stat_names[] = {
	{ "hits_read", DMU_HITS_READ },
	{ "hits_write", DMU_HITS_WRITE },
	{ "faults", DMU_FAULTS },
	{ "events", DMU_EVENTS },
	{ "copies", DMU_COPIES },
	{ "copy_errors", DMU_COPY_ERRORS },
	{ "overwrites", DMU_OVERWRITES },
	{ "commits", DMU_COMMITS },
	{ "commit_errors", DMU_COMMIT_ERRORS },
	{ "flushes", DMU_FLUSHES },
	{ "discards", DMU_DISCARDS },
	{ "evictions", DMU_EVICTIONS },
	{ "file_ios", DMU_FILE_IOS },
	{ "file_misses", DMU_FILE_MISSES },
};

/* extents, map_bytes, map_budget, waiting, uncommitted, metadata_dirty, failed, no_space, data_lost */
#define DMU_NR_GAUGES 9

static void dmu_status_info(struct dmu_disk *d, char *result, unsigned int maxlen)
{
	unsigned int sz = 0, i;
	unsigned long waiting, no_space;
	bool failed;

	spin_lock_irq(&d->lock);
	failed = dmu_must_fail(d);
	no_space = bio_list_size(&d->no_space);
	waiting = d->nr_waiting + bio_list_size(&d->flushes) +
		  bio_list_size(&d->round.flushes) + no_space;
	spin_unlock_irq(&d->lock);

	DMEMIT("%d %s %llu %u", dmu_is_attached(d), dmu_policy_name(d->policy),
	       (u64)dmu_block_sectors(d),
	       (unsigned int)ARRAY_SIZE(dmu_stat_names) + DMU_NR_GAUGES);
	for (i = 0; i < ARRAY_SIZE(dmu_stat_names); i++)
		DMEMIT(" %s %llu", dmu_stat_names[i].name,
		       dmu_disk_stat(d, dmu_stat_names[i].stat));
	DMEMIT(" extents %llu map_bytes %llu map_budget %llu",
	       READ_ONCE(d->nr_entries), dmu_map_bytes(d), d->map_budget);
	DMEMIT(" waiting %lu uncommitted %llu", waiting,
	       (u64)atomic64_read(&d->nr_uncommitted));
	DMEMIT(" metadata_dirty %d failed %d no_space %lu data_lost %d",
	       READ_ONCE(d->metadata_seq) != READ_ONCE(d->metadata_done),
	       failed, no_space, READ_ONCE(d->lost));
}

static void dmu_status_table(struct dmu_target *t, char *result,
			     unsigned int maxlen)
{
	struct dmu_disk *d = t->disk;
	unsigned int sz = 0, i;

	DMEMIT("%s %llu %u", d->key, (u64)dmu_block_sectors(d), t->nr_devs);
	for (i = 0; i < t->nr_devs; i++)
		DMEMIT(" %s%s", t->devs[i].readonly ? "ro:" : "",
		       t->devs[i].dev->name);
	if (d->policy == DMU_POLICY_TIMEOUT)
		DMEMIT(" 6 timeout %u", d->timeout);
	else
		DMEMIT(" 5 %s", dmu_policy_name(d->policy));
	DMEMIT(" map_memory %llu no_space %s", d->map_budget >> 10,
	       d->no_space_wait ? "wait" : "fail");
}

static void dmu_status_ima(struct dmu_target *t, char *result,
			   unsigned int maxlen)
{
	unsigned int sz = 0;

	DMEMIT_TARGET_NAME_VERSION(t->ti->type);
	DMEMIT(",key=%s,block_sectors=%llu,devices=%u;", t->disk->key,
	       (u64)dmu_block_sectors(t->disk), t->nr_devs);
}

static void dmu_status(struct dm_target *ti, status_type_t type,
		       unsigned int flags, char *result, unsigned int maxlen)
{
	struct dmu_target *t = ti->private;

	*result = '\0';
	switch (type) {
	case STATUSTYPE_INFO:
		dmu_status_info(t->disk, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		dmu_status_table(t, result, maxlen);
		break;
	case STATUSTYPE_IMA:
		dmu_status_ima(t, result, maxlen);
		break;
	}
}

static int dmu_message_policy(struct dmu_disk *d, unsigned int argc, char **argv)
{
	unsigned int timeout = 0;

	if (argc == 1 && !strcasecmp(argv[0], "queue")) {
		dmu_set_policy(d, DMU_POLICY_QUEUE, 0);
	} else if (argc == 1 && !strcasecmp(argv[0], "fail")) {
		dmu_set_policy(d, DMU_POLICY_FAIL, 0);
	} else if (argc == 2 && !strcasecmp(argv[0], "timeout") &&
		   !kstrtouint(argv[1], 10, &timeout) && timeout &&
		   timeout <= DMU_MAX_TIMEOUT) {
		dmu_set_policy(d, DMU_POLICY_TIMEOUT, timeout);
	} else {
		DMWARN("%s: message wants: policy queue|fail|timeout <1 to 86400 seconds>",
		       d->key);
		return -EINVAL;
	}
	return 0;
}

static int dmu_message_no_space(struct dmu_disk *d, const char *arg)
{
	bool wait = !strcasecmp(arg, "wait");

	if (!wait && strcasecmp(arg, "fail")) {
		DMWARN("%s: message wants: no_space wait|fail", d->key);
		return -EINVAL;
	}
	dmu_set_no_space_wait(d, wait);
	return 0;
}

static int dmu_message_memory(struct dmu_disk *d, const char *arg)
{
	unsigned int kib;

	if (kstrtouint(arg, 10, &kib) || !kib) {
		DMWARN("%s: message wants: map_memory <KiB, at least 1>", d->key);
		return -EINVAL;
	}
	mutex_lock(&d->map_mutex);
	WRITE_ONCE(d->map_budget, (u64)kib << 10);
	dmu_map_make_room(d, 0);
	mutex_unlock(&d->map_mutex);
	return 0;
}

static int dmu_message_file(struct dmu_target *t, char **argv)
{
	bool cached = !strcasecmp(argv[2], "cached");
	unsigned int index;
	int fd, r;

	if (kstrtouint(argv[0], 10, &index) || index >= t->nr_devs ||
	    kstrtoint(argv[1], 10, &fd) || (!cached && strcasecmp(argv[2], "direct"))) {
		DMWARN("%s: message wants: file <index of a device> <open file> direct|cached",
		       t->disk->key);
		return -EINVAL;
	}
	r = dmu_file_set(t, index, fd, cached);
	if (r == -EINVAL)
		DMWARN("%s: device %u is no loop device made of all of that file; one that is only read is cached, another one direct",
		       t->disk->key, index);
	return r;
}

static int dmu_message(struct dm_target *ti, unsigned int argc, char **argv,
		       char *result, unsigned int maxlen)
{
	struct dmu_target *t = ti->private;
	struct dmu_disk *d = t->disk;

	if (argc >= 2 && !strcasecmp(argv[0], "policy"))
		return dmu_message_policy(d, argc - 1, argv + 1);
	if (argc == 2 && !strcasecmp(argv[0], "map_memory"))
		return dmu_message_memory(d, argv[1]);
	if (argc == 2 && !strcasecmp(argv[0], "no_space"))
		return dmu_message_no_space(d, argv[1]);
	if (argc == 4 && !strcasecmp(argv[0], "file"))
		return dmu_message_file(t, argv + 1);
	if (argc == 1 && !strcasecmp(argv[0], "commit_anyway")) {
		dmu_commit_anyway(d);
		return 0;
	}
	if (argc == 1 && !strcasecmp(argv[0], "evict")) {
		mutex_lock(&d->map_mutex);
		dmu_map_evict(d, U64_MAX, GFP_NOIO | __GFP_NOWARN);
		mutex_unlock(&d->map_mutex);
		return 0;
	}
	DMWARN("%s: unknown message; known: policy, map_memory, no_space, file, evict, commit_anyway", d->key);
	return -EINVAL;
}

static int dmu_iterate_devices(struct dm_target *ti,
			       iterate_devices_callout_fn fn, void *data)
{
	struct dmu_target *t = ti->private;
	unsigned int i;
	int r = 0;

	for (i = 0; i < t->nr_devs && !r; i++)
		r = fn(ti, t->devs[i].dev, 0,
		       bdev_nr_sectors(t->devs[i].dev->bdev), data);
	return r;
}

static void dmu_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct dmu_target *t = ti->private;
	unsigned int bytes = dmu_block_sectors(t->disk) << SECTOR_SHIFT;

	limits->discard_granularity = max(bytes, limits->logical_block_size);
	dmu_compat_discard_limit(limits, UINT_MAX >> SECTOR_SHIFT);
	if (limits->io_opt < bytes) {
		limits->io_min = max(bytes, limits->physical_block_size);
		limits->io_opt = limits->io_min;
	}
}

struct target_type dmu_target_type = {
	.name			= DMU_TARGET_NAME,
	.version		= { 1, 3, 0 },
	.features		= DM_TARGET_NOWAIT,
	.module			= THIS_MODULE,
	.ctr			= dmu_ctr,
	.dtr			= dmu_dtr,
	.map			= dmu_map,
	.end_io			= dmu_end_io,
	.presuspend		= dmu_presuspend,
	.presuspend_undo	= dmu_presuspend_undo,
	.postsuspend		= dmu_postsuspend,
	.preresume		= dmu_preresume,
	.resume			= dmu_resume,
	.status			= dmu_status,
	.message		= dmu_message,
	.iterate_devices	= dmu_iterate_devices,
	.io_hints		= dmu_io_hints,
};
