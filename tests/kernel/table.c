// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Table lines and messages that must be refused, with the words that the
 * kernel logs, and those that must be taken; what the table prints is loaded.
 */
#include "lib.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NAME "dmut-table"
#define SECTORS 1024

/* In a line, $0 and $1 are devices, $4 has sectors of 4 KiB, $r is read-only. */
static struct dev *devs[2], *big, *readonly;

static void make_devs(void)
{
	devs[0] = dev_new(4096);
	devs[1] = dev_new(4096);
	big = dev_new_opts(4096, 4096, 0);
	readonly = dev_new_opts(4096, 512, DEV_READONLY);
}

static struct dev *dev_named(char c)
{
	return c == '4' ? big : c == 'r' ? readonly : devs[c - '0'];
}

/* Fill in the devices, by name or, as the kernel prints them, by number. */
static char *line(const char *from, bool numbers)
{
	char *buf = malloc(8192), *p = buf;

	check(buf, "no memory");
	for (; *from; from++) {
		struct stat st;

		if (*from != '$') {
			*p++ = *from;
			continue;
		}
		from++;
		if (!numbers) {
			p += sprintf(p, "%s", dev_named(*from)->path);
			continue;
		}
		check(!fstat(dev_named(*from)->fd, &st), "fstat");
		p += sprintf(p, "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	}
	*p = '\0';
	return buf;
}

/* --- what the kernel logs ---------------------------------------------------------- */

static int kmsg = -1;
static char said[65536];

static void listen_kernel(void)
{
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	check(kmsg >= 0, "/dev/kmsg: %s", strerror(errno));
	lseek(kmsg, 0, SEEK_END);
}

static void hear_kernel(void)
{
	char rec[2000];
	size_t len = 0;
	ssize_t n;

	said[0] = '\0';
	while ((n = read(kmsg, rec, sizeof(rec) - 1)) > 0 || errno == EPIPE) {
		if (n <= 0)
			continue;
		rec[n] = '\0';
		len += snprintf(said + len, sizeof(said) - len, "%s", rec);
		check(len < sizeof(said), "the kernel says too much");
	}
}

static void must_say(const char *words)
{
	hear_kernel();
	check(!strstr(said, "WARNING:") && !strstr(said, "BUG:"),
	      "the kernel warns: %.300s", said);
	check(strstr(said, words), "the kernel does not say \"%s\" but \"%.200s\"",
	      words, said);
}

/* --- tables -------------------------------------------------------------------------- */

struct row {
	const char *name;
	const char *line;
	const char *words;	/* of the refusal; or what the table reads then */
};

#define LONG_KEY							\
	"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk" \
	"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define DEFAULTS "5 queue map_memory 65536 no_space fail"

static const struct row taken[] = {
	{ "plain", "k 8 1 $0", "k 8 1 $0 " DEFAULTS },
	{ "two_devices", "k 8 2 $0 $1", "k 8 2 $0 $1 " DEFAULTS },
	{ "device_twice", "k 8 2 $0 $0", "k 8 2 $0 $0 " DEFAULTS },
	{ "readonly_device", "k 8 2 ro:$0 $1", "k 8 2 ro:$0 $1 " DEFAULTS },
	{ "readonly_below", "k 8 1 ro:$r", "k 8 1 ro:$r " DEFAULTS },
	{ "readonly_unmarked", "k 8 1 $r", "k 8 1 ro:$r " DEFAULTS },
	{ "new_device", "k 8 2 new:$0 new:ro:$1", "k 8 2 $0 ro:$1 " DEFAULTS },
	{ "both_ways", "k 8 2 ro:$0 $0", "k 8 2 ro:$0 $0 " DEFAULTS },
	{ "both_ways_2", "k 8 2 $0 ro:$0", "k 8 2 $0 ro:$0 " DEFAULTS },
	{ "smallest_block", "k 1 1 $0", "k 1 1 $0 " DEFAULTS },
	{ "largest_block", "k 32768 1 $0", "k 32768 1 $0 " DEFAULTS },
	{ "logical_block_fits", "k 8 2 $4 $0", "k 8 2 $4 $0 " DEFAULTS },
	{ "longest_key", LONG_KEY " 8 1 $0", LONG_KEY " 8 1 $0 " DEFAULTS },
	{ "odd_key", "a,b:c/d%s%n 8 1 $0", "a,b:c/d%s%n 8 1 $0 " DEFAULTS },
	{ "no_features", "k 8 1 $0 0", "k 8 1 $0 " DEFAULTS },
	{ "queue", "k 8 1 $0 1 queue", "k 8 1 $0 " DEFAULTS },
	{ "fail", "k 8 1 $0 1 fail", "k 8 1 $0 5 fail map_memory 65536 no_space fail" },
	{ "timeout", "k 8 1 $0 2 timeout 7",
	  "k 8 1 $0 6 timeout 7 map_memory 65536 no_space fail" },
	{ "timeout_longest", "k 8 1 $0 2 timeout 86400",
	  "k 8 1 $0 6 timeout 86400 map_memory 65536 no_space fail" },
	{ "map_memory", "k 8 1 $0 2 map_memory 77",
	  "k 8 1 $0 5 queue map_memory 77 no_space fail" },
	{ "no_space", "k 8 1 $0 2 no_space wait",
	  "k 8 1 $0 5 queue map_memory 65536 no_space wait" },
	{ "no_space_fail", "k 8 1 $0 2 no_space fail", "k 8 1 $0 " DEFAULTS },
	{ "all_features", "k 8 1 $0 6 map_memory 77 no_space wait timeout 9",
	  "k 8 1 $0 6 timeout 9 map_memory 77 no_space wait" },
};

#define W_LINE	"wants <key> <block sectors> <#devs> <dev>..."
#define W_KEY	"key is longer than 127 bytes"
#define W_BLOCK	"block size is no power of two of 1 to 32768 sectors"
#define W_DEVS	"number of devices is not 1 to 255"
#define W_FEWER	"fewer devices than announced"
#define W_OPEN	"cannot open a destination device"
#define W_LOG	"block is smaller than a device's logical block"
#define W_COUNT	"wrong number of feature arguments"
#define W_LEFT	"arguments left over"
#define W_KNOWN	"unknown feature argument"
#define W_MORE	"more than one of queue, fail, timeout"
#define W_SEC	"timeout wants seconds, 1 to 86400"
#define W_SPACE_ARG	"no_space wants wait or fail"
#define W_KIB	"map_memory wants KiB, at least 1"
#define W_SPACE_TWICE "no_space stands twice"
#define W_KIB_TWICE "map_memory stands twice"

static const struct row refused[] = {
	{ "nothing", "", W_LINE },
	{ "key_only", "k", W_LINE },
	{ "no_number", "k 8", W_LINE },
	{ "no_device", "k 8 1", W_LINE },
	{ "key_too_long", LONG_KEY "k 8 1 $0", W_KEY },
	{ "block_0", "k 0 1 $0", W_BLOCK },
	{ "block_3", "k 3 1 $0", W_BLOCK },
	{ "block_7", "k 7 1 $0", W_BLOCK },
	{ "block_65536", "k 65536 1 $0", W_BLOCK },
	{ "block_negative", "k -8 1 $0", W_BLOCK },
	{ "block_x", "k x 1 $0", W_BLOCK },
	{ "block_8x", "k 8x 1 $0", W_BLOCK },
	{ "block_hex", "k 0x8 1 $0", W_BLOCK },
	{ "block_fraction", "k 8.0 1 $0", W_BLOCK },
	{ "block_wraps_32", "k 4294967304 1 $0", W_BLOCK },
	{ "block_wraps_64", "k 18446744073709551624 1 $0", W_BLOCK },
	{ "devices_0", "k 8 0 $0", W_DEVS },
	{ "devices_256", "k 8 256 $0", W_DEVS },
	{ "devices_negative", "k 8 -1 $0", W_DEVS },
	{ "devices_x", "k 8 x $0", W_DEVS },
	{ "devices_1x", "k 8 1x $0", W_DEVS },
	{ "fewer_devices", "k 8 2 $0", W_FEWER },
	{ "far_fewer_devices", "k 8 255 $0 $1", W_FEWER },
	{ "missing_device", "k 8 1 /dev/nothing", W_OPEN },
	{ "missing_number", "k 8 1 99:999", W_OPEN },
	{ "missing_second", "k 8 2 $0 /dev/nothing", W_OPEN },
	{ "missing_readonly", "k 8 2 $0 ro:/dev/nothing", W_OPEN },
	{ "no_block_device", "k 8 1 /dev/null", W_OPEN },
	{ "a_folder", "k 8 1 /dev", W_OPEN },
	{ "readonly_nothing", "k 8 1 ro:", W_OPEN },
	{ "readonly_twice", "k 8 1 ro:ro:$0", W_OPEN },
	{ "new_nothing", "k 8 1 new:", W_OPEN },
	{ "new_twice", "k 8 1 new:new:$0", W_OPEN },
	{ "new_after_readonly", "k 8 1 ro:new:$0", W_OPEN },
	{ "logical_block", "k 4 1 $4", W_LOG },
	{ "logical_block_second", "k 1 2 $0 $4", W_LOG },
	{ "more_devices", "k 8 1 $0 $1", W_COUNT },
	{ "features_9", "k 8 1 $0 9 queue", W_COUNT },
	{ "features_negative", "k 8 1 $0 -1 queue", W_COUNT },
	{ "features_x", "k 8 1 $0 x queue", W_COUNT },
	{ "features_missing", "k 8 1 $0 1", W_COUNT },
	{ "features_fewer", "k 8 1 $0 2 queue", W_COUNT },
	{ "features_left", "k 8 1 $0 0 queue", W_LEFT },
	{ "features_left_2", "k 8 1 $0 1 queue fail", W_LEFT },
	{ "feature_unknown", "k 8 1 $0 1 nothing", W_KNOWN },
	{ "feature_case", "k 8 1 $0 1 QUEUE", W_KNOWN },
	{ "feature_number", "k 8 1 $0 1 1", W_KNOWN },
	{ "policy_twice", "k 8 1 $0 2 queue fail", W_MORE },
	{ "policy_same_twice", "k 8 1 $0 2 fail fail", W_MORE },
	{ "policy_and_timeout", "k 8 1 $0 3 timeout 5 queue", W_MORE },
	{ "no_space_twice", "k 8 1 $0 4 no_space wait no_space fail", W_SPACE_TWICE },
	{ "no_space_same_twice", "k 8 1 $0 4 no_space fail no_space fail", W_SPACE_TWICE },
	{ "map_memory_twice", "k 8 1 $0 4 map_memory 5 map_memory 6", W_KIB_TWICE },
	{ "timeout_missing", "k 8 1 $0 1 timeout", W_SEC },
	{ "timeout_not_counted", "k 8 1 $0 1 timeout 5", W_SEC },
	{ "timeout_0", "k 8 1 $0 2 timeout 0", W_SEC },
	{ "timeout_86401", "k 8 1 $0 2 timeout 86401", W_SEC },
	{ "timeout_negative", "k 8 1 $0 2 timeout -1", W_SEC },
	{ "timeout_x", "k 8 1 $0 2 timeout x", W_SEC },
	{ "timeout_5s", "k 8 1 $0 2 timeout 5s", W_SEC },
	{ "timeout_wraps", "k 8 1 $0 2 timeout 4294967297", W_SEC },
	{ "no_space_alone", "k 8 1 $0 1 no_space", W_SPACE_ARG },
	{ "no_space_unknown", "k 8 1 $0 2 no_space x", W_SPACE_ARG },
	{ "map_memory_missing", "k 8 1 $0 1 map_memory", W_KIB },
	{ "map_memory_not_counted", "k 8 1 $0 1 map_memory 5", W_KIB },
	{ "map_memory_0", "k 8 1 $0 2 map_memory 0", W_KIB },
	{ "map_memory_negative", "k 8 1 $0 2 map_memory -1", W_KIB },
	{ "map_memory_x", "k 8 1 $0 2 map_memory x", W_KIB },
	{ "map_memory_unit", "k 8 1 $0 2 map_memory 64k", W_KIB },
	{ "map_memory_wraps", "k 8 1 $0 2 map_memory 4294967296", W_KIB },
};

static int load(const char *text)
{
	return dm_load(NAME, SECTORS, DMU_TARGET_NAME, text, false);
}

static void create(void)
{
	int err = dm_create(NAME, NULL);

	check(!err, "create: %s", strerror(err));
}

static void load_and_resume(const char *text)
{
	int err = load(text);

	check(!err, "\"%s\" is refused: %s", text, strerror(err));
	err = dm_suspend(NAME, 0);
	check(!err, "suspend: %s", strerror(err));
	err = dm_resume(NAME);
	check(!err, "resume: %s", strerror(err));
}

static void table_reads(const char *want)
{
	char got[8192];
	int err = dm_text(NAME, true, got, sizeof(got));

	check(!err, "no table: %s", strerror(err));
	check(!strcmp(got, want), "the table reads \"%s\", not \"%s\"", got, want);
}

static size_t which;

static void run_taken(void)
{
	char got[8192];

	make_devs();
	create();
	load_and_resume(line(taken[which].line, false));
	table_reads(line(taken[which].words, true));
	check(!dm_text(NAME, true, got, sizeof(got)), "no table");
	load_and_resume(got);		/* what it prints can be loaded */
	table_reads(line(taken[which].words, true));
}

static void run_refused(void)
{
	const struct row *r = &refused[which];
	char got[100];
	int err;

	make_devs();
	listen_kernel();
	create();
	err = load(line(r->line, false));
	check(err, "it is taken");
	check(err == EINVAL || err == ENODEV || err == ENOENT || err == EINVAL,
	      "errno %s", strerror(err));
	must_say(r->words);
	check_eq(dm_text(NAME, true, got, sizeof(got)), ENOENT);
	load_and_resume(line("k 8 1 $0", false));	/* nothing is left of it */
}

/* --- keys ---------------------------------------------------------------------------- */

static void key_in_use(void)
{
	make_devs();
	listen_kernel();
	create();
	load_and_resume(line("used 8 1 $0", false));
	check_eq(dm_create("dmut-other", NULL), 0);
	check_eq(dm_load("dmut-other", SECTORS, "userspace",
			 line("used 8 1 $1", false), false), EBUSY);
	must_say("key is in use by another device");
	check_eq(dm_load("dmut-other", SECTORS, "userspace",
			 line("use 8 1 $1", false), false), 0);
	check_eq(dm_load("dmut-other", SECTORS, "userspace",
			 line("usedd 8 1 $1", false), false), 0);
	check_eq(dm_remove(NAME), 0);
	check_eq(dm_load("dmut-other", SECTORS, "userspace",
			 line("used 16 1 $1", false), false), 0);
}

static void block_size_changes(void)
{
	make_devs();
	listen_kernel();
	create();
	load_and_resume(line("k 8 1 $0", false));
	check_eq(load(line("k 16 1 $0", false)), EBUSY);
	must_say("block size differs from that of the live table");
	table_reads(line("k 8 1 $0 " DEFAULTS, true));
	load_and_resume(line("another 16 1 $0", false));	/* another disk */
	table_reads(line("another 16 1 $0 " DEFAULTS, true));
	load_and_resume(line("k 16 1 $0", false));
}

static int two_lines(const char *one, const char *two)
{
	return sh("printf '0 512 userspace %%s\\n512 512 userspace %%s\\n' '%s' '%s' | dmsetup create --noudevsync --noudevrules %s >/dev/null 2>&1",
		  line(one, false), line(two, false), NAME);
}

static void key_twice(void)
{
	make_devs();
	listen_kernel();
	check(two_lines("twice 8 1 $0", "twice 8 1 $1"), "it is taken");
	must_say("key stands twice in one table");
	dm_remove(NAME);
}

/* Two keys in one table are two disks. */
static void two_keys(void)
{
	struct dmu_attach arg;
	struct chan *c[2];
	int i;

	make_devs();
	check(!two_lines("one 8 1 $0", "two 8 1 $1"), "it is refused");
	for (i = 0; i < 2; i++) {
		c[i] = chan_open();
		attach_arg(&arg, i ? "two" : "one");
		check_eq(chan_attach_arg(c[i], &arg), 0);
		check_eq(arg.nr_sectors, 512);
		ev_want(c[i], DMU_EV_REPLAY_END, 0, 0, 0);
		re_send(c[i], re_preload(re_linear(0, 0, 64, 0, 0, 0)));
	}
}

/* One device, read-only in one line and writable in the next. */
static void both_ways_two_lines(void)
{
	make_devs();
	check(!two_lines("one 8 1 ro:$0", "two 8 1 $0"), "it is refused");
	check(!sh("dmsetup status %s >/dev/null", NAME), "status");
}

/* A device that is read-only as a whole. */
static void readonly_table(void)
{
	make_devs();
	create();
	check_eq(dm_load(NAME, SECTORS, "userspace", line("k 8 2 $r $0", false),
			 true), 0);
	check_eq(dm_resume(NAME), 0);
	table_reads(line("k 8 2 ro:$r ro:$0 " DEFAULTS, true));
}

static void devices_255(void)
{
	char text[4000] = "k 8 255";
	int i;

	make_devs();
	create();
	for (i = 0; i < 255; i++)
		strcat(text, " $0");
	load_and_resume(line(text, false));
	strcat(text, " " DEFAULTS);
	table_reads(line(text, true));
}

static void not_from_0(void)
{
	make_devs();
	check(!two_lines("one 8 1 $0", "two 32768 1 $1"), "it is refused");
}

/* --- status ------------------------------------------------------------------------- */

static void status_line(void)
{
	static const char *const names[] = {
		"hits_read", "hits_write", "faults", "events", "copies",
		"copy_errors", "overwrites", "commits", "commit_errors",
		"flushes", "discards",
		"extents", "map_bytes", "map_budget", "evictions", "waiting",
		"uncommitted", "metadata_dirty", "failed", "no_space",
		"data_lost", "file_ios", "file_misses",
	};
	char got[1000], word[64], *p;
	unsigned int n, pairs;
	size_t i;

	make_devs();
	create();
	load_and_resume(line("k 8 1 $0 2 timeout 5", false));
	check_eq(dm_text(NAME, false, got, sizeof(got)), 0);
	check(!strncmp(got, "0 timeout 8 ", 12), "it begins %.20s", got);
	pairs = strtoul(got + 12, &p, 10);
	for (n = 0; *p; p++)
		n += *p == ' ';
	check(n == 2 * pairs, "%u words for %u pairs: %s", n, pairs, got);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(word, sizeof(word), " %s ", names[i]);
		check(strstr(got, word), "no %s: %s", names[i], got);
	}
}

/* --- messages ----------------------------------------------------------------------- */

#define W_MSG	"unknown message; known: policy, map_memory, no_space, file, evict"
#define W_SPACE	"message wants: no_space wait|fail"
#define W_POL	"message wants: policy queue|fail|timeout <1 to 86400 seconds>"
#define W_FILE	"message wants: file <index of a device> <open file> direct|cached"
#define W_MEM	"message wants: map_memory <KiB, at least 1>"

static const struct row messages[] = {
	{ "message_unknown", "nothing", W_MSG },
	{ "message_evict_more", "evict 1", W_MSG },
	{ "message_commit_more", "commit_anyway 1", W_MSG },
	{ "message_policy_alone", "policy", W_MSG },
	{ "message_memory_alone", "map_memory", W_MSG },
	{ "message_space_alone", "no_space", W_MSG },
	{ "message_space_more", "no_space wait 1", W_MSG },
	{ "message_space_unknown", "no_space x", W_SPACE },
	{ "message_memory_more", "map_memory 5 6", W_MSG },
	{ "message_file_alone", "file", W_MSG },
	{ "message_file_less", "file 0 1", W_MSG },
	{ "message_file_more", "file 0 1 direct 2", W_MSG },
	{ "message_file_index", "file 1 0 direct", W_FILE },
	{ "message_file_index_x", "file x 0 direct", W_FILE },
	{ "message_file_fd_x", "file 0 x direct", W_FILE },
	{ "message_file_how", "file 0 0 loop", W_FILE },
	{ "message_policy_unknown", "policy nothing", W_POL },
	{ "message_policy_more", "policy queue 5", W_POL },
	{ "message_policy_fail_more", "policy fail 5", W_POL },
	{ "message_timeout_alone", "policy timeout", W_POL },
	{ "message_timeout_more", "policy timeout 5 6", W_POL },
	{ "message_timeout_0", "policy timeout 0", W_POL },
	{ "message_timeout_86401", "policy timeout 86401", W_POL },
	{ "message_timeout_negative", "policy timeout -1", W_POL },
	{ "message_timeout_x", "policy timeout x", W_POL },
	{ "message_timeout_wraps", "policy timeout 4294967297", W_POL },
	{ "message_memory_0", "map_memory 0", W_MEM },
	{ "message_memory_negative", "map_memory -1", W_MEM },
	{ "message_memory_x", "map_memory x", W_MEM },
	{ "message_memory_wraps", "map_memory 4294967296", W_MEM },
};

static void run_message(void)
{
	char was[1000], is[1000];

	make_devs();
	listen_kernel();
	create();
	load_and_resume(line("k 8 1 $0 4 timeout 9 map_memory 77", false));
	check_eq(dm_text(NAME, false, was, sizeof(was)), 0);
	check_eq(dm_message(NAME, "%s", messages[which].line), EINVAL);
	hear_kernel();
	check(strstr(said, messages[which].words),
	      "the kernel says \"%.200s\"", said);
	check_eq(dm_text(NAME, false, is, sizeof(is)), 0);
	check(!strcmp(was, is), "it changed something:\n%s\n%s", was, is);
}

static void messages_taken(void)
{
	char *text;

	make_devs();
	create();
	load_and_resume(line("k 8 1 $0", false));
	check_eq(dm_message(NAME, "policy fail"), 0);
	table_reads(line("k 8 1 $0 5 fail map_memory 65536 no_space fail", true));
	check_eq(dm_message(NAME, "POLICY Timeout 6"), 0);
	check_eq(dm_message(NAME, "map_memory 99"), 0);
	check_eq(dm_message(NAME, "evict"), 0);
	check_eq(dm_message(NAME, "no_space WAIT"), 0);
	text = line("k 8 1 $0 6 timeout 6 map_memory 99 no_space wait", true);
	table_reads(text);
	load_and_resume(text);
	table_reads(text);
	load_and_resume(line("k 8 1 $0", false));	/* says nothing of them */
	table_reads(text);
	check_eq(dm_message(NAME, "policy queue"), 0);
	check_eq(dm_message(NAME, "no_space fail"), 0);
	table_reads(line("k 8 1 $0 5 queue map_memory 99 no_space fail", true));
}

/* --- the list -------------------------------------------------------------------------- */

#define T(name) { #name, name }
static const struct test fixed[] = {
	T(key_in_use), T(block_size_changes), T(key_twice), T(two_keys),
	T(both_ways_two_lines), T(readonly_table), T(devices_255),
	T(not_from_0), T(status_line), T(messages_taken),
};

#define NR_ROWS (ARRAY_SIZE(taken) + ARRAY_SIZE(refused) + ARRAY_SIZE(messages))
#define NR (NR_ROWS + ARRAY_SIZE(fixed))

static struct test tests[NR];

static size_t add_rows(size_t n, const struct row *rows, size_t nr,
		       void (*fn)(void))
{
	size_t i;

	for (i = 0; i < nr; i++, n++) {
		tests[n].name = rows[i].name;
		tests[n].fn = fn;
	}
	return n;
}

static void choose(size_t i)
{
	which = i;
	if (which >= ARRAY_SIZE(taken))
		which -= ARRAY_SIZE(taken);
	if (i >= ARRAY_SIZE(taken) && which >= ARRAY_SIZE(refused))
		which -= ARRAY_SIZE(refused);
}

int main(int argc, char **argv)
{
	size_t n = 0;

	n = add_rows(n, taken, ARRAY_SIZE(taken), run_taken);
	n = add_rows(n, refused, ARRAY_SIZE(refused), run_refused);
	n = add_rows(n, messages, ARRAY_SIZE(messages), run_message);
	memcpy(&tests[n], fixed, sizeof(fixed));
	before_test = choose;
	return run_tests(tests, NR, argc, argv);
}
