/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef COWD_REPORT_H
#define COWD_REPORT_H

#include <sys/types.h>

struct cowd_files;
struct cowd_options;
struct cowd_worker_stats;

/*
 * What cowctl is told, as JSON text with a newline; the caller frees it.
 * @stats: NULL when the worker did not answer.
 */
char *cowd_report_status(const struct cowd_options *options,
			 const struct cowd_files *files, pid_t worker,
			 const char *state,
			 const struct cowd_worker_stats *stats);
/* Is @what, "stopped" or "upgrading", true?  @error: NULL, or why not. */
char *cowd_report_done(const char *name, const char *what, const char *error);

#endif /* COWD_REPORT_H */
