"""Where the server's blocking calls run: a bounded number of threads.

Not abandoned on cancellation: a call works on descriptors and buffers that its task owns. It lasts as long as
the disk does.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_STAY_SECONDS = 0.1

_T = TypeVar("_T")
_A = TypeVarTuple("_A")


class Disk:
    """`await disk.run(call, *args)`: at most `threads_max` at a time, the others wait."""

    def __init__(self, threads_max: int) -> None:
        self._limiter = trio.CapacityLimiter(threads_max)

    @property
    def stay_seconds(self) -> float:
        """How long a thread may wait for one client that takes what it is sent: not at all unless half of them idle."""
        return _STAY_SECONDS if self._limiter.borrowed_tokens * 2 <= self._limiter.total_tokens else 0.0

    async def run(self, call: Callable[[*_A], _T], *args: *_A) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)
