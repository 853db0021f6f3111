"""Calls into libraries that do not know trio: coroutines in one asyncio thread, blocking functions in bounded threads.

A cancelled or timed-out call returns to its caller at once. Its coroutine is cancelled for real; its blocking function
finds out when it hands over the next piece, and otherwise ends with the library's own timeouts. Results and pieces are
handed over as values in trio's thread: the library never sees the caller's memory, so nothing can arrive late.

A call that has not ended although it was cancelled keeps its place; when all places are held by such calls, further
ones are refused instead of piling up. All threads are daemons: none holds up the end of the program for long. It is
held up a little: a library's thread that comes back to Python while that is being taken down aborts the process, so
the last ones are waited for (`settle`), for `SETTLE_SECONDS_MAX` at most.
"""

import asyncio
import atexit
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeAlias, TypeVar, cast

import outcome
import trio

PIECES_AHEAD_MAX = 8
"""Pieces that are handed over and not taken yet; the library waits."""

SETTLE_SECONDS_MAX = 6.0

Emit: TypeAlias = Callable[[bytes], None]
_T = TypeVar("_T")


class TooManyStuck(Exception):
    """Every place is held by a cancelled call that does not end."""


class Abandoned(BaseException):
    """Ends a blocking function whose caller is gone. Not an Exception, so that nobody handles it on the way."""


class AsyncioThread:
    """The loop, started by the first call, for all stores of the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                atexit.register(settle)
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop

    def end_tasks(self, seconds_max: float) -> None:
        """Cancel what still runs, and wait until it has ended."""
        if self._loop is None:
            return

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=seconds_max)

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(seconds_max)


THREAD = AsyncioThread("shardfs-asyncio")
_running: set["_Blocking"] = set()  # each thread adds and removes its own


def settle() -> None:
    """At the end of the program: until no library is about to come back to Python."""
    end = time.monotonic() + SETTLE_SECONDS_MAX
    for call in list(_running):
        call.abandon()
    THREAD.end_tasks(SETTLE_SECONDS_MAX / 2)
    while (_running or _foreign_threads()) and time.monotonic() < end:
        time.sleep(0.001)


def _foreign_threads() -> bool:
    """Whether a thread that Python did not start is in Python right now: a library that wakes one of its callers."""
    known = {thread.ident for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}  # noqa: SLF001
    return bool(sys._current_frames().keys() - known)  # noqa: SLF001


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

    async def coroutine(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What `work()` returns or raises, awaited in the loop. TimeoutError after `seconds_max`; TooManyStuck."""
        await self._take_place()
        call = _Coroutine(self._thread.loop(), self._ended)
        call.start(lambda: self._limited(work))
        try:
            return cast(_T, await call.result(None))
        finally:
            self._abandon(call)

    async def blocking(self, work: Callable[[Emit], _T], piece: Callable[[bytes], None]) -> _T:
        """What `work(emit)` returns or raises, called in a thread. TooManyStuck.

        What `work` emits goes to `piece`, in trio's thread and in order; what `piece` raises ends the call. The library
        must have time-outs of its own.
        """
        await self._take_place()
        call = _Blocking(self._ended)
        call.start(work)
        try:
            return cast(_T, await call.result(piece))
        finally:
            self._abandon(call)

    async def _limited(self, work: Callable[[], Awaitable[_T]]) -> _T:
        async with asyncio.timeout(self._seconds_max):
            return await work()

    async def _take_place(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._abandoned >= self._calls_max:
            raise TooManyStuck
        await self._slots.acquire()

    def _abandon(self, call: "_Call") -> None:
        if not call.ended:
            self._abandoned += 1
            call.abandon()

    def _ended(self, *, abandoned: bool) -> None:
        self._slots.release()
        self._abandoned -= abandoned


class _OnEnd(Protocol):
    def __call__(self, *, abandoned: bool) -> None: ...


class _Call:
    """One call, and what comes from it. Made and used in trio's thread, but for what says otherwise."""

    def __init__(self, on_end: _OnEnd) -> None:
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[object](math.inf)  # PIECES_AHEAD_MAX and a result
        self.abandoned = False
        self.ended = False

    async def result(self, piece: Callable[[bytes], None] | None) -> object:
        """Wait for the end; pieces go to `piece` on the way."""
        while True:
            item = await self._receive.receive()
            if isinstance(item, outcome.Error | outcome.Value):
                return item.unwrap()
            self.taken()
            if piece is not None and isinstance(item, bytes):
                piece(item)

    def taken(self) -> None:
        """There is room for one more piece."""

    def abandon(self) -> None:
        """Nobody waits for it any more; what it still sends goes nowhere."""
        self.abandoned = True

    def deliver(self, item: object) -> None:
        """From any thread."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._arrive, item)

    def _arrive(self, item: object) -> None:
        if not isinstance(item, bytes):
            self.ended = True
            self._on_end(abandoned=self.abandoned)
        if not self.abandoned:
            self._send.send_nowait(item)


class _Coroutine(_Call):
    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: _OnEnd) -> None:
        super().__init__(on_end)
        self._loop = loop
        self._task: asyncio.Task[None] | None = None  # the loop's thread

    def start(self, work: Callable[[], Awaitable[object]]) -> None:
        async def body() -> None:
            self.deliver(await outcome.acapture(work))  # takes everything, cancellation and panics too

        def begin() -> None:
            self._task = self._loop.create_task(body())

        self._loop.call_soon_threadsafe(begin)

    def abandon(self) -> None:
        super().abandon()
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())


class _Blocking(_Call):
    def __init__(self, on_end: _OnEnd) -> None:
        super().__init__(on_end)
        self._room = threading.Semaphore(PIECES_AHEAD_MAX)

    def start(self, work: Callable[[Emit], object]) -> None:
        def call() -> "outcome.Outcome[object]":
            try:
                return outcome.capture(work, self._emit)
            finally:
                _running.discard(self)

        _running.add(self)
        trio.lowlevel.start_thread_soon(call, self._finish, "shardfs-blocking")

    def _finish(self, result: "outcome.Outcome[outcome.Outcome[object]]") -> None:
        self.deliver(result.unwrap())

    def _emit(self, data: bytes) -> None:
        """From the thread."""
        self._room.acquire()  # `abandon` lets it through
        if self.abandoned:
            raise Abandoned
        self.deliver(data)

    def taken(self) -> None:
        self._room.release()

    def abandon(self) -> None:
        super().abandon()
        self._room.release()
