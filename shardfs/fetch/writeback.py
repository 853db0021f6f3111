"""Fetched blocks on their way to the disk cache, behind the reader.

Each waiting write pins its fill, so the queue is bounded by the memory, and holds its cache file, since a small file is
closed by its reader before it is written. When memory is short because the disk is slow, the oldest waiting writes are
given up (`shed`): the cache may forget, a reader must not wait for it. A disk that stands still for a moment is waited
for; from one that hangs on nothing is kept.
"""

import logging
from collections import deque
from dataclasses import dataclass, field

import trio

from shardfs.cache import CacheFile
from shardfs.cache.memory import SlotPool
from shardfs.fetch.fill import Fill

logger = logging.getLogger(__name__)

WRITERS = 2
LOOK_SECONDS = 0.25
"""How often a writer looks whether a disk that hangs is back."""


END_LOOK_SECONDS = 0.05
"""The same, when all is to end."""


@dataclass(slots=True, eq=False)
class _Write:
    """Blocks [first, end) of the fill; the chunk's block 0 is the file's block `base`.

    `scope`: of the thread that writes. What was let go of there is still in its hands.
    """

    fill: Fill
    file: CacheFile
    base: int
    first: int
    end: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Writeback:
    """Guarded by the event loop."""

    def __init__(self, pool: SlotPool) -> None:
        self._pool = pool
        self._queue: deque[_Write] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._threads = trio.CapacityLimiter(WRITERS)
        self._running: set[_Write] = set()

    def add(self, fill: Fill, file: CacheFile, base: int, blocks: tuple[int, int]) -> None:
        """Write these blocks of the fill when the disk gets to it. `base` is the chunk's first block in the file.

        Not when the disk has hung for long: then what waits is given up, too.
        """
        if file.given_up:
            self.shed()
            return
        fill.pins += 1
        file.hold()
        self._queue.append(_Write(fill, file, base, *blocks))
        self._work.unpark()

    def shed(self) -> None:
        """Give up the writes that have not begun."""
        while self._queue:
            self._release(self._queue.popleft())

    async def run(self) -> None:
        """Write until cancelled; then what has begun is finished, unless its disk hangs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end)
            for _ in range(min(WRITERS, self._pool.slots - 1)):  # writers that hang leave a slot to the readers
                nursery.start_soon(self._write_all)

    async def _write_all(self) -> None:
        while True:
            while not self._queue:
                await self._work.park()
            write = self._queue.popleft()
            try:
                await self._write(write)
            except Exception:  # a bug must cost this write, not the mount
                logger.exception("cache file of chunk %s", write.fill.place.digest)
            finally:
                if write not in self._running:
                    self._release(write)

    async def _write(self, write: _Write) -> None:
        while True:
            while write.file.hangs:
                if write.file.given_up:
                    return
                await trio.sleep(LOOK_SECONDS)
            view = write.fill.block_view(write.first, write.end)
            with trio.CancelScope(shield=True) as write.scope:
                self._running.add(write)
                try:
                    stored = await trio.to_thread.run_sync(
                        write.file.write, write.base + write.first, view, abandon_on_cancel=True, limiter=self._threads
                    )
                except Exception:
                    self._running.remove(write)
                    raise
                self._running.remove(write)  # not when it was let go of: then its thread goes on
            if stored or not write.file.hangs:
                return

    async def _end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.shed()
            with trio.CancelScope(shield=True):
                while any(write.scope.shield for write in self._running):
                    for write in self._running:
                        write.scope.shield &= not write.file.hangs  # once let go of, for good
                    await trio.sleep(END_LOOK_SECONDS)

    def _release(self, write: _Write) -> None:
        write.file.close()
        write.fill.pins -= 1
        if not write.fill.pins:
            self._pool.wake()
