"""Whether the chunks of a generation are stored as bytes or point into objects of others, and into which node's."""

from collections import Counter
from collections.abc import Mapping
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

LOOKED_MAX = 256
"""Chunks looked at; of more, so many that lie evenly among them."""

_AT_ONCE = 16
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Of `looked` chunks, how many point into each node's engine. The others are bytes, or were not found."""

    looked: int
    external: Mapping[str, int]


async def whereabouts(fleet: Fleet, placement: Placement, manifest: Manifest) -> Whereabouts:
    """Ask one owner of each chunk, the next where it does not have it. Never fails because of a node."""
    lengths = list(manifest.chunk_lengths().items())
    step = max(1.0, len(lengths) / LOOKED_MAX)
    chosen = [lengths[int(at * step)] for at in range(min(len(lengths), LOOKED_MAX))]
    found: Counter[str] = Counter()
    waiting = iter(chosen)

    async def look() -> None:
        for digest, length in waiting:
            for owner in placement.owners(digest):
                store = fleet[owner.id]
                if store.available and (node := await _pointed(store, digest, length, manifest.block_size)) is not None:
                    found[node] += 1
                    break

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(look)
    del found[""]
    return Whereabouts(len(chosen), dict(sorted(found.items())))


async def _pointed(store: WatchedStore, digest: Digest, length: int, block_size: int) -> str | None:
    """The node that this one's pointer names, empty when it has bytes, None when it has neither or does not say."""
    into = memoryview(bytearray(head_size_max(length, block_size)))
    with trio.move_on_after(_SECONDS):
        try:
            count = await store.get(chunk_key(digest), into)
            header = parse_header(into[:count], digest, length)
            return parse_pointer(header, into[:count], digest).node if header.codec == EXTERNAL else ""
        except ShardfsError:
            return None
    store.late(f"no answer within {_SECONDS:g} s")
    return None
