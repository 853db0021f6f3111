"""One node as an upload sees it: what it is sent, when it is tried again, when it is left alone.

A failure that may pass is tried again a few times; then the node rests, and nobody waits for it until its rest is over
and one single try has succeeded. So a dead node costs its time once, not once for each chunk.

A node that asks for a pause is well and busy: it gets its pause, and that is no failure. Only when nothing of this
upload gets through to it for as long as a restart may take, it rests like a dead one.

A node is asked whether it has a chunk before it is sent one, which spares the bytes. A pointer is smaller than the
question: it is sent at once, and put-if-absent answers.

A small answer has a fixed time, storing a time that grows with all the bytes that are on their way to the node, so that
a slow line is not taken for a dead node.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from shardfs.admin.standing import Standing, Unusable
from shardfs.core.backoff import backoff
from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.errors import Denied, NoSpace, StoreError, Unavailable
from shardfs.store.http_client import Throttled
from shardfs.store.watched import WatchedStore

T = TypeVar("T")

_RESTORE_SECONDS_MAX = 2.0
"""For putting back a pointer when the bytes that were to replace it could not be stored. Stopping may take as long."""


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """Times in seconds."""

    question: float = 10.0
    """For a small answer: whether the node is there, whether it has a chunk."""

    put: float = 30.0
    """For one chunk to be stored and durable, beside the time on the line."""

    rate_min_bytes: int = 1024 * 1024
    """Bytes per second below which a line is as good as dead."""

    tries: int = 3
    """Attempts before a node rests, with pauses between them."""

    pause_first: float = 0.1
    pause_max: float = 2.0

    rest_first: float = 15.0
    """How long a node is left alone, doubled each time up to the next."""

    rest_max: float = 120.0

    patience: float = 30.0
    """How long the last nodes that could take a copy are asked again: a restart should not end an upload of hours.

    As long a node may ask for one pause after the other while nothing gets through.
    """


class _Late(Unavailable):
    """No answer in time. Waiting as long again is not worth it."""


class Target:
    """Given: store, options, chance. Changing, between awaits only: rests, fullness, what is being sent."""

    def __init__(
        self, store: WatchedStore, standing: Standing, *, options: CopyOptions, chance: Callable[[], float]
    ) -> None:
        self.node = store.node
        self._store = store
        self._standing = standing
        self._options = options
        self._chance = chance
        self._well_at = -math.inf  # when a call succeeded last
        self._rests = 0
        self._rest_until = -math.inf
        self._rest_reason = ""
        self._full_reason = ""
        self._sending: dict[trio.CancelScope, float] = {}
        self._sending_bytes = 0

    async def check(self) -> None:
        """Return when the node is there. Raises StoreError."""
        await self._tried(partial(self._answer, self._store.stat))

    async def copy(self, key: ObjectKey, parts: Sequence[Bytes], *, ask: bool = True, urgent: bool = False) -> bool:
        """The node has the object when this returns; True when it had to be sent. `urgent` wakes a resting node.

        Without `ask` it is sent before the node is asked whether it has it.
        Raises Denied, NoSpace or Unusable when asking again is no use, another StoreError when it may be.
        """
        return await self._tried(partial(self._copy, key, parts, ask), urgent=urgent)

    async def _copy(self, key: ObjectKey, parts: Sequence[Bytes], ask: bool) -> bool:
        size = sum(map(len, parts))
        if not ask and not self._full_reason and await self._send(key, parts, size):
            return True
        present = await self._answer(partial(self._store.size, key))
        old = b""
        if present is not None:
            old = await self._standing.superseded(self._store, key, parts, present)
            if not old:
                return False
        if self._full_reason:
            raise NoSpace(self.node, self._full_reason)
        if not old:
            return await self._send(key, parts, size)
        await self._answer(partial(self._store.delete, key))
        try:
            return await self._send(key, parts, size)
        except BaseException:
            with trio.move_on_after(_RESTORE_SECONDS_MAX, shield=True), suppress(StoreError):
                await self._store.put(key, [old])
            raise

    async def _send(self, key: ObjectKey, parts: Sequence[Bytes], size: int) -> bool:
        started = trio.current_time()
        scope = trio.CancelScope()
        self._sending[scope] = started
        self._sending_bytes += size
        self._give_time()
        try:
            with scope:
                return await self._store.put(key, parts)
            seconds = trio.current_time() - started
            raise _Late(self.node, f"did not store a chunk within {seconds:.0f} s")
        finally:
            self._sending_bytes -= size
            del self._sending[scope]

    def _give_time(self) -> None:
        """All that is being sent shares the line; a deadline moves only as far as the buffers of the upload allow."""
        seconds = self._options.put + self._sending_bytes / self._options.rate_min_bytes
        for scope, started in self._sending.items():
            latest = started + seconds
            scope.deadline = latest if math.isinf(scope.deadline) else max(scope.deadline, latest)

    def _hurry(self) -> None:
        """The node did not answer: what is still on its way gets the time of one more question."""
        latest = trio.current_time() + self._options.question
        for scope in self._sending:
            scope.deadline = min(scope.deadline, latest)

    async def _answer(self, question: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(self._options.question):
            return await question()
        raise _Late(self.node, f"no answer within {self._options.question:.0f} s")

    async def _tried(self, attempt: Callable[[], Awaitable[T]], *, urgent: bool = False) -> T:
        """`attempt`, again after a failure that may pass; not at all while the node rests, unless `urgent`."""
        now = trio.current_time()
        if now < self._rest_until and not urgent:
            raise Unavailable(self.node, self._rest_reason)
        tries, rests = self._options.tries, self._rests
        if rests:  # its rest is over, or nobody else is left: one try, and the others go on without it
            tries = 1
            self._rest_until = max(self._rest_until, now + self._options.rest_first)
        for streak in range(1, tries + 1):
            try:
                result = await self._with_pauses(attempt)
            except (Denied, Unusable):
                raise
            except NoSpace as error:
                self._full_reason = error.reason
                raise
            except StoreError as error:
                late = isinstance(error, _Late)
                if late:
                    self._store.late(error.reason)
                    self._hurry()
                if late or isinstance(error, Throttled) or streak == tries:
                    self._rest(error.reason, rests + 1)
                    raise
            else:
                self._well_at = trio.current_time()
                self._rests, self._rest_until = 0, -math.inf
                return result
            await trio.sleep(self._pause(streak))
            if trio.current_time() < self._rest_until and not urgent:  # found dead by somebody else meanwhile
                raise Unavailable(self.node, self._rest_reason)
        raise AssertionError("the last try returns or raises")

    async def _with_pauses(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt`, again whenever the node asks for a pause; Throttled when nothing gets through any more."""
        since = math.inf
        while True:
            try:
                return await attempt()
            except Throttled as error:
                now = trio.current_time()
                since = min(since, now)
                if now - max(since, self._well_at) >= self._options.patience:
                    raise
                pause = error.seconds + self._pause(1)
            await trio.sleep(pause)

    def _rest(self, reason: str, rests: int) -> None:
        self._rests = max(self._rests, rests)  # several calls that find it dead together count once
        seconds = min(self._options.rest_max, self._options.rest_first * 2.0 ** min(self._rests - 1, 16))
        self._rest_until = trio.current_time() + seconds
        self._rest_reason = reason

    def _pause(self, streak: int) -> float:
        return backoff(streak, self._options.pause_first, self._options.pause_max, self._chance())
