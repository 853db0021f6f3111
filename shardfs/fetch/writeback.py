"""Fetched blocks on their way to the disk cache, behind the reader.

Each waiting write pins its fill, so the queue is bounded by the memory. When memory is short because the disk is
slow, the oldest waiting writes are given up (`shed`): the cache may forget, a reader must not wait for it.
"""

from collections import deque

import trio

from shardfs.cache.memory import SlotPool
from shardfs.fetch.fill import Fill

WRITERS = 2


class Writeback:
    """Guarded by the event loop."""

    def __init__(self, pool: SlotPool) -> None:
        self._pool = pool
        self._queue: deque[tuple[Fill, int, int]] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._threads = trio.CapacityLimiter(WRITERS)

    def add(self, fill: Fill, first: int, end: int) -> None:
        """Write blocks [first, end) of the fill when the disk gets to it."""
        fill.pins += 1
        self._queue.append((fill, first, end))
        self._work.unpark()

    def shed(self) -> None:
        """Give up the writes that have not begun."""
        while self._queue:
            self._release(self._queue.popleft()[0])

    async def run(self) -> None:
        """Write until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(self._write_all)

    async def _write_all(self) -> None:
        while True:
            while not self._queue:
                await self._work.park()
            fill, first, end = self._queue.popleft()
            file = fill.place.cache_file
            assert file is not None
            try:
                view = fill.block_view(first, end)
                await trio.to_thread.run_sync(file.write, fill.place.cache_block + first, view, limiter=self._threads)
            finally:
                self._release(fill)

    def _release(self, fill: Fill) -> None:
        fill.pins -= 1
        if not fill.pins:
            self._pool.wake()
