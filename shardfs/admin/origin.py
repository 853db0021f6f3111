"""Where the chunks of a generation come from: local files that are cut, or objects that lie on an engine already.

Publishing sees no more of them than this: names and sizes, listed before a byte is read; their chunks, read by several
workers; and at the end the question whether everything is still as it was listed.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from shardfs.admin.cutting import Cutter, Piece, Zeros
from shardfs.admin.source import Source, shown
from shardfs.core.digest import Bytes


class Listed(Protocol):
    """One file. `path` is its name in the model, "" when the model is this one file."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def executable(self) -> bool: ...


class Pieces(Protocol):
    """The chunks of an origin, for several workers at a time."""

    @property
    def chunks(self) -> int:
        """How many there are, holes included."""
        ...

    @property
    def digests(self) -> Bytes:
        """The packed names of all chunks in their order, complete at the end."""
        ...

    @property
    def bytes_zero(self) -> int:
        """Bytes so far that need not be stored because they are zero."""
        ...

    async def next_into(self, buffer: memoryview) -> Piece | Zeros | None:
        """Read the next chunk into `buffer`; None when there is none left."""
        ...

    def close(self) -> None:
        """No call may be running or follow."""
        ...


class Origin(Protocol):
    """What is to be published. `files` and `folders` (the empty ones) are sorted by the bytes of their paths."""

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def single(self) -> bool: ...

    @property
    def files(self) -> Sequence[Listed]: ...

    @property
    def folders(self) -> Sequence[str]: ...

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        ...

    def pieces(self, *, chunk_size: int, block_size: int, readers: int) -> Pieces:
        """Its chunks. Few read at a time where that keeps a disk going forward: at most `readers`."""
        ...

    async def check_unchanged(self) -> None:
        """SourceError names the first thing that is not as it was listed."""
        ...


class LocalOrigin:
    """A scanned file or folder of this machine."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shown = shown(source.root)
        self.single = source.single
        self.files = source.files
        self.folders = source.folders
        self.size = source.size

    def pieces(self, *, chunk_size: int, block_size: int, readers: int) -> Pieces:
        return CutterPieces(Cutter(self._source, chunk_size=chunk_size, block_size=block_size), readers=readers)

    async def check_unchanged(self) -> None:
        await trio.to_thread.run_sync(self._source.check_unchanged)


class CutterPieces:
    """`Pieces` of a cutter, which reads and hashes in threads."""

    def __init__(self, cutter: Cutter, *, readers: int) -> None:
        self._cutter = cutter
        self._reading = trio.CapacityLimiter(readers)

    @property
    def chunks(self) -> int:
        return self._cutter.chunks

    @property
    def digests(self) -> Bytes:
        return self._cutter.digests

    @property
    def bytes_zero(self) -> int:
        return self._cutter.bytes_zero

    async def next_into(self, buffer: memoryview) -> Piece | Zeros | None:
        return await trio.to_thread.run_sync(self._cutter.next_into, buffer, limiter=self._reading)

    def close(self) -> None:
        self._cutter.close()
