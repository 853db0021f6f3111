"""Where the server's blocking calls run: a bounded number of threads.

Not abandoned on cancellation: a call works on descriptors and buffers that its task owns. It lasts as long as
the disk does.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_A = TypeVarTuple("_A")


class Disk:
    """`await disk.run(call, *args)`: at most `threads_max` at a time, the others wait."""

    def __init__(self, threads_max: int) -> None:
        self._limiter = trio.CapacityLimiter(threads_max)

    @property
    def idle(self) -> bool:
        """Whether at least half of the threads have nothing to do."""
        return self._limiter.borrowed_tokens * 2 <= self._limiter.total_tokens

    async def run(self, call: Callable[[*_A], _T], *args: *_A) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)
