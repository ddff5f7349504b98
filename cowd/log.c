// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdarg.h>
#include <stdio.h>

#include "log.h"

static void to_stderr(enum cowd_level level, const char *text)
{
	if (level <= COWD_WARNING)
		fprintf(stderr, "cowd: %s\n", text);
}

static cowd_log_sink *log_sink = to_stderr;

void cowd_log_to(cowd_log_sink *sink)
{
	log_sink = sink ? sink : to_stderr;
}

__attribute__((format(printf, 2, 0)))
static void log_va(enum cowd_level level, const char *format, va_list args)
{
	char text[COWD_LOG_MAX];

	vsnprintf(text, sizeof(text), format, args);
	log_sink(level, text);
}

void cowd_log(enum cowd_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_va(level, format, args);
	va_end(args);
}

int cowd_error(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_va(COWD_ERROR, format, args);
	va_end(args);
	return code;
}
