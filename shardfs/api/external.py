"""Publishing what lies on an engine already: what `shardfs import` does."""

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from shardfs.admin.asking import Asking
from shardfs.admin.copies import Copies, Replaced
from shardfs.admin.external import find_external
from shardfs.admin.origin import Origin
from shardfs.admin.upload import Tally
from shardfs.api.publishing import Watch, publish_watched
from shardfs.core.cluster import Cluster
from shardfs.core.names import check_model
from shardfs.errors import NotFound, UsageError
from shardfs.store.fleet import Fleet

__all__ = ["Imported", "Tally", "import_async"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. Bytes are of the files: new + present + zero = size; all of them were read once.

    `bytes_new`: of chunks of which a pointer had to be stored; `bytes_present`: of chunks that were all there.
    """

    name: str
    generation: int
    digest: str
    node: str
    path: str
    files: int
    size: int
    chunks: int
    bytes_new: int
    bytes_present: int
    bytes_zero: int
    seconds: float
    unchanged: bool
    raced: bool
    replaced_nodes: Mapping[str, Replaced]


async def import_async(
    node: str,
    path: str,
    name: str | None = None,
    *,
    cluster: Cluster,
    tally: Tally,
    watch: Watch,
) -> Imported:
    """Publish the file or folder `path` of the engine behind `node` as the newest generation of `name`, where it lies.

    `path` is relative to the root of the engine, with or without slashes around it; `name` is its last part by default.
    `watch(tally)` runs beside it once everything is listed. Cancelling stops it without publishing anything, until
    `tally.committing`. UsageError, InvalidName, NotFound, SourceError, StoreError, and the errors of a put.
    """
    place = path.strip("/")
    model = check_model(place.rpartition("/")[2] if name is None else name)
    started = trio.current_time()

    async def find(fleet: Fleet, copies: Copies) -> Origin:
        store = fleet.get(node)
        if store is None:
            raise UsageError(f"no node {node!r} in the cluster file; there are {', '.join(_ids(cluster))}")
        store.check_external()
        await copies.check()
        try:
            return await find_external(Asking(store), place)
        except NotFound:
            raise NotFound(f"node {node}: there is no file and no folder with files {place}") from None

    done = await publish_watched(find, model, cluster=cluster, tally=tally, watch=watch)
    return Imported(
        name=done.name,
        generation=done.generation,
        digest=done.digest,
        node=node,
        path=place,
        files=done.files,
        size=done.size,
        chunks=done.chunks,
        bytes_new=done.bytes_sent,
        bytes_present=done.bytes_present,
        bytes_zero=done.bytes_zero,
        seconds=trio.current_time() - started,
        unchanged=done.unchanged,
        raced=done.raced,
        replaced_nodes=done.replaced_nodes,
    )


def _ids(cluster: Cluster) -> list[str]:
    return [node.id for node in cluster.nodes]
