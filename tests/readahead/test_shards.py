"""From one shard to the next, and the bookkeeping of what was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.coverage import Coverage
from shardfs.core.manifest import FileEntry
from shardfs.core.readahead import ReadAheadOptions
from shardfs.core.shards import ModelReadAhead, successors

MIB = 2**20
BLOCK, CHUNK = 256 * 1024, 4 * MIB


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"),
        ("model-00009-of-00010.safetensors", "model-00010-of-00010.safetensors"),
        ("a/b7/shard_9.bin", "a/b7/shard_10.bin"),
        ("consolidated.00.pth", "consolidated.01.pth"),
        ("12", "13"),
    ],
)
def test_the_next_name(path, first):
    assert successors(path)[0] == first


def test_no_number_no_next_name():
    assert successors("model.safetensors") == successors("v2/model.bin") == successors("") == []
    assert successors("x" + "9" * 200) == []


def model(*sizes: int, name: str = "model-{:05}.safetensors", **options: int) -> ModelReadAhead:
    files = [
        FileEntry(name.format(number + 1), size, executable=False, first_chunk=0) for number, size in enumerate(sizes)
    ]
    return ModelReadAhead(files, CHUNK, BLOCK, ReadAheadOptions(**options))


def walk(readahead: ModelReadAhead, number: int, start: int, end: int) -> list[tuple[int, tuple[int, int]]]:
    """What is asked for of other files."""
    found = []
    for at in range(start, end, MIB):
        found += readahead.observe(number, at, min(MIB, end - at)).following
    return found


def test_the_next_shard_begins_before_it_is_opened():
    readahead = model(100 * MIB, 100 * MIB, 100 * MIB)
    assert walk(readahead, 0, 0, 40 * MIB) == []
    following = walk(readahead, 0, 40 * MIB, 100 * MIB)
    assert {number for number, _ in following} == {1}
    assert [span for _, span in following] == [(at, at + CHUNK) for at in range(0, 64 * MIB, CHUNK)]
    assert readahead.file(1).coverage.ahead_bytes == 64 * MIB
    # The reader arrives, and nothing of that is asked for a second time.
    plan = readahead.observe(1, 0, MIB)
    assert plan.whole
    assert all(start >= 64 * MIB for start, _ in plan.ahead)


def test_small_shards_are_looked_over_within_the_window():
    readahead = model(*[8 * MIB] * 40)
    following = walk(readahead, 0, 0, 8 * MIB)
    assert {number for number, _ in following} == {1, 2, 3, 4}
    assert sum(end - start for _, (start, end) in following) <= 64 * MIB


@pytest.mark.parametrize("name", ["model-{:05}.txt", "part{}"])
def test_a_shard_that_was_hardly_read_leads_nowhere(name):
    readahead = model(100 * MIB, 100 * MIB, name=name)
    assert walk(readahead, 0, 60 * MIB, 100 * MIB) == []


def test_the_last_shard_leads_nowhere():
    readahead = model(20 * MIB, 20 * MIB)
    assert walk(readahead, 1, 0, 20 * MIB) == []


def test_a_shard_in_use_is_left_to_its_readers():
    readahead = model(100 * MIB, 100 * MIB)
    readahead.observe(1, 50 * MIB, 4096)
    assert walk(readahead, 0, 0, 100 * MIB) == []


def test_states_are_few():
    readahead = model(*[MIB] * 500)
    for number in range(500):
        readahead.observe(number, 0, 4096)
    assert len(readahead._states) == 64


def test_files_are_found_by_the_bytes_of_their_names():
    names = sorted(["a", "B", "ä", "z/1", "z-1", "𝄞", "ﬀ"], key=str.encode)
    readahead = ModelReadAhead([FileEntry(name, 1, executable=False, first_chunk=0) for name in names], CHUNK, BLOCK)
    assert [readahead.number(name) for name in names] == list(range(7))
    assert readahead.number("b") is readahead.number("") is None


@st.composite
def actions(draw):
    start = draw(st.integers(0, 99))
    return (
        draw(st.sampled_from(["read", "claim", "give_back", "forget_read"])),
        start,
        draw(st.integers(start + 1, 100)),
    )


@given(st.lists(actions(), max_size=40), st.integers(1, 12), st.integers(1, 10), st.integers(0, 100))
def test_coverage_against_a_list(script, cell, step, budget):
    """Every operation against the same thing done cell by cell."""
    coverage, size = Coverage(100, cell), 100
    cells = [0] * -(-size // cell)
    for action, start, end in script:
        inside = range(start // cell, -(-end // cell))
        if action == "read":
            assert coverage.read(start, end) == any(cells[n] != 1 for n in inside)
            for n in inside:
                cells[n] = 1
        elif action == "claim":
            before = sum(state == 2 for state in cells)
            taken = {
                n for a, b in coverage.claim(start, end, budget, step * cell) for n in range(a // cell, -(-b // cell))
            }
            assert all(cells[n] == 0 for n in taken)
            assert taken <= set(inside)
            for n in taken:
                cells[n] = 2
            assert (sum(state == 2 for state in cells) - before) * cell <= budget
            if budget >= 100 + cell:
                assert all(cells[n] for n in inside)
        elif action == "give_back":
            given = {n for a, b in coverage.give_back(start, end) for n in range(a // cell, -(-b // cell))}
            assert given == {n for n in inside if cells[n] == 2}
            for n in given:
                cells[n] = 0
        else:
            coverage.forget_read(start, end)
            for n in inside:
                cells[n] = 0 if cells[n] == 1 else cells[n]
        assert list(coverage._cells) == cells
        assert coverage.ahead_bytes == cells.count(2) * cell
        free = [n for n in inside if cells[n] == 0]
        assert coverage.untouched(start, end) == (max(start, free[0] * cell) if free else -1)
        assert coverage.untouched_before(start, end) == (min(end, (free[-1] + 1) * cell) if free else -1)
        assert coverage.ahead_in(start, end) == any(cells[n] == 2 for n in inside)
