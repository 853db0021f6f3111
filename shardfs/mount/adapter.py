"""pyfuse3's operations in terms of the filesystem: names, attributes and errors translated, nothing decided.

Every call goes through `Guard`. `init` and `forget` may raise nothing at all. The bytes of files are not asked for
here, see `relay`.
"""

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import NoReturn

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, ReaddirToken, RequestContext, StatvfsData

from shardfs.mount.guard import Guard
from shardfs.vfs import Attributes, FileSystem

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 512


class Adapter(pyfuse3.Operations):
    """Given: filesystem, guard, owner."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, filesystem: FileSystem, guard: Guard, *, space: Callable[[], tuple[int, int]]) -> None:
        super().__init__()
        self._fs = filesystem
        self._guard = guard
        self._space = space
        self._uid, self._gid = os.getuid(), os.getgid()

    # ------------------------------------------------------------------------------------------------------- reading

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        async def call() -> EntryAttributes:
            return self._entry(await self._fs.lookup(parent_inode, name))

        return await self._guard.answer(call)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        async def call() -> EntryAttributes:
            return self._entry(self._fs.getattr(inode))

        return await self._guard.answer(call)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        try:
            for inode, count in inode_list:
                self._fs.forget(inode, count)
        except Exception:
            logger.exception("bug in forget")

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        async def call() -> int:
            return await self._fs.opendir(inode)

        return await self._guard.answer(call)

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        async def call() -> None:
            for position, (name, attributes) in enumerate(self._fs.entries(fh, start_id), start=start_id):
                if not pyfuse3.readdir_reply(token, name.encode(), self._entry(attributes), position + 1):
                    break
                self._fs.told(fh, position)

        await self._guard.answer(call)

    async def releasedir(self, fh: int) -> None:
        async def call() -> None:
            self._fs.releasedir(fh)

        await self._guard.answer(call)

    async def flush(self, fh: int) -> None:
        # Nothing to write back: the kernel asks once and then never again, which saves a request for each `close`.
        raise FUSEError(errno.ENOSYS)

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        async def call() -> StatvfsData:
            capacity, free = self._space()
            data = StatvfsData()
            data.f_bsize = data.f_frsize = 1024 * 1024
            data.f_blocks = capacity // data.f_frsize
            data.f_bfree = data.f_bavail = free // data.f_frsize
            data.f_files = data.f_ffree = data.f_favail = 0
            data.f_namemax = 255
            return data

        return await self._guard.answer(call)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        async def call() -> bytes:
            return await self._fs.getxattr(inode, name.decode(errors="replace"))

        return await self._guard.answer(call)

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        async def call() -> Sequence[bytes]:
            return [name.encode() for name in self._fs.xattrs(inode)]

        return await self._guard.answer(call)

    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        async def call() -> bool:
            attributes = self._fs.getattr(inode)
            if mode & os.W_OK:
                raise FUSEError(errno.EROFS)
            return not mode & os.X_OK or bool(attributes.mode & 0o111)

        return await self._guard.answer(call)

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        raise FUSEError(errno.EINVAL)

    def _entry(self, attributes: Attributes) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = attributes.inode
        entry.generation = 0
        entry.entry_timeout = entry.attr_timeout = attributes.seconds_valid
        entry.st_mode = attributes.mode
        entry.st_nlink = attributes.links
        entry.st_uid, entry.st_gid = self._uid, self._gid
        entry.st_rdev = 0
        entry.st_size = attributes.size
        entry.st_blksize = 1024 * 1024
        entry.st_blocks = -(-attributes.size // _BLOCK_BYTES)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.mtime * 1_000_000_000
        return entry


async def _read_only(*_arguments: object) -> NoReturn:
    raise FUSEError(errno.EROFS)


for _operation in (
    "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create", "write", "setxattr",
    "removexattr",
):  # fmt: skip
    setattr(Adapter, _operation, _read_only)
