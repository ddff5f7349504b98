// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto.h"

union fd_buffer {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static void attach_fd(struct msghdr *header, union fd_buffer *buffer, int fd)
{
	struct cmsghdr *cmsg;

	header->msg_control = buffer->bytes;
	header->msg_controllen = sizeof(buffer->bytes);
	cmsg = CMSG_FIRSTHDR(header);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
}

/* Text is sent as far as it goes, to keep small messages small. */
static size_t msg_length(const struct cowd_msg *msg)
{
	if (msg->type == COWD_MSG_OPEN || msg->type == COWD_MSG_LOG)
		return offsetof(struct cowd_msg, text) + strlen(msg->text) + 1;
	if (msg->type == COWD_MSG_STATS)
		return offsetof(struct cowd_msg, stats) + sizeof(msg->stats);
	return offsetof(struct cowd_msg, geometry) + sizeof(msg->geometry);
}

int cowd_msg_send(int sock, const struct cowd_msg *msg, int fd, int wait)
{
	struct iovec iov = {
		.iov_base = (void *)msg,
		.iov_len = msg_length(msg),
	};
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	union fd_buffer buffer = { .bytes = "" };
	ssize_t n;

	if (fd >= 0)
		attach_fd(&header, &buffer, fd);
	do
		n = sendmsg(sock, &header,
			    MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

/* The one descriptor that came, or -1.  More than one are closed: -EPROTO. */
static int received_fd(struct msghdr *header, int *fd)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(header);
	size_t i, n;
	int fds[2];

	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET ||
	    cmsg->cmsg_type != SCM_RIGHTS)
		return 0;
	n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(cmsg), n * sizeof(int));
	if (n == 1) {
		*fd = fds[0];
		return 0;
	}
	for (i = 0; i < n; i++)
		close(fds[i]);
	return -EPROTO;
}

/* Exactly as long as its type says, and text with one NUL, at its end. */
static int check_length(const struct cowd_msg *msg, size_t length)
{
	size_t head = offsetof(struct cowd_msg, text);

	if (length < head)
		return -EPROTO;
	if ((msg->type == COWD_MSG_OPEN || msg->type == COWD_MSG_LOG) &&
	    !memchr(msg->text, '\0', length - head))
		return -EPROTO;
	return length == msg_length(msg) ? 0 : -EPROTO;
}

int cowd_msg_recv(int sock, struct cowd_msg *msg, int *fd, int wait)
{
	struct iovec iov = { .iov_base = msg, .iov_len = sizeof(*msg) };
	union fd_buffer buffer = { .bytes = "" };
	struct msghdr header = {
		.msg_iov = &iov,	.msg_iovlen = 1,
		.msg_control = buffer.bytes,
		.msg_controllen = sizeof(buffer.bytes),
	};
	ssize_t n;

	*fd = -1;
	memset(msg, 0, sizeof(*msg));
	do
		n = recvmsg(sock, &header,
			    MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	if (received_fd(&header, fd) ||
	    header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
	    check_length(msg, (size_t)n)) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		return -EPROTO;
	}
	return 0;
}
