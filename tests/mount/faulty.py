"""A mount whose filesystem fails on purpose and counts its reads; run by test_bugs.py.

    faulty.py CLUSTER MOUNTPOINT

It is the real mount but for the class of its filesystem. A file or folder named `bug-<operation>` makes that operation
raise what a bug would raise; `user.shardfs.reads` of any file is how many reads the daemon has answered.
"""

import sys
from functools import partial
from pathlib import Path

import trio

from shardfs.config import load_cluster
from shardfs.fetch import Reading
from shardfs.mount.session import MountOptions, serve
from shardfs.vfs import Attributes, FileSystem
from shardfs.vfs.inodes import FileNode
from shardfs.vfs.namespace import Namespace
from shardfs.wiring.reader import ReaderOptions, reader


class FaultyFileSystem(FileSystem):
    reads = 0
    told_space = 0

    def space(self) -> tuple[int, int]:
        self.told_space += 1
        if self.told_space > 1:  # the first time a mount asks itself whether it answers
            raise ZeroDivisionError("a bug in statfs")
        return 1 << 40, 1 << 39

    def _bug(self, operation: str, inode: int) -> None:
        node = self._inodes.get(inode)
        path = node.entry.path if isinstance(node, FileNode) else getattr(node, "path", "")
        if path == f"bug-{operation}":
            raise ZeroDivisionError(f"a bug in {operation}")

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        if name == b"bug-lookup":
            raise KeyError("a bug in lookup")
        if name == b"bug-group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._raise)
        if name == b"bug-hang":
            await trio.sleep_forever()
        return await super().lookup(parent, name)

    async def _raise(self) -> None:
        raise RuntimeError("a bug in a task")

    def getattr(self, inode: int) -> Attributes:
        self._bug("getattr", inode)
        return super().getattr(inode)

    def forget(self, inode: int, count: int) -> None:
        super().forget(inode, count)
        raise RuntimeError("a bug in forget")

    async def open(self, inode: int) -> int:
        self._bug("open", inode)
        return await super().open(inode)

    def request(self, handle: int, offset: int, size: int) -> memoryview | Reading:
        self.reads += 1
        self._bug("read", self._files[handle].inode)
        if self._files[handle].entry.path in ("bug-later", "bug-never"):
            return self._later(handle)
        return super().request(handle, offset, size)

    async def _later(self, handle: int) -> memoryview:
        await trio.lowlevel.checkpoint()
        self._bug("later", self._files[handle].inode)
        await trio.sleep_forever()
        raise AssertionError

    def release(self, handle: int) -> None:
        self._bug("release", self._files[handle].inode)
        super().release(handle)

    async def opendir(self, inode: int) -> int:
        self._bug("opendir", inode)
        return await super().opendir(inode)

    async def getxattr(self, inode: int, name: str) -> bytes:
        self._bug("xattrs", inode)
        return str(self.reads).encode() if name == "user.shardfs.reads" else await super().getxattr(inode, name)


async def main(cluster_file: str, mountpoint: str) -> None:
    async with reader(load_cluster(Path(cluster_file)), ReaderOptions()) as parts, trio.open_nursery() as nursery:
        namespace = Namespace(parts.catalog)
        await nursery.start(namespace.run)
        filesystem = FaultyFileSystem(namespace, parts.engine, disk=None, started=0)
        await serve(
            filesystem,
            Path(mountpoint),
            MountOptions(read_timeout_seconds=3.0),
            space=filesystem.space,
            ready=lambda what: print(what.mountpoint, flush=True),
        )
        nursery.cancel_scope.cancel()


trio.run(partial(main, *sys.argv[1:]))
