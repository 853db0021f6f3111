"""Run by opener.py: opens one file and does with it what stdin says, one JSON list a line, one JSON answer each.

    opener_program.py PATH

What must never be read by the test itself is read here: a reader of a stopped daemon cannot be killed.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import socket
import sys
from typing import Any

STEP = 1024 * 1024


class File:
    """`fd` and maps of one open file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size
        self.maps: dict[str, mmap.mmap] = {}

    def probe(self) -> int:
        """Read one page around all caches; how much came."""
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        try:
            return os.preadv(self.fd, [mmap.mmap(-1, mmap.PAGESIZE)], 0)
        finally:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags)

    def read(self) -> str:
        """All of it, not from the pages that the mount has."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.sha256()
        for at in range(0, self.size, STEP):
            digest.update(os.pread(self.fd, STEP, at))
        assert os.pread(self.fd, 1, self.size) == b""
        return digest.hexdigest()

    def at(self, offset: int, size: int) -> str:
        return os.pread(self.fd, size, offset).hex()

    def sendfile(self) -> str:
        digest, at = hashlib.sha256(), 0
        ours, theirs = socket.socketpair()
        with ours, theirs:
            while at < self.size:
                count = os.sendfile(ours.fileno(), self.fd, at, 65536)
                at += count
                while count:
                    part = theirs.recv(count)
                    digest.update(part)
                    count -= len(part)
        return digest.hexdigest()

    def ranks(self) -> str:
        """Four processes read a quarter each through the one descriptor that they share."""
        quarter = -(-self.size // 4)
        pipes = []
        for rank in range(4):
            reading, writing = os.pipe()
            if os.fork() == 0:
                with os.fdopen(writing, "wb") as out:
                    end = min(self.size, (rank + 1) * quarter)
                    for at in range(rank * quarter, end, 65536):
                        out.write(os.pread(self.fd, min(65536, end - at), at))
                os._exit(0)
            os.close(writing)
            pipes.append(reading)
        digest = hashlib.sha256()
        for reading in pipes:
            with os.fdopen(reading, "rb") as source:
                digest.update(source.read())
        while True:
            try:
                os.wait()
            except ChildProcessError:
                return digest.hexdigest()

    def map(self, name: str) -> None:
        private = name == "private"
        self.maps[name] = mmap.mmap(
            self.fd,
            self.size,
            flags=mmap.MAP_PRIVATE if private else mmap.MAP_SHARED,
            prot=mmap.PROT_READ | (mmap.PROT_WRITE if private else 0),
        )

    def mapped(self, name: str) -> str:
        """The digest of what a map shows, its pages looked for anew."""
        self.maps[name].madvise(mmap.MADV_DONTNEED)
        return hashlib.sha256(self.maps[name]).hexdigest()

    def scribble(self) -> str:
        """Write into the private map, which is nobody else's business; what is in the file then."""
        self.maps["private"][0:4] = b"!!!!"
        return os.pread(self.fd, 4, 0).hex()

    def unmap(self, name: str) -> None:
        self.maps.pop(name).close()

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def reopen(self) -> None:
        self.fd = os.open(self.path, os.O_RDONLY)


def answer(call: Any) -> str:
    try:
        return json.dumps(call())
    except OSError as error:
        return json.dumps({"error": errno.errorcode[error.errno or 0]})


def main() -> None:
    file: File | None = None

    def begin() -> int:
        nonlocal file
        file = File(sys.argv[1])
        return file.size

    print(answer(begin), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(answer(lambda name=name, arguments=arguments: getattr(file, name)(*arguments)), flush=True)


main()
