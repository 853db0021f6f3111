"""What to fetch before it is asked for, judged from the reads of one file, in whatever order they come.

A *stream* is one reader's way through the file. Ranks, threads and forked workers read through one descriptor, so
streams are told apart by place and not by handle (a mount that judged by handle took 13 minutes for what takes 1). A
read belongs to the stream whose end it is near; another one begins a stream and takes nothing from those there are.

How much is asked for ahead follows from what was seen, never more than a small multiple of it:

- a stream is proven once it is more than four times as long as its largest read, eight times where that is 1 MiB, which
  neither a random read nor what the kernel reads around a page fault ever is; then twice what it has read is asked for;
- one from the very beginning of a file gets a chunk at once, and eight times what it has read when it is proven;
- one that is not proven gets as much as the last jumps each led to (tensors read in the order of their names are
  equally long stretches; random reads are short ones and get nothing);
- once half of the file was read, in any order, the rest is wanted too.

So random reads cost their blocks and nothing else. What a reader that stops leaves unread is at most its window.
Streams going backwards are streams. Strides are, while half of what is passed over is read.

Bounds: the streams at work share the window; what was asked for ahead and not read is at most two windows for a file,
and is given up, oldest stream first, only when that or the number of streams is exceeded.
Offsets and sizes are bytes. Pure: no clock; a stream's age is counted in reads.
"""

from collections import deque
from dataclasses import dataclass

from shardfs.core.coverage import Coverage
from shardfs.core.stream import Stream

_PROVEN_FACTOR = 2
_BEGINNING_FACTOR = 8
_AT_WORK_READS = 32
_JUMPS = 3
_FILE_WINDOWS = 2

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ReadAheadOptions:
    """`window_bytes_max` bounds what one stream may ask for ahead of its reader."""

    window_bytes_max: int = 64 * 1024 * 1024
    streams_max: int = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """`ahead`: ranges to fetch, most urgent first. `drop`: asked for before, wanted no more.

    `whole`: the rest of this read's last chunk is among what was asked for ahead; should it have been lost, fetch it
    with the read. `following`: ranges of other files, by number, see `core.shards`.
    """

    whole: bool = False
    ahead: tuple[Range, ...] = ()
    drop: tuple[Range, ...] = ()
    following: tuple[tuple[int, Range], ...] = ()


NOTHING = Plan()
WHOLE = Plan(whole=True)


class ReadAhead:
    """The streams of one file. `observe` is told of each read and returns the plan."""

    def __init__(
        self, size: int, chunk_size: int, block_size: int, options: ReadAheadOptions = ReadAheadOptions()
    ) -> None:
        self.size = size
        self.coverage = Coverage(size, block_size)
        self._chunk_size = chunk_size
        self._window = max(chunk_size, options.window_bytes_max)
        self._streams_max = options.streams_max
        self._streams: list[Stream] = []
        self._jumps: deque[int] = deque(maxlen=_JUMPS)
        self._latest: Stream | None = None
        self._clock = 0

    def observe(self, offset: int, length: int) -> Plan:
        """A read of `length` bytes at `offset`, within the file, was asked for."""
        if length <= 0:
            return NOTHING
        self._clock += 1
        end = offset + length
        drop: list[Range] = []
        fresh = self.coverage.read(offset, end)
        stream = self._match(offset, end)
        if stream is None:
            stream, goes_on = self._begin(offset, end, drop), True
        else:
            goes_on = stream.add(offset, end, self._chunk_size, fresh=fresh)
        stream.used = self._clock
        stream.known = 0 if fresh else stream.known + length
        self._latest = stream
        if fresh or goes_on:
            self.coverage.count(length)
        ahead = self._ahead(stream, offset, end, drop)
        whole = goes_on and self.coverage.ahead_in(end, -(-end // self._chunk_size) * self._chunk_size)
        if ahead or drop:
            return Plan(whole, tuple(ahead), tuple(drop))
        return WHOLE if whole else NOTHING

    def spare(self) -> int:
        """Bytes of the window left when everything up to the end of the file has been asked for, else 0."""
        if not self.coverage.mostly_read() or self.coverage.untouched(0, self.size) >= 0:
            return 0
        return max(0, self._window - self.coverage.ahead_bytes)

    def expect(self, budget: int) -> list[Range]:
        """The file before this one is nearly read: what more to fetch of the first `budget` bytes of this one."""
        if self._streams:
            return []
        target = min(budget, self._window) // self._chunk_size * self._chunk_size
        return list(self.coverage.claim(0, target, target - self.coverage.ahead_bytes, self._chunk_size))

    def refused(self, start: int, end: int) -> None:
        """There was no memory to fetch [start, end) ahead: it may be asked for again."""
        for _ in self.coverage.give_back(start, end):
            pass

    @property
    def in_use(self) -> bool:
        """Whether somebody has read the file, and not only the one before it."""
        return bool(self._streams)

    def give_up(self) -> tuple[Range, ...]:
        """Nobody reads the file any more: what was asked for ahead and not read. It is wanted no more."""
        return tuple(self.coverage.give_back(0, self.size))

    # ----------------------------------------------------------------------------------------------------- streams

    def _match(self, offset: int, end: int) -> Stream | None:
        """The stream with an end nearest to this read, if any is near enough."""
        best, best_distance = None, self.size + 1
        for stream in self._streams:
            near = stream.near(self._chunk_size)
            distance = abs(offset - stream.high)
            if stream.down >= stream.up:
                distance = min(distance, abs(stream.low - end))
            if distance <= near and distance < best_distance:
                best, best_distance = stream, distance
        return best

    def _begin(self, offset: int, end: int, drop: list[Range]) -> Stream:
        """A new stream; if there are too many, a newcomer makes room, so that lone reads cost the others nothing."""
        if self._latest is not None:
            self._jumps.append(self._latest.total)
        if len(self._streams) >= self._streams_max:
            oldest = min(self._streams, key=lambda s: (s.proven, s.used))
            self._streams.remove(oldest)
            drop.extend(self._left_behind(oldest))
        stream = Stream(offset, end)
        self._streams.append(stream)
        return stream

    def _left_behind(self, stream: Stream) -> list[Range]:
        """What `stream` has asked for ahead and nobody else is about to read is untouched again."""
        others = [s for s in self._streams if s is not stream]
        top = min((s.low for s in others if s.low > stream.high), default=self.size)
        bottom = max((s.high for s in others if s.high < stream.low), default=0)
        gone = list(self.coverage.give_back(stream.high, min(stream.reach, top)))
        if stream.floor < stream.low:
            gone += self.coverage.give_back(max(bottom, stream.floor), stream.low)
        stream.reach, stream.floor = stream.high, stream.low
        return gone

    # ------------------------------------------------------------------------------------------------------- ahead

    def _ahead(self, stream: Stream, offset: int, end: int, drop: list[Range]) -> list[Range]:
        rest = self.coverage.mostly_read()
        want = self._want(stream)
        if not (want or rest):
            return []
        if stream.known > 2 * self.coverage.cell:
            self.coverage.forget_read(end, stream.high + want)
        room = self._room(stream, drop)
        if stream.backwards:
            ahead = self._downwards(stream, offset, want, room)
        else:
            ahead = self._upwards(stream, end, want, room)
        if rest and stream.known <= 2 * self.coverage.cell:
            for start, stop in ((end, self.size), (0, end)):
                room = self._window - self.coverage.ahead_bytes
                if room >= self._chunk_size:
                    ahead += self.coverage.claim(start, stop, room, self._chunk_size)
        return ahead

    def _want(self, stream: Stream) -> int:
        """How many bytes should be on their way ahead of this stream."""
        expected = min(self._jumps) - stream.total if len(self._jumps) == _JUMPS else 0
        if not stream.proven:
            return min(self._window, max(0, expected))
        want = max(expected, _PROVEN_FACTOR * stream.total)
        if stream.from_beginning:
            want = max(self._chunk_size, stream.total * (_BEGINNING_FACTOR if stream.long else 1))
        newest = self._clock - _AT_WORK_READS
        at_work = sum(1 for s in self._streams if s.used > newest and s.proven)
        return min(max(self._chunk_size, self._window // max(1, at_work)), want)

    def _room(self, stream: Stream, drop: list[Range]) -> int:
        """Bytes that may be asked for ahead now; where they are short, the stream unused for longest gives its up."""
        limit = _FILE_WINDOWS * self._window
        if limit - self.coverage.ahead_bytes < self._chunk_size:
            waiting = [s for s in self._streams if s is not stream and (s.reach > s.high or s.floor < s.low)]
            if waiting:
                drop += self._left_behind(min(waiting, key=lambda s: s.used))
        return limit - self.coverage.ahead_bytes

    def _upwards(self, stream: Stream, end: int, want: int, room: int) -> list[Range]:
        """From this read to `want` beyond the stream's end; whole chunks as soon as it wants any."""
        unit = self._chunk_size if want >= self._chunk_size else self.coverage.cell
        target = min(self.size, (stream.high + want) // unit * unit)
        if stream.high + want >= self.size:
            target = self.size
        first = self.coverage.untouched(end, target) if target > end else -1
        # Little by little would be a request for each block: only when a good part of what is wanted is missing.
        if first < 0 or (target - first < min(unit, want // 2) and target < self.size):
            return []
        stream.reach = max(stream.reach, target)
        return list(self.coverage.claim(first, target, room, self._chunk_size))

    def _downwards(self, stream: Stream, offset: int, want: int, room: int) -> list[Range]:
        unit = self._chunk_size if want >= self._chunk_size else self.coverage.cell
        target = max(0, -(-(stream.low - want) // unit) * unit)
        last = self.coverage.untouched_before(target, offset) if target < offset else -1
        if last < 0 or (last - target < min(unit, want // 2) and target > 0):
            return []
        stream.floor = min(stream.floor, target)
        pieces: list[Range] = []
        while last > target and room >= self._chunk_size:
            start = max(target, (last - 1) // self._chunk_size * self._chunk_size)
            found = list(self.coverage.claim(start, last, room, self._chunk_size))
            room -= self._chunk_size
            pieces += reversed(found)
            last = start
        return pieces
