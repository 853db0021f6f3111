"""Read-ahead under single patterns. A chunk is 4 MiB, a block 256 KiB; the kernel asks in 128 KiB or 1 MiB."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.readahead import NOTHING, Plan, ReadAhead, ReadAheadOptions

KIB, MIB = 1024, 1024 * 1024
BLOCK, CHUNK = 256 * KIB, 4 * MIB
GIB = 1024 * MIB
WINDOW = 64 * MIB


class Reader:
    """Follows every plan and counts in blocks what that would fetch; `misses` are reads that nothing had foreseen."""

    def __init__(self, size: int = GIB, **options) -> None:
        self.size = size
        self.state = ReadAhead(size, CHUNK, BLOCK, ReadAheadOptions(**options))
        self.ahead: set[int] = set()
        self.read_blocks: set[int] = set()
        self.misses = 0

    def read(self, offset: int, length: int) -> Plan:
        length = min(length, self.size - offset)
        touched = set(range(offset // BLOCK, -(-(offset + length) // BLOCK)))
        self.misses += not touched <= self.ahead | self.read_blocks
        self.read_blocks |= touched
        plan = self.state.observe(offset, length)
        for start, end in plan.ahead:
            assert start % BLOCK == 0
            assert start // CHUNK == (end - 1) // CHUNK
            self.ahead |= set(range(start // BLOCK, -(-end // BLOCK)))
        return plan

    def walk(self, start: int, end: int, step: int = 128 * KIB) -> list[Plan]:
        return [self.read(at, min(step, end - at)) for at in range(start, end, step)]

    @property
    def fetched(self) -> int:
        return len(self.ahead | self.read_blocks) * BLOCK

    def ahead_of(self, place: int) -> int:
        """Bytes without a gap from `place` on that were asked for ahead."""
        block = -(-place // BLOCK)
        while block in self.ahead:
            block += 1
        return max(0, block * BLOCK - place)


def proof(step: int) -> int:
    """How many reads of that size in a row may yet be what a kernel reads around a page fault."""
    return 8 if step >= MIB else 4


@pytest.mark.parametrize("step", [4 * KIB, 128 * KIB, MIB, 4 * MIB, 10 * MIB])
def test_sequential_from_the_beginning(step):
    reader = Reader()
    reader.walk(0, 200 * MIB, step)
    assert reader.misses <= (1 if step < 10 * MIB else 4)
    assert WINDOW - CHUNK <= reader.ahead_of(200 * MIB) <= WINDOW


@pytest.mark.parametrize("start", [CHUNK, 100 * MIB + 4096, 512 * MIB - 128 * KIB])
@pytest.mark.parametrize("step", [128 * KIB, MIB])
def test_sequential_from_somewhere(start, step):
    reader = Reader()
    plans = reader.walk(start, start + 100 * MIB, step)
    chance = proof(step)
    assert plans[:chance] == [NOTHING] * chance  # so many in a row are what a random read or a page fault can be
    assert plans[chance].ahead
    assert reader.misses <= chance + 1
    assert reader.ahead_of(start + 100 * MIB) >= WINDOW - CHUNK


def test_tensors_that_are_touched_before_they_are_read():
    """A mapped file "in sequence" (POSIX_FADV_SEQUENTIAL): 8 MiB around each page fault, twice the kernel's window."""
    reader = Reader()
    tensors = range(0, GIB, 32 * MIB)
    plans = [plan for at in tensors for plan in reader.walk(max(0, at - 4 * MIB), at + 4 * MIB, MIB)]
    assert reader.fetched <= len(tensors) * 8 * MIB + 2 * CHUNK  # nothing but what was asked for
    plans += [plan for at in tensors for plan in reader.walk(at + 4 * MIB, at + 28 * MIB, MIB)]
    assert not any(plan.drop for plan in plans)  # what is fetched is read
    assert reader.misses <= len(tensors) * (8 + 2)


def test_a_header_does_not_fetch_half_a_model():
    reader = Reader()
    reader.read(0, 4096)
    assert reader.fetched == CHUNK
    reader.walk(4096, 512 * KIB, 64 * KIB)
    assert reader.fetched <= 2 * CHUNK
    mapped = Reader()
    mapped.walk(0, 4 * MIB, MIB)  # the window around a page fault at the beginning
    assert mapped.fetched <= 2 * CHUNK


@pytest.mark.parametrize(("limit", "most"), [(1, CHUNK), (CHUNK, CHUNK), (3 * CHUNK, 3 * CHUNK), (WINDOW, WINDOW)])
def test_the_window_is_bounded(limit, most):
    reader = Reader(window_bytes_max=limit)
    for at in range(0, 200 * MIB, 128 * KIB):
        reader.read(at, 128 * KIB)
        assert reader.state.coverage.ahead_bytes <= most + CHUNK
        assert reader.ahead_of(at + 128 * KIB) <= most + CHUNK


@pytest.mark.parametrize("size", [1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
def test_a_small_file_is_fetched_once_and_whole(size):
    reader = Reader(size)
    plans = reader.walk(0, size)
    assert reader.ahead | reader.read_blocks == set(range(-(-size // BLOCK)))
    ranges = [span for plan in plans for span in plan.ahead]
    assert ranges == sorted(set(ranges))
    assert all(end <= size for _, end in ranges)


def test_a_jump_takes_nothing_from_what_is_coming():
    """torch's zip reader looks at the end of the file first, then goes back; others jump in the middle."""
    reader = Reader()
    assert reader.read(GIB - 64 * KIB, 64 * KIB) == NOTHING
    reader.walk(0, 40 * MIB)
    coming = reader.ahead_of(40 * MIB)
    for jump in (900 * MIB, 500 * MIB, 700 * MIB):
        assert reader.read(jump, 4 * KIB) == NOTHING
    before = reader.misses
    plans = reader.walk(40 * MIB, 80 * MIB)
    assert coming >= WINDOW - CHUNK
    assert reader.misses == before
    assert not any(plan.drop for plan in plans)


def test_many_lone_reads_between_cost_a_stream_nothing():
    reader = Reader()
    chance = random.Random(1)
    reader.walk(0, 20 * MIB)
    for at in range(20 * MIB, 60 * MIB, 128 * KIB):
        for _ in range(20):
            assert not reader.read(chance.randrange(300 * MIB, 1000 * MIB), 4 * KIB).drop
        reader.read(at, 128 * KIB)
        assert reader.ahead_of(at + 128 * KIB) >= WINDOW - 2 * CHUNK


@pytest.mark.parametrize("readers", [2, 4, 8])
@pytest.mark.parametrize("step", [128 * KIB, MIB])
def test_readers_of_disjoint_parts_share_the_window(readers, step):
    reader = Reader()
    part = GIB // readers
    chance = random.Random(readers)
    positions = [rank * part for rank in range(readers)]
    for _ in range(readers * 60 * MIB // step):
        rank = chance.randrange(readers)
        reader.read(positions[rank], step)
        positions[rank] += step
    for position in positions:
        assert reader.ahead_of(position) >= WINDOW // readers - 2 * CHUNK
    assert reader.misses <= (proof(step) + 1) * readers
    assert reader.state.coverage.ahead_bytes <= 2 * WINDOW


@pytest.mark.parametrize("size", [100 * MIB, GIB, 100 * GIB])
@pytest.mark.parametrize(("length", "count"), [(4 * KIB, 5000), (64 * KIB, 700), (256 * KIB, 200)])
def test_random_reads_fetch_only_their_blocks(size, length, count):
    reader = Reader(size)
    chance = random.Random(7)
    for _ in range(count):
        reader.read(chance.randrange(1, (size - length) // 4096) * 4096, length)
    if reader.state.coverage.read_bytes * 2 < size:
        assert not reader.ahead
    assert reader.fetched <= max(len(reader.read_blocks) * BLOCK, 2 * count * length + CHUNK)


def test_random_reads_by_a_kernel_that_reads_on():
    """With a window of 128 KiB, a read of 256 KiB arrives as three or four reads in a row."""
    reader = Reader()
    chance = random.Random(8)
    for _ in range(300):
        start = chance.randrange(1, (GIB - MIB) // 4096) * 4096
        reader.walk(start, start + chance.choice([384, 512]) * KIB)
    assert reader.fetched <= 1.05 * len(reader.read_blocks) * BLOCK


def test_random_page_faults_fetch_what_the_kernel_asks():
    """A window of 4 MiB around each fault: the kernel will ask for all of it, and for nothing behind it."""
    reader = Reader(100 * GIB)
    chance = random.Random(9)
    for _ in range(300):
        start = chance.randrange(1, 100 * GIB // 4096 - 1024) * 4096
        reader.walk(start, start + 4 * MIB, MIB)
    assert reader.fetched <= 1.01 * len(reader.read_blocks) * BLOCK


def test_tensors_in_the_order_of_their_names():
    """Stretches of 8 MiB in any order: after three of them, the rest of each is coming with its first read."""
    reader = Reader()
    order = list(range(0, GIB, 8 * MIB))
    random.Random(3).shuffle(order)
    for number, start in enumerate(order):
        before = reader.misses
        reader.walk(start, start + 8 * MIB, 128 * KIB)
        if number >= 4:
            assert reader.misses - before <= 1
        if number > len(order) * 3 // 4:
            assert reader.misses == before  # most of the file was read: the rest has been asked for
    assert reader.fetched == GIB


def test_a_stride_is_a_stream():
    """One rank reads its half of each tensor: 1 MiB read, 1 MiB passed over."""
    reader = Reader()
    for at in range(0, 200 * MIB, 2 * MIB):
        reader.walk(at, at + MIB)
    assert reader.misses <= 10
    assert reader.fetched <= 200 * MIB + WINDOW


@pytest.mark.parametrize("step", [128 * KIB, 256 * KIB, MIB])
def test_backwards_is_a_stream(step):
    reader = Reader()
    for at in range(GIB - step, GIB - 200 * MIB, -step):
        reader.read(at, step)
    assert reader.misses <= proof(step) + 2
    assert reader.fetched <= 200 * MIB + WINDOW


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("step", [128 * KIB, MIB])
def test_out_of_order_by_a_few(depth, step):
    chance = random.Random(depth)
    reader = Reader()
    waiting = list(range(0, 200 * MIB, step))
    while waiting:
        reader.read(waiting.pop(chance.randrange(min(depth, len(waiting)))), step)
    assert reader.misses <= (3 + 2 * depth) * proof(step) // 4
    assert reader.ahead_of(200 * MIB) >= WINDOW - 2 * CHUNK


def test_the_same_place_again_and_again_stays_small():
    reader = Reader()
    for _ in range(1000):
        reader.read(600 * MIB, 64 * KIB)
    assert reader.fetched == BLOCK


def test_a_file_that_the_kernel_has_lost_is_read_ahead_again():
    reader = Reader(100 * MIB)
    reader.walk(0, 100 * MIB)
    reader.ahead.clear()
    reader.read_blocks.clear()
    reader.walk(0, 100 * MIB)
    assert reader.misses <= 8


def test_what_was_refused_is_asked_for_again():
    reader = Reader()
    plan = next(plan for plan in reader.walk(0, 4 * MIB) if plan.ahead)
    start, end = plan.ahead[0]
    reader.state.refused(start, end)
    again = reader.state.observe(4 * MIB, 128 * KIB)
    assert [span for span in again.ahead if span[0] <= start < span[1]] or start < 4 * MIB


def test_what_an_abandoned_stream_wanted_is_dropped_at_last():
    reader = Reader(100 * GIB)
    dropped = 0
    for number in range(40):  # each becomes a stream of full width, and is left
        for plan in reader.walk(number * 2 * GIB, number * 2 * GIB + 40 * MIB, MIB):
            dropped += sum(end - start for start, end in plan.drop)
            assert reader.state.coverage.ahead_bytes <= 2 * WINDOW
    assert dropped >= 30 * 32 * MIB


def test_a_huge_file_costs_little_memory():
    state = ReadAhead(2**44, CHUNK, BLOCK)
    assert state.coverage.memory_bytes <= 1 << 20
    for at in range(0, 100 * MIB, MIB):
        assert state.observe(2**43 + at, MIB) == NOTHING or at > 4 * MIB


reads = st.tuples(st.integers(0, 40 * CHUNK - 1), st.sampled_from([1, 4096, 128 * KIB, MIB, 5 * CHUNK]))
runs = st.builds(
    lambda start, step, count: [(start + n * step, abs(step)) for n in range(count)],
    st.integers(0, 40 * CHUNK),
    st.sampled_from([4096, 128 * KIB, -128 * KIB, MIB, -MIB]),
    st.integers(1, 30),
)
paths = st.lists(st.one_of(reads.map(lambda read: [read]), runs), max_size=20)


@given(paths, st.integers(1, 64 * MIB), st.integers(1, 16), st.data())
def test_plans_are_always_within_bounds(path, window, streams, data):
    size = 40 * CHUNK - 77
    state = ReadAhead(size, CHUNK, BLOCK, ReadAheadOptions(window, streams))
    outstanding: set[int] = set()
    limit = 2 * max(window, CHUNK)
    for offset, length in [read for part in path for read in part]:
        if not 0 <= offset < size:
            continue
        end = min(offset + length, size)
        plan = state.observe(offset, end - offset)
        outstanding -= set(range(offset // BLOCK, -(-end // BLOCK)))
        for start, stop in plan.drop:
            assert start % BLOCK == 0
            assert set(range(start // BLOCK, -(-stop // BLOCK))) <= outstanding
            outstanding -= set(range(start // BLOCK, -(-stop // BLOCK)))
        for start, stop in plan.ahead:
            blocks = set(range(start // BLOCK, -(-stop // BLOCK)))
            assert 0 <= start < stop <= size
            assert start // CHUNK == (stop - 1) // CHUNK
            assert not blocks & outstanding
            outstanding |= blocks
            if data.draw(st.booleans()):
                state.refused(start, stop)
                outstanding -= blocks
        assert state.coverage.ahead_bytes == len(outstanding) * BLOCK
        assert len(outstanding) * BLOCK <= limit
        assert len(state._streams) <= streams
    state.give_up()
    assert state.coverage.ahead_bytes == 0
