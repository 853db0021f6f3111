"""Which blocks of a file were seen to be right since this daemon began: written by it, or read and compared.

Kept while nobody has the file open, unlike the words, in one byte for each block; none when it is all or no blocks.

`epoch` counts how often all was forgotten: who began before that has seen another file.
"""

import threading

import numpy as np

from shardfs.cache.block_map import Flags, Words


class Verified:
    """Thread-safe."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()  # guards all below; reading one attribute alone needs no lock
        self.epoch = 0
        self._count = 0
        self._flags: Flags | None = None  # only while some but not all are set

    @property
    def all(self) -> bool:
        return self._count == self._blocks

    def add(self, first: int, words: Words, present: Words | None, *, epoch: int) -> None:
        """Blocks from `first` on had these words and the right bytes, by whoever began in this epoch.

        `present` are the words of the file now: who makes a block absent changes them first and calls `remove` then, so
        a block that went meanwhile is not counted.
        """
        if self.all or present is None:
            return
        with self._lock:
            if epoch == self.epoch:
                self._set(first, present[first : first + len(words)] == words)

    def remove(self, first: int, end: int) -> None:
        """Blocks [first, end) may be anything now."""
        with self._lock:
            self._unset(first, np.ones(end - first, dtype=np.bool_))

    def clear(self) -> None:
        """The file is another from now on."""
        with self._lock:
            self.epoch += 1
            self._count = 0
            self._flags = None

    def keep(self, present: Words) -> None:
        """Forget the blocks that have no word: the map was read anew."""
        with self._lock:
            if self._count:
                self._unset(0, present == 0)

    def _set(self, first: int, which: Flags) -> None:
        if self.all:
            return
        if self._flags is None:
            self._flags = np.zeros(self._blocks, dtype=np.bool_)
        part = self._flags[first : first + len(which)]
        self._count += int(np.count_nonzero(which & ~part))
        part |= which
        self._compact()

    def _unset(self, first: int, which: Flags) -> None:
        if not self._count or not which.any():
            return
        if self._flags is None:
            self._flags = np.ones(self._blocks, dtype=np.bool_)
        part = self._flags[first : first + len(which)]
        self._count -= int(np.count_nonzero(which & part))
        part &= ~which
        self._compact()

    def _compact(self) -> None:
        if self._count in {0, self._blocks}:
            self._flags = None
