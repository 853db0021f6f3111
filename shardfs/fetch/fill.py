"""A run of one chunk's blocks in memory: which of them are there, who waits for which.

A `Fill` is filled by jobs (from disk or nodes) and read by many. Blocks become readable one by one, as soon as each is
verified; they never change afterwards. Guarded by the event loop: methods have no checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from shardfs.cache import CacheFile
from shardfs.cache.memory import Slot
from shardfs.core.chunk import ChunkHeader, block_count, header_size, matching_until, parse_header, parse_pointer
from shardfs.core.digest import Digest
from shardfs.core.pointer import Pointer
from shardfs.errors import InvalidFormat

POINTERS_MAX = 4
"""Nodes of which is kept, for one chunk, where their pointer leads; the others are asked again."""

RunKey: TypeAlias = tuple[Digest, int, int, int, int]
Pointers: TypeAlias = dict[str, Pointer]
"""By the node that holds them."""


def first_run(mask: int) -> tuple[int, int]:
    """First and end of the lowest run of ones in `mask`, which is not 0."""
    first = (mask & -mask).bit_length() - 1
    run = mask >> first
    return first, first + (run ^ (run + 1)).bit_length() - 1


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A run of blocks [first, end) of a chunk, as a file needs it; by default the whole chunk.

    `plain_size` is the chunk's, in bytes; `cache_block` is where the run lies in the file's disk cache, in blocks.
    A run fits in one slot of the memory.
    """

    digest: Digest
    plain_size: int
    block_size: int
    cache_file: CacheFile | None
    cache_block: int
    first: int = 0
    end: int | None = None
    blocks: int = field(init=False, compare=False)
    length: int = field(init=False, compare=False)
    """Plain bytes of the run."""
    key: RunKey = field(init=False, compare=False)
    """Equal for equal bytes, whichever file they are wanted for. A manifest may lie about sizes, so they count."""

    def __post_init__(self) -> None:
        end = block_count(self.plain_size, self.block_size) if self.end is None else self.end
        blocks = end - self.first
        given = object.__setattr__
        given(self, "blocks", blocks)
        given(self, "length", min(blocks * self.block_size, self.plain_size - self.first * self.block_size))
        given(self, "key", (self.digest, self.plain_size, self.block_size, self.first, blocks))


class Fill:
    """The memory of one run. `ready` and `pending` are bit masks over its blocks, which count from 0 here.

    `header` is whichever copy's came first: they differ in their codec only. `pointers` are those of the nodes that
    have the chunk as a span of an object that lies elsewhere. `left` are slots that it had before. `waiting` are told
    of each change of `ready` and `pending`; whoever is told may remove itself.
    """

    __slots__ = (
        "_base", "blocks", "failure", "header", "header_size", "left", "pending", "pins", "place", "pointers",
        "read_bytes", "ready", "room", "slot", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        place: ChunkPlace,
        slot: Slot,
        room: int,
        header: ChunkHeader | None = None,
        pointers: Pointers | None = None,
    ) -> None:
        self.place = place
        self.slot = slot
        self.left: list[Slot] = []
        self.room = room
        self.header = header
        self.pointers: Pointers = {} if pointers is None else pointers
        self.header_size = header_size(place.plain_size, place.block_size)
        self.blocks = place.blocks
        # The stored object's byte 0 in slot terms; before the slot for a run from the middle of a chunk.
        self._base = room - self.header_size - place.first * place.block_size
        self.ready = 0
        self.pending = 0
        self.pins = 0
        self.read_bytes = 0
        self.failure: Exception | None = None
        self.waiting: list[Callable[[], None]] = []

    @property
    def header_fits(self) -> bool:
        """Whether the stored header lies right before the run's blocks and has room in the slot."""
        return self.place.first == 0 and self.header_size <= self.room

    @property
    def complete(self) -> bool:
        return self.ready == (1 << self.blocks) - 1

    def mask(self, first: int, end: int) -> int:
        return (1 << end) - (1 << first)

    def blocks_of(self, start: int, length: int) -> tuple[int, int]:
        """First and end of the blocks that plain bytes [start, start + length) lie in."""
        size = self.place.block_size
        return start // size, -(-(start + length) // size)

    def has(self, start: int, length: int) -> bool:
        """Whether plain bytes [start, start + length) are ready."""
        return not self.mask(*self.blocks_of(start, length)) & ~self.ready

    def plain(self, start: int, length: int) -> memoryview:
        """Plain bytes [start, start + length) of the run. The caller knows that their blocks are ready."""
        return self.slot.view[self.room + start : self.room + start + length]

    def block_view(self, first: int, end: int) -> memoryview:
        """The plain bytes of blocks [first, end)."""
        start = first * self.place.block_size
        return self.plain(start, min(end * self.place.block_size, self.place.length) - start)

    def stored_range(self, first: int, end: int) -> tuple[int, int]:
        """Start and end, in the stored object (raw codec), of blocks [first, end)."""
        base = self.header_size + self.place.first * self.place.block_size
        return base + first * self.place.block_size, base + min(end * self.place.block_size, self.place.length)

    def whole_blocks(self, end: int) -> int:
        """How many of the run's blocks, from its first on, end at or before byte `end` of the stored object (raw)."""
        plain = end - self.header_size - self.place.first * self.place.block_size
        return self.blocks if plain >= self.place.length else max(0, plain) // self.place.block_size

    def stored(self, view: memoryview, start: int, end: int) -> memoryview:
        """Where bytes [start, end) of the stored object (raw codec) land in a slot's `view`."""
        return view[self._base + start : self._base + end]

    def learn_header(self, data: bytes | memoryview) -> ChunkHeader:
        """The header of one copy, which is kept if it is the first; InvalidFormat unless it is this chunk's."""
        header = parse_header(data, self.place.digest, self.place.plain_size)
        if header.block_size != self.place.block_size:
            raise InvalidFormat(f"chunk {self.place.digest}: block size {header.block_size} is not the manifest's")
        if self.header is None:
            self.header = header
        return header

    def learn_pointer(self, node: str, header: ChunkHeader, data: bytes | memoryview) -> Pointer:
        """The pointer in the whole external chunk of `node`, kept if there is room; InvalidFormat."""
        pointer = parse_pointer(header, data, self.place.digest)
        if len(self.pointers) < POINTERS_MAX:
            self.pointers[node] = pointer
        return pointer

    def matching_until(self, first: int, end: int, memory: memoryview) -> int:
        """The first block of [first, end) that a slot's `memory` does not hold as the header says, else `end`.

        What is readable already is not looked at again: it never changes.
        """
        if self.header is None:
            return first
        skip = self.place.first
        at = first
        while wanted := self.mask(at, end) & ~self.ready:
            start, stop = first_run(wanted)
            plain = self.stored(memory, *self.stored_range(start, stop))
            good = matching_until(self.header, skip + start, skip + stop, plain) - skip
            if good < stop:
                return good
            at = stop
        return end

    def move(self, slot: Slot) -> None:
        """Go on in another slot, because somebody who cannot be stopped may still write into blocks that are not ready.

        The one it had stays its own as well: requests of other jobs may be landing there.
        """
        old, self.slot = self.slot, slot
        self.left.append(old)
        ready = self.ready
        while ready:
            first, end = first_run(ready)
            ready &= ~self.mask(first, end)
            self.block_view(first, end)[:] = self.stored(old.view, *self.stored_range(first, end))

    def accept(self, first: int, end: int, memory: memoryview) -> int:
        """Make blocks [first, end), which match, readable from a slot's `memory`; return how many bytes are new.

        They are copied unless that is the fill's own slot.
        """
        new = 0
        fresh = wanted = self.mask(first, end) & ~self.ready
        while wanted:
            start, stop = first_run(wanted)
            wanted &= ~self.mask(start, stop)
            if memory is not self.slot.view:
                self.block_view(start, stop)[:] = self.stored(memory, *self.stored_range(start, stop))
            new += min(stop * self.place.block_size, self.place.length) - start * self.place.block_size
        self.mark_ready(fresh)
        return new

    def mark_ready(self, mask: int) -> None:
        """Blocks of `mask` are verified and in place."""
        self.ready |= mask
        self.pending &= ~mask
        self._tell()

    def end_job(self, mask: int, failure: Exception | None) -> None:
        """Nobody is fetching the blocks of `mask` any more; `failure` says why some are not ready."""
        self.pending &= ~mask
        if failure is not None:
            self.failure = failure
        self._tell()

    def _tell(self) -> None:
        for changed in tuple(self.waiting):
            changed()
