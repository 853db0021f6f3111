"""Libraries that only know asyncio, called from trio: one thread with an event loop, for all stores of the process.

A cancelled or timed-out call returns to its caller at once, and its asyncio task is cancelled for real: no thread is
left behind waiting for a dead server, as the blocking interfaces of the same libraries leave. Results and pieces
are handed over as values in trio's thread; the library never sees the caller's memory, so nothing can arrive late.

A task that does not end although it was cancelled keeps its place; when all places are held by such tasks, further
calls are refused instead of piling up.
"""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias, TypeVar

import outcome
import trio

PIECES_AHEAD_MAX = 8

Emit: TypeAlias = Callable[[bytes], Awaitable[None]]
_T = TypeVar("_T")


class TooManyStuck(Exception):
    """Every place is held by a cancelled call that does not end."""


class AsyncioThread:
    """The loop, started by the first call. A daemon thread: it never holds up the end of the program."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop


THREAD = AsyncioThread("shardfs-asyncio")


class Calls:
    """The calls of one store: at most `calls_max` at a time, those that were cancelled and still run included."""

    def __init__(self, *, calls_max: int, seconds_max: float, thread: AsyncioThread = THREAD) -> None:
        self._calls_max = calls_max
        self._seconds_max = seconds_max
        self._thread = thread
        self._slots = trio.Semaphore(calls_max)
        self._abandoned = 0  # trio's thread

    @property
    def abandoned(self) -> int:
        """Calls that were cancelled and have not ended yet."""
        return self._abandoned

    async def run(self, work: Callable[[Emit], Awaitable[_T]], *, piece: Callable[[bytes], None] | None = None) -> _T:
        """What `work` returns or raises, awaited in the loop. TimeoutError after `seconds_max`; TooManyStuck.

        What `work` emits goes to `piece`, in trio's thread and in order; what `piece` raises ends the call.
        """
        await trio.lowlevel.checkpoint()
        if self._abandoned >= self._calls_max:
            raise TooManyStuck
        await self._slots.acquire()
        call = _Call(self._thread.loop(), self._ended)
        call.start(lambda emit: self._limited(work, emit))
        try:
            while True:
                item = await call.next()
                if isinstance(item, outcome.Error | outcome.Value):
                    result: _T = item.unwrap()
                    return result
                if piece is not None and isinstance(item, bytes):
                    piece(item)
        finally:
            if not call.ended:
                self._abandoned += 1
                call.abandon()

    async def _limited(self, work: Callable[[Emit], Awaitable[_T]], emit: Emit) -> _T:
        async with asyncio.timeout(self._seconds_max):
            return await work(emit)

    def _ended(self, *, abandoned: bool) -> None:
        self._slots.release()
        self._abandoned -= abandoned


class _Call:
    """One task in the loop, and what comes from it. Made and used in trio's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[..., None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[object](math.inf)  # bounded by `_room`
        self._abandoned = False
        self.ended = False
        # The loop's thread only:
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Semaphore | None = None

    async def next(self) -> object:
        item = await self._receive.receive()
        if isinstance(item, bytes) and self._room is not None:
            self._loop.call_soon_threadsafe(self._room.release)
        return item

    def start(self, work: Callable[[Emit], Awaitable[object]]) -> None:
        def begin() -> None:
            self._room = asyncio.Semaphore(PIECES_AHEAD_MAX)
            self._task = self._loop.create_task(self._body(work))

        self._loop.call_soon_threadsafe(begin)

    def abandon(self) -> None:
        """Cancel the task; what it still sends goes nowhere."""
        self._abandoned = True
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    async def _body(self, work: Callable[[Emit], Awaitable[object]]) -> None:
        result = await outcome.acapture(work, self._emit)  # takes everything, panics of a library and cancellation too
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._deliver, result)

    async def _emit(self, data: bytes) -> None:
        if self._room is not None:
            await self._room.acquire()
        self._token.run_sync_soon(self._deliver, data)

    def _deliver(self, item: object) -> None:
        if not isinstance(item, bytes):
            self.ended = True
            self._on_end(abandoned=self._abandoned)
        if not self._abandoned:
            self._send.send_nowait(item)
