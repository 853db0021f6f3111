"""The places of uploads: so many bodies are read at the same time, and the other PUTs wait in line.

An honest line moves, however slowly: who waits in it is not refused for its length, but only when its time is over.
When no place has had a byte for a while, those who hold them are silent or their line is down, and all who wait are
sent away for a moment: silent ones among them would be next, one round after the other, and good ones behind them.
"""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from shardfs.server.options import ServerOptions
from shardfs.server.request import Refused

_RETRY_AFTER_SECONDS = 1


class Places:
    """Given: options. Changing, between awaits only: free places, who waits, when bytes came last."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._free = options.uploads_max
        self._line: deque[trio.Event] = deque()  # each is set when its place is there; at most one per connection
        self._moved_at = -math.inf

    def moved(self) -> None:
        """Something happened in one of the places just now."""
        self._moved_at = trio.current_time()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place, in the order of the calls. Refused with 503 and Retry-After when there is none in time."""
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self) -> None:
        turn = trio.Event()
        self._line.append(turn)
        arrived = trio.current_time()
        try:
            while True:
                moved_at = max(arrived, self._moved_at)
                until = min(
                    arrived + self._options.upload_wait_seconds_max,
                    moved_at + self._options.upload_quiet_seconds_max,
                )
                with trio.move_on_at(until):
                    await turn.wait()
                if turn.is_set():
                    return
                if self._moved_at <= moved_at or until == arrived + self._options.upload_wait_seconds_max:
                    raise Refused(503, "too many uploads", (("Retry-After", str(_RETRY_AFTER_SECONDS)),))
        except BaseException:
            if turn.is_set():
                self._give_back()
            else:
                self._line.remove(turn)
            raise

    def _give_back(self) -> None:
        if self._line:
            self._line.popleft().set()
        else:
            self._free += 1
