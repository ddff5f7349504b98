// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <common/num.h>

#include "log.h"
#include "options.h"
#include "sandbox.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

int cowd_user_find(const char *name, struct cowd_user *user)
{
	const struct passwd *pw = getpwnam(name ? name : COWD_USER_DEFAULT);

	if (!pw && !name)
		pw = getpwnam("nobody");
	if (!pw)
		return cowd_error(-ENOENT, "there is no user %s",
				  name ? name : "nobody");
	user->uid = pw->pw_uid;
	user->gid = pw->pw_gid;
	if (!user->uid)
		return cowd_error(-EINVAL, "user %s is root, who must not parse images",
				  pw->pw_name);
	return 0;
}

static void spare_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) != 5)
		cowd_log(COWD_DEBUG, "not spared by the out-of-memory killer: %s",
			 strerror(errno));
	if (fd >= 0)
		close(fd);
}

void cowd_prepare_for_io(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	spare_from_oom();
	if (setrlimit(RLIMIT_MEMLOCK, &all))
		cowd_log(COWD_DEBUG, "the limit for locked memory stays: %s",
			 strerror(errno));
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		cowd_log(COWD_DEBUG, "not marked as an I/O flusher: %s",
			 strerror(errno));
}

#define CAP(name)	(1ull << CAP_##name)

/* What the parent needs, and whatever it executes by an upgrade needs as well. */
static const uint64_t parent_capabilities =
	CAP(SYS_ADMIN) |	/* device-mapper, loop devices, attaching */
	CAP(DAC_OVERRIDE) |	/* images that belong to others */
	CAP(KILL) |		/* the worker, another user's process */
	CAP(SETUID) | CAP(SETGID) | CAP(SETPCAP) |	/* the worker's start */
	CAP(SYS_RESOURCE) |	/* locked memory, the out-of-memory killer */
	CAP(MKNOD) | CAP(CHOWN);	/* /dev/mapper/NAME where no udev is */

/* Nothing that is executed can get a capability outside of the bounding set. */
static int limit_bounding_set(uint64_t keep)
{
	int cap;

	for (cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return -errno;
	return 0;
}

/* Keep these of the permitted ones, in effect; none to be inherited. */
static int limit_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	size_t i;

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (i = 0; i < ARRAY_SIZE(data); i++) {
		data[i].permitted &= (uint32_t)(keep >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int forbid_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

int cowd_limit_privileges(void)
{
	int err;

	if (geteuid())	/* then device-mapper says what is missing */
		return 0;
	err = limit_bounding_set(parent_capabilities);
	if (!err)
		err = limit_capabilities(parent_capabilities);
	if (!err)
		err = forbid_new_privileges();
	if (err)
		return cowd_error(err, "cannot drop the capabilities that are not needed: %s",
				  strerror(-err));
	return 0;
}

static int become(const struct cowd_user *user)
{
	int err = limit_bounding_set(0);

	if (err)
		return err;
	if (setgroups(0, NULL) ||
	    setresgid(user->gid, user->gid, user->gid) ||
	    setresuid(user->uid, user->uid, user->uid))
		return -errno;
	/* It must not work: a check that costs nothing. */
	return setuid(0) == 0 ? -EPERM : 0;
}

int cowd_drop_privileges(const struct cowd_user *user)
{
	int err = geteuid() ? 0 : become(user);

	if (!err)
		err = limit_capabilities(0);
	if (!err)
		err = forbid_new_privileges();
	if (!err)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (err)
		return cowd_error(err, "cannot drop privileges: %s",
				  strerror(-err));
	return 0;
}

/*
 * No call here opens, makes, executes or connects anything: files come from
 * the parent.  libcow's helper thread is the one thread.
 */
static const int allowed[] = {
	/* events and messages */
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_create1),
	SCMP_SYS(eventfd2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
	SCMP_SYS(sendmsg), SCMP_SYS(recvmsg),
	/* files that are open */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev),
	SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv),
	SCMP_SYS(pwritev), SCMP_SYS(lseek), SCMP_SYS(fsync),
	SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range), SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate), SCMP_SYS(copy_file_range), SCMP_SYS(fadvise64),
	SCMP_SYS(fstat), SCMP_SYS(fstatfs), SCMP_SYS(flock),
	SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(dup3),
	SCMP_SYS(io_setup), SCMP_SYS(io_destroy), SCMP_SYS(io_submit),
	SCMP_SYS(io_cancel), SCMP_SYS(io_getevents), SCMP_SYS(io_pgetevents),
	SCMP_SYS(memfd_create),
	/* memory; mapping it executable is ruled out below */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	SCMP_SYS(mlock), SCMP_SYS(mlock2), SCMP_SYS(mlockall),
	SCMP_SYS(munlock), SCMP_SYS(munlockall),
	/* threads, time, signals, the end */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
	SCMP_SYS(gettid), SCMP_SYS(getpid),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(getrandom), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall),
	SCMP_SYS(exit), SCMP_SYS(exit_group),
};

static const unsigned long allowed_ioctls[] = {
	BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKFLSBUF,
	BLKDISCARD, BLKZEROOUT, FIONREAD,
};

/* No owner of a descriptor, whom signals are sent to. */
static const unsigned long allowed_fcntls[] = {
	F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_OFD_GETLK, F_OFD_SETLK,
};

static int allow(scmp_filter_ctx filter, int call)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
}

/* Calls of what is done to a descriptor, by their second argument. */
static int allow_commands(scmp_filter_ctx filter, int call,
			  const unsigned long *commands, size_t count)
{
	size_t i;
	int err = 0;

	for (i = 0; i < count && !err; i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
				       SCMP_A1(SCMP_CMP_EQ, commands[i]));
	return err;
}

static int add_conditional_rules(scmp_filter_ctx filter)
{
	int err;

	err = allow_commands(filter, SCMP_SYS(ioctl), allowed_ioctls,
			     ARRAY_SIZE(allowed_ioctls));
	if (!err)
		err = allow_commands(filter, SCMP_SYS(fcntl), allowed_fcntls,
				     ARRAY_SIZE(allowed_fcntls));
	/* abort(); the workers of other devices belong to the same user. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Its flags cannot be looked at; without it clone is used. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS),
				       SCMP_SYS(clone3), 0);
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD,
					       CLONE_THREAD));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (!err)	/* fstat() of newer C libraries: the empty path */
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW,
				       SCMP_SYS(newfstatat), 1,
				       SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH,
					       AT_EMPTY_PATH));
	return err;
}

int cowd_filter_syscalls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	size_t i;
	int err = filter ? 0 : -ENOMEM;

	for (i = 0; i < ARRAY_SIZE(allowed) && !err; i++)
		err = allow(filter, allowed[i]);
	if (!err)
		err = add_conditional_rules(filter);
	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	if (err)
		return cowd_error(err, "cannot restrict system calls: %s",
				  strerror(-err));
	return 0;
}

int cowd_lock_memory(void)
{
	if (!mlockall(MCL_CURRENT | MCL_FUTURE))
		return 0;
	cowd_log(COWD_DEBUG, "memory cannot be locked: %s", strerror(errno));
	return -errno;
}
