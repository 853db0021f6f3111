"""The read engine over a cluster, built in one place, and its order of starting and stopping.

Used by everything that reads model bytes: the mount and `shardfs get`.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from shardfs.cache import DiskCache
from shardfs.cache.memory import SlotPool
from shardfs.catalog import Catalog, CatalogOptions
from shardfs.core.chunk import BLOCK_SIZE, header_size
from shardfs.core.cluster import Cluster
from shardfs.core.placement import Placement
from shardfs.errors import UsageError
from shardfs.fetch import Engine, EngineOptions
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.wiring.client import open_fleet

RUN_BYTES = 4 * 1024 * 1024
"""The unit of memory. Chunks of this size are one run; larger ones, several. At least one block of any manifest."""

MANIFEST_BYTES_MAX = 1024 * 1024 * 1024
"""What manifests may take of the disk cache, which is an eighth of it when that is less. Blocks have the rest."""

_MANIFEST_SHARE = 8
_JOB_SHARE = 0.9
"""Of the read timeout, for a job: the rest is for the answer with its reasons to get out before the hard deadline."""


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """What a reading program may use. `cache` None: memory only. `touched_share`: of memory, touched at the start.

    `memory_bytes` is for bytes of files; `cache_bytes` for all that lies in the folder, manifests included.
    """

    memory_bytes: int = 512 * 1024 * 1024
    cache: Path | None = None
    cache_bytes: int = 0
    read_timeout_seconds: float = 10.0
    touched_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Reader:
    """Everything that reads, running."""

    fleet: Fleet
    catalog: Catalog
    engine: Engine
    disk: DiskCache | None
    metrics: ReadMetrics


@asynccontextmanager
async def reader(cluster: Cluster, options: ReaderOptions) -> AsyncIterator[Reader]:
    """A running read engine over the cluster, with its caches. CacheError, UsageError."""
    try:
        pool = SlotPool(options.memory_bytes, plain_bytes=RUN_BYTES, header_bytes=header_size(RUN_BYTES, BLOCK_SIZE))
    except ValueError as error:
        raise UsageError(f"--memory: {error}") from None
    metrics = ReadMetrics()
    # Who reads keeps the manifests that it needs itself.
    manifest_bytes = min(MANIFEST_BYTES_MAX, options.cache_bytes // _MANIFEST_SHARE)
    cataloguing = CatalogOptions(memory_bytes=0, folder_bytes=manifest_bytes)
    with ExitStack() as stack:
        disk = None
        if options.cache is not None:
            disk = DiskCache.open(options.cache, limit_bytes=options.cache_bytes - manifest_bytes)
            stack.callback(disk.close)
        async with open_fleet(cluster) as fleet, trio.open_nursery() as nursery:
            catalog = Catalog(
                fleet, cluster, options=cataloguing, manifests=disk.manifests if disk is not None else None
            )
            engine = Engine(
                fleet,
                Placement(cluster),
                pool,
                metrics=metrics,
                options=EngineOptions(job_timeout_seconds=options.read_timeout_seconds * _JOB_SHARE),
            )
            await nursery.start(fleet.run_probes)
            await nursery.start(engine.run)
            nursery.start_soon(catalog.tidy)
            nursery.start_soon(pool.touch, int(pool.slots * options.touched_share))
            yield Reader(fleet, catalog, engine, disk, metrics)
            nursery.cancel_scope.cancel()
