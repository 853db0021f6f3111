"""A node that is a local folder (`file:///data/a`): a disk, or whatever is mounted there.

Every blocking call runs in one of at most `THREADS_MAX` threads per store, and every await can be cancelled at
once, even while a disk hangs. For that a thread never writes into the caller's memory: reads go through the store's own
buffers (one copy more, 9 GB/s), and an upload checks what it wrote, not what it was given. A thread that was left
behind by a cancelled call keeps its place among the `THREADS_MAX` until the disk answers, then gives up; a cancelled
`put` has either made its object visible, whole, or leaves nothing.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.names import check_path
from shardfs.errors import Denied, InvalidFormat, NoSpace, NotFound, StoreError, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalStat, SpanInto, StoreStat
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload, sweep
from shardfs.store.spans import slices

THREADS_MAX = 16
SLICE_BYTES = 1024 * 1024

_P = ParamSpec("_P")
_T = TypeVar("_T")


def failure(node: str, what: str, error: OSError) -> StoreError:
    """What an error of the local system means for whoever asked the node."""
    reason = f"{what}: {error.strerror or error}"
    if error.filename:
        reason += f" ({error.filename})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(node, reason)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(node, reason)
    return Unavailable(node, reason)


def _is_absence(error: OSError) -> bool:
    """Whether there is no such file in the folder: a file or a link where a folder should be is none.

    A folder that is itself away is another matter; its name in the error is absolute.
    """
    inside = not os.path.isabs(str(error.filename))
    return error.errno == errno.ENOENT or (inside and error.errno in (errno.ENOTDIR, errno.ELOOP))


class FileStore:
    """`Store`, `SpanSource` and `ExternalSource` over the folder `root`, which is made when its parent exists."""

    def __init__(self, node: str, root: Path) -> None:
        self._node = node
        self._folder = Folder(root)
        self._limiter = trio.CapacityLimiter(THREADS_MAX)
        self._buffers: list[bytearray] = []  # at most THREADS_MAX; each is out while a read uses it
        self._swept = False

    @property
    def node(self) -> str:
        return self._node

    async def get(
        self,
        key: ObjectKey,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `Store.get`. Bytes arrive in slices of 1 MiB."""
        if not into:
            if await self.size(key) is None:
                raise self._missing(key)
            return 0
        return await self._span(key, into, offset, arrived)

    @property
    def has_spans(self) -> bool:
        """As `SpanSource.has_spans`: small spans take one thread for a moment instead of one each."""
        return True

    async def get_spans(
        self, key: ObjectKey, spans: Sequence[SpanInto], *, arrived: Callable[[int, int], None] | None = None
    ) -> Sequence[int] | None:
        """As `SpanSource.get_spans`."""
        return await self._slices(key, spans, arrived)

    async def _span(self, name: str, into: memoryview, offset: int, arrived: Callable[[int], None] | None) -> int:
        tell = None if arrived is None else lambda _, count: arrived(count)
        return (await self._slices(name, [(offset, into)], tell))[0]

    async def _slices(
        self, name: str, spans: Sequence[SpanInto], arrived: Callable[[int, int], None] | None
    ) -> Sequence[int]:
        counts = [0] * len(spans)
        for pieces in slices(spans, SLICE_BYTES):
            buffer = self._buffers.pop() if self._buffers else bytearray(SLICE_BYTES)
            data = memoryview(buffer)  # not given back when cancelled: a thread may still fill it
            reads = []
            for _, offset, size in pieces:
                reads.append((offset, data[:size]))
                data = data[size:]
            found = await self._run(f"get {name}", self._read, name, reads)
            if found is None:
                raise self._missing(name)
            for (number, _, _), (_, view), count in zip(pieces, reads, found, strict=True):
                at = counts[number]
                counts[number] = at + count
                spans[number][1][at : at + count] = view[:count]
            if len(self._buffers) < THREADS_MAX:
                self._buffers.append(buffer)
            for (number, _, _), count in zip(pieces, found, strict=True):
                if count and arrived is not None:
                    arrived(number, counts[number])
            if found[-1] < pieces[-1][2]:
                break
        return counts

    def _read(self, name: str, reads: Sequence[SpanInto]) -> Sequence[int] | None:
        try:
            return self._folder.read_at(name, reads)
        except OSError as error:
            if not _is_absence(error):
                raise
            return None

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        size = await self.size(key)
        if size is None:
            raise self._missing(key)
        if size > limit:
            raise Unavailable(self._node, f"read {key}: {size} bytes, more than {limit}")
        data = bytearray(size)
        count = await self.get(key, memoryview(data))
        return bytes(data[:count])

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable."""
        try:
            return await self._run(f"put {key}", self._put, key, parts)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"put refused: {error}") from error

    def _put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        if not self._swept:
            self._swept = True
            sweep(self._folder)
        check = trio.from_thread.check_cancelled
        with Upload(self._folder, key, sum(memoryview(part).nbytes for part in parts)) as upload:
            for part in parts:
                upload.write(part, check)
            return upload.publish(check)

    async def size(self, key: ObjectKey) -> int | None:
        """As `Store.size`."""
        return await self._run(f"size {key}", self._folder.size, key)

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`."""
        return await self._run(f"list {prefix}", self._folder.keys, prefix, after, limit)

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        return await self._run(f"delete {key}", self._folder.delete, key)

    async def stat(self) -> StoreStat:
        """As `Store.stat`."""
        return await self._run("stat", self._folder.stat)

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `ExternalSource.get_external`. The file is opened for each slice, and not locked."""
        if not into:
            await self.external_stat(path)
            return 0
        return await self._span(path, into, offset, arrived)

    async def external_stat(self, path: str) -> ExternalStat:
        """As `ExternalSource.external_stat`."""
        found = await self._run(f"stat {path}", self._stat, path)
        if found is None:
            raise self._missing(path)
        return found

    def _stat(self, path: str) -> ExternalStat | None:
        try:
            file, size = self._folder.open(path)
        except OSError as error:
            if not _is_absence(error):
                raise
            return None
        try:
            return ExternalStat(size, f"mtime {os.fstat(file).st_mtime_ns}")
        finally:
            os.close(file)

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`. Links, pipes and the like are refused by name."""
        return await self._run(f"list {path}", self._walk, path, limit)

    def _walk(self, path: str, limit: int) -> Sequence[str]:
        found: list[str] = []
        try:
            for below, entry in self._folder.walk(path):
                check_path(below, f"node {self._node}: file name")
                if not entry.is_file(follow_symlinks=False):
                    what = "a link, which is not followed" if entry.is_symlink() else "not a regular file"
                    raise UsageError(f"node {self._node}: {below} is {what}")
                if len(found) == limit:
                    raise UsageError(f"node {self._node}: {path} holds more than {limit} files")
                found.append(below)
                trio.from_thread.check_cancelled()
        except OSError as error:
            if not _is_absence(error):
                raise
        if not found:
            raise self._missing(path)
        return found

    async def aclose(self) -> None:
        """Nothing is held open between calls."""
        await trio.lowlevel.checkpoint()

    async def _run(self, what: str, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def work() -> _T:
            return call(*args, **kwargs)

        try:
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            raise failure(self._node, what, error) from error

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"node {self._node} has no {name}")
