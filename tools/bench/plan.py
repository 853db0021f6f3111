"""Where the chunks of a published model lie, as the helper programs need it: ports, request targets, sizes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shardfs.config import load_cluster
from shardfs.core.chunk import block_length, header_size
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.names import ModelName
from shardfs.core.placement import Placement
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.core.readahead import ReadAheadOptions
from shardfs.wiring.client import client


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One chunk of one file: `offset` in the file, `port` of the owner that a balanced load would ask."""

    path: str
    offset: int
    plain_size: int
    header_bytes: int
    block_size: int
    node: str
    port: int
    target: str

    @property
    def object_bytes(self) -> int:
        return self.header_bytes + self.plain_size

    def block(self, number: int, *, with_header: bool) -> tuple[int, int]:
        """Start and end, in the stored object, of a block; from the very start when `with_header`."""
        start = self.header_bytes + number * self.block_size
        return (0 if with_header else start), start + block_length(self.plain_size, self.block_size, number)


@dataclass(frozen=True, slots=True)
class Stored:
    """A model on its nodes. `in_flight`: chunks that shardfs asks for at once."""

    manifest: Manifest
    chunks: tuple[StoredChunk, ...]
    in_flight: int

    @property
    def wire_plan(self) -> list[list[object]]:
        return [[chunk.port, chunk.target, chunk.object_bytes] for chunk in self.chunks]


async def stored_model(cluster_file: Path, name: str) -> Stored:
    """Look the model up on its cluster, and give each chunk to that owner with the fewest bytes so far."""
    cluster = load_cluster(cluster_file)
    async with client(cluster) as (_, catalog):
        ref = await catalog.resolve(ModelName(name))
        manifest = await catalog.manifest(ref.manifest)
    placement = Placement(cluster)
    load: Counter[str] = Counter()
    chunks = [chunk for file in manifest.files for chunk in _chunks(manifest, file, placement, load)]
    return Stored(manifest, tuple(chunks), max(1, ReadAheadOptions().window_bytes_max // manifest.chunk_size))


def _chunks(manifest: Manifest, file: FileEntry, placement: Placement, load: Counter[str]) -> list[StoredChunk]:
    found = []
    for number in range(chunk_count(file.size, manifest.chunk_size)):
        digest = manifest.digest(file, number)
        if digest is None:
            continue
        size = chunk_length(file.size, manifest.chunk_size, number)
        owner = min(placement.owners(digest), key=lambda node: load[node.id])
        load[owner.id] += size
        found.append(
            StoredChunk(
                path=file.path,
                offset=number * manifest.chunk_size,
                plain_size=size,
                header_bytes=header_size(size, manifest.block_size),
                block_size=manifest.block_size,
                node=owner.id,
                port=urlsplit(owner.url).port or 80,
                target=f"/{chunk_key(digest)}",
            )
        )
    return found
