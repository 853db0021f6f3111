"""Answers that take long to read, such as the listing of a folder with many files, are read in a thread.

One at a time for each node: a node that sends one such answer after the other takes what time it takes from whoever
waits for that node, and little from everybody else.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

INLINE_BYTES_MAX = 256 * 1024
"""What is shorter is read at once: the worst of it takes some hundredths of a second."""

_T = TypeVar("_T")


class LongAnswers:
    """The answers of one node."""

    def __init__(self) -> None:
        self._turn = trio.CapacityLimiter(1)

    async def read(self, read: Callable[[bytes], _T], body: bytes) -> _T:
        """What `read(body)` returns or raises. It must be pure: when the caller gives up it is left to its end."""
        if len(body) <= INLINE_BYTES_MAX:
            return read(body)
        return await trio.to_thread.run_sync(read, body, abandon_on_cancel=True, limiter=self._turn)
