"""A store around a store that keeps the node's health and load up to date, whoever asks, and logs when it changes.

Only failures that speak of the node count: NotFound, Denied, NoSpace and wrong bytes do not mean that it is dead. Every
answer, NotFound too, means that it is alive.
A cancelled call says nothing; the caller that gave up on a late node tells so with `late`.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from shardfs.core.digest import Bytes
from shardfs.core.health import NodeHealth
from shardfs.core.keys import ObjectKey
from shardfs.core.pointer import clean_tag
from shardfs.errors import NotFound, Unavailable, UsageError
from shardfs.obs.throttle import Throttle
from shardfs.store.base import (
    EXTERNAL_FILES_MAX,
    LIST_LIMIT,
    ExternalSource,
    ExternalStat,
    SpanInto,
    SpanSource,
    Store,
    StoreStat,
)
from shardfs.store.spans import get_side_by_side

logger = logging.getLogger(__name__)

PACE_BYTES = 1024 * 1024
"""Answers of this size tell how quickly a node sends; smaller ones mostly how quickly it begins."""

PACE_SECONDS = 0.05
"""So does an answer of any size that has gone on for so long."""

_SHOWN_CHARACTERS = 300


class WatchedStore:
    """See `Store`. `health` and `inflight_bytes` are for reading by anybody in the event loop.

    `inflight_bytes` is counted by those who choose among nodes, from the moment of the choice: many choices in one
    moment, as read-ahead makes them, must see each other or all fall on one node.
    """

    def __init__(
        self,
        store: Store,
        health: NodeHealth | None = None,
        *,
        read_priority: int = 0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.read_priority = read_priority
        self._store = store
        self._spans = store if isinstance(store, SpanSource) else None
        self._chance = chance
        self.health = health or NodeHealth()
        self.inflight_bytes = 0
        self._throttle = Throttle(burst=4)
        self._bugs = Throttle(burst=1, seconds=60.0)
        self._logged_suspect = False
        self._logged_reason = ""

    @property
    def node(self) -> str:
        return self._store.node

    @property
    def available(self) -> bool:
        """False while the node is suspect: ask it last, and do not wait for it."""
        return not self.health.suspect

    def late(self, reason: str) -> None:
        """The caller gave up waiting for this node."""
        self._failed(reason)

    def corrupt(self, reason: str) -> None:
        """The node delivered bytes that did not verify."""
        self.health.corrupted(trio.current_time(), reason)
        self._log_change()

    def bug(self, error: Exception) -> str:
        """The program broke over this node's answer: the reason for whoever goes on with the others.

        Logged with its traceback, but not each time: what a node says once it says again. Nothing is held against its
        health, because nobody knows whose fault it is.
        """
        said, left_out = self._bugs.admit(trio.current_time())
        if said:
            more = f" ({left_out} more since the last)" if left_out else ""
            logger.error("node %s: internal error%s", self.node, more, exc_info=error)
        return f"internal error: {error!r}"[:_SHOWN_CHARACTERS]

    async def get(
        self,
        key: ObjectKey,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        return await self._timed(arrived, lambda watch: self._store.get(key, into, offset=offset, arrived=watch))

    async def get_spans(
        self, key: ObjectKey, spans: Sequence[SpanInto], *, arrived: Callable[[int, int], None] | None = None
    ) -> Sequence[int]:
        """As `SpanSource.get_spans`, but never None: from a store that cannot, each span by a `get` of its own."""
        source = self._spans
        counts = await self._in_one_answer(source, key, spans, arrived) if source and source.has_spans else None
        return await get_side_by_side(self.get, key, spans, arrived) if counts is None else counts

    async def _in_one_answer(
        self,
        source: SpanSource,
        key: ObjectKey,
        spans: Sequence[SpanInto],
        arrived: Callable[[int, int], None] | None,
    ) -> Sequence[int] | None:
        counts: Sequence[int] | None = None

        async def get(watch: Callable[[int], None]) -> int:
            nonlocal counts
            landed = [0] * len(spans)

            def tell(number: int, count: int) -> None:
                landed[number] = count
                watch(sum(landed))
                if arrived is not None:
                    arrived(number, count)

            counts = await source.get_spans(key, spans, arrived=tell)
            return sum(counts or ())

        await self._timed(None, get)
        return counts

    @property
    def holds_external(self) -> bool:
        """Whether the node's engine also has objects of others that can be read where they lie."""
        return isinstance(self._store, ExternalSource)

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        source = self._source()
        return await self._timed(arrived, lambda watch: source.get_external(path, into, offset=offset, arrived=watch))

    async def external_stat(self, path: str) -> ExternalStat:
        with self._judged():
            found = await self._source().external_stat(path)
        return ExternalStat(found.size, clean_tag(found.tag))

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        with self._judged():
            return await self._source().list_external(path, limit=limit)

    def check_external(self) -> None:
        """UsageError unless `holds_external`."""
        self._source()

    def _source(self) -> ExternalSource:
        if not isinstance(self._store, ExternalSource):
            raise UsageError(
                f"node {self.node} is no place of other people's files; "
                "nodes of kind s3, hdfs, webhdfs, dav and file are"
            )
        return self._store

    async def _timed(
        self, arrived: Callable[[int], None] | None, get: Callable[[Callable[[int], None]], Awaitable[int]]
    ) -> int:
        """A `get`, of which health learns how long its first bytes took and how quickly the others came.

        Also when it is cancelled halfway: the node that was too slow for us must not look like one never asked.
        """
        started = trio.current_time()
        first_byte: float | None = None
        seen = 0

        def watch(count: int) -> None:
            nonlocal first_byte, seen
            seen = count
            if first_byte is None:
                first_byte = trio.current_time()
            if arrived is not None:
                arrived(count)

        try:
            with self._judged():
                count = await get(watch)
        except trio.Cancelled:
            now = trio.current_time()
            if first_byte is not None and now - first_byte >= PACE_SECONDS:
                self.health.measured(now, first_byte - started, pace=(now - first_byte) / seen)
            raise
        now = trio.current_time()
        first_byte = now if first_byte is None else first_byte
        pace = (now - first_byte) / count if count >= PACE_BYTES else None
        self.health.answered(now, first_byte - started, pace=pace)
        return count

    async def begin(self, key: ObjectKey, into: memoryview) -> int:
        """As `get` from the first byte on, of which health does not learn how quick the node is with chunks."""
        with self._judged():
            return await self._store.get(key, into)

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        with self._judged():
            return await self._store.read(key, limit=limit)

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        with self._judged():
            return await self._store.put(key, parts)

    async def size(self, key: ObjectKey) -> int | None:
        with self._judged():
            return await self._store.size(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        with self._judged():
            return await self._store.list(prefix, after=after, limit=limit)

    async def delete(self, key: ObjectKey) -> bool:
        with self._judged():
            return await self._store.delete(key)

    async def stat(self) -> StoreStat:
        with self._judged():
            return await self._store.stat()

    async def aclose(self) -> None:
        await self._store.aclose()

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            self._failed(error.reason)
            raise
        except NotFound:
            self._answered()
            raise
        self._answered()

    def _failed(self, reason: str) -> None:
        self.health.failed(trio.current_time(), reason, self._chance())
        self._log_change()

    def _answered(self) -> None:
        self.health.recovered(trio.current_time())
        self._log_change()

    def _log_change(self) -> None:
        """Say it when the node became suspect or well. What the throttle held back is compared again at the next call,
        so the last line about a node is true in the end, however often it comes and goes."""
        suspect = self.health.suspect
        if suspect is self._logged_suspect or not self._throttle.admit(trio.current_time())[0]:
            return
        self._logged_suspect = suspect
        if suspect:
            self._logged_reason = self.health.reason
            logger.info("node %s is suspect: %s", self.node, self._logged_reason)
        else:
            logger.info("node %s answers again (was: %s)", self.node, self._logged_reason)
