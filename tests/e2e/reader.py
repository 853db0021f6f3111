"""Reads one file in one of the ways that loaders do, stopping where the test wants to do something.

    reader.py PATH read|direct|mmap PAUSE_EVERY

Prints "at <offset>" and waits for a line on stdin each time PAUSE_EVERY bytes have been read, and at the end one JSON
document: sha256, size, error (an errno name or null), longest (seconds of the slowest call).
"""

import errno
import hashlib
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator

STEP = 1024 * 1024


def by_read(fd: int, size: int) -> Iterator[bytes]:
    while data := os.read(fd, STEP):
        yield data


def by_direct(fd: int, size: int) -> Iterator[bytes]:
    buffer, at = mmap.mmap(-1, STEP), 0
    while count := os.preadv(fd, [buffer], at):
        at += count
        yield buffer[:count]


def by_map(fd: int, size: int) -> Iterator[bytes]:
    with mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapped:
        for at in range(0, size, STEP):
            yield mapped[at : at + STEP]


WAYS = {"read": (os.O_RDONLY, by_read), "direct": (os.O_RDONLY | os.O_DIRECT, by_direct), "mmap": (os.O_RDONLY, by_map)}


def main(path: str, way: str, pause_every: int) -> None:
    flags, read = WAYS[way]
    digest, at, longest, error = hashlib.sha256(), 0, 0.0, None
    began = time.monotonic()
    try:
        fd = os.open(path, flags)
        for data in read(fd, os.fstat(fd).st_size):
            longest = max(longest, time.monotonic() - began)
            digest.update(data)
            before, at = at, at + len(data)
            if pause_every and at // pause_every > before // pause_every:
                print("at", at, flush=True)
                sys.stdin.readline()
            began = time.monotonic()
    except OSError as failure:
        longest = max(longest, time.monotonic() - began)
        error = errno.errorcode[failure.errno or 0]
    print(json.dumps({"sha256": digest.hexdigest(), "size": at, "error": error, "longest": longest}), flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
