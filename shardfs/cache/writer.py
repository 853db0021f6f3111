"""Changing the blocks of one content: storing them, and dropping one that turned out bad.

Of each granule in turn: become its one writer, take room for what is absent, write that, let go. Blocks that are there
are not written again. An error of the disk ends it; the space of the blocks that it hit is given back, unless that
fails too.
"""

from contextlib import suppress

import numpy as np

from shardfs.cache.shared import Shared, is_full
from shardfs.cache.stored import StoredFile


class Writer:
    """Thread-safe: writers of one granule wait for each other (`ledger`). Raises nothing because of the disk."""

    def __init__(self, number: int, stored: StoredFile, shared: Shared) -> None:
        self._number = number
        self._stored = stored
        self._content = stored.content
        self._presence = stored.presence
        self._shared = shared

    def write(self, first: int, end: int, data: memoryview) -> bool:
        """Store blocks [first, end), whose plain bytes are `data`. False = not, or only in part, stored."""
        if self._shared.health.bypassed and not self._answers_again():
            return False
        content, size = self._content, self._stored.granule_blocks
        for granule in range(first // size, -(-end // size)):
            start, stop = max(first, granule * size), min(end, (granule + 1) * size)
            at = (start - first) * content.block_size
            if not self._write(granule, start, stop, data[at : at + content.length(start, stop)]):
                return False
        return True

    def drop(self, block: int, word: np.uint64) -> None:
        """Make a block absent that failed verification against `word`, unless somebody has replaced it since.

        While the file is out, the block stays as it is and is a miss; but the file is not lent again.
        """
        self._presence.verified.remove(block, block + 1)
        granule = (self._number, block // self._stored.granule_blocks)
        if not self._shared.ledger.begin_write(granule):
            return
        try:
            words = self._presence.words
            if words is not None and words[block] == word:
                self._stored.clear(block, block + 1)
                self._shared.room.release(granule, self._stored.free(block, block + 1))
        except OSError as error:
            self._shared.troubled(error, "write_errors")
        finally:
            self._shared.ledger.end_write(granule)

    def _answers_again(self) -> bool:
        """Whether the disk, which is bypassed, is there again. One caller a minute asks it."""
        return self._shared.health.probe_due(self._shared.books.clock()) and self._shared.probe()

    def _write(self, granule_number: int, first: int, end: int, data: memoryview) -> bool:
        """Store blocks of one granule."""
        granule = (self._number, granule_number)
        ledger, presence = self._shared.ledger, self._presence
        if self._shared.lending.out(self._number) and presence.missing(first, end) == end:
            return True  # nobody writes to a file that is out, nor has to
        if not ledger.begin_write(granule):
            return False
        try:
            if presence.words is None:
                return False
            for start, stop in presence.absent_runs(first, end):
                size = presence.unallocated(start, stop)
                if not self._shared.room.reserve(granule, size, self._content.map_charge):
                    return False
                presence.allocate(start, stop)
                at = (start - first) * self._content.block_size
                if not self._write_run(granule, start, stop, data[at : at + self._content.length(start, stop)]):
                    return False
            return True
        finally:
            ledger.end_write(granule)

    def _write_run(self, granule: tuple[int, int], start: int, stop: int, data: memoryview) -> bool:
        """Store absent blocks that have room, as the writer of their granule."""
        try:
            self._stored.write(start, data)
        except OSError as error:
            self._shared.troubled(error, "write_errors")
            full = is_full(error)
        else:
            self._shared.health.succeeded()
            return True
        with suppress(OSError):  # what cannot be freed stays charged, which is the safe side
            self._stored.clear(start, stop)
            self._shared.room.release(granule, self._stored.free(start, stop))
        if full:
            self._shared.room.evict_oldest()  # so that the next write finds room
        return False
