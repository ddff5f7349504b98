// SPDX-License-Identifier: GPL-2.0-or-later
#include "probes.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t other_pid;

/* System calls directly, so that no library asks for something else first. */
static long open_shadow(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/etc/shadow", O_RDONLY);
}

static long open_old(void)
{
	return syscall(SYS_open, "/etc/passwd", O_RDONLY);
}

static long open_how(void)
{
	uint64_t how[3] = { O_RDONLY, 0, 0 };

	return syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", how, sizeof(how));
}

static long open_control(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/dm-userspace", O_RDWR);
}

static long open_dm(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/mapper/control", O_RDWR);
}

static long open_proc_fd(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/proc/self/fd/0", O_RDONLY);
}

static long make_file(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/tmp/hostile-file",
		       O_CREAT | O_RDWR, 0600);
}

static long make_folder(void)
{
	rmdir("/tmp/hostile-folder");
	return syscall(SYS_mkdirat, AT_FDCWD, "/tmp/hostile-folder", 0700);
}

static long make_node(void)
{
	unlink("/tmp/hostile-node");
	return mknod("/tmp/hostile-node", S_IFCHR | 0600, 0x103);
}

static long make_link(void)
{
	unlink("/tmp/hostile-link");
	return symlink("/etc/shadow", "/tmp/hostile-link");
}

static long change_root(void)
{
	return chroot("/");
}

static long mount_it(void)
{
	long r = mount("none", "/mnt", "tmpfs", 0, NULL);

	if (!r)
		umount2("/mnt", MNT_DETACH);
	return r;
}

static long make_socket(int family)
{
	return socket(family, SOCK_STREAM, 0);
}

static long unix_socket(void)	{ return make_socket(AF_UNIX); }
static long inet_socket(void)	{ return make_socket(AF_INET); }

static long netlink_socket(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}

static long pair(void)
{
	int fds[2];

	return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static long fork_it(void)
{
	long pid = syscall(SYS_fork);

	if (!pid)
		_exit(0);
	return pid;
}

static long clone_it(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(0);
	return pid;
}

/* With a thread's flag, but in name spaces of its own: not both go. */
static long new_user_namespace(void)
{
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(0);
	return pid;
}

static long unshare_it(void)
{
	return unshare(CLONE_NEWNS);
}

/* A program that is there would replace this one: an impossible argument. */
static long execute(void)
{
	long r = syscall(SYS_execve, "/nonexistent", NULL, NULL);

	return r && errno == ENOENT ? 0 : r;
}

static long trace(void)
{
	long pid = other_pid, r;

	if (pid != getpid())
		return ptrace(PTRACE_SEIZE, pid, 0, 0);
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	r = ptrace(PTRACE_SEIZE, pid, 0, 0);
	kill((pid_t)pid, SIGKILL);
	return r;
}

static long read_memory(void)
{
	char byte = 0, there = 0;
	struct iovec local = { &byte, 1 }, remote = { &there, 1 };

	return process_vm_readv(other_pid, &local, 1, &remote, 1, 0);
}

static long signal_it(void)
{
	return kill(other_pid, 0);
}

static long signal_its_thread(void)
{
	return syscall(SYS_tgkill, other_pid, other_pid, 0);
}

static long have_it_signalled(void)
{
	return fcntl(STDIN_FILENO, F_SETOWN, other_pid);
}

static long take_fd(void)
{
	long pidfd = syscall(SYS_pidfd_open, other_pid, 0);

	return pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, 0, 0);
}

static long become_root(void)
{
	return setresuid(0, 0, 0);
}

static long leave_groups(void)
{
	return setgroups(0, NULL);
}

static long take_capability(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct all[2] = {
		{ .effective = 1 << CAP_SYS_ADMIN, .permitted = 1 << CAP_SYS_ADMIN },
	};

	return syscall(SYS_capset, &header, all);
}

static long dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long map_executable(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static long make_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static long key_mprotect(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return syscall(SYS_pkey_mprotect, p, 4096, PROT_READ | PROT_EXEC, -1);
}

/* On a descriptor that is no such device ENOTTY is the kernel's answer. */
static long request(unsigned long code)
{
	long r = ioctl(0, code, 0);

	return r && errno != EPERM ? 0 : r;
}

static long loop_request(void)	{ return request(LOOP_CLR_FD); }
static long dm_request(void)	{ return request(DM_REMOVE_ALL); }
static long push_input(void)	{ return request(0x5412 /* TIOCSTI */); }

static long wide_request(void)
{
	return request(0x100000000ul | 0x5412);
}

static long load_bpf(void)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 4;
	attr.max_entries = 1;
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static long ring(void)
{
	char params[120] = "";

	return syscall(SYS_io_uring_setup, 1, params);
}

static long perf(void)
{
	struct perf_event_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.type = PERF_TYPE_SOFTWARE;
	attr.size = sizeof(attr);
	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

static long fault_fd(void)
{
	return syscall(SYS_userfaultfd, O_CLOEXEC);
}

static long add_key(void)
{
	return syscall(SYS_add_key, "user", "x", "y", 1, -1);
}

static long load_module(void)
{
	long r = syscall(SYS_finit_module, 0, "", 0);

	return r && errno != EPERM ? 0 : r;
}

static long set_name(void)
{
	return sethostname("hostile", 7);
}

static long set_time(void)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	return settimeofday(&tv, NULL);
}

static long by_handle(void)
{
	long r = syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, O_RDONLY);

	return r && errno != EPERM ? 0 : r;
}

static long stat_path(void)
{
	struct stat st;

	return syscall(SYS_newfstatat, AT_FDCWD, "/etc/shadow", &st, 0);
}

static long read_link(void)
{
	char buf[16];

	return readlink("/proc/self/exe", buf, sizeof(buf));
}

static long remove_file(void)
{
	long r = unlink("/tmp/hostile-no-such-file");

	return r && errno == ENOENT ? 0 : r;
}

static const struct probe {
	const char *name;
	long (*try)(void);
	bool only_refused;	/* not possible elsewhere either */
} probes[] = {
	{ "open /etc/shadow", open_shadow, false },
	{ "open, the old call", open_old, false },
	{ "openat2", open_how, true },
	{ "open the control node", open_control, false },
	{ "open device-mapper", open_dm, false },
	{ "open /proc/self/fd/0", open_proc_fd, false },
	{ "open_by_handle_at", by_handle, false },
	{ "stat of a path", stat_path, false },
	{ "readlink", read_link, false },
	{ "make a file", make_file, false },
	{ "make a folder", make_folder, false },
	{ "make a device node", make_node, false },
	{ "make a symbolic link", make_link, false },
	{ "remove a file", remove_file, false },
	{ "chroot", change_root, false },
	{ "mount", mount_it, false },
	{ "unix socket", unix_socket, false },
	{ "inet socket", inet_socket, false },
	{ "netlink socket", netlink_socket, false },
	{ "socketpair", pair, false },
	{ "fork", fork_it, false },
	{ "clone", clone_it, false },
	{ "new user namespace", new_user_namespace, false },
	{ "unshare", unshare_it, false },
	{ "execve", execute, false },
	{ "ptrace", trace, false },
	{ "process_vm_readv", read_memory, true },
	{ "kill the parent", signal_it, false },
	{ "kill another's thread", signal_its_thread, false },
	{ "have another signalled", have_it_signalled, false },
	{ "pidfd_getfd", take_fd, true },
	{ "setresuid 0", become_root, false },
	{ "setgroups", leave_groups, false },
	{ "capset", take_capability, false },
	{ "prctl dumpable", dumpable, false },
	{ "mmap executable", map_executable, false },
	{ "mprotect executable", make_executable, false },
	{ "pkey_mprotect", key_mprotect, true },
	{ "ioctl LOOP_CLR_FD", loop_request, false },
	{ "ioctl DM_REMOVE_ALL", dm_request, false },
	{ "ioctl TIOCSTI", push_input, false },
	{ "ioctl with high bits", wide_request, false },
	{ "bpf", load_bpf, true },
	{ "io_uring", ring, true },
	{ "perf_event_open", perf, true },
	{ "userfaultfd", fault_fd, true },
	{ "add_key", add_key, true },
	{ "finit_module", load_module, true },
	{ "sethostname", set_name, false },
	{ "settimeofday", set_time, true },
};

/* EPERM is the filter's; ENOSYS is a call that the filter does not tell of. */
static bool try(const struct probe *probe, bool want_refused)
{
	bool done, bad;
	int err;

	errno = 0;
	done = probe->try() >= 0;
	err = errno;
	bad = want_refused ? done || (err != EPERM && err != ENOSYS) :
			     !done && !probe->only_refused;
	printf("%s %s: %s\n", !bad ? want_refused ? "refused" : "possible" :
	       want_refused ? "LET THROUGH" : "IMPOSSIBLE", probe->name,
	       done ? "done" : strerror(err));
	return bad;
}

int probe_all(pid_t other, bool want_refused)
{
	size_t i, n = sizeof(probes) / sizeof(probes[0]);
	int bad = 0;

	other_pid = other;
	for (i = 0; i < n; i++)
		bad += try(&probes[i], want_refused);
	printf("%zu probes, %d not as wanted\n", n, bad);
	return bad;
}
