// SPDX-License-Identifier: GPL-2.0-or-later
/* cowimg-check.c - look for damage in one image. */
#include "cowimg.h"

#include <errno.h>
#include <stdio.h>

static void report_json(const struct job *job, json_object *findings,
			const struct cow_check_result *result)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "filename",
			       json_object_new_string(job->args[0]));
	json_object_object_add(o, "format",
			       json_object_new_string(job->format));
	json_object_object_add(o, "corruptions",
			       json_object_new_uint64(result->corrupt));
	json_object_object_add(o, "leaks",
			       json_object_new_uint64(result->leaks));
	json_object_object_add(o, "repaired",
			       json_object_new_uint64(result->repaired));
	json_object_object_add(o, "findings", findings);
	tool_json(o);
}

static void report_text(const struct job *job,
			const struct cow_check_result *result)
{
	if (!result->corrupt && !result->leaks)
		printf("%s: clean%s\n", job->args[0],
		       result->repaired ? " now" : "");
	else
		printf("%s: %llu damaged, %llu harmless\n", job->args[0],
		       (unsigned long long)result->corrupt,
		       (unsigned long long)result->leaks);
}

int cmd_check(const struct job *job)
{
	json_object *findings = job->json ? json_object_new_array() : NULL;
	struct cow_check_result result = { 0 };
	struct cow_chain *chain;
	int ret;

	ret = job_open(job, COW_OPEN_NO_BACKING | COW_OPEN_UNFINISHED |
		       (job->repair ? COW_OPEN_WRITE : 0), &chain);
	if (ret) {
		json_object_put(findings);
		/* Like qemu-img: what is no image at all is none that is damaged. */
		return CHECK_FAILED;
	}
	ret = cow_chain_check(chain, job->repair, tool_finding, findings,
			      &result);
	cow_chain_close(chain);
	if (ret) {
		json_object_put(findings);
		return ret == -EOPNOTSUPP ? CHECK_UNSUPPORTED : CHECK_FAILED;
	}
	if (job->json)
		report_json(job, findings, &result);
	else
		report_text(job, &result);
	return tool_check_status(&result);
}
