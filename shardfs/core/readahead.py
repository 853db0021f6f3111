"""What to fetch before it is asked for, judged from the reads of one file.

Several sequential streams on one file are told apart, because ranks, threads and forked workers read through one
descriptor (a mount that judged by handle took 13 minutes for what takes 1). A read belongs to a stream when it lies
near the stream's position; the kernel sends its own read-ahead out of order, so "near" is generous. A jump starts a
new stream and takes nothing from the others: what they have asked for keeps coming. A lone read somewhere fetches
only its blocks; the second in a row makes a stream whose window doubles from one chunk to the maximum, once for each
quarter of a chunk read, so that a header alone does not fetch half a model.

Nearness alone would let random reads feed a stream by accident, the more the larger its window. So a stream must read
a fair part of what it passes over: one that does not shrinks back to nothing.

Offsets and sizes are bytes, windows whole chunks.
"""

from dataclasses import dataclass

from shardfs.core.ranges import chunk_count


@dataclass(frozen=True, slots=True)
class ReadAheadOptions:
    """`window_bytes_max` bounds what one stream may ask for ahead of its reader."""

    window_bytes_max: int = 64 * 1024 * 1024
    streams_max: int = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """`whole`: fetch the chunks of this read entirely. `ahead`: chunks to fetch next, most urgent first."""

    whole: bool
    ahead: range


_NEAR_CHUNKS = 4
_NEAR_NEWCOMER_SHARE = 8
_NEAR_NEWCOMER_READS = 4
_GROWTH_SHARE = 4
_COVERAGE_MIN = 1 / 4
_MEMORY_CHUNKS = 8


class _Stream:
    """One reader's way through the file. `start` and `seen` say how much of the recent way was really read."""

    __slots__ = ("grown_at", "position", "seen", "start", "used", "window")

    def __init__(self, offset: int, end: int, window: int) -> None:
        self.start = offset
        self.position = end
        self.seen = end - offset
        self.window = window
        self.grown_at = end
        self.used = 0

    def read(self, offset: int, end: int, chunk_size: int, window_max: int) -> None:
        """Another read of this stream, before or behind its position."""
        self.start = min(self.start, offset)
        ahead = end > self.position
        self.position = max(self.position, end)
        passed = self.position - self.start
        self.seen = min(passed, self.seen + end - offset)
        if self.seen < passed * _COVERAGE_MIN:
            self.window //= 2
            self.start, self.seen = offset, end - offset
        elif not self.window:
            self.window = 1 if ahead else 0
            self.grown_at = self.position
        elif self.position - self.grown_at >= chunk_size // _GROWTH_SHARE:
            self.window = min(window_max, self.window * 2)
            self.grown_at = self.position
        if passed > _MEMORY_CHUNKS * chunk_size:
            self.start += passed // 2
            self.seen //= 2


class ReadAhead:
    """The streams of one file. Pure: `observe` is told of each read and returns the plan."""

    def __init__(self, size: int, chunk_size: int, options: ReadAheadOptions = ReadAheadOptions()) -> None:
        self._chunk_size = chunk_size
        self._chunks = chunk_count(size, chunk_size)
        self._window_max = max(1, options.window_bytes_max // chunk_size)
        self._streams_max = options.streams_max
        self._streams: list[_Stream] = []
        self._clock = 0

    def observe(self, offset: int, length: int) -> Plan:
        """A read of `length` bytes at `offset` was asked for."""
        self._clock += 1
        end = offset + length
        stream = self._match(offset)
        if stream is None:
            # A reader that begins at the beginning is most likely to go on.
            stream = _Stream(offset, end, 1 if offset == 0 else 0)
            self._remember(stream)
        else:
            stream.read(offset, end, self._chunk_size, self._window_max)
        stream.used = self._clock
        next_chunk = -(-stream.position // self._chunk_size)
        return Plan(stream.window > 0, range(next_chunk, min(self._chunks, next_chunk + stream.window)))

    def _match(self, offset: int) -> _Stream | None:
        """The stream nearest to this read, if any is near enough."""
        best, best_distance = None, None
        for stream in self._streams:
            near = _NEAR_CHUNKS * self._chunk_size
            if not stream.window:
                near = min(near, max(self._chunk_size // _NEAR_NEWCOMER_SHARE, _NEAR_NEWCOMER_READS * stream.seen))
            if abs(offset - stream.position) <= near:
                distance = abs(offset - stream.position)
                if best_distance is None or distance < best_distance:
                    best, best_distance = stream, distance
        return best

    def _remember(self, stream: _Stream) -> None:
        """Keep it; the one to make room is a newcomer if possible, so that lone reads cost the others nothing."""
        if len(self._streams) >= self._streams_max:
            self._streams.remove(min(self._streams, key=lambda s: (s.window > 0, s.used)))
        self._streams.append(stream)
