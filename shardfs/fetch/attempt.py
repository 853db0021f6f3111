"""One node asked for some blocks of one chunk.

The blocks land in `memory` (the fill's own slot, or a scratch slot while another attempt still writes there) and are
verified as they arrive, in order. A read of the beginning brings the header along in the same answer; blocks from the
middle of a chunk whose header is not known yet are asked for together with it, so that both cost one round trip.

A node may have the chunk as a pointer to a span of an object that lies on some node's engine. Nobody asks for that in
advance: the object turns out to be short and its header says so. Then the blocks come from there, to the same memory
and by the same rules. `store` stays the node that was chosen, `server` is whoever has to deliver now: its health
counts.
"""

from collections.abc import Callable

import trio

from shardfs.cache.memory import Slot
from shardfs.core.chunk import EXTERNAL, RAW, ChunkHeader
from shardfs.core.keys import chunk_key
from shardfs.core.pointer import POINTER_BYTES_MAX, Pointer
from shardfs.errors import Corrupt, InvalidFormat, NotFound, ShardfsError
from shardfs.fetch.external import external_failure, external_server
from shardfs.fetch.fill import Fill
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
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
        fleet: Fleet,
    ) -> None:
        self.store = store
        self.server = store
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
        self._header_along = self._first == 0 and fill.header_fits
        self._header_due = False  # it comes with the answer under way
        self._codec: int | None = None  # of this node's object, once that is known
        self._reached = 0  # bytes of it that are known to be there
        self._next = self._first
        self._ring = ring
        self._metrics = metrics
        self._fleet = fleet
        start, end = fill.stored_range(*blocks)
        self.size_bytes = end - start
        store.inflight_bytes += self.size_bytes
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Transfer; the outcome is in `done` and `failure`. Raises nothing but cancellation.

        A bug ends this attempt only: the next copy may come without it.
        """
        try:
            with self._scope:
                await self._transfer()
                self.done = True
        except InvalidFormat as error:
            self._corrupt(str(error))
        except ShardfsError as error:
            self.failure = error
            self._metrics.failures.labels(self.server.node).inc()
        except Exception as error:  # noqa: BLE001 - it is logged
            # Like a wrong answer: this copy is tried once more and then no longer.
            self.failure = Corrupt(self.server.node, self.server.bug(error))
            self._metrics.failures.labels(self.server.node).inc()
        finally:
            self.server.inflight_bytes -= self.size_bytes
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
        self._accept(self._first, self._next)

    async def _transfer(self) -> None:
        pointer = self._fill.pointers.get(self.store.node)
        if pointer is None:
            pointer = await self._object()
        if pointer is not None:
            await self._external(pointer)

    async def _object(self) -> Pointer | None:
        """Receive the blocks from the chunk's own object; or where they lie, when it has a pointer instead."""
        fill = self._fill
        start, end = fill.stored_range(self._first, self._end)
        if fill.header is None or fill.pointers:  # with the latter this one is likely to have one, too
            if not self._header_along:
                return await self._both(start, end)
            self._header_due = True
            return await self._get(0, end)
        try:
            return await self._get(start, end)
        except InvalidFormat:
            # The header came from another node's copy. This one may have a pointer where blocks were asked for.
            if self._reached > fill.header_size + POINTER_BYTES_MAX:
                raise
            pointer = await self._get_head()
            if pointer is None:
                raise
            return pointer

    async def _both(self, start: int, end: int) -> Pointer | None:
        """Header and blocks in one answer, or at the same time: in any case one round trip instead of two."""
        fill = self._fill
        head = memoryview(bytearray(min(fill.header_size + POINTER_BYTES_MAX, start)))
        header: ChunkHeader | None = None
        landed = 0

        def arrived(span: int, count: int) -> None:
            nonlocal header, landed
            if span == 1:
                landed = count
            elif header is None and count >= fill.header_size:
                header = fill.learn_header(head[:count])
                self._codec = header.codec
            if landed and header is not None:  # before that nobody knows whether there are any blocks
                self._landed(start + landed)

        spans = [(0, head), (start, fill.stored(self._memory, start, end))]
        in_head, in_blocks = await self.store.get_spans(chunk_key(fill.place.digest), spans, arrived=arrived)
        header = header or fill.learn_header(head[:in_head])
        if header.codec == EXTERNAL:
            if in_head == len(head) < fill.header_size + POINTER_BYTES_MAX:
                return await self._get_head()
            return fill.learn_pointer(self.store.node, header, head[:in_head])
        self._whole(start, in_blocks, end)
        return None

    async def _get_head(self) -> Pointer | None:
        """The header of this node's object, and its pointer if that is what follows."""
        fill = self._fill
        into = memoryview(bytearray(fill.header_size + POINTER_BYTES_MAX))
        count = await self.store.get(chunk_key(fill.place.digest), into)
        header = fill.learn_header(into[:count])
        self._codec = header.codec
        return None if header.codec == RAW else fill.learn_pointer(self.store.node, header, into[:count])

    async def _get(self, start: int, end: int) -> Pointer | None:
        """Receive bytes [start, end) of the stored object to their place; the pointer if they turn out to be one."""
        fill = self._fill
        into = fill.stored(self._memory, start, end)
        count = await self.store.get(
            chunk_key(fill.place.digest), into, offset=start, arrived=lambda n: self._landed(start + n)
        )
        if self._codec == EXTERNAL:
            if start or count == len(into):
                return await self._get_head()
            return fill.learn_pointer(self.store.node, fill.learn_header(into), into[:count])
        self._whole(start, count, end)
        return None

    def _whole(self, start: int, count: int, end: int) -> None:
        """Of [start, end) `count` bytes were there."""
        if start + count < end:
            raise InvalidFormat(f"chunk {self._fill.place.digest}: stored object ends after {start + count} bytes")
        self._landed(end)

    async def _external(self, pointer: Pointer) -> None:
        """Receive the blocks from the object that the pointer leads to.

        But for those that are verified: a node that sent some and then called itself external must not touch them.
        """
        fill = self._fill
        self._serve_from(external_server(self._fleet, self.store.node, pointer))
        start, end = fill.stored_range(self._next, self._end)
        into = fill.stored(self._memory, start, end)
        at = pointer.offset + start - fill.header_size
        try:
            count = await self.server.get_external(
                pointer.path, into, offset=at, arrived=lambda n: self._verify(start + n)
            )
            if start + count < end:
                raise InvalidFormat(f"{pointer.path} ends after {at + count} bytes")
            self._verify(end)
        except (InvalidFormat, NotFound) as error:
            fill.pointers.pop(self.store.node, None)  # should it have been replaced, the next attempt finds out
            raise await external_failure(self.server, pointer, error) from error

    def _serve_from(self, server: WatchedStore) -> None:
        self.server.inflight_bytes -= self.size_bytes
        self.server = server
        server.inflight_bytes += self.size_bytes

    def _landed(self, end: int) -> None:
        """The object's bytes up to `end` are in memory: verify what became whole."""
        fill = self._fill
        self._reached = max(self._reached, end)
        if self._header_due and end >= fill.header_size:
            self._header_due = False
            self._codec = fill.learn_header(fill.stored(self._memory, 0, fill.header_size)).codec
        if fill.header is not None and not self._header_due and self._codec != EXTERNAL:
            self._verify(end)

    def _verify(self, end: int) -> None:
        """Plain bytes lie in memory as a raw copy has them, up to `end`: take the blocks that became whole."""
        fill = self._fill
        whole = min(self._end, fill.whole_blocks(end))
        if whole <= self._next:
            return
        good = fill.matching_until(self._next, whole, self._memory)
        if good > self._next:
            if self._may_publish:
                self._accept(self._next, good)
            news = self.loud or not self.verified
            self.verified += good - self._next
            self._next = good
            self.progress_at = trio.current_time()
            if news:
                self._ring()
        if good < whole:
            raise InvalidFormat(f"chunk {fill.place.digest}: block {good} does not match its digest")

    def _accept(self, first: int, end: int) -> None:
        new = self._fill.accept(first, end, self._memory)
        self._metrics.fetched_bytes.labels(self.server.node).inc(new)

    def _corrupt(self, reason: str) -> None:
        self.store.corrupt(reason)
        self.failure = Corrupt(self.store.node, reason)
        self._metrics.corrupt.labels(self.store.node).inc()
