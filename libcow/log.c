// SPDX-License-Identifier: GPL-2.0-or-later
#include "internal.h"

#include <common/text.h>

#include <stdio.h>

#define COW_MESSAGE_MAX 1024

static void log_to_stderr(void *ctx, enum cow_log_level level,
			  const char *text)
{
	if (level != COW_LOG_DEBUG)
		fprintf(stderr, "%s\n", text);
}

void cow_log_set(struct cow_log *log, cow_log_fn fn, void *ctx)
{
	log->fn = fn ? fn : log_to_stderr;
	log->ctx = ctx;
	log->above = NULL;
}

void cow_log_v(const struct cow_log *log, enum cow_log_level level,
	       const char *object, const char *fmt, va_list ap)
{
	char text[COW_MESSAGE_MAX];
	int n;

	n = snprintf(text, sizeof(text), "%s%s%s%s",
		     log->above ? log->above : "",
		     log->above ? ": its backing image " : "",
		     object ? object : "", object ? ": " : "");
	if (n >= 0 && (size_t)n < sizeof(text))
		vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	text_one_line(text);
	log->fn(log->ctx, level, text);
}

int cow_log_error(const struct cow_log *log, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	cow_log_v(log, COW_LOG_ERROR, NULL, fmt, ap);
	va_end(ap);
	return code;
}

void cow_log_warn(const struct cow_log *log, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	cow_log_v(log, COW_LOG_WARNING, NULL, fmt, ap);
	va_end(ap);
}

int cow_error(struct cow_image *img, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	cow_log_v(&img->log, COW_LOG_ERROR, img->path, fmt, ap);
	va_end(ap);
	return code;
}

void cow_warn(struct cow_image *img, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	cow_log_v(&img->log, COW_LOG_WARNING, img->path, fmt, ap);
	va_end(ap);
}
