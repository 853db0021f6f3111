"""Reads one file again and again, from beginning to end, until it is killed.

    passes.py PATH

Each pass opens the file anew and prints a JSON document: number, began and ended (monotonic seconds), sha256, size,
error (an errno name or null). Every other pass goes around the page cache, the others first throw away its pages: no
byte of either comes from the kernel's memory.

A line on stdin has it stop half way through a pass, once: it prints {"half": number} and goes on with the next line.
"""

import errno
import hashlib
import itertools
import json
import mmap
import os
import select
import sys
import time

STEP = 1024 * 1024


def read_whole(path: str, number: int) -> tuple[str, int]:
    """Its SHA-256 and size."""
    digest, at = hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if number % 2 else 0))
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        half = os.fstat(fd).st_size // 2
        buffer = mmap.mmap(-1, STEP)  # its address is what O_DIRECT wants
        while count := os.preadv(fd, [buffer], at):
            digest.update(memoryview(buffer)[:count])
            if at < half <= at + count and select.select([0], [], [], 0)[0] and os.read(0, 1):
                print(json.dumps({"half": number}), flush=True)
                os.read(0, 1)
            at += count
    finally:
        os.close(fd)
    return digest.hexdigest(), at


def main() -> None:
    for number in itertools.count():
        found: dict[str, object] = {"sha256": "", "size": 0, "error": None}
        began = time.monotonic()
        try:
            found["sha256"], found["size"] = read_whole(sys.argv[1], number)
        except OSError as error:
            found["error"] = errno.errorcode.get(error.errno or 0, str(error))
        print(json.dumps({"number": number, "began": began, "ended": time.monotonic(), **found}), flush=True)


if __name__ == "__main__":
    main()
