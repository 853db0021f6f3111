"""A small cluster in memory, seen by any number of clients, each with its own opinion of the nodes."""

from collections.abc import Sequence

import pytest

from shardfs.catalog import Catalog, CatalogOptions
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest, digest_of
from shardfs.core.keys import RefName, manifest_key
from shardfs.core.manifest import Manifest, make_manifest
from shardfs.core.ref import encode_ref
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.testing.memory_store import MemoryStore


class World:
    """Nodes a, b, c... `client()` makes another independent catalogue over them."""

    def __init__(self, nodes: int = 3, replicas: int = 2) -> None:
        self.stores = [MemoryStore("abcdefghij"[i]) for i in range(nodes)]
        listed = tuple(Node(store.node, f"file:///{store.node}") for store in self.stores)
        self.cluster = Cluster(listed, replicas, 4 * 1024 * 1024)

    def fleet(self) -> Fleet:
        return Fleet([WatchedStore(store, chance=lambda: 0.5) for store in self.stores])

    def client(self, fleet: Fleet | None = None, **options) -> Catalog:
        folder = options.pop("manifests", None)
        return Catalog(
            fleet or self.fleet(),
            self.cluster,
            options=CatalogOptions(**options),
            manifests=folder,
            chance=lambda: 0.5,
        )

    def plant(self, ref: RefName, nodes: Sequence[int] = (0, 1, 2)) -> RefName:
        """Put a ref on some nodes, without asking anybody."""
        for i in nodes:
            self.stores[i].objects[ref.key] = encode_ref(ref)
        return ref

    def plant_manifest(self, manifest: Manifest, nodes: Sequence[int] = (0, 1, 2)) -> Digest:
        data = manifest.encode()
        for i in nodes:
            self.stores[i].objects[manifest_key(digest_of(data))] = data
        return digest_of(data)

    def holders(self, ref: RefName) -> str:
        return "".join(store.node for store in self.stores if ref.key in store.objects)


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def world():
    return World()


@pytest.fixture
def content():
    """A manifest that differs with `text` in its content, and with `created` only in its time."""

    def make(text: str, created: int = 1) -> Manifest:
        return make_manifest([(f"{text}.txt", 1, False)], bytes(digest_of(text.encode())), created=created)

    return make
