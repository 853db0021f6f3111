"""Read-ahead under the patterns of real loaders. A chunk is 4 MiB, the kernel asks in 128 KiB or 1 MiB."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.readahead import Plan, ReadAhead, ReadAheadOptions

KIB, MIB = 1024, 1024 * 1024
CHUNK = 4 * MIB
GIB = 1024 * MIB
WINDOW = 64 * MIB // CHUNK


class Reader:
    """Counts what a reader would have fetched if every plan were followed."""

    def __init__(self, size: int = GIB, **options) -> None:
        self.size = size
        self.state = ReadAhead(size, CHUNK, ReadAheadOptions(**options))
        self.whole: set[int] = set()
        self.ahead: set[int] = set()
        self.misses = 0

    def read(self, offset: int, length: int) -> Plan:
        length = min(length, self.size - offset)
        touched = set(range(offset // CHUNK, (offset + length - 1) // CHUNK + 1))
        self.misses += not touched <= self.whole | self.ahead
        plan = self.state.observe(offset, length)
        if plan.whole:
            self.whole |= touched
        self.ahead |= set(plan.ahead)
        return plan

    def walk(self, start: int, end: int, step: int = 128 * KIB) -> list[Plan]:
        return [self.read(at, min(step, end - at)) for at in range(start, end, step)]

    @property
    def fetched(self) -> set[int]:
        return self.whole | self.ahead


@pytest.mark.parametrize("step", [4 * KIB, 128 * KIB, MIB, 4 * MIB, 10 * MIB])
def test_sequential_from_the_beginning(step):
    reader = Reader()
    plans = reader.walk(0, 200 * MIB, step)
    assert all(plan.whole for plan in plans)
    assert plans[0].ahead.start >= 1
    assert len(plans[-1].ahead) == WINDOW
    assert reader.misses <= 1 + 3 * (step == 10 * MIB)
    assert plans[-1].ahead.start == -(-200 * MIB // CHUNK)


@pytest.mark.parametrize("start", [CHUNK, 100 * MIB + 4096, 512 * MIB - 128 * KIB])
def test_sequential_from_somewhere(start):
    reader = Reader()
    first, second, *rest = reader.walk(start, start + 100 * MIB)
    assert first == Plan(False, range(first.ahead.start, first.ahead.start))  # a lone read fetches its blocks
    assert second.whole
    assert len(second.ahead) == 1
    assert len(rest[-1].ahead) == WINDOW


def test_the_window_doubles_as_the_reader_goes_on():
    sizes = [len(plan.ahead) for plan in Reader().walk(0, 8 * MIB, 128 * KIB)]
    assert sizes == sorted(sizes)
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16]
    assert sizes[7] == 1  # a header of a MiB does not fetch half a model
    assert sizes[CHUNK // (128 * KIB)] == WINDOW  # but one chunk of it is enough


@pytest.mark.parametrize(("limit", "chunks"), [(1, 1), (CHUNK, 1), (3 * CHUNK, 3), (10 * CHUNK, 10)])
def test_the_window_is_bounded(limit, chunks):
    assert max(len(plan.ahead) for plan in Reader(window_bytes_max=limit).walk(0, 200 * MIB)) == chunks


@pytest.mark.parametrize("size", [1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
def test_nothing_is_wanted_behind_the_end(size):
    reader = Reader(size)
    plans = reader.walk(0, size)
    last = (size - 1) // CHUNK
    assert max(reader.fetched) == last
    assert not plans[-1].ahead


def test_a_jump_and_back():
    """torch's zip reader looks at the end of the file first, then goes back; others jump in the middle."""
    reader = Reader()
    reader.read(GIB - 64 * KIB, 64 * KIB)
    assert reader.fetched == set()
    reader.walk(0, 40 * MIB)
    wide = reader.read(40 * MIB, 128 * KIB)
    for jump in (900 * MIB, 500 * MIB, 700 * MIB):
        assert not reader.read(jump, 4 * KIB).whole
    again = reader.read(40 * MIB + 128 * KIB, 128 * KIB)
    assert again.ahead == wide.ahead


def test_many_lone_reads_between_cost_a_stream_nothing():
    reader = Reader()
    chance = random.Random(1)
    reader.walk(0, 20 * MIB)
    for at in range(20 * MIB, 60 * MIB, 128 * KIB):
        for _ in range(20):
            reader.read(chance.randrange(300 * MIB, 1000 * MIB), 4 * KIB)
        assert len(reader.read(at, 128 * KIB).ahead) == WINDOW


@pytest.mark.parametrize("readers", [2, 4, 8])
@pytest.mark.parametrize("step", [128 * KIB, MIB])
def test_readers_of_disjoint_parts_through_one_descriptor(readers, step):
    reader = Reader()
    part = GIB // readers
    chance = random.Random(readers)
    positions = [rank * part for rank in range(readers)]
    plans: dict[int, Plan] = {}
    for _ in range(readers * 60 * MIB // step):
        rank = chance.randrange(readers)
        plans[rank] = reader.read(positions[rank], step)
        positions[rank] += step
    for rank, plan in plans.items():
        assert plan.whole
        assert len(plan.ahead) == WINDOW
        assert plan.ahead.start == -(-positions[rank] // CHUNK)
    assert reader.misses <= 3 * readers


@pytest.mark.parametrize("size", [100 * MIB, GIB, 100 * GIB])
@pytest.mark.parametrize("length", [4 * KIB, 64 * KIB])
def test_random_reads_fetch_only_their_blocks(size, length):
    reader = Reader(size)
    chance = random.Random(7)
    plans = [reader.read(chance.randrange(1, (size - length) // 4096) * 4096, length) for _ in range(5000)]
    whole = sum(plan.whole for plan in plans)
    ahead = sum(len(plan.ahead) for plan in plans)
    # By accident two reads lie side by side; that is forgiven as soon as they do not go on.
    adjacent = 16 * 2 * length / size * len(plans)
    assert whole <= 20 + 6 * adjacent
    assert ahead <= 20 + 6 * adjacent


def test_a_header_and_then_the_tensors():
    """safetensors: 8 bytes, the header, then tensor after tensor; the kernel rounds to pages."""
    reader = Reader()
    reader.read(0, 8)
    reader.read(8, 900 * KIB)
    assert reader.fetched <= {0, 1, 2}
    reader.walk(900 * KIB + 8, 100 * MIB)
    assert reader.misses == 1


def test_tensors_with_gaps_are_a_stream():
    """One rank reads its half of each tensor: 1 MiB read, 1 MiB passed over."""
    reader = Reader()
    for at in range(0, 200 * MIB, 2 * MIB):
        reader.walk(at, at + MIB)
    assert reader.misses == 1


def test_backwards_fetches_no_more_than_is_read():
    reader = Reader()
    for at in range(GIB - 128 * KIB, GIB - 64 * MIB, -128 * KIB):
        assert not reader.read(at, 128 * KIB).ahead


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("step", [128 * KIB, MIB])
def test_the_kernel_asks_out_of_order(depth, step):
    chance = random.Random(depth)
    reader = Reader()
    waiting = list(range(0, 200 * MIB, step))
    last = None
    while waiting:
        last = reader.read(waiting.pop(chance.randrange(min(depth, len(waiting)))), step)
    assert reader.misses <= 3
    assert last is not None
    assert len(last.ahead) == WINDOW


def test_reading_the_same_place_again_and_again_stays_small():
    reader = Reader()
    for _ in range(1000):
        reader.read(600 * MIB, 64 * KIB)
    assert reader.fetched == set()


reads = st.tuples(st.integers(0, 40 * CHUNK - 1), st.sampled_from([1, 4096, 128 * KIB, MIB, 5 * CHUNK]))


@given(st.lists(reads, max_size=60), st.integers(1, 64 * MIB), st.integers(1, 16))
def test_plans_are_always_within_bounds(asked, window, streams):
    size = 40 * CHUNK
    state = ReadAhead(size, CHUNK, ReadAheadOptions(window, streams))
    for offset, length in asked:
        end = min(offset + length, size)
        plan = state.observe(offset, end - offset)
        assert len(plan.ahead) <= max(1, window // CHUNK)
        assert all(end // CHUNK <= chunk < 40 for chunk in plan.ahead)
        assert plan.whole or not plan.ahead
        assert len(state._streams) <= streams
