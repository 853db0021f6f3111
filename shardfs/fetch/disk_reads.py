"""Blocks of a fill from the disk cache, by a few threads, in the order in which they were asked for.

One file's long reads go two at a time and no more, so that the disk sees one sequential reader and the kernel's
read-ahead does its work: while one is copied out of the page cache the other is verified. Warm reads of 1 GiB, seven
in turns: 0.66 CPU seconds of the daemon instead of 0.81 with four at a time, and 1400 MiB/s (984 to 1613) against 1332
(1046 to 1433).

Short reads, which go around the page cache, wait for a free thread only.
"""

from functools import partial
from weakref import WeakValueDictionary

import trio

from shardfs.cache import CacheFile
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.obs.reading import ReadMetrics

LONG_BYTES = 1024 * 1024
LONG_AT_A_TIME = 2


class DiskReads:
    """One for each engine. `threads`: for all files together."""

    def __init__(self, *, threads: int, metrics: ReadMetrics) -> None:
        self._threads = trio.CapacityLimiter(threads)
        self._metrics = metrics
        self._lanes: WeakValueDictionary[int, trio.Semaphore] = WeakValueDictionary()

    async def bring(self, fill: Fill, place: ChunkPlace, first: int, end: int) -> None:
        """Make ready what the disk cache has of blocks [first, end)."""
        file, base = place.cache_file, place.cache_block
        while file is not None and first < end:
            present = file.missing(base + first, base + end) - base
            if present > first:
                view = fill.block_view(first, present)
                if await self._read(file, base + first, view):
                    self._metrics.disk_bytes.inc(len(view))
                    fill.mark_ready(fill.mask(first, present))
            first = present + 1

    async def _read(self, file: CacheFile, block: int, view: memoryview) -> bool:
        # Not abandoned on cancel: the thread writes into the slot until it is done.
        read = partial(trio.to_thread.run_sync, file.read, block, view, limiter=self._threads)
        if len(view) < LONG_BYTES:
            return await read()
        lane = self._lanes.setdefault(file.number, trio.Semaphore(LONG_AT_A_TIME))
        async with lane:
            return await read()
