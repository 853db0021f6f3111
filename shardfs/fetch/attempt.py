"""One node asked for some blocks of one chunk.

The blocks land in `memory` (the fill's own slot, or a scratch slot while another attempt still writes there) and are
verified as they arrive, in order. A read of the beginning brings the header along in the same answer; blocks from the
middle of a chunk whose header is not known yet are asked for beside it, so that both cost one round trip.
"""

from collections.abc import Awaitable, Callable

import trio

from shardfs.cache.memory import Slot
from shardfs.core.keys import chunk_key
from shardfs.errors import Corrupt, InvalidFormat, ShardfsError
from shardfs.fetch.fill import Fill
from shardfs.obs.reading import ReadMetrics
from shardfs.store.watched import WatchedStore


class Attempt:
    """A request under way. `verified` counts its good blocks; `failure` is why it ended early.

    It rings when it ends and at its first verified block; while it is `loud`, at each.
    """

    def __init__(
        self,
        store: WatchedStore,
        fill: Fill,
        blocks: tuple[int, int],
        *,
        scratch: Slot | None,
        ring: Callable[[], None],
        metrics: ReadMetrics,
    ) -> None:
        self.store = store
        self.verified = 0
        self.started_at = self.progress_at = trio.current_time()
        self.scratch = scratch
        self.failure: ShardfsError | None = None
        self.done = False
        self.loud = False
        self._may_publish = scratch is None
        self._fill = fill
        self._first, self._end = blocks
        self._memory = fill.slot.view if scratch is None else scratch.view
        self._in_place = scratch is None
        self._header_along = self._first == 0 and fill.header_fits
        self._next = self._first
        self._ring = ring
        self._metrics = metrics
        start, end = fill.stored_range(*blocks)
        self._bytes = end - start
        store.inflight_bytes += self._bytes
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Transfer; the outcome is in `done` and `failure`. Raises nothing but bugs and cancellation."""
        try:
            with self._scope:
                await self._transfer()
                self.done = True
        except InvalidFormat as error:
            self._corrupt(str(error))
        except ShardfsError as error:
            self.failure = error
            self._metrics.failures.labels(self.store.node).inc()
        finally:
            self.store.inflight_bytes -= self._bytes
            self._ended.set()
            self._ring()

    async def stop(self) -> None:
        """Cancel and wait until not one more byte can land in memory."""
        self._scope.cancel()
        await self._ended.wait()

    def publish(self) -> None:
        """From now on verified blocks become readable at once, those held back included.

        Called when nobody else writes into the fill's slot any more.
        """
        self._may_publish = True
        done, self._next = self._next, self._first
        for block in range(self._first, done):
            self._take(block)

    async def _transfer(self) -> None:
        start, end = self._fill.stored_range(self._first, self._end)
        if self._fill.header is not None:
            await self._get(start, end)
        elif self._header_along:
            await self._get(0, end)
        else:
            await self._both(start, end)
            self._landed(end)

    async def _both(self, start: int, end: int) -> None:
        """Header and blocks at the same time, which makes one round trip of two. The first failure ends both."""
        failures: list[ShardfsError] = []

        async def guarded(get: Callable[[], Awaitable[None]]) -> None:
            try:
                await get()
            except ShardfsError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, self._get_header)
            nursery.start_soon(guarded, lambda: self._get(start, end))
        if failures:
            raise failures[0]

    async def _get_header(self) -> None:
        into = memoryview(bytearray(self._fill.header_size))
        count = await self.store.get(chunk_key(self._fill.place.digest), into)
        self._fill.learn_header(into[:count])

    async def _get(self, start: int, end: int) -> None:
        """Receive bytes [start, end) of the stored object to their place."""
        into = self._fill.stored(self._memory, start, end)
        count = await self.store.get(
            chunk_key(self._fill.place.digest), into, offset=start, arrived=lambda n: self._landed(start + n)
        )
        if start + count < end:
            raise InvalidFormat(f"chunk {self._fill.place.digest}: stored object ends after {start + count} bytes")
        self._landed(end)

    def _landed(self, end: int) -> None:
        """The stored bytes up to `end` are in memory: verify what became whole."""
        fill = self._fill
        if fill.header is None:
            if not self._header_along or end < fill.header_size:
                return
            fill.learn_header(fill.stored(self._memory, 0, fill.header_size))
        while self._next < self._end and end >= fill.stored_range(self._next, self._next + 1)[1]:
            self._take(self._next)

    def _take(self, block: int) -> None:
        fill = self._fill
        plain = fill.stored(self._memory, *fill.stored_range(block, block + 1))
        if fill.ready >> block & 1:
            pass  # another attempt was first; what readers see never changes
        elif self._may_publish:
            fill.accept(block, plain, in_place=self._in_place)
            self._metrics.fetched_bytes.labels(self.store.node).inc(len(plain))
        else:
            fill.check(block, plain)
        self._next = block + 1
        self.verified += 1
        self.progress_at = trio.current_time()
        if self.loud or self.verified == 1:
            self._ring()

    def _corrupt(self, reason: str) -> None:
        self.store.corrupt(reason)
        self.failure = Corrupt(self.store.node, reason)
        self._metrics.corrupt.labels(self.store.node).inc()
