"""Calls into blocking libraries that cannot be interrupted, in bounded threads.

A cancelled or timed-out call returns to its caller at once. Its function finds out when it hands over the next piece or
asks whether anybody still waits, and otherwise ends with the library's own time-outs. Results and pieces are handed
over as values in trio's thread: the library never sees the caller's memory, so nothing can arrive late.

A call that has not ended although it was cancelled keeps its place; when all places are held by such calls, further
ones are refused instead of piling up. All threads are daemons: none holds up the end of the program for long. It is
held up a little: a library's thread that comes back to Python while that is being taken down aborts the process, so
the last ones are waited for, for `SETTLE_SECONDS_MAX` at most.
"""

import atexit
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

import outcome
import trio

PIECES_AHEAD_MAX = 8
"""Pieces that are handed over and not taken yet; the library waits."""

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

    async def run(self, work: "Callable[[Call], _T]", piece: Callable[[bytes], None] | None = None) -> _T:
        """What `work(call)` returns or raises, called in a thread. TooManyStuck.

        What `work` emits goes to `piece`, in trio's thread and in order; what `piece` raises ends the call.
        """
        await trio.lowlevel.checkpoint()
        if self._abandoned >= self._calls_max:
            raise TooManyStuck
        await self._slots.acquire()
        call = Call(self)
        call.start(work)
        try:
            return cast(_T, await call.result(piece))
        finally:
            if not call.ended:
                self._abandoned += 1
                call.abandon()

    def gone(self, call: "Call") -> None:
        """Its thread has ended."""
        self._slots.release()
        self._abandoned -= call.abandoned


class Call:
    """One call. `emit` and `check` are for its thread, everything else for trio's."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[object](math.inf)  # PIECES_AHEAD_MAX and a result
        self._room = threading.Semaphore(PIECES_AHEAD_MAX)
        self.abandoned = False
        self.ended = False

    def emit(self, data: bytes) -> None:
        """Hand over a piece, when there is room for it. Abandoned when nobody waits any more."""
        self._room.acquire()  # `abandon` lets it through
        self.check()
        self._deliver(data)

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
        self._deliver(result.unwrap())

    def _deliver(self, item: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._arrive, item)

    def _arrive(self, item: object) -> None:
        if not isinstance(item, bytes):
            self.ended = True
            self._calls.gone(self)
        if not self.abandoned:
            self._send.send_nowait(item)

    async def result(self, piece: Callable[[bytes], None] | None) -> object:
        """Wait for the end; pieces go to `piece` on the way."""
        while True:
            item = await self._receive.receive()
            if isinstance(item, outcome.Error | outcome.Value):
                return item.unwrap()
            self._room.release()
            if piece is not None and isinstance(item, bytes):
                piece(item)

    def abandon(self) -> None:
        """Nobody waits for it any more; what it still sends goes nowhere."""
        self.abandoned = True
        self._room.release()


_running: set[Call] = set()  # trio's thread adds, each call's own removes


@atexit.register
def settle() -> None:
    """At the end of the program: until no library is about to come back to Python."""
    end = time.monotonic() + SETTLE_SECONDS_MAX
    for call in list(_running):
        call.abandon()
    while _running and time.monotonic() < end:
        time.sleep(0.001)
