# SPDX-License-Identifier: GPL-2.0-or-later
# extents.py KEY COUNT: attach to the target KEY, map COUNT blocks read-only, so
# that no two neighbours become one entry, and hold them until killed.
import fcntl
import os
import signal
import struct
import sys

ATTACH = struct.Struct("=II Q 128s II Q 4Q")
REPLY = struct.Struct("=II QQQ IIII QQ II 3Q")
IOC_ATTACH = 3 << 30 | ATTACH.size << 16 | 0xdb << 8 | 1
VERSION, RE_PRELOAD, KIND_LINEAR = 1, 5, 1
BATCH = 512


def preload(block, dev, sector):
    return REPLY.pack(RE_PRELOAD, 0, 0, block, 1, KIND_LINEAR, 0, dev, 0, sector, 0, 0, 0, 0, 0, 0)


def main():
    key, count = sys.argv[1], int(sys.argv[2])
    fd = os.open("/dev/dm-userspace", os.O_RDWR)
    answer = bytearray(ATTACH.pack(VERSION, 0, 0, key.encode(), 0, 0, 0, 0, 0, 0, 0))
    fcntl.ioctl(fd, IOC_ATTACH, answer)
    sectors = ATTACH.unpack(answer)[4]
    os.read(fd, 64)     # REPLAY_END
    for at in range(0, count, BATCH):
        batch = b"".join(preload(b, b % 2, b * sectors) for b in range(at, min(at + BATCH, count)))
        done = os.write(fd, batch)
        assert done == len(batch), (at, done)
    print("mapped", flush=True)
    signal.pause()


main()
