"""All chunks that are in memory or on their way: one job for each missing block, whoever asks.

    request(place, ...)  answered from memory; else joins the job that brings the blocks; else starts it
    prefetch(place, ...) starts the job for blocks of a chunk if there is memory for it, and returns at once
    unwanted(place)      what was fetched for nobody may be the first to go

A job looks at the disk cache first (a thread reads and verifies), then at the nodes. It belongs to the engine, not to
the reader that caused it: a reader that gives up cancels nothing that others wait for. What came from nodes is
written to the disk cache behind the reader; such writes hold their slot, so that a slow disk slows prefetching first,
and are given up before they make a reader wait long.
"""

import logging
import math
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

from shardfs.cache.memory import SlotPool
from shardfs.core.placement import Placement
from shardfs.errors import NoCopy, ShardfsError
from shardfs.fetch.disk_reads import DiskReads
from shardfs.fetch.fill import ChunkPlace, Fill, first_run
from shardfs.fetch.fills import Fills
from shardfs.fetch.race import Racer
from shardfs.fetch.report import Report
from shardfs.fetch.waiting import Waiting
from shardfs.fetch.writeback import Writeback
from shardfs.obs.reading import ReadMetrics
from shardfs.obs.throttle import Throttle
from shardfs.store.fleet import Fleet

logger = logging.getLogger(__name__)

SHED_AFTER_SECONDS = 0.25

Reading: TypeAlias = Coroutine[Any, Any, memoryview] | Waiting
"""An answer that is not there yet. For a coroutine nothing happens until it is awaited; the other is under way."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`job_timeout_seconds`: how long a job may try. `unread_share`: of memory, for chunks fetched ahead."""

    job_timeout_seconds: float = 9.0
    unread_share: float = 0.75
    disk_threads: int = 4


class Engine:
    """One for each mount. State is guarded by the event loop; every method says where it may wait."""

    def __init__(
        self,
        fleet: Fleet,
        placement: Placement,
        pool: SlotPool,
        *,
        metrics: ReadMetrics,
        options: EngineOptions = EngineOptions(),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._options = options
        self._racer = Racer(fleet, placement, pool, metrics=metrics, chance=chance)
        self._writeback = Writeback(pool)
        self._disk = DiskReads(pool, threads=options.disk_threads, metrics=metrics)
        self._fills = Fills(pool, unread_share=options.unread_share)
        self._throttle = Throttle()
        self._nursery: trio.Nursery | None = None
        self._stopping = False

    @property
    def run_bytes(self) -> int:
        """The most plain bytes that one `ChunkPlace` may have."""
        return self._pool.plain_bytes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then jobs end, readers are told, and writes already begun are finished."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._writeback.run)
                nursery.start_soon(self._disk.watch)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._stopping = True
        finally:
            self._writeback.shed()

    def request(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview | Reading:
        """Plain bytes [start, start + length) of a run, verified; valid until the caller's next checkpoint.

        What is in memory is answered at once. What is not is on its way when this returns, unless there is no memory
        for it. `whole` says that what follows in the run will be wanted too. NoCopy, now or from the answer.
        """
        fill = self._fills.find(place)
        if fill is not None and fill.has(start, length):
            self._fills.use(fill)
            return self._fills.take(fill, start, length)
        if self._stopping:
            raise self._stopped(place)
        if fill is None:
            slot = self._pool.try_acquire()
            if slot is None:
                return self._later(place, start, length, whole=whole)
            fill = self._fills.enter(place, slot)
        self._fills.use(fill)
        return Waiting(fill, place, start, length, whole=whole, fills=self._fills, begin=self._begin)

    async def read(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview:
        """As `request`, and wait for the answer. Raises NoCopy."""
        answer = self.request(place, start, length, whole=whole)
        return answer if isinstance(answer, memoryview) else await answer

    async def _later(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview:
        """As soon as there is memory."""
        slot = await self._pool.acquire(nudge=self._writeback.shed, nudge_seconds=SHED_AFTER_SECONDS)
        if self._fills.find(place) is not None:
            self._pool.release(slot)
        else:
            self._fills.enter(place, slot)
        return await self.read(place, start, length, whole=whole)

    def prefetch(self, place: ChunkPlace, first: int = 0, end: int | None = None) -> bool:
        """Begin to fetch blocks [first, end) of a run, or all, unless that happens already. False: memory is short."""
        fill = self._fills.find(place)
        if fill is None:
            slot = None if self._stopping else self._fills.spare_slot()
            if slot is None:
                return False
            fill = self._fills.enter(place, slot)
        wanted = fill.mask(first, fill.blocks if end is None else end)
        if wanted & ~fill.ready & ~fill.pending:
            self._start(fill, place, wanted)
        return True

    def unwanted(self, place: ChunkPlace) -> None:
        """Nobody is expected to ask for this run: its memory is the first to be used for others."""
        self._fills.unwanted(place)

    def _begin(self, fill: Fill, place: ChunkPlace, mask: int) -> bool:
        """Another try for somebody who waits; False when there is none."""
        if self._stopping:
            return False
        self._start(fill, place, mask)
        return True

    def _start(self, fill: Fill, place: ChunkPlace, mask: int) -> None:
        """Start jobs for the blocks of `mask` that nobody brings yet, one for each contiguous run.

        `place`: of a reader that has its file open.
        """
        assert self._nursery is not None, "the engine is not running"
        mask &= ~fill.ready & ~fill.pending
        fill.pending |= mask
        fill.failure = None
        while mask:
            first, end = first_run(mask)
            mask &= ~fill.mask(first, end)
            fill.pins += 1
            if place.cache_file is not None:
                place.cache_file.hold()
            self._nursery.start_soon(self._job, fill, place, first, end)

    async def _job(self, fill: Fill, place: ChunkPlace, first: int, end: int) -> None:
        failure: Exception | None = self._stopped(place)  # unless it comes to its end
        try:
            failure = await self._bring(fill, place, first, end)
            if failure is not None:
                self._metrics.reads_failed.inc()
                self._complain(failure)
        finally:
            fill.end_job(fill.mask(first, end), failure)
            self._fills.unpin(fill)
            if place.cache_file is not None:
                place.cache_file.close()

    async def _bring(self, fill: Fill, place: ChunkPlace, first: int, end: int) -> Exception | None:
        """Make blocks [first, end) ready, from disk where they are there, else from nodes; or say why not."""
        report = Report()
        try:
            with trio.move_on_after(self._options.job_timeout_seconds) as scope:
                await self._disk.bring(fill, place, first, end)
                await self._from_elsewhere(fill, place, first, end, report)
        except ShardfsError as error:
            return error
        except Exception as error:  # a bug must fail this chunk, not the mount
            logger.exception("chunk %s", fill.place.digest)
            return NoCopy(f"chunk {fill.place.digest}: internal error: {error!r}")
        if scope.cancelled_caught:
            self._racer.break_off(fill)
            return report.error(fill, f"no good copy within {self._options.job_timeout_seconds:g} s")
        return None

    @staticmethod
    def _stopped(place: ChunkPlace) -> NoCopy:
        return NoCopy(f"chunk {place.digest.hex()[:16]}: the reader is stopping")

    def _complain(self, failure: Exception) -> None:
        said, left_out = self._throttle.admit(trio.current_time())
        if left_out:
            logger.warning("and %d more chunks that could not be had", left_out)
        if said:
            logger.warning("%s", failure)

    async def _from_elsewhere(self, fill: Fill, place: ChunkPlace, first: int, end: int, report: Report) -> None:
        """Fetch what the disk did not deliver. One that has it and hangs may only be slow: whoever answers first."""
        wanted = fill.mask(first, end)
        while wanted & ~fill.ready and self._disk.held_up(place, first, end):
            until = -math.inf  # should the disk hang again, the nodes are asked again
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._disk.answers, place, first, end, nursery.cancel_scope)
                try:
                    await self._from_nodes(fill, place, first, end, report)
                    nursery.cancel_scope.cancel()
                except ShardfsError:  # only the disk is left
                    until = trio.current_effective_deadline()
            missing = wanted & ~fill.ready
            while missing:
                at, stop = first_run(missing)
                missing &= ~fill.mask(at, stop)
                await self._disk.bring(fill, place, at, stop, until=until)
        await self._from_nodes(fill, place, first, end, report)

    async def _from_nodes(self, fill: Fill, place: ChunkPlace, first: int, end: int, report: Report) -> None:
        while missing := fill.mask(first, end) & ~fill.ready:
            at, stop = first_run(missing)
            await self._racer.fetch(fill, at, stop, report)
            if place.cache_file is not None:
                self._writeback.add(fill, place.cache_file, place.cache_block, (at, stop))
