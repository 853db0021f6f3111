"""A mount in a few lines: a recorded trace, a policy, and nodes of a fixed latency and bandwidth; virtual time.

The trace says of each read what it waited for: the read that had ended last when this one began, and how long after.
So a read that is answered later makes all that follow later, as in the program that was recorded.

Of the mount: slots of memory with the engine's rules (fetched ahead only while memory is spare, read ones go first) and
one fetch for each contiguous range of a chunk. Of the nodes: `parallel` fetches ahead at once, each `latency` and then
its bytes over one shared wire, usable block by block; a fetch that a reader waits for goes before those ahead.
"""

import gzip
import heapq
import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shardfs.core.manifest import FileEntry
from shardfs.core.ranges import spans
from shardfs.core.readahead import Plan, ReadAheadOptions
from shardfs.core.shards import ModelReadAhead

TRACES = Path(__file__).parent.parent / "traces"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Read:
    """`after` is the number of the read that this one waited for, or -1; `pause` the time between, in us."""

    file: int
    offset: int
    length: int
    after: int
    pause: int


@dataclass(frozen=True, slots=True)
class Trace:
    name: str
    chunk_size: int
    block_size: int
    files: list[FileEntry]
    reads: list[Read]

    @property
    def asked(self) -> int:
        return sum(read.length for read in self.reads)


def load(name: str) -> Trace:
    """The recorded trace of that name, see tools/trace."""
    with gzip.open(TRACES / f"{name}.jsonl.gz", "rt") as lines:
        header, *rows = map(json.loads, lines)
    rows = [row for row in rows if row[4]]  # the kernel asks for a page behind the end now and then
    ends: list[tuple[int, int]] = []  # what is under way: (end, number)
    ended, reads = (0, -1), []
    for number, (start, took, file, offset, length) in enumerate(rows):
        while ends and ends[0][0] <= start:
            ended = max(ended, heapq.heappop(ends))
        reads.append(Read(file, offset, length, ended[1], start - ended[0]))
        heapq.heappush(ends, (start + took, number))
    files = [FileEntry(path, size, executable=False, first_chunk=0) for path, size in header["files"]]
    return Trace(header["name"], header["chunk_size"], header["block_size"], files, reads)


class Policy(Protocol):
    """What decides: the real one, none at all, or one that knows the future."""

    def observe(self, file: int, offset: int, length: int) -> Plan: ...

    def refused(self, file: int, start: int, end: int) -> None: ...


class Real:
    """The policy of the mount."""

    def __init__(self, trace: Trace, window: int = 64 * MIB) -> None:
        options = ReadAheadOptions(window_bytes_max=window)
        self.model = ModelReadAhead(trace.files, trace.chunk_size, trace.block_size, options)

    def observe(self, file: int, offset: int, length: int) -> Plan:
        return self.model.observe(file, offset, length)

    def refused(self, file: int, start: int, end: int) -> None:
        self.model.file(file).refused(start, end)


class Nothing:
    """Fetches only what is asked for."""

    def observe(self, file: int, offset: int, length: int) -> Plan:
        return Plan()

    def refused(self, file: int, start: int, end: int) -> None:
        return None


class Oracle:
    """Fetches exactly the blocks that will be asked for, in that order, a window of them ahead."""

    def __init__(self, trace: Trace, window: int = 64 * MIB) -> None:
        self._chunk, self._block, self._window = trace.chunk_size, trace.block_size, window
        seen: set[tuple[int, int]] = set()
        self._firsts: list[list[tuple[int, int]]] = []  # the blocks that each read is the first to ask for
        for read in trace.reads:
            blocks = range(read.offset // self._block, -(-(read.offset + read.length) // self._block))
            self._firsts.append([(read.file, b) for b in blocks if (read.file, b) not in seen])
            seen.update(self._firsts[-1])
        self._at = self._next = 0
        self._ahead = 0

    def observe(self, file: int, offset: int, length: int) -> Plan:
        self._ahead -= len(self._firsts[self._at]) if self._at < self._next else 0
        self._at += 1
        self._next = max(self._next, self._at)
        wanted: list[tuple[int, tuple[int, int]]] = []
        while self._next < len(self._firsts) and self._ahead * self._block < self._window:
            for where, block in self._firsts[self._next]:
                start = block * self._block
                if wanted and wanted[-1][0] == where and wanted[-1][1][1] == start and start % self._chunk:
                    wanted[-1] = (where, (wanted[-1][1][0], start + self._block))
                else:
                    wanted.append((where, (start, start + self._block)))
            self._ahead += len(self._firsts[self._next])
            self._next += 1
        return Plan(following=tuple(wanted))

    def refused(self, file: int, start: int, end: int) -> None:
        return None


@dataclass(frozen=True, slots=True)
class World:
    """Times in microseconds, bandwidth in bytes each. `pace` 1: the program takes its own time too, 0: none."""

    latency: float = 1000.0
    bandwidth: float = 500.0
    parallel: int = 16
    slots: int = 128
    service: float = 50.0
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """`stall`: how much longer the program took than with everything in memory. `fetches`: requests to nodes."""

    stall: float
    asked: int
    fetched: int
    wasted: int
    fetches: int

    @property
    def ratio(self) -> float:
        return self.fetched / self.asked


class Mount:
    """Memory and nodes. `ready[run][block]` is the time at which a block is there."""

    def __init__(self, trace: Trace, policy: Policy, world: World) -> None:
        self._trace, self._policy, self._world = trace, policy, world
        self._unread: OrderedDict[tuple[int, int], dict[int, float]] = OrderedDict()
        self._consumed: OrderedDict[tuple[int, int], dict[int, float]] = OrderedDict()
        self._lanes = [0.0] * world.parallel
        self._wire = self._urgent = 0.0
        self._fetched: set[tuple[int, int]] = set()
        self._asked: set[tuple[int, int]] = set()
        self.fetched_bytes = self.fetches = 0

    def run(self) -> Result:
        ends: list[float] = []
        ideal: list[float] = []
        before = before_ideal = 0.0
        for read in self._trace.reads:
            pause = read.pause * self._world.pace
            before = max(before, (ends[read.after] if read.after >= 0 else 0.0) + pause)
            before_ideal = max(before_ideal, (ideal[read.after] if read.after >= 0 else 0.0) + pause)
            ends.append(self._read(read, before))
            ideal.append(before_ideal + self._world.service)
        wasted = len(self._fetched - self._asked) * self._trace.block_size
        stall = max(ends) - max(ideal)
        return Result(stall, self._trace.asked, self.fetched_bytes, wasted, self.fetches)

    def _read(self, read: Read, now: float) -> float:
        assert read.offset + read.length <= self._trace.files[read.file].size
        plan = self._policy.observe(read.file, read.offset, read.length)
        block = self._trace.block_size
        ready = now
        ahead = list(plan.ahead)
        for part in spans(read.offset, read.length, self._trace.chunk_size):
            base = part.chunk * self._trace.chunk_size
            first, stop = part.start // block, -(-part.end // block)
            # What touches this read in its chunk is one request with it.
            if (
                ahead
                and ahead[0][0] // self._trace.chunk_size == part.chunk
                and ahead[0][0] <= base + stop * block
                and ahead[0][1] >= base + first * block
            ):
                start, end = ahead.pop(0)
                first, stop = min(first, (start - base) // block), max(stop, -(-(end - base) // block))
            blocks = self._demand((read.file, part.chunk), first, stop, now)
            wanted = range(part.start // block, -(-part.end // block))
            self._asked.update((read.file, base // block + b) for b in wanted)
            ready = max(ready, *(blocks[b] for b in wanted))
        for file, (start, stop) in [*((read.file, r) for r in ahead), *plan.following]:
            for part in spans(start, stop - start, self._trace.chunk_size):
                where = part.chunk * self._trace.chunk_size
                if not self._ahead((file, part.chunk), part.start // block, -(-part.end // block), now):
                    self._policy.refused(file, where + part.start, where + part.end)
        for start, stop in plan.drop:
            for part in spans(start, stop - start, self._trace.chunk_size):
                dropped = self._unread.pop((read.file, part.chunk), None)
                if dropped is not None:
                    self._consumed[read.file, part.chunk] = dropped
                    self._consumed.move_to_end((read.file, part.chunk), last=False)
        return ready + self._world.service

    def _demand(self, key: tuple[int, int], first: int, end: int, now: float) -> dict[int, float]:
        blocks = self._unread.pop(key, None) or self._consumed.pop(key, None)
        if blocks is None:
            if len(self._unread) + len(self._consumed) >= self._world.slots:
                (self._consumed or self._unread).popitem(last=False)
            blocks = {}
        self._consumed[key] = blocks
        missing = [b for b in range(first, end) if b not in blocks]
        if missing:
            begin = max(now + self._world.latency, self._urgent)
            took = self._deliver(key, blocks, missing, begin)
            self._urgent, self._wire = begin + took, max(self._wire, begin) + took
        return blocks

    def _ahead(self, key: tuple[int, int], first: int, end: int, now: float) -> bool:
        blocks = self._unread.get(key)
        if blocks is None:
            blocks = self._consumed.get(key)
        if blocks is None:
            if len(self._unread) >= self._world.slots * 3 // 4:
                return False
            if len(self._unread) + len(self._consumed) >= self._world.slots:
                self._consumed.popitem(last=False)
            blocks = self._unread[key] = {}
        missing = [b for b in range(first, end) if b not in blocks]
        if missing:
            lane = heapq.heappop(self._lanes)
            begin = max(max(lane, now) + self._world.latency, self._wire)
            self._wire = begin + self._deliver(key, blocks, missing, begin)
            heapq.heappush(self._lanes, self._wire)
        return True

    def _deliver(self, key: tuple[int, int], blocks: dict[int, float], missing: list[int], begin: float) -> float:
        """The blocks of one request arrive one after the other; how long that takes."""
        file, chunk = key
        base = chunk * (self._trace.chunk_size // self._trace.block_size)
        size = self._trace.files[file].size
        at = 0.0
        for number in missing:
            length = min(self._trace.block_size, size - (base + number) * self._trace.block_size)
            at += length / self._world.bandwidth
            blocks[number] = begin + at
            self._fetched.add((file, base + number))
            self.fetched_bytes += length
        self.fetches += 1
        return at


def simulate(trace: Trace, policy: Policy, world: World = World()) -> Result:
    return Mount(trace, policy, world).run()
