#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""VMDK files that qemu-img does not make, after the specification.

stream RAW OUT      streamOptimized as a stream: markers, directory and
                    tables behind the grains, a footer
untabled OUT SIZE [GRAIN]
                    monolithicSparse whose directories are empty: no table yet;
                    grains of so many sectors
scattered OUT SIZE  the same with tables, empty, each copy of each in a piece of 16 KiB of its
                    own
u32 FILE OFFSET N   overwrite 32 bits, little-endian; u64 likewise
get FILE OFFSET     print 32 bits
"""
import os
import struct
import sys
import zlib

GRAIN = 128
GTES = 512


def header(flags, capacity, desc, gd, rgd=0, overhead=GRAIN, version=1, grain=GRAIN):
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, flags, capacity,
                       grain, desc[0], desc[1], GTES, rgd, gd, overhead, 0,
                       b"\n \r\n", 1 if flags & 0x10000 else 0)
    return head.ljust(512, b"\0")


def descriptor(kind, capacity, name):
    return ("# Disk DescriptorFile\nversion=1\nCID=7654321a\n"
            "parentCID=ffffffff\ncreateType=\"%s\"\n\n# Extent description\n"
            "RW %d SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"lsilogic\"\n"
            "ddb.longContentID = \"00112233445566778899aabb7654321a\"\n"
            % (kind, capacity, name)).encode()


def marker(kind, sectors):
    return struct.pack("<QII", sectors, 0, kind).ljust(512, b"\0")


def pad(data):
    return data.ljust((len(data) + 511) // 512 * 512, b"\0")


def stream(raw, out):
    disk = open(raw, "rb").read()
    capacity = len(disk) // 512
    flags = 0x30001
    desc = descriptor("streamOptimized", capacity, out)
    with open(out, "wb") as f:
        f.write(header(flags, capacity, (1, 20), 0xffffffffffffffff, version=3))
        f.write(desc.ljust(20 * 512, b"\0"))
        f.seek(GRAIN * 512)
        tables = []
        for first in range(0, capacity, GRAIN * GTES):
            table = []
            for lba in range(first, min(first + GRAIN * GTES, capacity), GRAIN):
                data = disk[lba * 512:(lba + GRAIN) * 512].ljust(GRAIN * 512, b"\0")
                if not data.strip(b"\0"):
                    table.append(0)
                    continue
                table.append(f.tell() // 512)
                packed = zlib.compress(data)
                f.write(pad(struct.pack("<QI", lba, len(packed)) + packed))
            if not any(table):
                tables.append(0)
                continue
            f.write(marker(1, 4))
            tables.append(f.tell() // 512)
            f.write(struct.pack("<512I", *(table + [0] * (GTES - len(table)))))
        directory = pad(struct.pack("<%dI" % len(tables), *tables))
        f.write(marker(2, len(directory) // 512))
        gd = f.tell() // 512
        f.write(directory)
        f.write(marker(3, 1))
        f.write(header(flags, capacity, (1, 20), gd, version=3))
        f.write(bytes(512))


def untabled(out, size, grain=GRAIN):
    capacity = int(size) // 512
    grain = int(grain)
    gdes = -(-capacity // (grain * GTES))
    gd_sectors = -(-gdes * 4 // 512)
    with open(out, "wb") as f:
        f.write(header(3, capacity, (1, 20), 21 + gd_sectors, 21,
                       grain=grain))
        f.write(descriptor("monolithicSparse", capacity, out))
        f.truncate(-(-(21 + 2 * gd_sectors) // GRAIN) * GRAIN * 512)


def scattered(out, size):
    untabled(out, size)
    gdes = -(-int(size) // (GRAIN * 512 * GTES))
    with open(out, "r+b") as f:
        rgd, gd = struct.unpack_from("<QQ", f.read(512), 48)
        first = -(-os.fstat(f.fileno()).st_size // 65536) * 65536
        for at, directory in (first, gd), (first + gdes * 16384, rgd):
            f.seek(directory * 512)
            f.write(struct.pack("<%dI" % gdes, *range(at // 512, at // 512 + 32 * gdes, 32)))
        f.truncate(-(-(first + 2 * gdes * 16384) // 65536) * 65536)


def put(form, path, offset, value):
    with open(path, "r+b") as f:
        f.seek(int(offset))
        f.write(struct.pack(form, int(value, 0)))


def main(args):
    if args[0] == "stream":
        stream(*args[1:])
    elif args[0] == "untabled":
        untabled(*args[1:])
    elif args[0] == "scattered":
        scattered(*args[1:])
    elif args[0] == "u32":
        put("<I", *args[1:])
    elif args[0] == "u64":
        put("<Q", *args[1:])
    elif args[0] == "get":
        with open(args[1], "rb") as f:
            f.seek(int(args[2]))
            print(struct.unpack("<I", f.read(4))[0])
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
