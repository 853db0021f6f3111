"""Which parts of one file its readers have asked for, and which were asked for ahead of them.

The file is cut in cells, one byte of memory each: a block, or several where the file has more than `CELLS_MAX`
blocks. So memory is at most `CELLS_MAX` bytes for a file, and every question is a search in a bytearray.
A cell is *read* as soon as any byte of it was asked for, *ahead* while it was asked for ahead and not read yet.
"""

from collections.abc import Iterator

CELLS_MAX = 1 << 20

_UNTOUCHED, _READ, _AHEAD = b"\0", b"\1", b"\2"
_FORGET_READ = bytes([0, 0, 2]) + bytes(253)


class Coverage:
    """Offsets are bytes. `read_bytes` counts each place about once; `ahead_bytes` is what is ahead now."""

    __slots__ = ("_cells", "ahead_bytes", "cell", "read_bytes", "size")

    def __init__(self, size: int, block_size: int) -> None:
        self.size = size
        self.cell = block_size
        while -(-size // self.cell) > CELLS_MAX:
            self.cell *= 2
        self._cells = bytearray(-(-size // self.cell))
        self.read_bytes = 0
        self.ahead_bytes = 0

    @property
    def memory_bytes(self) -> int:
        return len(self._cells)

    def read(self, start: int, end: int) -> bool:
        """[start, end) was asked for; whether any of its cells had not been."""
        first, last = start // self.cell, -(-end // self.cell)
        cells = self._cells
        if cells.count(_READ, first, last) == last - first:
            return False
        self.ahead_bytes -= cells.count(_AHEAD, first, last) * self.cell
        cells[first:last] = _READ * (last - first)
        return True

    def count(self, length: int) -> None:
        """So many bytes were read that had not been."""
        self.read_bytes = min(self.size, self.read_bytes + length)

    def claim(self, start: int, end: int, budget: int, step: int) -> Iterator[tuple[int, int]]:
        """Take the untouched cells of [start, end) ahead, within `budget` bytes; each range in one `step` of the file.

        What does not fit in the budget as a whole range is not begun.
        """
        cell, cells = self.cell, self._cells
        at, last = start // cell, -(-min(end, self.size) // cell)
        while (at := cells.find(_UNTOUCHED, at, last)) >= 0:
            stop = min(last, ((at * cell // step + 1) * step + cell - 1) // cell)
            for state in (_READ, _AHEAD):
                found = cells.find(state, at, stop)
                stop = found if found >= 0 else stop
            length = (stop - at) * cell
            if length > budget:
                return
            budget -= length
            self.ahead_bytes += length
            cells[at:stop] = _AHEAD * (stop - at)
            yield at * cell, min(stop * cell, self.size)
            at = stop

    def ahead_in(self, start: int, end: int) -> bool:
        """Whether anything of [start, end) is ahead."""
        return self._cells.find(_AHEAD, start // self.cell, -(-end // self.cell)) >= 0

    def untouched(self, start: int, end: int) -> int:
        """The first untouched place of [start, end), or -1."""
        found = self._cells.find(_UNTOUCHED, start // self.cell, -(-end // self.cell))
        return found if found < 0 else max(start, found * self.cell)

    def untouched_before(self, start: int, end: int) -> int:
        """The end of the last untouched place of [start, end), or -1."""
        found = self._cells.rfind(_UNTOUCHED, start // self.cell, -(-end // self.cell))
        return found if found < 0 else min(end, (found + 1) * self.cell)

    def give_back(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What is ahead in [start, end) is untouched again; yields the ranges."""
        cells, at, last = self._cells, start // self.cell, -(-min(end, self.size) // self.cell)
        while (at := cells.find(_AHEAD, at, last)) >= 0:
            stop = at + 1
            while stop < last and cells[stop] == _AHEAD[0]:
                stop += 1
            cells[at:stop] = bytes(stop - at)
            self.ahead_bytes -= (stop - at) * self.cell
            yield at * self.cell, min(stop * self.cell, self.size)
            at = stop

    def forget_read(self, start: int, end: int) -> None:
        """What was read of [start, end) is wanted again: the kernel has lost it."""
        first, last = max(0, start) // self.cell, -(-min(end, self.size) // self.cell)
        self._cells[first:last] = self._cells[first:last].translate(_FORGET_READ)

    def mostly_read(self) -> bool:
        return self.read_bytes * 2 >= self.size
