"""Fetched bytes handed to the kernel before it asks, for mounts whose kernel reads only little ahead.

Without root the kernel asks for 128 KiB at a time. What has been fetched ahead of a reader can be put into the page
cache instead, and is then never asked for. The first `GAP_BYTES` of each piece are left out: the read that comes for
them tells how far the reader is, without which fetching ahead would stop.
"""

from collections import deque
from collections.abc import Callable

from shardfs.core.ranges import spans
from shardfs.core.readahead import Range
from shardfs.fetch import Engine
from shardfs.vfs.places import Places

GAP_BYTES = 64 * 1024
_PIECES_MAX = 64

Push = Callable[[int, memoryview, Callable[[], None]], bool]
"""`push(offset, view, done)`: take the bytes and call `done` when they are handed over; False when too busy."""


class PushAhead:
    """What was asked for ahead of the readers of one file and not yet pushed. At most `_PIECES_MAX` pieces."""

    def __init__(self, places: Places, engine: Engine) -> None:
        self._places = places
        self._engine = engine
        self._pieces: deque[tuple[int, int, int]] = deque(maxlen=_PIECES_MAX)

    def asked(self, span: Range) -> None:
        """`span` of the file is being fetched."""
        for part in spans(span[0], span[1] - span[0], self._places.run_size):
            self._pieces.append((part.chunk, part.start, part.end))

    def push(self, position: int, push: Push) -> None:
        """Hand over what has arrived beyond `position`, where a reader is; forget what lies before it."""
        waiting: list[tuple[int, int, int]] = []
        while self._pieces:
            run, start, end = piece = self._pieces.popleft()
            offset = run * self._places.run_size + start + GAP_BYTES
            place = self._places.place(run)
            if offset <= position or start + GAP_BYTES >= end or place is None:
                continue
            borrowed = self._engine.borrow(place, start + GAP_BYTES, end)
            if borrowed is None:
                waiting.append(piece)
            elif not push(offset, *borrowed):
                borrowed[1]()
                waiting.append(piece)
                break
        self._pieces.extendleft(reversed(waiting))
