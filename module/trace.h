/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_userspace

#if !defined(DMU_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DMU_TRACE_H

#include <linux/tracepoint.h>

/* A bio waits for the daemon. */
TRACE_EVENT(dmu_fault,
	TP_PROTO(const char *key, u64 block, bool write),
	TP_ARGS(key, block, write),
	TP_STRUCT__entry(
		__array(char, key, 32)
		__field(u64, block)
		__field(bool, write)
	),
	TP_fast_assign(
		strscpy(__entry->key, key, sizeof(__entry->key));
		__entry->block = block;
		__entry->write = write;
	),
	TP_printk("%s block %llu %s", __entry->key, __entry->block,
		  __entry->write ? "write" : "read")
);

/* The daemon said something, and this came of it. */
TRACE_EVENT(dmu_reply,
	TP_PROTO(const char *key, u32 type, u64 id, u64 block, u64 count,
		 int result),
	TP_ARGS(key, type, id, block, count, result),
	TP_STRUCT__entry(
		__array(char, key, 32)
		__field(u32, type)
		__field(u64, id)
		__field(u64, block)
		__field(u64, count)
		__field(int, result)
	),
	TP_fast_assign(
		strscpy(__entry->key, key, sizeof(__entry->key));
		__entry->type = type;
		__entry->id = id;
		__entry->block = block;
		__entry->count = count;
		__entry->result = result;
	),
	TP_printk("%s type %u id %llu block %llu count %llu result %d",
		  __entry->key, __entry->type, __entry->id, __entry->block,
		  __entry->count, __entry->result)
);

/* A block was copied, or could not be. */
TRACE_EVENT(dmu_copy,
	TP_PROTO(const char *key, u64 block, bool failed),
	TP_ARGS(key, block, failed),
	TP_STRUCT__entry(
		__array(char, key, 32)
		__field(u64, block)
		__field(bool, failed)
	),
	TP_fast_assign(
		strscpy(__entry->key, key, sizeof(__entry->key));
		__entry->block = block;
		__entry->failed = failed;
	),
	TP_printk("%s block %llu%s", __entry->key, __entry->block,
		  __entry->failed ? " failed" : "")
);

/* The daemon committed, or could not. */
TRACE_EVENT(dmu_commit,
	TP_PROTO(const char *key, u64 id, int error),
	TP_ARGS(key, id, error),
	TP_STRUCT__entry(
		__array(char, key, 32)
		__field(u64, id)
		__field(int, error)
	),
	TP_fast_assign(
		strscpy(__entry->key, key, sizeof(__entry->key));
		__entry->id = id;
		__entry->error = error;
	),
	TP_printk("%s id %llu error %d", __entry->key, __entry->id,
		  __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
