"""One chunk in memory: which of its blocks are there, who waits for which.

A `Fill` is filled by jobs (from disk or nodes) and read by many. Blocks become readable one by one, as soon as each is
verified; they never change afterwards. Guarded by the event loop: methods have no checkpoints but `wait`.
"""

from dataclasses import dataclass

import trio

from shardfs.cache import CacheFile
from shardfs.cache.memory import Slot
from shardfs.core.chunk import ChunkHeader, block_count, header_size, parse_header, verify_block
from shardfs.core.digest import Digest
from shardfs.errors import InvalidFormat


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A chunk as a file needs it: its name, its size in bytes, and where it lies in the file's disk cache."""

    digest: Digest
    plain_size: int
    block_size: int
    cache_file: CacheFile | None
    first_block: int


class Fill:
    """The memory of one chunk. `ready` and `pending` are bit masks over its blocks."""

    __slots__ = (
        "_base", "_changed", "failure", "header", "pending", "pins", "place", "ready", "room", "slot",
    )  # fmt: skip

    def __init__(self, place: ChunkPlace, slot: Slot, room: int) -> None:
        self.place = place
        self.slot = slot
        self.room = room
        self._base = room - header_size(place.plain_size, place.block_size)
        self.header: ChunkHeader | None = None
        self.ready = 0
        self.pending = 0
        self.pins = 0
        self.failure: Exception | None = None
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def blocks(self) -> int:
        return block_count(self.place.plain_size, self.place.block_size)

    @property
    def complete(self) -> bool:
        return self.ready == (1 << self.blocks) - 1

    def mask(self, first: int, end: int) -> int:
        return (1 << end) - (1 << first)

    def plain(self, start: int, length: int) -> memoryview:
        """Plain bytes [start, start + length) of the chunk. The caller knows that their blocks are ready."""
        return self.slot.view[self.room + start : self.room + start + length]

    def block_view(self, first: int, end: int) -> memoryview:
        """The plain bytes of blocks [first, end)."""
        start = first * self.place.block_size
        return self.plain(start, min(end * self.place.block_size, self.place.plain_size) - start)

    def stored(self, view: memoryview, start: int, end: int) -> memoryview:
        """Where bytes [start, end) of the stored object (raw codec) land in a slot's `view`."""
        return view[self._base + start : self._base + end]

    def learn_header(self, data: bytes | memoryview) -> ChunkHeader:
        """Parse and keep the header; InvalidFormat unless it is this chunk's."""
        if self.header is None:
            header = parse_header(data, self.place.digest, self.place.plain_size)
            if header.block_size != self.place.block_size:
                raise InvalidFormat(f"chunk {self.place.digest}: block size {header.block_size} is not the manifest's")
            self.header = header
        return self.header

    def accept(self, block: int, plain: memoryview, *, in_place: bool) -> None:
        """Verify `plain` as block `block` and make it readable; InvalidFormat if it is not.

        `in_place` says that `plain` is this fill's own memory; otherwise it is copied there once verified.
        """
        self.check(block, plain)
        if not in_place:
            self.block_view(block, block + 1)[:] = plain
        self.mark_ready(1 << block)

    def check(self, block: int, plain: memoryview) -> None:
        """Verify `plain` as block `block` without making it readable."""
        if self.header is None or not verify_block(self.header, block, plain):
            raise InvalidFormat(f"chunk {self.place.digest}: block {block} does not match its digest")

    def mark_ready(self, mask: int) -> None:
        """Blocks of `mask` are verified and in place."""
        self.ready |= mask
        self.pending &= ~mask
        self._changed.unpark_all()

    def end_job(self, mask: int, failure: Exception | None) -> None:
        """Nobody is fetching the blocks of `mask` any more; `failure` says why some are not ready."""
        self.pending &= ~mask
        if failure is not None:
            self.failure = failure
        self._changed.unpark_all()

    async def wait(self) -> None:
        """Until something about this fill has changed."""
        await self._changed.park()
