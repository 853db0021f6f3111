"""A cluster in memory, and what is published to it."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardfs.admin.copies import Copies
from shardfs.admin.origin import LocalOrigin
from shardfs.admin.publish import Put, publish
from shardfs.admin.source import Source, scan
from shardfs.admin.target import CopyOptions
from shardfs.admin.upload import Tally
from shardfs.catalog import Catalog
from shardfs.core.chunk import BLOCK_SIZE, verify_chunk
from shardfs.core.cluster import Cluster, Node
from shardfs.core.keys import CHUNKS, MANIFESTS, chunk_key
from shardfs.core.manifest import Manifest
from shardfs.core.names import ModelName
from shardfs.core.placement import Placement
from shardfs.core.ranges import chunk_count
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.testing.memory_store import MemoryStore


@dataclass
class Rig:
    """Nodes a, b, c... in memory. Every publish is a new uploader, which knows nothing of those before."""

    nodes: int = 3
    replicas: int = 2
    chunk_size: int = BLOCK_SIZE
    draining: str = ""
    options: CopyOptions = field(default_factory=CopyOptions)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.cluster = Cluster(
            tuple(
                Node(name, f"http://{name}", state="draining" if name in self.draining else "active")
                for name in "abcdefghij"[: self.nodes]
            ),
            self.replicas,
            self.chunk_size,
        )
        self.stores = {node.id: MemoryStore(node.id) for node in self.cluster.nodes}
        self.placement = Placement(self.cluster)
        self.fleet = Fleet([WatchedStore(store) for store in self.stores.values()])
        self.catalog = Catalog(self.fleet, self.cluster)

    def copies(self) -> Copies:
        return Copies(self.fleet, self.placement, options=self.options, chance=lambda: 0.5)

    async def publish(self, src: Path | Source, name: str = "m") -> Put:
        self.tally = Tally()
        source = src if isinstance(src, Source) else scan(str(src))
        return await publish(
            LocalOrigin(source), name, copies=self.copies(), catalog=self.catalog, created=1700000000, tally=self.tally
        )

    async def manifest(self, name: str = "m") -> Manifest:
        return await self.catalog.manifest((await self.catalog.resolve(ModelName.parse(name))).manifest)

    async def content(self, name: str = "m") -> dict[str, bytes]:
        """Every file but `sparse` as a reader would put it together, each chunk verified on R nodes."""
        manifest = await self.manifest(name)
        return {file.path: b"".join(self._chunks(manifest, file)) for file in manifest.files if file.path != "sparse"}

    def _chunks(self, manifest, file):
        for chunk in range(chunk_count(file.size, manifest.chunk_size)):
            digest = manifest.digest(file, chunk)
            if digest is None:
                yield bytes(min(manifest.chunk_size, file.size - chunk * manifest.chunk_size))
                continue
            held = [
                store.objects[chunk_key(digest)] for store in self.stores.values() if chunk_key(digest) in store.objects
            ]
            assert len(held) >= self.replicas
            for data in held:
                header = verify_chunk(data, digest)
            yield held[0][header.size :]

    def chunks(self, node: str) -> set[str]:
        return {key for key in self.stores[node].objects if key.kind == CHUNKS}

    def manifests(self) -> set[str]:
        """The digests of all manifests."""
        return {key[-64:] for store in self.stores.values() for key in store.objects if key.kind == MANIFESTS}

    def refs(self) -> list[str]:
        return [key for store in self.stores.values() for key in store.objects if key.kind == "refs"]

    def calls(self, node: str, op: str) -> int:
        return sum(called == op for called, _ in self.stores[node].calls)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    return Rig


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a bit of everything; 12 chunks of 256 KiB with data in it, all different."""
    root = tmp_path / "model"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "void").mkdir()
    (root / "weights.bin").write_bytes(random.Random(1).randbytes(10 * BLOCK_SIZE + 17))  # on the same nodes each time
    (root / "deep" / "er" / "config.json").write_bytes(b"{}")
    (root / "deep" / "nothing").touch()
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 32)
    for path in root.rglob("*"):
        os.utime(path, (1000, 1000))  # of long ago: the next write may fall into the same tick of the kernel's clock
    return root
