"""Whether the chunks of a generation are stored as bytes or point into objects of others, and into which node's.

Nothing but the chunks themselves tells, so each costs a request for its head. They are bounded, at a time and in all;
of more chunks, those are looked at that lie evenly among them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import trio

from shardfs.core.chunk import EXTERNAL, head_size_max, parse_header, parse_pointer
from shardfs.core.digest import Digest
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import Manifest
from shardfs.core.placement import Placement
from shardfs.errors import ShardfsError
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

SAMPLE_MAX = 256
"""Chunks looked at to find out whether any of them points elsewhere."""
LOOKED_MAX = 4096
"""Chunks looked at to find out where each of them lies."""

_AT_ONCE = 16
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Of `looked` chunks, how many point into each node's engine. The others are bytes, or were not found."""

    looked: int
    external: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Copy:
    """What was found under a chunk's name on `holder`: a pointer to node `engine`, or its bytes when that is empty."""

    holder: str
    engine: str

    @property
    def server(self) -> str:
        """The node from which the bytes come."""
        return self.engine or self.holder


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who delivers each chunk, "" for nobody; and of those that lie elsewhere, who is asked and has the pointer.

    `looked` chunks were looked at. The others are as the one before them that was; or, when there was no pointer among
    the first `SAMPLE_MAX`, bytes on the node that is asked.
    """

    servers: Mapping[Digest, str]
    pointers: Mapping[Digest, str]
    looked: int


async def whereabouts(fleet: Fleet, placement: Placement, manifest: Manifest) -> Whereabouts:
    """Ask one owner of each chunk, the next where it does not have it. Never fails because of a node."""
    chosen = _evenly(list(manifest.chunk_lengths()), SAMPLE_MAX)
    found = await _Look(fleet, manifest, lambda chunk: _ids(placement, chunk)).at(chosen)
    engines = Counter(copy.engine for copy in found.values() if copy and copy.engine)
    return Whereabouts(len(chosen), dict(sorted(engines.items())))


async def delivery(
    fleet: Fleet, placement: Placement, manifest: Manifest, *, asked: Mapping[Digest, str], answering: set[str]
) -> Delivery:
    """Who delivers when `asked` says whom a reader asks first for each chunk. Never fails because of a node.

    A pointer to a node that is not `answering` is passed over when another owner has better, as a reader does it.
    """
    if not any(store.holds_external for store in fleet.stores):
        return Delivery(asked, {}, 0)  # no pointer could lead anywhere

    def order(chunk: Digest) -> list[str]:
        first = asked[chunk]
        return [first, *(node for node in _ids(placement, chunk) if node in answering and node != first)]

    look = _Look(fleet, manifest, order, good=lambda copy: copy.server in answering)
    chunks = [chunk for chunk in manifest.chunk_lengths() if asked[chunk]]
    found = await look.at(_evenly(chunks, SAMPLE_MAX))
    if not any(copy and copy.engine for copy in found.values()):
        return Delivery(asked, {}, len(found))
    found |= await look.at([chunk for chunk in _evenly(chunks, LOOKED_MAX) if chunk not in found])
    servers, pointers = dict(asked), dict[Digest, str]()
    before: Copy | None = None
    for chunk in chunks:
        before = found[chunk] if chunk in found else before and Copy(asked[chunk], before.engine)
        servers[chunk] = before.server if before and before.server in answering else ""
        if before and before.engine:
            pointers[chunk] = before.holder
    return Delivery(servers, pointers, len(found))


def _evenly(chunks: Sequence[Digest], count: int) -> list[Digest]:
    step = max(1.0, len(chunks) / count)
    return [chunks[int(at * step)] for at in range(min(len(chunks), count))]


def _ids(placement: Placement, chunk: Digest) -> list[str]:
    return [owner.id for owner in placement.owners(chunk)]


class _Look:
    """Looks at chunks. `order(chunk)` is whom it asks; the first copy that is `good` counts, else the first."""

    def __init__(
        self,
        fleet: Fleet,
        manifest: Manifest,
        order: Callable[[Digest], Iterable[str]],
        good: Callable[[Copy], bool] = lambda _: True,
    ) -> None:
        self._fleet = fleet
        self._lengths = manifest.chunk_lengths()
        self._block_size = manifest.block_size
        self._order = order
        self._good = good

    async def at(self, chunks: Iterable[Digest]) -> dict[Digest, Copy | None]:
        """What each chunk is found to be; None where no node that was asked has it."""
        found: dict[Digest, Copy | None] = {}
        waiting = iter(chunks)

        async def look() -> None:
            for chunk in waiting:
                found[chunk] = await self._first(chunk)

        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(look)
        return found

    async def _first(self, chunk: Digest) -> Copy | None:
        first: Copy | None = None
        for node in self._order(chunk):
            store = self._fleet[node]
            copy = await self._copy(store, chunk) if store.available else None
            if copy is not None and self._good(copy):
                return copy
            first = first or copy
        return first

    async def _copy(self, store: WatchedStore, chunk: Digest) -> Copy | None:
        """None when the node has neither bytes nor a pointer, or does not say."""
        length = self._lengths[chunk]
        into = memoryview(bytearray(head_size_max(length, self._block_size)))
        with trio.move_on_after(_SECONDS):
            try:
                count = await store.get(chunk_key(chunk), into)
                header = parse_header(into[:count], chunk, length)
                if header.codec == EXTERNAL:
                    return Copy(store.node, parse_pointer(header, into[:count], chunk).node)
                return Copy(store.node, "")
            except ShardfsError:
                return None
        store.late(f"no answer within {_SECONDS:g} s")
        return None
