"""One reader's way through a file: how far it has come, in which direction, and whether it can be believed.

Judged by place alone: a read near either end goes on with the stream. A stream that passes over more than it reads is
begun anew, so that reads here and there cannot add up to one.
"""

_PROOF_READS = 4
_LARGE_BYTES = 1024 * 1024
_PROOF_LARGE_READS = 8
_FAIR_SHARE = 2
_MEMORY_CHUNKS = 8


class Stream:
    """`low` and `high`: how far it has come. `since` and `seen`: how much of the recent way was really read."""

    __slots__ = (
        "down", "floor", "from_beginning", "high", "known", "largest", "low", "reach", "seen", "since", "total", "up",
        "used",
    )  # fmt: skip

    def __init__(self, offset: int, end: int) -> None:
        self.low = self.since = self.floor = offset
        self.high = self.reach = end
        self.total = self.seen = self.largest = end - offset
        self.up = self.down = 0
        self.known = 0
        self.used = 0
        self.from_beginning = offset == 0

    @property
    def long(self) -> bool:
        """Longer than what a kernel reads around a page fault.

        In requests of 1 MiB that has been seen to be 8 MiB, twice the window of a mount that root has made: a loader
        that touches each tensor before it reads any would else have twice as much fetched for each, and half of it lost
        before it is read.
        """
        return self.total > (_PROOF_LARGE_READS if self.largest >= _LARGE_BYTES else _PROOF_READS) * self.largest

    @property
    def proven(self) -> bool:
        return self.from_beginning or self.long

    @property
    def backwards(self) -> bool:
        return self.down > self.up

    def near(self, chunk_size: int) -> int:
        """How far from its end a read may lie and still be one of this stream."""
        return min(chunk_size, max(2 * self.largest, self.total if self.proven else 0))

    def add(self, offset: int, end: int, chunk_size: int, *, fresh: bool) -> bool:
        """Another read, at either end or near it; whether it went on, or filled a gap, for which it must be `fresh`."""
        length = end - offset
        self.largest = max(self.largest, length)
        upwards, downwards = end > self.high, offset < self.low
        self.up += length if upwards else 0
        self.down += length if downwards else 0
        self.low, self.high = min(self.low, offset), max(self.high, end)
        self.floor, self.reach = min(self.floor, self.low), max(self.reach, self.high)
        if not (upwards or downwards or fresh):
            return False
        self.total += length
        passed = self.low - self.since if self.backwards else self.high - self.since
        self.seen = min(abs(passed), self.seen + length)
        if self.seen * _FAIR_SHARE < abs(passed):
            self.total = self.seen = length
            self.since = end if self.backwards else offset
            self.from_beginning = False
        elif abs(passed) > _MEMORY_CHUNKS * chunk_size:
            self.since += passed // 2
            self.seen //= 2
        return True
