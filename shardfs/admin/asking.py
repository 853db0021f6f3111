"""Questions to a node about objects that shardfs did not write: with a deadline, and tried again if that may help.

A node that refuses may be restarting; one that says nothing for the whole of a deadline is not asked again.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from shardfs.core.backoff import backoff
from shardfs.errors import Unavailable
from shardfs.store.base import EXTERNAL_FILES_MAX, ExternalStat
from shardfs.store.watched import WatchedStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AskingOptions:
    """Times in seconds."""

    question: float = 30.0
    """For a small answer, and for the beginning of a chunk."""

    rate_min_bytes: int = 256 * 1024
    """Bytes per second below which a line is as good as dead; a chunk has its time in addition."""

    listing: float = 300.0
    """For all names below a folder, which may take thousands of requests."""

    tries: int = 4
    pause_first: float = 0.1
    pause_max: float = 2.0


class Asking:
    """Given: store, options, chance. Raises what the store does, after the last try; Unavailable when time is up."""

    def __init__(
        self,
        store: WatchedStore,
        *,
        options: AskingOptions = AskingOptions(),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store = store
        self._options = options
        self._chance = chance

    @property
    def node(self) -> str:
        return self.store.node

    async def stat(self, place: str) -> ExternalStat:
        """The object as it is now."""
        return await self._tried(self._options.question, partial(self.store.external_stat, place))

    async def names(self, folder: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """The places of all objects below `folder`."""
        return await self._tried(self._options.listing, partial(self.store.list_external, folder, limit=limit))

    async def read(self, place: str, into: memoryview, offset: int) -> int:
        """Fill `into`; fewer bytes only where the object ends."""
        seconds = self._options.question + len(into) / self._options.rate_min_bytes
        return await self._tried(seconds, partial(self.store.get_external, place, into, offset=offset))

    async def _tried(self, seconds: float, question: Callable[[], Awaitable[T]]) -> T:
        for streak in range(1, self._options.tries + 1):
            try:
                with trio.move_on_after(seconds):
                    return await question()
            except Unavailable:
                if streak == self._options.tries:
                    raise
            else:  # late: waiting as long again is not worth it
                self.store.late(reason := f"no answer within {seconds:.0f} s")
                raise Unavailable(self.node, reason)
            pause = backoff(streak, self._options.pause_first, self._options.pause_max, self._chance())
            await trio.sleep(pause)
        raise AssertionError("the last try returns or raises")
