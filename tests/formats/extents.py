# SPDX-License-Identifier: GPL-2.0-or-later
# extents.py MAP RAW: what cowimg map --json says, against the contents: the
# extents follow each other over the whole disk, zero ones are zero, and the
# others have their bytes where the map says.
import json
import os
import sys

PIECE = 1 << 20


def fail(text):
    sys.exit("extents.py: " + text)


def compare(e, raw):
    place = open(e["filename"], "rb")
    for at in range(0, e["length"], PIECE):
        n = min(PIECE, e["length"] - at)
        raw.seek(e["start"] + at)
        place.seek(e["offset"] + at)
        if raw.read(n) != place.read(n):
            fail("the extent at %d does not stand where it is said" % e["start"])


def is_zero(e, raw):
    at, end = e["start"], e["start"] + e["length"]
    while at < end:
        try:
            at = os.lseek(raw.fileno(), at, os.SEEK_DATA)
        except OSError:
            return True
        if at >= end:
            return True
        n = min(PIECE, end - at)
        if any(os.pread(raw.fileno(), n, at)):
            return False
        at += n
    return True


extents = json.load(open(sys.argv[1]))
raw = open(sys.argv[2], "rb")
pos = 0
for e in extents:
    if e["start"] != pos or e["length"] <= 0:
        fail("a gap before %d" % e["start"])
    if e["zero"] == e["data"]:
        fail("%d is both or neither of zero and data" % pos)
    if e["zero"] and not is_zero(e, raw):
        fail("%d is not zero" % pos)
    if e["data"] and not e["compressed"]:
        compare(e, raw)
    pos += e["length"]
if pos != os.fstat(raw.fileno()).st_size:
    fail("the extents end at %d" % pos)
