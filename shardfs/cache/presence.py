"""Which blocks of one cached file are there, as memory knows it: the words of its map, and where disk space is in use.

The words stand on disk too (`block_map`), so memory may let go of them. What only memory knows is space that no word
speaks of, and which blocks were seen to be right. Nothing here touches the disk.
"""

import numpy as np

from shardfs.cache.block_map import Content, Flags, Words, runs
from shardfs.cache.verified import Verified


class Presence:
    """The blocks of one content.

    `words` is None while nobody has the file open, until its map has come, and for a content that cannot be cached:
    then nothing is present and nothing may be written. `allocated` says for which blocks disk space may be in use,
    present or not; it comes and goes with `words`. `verified` stays.

    Without a lock. Blocks of one granule are changed by its one writer or evictor (`books`), or all at once by whoever
    finds that the file was deleted; anybody may look at any time. Both arrays come and go by the errand of the file,
    and go only while nobody holds it (`table`) or evicts from it (`stored`): who does neither looks at `words` once.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.words: Words | None = None
        self.allocated: Flags | None = None
        self.verified = Verified(content.blocks)

    # ------------------------------------------------------------------------------------------- coming and going

    def bring(self, words: Words) -> None:
        """The map has come: these are its words."""
        self.allocated = words != 0
        self.verified.keep(words)
        self.words = words

    @property
    def on_disk_too(self) -> bool:
        """Whether the words have come, and speak of all space that is in use: then `drop` loses nothing."""
        words, allocated = self.words, self.allocated
        return words is not None and allocated is not None and np.array_equal(words != 0, allocated)

    def drop(self) -> None:
        """Give the memory back."""
        self.words = self.allocated = None

    # ------------------------------------------------------------------------------------------------- questions

    @property
    def whole(self) -> bool:
        """Whether every block is there and was seen to be right."""
        return self.words is not None and self.verified.all

    def missing(self, first: int, end: int) -> int:
        """The first absent block of [first, end), else `end`."""
        words = self.words
        if words is None:
            return first
        if first < end and not words[first]:
            return first  # most often, when nothing is cached yet
        # In pieces: whoever asks about a whole large file usually finds the gap early.
        for at in range(first, end, 4096):
            absent = words[at : min(at + 4096, end)] == 0
            gap = int(absent.argmax())
            if absent[gap]:
                return at + gap
        return end

    def expected(self, first: int, end: int) -> Words | None:
        """A copy of the words of [first, end); None when one is absent."""
        words = self.words
        part = None if words is None else words[first:end].copy()
        return part if part is not None and part.all() else None

    def absent_runs(self, first: int, end: int) -> list[tuple[int, int]]:
        """The runs [start, stop) of absent blocks in [first, end); none while there are no words."""
        words = self.words
        return [] if words is None else [(first + a, first + b) for a, b in runs(words[first:end] == 0)]

    def present_bytes(self) -> int:
        """Plain bytes that are there."""
        words = self.words
        if words is None:
            return 0
        short = self.content.blocks * self.content.block_size - self.content.size
        return int(np.count_nonzero(words)) * self.content.block_size - (short if words[-1] else 0)

    def unallocated(self, first: int, end: int) -> int:
        """Bytes of disk to reserve before [first, end) is written."""
        return 0 if self.allocated is None else self._charge(first, ~self.allocated[first:end])

    # --------------------------------------------------------------------------------------------------- changes

    def allocate(self, first: int, end: int) -> None:
        """Space for [first, end) is reserved, and may be in use from now on."""
        if self.allocated is not None:
            self.allocated[first:end] = True

    def add(self, first: int, words: Words, *, epoch: int) -> None:
        """Blocks from `first` on are stored and right, by whoever began in this epoch of `verified`."""
        present = self.words
        if present is not None:
            present[first : first + len(words)] = words
            self.verified.add(first, words, present, epoch=epoch)

    def remove(self, first: int, end: int) -> None:
        """Blocks [first, end) are absent. They keep their space."""
        if self.words is not None:
            self.words[first:end] = 0
        self.verified.remove(first, end)

    def remove_all(self) -> None:
        """No block is there, and the file is another from now on. They keep their space."""
        if self.words is not None:
            self.words[:] = 0
        self.verified.clear()

    def free(self, first: int, end: int) -> int:
        """Blocks [first, end) have no space any more; return the bytes of disk that they had."""
        if self.allocated is None:
            return 0
        flags = self.allocated[first:end]
        freed = self._charge(first, flags)
        flags[:] = False
        return freed

    def _charge(self, first: int, flags: Flags) -> int:
        """Bytes of disk that the blocks with a true flag need; the flags begin at block `first`."""
        return sum(self.content.charge(first + a, first + b) for a, b in runs(flags))
