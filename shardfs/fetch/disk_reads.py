"""Blocks of a fill from the disk cache, by a few threads, in the order in which they were asked for.

One file's long reads go two at a time and no more, so that the disk sees one sequential reader and the kernel's
read-ahead does its work: while one is copied out of the page cache the other is verified. Warm reads of 1 GiB, seven
in turns: 0.66 CPU seconds of the daemon instead of 0.81 with four at a time, and 1400 MiB/s (984 to 1613) against 1332
(1046 to 1433).

Short reads, which go around the page cache, wait for a free thread only.

A disk that hangs keeps the threads, and nothing stops one that may write into its slot at any time. So its fill moves
to another slot (`Fill.move`), and what was waited for is a miss. That is looked after now and then, not by a timer for
each read: a read that waits its turn at a slow disk is not late. The slot is in use until its thread comes back.
"""

import math
from weakref import WeakValueDictionary

import trio

from shardfs.cache import CacheFile
from shardfs.cache.memory import Slot, SlotPool
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.fetch.writeback import WRITERS
from shardfs.obs.reading import ReadMetrics

LONG_BYTES = 1024 * 1024
LONG_AT_A_TIME = 2
LOOK_SECONDS = 0.25
"""How often it is asked whether the disk hangs, while anything is read from it."""


class DiskReads:
    """One for each engine. `threads`: for all files together; fewer where there is little memory."""

    def __init__(self, pool: SlotPool, *, threads: int, metrics: ReadMetrics) -> None:
        self._pool = pool
        # Should all hang, each costs two slots and each writer one; then there is still one for the readers.
        self._threads = trio.CapacityLimiter(min(threads, max(1, (pool.slots - WRITERS) // 2)))
        self._metrics = metrics
        self._lanes: WeakValueDictionary[int, trio.Semaphore] = WeakValueDictionary()
        self._reads: set[_Read] = set()
        self._begun = trio.lowlevel.ParkingLot()

    async def watch(self) -> None:
        """Give up reads whose disk hangs, until cancelled; then, nobody waits for threads any more."""
        try:
            while True:
                if not self._reads:
                    await self._begun.park()
                await trio.sleep(LOOK_SECONDS)
                for read in tuple(self._reads):
                    if read.file.hangs and trio.current_time() >= read.until:
                        read.give_up()
        finally:
            for read in self._reads:
                read.scope.shield = False

    async def bring(self, fill: Fill, place: ChunkPlace, first: int, end: int, *, until: float = -math.inf) -> None:
        """Make ready what the disk cache has of blocks [first, end). A disk that hangs is waited for `until` then."""
        file, base = place.cache_file, place.cache_block
        while file is not None and first < end:
            present = file.missing(base + first, base + end) - base
            if present > first:
                read = _Read(fill, (first, present), file, base, until=until, pool=self._pool, threads=self._threads)
                if await self._read(read):
                    self._metrics.disk_bytes.inc(read.length)
                    fill.mark_ready(fill.mask(first, present))
            first = present + 1

    def held_up(self, place: ChunkPlace, first: int, end: int) -> bool:
        """Whether the disk cache has all of blocks [first, end), on a disk that hangs."""
        file, base = place.cache_file, place.cache_block
        return file is not None and file.held_up(base + first, base + end)

    async def answers(self, place: ChunkPlace, first: int, end: int, scope: trio.CancelScope) -> None:
        """Cancel `scope` as soon as that is over."""
        while self.held_up(place, first, end):  # noqa: ASYNC110 - the disk answers to threads of many kinds
            await trio.sleep(LOOK_SECONDS)
        scope.cancel()

    async def _read(self, read: "_Read") -> bool:
        """Whether the blocks are in the fill's slot."""
        self._reads.add(read)
        if self._begun:
            self._begun.unpark()
        try:
            with read.scope:
                if read.length < LONG_BYTES:
                    return await read.run()
                lane = self._lanes.setdefault(read.file.number, trio.Semaphore(LONG_AT_A_TIME))
                async with lane:
                    return await read.run()
        finally:
            self._reads.remove(read)
            read.settle()
        return False


class _Read:
    """One read by a thread. To trio it is the limiter of its thread, and so hears of its beginning and its end.

    The end may come after it was given up. Until then its slot has one user more.
    """

    def __init__(
        self,
        fill: Fill,
        blocks: tuple[int, int],
        file: CacheFile,
        base: int,
        *,
        until: float,
        pool: SlotPool,
        threads: trio.CapacityLimiter,
    ) -> None:
        self.file = file
        self.until = until
        self.length = len(fill.block_view(*blocks))
        self.scope = trio.CancelScope()
        self._fill = fill
        self._blocks = blocks
        self._at = base + blocks[0]
        self._pool = pool
        self._threads = threads
        self._slot: Slot | None = None  # since it has a thread
        self._view = memoryview(b"")
        self._running = False
        self._spare: Slot | None = None

    async def run(self) -> bool:
        """Whether the blocks are in the fill's slot, after this read has had its turn."""
        good = await trio.to_thread.run_sync(self._by_thread, abandon_on_cancel=True, limiter=self)  # type: ignore[arg-type]
        if good and self._slot is not self._fill.slot:  # another read of the fill was given up meanwhile
            self._fill.block_view(*self._blocks)[:] = self._view
        return good

    def give_up(self) -> None:
        """The disk hangs. Without memory for another slot only reads that have not begun are given up."""
        if self._running and self._slot is self._fill.slot and self._spare is None:
            self._spare = self._pool.try_acquire()
            if self._spare is None:
                return
        self.scope.cancel()

    def settle(self) -> None:
        """Nobody waits for it any more."""
        if self._spare is None:
            return
        if self._running and self._slot is self._fill.slot:
            self._fill.move(self._spare)
        else:
            self._pool.release(self._spare)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """There is a thread: from now on the read is ended by itself, or by a disk that hangs."""
        await self._threads.acquire_on_behalf_of(borrower)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # given up while it waited: no thread must begin
        except trio.Cancelled:
            self._threads.release_on_behalf_of(borrower)
            raise
        self.scope.shield = True
        self._slot = self._fill.slot
        self._view = self._fill.block_view(*self._blocks)
        self._pool.share(self._slot)
        self._running = True

    def release_on_behalf_of(self, borrower: object) -> None:
        """The thread is back."""
        assert self._slot is not None
        self._running = False
        self._pool.release(self._slot)
        self._threads.release_on_behalf_of(borrower)

    def _by_thread(self) -> bool:
        return self.file.read(self._at, self._view)
