// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Preloaded into cowd: counts the steps by which it changes the world, that is
 * calls of the C library that make, change, send or remove something, and kills
 * the process before the n-th of them.  So every gap between two steps of a
 * start, a stop or a commit can be tried, and the daemon knows nothing of it.
 *
 *	CRASH_AT_FILE	a page shared by both processes of cowd, made by the test:
 *			how many steps there were, at which to die (0: none), and
 *			the name of the last step
 *
 *	CRASH_AT_CALL	if set: die before the first step of that name instead
 *
 *	CRASH_AT_LINGER	if set: who has removed a device, and who ends, takes so many
 *			milliseconds more for it
 *
 * crash-steps.sh and orphan.sh do that.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define NAME_LEN 64

/* Shared, so that it outlives whom it kills. */
struct page {
	_Atomic uint64_t steps;
	_Atomic uint64_t die_at;
	char name[NAME_LEN];
};

static struct page *page;

__attribute__((constructor))
static void attach_page(void)
{
	const char *path = getenv("CRASH_AT_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		page = NULL;
	close(fd);
}

static void step(const char *name)
{
	const char *call = getenv("CRASH_AT_CALL");
	uint64_t n;

	if (call && !strcmp(call, name))
		raise(SIGKILL);
	if (!page)
		return;
	n = ++page->steps;
	if (n != page->die_at)
		return;
	strncpy(page->name, name, NAME_LEN - 1);
	raise(SIGKILL);
}

static void linger(void)
{
	const char *ms = getenv("CRASH_AT_LINGER");

	if (ms)
		usleep((useconds_t)atoi(ms) * 1000);
}

__attribute__((destructor))
static void linger_at_end(void)
{
	linger();
}

/* The next definition of a function, looked up once. */
#define REAL(ret, fn, ...)					\
	static ret (*real)(__VA_ARGS__);			\
	if (!real)						\
		real = (ret (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #fn)

static const char *ioctl_name(unsigned long request)
{
	switch (request) {
	case DM_DEV_CREATE:
		return "ioctl DM_DEV_CREATE";
	case DM_DEV_REMOVE:
		return "ioctl DM_DEV_REMOVE";
	case DM_DEV_SUSPEND:
		return "ioctl DM_DEV_SUSPEND";
	case DM_TABLE_LOAD:
		return "ioctl DM_TABLE_LOAD";
	case DM_TARGET_MSG:
		return "ioctl DM_TARGET_MSG";
	case LOOP_CTL_GET_FREE:
		return "ioctl LOOP_CTL_GET_FREE";
	case LOOP_CONFIGURE:
		return "ioctl LOOP_CONFIGURE";
	case LOOP_SET_CAPACITY:
		return "ioctl LOOP_SET_CAPACITY";
	default:	/* 0xdb: the control node; others only ask */
		return _IOC_TYPE(request) == 0xdb ? "ioctl DMU_ATTACH" : NULL;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	const char *name = ioctl_name(request);
	va_list args;
	void *arg;
	int ret;

	REAL(int, ioctl, int, unsigned long, ...);
	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (name)
		step(name);
	ret = real(fd, request, arg);
	if (request == DM_DEV_REMOVE)
		linger();
	return ret;
}

ssize_t write(int fd, const void *buf, size_t len)
{
	REAL(ssize_t, write, int, const void *, size_t);
	step("write");
	return real(fd, buf, len);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
	step("pwrite");
	return real(fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	REAL(ssize_t, pwrite64, int, const void *, size_t, off_t);
	step("pwrite");
	return real(fd, buf, len, offset);
}

int ftruncate(int fd, off_t len)
{
	REAL(int, ftruncate, int, off_t);
	step("ftruncate");
	return real(fd, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	REAL(int, fallocate, int, int, off_t, off_t);
	step("fallocate");
	return real(fd, mode, offset, len);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
	REAL(int, fallocate64, int, int, off64_t, off64_t);
	step("fallocate");
	return real(fd, mode, offset, len);
}

int fsync(int fd)
{
	REAL(int, fsync, int);
	step("fsync");
	return real(fd);
}

int fdatasync(int fd)
{
	REAL(int, fdatasync, int);
	step("fdatasync");
	return real(fd);
}

int io_submit(io_context_t context, long n, struct iocb **cbs)
{
	REAL(int, io_submit, io_context_t, long, struct iocb **);
	step(cbs[0]->aio_lio_opcode == IO_CMD_PREAD ? "io_submit" :
						      "io_submit to write");
	return real(context, n, cbs);
}

ssize_t sendmsg(int sock, const struct msghdr *msg, int flags)
{
	REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
	step("sendmsg");
	return real(sock, msg, flags);
}

ssize_t send(int sock, const void *buf, size_t len, int flags)
{
	REAL(ssize_t, send, int, const void *, size_t, int);
	step("send");
	return real(sock, buf, len, flags);
}

int bind(int sock, const struct sockaddr *address, socklen_t len)
{
	REAL(int, bind, int, const struct sockaddr *, socklen_t);
	step("bind");
	return real(sock, address, len);
}

int listen(int sock, int backlog)
{
	REAL(int, listen, int, int);
	step("listen");
	return real(sock, backlog);
}

int unlink(const char *path)
{
	REAL(int, unlink, const char *);
	step("unlink");
	return real(path);
}

int mkdir(const char *path, mode_t mode)
{
	REAL(int, mkdir, const char *, mode_t);
	step("mkdir");
	return real(path, mode);
}

int mknod(const char *path, mode_t mode, dev_t dev)
{
	REAL(int, mknod, const char *, mode_t, dev_t);
	step("mknod");
	return real(path, mode, dev);
}

pid_t fork(void)
{
	REAL(pid_t, fork, void);
	step("fork");
	return real();
}
