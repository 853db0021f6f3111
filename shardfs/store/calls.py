"""Calls into blocking libraries that cannot be interrupted, in bounded threads.

A cancelled or timed-out call returns to its caller at once. Its function finds out when it delivers the next bytes or
asks whether anybody still waits, and otherwise ends with the library's own time-outs. Results are handed over in trio's
thread. Bytes are copied into the caller's memory by the call's own thread, under a lock that giving up takes too, so
nothing can arrive late and the library never sees that memory.

A call that has not ended although it was cancelled keeps its place; when all places are held by such calls, further
ones are refused instead of piling up. All threads are daemons: none holds up the end of the program for long. It is
held up a little: a library's thread that comes back to Python while that is being taken down aborts the process, so
the last ones are waited for, for `SETTLE_SECONDS_MAX` at most.
"""

import atexit
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

import outcome
import trio

FIRST_NEWS_BYTES = 320 * 1024
"""The caller is told of the first bytes when there are so many: a block and its chunk's header."""

NEXT_NEWS_BYTES = 512 * 1024
"""And again after so many more: each time costs it a turn of the event loop."""

SETTLE_SECONDS_MAX = 6.0

_T = TypeVar("_T")


class TooManyStuck(Exception):
    """Every place is held by a cancelled call that does not end."""


class Abandoned(BaseException):
    """Ends a function whose caller is gone. Not an Exception, so that nobody handles it on the way."""


class Calls:
    """The calls of one store: at most `calls_max` at a time, those that were cancelled and still run included."""

    def __init__(self, *, calls_max: int) -> None:
        self._calls_max = calls_max
        self._slots = trio.Semaphore(calls_max)
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Calls that were cancelled and have not ended yet."""
        return self._abandoned

    async def run(
        self,
        work: "Callable[[Call], _T]",
        into: memoryview | None = None,
        arrived: Callable[[int], None] | None = None,
    ) -> _T:
        """What `work(call)` returns or raises, called in a thread. TooManyStuck.

        What `work` delivers goes to `into`. `arrived(n)` is called in trio's thread now and then, with the bytes that
        are there; what it raises ends the call.
        """
        await trio.lowlevel.checkpoint()
        if self._abandoned >= self._calls_max:
            raise TooManyStuck
        await self._slots.acquire()
        call = Call(self, into)
        call.start(work)
        try:
            return cast(_T, await call.result(arrived))
        finally:
            if not call.ended:
                self._abandoned += 1
                call.abandon()

    def gone(self, call: "Call") -> None:
        """Its thread has ended."""
        self._slots.release()
        self._abandoned -= call.abandoned


class Call:
    """One call. `deliver` and `check` are for its thread, everything else for trio's.

    Changing, under the lock: `abandoned`, what has landed. In trio's thread only: `ended`, the result, the bell.
    """

    def __init__(self, calls: Calls, into: memoryview | None) -> None:
        self._calls = calls
        self._token = trio.lowlevel.current_trio_token()
        self._into = into
        self._lock = threading.Lock()
        self._landed = 0
        self._told_at = FIRST_NEWS_BYTES
        self._bell = trio.Event()
        self._result: outcome.Outcome[object] | None = None
        self.abandoned = False
        self.ended = False

    def deliver(self, data: bytes) -> None:
        """The next bytes for the caller. Abandoned when nobody waits any more, ValueError when there is no room."""
        with self._lock:
            self.check()
            end = self._landed + len(data)
            if self._into is None or end > len(self._into):
                raise ValueError("more bytes than asked for")
            self._into[self._landed : end] = data
            self._landed = end
        if end >= self._told_at:
            self._told_at = end + NEXT_NEWS_BYTES
            self._soon(self._ring)

    def check(self) -> None:
        """Abandoned when nobody waits any more."""
        if self.abandoned:
            raise Abandoned

    def start(self, work: "Callable[[Call], object]") -> None:
        def call() -> "outcome.Outcome[object]":
            try:
                return outcome.capture(work, self)
            finally:
                _running.discard(self)

        _running.add(self)
        trio.lowlevel.start_thread_soon(call, self._finish, "shardfs-blocking")

    def _finish(self, result: "outcome.Outcome[outcome.Outcome[object]]") -> None:
        self._soon(self._end, result.unwrap())

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call, *arguments)

    def _end(self, result: "outcome.Outcome[object]") -> None:
        self.ended = True
        self._result = result
        self._calls.gone(self)
        self._ring()

    def _ring(self) -> None:
        self._bell.set()

    async def result(self, arrived: Callable[[int], None] | None) -> object:
        """Wait for the end; `arrived` hears of what has landed on the way."""
        heard = 0
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            landed = self._landed
            if arrived is not None and landed > heard:
                heard = landed
                arrived(landed)
            if self._result is not None:
                return self._result.unwrap()

    def abandon(self) -> None:
        """Nobody waits for it any more, and nothing of it lands any more."""
        with self._lock:
            self.abandoned = True
            self._into = None


_running: set[Call] = set()  # trio's thread adds, each call's own removes


@atexit.register
def settle() -> None:
    """At the end of the program: until no library is about to come back to Python."""
    end = time.monotonic() + SETTLE_SECONDS_MAX
    for call in list(_running):
        call.abandon()
    while _running and time.monotonic() < end:
        time.sleep(0.001)
