/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One place that says things; where to is set by each process. */
#ifndef COWD_LOG_H
#define COWD_LOG_H

enum cowd_level {
	COWD_ERROR,
	COWD_WARNING,
	COWD_INFO,	/* what a log should say of a healthy daemon */
	COWD_DEBUG,	/* with -v */
};

#define COWD_LOG_MAX	1024	/* bytes of a sentence, with the NUL */

typedef void cowd_log_sink(enum cowd_level level, const char *text);

/* NULL: to stderr, errors and warnings only. */
void cowd_log_to(cowd_log_sink *sink);
void cowd_log(enum cowd_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same for an error; returns @code, so that one line can do both. */
int cowd_error(int code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* COWD_LOG_H */
