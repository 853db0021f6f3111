"""All chunks that are in memory or on their way: one job for each missing block, whoever asks.

    request(place, ...)  answered from memory; else joins the job that brings the blocks; else starts it
    prefetch(place, ...) starts the job for blocks of a chunk if there is memory for it, and returns at once
    unwanted(place)      what was fetched for nobody may be the first to go

A job looks at the disk cache first (a thread reads and verifies), then at the nodes. It belongs to the engine, not to
the reader that caused it: a reader that gives up cancels nothing that others wait for. What came from nodes is
written to the disk cache behind the reader; such writes hold their slot, so that a slow disk slows prefetching first,
and are given up before they make a reader wait long. Slots of chunks already read are reused before those not yet
read.
"""

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

from shardfs.cache.memory import Slot, SlotPool
from shardfs.core.chunk import ChunkHeader
from shardfs.core.digest import Digest
from shardfs.core.placement import Placement
from shardfs.errors import NoCopy, ShardfsError
from shardfs.fetch.disk_reads import DiskReads
from shardfs.fetch.fill import ChunkPlace, Fill, Pointers, RunKey, first_run
from shardfs.fetch.race import Racer
from shardfs.fetch.report import Report
from shardfs.fetch.writeback import Writeback
from shardfs.obs.reading import ReadMetrics
from shardfs.obs.throttle import Throttle
from shardfs.store.fleet import Fleet

logger = logging.getLogger(__name__)

SHED_AFTER_SECONDS = 0.25
HEADERS_MAX = 4096

Reading: TypeAlias = Coroutine[Any, Any, memoryview]
"""An answer that is not there yet; nothing happens for it until it is awaited."""


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
        self._disk = DiskReads(threads=options.disk_threads, metrics=metrics)
        self._consumed: OrderedDict[RunKey, Fill] = OrderedDict()
        self._unread: OrderedDict[RunKey, Fill] = OrderedDict()
        self._throttle = Throttle()
        self._headers: OrderedDict[Digest, tuple[ChunkHeader, Pointers]] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._spent: OrderedDict[RunKey, Fill] = OrderedDict()
        pool.on_pressure(self._evict, self._evict_spent)

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
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._stopping = True
        finally:
            self._writeback.shed()

    def request(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview | Reading:
        """Plain bytes [start, start + length) of a run, verified; valid until the caller's next checkpoint.

        What is in memory is answered at once, without a task of its own; else the answer must be awaited, and raises
        NoCopy. `whole` says that what follows in the run will be wanted too.
        """
        fill = self._find(place)
        if fill is None or fill.mask(start // place.block_size, -(-(start + length) // place.block_size)) & ~fill.ready:
            return self._later(place, start, length, whole=whole)
        self._mark_consumed(fill)
        return self._answer(fill, start, length)

    async def read(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview:
        """As `request`, and wait for the answer. Raises NoCopy."""
        answer = self.request(place, start, length, whole=whole)
        return answer if isinstance(answer, memoryview) else await answer

    async def _later(self, place: ChunkPlace, start: int, length: int, *, whole: bool) -> memoryview:
        fill = self._find(place) or await self._admit(place)
        self._mark_consumed(fill)
        first, end = start // place.block_size, -(-(start + length) // place.block_size)
        wanted = fill.mask(first, end)
        if wanted & ~fill.ready:
            await self._bring(fill, first, wanted, whole=whole)
        return self._answer(fill, start, length)

    def _answer(self, fill: Fill, start: int, length: int) -> memoryview:
        fill.read_bytes += length
        if fill.read_bytes >= fill.place.length and fill.complete:
            self._mark_spent(fill)
        return fill.plain(start, length)

    async def _bring(self, fill: Fill, first: int, wanted: int, *, whole: bool) -> None:
        """Have the blocks of `wanted`, the first of which is `first`; NoCopy."""
        # When the whole chunk cannot be had, one bad block elsewhere in it must not fail this read.
        tries = [fill.mask(first, fill.blocks), wanted] if whole else [wanted]
        fill.pins += 1
        try:
            while missing := wanted & ~fill.ready:
                if missing & ~fill.pending:
                    if self._stopping:
                        raise NoCopy(f"chunk {fill.place.digest.hex()[:16]}: the reader is stopping")
                    if not tries:
                        raise fill.failure or NoCopy(f"chunk {fill.place.digest.hex()[:16]}: given up")
                    self._start(fill, tries.pop(0))
                await fill.wait()
        finally:
            self._unpin(fill)

    def prefetch(self, place: ChunkPlace, first: int = 0, end: int | None = None) -> bool:
        """Begin to fetch blocks [first, end) of a run, or all, unless that happens already. False: memory is short."""
        fill = self._find(place)
        if fill is None:
            slot = self._spare_slot()
            if slot is None:
                return False
            fill = self._enter(place, slot)
        wanted = fill.mask(first, fill.blocks if end is None else end)
        if wanted & ~fill.ready & ~fill.pending:
            self._start(fill, wanted)
        return True

    def unwanted(self, place: ChunkPlace) -> None:
        """Nobody is expected to ask for this run: its memory is the first to be used for others."""
        fill = self._unread.pop(place.key, None)
        if fill is not None:
            self._consumed[place.key] = fill
            self._consumed.move_to_end(place.key, last=False)

    def _spare_slot(self) -> Slot | None:
        """A slot for something not asked for yet: never at the cost of what waits for its reader, or is being read."""
        limit = min(int(self._pool.slots * self._options.unread_share), self._pool.slots - 1)
        if self._stopping or len(self._unread) >= max(1, limit):
            return None
        if not (self._pool.free or self._evict_spent() or self._evict_older_consumed()):
            return None
        return self._pool.try_acquire()

    def _evict_older_consumed(self) -> bool:
        return len(self._consumed) > 1 and self._evict_from(self._consumed)

    def _find(self, place: ChunkPlace) -> Fill | None:
        key = place.key
        fill = self._consumed.get(key) or self._unread.get(key) or self._spent.get(key)
        if fill is not None:
            fill.place = place  # the same bytes, perhaps of another file: this one's cache file is open
        return fill

    def _enter(self, place: ChunkPlace, slot: Slot) -> Fill:
        fill = Fill(place, slot, self._pool.room, *self._headers.get(place.digest, ()))
        self._unread[place.key] = fill
        return fill

    async def _admit(self, place: ChunkPlace) -> Fill:
        """A fill for the chunk, as soon as there is a slot."""
        slot = await self._pool.acquire(nudge=self._writeback.shed, nudge_seconds=SHED_AFTER_SECONDS)
        fill = self._find(place)
        if fill is not None:
            self._pool.release(slot)
            return fill
        return self._enter(place, slot)

    def _mark_consumed(self, fill: Fill) -> None:
        key = fill.place.key
        if self._spent.pop(key, None) is not None:
            fill.read_bytes = 0
            self._consumed[key] = fill
        elif self._unread.pop(key, None) is not None:
            self._consumed[key] = fill
        else:
            self._consumed.move_to_end(key)

    def _unpin(self, fill: Fill) -> None:
        fill.pins -= 1
        if not fill.pins:
            self._pool.wake()

    def _evict(self) -> bool:
        """Give back the slot least worth keeping; False when all are in use."""
        return any(self._evict_from(fills) for fills in (self._spent, self._consumed, self._unread))

    def _evict_spent(self) -> bool:
        return self._evict_from(self._spent)

    def _mark_spent(self, fill: Fill) -> None:
        """As much was read as the run has: the kernel's page cache has it now, and so has the disk cache soon."""
        if self._consumed.pop(fill.place.key, None) is not None:
            self._spent[fill.place.key] = fill

    def _evict_from(self, fills: OrderedDict[RunKey, Fill]) -> bool:
        for key, fill in fills.items():
            if not fill.pins and not fill.pending:
                del fills[key]
                self._keep_header(fill)
                self._pool.release(fill.slot)
                return True
        return False

    def _keep_header(self, fill: Fill) -> None:
        """Small random reads come back to a chunk whose memory is gone; its header is worth keeping."""
        if fill.header is not None:
            self._headers[fill.place.digest] = fill.header, fill.pointers
            self._headers.move_to_end(fill.place.digest)
            if len(self._headers) > HEADERS_MAX:
                self._headers.popitem(last=False)

    def _start(self, fill: Fill, mask: int) -> None:
        """Start jobs for the blocks of `mask` that nobody brings yet, one for each contiguous run."""
        assert self._nursery is not None, "the engine is not running"
        mask &= ~fill.ready & ~fill.pending
        fill.pending |= mask
        fill.failure = None
        while mask:
            first, end = first_run(mask)
            mask &= ~fill.mask(first, end)
            fill.pins += 1
            if fill.place.cache_file is not None:
                fill.place.cache_file.hold()
            self._nursery.start_soon(self._job, fill, fill.place, first, end)

    async def _job(self, fill: Fill, place: ChunkPlace, first: int, end: int) -> None:
        """Bring blocks [first, end), from disk where they are there, else from nodes."""
        report = Report()
        failure: Exception | None = None
        try:
            with trio.move_on_after(self._options.job_timeout_seconds) as scope:
                await self._disk.bring(fill, place, first, end)
                await self._from_nodes(fill, place, first, end, report)
            if scope.cancelled_caught:
                self._racer.break_off(fill)
                failure = report.error(fill, f"no good copy within {self._options.job_timeout_seconds:g} s")
        except ShardfsError as error:
            failure = error
        except Exception as error:  # a bug must fail this chunk, not the mount
            logger.exception("chunk %s", fill.place.digest)
            failure = NoCopy(f"chunk {fill.place.digest}: internal error: {error!r}")
        finally:
            if failure is not None:
                self._metrics.reads_failed.inc()
                self._complain(failure)
            fill.end_job(fill.mask(first, end), failure)
            self._unpin(fill)
            if place.cache_file is not None:
                place.cache_file.close()

    def _complain(self, failure: Exception) -> None:
        said, left_out = self._throttle.admit(trio.current_time())
        if left_out:
            logger.warning("and %d more chunks that could not be had", left_out)
        if said:
            logger.warning("%s", failure)

    async def _from_nodes(self, fill: Fill, place: ChunkPlace, first: int, end: int, report: Report) -> None:
        while missing := fill.mask(first, end) & ~fill.ready:
            at, stop = first_run(missing)
            await self._racer.fetch(fill, at, stop, report)
            if place.cache_file is not None:
                self._writeback.add(fill, place.cache_file, place.cache_block, (at, stop))
