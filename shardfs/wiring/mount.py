"""The object graph of a mount, built in one place, and its order of starting and stopping."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from shardfs.core.cluster import Cluster
from shardfs.core.readahead import ReadAheadOptions
from shardfs.core.units import format_size
from shardfs.errors import ShardfsError, UsageError
from shardfs.mount.mountpoint import check_system, prepare
from shardfs.mount.session import MountOptions, Ready, serve
from shardfs.store.fleet import Fleet
from shardfs.vfs import FileSystem
from shardfs.vfs.filesystem import FileSystemOptions
from shardfs.vfs.namespace import Namespace, NamespaceOptions
from shardfs.vfs.trace import Recorder, TracedFileSystem
from shardfs.wiring.allocator import give_back_large_buffers
from shardfs.wiring.reader import Reader, ReaderOptions, reader

logger = logging.getLogger(__name__)

SPACE_REFRESH_SECONDS = 30.0
SPACE_TIMEOUT_SECONDS = 2.0
_NAMES_SECONDS = 1.0
_MANIFEST_SECONDS = 2.0
_MAP_SECONDS = 0.5
_READAHEAD_SHARE = 8
_READAHEAD_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Record each read in `file`; `delay_seconds` more for each, see `vfs.trace`."""

    file: Path
    delay_seconds: float = 0.0


async def mount(
    cluster: Cluster,
    mountpoint: Path,
    options: MountOptions,
    reading: ReaderOptions,
    *,
    trace: TraceOptions | None = None,
    ready: Callable[[Ready], None],
) -> None:
    """Mount the cluster's models and serve them until unmounted or told to stop.

    MountError when nothing can be mounted there, NotEnoughNodes when no node answers at the start; afterwards the mount
    goes on without any.
    """
    check_system()
    prepare(mountpoint)  # before the cache is opened: what is mounted there has it
    give_back_large_buffers()
    async with reader(cluster, reading) as parts:
        view = await parts.catalog.refs()
        logger.info("%d models, nodes answering: %s", len(view.models), ", ".join(view.answered))
        space = Space(parts.fleet, cluster.replicas)
        patience = options.read_timeout_seconds / 4  # names, then manifests: both within the deadline of one call
        namespace = Namespace(
            parts.catalog, NamespaceOptions(wait_seconds=min(_NAMES_SECONDS, patience)), models=view.models
        )
        with ExitStack() as stack:
            build = FileSystem if trace is None else _traced(trace, stack)
            filesystem = build(
                namespace,
                parts.engine,
                disk=parts.disk,
                started=int(time.time()),
                options=FileSystemOptions(
                    map_seconds=min(_MAP_SECONDS, patience),
                    manifest_seconds=min(_MANIFEST_SECONDS, patience),
                    listing_seconds=2.8 * patience,  # with the names before it, within the deadline of one call
                    readahead=_readahead(reading),
                ),
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(namespace.run)
                nursery.start_soon(space.watch)
                await serve(filesystem, mountpoint, options, space=space.now, ready=ready)
                nursery.cancel_scope.cancel()
        _log_totals(parts)


def _traced(trace: TraceOptions, stack: ExitStack) -> Callable[..., FileSystem]:
    try:
        recorder = stack.enter_context(Recorder(trace.file))
    except OSError as error:
        raise UsageError(f"--trace: {trace.file}: {error.strerror}") from None
    return partial(TracedFileSystem, recorder=recorder, delay_seconds=trace.delay_seconds)


def _readahead(reading: ReaderOptions) -> ReadAheadOptions:
    return ReadAheadOptions(window_bytes_max=min(_READAHEAD_BYTES_MAX, reading.memory_bytes // _READAHEAD_SHARE))


class Space:
    """Capacity and free bytes for models over all nodes, asked now and then, never waited for."""

    def __init__(self, fleet: Fleet, replicas: int) -> None:
        self._fleet = fleet
        self._replicas = replicas
        self._capacity: dict[str, int] = {}
        self._free: dict[str, int] = {}

    def now(self) -> tuple[int, int]:
        return sum(self._capacity.values()) // self._replicas, sum(self._free.values()) // self._replicas

    async def watch(self) -> None:
        """Refresh until cancelled."""
        while True:
            async with trio.open_nursery() as nursery:
                for store in self._fleet.stores:
                    nursery.start_soon(self._ask, store.node)
            await trio.sleep(SPACE_REFRESH_SECONDS)

    async def _ask(self, node: str) -> None:
        with trio.move_on_after(SPACE_TIMEOUT_SECONDS):
            try:
                stat = await self._fleet[node].stat()
            except ShardfsError:
                return
            self._capacity[node], self._free[node] = stat.capacity_bytes or 0, stat.free_bytes or 0


def _log_totals(parts: Reader) -> None:
    fetched = parts.metrics.total(parts.metrics.fetched_bytes)
    disk = parts.metrics.total(parts.metrics.disk_bytes)
    logger.info("read %s from nodes and %s from the disk cache", format_size(fetched), format_size(disk))
