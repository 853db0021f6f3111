"""A read whose blocks are on their way.

It has no task of its own, since nearly every read of a stream waits and a task would cost as much as its bytes: it is
told of each change of its fill, has another try begun when one has failed, and says when it has come to an end.
"""

from collections.abc import Callable, Generator
from typing import Any

import trio

from shardfs.errors import NoCopy
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.fetch.fills import Fills

Ended = Callable[[Exception | None], None]
"""Called once, with None when the bytes are there; must not raise. The bytes are valid until the next checkpoint."""


class Waiting:
    """Plain bytes [start, start + length) of a fill; its memory stays until this is over.

    `begin(fill, place, mask)` starts to fetch what is neither there nor on its way, or says that it does not. `place`
    is this reader's, whose file is open as long as it waits: others with the same bytes may close theirs. Guarded by
    the event loop.
    """

    __slots__ = ("_begin", "_ended", "_fill", "_fills", "_length", "_place", "_start", "_tries", "_wanted", "over")

    def __init__(
        self,
        fill: Fill,
        place: ChunkPlace,
        start: int,
        length: int,
        *,
        whole: bool,
        fills: Fills,
        begin: Callable[[Fill, ChunkPlace, int], bool],
    ) -> None:
        first, end = fill.blocks_of(start, length)
        self._fill = fill
        self._place = place
        self._start = start
        self._length = length
        self._wanted = fill.mask(first, end)
        # When the whole chunk cannot be had, one bad block elsewhere in it must not fail this read.
        self._tries = [self._wanted, fill.mask(first, fill.blocks)] if whole else [self._wanted]
        self._fills = fills
        self._begin = begin
        self._ended: Ended | None = None
        self.over = False
        fill.pins += 1
        fill.waiting.append(self._changed)
        self._changed()

    def then(self, ended: Ended) -> None:
        """Who is to be told; instead of waiting, and before the next checkpoint."""
        self._ended = ended

    def bytes(self) -> memoryview:
        """What was asked for. The caller has been told that it is there."""
        return self._fills.take(self._fill, self._start, self._length)

    def abandon(self) -> None:
        """Nobody waits any more. What has been begun goes on for others. Harmless when it is over."""
        if not self.over:
            self.over = True
            self._fill.waiting.remove(self._changed)
            self._fills.unpin(self._fill)

    def __await__(self) -> Generator[Any, Any, memoryview]:
        """The bytes, valid until the next checkpoint. Raises NoCopy, or what else the last try has come to."""
        told = trio.Event()
        failure: Exception | None = None

        def ended(error: Exception | None) -> None:
            nonlocal failure
            failure = error
            told.set()

        self._ended = ended
        self._fill.pins += 1  # until this task has its turn
        try:
            yield from told.wait().__await__()
            if failure is not None:
                raise failure
            return self.bytes()
        finally:
            self.abandon()
            self._fills.unpin(self._fill)

    def _changed(self) -> None:
        fill = self._fill
        missing = self._wanted & ~fill.ready
        if self.over:
            return
        if not missing:
            self._end(None)
        elif missing & ~fill.pending:
            begun = self._tries and self._begin(fill, self._place, self._tries.pop())
            if not begun:
                self._end(fill.failure or NoCopy(f"chunk {fill.place.digest.hex()[:16]}: given up"))

    def _end(self, failure: Exception | None) -> None:
        self.over = True
        self._fill.waiting.remove(self._changed)
        try:
            if self._ended is not None:
                self._ended(failure)
        finally:
            self._fills.unpin(self._fill)
