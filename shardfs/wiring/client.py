"""What every client needs: a store for each node of the cluster, and the catalogue over them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardfs.catalog import Catalog
from shardfs.core.cluster import Cluster
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.wiring.engines import open_store


def open_fleet(cluster: Cluster) -> Fleet:
    """All nodes of the cluster, watched. The caller closes it."""
    return Fleet([WatchedStore(open_store(node), read_priority=node.read_priority) for node in cluster.nodes])


@asynccontextmanager
async def client(cluster: Cluster, *, manifests: Path | None = None) -> AsyncIterator[tuple[Fleet, Catalog]]:
    """The fleet and its catalogue, closed at the end. `manifests`: a folder that keeps verified manifests."""
    async with open_fleet(cluster) as fleet:
        yield fleet, Catalog(fleet, cluster, manifests=manifests)
