"""What every client needs: a store for each node of the cluster, and the catalogue over them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shardfs.catalog import Catalog
from shardfs.config import read_token
from shardfs.core.cluster import Cluster, Node
from shardfs.store.base import Store
from shardfs.store.file import FileStore
from shardfs.store.fleet import Fleet
from shardfs.store.http import HttpStore
from shardfs.store.watched import WatchedStore


def open_store(node: Node) -> Store:
    """The engine for the node's url. Connects to nothing yet. UsageError when its token cannot be read."""
    url = urlsplit(node.url)
    if url.scheme == "file":
        return FileStore(node.id, Path(unquote(url.path)))
    return HttpStore(node.id, node.url, token=read_token(node))


def open_fleet(cluster: Cluster) -> Fleet:
    """All nodes of the cluster, watched. The caller closes it."""
    return Fleet([WatchedStore(open_store(node)) for node in cluster.nodes])


@asynccontextmanager
async def client(cluster: Cluster, *, manifests: Path | None = None) -> AsyncIterator[tuple[Fleet, Catalog]]:
    """The fleet and its catalogue, closed at the end. `manifests`: a folder that keeps verified manifests."""
    async with open_fleet(cluster) as fleet:
        yield fleet, Catalog(fleet, cluster, manifests=manifests)
