"""pyfuse3's limit: one file of SIZE bytes that is already in memory. `fusefile.py MOUNTPOINT SIZE`; SIGTERM ends it.

Tuned by the same code as a shardfs mount, answers in views, does nothing else. The content is a buffer of 64 MiB over
and over: more than a processor's cache holds, less than a machine has.
"""

import errno
import os
import signal
import stat
import sys
from pathlib import Path
from typing import cast

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext

from shardfs.mount.kernel import KernelOptions, tune

NAME = b"file"
FILE_INODE = pyfuse3.ROOT_INODE + 1
BUFFER_BYTES = 64 * 1024 * 1024
OVERLAP_BYTES = 1024 * 1024  # the largest request: no answer has to be put together


class OneFile(pyfuse3.Operations):
    """Given: the size. The buffer never changes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._buffer = memoryview(bytearray(os.urandom(BUFFER_BYTES + OVERLAP_BYTES)))

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        folder = inode == pyfuse3.ROOT_INODE
        entry.st_mode = stat.S_IFDIR | 0o755 if folder else stat.S_IFREG | 0o444
        entry.st_size = 0 if folder else self._size
        entry.attr_timeout = entry.entry_timeout = 3600
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name != NAME:
            raise FUSEError(errno.ENOENT)
        return await self.getattr(FILE_INODE, ctx)

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        return None

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        at = off % BUFFER_BYTES
        return cast(bytes, self._buffer[at : at + min(size, self._size - off)])


async def serve(mountpoint: str, size: int) -> None:
    pyfuse3.init(OneFile(size), mountpoint, set(pyfuse3.default_options) | {"ro", "fsname=fusefile"})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal)
            nursery.start_soon(announce, mountpoint)
            await pyfuse3.main(max_tasks=128)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


async def announce(mountpoint: str) -> None:
    await trio.to_thread.run_sync(os.stat, mountpoint)
    await trio.to_thread.run_sync(tune, Path(mountpoint), KernelOptions())
    print("ready", flush=True)


async def stop_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            pyfuse3.terminate()
            return


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
